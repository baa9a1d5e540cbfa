"""The networks of the literature: their numbers of parameters, their shapes, and that the small ones learn."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp import models
from fastbp._core.graph import flatten, parameter_shapes

COUNTS = {"lenet5": 61_706, "alexnet": 62_378_344, "vgg16": 138_357_544, "resnet20": 272_474, "resnet18": 11_173_962}


def test_every_model_is_counted() -> None:
    assert set(COUNTS) == set(models.__all__)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_shapes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the units alone: the large ones would take a gigabyte."""
    monkeypatch.setattr(models, "Network", lambda *units, **options: (units, options))
    units, options = getattr(models, name)(seed=0)
    assert sum(map(prod, parameter_shapes(units).values())) == COUNTS[name]
    items = flatten(units, options["input_shape"])
    assert items[-1].shape_behind == ((1000,) if name in ("alexnet", "vgg16") else (10,))
    units, _ = getattr(models, name)(classes=7)
    assert flatten(units, options["input_shape"])[-1].shape_behind == (7,)


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_dropout_of_the_linear_units(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "Network", lambda *units, **options: units)
    for p, count in ((0.5, 2), (0, 0)):
        dropped = [unit for unit in getattr(models, name)(dropout=p) if isinstance(unit, fastbp.Dropout)]
        assert [unit.p for unit in dropped] == [p] * count


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_small_models_learn(name: str, rng: np.random.Generator) -> None:
    net: Any = getattr(models, name)(classes=3, dtype="float64", seed=1)
    t = np.arange(12) % 3
    x = rng.standard_normal((12, *net.input_shape)) * 0.1
    x[np.arange(12), 0, 4 + t, :] += 2.0  # a bright row says which class it is
    optimizer, first = fastbp.Adam(0.01), net.value_and_grad(x, t)[0]
    for _ in range(25):
        last = net.train_step(x, t, optimizer)
    assert last < 0.2 * first
    net.train()
    assert net.predict(x).shape == (12,)


@pytest.mark.parametrize("name", models.__all__)
def test_bad_arguments(name: str) -> None:
    with pytest.raises(ValueError, match="classes must be at least 1, got 0"):
        getattr(models, name)(classes=0)
