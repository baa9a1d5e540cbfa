"""What the twins share: the type of an array, silence about overflow, and where a result goes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Overflow to inf and inf - inf = NaN are answers here, not accidents.
quiet = np.errstate(all="ignore")


def give(result: Any, out: Array | None) -> Array:
    """Put the result where it goes; numpy turns 0-d results into scalars."""
    if out is None:
        return np.asarray(result)
    out[...] = result
    return out


def give_all(results: tuple[Any, ...], out: tuple[Array | None, ...] | None) -> tuple[Any, ...]:
    """Put each of several results where it goes; None stays None."""
    places = (None,) * len(results) if out is None else out
    return tuple(None if r is None else give(r, place) for r, place in zip(results, places, strict=True))


# ---- sources that several entries of the tables name -----------------------------------------------------------------

RUMELHART = (
    'D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", '
    "Nature 323, 1986"
)
LECUN = 'Y. LeCun, L. Bottou, G. B. Orr and K.-R. Müller, "Efficient BackProp", 1998'
NAIR = 'V. Nair and G. E. Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010'
BISHOP = 'C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2'
