"""One whole gradient at the eight shapes, in one process.

For following one's own changes: the figures to quote are those of compare.py, where no rival's threads disturb
another's. `products` is the control: it should not change from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest

from bench.conftest import Measure
from bench.rivals import RIVALS, SHAPES, Gradient, Shape, check_agreement, reference

DTYPE = "float32"
ACTIVATION = "sigmoid"

expected_gradient = lru_cache(maxsize=1)(reference)  # the largest takes a gigabyte


@pytest.fixture(scope="module", autouse=True)
def give_memory_back() -> Iterator[None]:
    yield
    expected_gradient.cache_clear()


@pytest.mark.parametrize("rival", [name for name, rival in RIVALS.items() if not rival.optional])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_gradient(shape: Shape, rival: str, benchmark: Any, threads: int, measure: Measure) -> None:
    expected, tolerances = expected_gradient(shape, activation=ACTIVATION, seed=0, dtype=DTYPE)
    one = RIVALS[rival]()
    one.prepare(shape.sizes, shape.batch, dtype=DTYPE, activation=ACTIVATION, threads=threads)
    got: Gradient = one.as_numpy(one.gradient())
    check_agreement(got, expected, tolerances)
    del got
    benchmark.group = shape.name
    measure(one.gradient)
