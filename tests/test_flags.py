"""Flags of units, losses, optimizers and schedules: numpy's bools are as good as Python's, and nothing else is."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp import _config, schedules

# What a constructor needs besides, and what else a flag needs to be True.
NEEDED: dict[str, dict[str, Any]] = {
    "AvgPool1d": {"size": 2},
    "AvgPool2d": {"size": 2},
    "BatchNorm": {"n": 3},
    "BatchNorm1d": {"n": 3},
    "BatchNorm2d": {"n": 3},
    "Conv1d": {"in_channels": 1, "out_channels": 1, "size": 3},
    "Conv2d": {"in_channels": 1, "out_channels": 1, "size": 3},
    "Cosine": {"lr": 0.1, "steps": 3},
    "LayerNorm": {"n": 3},
}
WITH = {("SGD", "nesterov"): {"momentum": 0.5}}


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        pytest.param(cls, p.name, id=f"{cls.__name__}-{p.name}")
        for module in (fastbp, schedules)
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, (fastbp.Unit, fastbp.Loss, fastbp.Optimizer, schedules.Schedule))
        for p in inspect.signature(cls).parameters.values()
        if isinstance(p.default, bool)
    ],
)
def test_flags_take_numpys_bools_and_refuse_other_things(cls: type, name: str) -> None:
    def made(value: Any) -> Any:
        return cls(**NEEDED.get(cls.__name__, {}), **WITH.get((cls.__name__, name), {}), **{name: value})

    for value in (True, False):
        given = made(np.bool_(value))
        kept = _config.settings(given)[name]
        assert kept is value
        assert repr(given) == repr(made(value))
    for value in (1, 0, "no", None, np.int64(1), np.array([True])):
        with pytest.raises(TypeError, match=rf"{name} must be True or False, got "):
            made(value)
