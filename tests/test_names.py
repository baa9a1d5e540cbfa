"""A name that is not known gets the one that is meant."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import fastbp
from fastbp import _names, initializers
from fastbp.reference import ACTIVATIONS, LOSSES, OPTIMIZERS, UNITS
from fastbp.training.metrics import METRICS, metric
from fastbp.units.composites import MERGES

MEANT: list[tuple[Callable[[str], object], str, str]] = [
    *(
        (lambda name: fastbp.MLP([2, 2, 2], hidden=name), name, meant)
        for name, meant in [("swish", "silu"), ("leaky-relu", "leaky_relu"), ("ReLU", "relu"), ("sigmiod", "sigmoid")]
    ),
    *(
        (lambda name: fastbp.MLP([2, 2], loss=name), name, meant)
        for name, meant in [
            ("cross_entropy", "softmax_nll"),
            ("cross-entropy", "softmax_nll"),
            ("CrossEntropyLoss", "softmax_nll"),
            ("bce", "sigmoid_nll"),
            ("BCEWithLogitsLoss", "sigmoid_nll"),
            ("l2", "mse"),
            ("mse_loss", "mse"),
            ("L1Loss", "mae"),
            ("hubr", "huber"),
        ]
    ),
    (initializers.lookup, "kaiming", "he_uniform"),
    (initializers.lookup, "HeNormal", "he_normal"),
    (metric, "acc", "accuracy"),
    (lambda name: fastbp.Adam(**{name: 0.1}), "learning_rate", "lr"),
    (lambda name: fastbp.SGD(**{name: 0.1}), "clipnorm", "clip_norm"),
    (lambda name: fastbp.Huber(**{name: 0.1}), "Delta", "delta"),
    (lambda name: fastbp.LeakyReLU(**{name: 0.1}), "negative_slope", "slope"),
    (lambda name: fastbp.Branches([fastbp.ReLU()], merge=name), "concatenate", "concat"),
]


@pytest.mark.parametrize(("use", "name", "meant"), MEANT, ids=[f"{name}-{meant}" for _, name, meant in MEANT])
def test_the_name_that_is_meant(use: Callable[[str], object], name: str, meant: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{name}.*did you mean '{meant}'\\?"):
        use(name)


def test_a_name_far_from_all_gets_none() -> None:
    for use in (lambda: fastbp.MLP([2, 2], loss="banana"), lambda: initializers.lookup("banana")):
        with pytest.raises(ValueError, match=r"unknown .*'banana': known are '"):
            use()


def test_an_optimizer_by_name() -> None:
    net = fastbp.MLP([2, 1], loss="mse")
    for name, such in (("adam", "Adam()"), ("AdamW", "AdamW()"), ("rms-prop", "RMSprop()"), ("banana", "SGD(lr=0.1)")):
        with pytest.raises(TypeError) as caught:
            fastbp.train(net, [[0.0, 0.0]], [[0.0]], optimizer=name, epochs=1)
        assert f"such as fastbp.{such}, got {name!r}" in str(caught.value)
        assert isinstance(eval(f"fastbp.{such}"), fastbp.Optimizer)


def test_names_of_other_libraries_are_of_something_and_no_names_here() -> None:
    options = {name for table in (ACTIVATIONS, LOSSES) for rule in table.values() for name in rule.options}
    hyper = {hyper.name for rule in OPTIMIZERS.values() for hyper in rule.hyper}
    tables = (ACTIVATIONS, LOSSES, OPTIMIZERS, UNITS, METRICS, MERGES, initializers.names(), options, hyper)
    known = {name for table in tables for name in table}
    assert set(_names.ELSEWHERE.values()) <= known
    assert not set(_names.ELSEWHERE) & {_names._plain(name) for name in known}
