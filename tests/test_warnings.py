"""The package's warnings: who is told what, from which line, and who is not. Those of `train` are in test_data.py."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp._warnings import warn


def test_they_come_from_the_callers_line_and_say_how_to_silence_them() -> None:
    with pytest.warns(
        fastbp.FastbpWarning, match=r"^no such luck \(warnings\.filterwarnings\(.*\) silences this\)$"
    ) as said:
        warn("no such luck")
    assert said[0].filename == __file__ and issubclass(fastbp.FastbpWarning, UserWarning)
    silence = str(said[0].message).partition("(")[2].partition(" silences")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(silence, {"warnings": warnings, "fastbp": fastbp})
        warn("no such luck")


@pytest.mark.parametrize(
    ("unit", "loss", "what"),
    [
        (fastbp.Softmax, fastbp.SoftmaxNLL(), "softmax itself, so that it is applied twice"),
        (fastbp.LogSoftmax, fastbp.SoftmaxNLL(), "softmax itself, so that it takes time and changes nothing"),
        (fastbp.Softmax, fastbp.LossSum([(1.0, fastbp.SoftmaxNLL(label_smoothing=0.1))]), "softmax itself"),
        (fastbp.Sigmoid, fastbp.SigmoidNLL(), "sigmoid itself, so that it is applied twice"),
        (fastbp.LogSigmoid, fastbp.SigmoidNLL(), "sigmoid itself"),
    ],
    ids=["softmax", "log-softmax", "sum", "sigmoid", "log-sigmoid"],
)
def test_a_unit_that_the_loss_applies_is_told(
    unit: type[fastbp.Unit], loss: fastbp.Loss, what: str, tmp_path: Path
) -> None:
    with pytest.warns(fastbp.FastbpWarning, match=what) as said:
        net = fastbp.Network(fastbp.Linear(2, 3), fastbp.Sequential(fastbp.Identity(), unit()), loss=loss, seed=0)
    assert len(said) == 1 and said[0].filename == __file__
    # Copies and files have been told; these raise if a warning comes.
    net.copy(), copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    net.save(tmp_path / "net.npz")
    fastbp.load(tmp_path / "net.npz")


@pytest.mark.parametrize(
    ("unit", "loss"),
    [(fastbp.Sigmoid, "mse"), (fastbp.Softmax, "mse"), (fastbp.Sigmoid, "softmax_nll"), (fastbp.Tanh, "sigmoid_nll")],
)
def test_other_units_before_a_loss_are_not_told(unit: type[fastbp.Unit], loss: str) -> None:
    fastbp.Network(fastbp.Linear(2, 3), unit(), loss=loss)


def test_log_softmax_changes_nothing_before_the_loss() -> None:
    """What the warning says of it is true."""
    x, t = np.ones((4, 2)), np.array([0, 1, 2, 0])
    plain = fastbp.Network(fastbp.Linear(2, 3), loss="softmax_nll", dtype="float64", seed=0)
    with pytest.warns(fastbp.FastbpWarning):
        twice = fastbp.Network(fastbp.Linear(2, 3), fastbp.LogSoftmax(), loss="softmax_nll", dtype="float64", seed=0)
    assert twice.loss_value(x, t) == pytest.approx(plain.loss_value(x, t), rel=1e-14)
