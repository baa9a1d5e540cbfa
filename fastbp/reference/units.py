"""The table of the units that are neither linear nor elementwise, and the reference of flatten."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from fastbp._frozen import Record
from fastbp.reference._common import BISHOP, Array, give
from fastbp.reference.distributions import log_softmax, log_softmax_backward, softmax, softmax_backward
from fastbp.reference.embeddings import embedding, embedding_backward
from fastbp.reference.masks import dropout, dropout_backward
from fastbp.reference.norms import (
    batch_norm,
    batch_norm_backward,
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)
from fastbp.reference.parametric import prelu, prelu_backward

SRIVASTAVA = (
    'N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever and R. Salakhutdinov, "Dropout: a simple way to prevent '
    'neural networks from overfitting", JMLR 15, 2014'
)
BENGIO = 'Y. Bengio, R. Ducharme, P. Vincent and C. Jauvin, "A neural probabilistic language model", JMLR 3, 2003'


def flatten(x: Array, *, out: Array | None = None) -> Array:
    """y = x with all axes but the first in one, in C order."""
    return give(np.reshape(x, (x.shape[0], prod(x.shape[1:]))), out)


def flatten_backward(dy: Array, x: Array, *, out: Array | None = None) -> Array:
    """dx = dy in the shape of x."""
    return give(np.reshape(dy, x.shape), out)


class UnitRule(Record):
    """What there is to know about one unit.

    Attributes
    ----------
    name, unit
        Of the function (``"layer_norm"``) and of the class (``"LayerNorm"``).
    kind
        The engine's name.
    forward, backward
        The numpy reference implementations.
    formula, gradient, source
        As plain text, for docstrings and tables.
    arguments
        What the class is made with for n inputs, as the tests and benchmarks do.
    parameters
        The names of its parameters.
    is_random
        Whether its output depends on random numbers.
    over_rows
        Whether a row's output depends on the other rows.
    """

    name: str
    unit: str
    kind: str
    forward: Callable[..., Array]
    backward: Callable[..., Any]
    formula: str
    gradient: str
    source: str
    arguments: Callable[[int], tuple[Any, ...]]
    parameters: tuple[str, ...] = ()
    is_random: bool = False
    over_rows: bool = False


def _none(n: int) -> tuple[Any, ...]:
    return ()


def _width(n: int) -> tuple[Any, ...]:
    return (n,)


UNITS: dict[str, UnitRule] = {
    rule.name: rule
    for rule in (
        UnitRule(
            name="prelu",
            unit="PReLU",
            kind="prelu",
            forward=prelu,
            backward=prelu_backward,
            formula="y = x where x > 0, else slope * x",
            gradient="dx = dy where x > 0, else slope * dy; dslope = sum of x * dy where x <= 0",
            source='K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers", ICCV 2015',
            arguments=_width,
            parameters=("slope",),
        ),
        UnitRule(
            name="dropout",
            unit="Dropout",
            kind="dropout",
            forward=dropout,
            backward=dropout_backward,
            formula="y = x / (1 - p) with probability 1 - p, else 0",
            gradient="dx = dy / (1 - p) where y was kept, else 0",
            source=SRIVASTAVA,
            arguments=_none,
            is_random=True,
        ),
        UnitRule(
            name="layer_norm",
            unit="LayerNorm",
            kind="layer_norm",
            forward=layer_norm,
            backward=layer_norm_backward,
            formula="y = (x - mean) / sqrt(variance + eps) * scale + shift, of each row",
            gradient="dx = (g - mean(g) - n * mean(g * n)) / sqrt(variance + eps), g = dy * scale, n = normalised x",
            source='J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", 2016',
            arguments=_width,
            parameters=("scale", "shift"),
        ),
        UnitRule(
            name="rms_norm",
            unit="RMSNorm",
            kind="rms_norm",
            forward=rms_norm,
            backward=rms_norm_backward,
            formula="y = x / sqrt(mean(x**2) + eps) * scale, of each row",
            gradient="dx = (g - n * mean(g * n)) / sqrt(mean(x**2) + eps), g = dy * scale, n = normalised x",
            source='B. Zhang and R. Sennrich, "Root mean square layer normalization", NeurIPS 2019',
            arguments=_width,
            parameters=("scale",),
        ),
        UnitRule(
            name="batch_norm",
            unit="BatchNorm",
            kind="batch_norm",
            forward=batch_norm,
            backward=batch_norm_backward,
            formula="y = (x - mean) / sqrt(variance + eps) * scale + shift, of each column",
            gradient="dx = (g - mean(g) - n * mean(g * n)) / sqrt(variance + eps), g = dy * scale, n = normalised x",
            source='S. Ioffe and C. Szegedy, "Batch normalization", ICML 2015',
            arguments=_width,
            parameters=("scale", "shift"),
            over_rows=True,
        ),
        UnitRule(
            name="embedding",
            unit="Embedding",
            kind="embedding",
            forward=embedding,
            backward=embedding_backward,
            formula="y = table[x]",
            gradient="dtable[index] = sum of dy where x = index",
            source=BENGIO,
            arguments=lambda n: (11, 3),
            parameters=("table",),
        ),
        UnitRule(
            name="flatten",
            unit="Flatten",
            kind="identity",
            forward=flatten,
            backward=flatten_backward,
            formula="y = x with all axes but the first in one",
            gradient="dx = dy in the shape of x",
            source=BISHOP,
            arguments=_none,
        ),
        UnitRule(
            name="softmax",
            unit="Softmax",
            kind="softmax",
            forward=softmax,
            backward=softmax_backward,
            formula="y_k = exp(x_k) / sum_j exp(x_j), of each row",
            gradient="dx = y * (dy - sum(dy * y))",
            source=BISHOP,
            arguments=_none,
        ),
        UnitRule(
            name="log_softmax",
            unit="LogSoftmax",
            kind="log_softmax",
            forward=log_softmax,
            backward=log_softmax_backward,
            formula="y_k = x_k - ln sum_j exp(x_j), of each row",
            gradient="dx = dy - exp(y) * sum(dy)",
            source=BISHOP,
            arguments=_none,
        ),
    )
}
