"""Initial weights by name.

The rule of each name is its width alone: with weights that are independent, have mean zero and this width, the variance
of the signals (and, for Glorot's, of the gradients) stays the same from layer to layer.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp._frozen import Record
from fastbp._names import unknown
from fastbp.random import Philox
from fastbp.reference import ACTIVATIONS

__all__ = ["INITIALIZERS", "Initializer", "default_for", "fill", "lookup", "names"]


def _uniform(rng: Philox, weight: NDArray[np.float64], width: float) -> None:
    rng.uniform(weight, -width, width)


def _normal(rng: Philox, weight: NDArray[np.float64], width: float) -> None:
    rng.normal(weight, 0.0, width)


def _constant(rng: Philox, weight: NDArray[np.float64], width: float) -> None:
    weight[...] = width


class Initializer(Record):
    """Hold the rule of one name.

    Attributes
    ----------
    name : str
        What users write.
    draw : callable
        ``draw(rng, weight, width)`` fills the weights.
    width : callable
        ``width(n_in, n_out)``: the limit of a uniform, the standard deviation of a normal distribution.
    formula : str
        The distribution in plain text.
    source : str
        Where the rule comes from.
    aliases : tuple of str
        Other names that mean the same.
    """

    name: str
    draw: Callable[[Philox, NDArray[np.float64], float], None]
    width: Callable[[int, int], float]
    formula: str
    source: str
    aliases: tuple[str, ...] = ()


GLOROT = "X. Glorot, Y. Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010"
HE = "K. He, X. Zhang, S. Ren, J. Sun, Delving deep into rectifiers, ICCV 2015"
LECUN = "Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller, Efficient backprop, Neural networks: tricks of the trade, 1998"

# One more: one entry here. Its tests, its place in the messages and its row in the documents follow.
INITIALIZERS: dict[str, Initializer] = {
    rule.name: rule
    for rule in (
        Initializer(
            name="glorot_uniform",
            draw=_uniform,
            width=lambda n_in, n_out: math.sqrt(6.0 / (n_in + n_out)),
            formula="U(±sqrt(6 / (n_in + n_out)))",
            source=GLOROT,
            aliases=("xavier_uniform",),
        ),
        Initializer(
            name="glorot_normal",
            draw=_normal,
            width=lambda n_in, n_out: math.sqrt(2.0 / (n_in + n_out)),
            formula="N(0, 2 / (n_in + n_out))",
            source=GLOROT,
            aliases=("xavier_normal",),
        ),
        Initializer(
            name="he_uniform",
            draw=_uniform,
            width=lambda n_in, n_out: math.sqrt(6.0 / n_in),
            formula="U(±sqrt(6 / n_in))",
            source=HE,
            aliases=("kaiming_uniform",),
        ),
        Initializer(
            name="he_normal",
            draw=_normal,
            width=lambda n_in, n_out: math.sqrt(2.0 / n_in),
            formula="N(0, 2 / n_in)",
            source=HE,
            aliases=("kaiming_normal",),
        ),
        Initializer(
            name="lecun_uniform",
            draw=_uniform,
            width=lambda n_in, n_out: math.sqrt(3.0 / n_in),
            formula="U(±sqrt(3 / n_in))",
            source=LECUN,
        ),
        Initializer(
            name="lecun_normal",
            draw=_normal,
            width=lambda n_in, n_out: math.sqrt(1.0 / n_in),
            formula="N(0, 1 / n_in)",
            source=LECUN,
        ),
        Initializer(
            name="zeros",
            draw=_constant,
            width=lambda n_in, n_out: 0.0,
            formula="0",
            source="for biases and linear models; hidden units that all start equal stay equal",
        ),
    )
}

_BY_ANY_NAME = {name: rule for rule in INITIALIZERS.values() for name in (rule.name, *rule.aliases)}


def names() -> tuple[str, ...]:
    """List the names that `fill` knows, without their aliases.

    Returns
    -------
    tuple of str
        In the order of `INITIALIZERS`.

    Examples
    --------
    >>> from fastbp import initializers
    >>> initializers.names()[:2]
    ('glorot_uniform', 'glorot_normal')
    """
    return tuple(INITIALIZERS)


def lookup(name: str) -> Initializer:
    """Find the rule of a name or of an alias.

    Parameters
    ----------
    name : str
        For example "he_normal" or "kaiming_normal".

    Returns
    -------
    Initializer
        The entry of `INITIALIZERS`.

    Raises
    ------
    TypeError
        If the name is no string.
    ValueError
        If it is unknown; the message lists what is known.

    Examples
    --------
    >>> from fastbp import initializers
    >>> initializers.lookup("xavier_normal").formula
    'N(0, 2 / (n_in + n_out))'
    """
    if not isinstance(name, str):
        raise TypeError(f"the initializer must be given by its name, a string, got {name!r}")
    if name not in _BY_ANY_NAME:
        raise ValueError(unknown("initializer", name, _BY_ANY_NAME))
    return _BY_ANY_NAME[name]


def default_for(activation: str | None) -> str:
    """Name the usual initializer of the weights in front of an activation.

    Parameters
    ----------
    activation : str or None
        The activation's name; None for a layer that none follows.

    Returns
    -------
    str
        What the table of activations says: "he_uniform" for relu and its kin, which pass half of their inputs on (He's
        factor of 2 makes up for it), "lecun_normal" for "selu", whose own scale does that; otherwise "glorot_uniform".

    Examples
    --------
    >>> from fastbp import initializers
    >>> initializers.default_for("relu"), initializers.default_for(None)
    ('he_uniform', 'glorot_uniform')
    """
    rule = ACTIVATIONS.get(activation or "")
    return "glorot_uniform" if rule is None else rule.init


def fill(name: str, rng: Philox, weight: NDArray[np.float64]) -> None:
    """Fill a weight matrix with initial values.

    ============== ==================================== =====================
    name           distribution                         source
    ============== ==================================== =====================
    glorot_uniform U(±sqrt(6 / (n_in + n_out)))         Glorot & Bengio 2010
    glorot_normal  N(0, 2 / (n_in + n_out))             Glorot & Bengio 2010
    he_uniform     U(±sqrt(6 / n_in))                   He et al. 2015
    he_normal      N(0, 2 / n_in)                       He et al. 2015
    lecun_uniform  U(±sqrt(3 / n_in))                   LeCun et al. 1998
    lecun_normal   N(0, 1 / n_in)                       LeCun et al. 1998
    zeros          0
    ============== ==================================== =====================

    The second argument of N is the variance. "xavier" may stand for "glorot" and "kaiming" for "he".

    Parameters
    ----------
    name : str
        One of the table.
    rng : Philox
        Where the numbers come from; it advances by one position an element ("zeros": by none).
    weight : ndarray of float64, shape (n_in, n_out), or (out, in, *window) of a convolution
        Filled in place, in C order; any strides. n_in is in times the elements of the window, n_out out times these.

    Raises
    ------
    TypeError
        If `name` is no string, `rng` no `Philox` or `weight` no float64 array.
    ValueError
        If `name` is unknown, or `weight` is read-only, not 2-D or empty.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import initializers
    >>> from fastbp.random import Philox
    >>> w = np.empty((4, 2))
    >>> initializers.fill("glorot_uniform", Philox(seed=0), w)
    >>> bool(np.abs(w).max() <= 1.0)
    True
    """
    rule = lookup(name)
    if not isinstance(rng, Philox):
        raise TypeError(f"rng must be a fastbp.random.Philox, got {type(rng).__name__}")
    n_in, n_out = _sizes(weight)
    rule.draw(rng, weight, rule.width(n_in, n_out))


def _sizes(weight: Any) -> tuple[int, int]:
    if not isinstance(weight, np.ndarray):
        raise TypeError(f"weight must be a numpy array of dtype float64, got {type(weight).__name__}")
    if weight.dtype != np.float64:
        raise TypeError(f"weight must have dtype float64 (round it afterwards), got {weight.dtype}")
    if weight.ndim < 2 or weight.size == 0:
        raise ValueError(
            f"weight must have shape (n_in, n_out) or (out, in, *window) with sizes of at least 1, got {weight.shape}"
        )
    if not weight.flags.writeable:
        raise ValueError("weight must be writable, got a read-only array")
    if weight.ndim == 2:
        return weight.shape[0], weight.shape[1]
    window = math.prod(weight.shape[2:])
    return weight.shape[1] * window, weight.shape[0] * window
