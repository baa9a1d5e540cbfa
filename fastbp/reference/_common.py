"""What the references share: the type of an array, silence about overflow, and where a result goes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# The default of a mapping in a row of a table.
EMPTY: Mapping[str, Any] = MappingProxyType({})

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


def channels_first(x: Array, layout: str) -> Array:
    """Return images with the channels behind the first axis."""
    return x if layout[1] == "C" else np.moveaxis(x, -1, 1)


def channels_last(x: Array, layout: str) -> Array:
    """Return what `channels_first` made in its layout."""
    return x if layout[1] == "C" else np.moveaxis(x, 1, -1)


def constant(x: Array, digits: str) -> Any:
    """Return a number in x's dtype, rounded once."""
    return np.asarray(x).dtype.type(digits)


# ---- sources that several entries of the tables name -----------------------------------------------------------------

RUMELHART = (
    'D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", '
    "Nature 323, 1986"
)
LECUN = 'Y. LeCun, L. Bottou, G. B. Orr and K.-R. Müller, "Efficient BackProp", 1998'
NAIR = 'V. Nair and G. E. Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010'
BISHOP = 'C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2'
MAAS = (
    'A. L. Maas, A. Y. Hannun and A. Y. Ng, "Rectifier nonlinearities improve neural network acoustic models", '
    "ICML 2013"
)
CLEVERT = (
    'D.-A. Clevert, T. Unterthiner and S. Hochreiter, "Fast and accurate deep network learning by exponential linear '
    'units (ELUs)", ICLR 2016'
)
KLAMBAUER = 'G. Klambauer, T. Unterthiner, A. Mayr and S. Hochreiter, "Self-normalizing neural networks", NeurIPS 2017'
BARRON = 'J. T. Barron, "Continuously differentiable exponential linear units", 2017'
HENDRYCKS = 'D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", 2016'
MISRA = 'D. Misra, "Mish: a self regularized non-monotonic activation function", BMVC 2020'
DUGAS = (
    'C. Dugas, Y. Bengio, F. Bélisle, C. Nadeau and R. Garcia, "Incorporating second-order functional knowledge for '
    'better option pricing", NeurIPS 2000'
)
ELLIOTT = 'D. L. Elliott, "A better activation function for artificial neural networks", 1993'
HOWARD = 'A. Howard et al., "Searching for MobileNetV3", ICCV 2019'
KRIZHEVSKY = 'A. Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010'
