"""One shuffled epoch of 64-100-10 on scikit-learn's digits with plain SGD: one call against a loop in numpy."""

from __future__ import annotations

from typing import Any

import pytest

from bench.conftest import Measure, assert_agree
from bench.steps import digits, fastbp_epochs, numpy_epochs

RIVALS = {"fastbp": fastbp_epochs, "numpy": numpy_epochs}


@pytest.mark.parametrize("rival", RIVALS)
def test_epoch(rival: str, benchmark: Any, measure: Measure) -> None:
    epoch, expected = numpy_epochs(digits(dtype="float64"))
    epoch()

    epoch, parameters = RIVALS[rival](digits())
    epoch()
    for got, wanted in zip(parameters, expected, strict=True):
        assert_agree(got, wanted)
    benchmark.group = "an epoch of 64-100-10 on the digits"
    measure(epoch)
