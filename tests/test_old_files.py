"""Pickles and files that an earlier release wrote: each loads, and computes what it computed there."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp

FOLDERS = sorted((Path(__file__).parent / "data").glob("saved-*"))
EXPECTED = {folder: json.loads((folder / "expected.json").read_text()) for folder in FOLDERS}

Array = np.ndarray[Any, Any]


def of(kind: str) -> list[Any]:
    return [
        pytest.param(folder, name, id=f"{folder.name}-{name}") for folder in FOLDERS for name in EXPECTED[folder][kind]
    ]


def unpickled(folder: Path, name: str) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Trying to unpickle estimator")  # by another scikit-learn
        return pickle.loads((folder / f"{name.replace(' ', '-')}.pkl").read_bytes())


def test_old_files_exist() -> None:
    assert FOLDERS


@pytest.mark.parametrize(("folder", "name"), of("outputs"))
def test_networks(folder: Path, name: str) -> None:
    expected = EXPECTED[folder]["outputs"][name]
    for net in (unpickled(folder, f"network-{name}"), fastbp.load(folder / f"network-{name}.npz")):
        x = np.array(expected["x"], net.dtype)
        tolerance = 1000 * float(np.finfo(net.dtype).eps)
        np.testing.assert_allclose(net.forward(x), expected["y"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("folder", "name"), of("steps"))
def test_optimizers(folder: Path, name: str) -> None:
    if name == "LBFGS":  # removed since: what is left of it is LBFGSB
        assert repr(unpickled(folder, "optimizer-LBFGS")).startswith("LBFGSB(max_iter=5, max_fun=6, ")
    else:
        assert repr(unpickled(folder, f"optimizer-{name}")) == EXPECTED[folder]["steps"][name]


@pytest.mark.parametrize(("folder", "name"), of("texts"))
def test_losses_schedules_and_what_else_training_takes(folder: Path, name: str) -> None:
    if name == "optimizer LBFGS":
        pytest.skip("removed: see test_optimizers")
    loaded, expected = (
        repr(unpickled(folder, name.replace("optimizer ", "optimizer-"))),
        EXPECTED[folder]["texts"][name],
    )
    assert loaded.partition(" at 0x")[0] == expected.partition(" at 0x")[0]  # a function has another address


@pytest.mark.parametrize(("folder", "name"), of("predictions"))
def test_estimators(folder: Path, name: str) -> None:
    pytest.importorskip("sklearn")
    predicted = unpickled(folder, f"estimator-{name}").predict(np.array(EXPECTED[folder]["x"]))
    np.testing.assert_allclose(predicted, EXPECTED[folder]["predictions"][name], rtol=1e-10)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_checkpoint_goes_on_where_it_was_written(folder: Path) -> None:
    expected = EXPECTED[folder]
    net, optimizer = fastbp.MLP([6, 4, 3], loss="mse", dtype="float64", seed=9), fastbp.Adam(lr=0.01)
    fastbp.load_checkpoint(folder / "run.checkpoint", net, optimizer)
    loss = net.train_step(np.array(expected["x"]), np.array(expected["t"]), optimizer)
    assert loss == pytest.approx(expected["next_loss"], rel=1e-12)
    np.testing.assert_allclose(net.flat_parameters, expected["after"], rtol=0, atol=1e-13)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_best_epochs_that_counted_from_0_count_from_1(folder: Path) -> None:
    history = unpickled(folder, "history")
    assert history.loss[history.best_epoch - 1] == min(history.loss) and not history.unfinished
