"""Checkpoints: a run that is stopped anywhere and resumed ends with the same bits; files are whole or refused."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from helpers import assert_same_bits, seeded, unchanged

import fastbp
from fastbp import CheckpointError, EarlyStopping, load_checkpoint, save_checkpoint
from fastbp.random import Philox, stream_number
from fastbp.training import checkpoint

Array = np.ndarray[Any, Any]

N, BATCH, EPOCHS = 53, 10, 4

OPTIMIZERS = {
    "sgd": lambda: fastbp.SGD(lr=0.05),
    "momentum": lambda: fastbp.SGD(lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda: fastbp.Adam(lr=0.01, weight_decay=0.01),
}
BY_OPTIMIZER = pytest.mark.parametrize("rule", OPTIMIZERS)


class Square(fastbp.Unit):
    """A unit in Python."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return np.asarray(x * np.abs(x))

    def backward(self, dy: Array) -> Array:
        return np.asarray(2 * np.abs(self.x) * dy)


def network(dtype: Any = np.float32, python: bool = False, seed: int | None = 0) -> fastbp.Network:
    chain = fastbp.Linear(6, 9), Square() if python else fastbp.Tanh(), fastbp.Linear(9, 3)
    return fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), dtype=dtype, seed=seed)


def samples(dtype: Any = np.float32) -> tuple[Array, Array]:
    rng = seeded(5)
    return rng.normal(size=(N, 6)).astype(dtype), rng.integers(0, 3, N)


def train(net: fastbp.Network, x: Any, t: Any = None, **options: Any) -> fastbp.History:
    options = {"batch_size": BATCH, "epochs": EPOCHS, "progress": False} | options
    return fastbp.train(net, x, t, **options)


def assert_same_run(
    mine: tuple[fastbp.Network, Any, fastbp.History], other: tuple[fastbp.Network, Any, fastbp.History]
) -> None:
    assert_same_bits(mine[0].flat_parameters, other[0].flat_parameters)
    states = mine[1].state_for(mine[0]), other[1].state_for(other[0])
    assert states[0].step == states[1].step
    for name, array in states[0].arrays.items():
        assert_same_bits(array, states[1].arrays[name])
    for name in ("loss", "val_loss", "metrics", "stopped", "best_epoch", "steps"):
        assert getattr(mine[2], name) == getattr(other[2], name), name
    assert len(mine[2].seconds) == len(other[2].seconds)


# ---- exact resume ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "python"),
    [(np.float32, False), (np.float64, False), (np.float32, True)],
    ids=["float32", "float64", "python"],
)
@pytest.mark.parametrize("shuffle", [False, True])
@BY_OPTIMIZER
def test_a_run_stopped_after_any_step_ends_with_the_same_bits(
    rule: str, shuffle: bool, dtype: Any, python: bool, tmp_path: Path
) -> None:
    x, t = samples(dtype)
    weight = np.linspace(0, 2, N).astype(dtype)
    options: dict[str, Any] = {"shuffle": shuffle, "validation_fraction": 0.2, "sample_weight": weight, "seed": 3}
    options |= {"metrics": ["accuracy"], "train_metrics": ["top_1"], "class_weight": "balanced"}

    def whole() -> tuple[fastbp.Network, Any, fastbp.History]:
        net, optimizer = network(dtype, python), OPTIMIZERS[rule]()
        history = train(net, x, t, optimizer=optimizer, early_stopping=EarlyStopping(patience=2), **options)
        return net, optimizer, history

    expected = whole()
    path = tmp_path / "run.ckpt"
    for stops in ([1], [5], [7, 8], [2, 6, 9, 14]):
        path.unlink(missing_ok=True)
        for stop in [*stops, None]:
            # Everything is made anew, as in another process; the weights begin elsewhere.
            net, optimizer = network(dtype, python, seed=9), OPTIMIZERS[rule]()
            if stop == stops[0]:
                net = network(dtype, python)
            more = options | {"early_stopping": EarlyStopping(patience=2), "checkpoint": path, "resume": True}
            history = train(net, x, t, optimizer=optimizer, max_steps=stop, **more)
        assert_same_run((net, optimizer, history), expected)


def everything(python: bool, accumulate: int, **options: Any) -> tuple[fastbp.Network, Any, fastbp.History, fastbp.EMA]:
    """A run of all that has a memory: dropout, batch norm, groups, clipping, schedules, an average, penalties."""
    schedules, rng = fastbp.schedules, seeded(0)
    x = rng.standard_normal((70, 6)).astype(np.float32)
    x[:, :2] = rng.integers(0, 5, (70, 2))
    t = rng.integers(-1, 3, 70)
    block = fastbp.Residual(fastbp.Sequential(fastbp.Dropout(0.3), fastbp.Linear(8, 8), fastbp.LayerNorm(8)))
    arms = fastbp.Branches([fastbp.Linear(8, 4), fastbp.Sequential(fastbp.Linear(8, 4), fastbp.Dropout())], "concat")
    chain = fastbp.Embedding(5, 3, columns=2), fastbp.Linear(10, 8), fastbp.BatchNorm(8), block, arms
    parts = [(0.7, fastbp.SoftmaxNLL(ignore_index=-1, class_weight=[1.0, 2.0, 0.5]))]
    parts += [(0.3, fastbp.SoftmaxNLL(ignore_index=-1, label_smoothing=0.1))]
    hidden = Wide() if python else fastbp.PReLU(8)
    net = fastbp.Network(*chain, hidden, fastbp.Linear(8, 3), loss=fastbp.LossSum(parts), seed=3, l1=1e-4, l2=1e-3)
    biases = {"match": "*.bias", "weight_decay": 0.0, "lr": schedules.Cosine(0.01, 40)}
    optimizer = fastbp.AdamW(
        lr=schedules.WarmUp(schedules.ReduceOnPlateau(0.02, patience=0), 5),
        groups=[biases, {"match": "1.*", "eps": 1e-6}],
        clip_norm=0.5,
        clip_value=0.3,
    )
    average = fastbp.EMA(0.9)
    more: dict[str, Any] = {"batch_size": 8, "validation_fraction": 0.2, "metrics": ["accuracy"], "seed": 7, **options}
    more |= {"early_stopping": EarlyStopping(patience=3), "average": average, "accumulate": accumulate}
    history = train(net, x, t, optimizer=optimizer, **more)
    return net, optimizer, history, average


class Wide(Square):
    """Its outputs are known before it runs."""

    def outputs_for(self, n_in: int | None) -> int | None:
        return n_in


@pytest.mark.parametrize("python", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("every", [1, 2, None])
def test_resume_restores_everything_with_a_state(
    every: int | None, accumulate: int, python: bool, tmp_path: Path
) -> None:
    expected = everything(python, accumulate)
    for stride in (1, 3, 7):
        path, limit, stopped = tmp_path / f"{stride}.ckpt", 0, "max_steps"
        while stopped.startswith("max_steps"):
            limit += stride
            more: dict[str, Any] = {"checkpoint": path, "checkpoint_every": every, "resume": True, "max_steps": limit}
            net, optimizer, history, average = everything(python, accumulate, **more)
            stopped = history.stopped or ""
        assert_same_run((net, optimizer, history), expected[:3])
        assert net.steps == expected[0].steps
        for name, values in net.state.items():
            assert_same_bits(values, expected[0].state[name])
        assert_same_bits(average.values(net), expected[3].values(expected[0]))
        assert optimizer.lr.get_state() == expected[1].lr.get_state()


@pytest.mark.parametrize("every", [1, 4, 5, 7, None])
@pytest.mark.parametrize("at", [1, 5, 6, 7, 13, 24])
def test_resume_after_an_exception_in_a_callback(at: int, every: int | None, tmp_path: Path) -> None:
    x, t = samples()
    net, optimizer = network(), fastbp.Adam()
    expected = net, optimizer, train(net, x, t, optimizer=optimizer)
    path = tmp_path / "run.ckpt"
    options = {"checkpoint": path, "checkpoint_every": every, "resume": True}

    class Fail(fastbp.Callback):
        def on_batch_end(self, net: Any, history: Any, batch: Any) -> None:
            if batch.step == at:
                raise ZeroDivisionError

    net, optimizer = network(), fastbp.Adam()
    with pytest.raises(ZeroDivisionError):
        train(net, x, t, optimizer=optimizer, callbacks=[Fail()], **options)
    net, optimizer = network(), fastbp.Adam()
    assert_same_run((net, optimizer, train(net, x, t, optimizer=optimizer, **options)), expected)


def test_best_weights_from_before_the_stop_are_restored(tmp_path: Path) -> None:
    """The loss grows from the first epoch on; the weights kept are those of an epoch before the resume."""
    x, t = samples()
    kept: list[Array] = []
    options: dict[str, Any] = {"checkpoint": tmp_path / "run.ckpt", "resume": True, "validation_data": (-x, t)}
    for limit in (9, 10, None):
        net = network()
        stopping = EarlyStopping(patience=3, min_delta=9.0)  # nothing is as much better as that
        history = train(
            net,
            x,
            t,
            optimizer=fastbp.SGD(lr=0.5),
            early_stopping=stopping,
            max_steps=limit,
            epochs=9,
            callbacks=[lambda net, _: kept.append(net.flat_parameters.copy())],
            **options,
        )
    assert history.stopped == "early stopping: val_loss has not improved for 3 epochs" and len(history) == 4
    assert_same_bits(net.flat_parameters, kept[0])
    # A finished run is finished: nothing is done but to give its result.
    net = network()
    stopping = EarlyStopping(patience=3, min_delta=9.0)
    again = train(net, x, t, optimizer=fastbp.SGD(lr=0.5), early_stopping=stopping, epochs=9, **options)
    assert again == history and len(kept) == 4
    assert_same_bits(net.flat_parameters, kept[0])


def test_a_file_that_counted_best_epochs_from_0_goes_on(tmp_path: Path) -> None:
    x, t = samples()
    path = tmp_path / "run.ckpt"
    options: dict[str, Any] = {"checkpoint": path, "resume": True, "validation_data": (-x, t), "epochs": 9}

    def run(**more: Any) -> tuple[fastbp.Network, fastbp.History, EarlyStopping]:
        net, stopping = network(), EarlyStopping(patience=3, min_delta=9.0)
        history = train(net, x, t, optimizer=fastbp.SGD(lr=0.5), early_stopping=stopping, **options, **more)
        return net, history, stopping

    run(max_steps=10)
    tree = checkpoint.read_tree(path)
    del tree["history"]["unfinished"]
    tree["history"]["best_epoch"] -= 1
    (state,) = tree["run"]["callbacks"]
    tree["run"]["callbacks"] = [
        {
            "best": state["best"],
            "best_epoch": state["best_epoch_from_1"] - 1,
            "waited": state["waited"],
            "kept": state["kept"],
        }
    ]
    checkpoint.write_tree(path, tree)
    net, history, stopping = run()
    path.unlink()
    same, expected, other = run()
    assert_same_bits(net.flat_parameters, same.flat_parameters)
    assert (history.best_epoch, stopping.best_epoch) == (expected.best_epoch, other.best_epoch) == (1, 1)
    assert len(history) == len(expected) == 4


def test_resume_with_more_epochs_goes_on(tmp_path: Path) -> None:
    x, t = samples()
    expected = network()
    train(expected, x, t, optimizer=fastbp.Adam(), epochs=6)
    path = tmp_path / "run.ckpt"
    train(network(), x, t, optimizer=fastbp.Adam(), epochs=2, checkpoint=path)
    net, kept = network(), path.read_bytes()
    assert len(train(net, x, t, optimizer=fastbp.Adam(), epochs=6, resume=path)) == 6
    assert_same_bits(net.flat_parameters, expected.flat_parameters)
    assert path.read_bytes() == kept  # resume alone writes nothing


def test_resume_restores_hyper_parameters_and_callbacks(tmp_path: Path) -> None:
    """A learning rate that a callback changes goes on where it was; so does the callback."""

    class Slower(fastbp.Callback):
        def __init__(self, optimizer: Any) -> None:
            self.optimizer, self.count = optimizer, 0

        def on_epoch_end(self, net: Any, history: Any) -> None:
            self.count += 1
            self.optimizer.lr /= 1 + self.count

        def get_state(self) -> dict[str, Any]:
            return {"count": self.count}

        def set_state(self, state: dict[str, Any]) -> None:
            self.count = state["count"]

    x, t = samples()
    results = []
    for limits in ((None,), (8, 20, None)):
        path = tmp_path / f"{len(limits)}.ckpt"
        for limit in limits:
            net, optimizer = network(), fastbp.SGD(lr=0.5)
            more: dict[str, Any] = {"callbacks": [Slower(optimizer)], "max_steps": limit}
            history = train(net, x, t, optimizer=optimizer, checkpoint=path, resume=True, **more)
        results.append((net, optimizer, history))
        assert optimizer.lr == 0.5 / 120
    assert_same_run(*results)


def test_resume_takes_the_drawn_seed_from_the_file(tmp_path: Path) -> None:
    x, t = samples()
    path = tmp_path / "run.ckpt"
    train(network(), x, t, optimizer=fastbp.Adam(), checkpoint=path, seed=None, max_steps=7)
    results = []
    for _ in range(2):
        net = network()
        train(net, x, t, optimizer=fastbp.Adam(), resume=path, seed=None)
        results.append(net.flat_parameters.copy())
    assert_same_bits(*results)


@pytest.mark.parametrize("form", ["list", "function", "generator"])
@pytest.mark.parametrize("limit", [1, 5, 6, 8, 13])
def test_resume_skips_the_batches_already_seen(limit: int, form: str, tmp_path: Path) -> None:
    x, t = samples()

    def pieces(epoch: int) -> Any:
        order = Philox(0, stream_number("shuffle", epoch)).permutation(N)
        return ((x[order[i : i + BATCH]], t[order[i : i + BATCH]]) for i in range(0, N, BATCH))

    def given() -> Any:
        if form == "generator":
            return (piece for epoch in range(99) for piece in pieces(epoch))
        return pieces if form == "function" else list(pieces(0))

    options = {"steps_per_epoch": 6} if form == "generator" else {}
    results = []
    for limits in ((None,), (limit, None)):
        path = tmp_path / f"{len(limits)}.ckpt"
        for most in limits:
            net, optimizer = network(), fastbp.Adam()
            history = train(net, given(), optimizer=optimizer, checkpoint=path, resume=True, max_steps=most, **options)
        results.append((net, optimizer, history))
    assert_same_run(*results)


def test_resume_with_fewer_batches_raises(tmp_path: Path) -> None:
    x, t = samples()
    path = tmp_path / "run.ckpt"
    train(network(), [(x, t)] * 5, optimizer=fastbp.Adam(), checkpoint=path, max_steps=3)
    with pytest.raises(ValueError, match="batches end after 2, but the run to be resumed had gone through 3"):
        train(network(), [(x, t)] * 2, optimizer=fastbp.Adam(), resume=path)


def test_checkpoints_change_nothing_and_come_as_often_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, t = samples()
    expected = network()
    train(expected, x, t, optimizer=fastbp.Adam())
    written: list[int] = []
    write = checkpoint.write_tree
    monkeypatch.setattr(
        checkpoint, "write_tree", lambda path, tree: (written.append(tree["run"]["batches"]), write(path, tree))
    )
    for every, places in ((None, [6, 12, 18, 24]), (5, [5, 10, 15, 20]), (12, [12, 24]), (100, [])):
        net = network()
        written.clear()
        train(net, x, t, optimizer=fastbp.Adam(), checkpoint=tmp_path / "run.ckpt", checkpoint_every=every)
        assert written == [*places, 24]
        assert_same_bits(net.flat_parameters, expected.flat_parameters)


# ---- loops of one's own ----------------------------------------------------------------------------------------------


@BY_OPTIMIZER
def test_save_and_load(rule: str, tmp_path: Path) -> None:
    x, t = samples()
    path = tmp_path / "own.ckpt"
    net, optimizer = network(seed=None), OPTIMIZERS[rule]()
    for _ in range(5):
        net.train_step(x, t, optimizer)
    extra: dict[str, Any] = {"step": 5, "name": "ä", "nothing": None, "flag": True, "float": 0.1 + 0.2, "big": 2**70}
    extra |= {"inf": float("inf"), "nested": {"list": [1, (2.5, [])], "": {}}, "scalar": np.float32(1.5)}
    extra |= {"array": np.arange(6).reshape(2, 3)[:, ::-1], "empty": np.zeros((0, 3)), "zero-d": np.array(7)}
    extra |= {"bools": np.array([True, False]), "swapped": np.arange(3, dtype=">f8")}
    history = fastbp.History([1.0, float("nan")], [], {"m": [1.0]}, [0.5, 0.5], "why", 1, 12)
    save_checkpoint(path, net, optimizer, history=history, extra=extra)
    other, fresh = network(seed=1), OPTIMIZERS[rule]()
    fresh.lr = 77.0
    found = load_checkpoint(str(path), other, fresh)
    assert repr(found.history) == repr(history) and found.history != fastbp.History()
    assert list(found.extra) == list(extra) and other.seed == net.seed and fresh.lr == optimizer.lr
    for name, value in extra.items():
        if isinstance(value, np.ndarray):
            assert_same_bits(found.extra[name], value.astype(value.dtype.newbyteorder("=")))
        else:
            assert found.extra[name] == value and type(found.extra[name]) in (type(value), float)
    assert other._whole is not None and other._whole.engine.seed == net.seed  # chance goes on with the file's
    for _ in range(3):
        assert other.train_step(x, t, fresh) == net.train_step(x, t, optimizer)
    assert_same_run((net, optimizer, history), (other, fresh, history))


def test_users_optimizers_are_saved_and_loaded(tmp_path: Path) -> None:
    class Own(fastbp.Optimizer):
        state_names = ("v",)

        def __init__(self) -> None:
            self.rate, self.names = 0.1, ("a", "b")

        def update(self, parameters: Array, gradients: Array) -> None:
            state = self.state_for(parameters)
            state.arrays["v"] += gradients
            parameters -= np.float32(self.rate) * state.arrays["v"]
            self.rate *= 0.5

    class Spoken(Own):
        def get_state(self, net: Any) -> dict[str, Any]:
            return {"rate": self.rate, "v": self.state_for(net).arrays["v"]}

        def set_state(self, net: Any, state: dict[str, Any]) -> None:
            self.rate = state["rate"]
            self.state_for(net).arrays["v"][...] = state["v"]

    x, t = samples()
    for kind in (Own, Spoken):
        net, optimizer = network(), kind()
        net.train_step(x, t, optimizer)
        save_checkpoint(tmp_path / "own.ckpt", net, optimizer)
        other, fresh = network(seed=4), kind()
        load_checkpoint(tmp_path / "own.ckpt", other, fresh)
        for _ in range(2):
            assert net.train_step(x, t, optimizer) == other.train_step(x, t, fresh)
        assert fresh.names == ("a", "b") and fresh.rate == 0.1 / 8

    class Strict(Spoken):
        def set_state(self, net: Any, state: dict[str, Any]) -> None:
            raise ValueError("it has no 'momentum'")

    save_checkpoint(tmp_path / "own.ckpt", net, Strict())
    other = network(seed=4)
    before = other.flat_parameters.tobytes()
    with pytest.raises(CheckpointError, match=r"own.ckpt was written for another optimizer: it has no 'momentum'"):
        load_checkpoint(tmp_path / "own.ckpt", other, Strict())
    assert other.flat_parameters.tobytes() == before and other.seed == 4


class Noisy(fastbp.Unit):
    """Keeps a running mean of its inputs, which it adds."""

    def __init__(self, width: int = 3) -> None:
        self.width = width

    def outputs_for(self, n_in: int | None) -> int | None:
        return n_in

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"mean": (self.width,)}

    def forward(self, x: Array) -> Array:
        if self.training:
            self.state["mean"] += np.float32(0.1) * (x.mean(axis=0) - self.state["mean"])
        return np.asarray(x + self.state["mean"])

    def backward(self, dy: Array) -> Array:
        return dy


def test_the_state_of_units_is_saved(tmp_path: Path) -> None:
    x, t = samples()
    path = tmp_path / "run.ckpt"
    results = []
    for limits in ((None,), (8, 13, None)):
        path.unlink(missing_ok=True)
        for limit in limits:
            net = fastbp.Network(fastbp.Linear(6, 3), Noisy(), loss=fastbp.SoftmaxNLL(), seed=0)
            optimizer = fastbp.Adam()
            options: dict[str, Any] = {"validation_fraction": 0.2, "checkpoint": path, "resume": True}
            history = train(net, x, t, optimizer=optimizer, max_steps=limit, **options)
        results.append((net, optimizer, history))
    assert_same_run(*results)
    assert_same_bits(*(net.state["1.mean"] for net, _, _ in results))
    assert net.steps == results[0][0].steps == 24 - 4
    other = fastbp.Network(fastbp.Linear(6, 3), Noisy(1), loss=fastbp.SoftmaxNLL(), seed=0)
    with pytest.raises(CheckpointError, match=r"state of 1.mean is \(3,\) in the file, \(1,\) here"):
        load_checkpoint(path, other, fastbp.Adam())


def test_values_that_cannot_be_saved_raise(tmp_path: Path) -> None:
    net, optimizer = network(), fastbp.SGD()
    path = tmp_path / "own.ckpt"
    for wrong, place in (
        ({"a": [1, object()]}, r"\['a'\]\[1\]"),
        ({"a": {1: 2}}, r"\['a'\]"),
        ({"a": np.array(["x"])}, "array of <U1"),
        ({"a": np.array([None])}, "array of object"),
        ({"a": 1j}, "1j"),
        ({"a": np.float16(1) * np.ones(2, np.float16)}, "array of float16"),
        ([1], "extra must be a dict, got list"),
    ):
        with pytest.raises(TypeError, match=place):
            save_checkpoint(path, net, optimizer, extra=wrong)  # type: ignore[arg-type]
    for arguments in ((path, None, optimizer), (path, net, None)):
        for function in (save_checkpoint, load_checkpoint):
            with pytest.raises(TypeError, match="must be a fastbp"):
                function(*arguments)
    assert os.listdir(tmp_path) == []


# ---- files that are refused ------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Path:
    x, t = samples()
    path = tmp_path / "run.ckpt"
    train(network(), x, t, optimizer=fastbp.Adam(), checkpoint=path, max_steps=7)
    return path


def refused(path: Path, message: str, net: Any = None, optimizer: Any = None) -> None:
    """Neither function takes the file, and nothing changes."""
    not_resumed(path, message, net, optimizer)
    with untouched(net, optimizer) as (net, optimizer), pytest.raises(CheckpointError, match=message):
        load_checkpoint(path, net, optimizer)


def not_resumed(path: Path, message: str, net: Any = None, optimizer: Any = None, **options: Any) -> None:
    """`train` does not go on with it, and nothing changes."""
    with untouched(net, optimizer) as (net, optimizer), pytest.raises(CheckpointError, match=message):
        data = options.pop("data", samples(net.dtype))
        train(net, *data, optimizer=optimizer, resume=path, **options)


@contextmanager
def untouched(net: Any, optimizer: Any) -> Iterator[tuple[fastbp.Network, Any]]:
    net, optimizer = net or network(seed=8), optimizer or fastbp.Adam(lr=0.3)
    before = net.flat_parameters.tobytes()
    yield net, optimizer
    assert net.flat_parameters.tobytes() == before and net.seed == 8
    assert optimizer.state_for(net).step == 0 and optimizer.lr == 0.3
    assert not any(array.any() for array in optimizer.state_for(net).arrays.values())


def test_truncated_files_raise(written: Path) -> None:
    whole = written.read_bytes()
    for length in {0, 1, 19, 20, 27, 28, 100, 2000, len(whole) // 2, len(whole) - 32, len(whole) - 1}:
        written.write_bytes(whole[:length])
        refused(written, r"run\.ckpt is damaged: it (has \d+ bytes, expected \d+|ends in its header)")
    written.write_bytes(whole + b"\0")
    refused(written, r"is damaged: it has \d+ bytes")


def test_a_changed_byte_anywhere_raises(written: Path) -> None:
    whole = written.read_bytes()
    for place in [*range(20, 60), *range(60, len(whole), 97), len(whole) - 1]:
        changed = bytearray(whole)
        changed[place] ^= 0x10
        written.write_bytes(changed)
        refused(written, "is damaged: ")


def test_foreign_files_raise(written: Path) -> None:
    for content in (b"PK\x03\x04 something else", b"\x80\x04\x95 a pickle", b"fastbp checkpoint 9\n" + bytes(100)):
        written.write_bytes(content)
        refused(written, "is no checkpoint of fastbp: it begins with")
    np.savez(written.with_suffix(".npz"), a=np.ones(3))
    refused(written.with_suffix(".npz"), r"is no checkpoint of fastbp: it begins with b'PK")


def test_forged_headers_raise(written: Path) -> None:
    """With a right checksum: a forged header must still not read outside of the file's data."""

    def forged(header: Any, data: bytes = bytes(64)) -> None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        content = checkpoint.MAGIC + len(text).to_bytes(8, "little") + text + data
        written.write_bytes(content + hashlib.sha256(content).digest())

    array = {"dtype": "<f4", "shape": [16], "start": 0}
    good = {"arrays": [array], "bytes": 64, "content": {"dict": {}}}
    forged(good)
    refused(written, "is no checkpoint of a network and an optimizer")
    for wrong in (
        good | {"arrays": [array | {"shape": [17]}]},
        good | {"arrays": [array | {"start": 4}]},
        good | {"arrays": [array | {"start": -64}]},
        good | {"arrays": [array | {"shape": [-4, -4]}]},
        good | {"arrays": [array | {"dtype": "|O"}]},
        good | {"arrays": [array | {"dtype": "O"}]},
        good | {"arrays": 3},
        good | {"content": {"array": 3}},
        good | {"content": {"dict": 3}},
        good | {"content": {}},
        {"bytes": 64},
        [],
        b"{not JSON",
        b"\xff\xfe",
        b"[" * 100_000,
    ):
        forged(wrong)
        refused(written, "is damaged: its header cannot be read")
    content = checkpoint.MAGIC + (2**40).to_bytes(8, "little")
    written.write_bytes(content)
    refused(written, "is damaged: it ends in its header")


def test_a_checkpoint_of_another_network_raises(written: Path) -> None:
    units = fastbp.Linear(6, 9), fastbp.ReLU(), fastbp.Linear(9, 3)
    more = {"loss": fastbp.SoftmaxNLL(), "seed": 8}
    refused(
        written,
        r"another network: units 1 is Tanh\(\) in the file, ReLU\(\) here",
        fastbp.Network(*units, **more),  # type: ignore[arg-type]
    )
    units = fastbp.Linear(6, 9), fastbp.Tanh(), fastbp.Linear(9, 3), fastbp.Identity()
    longer = fastbp.Network(*units, **more)  # type: ignore[arg-type]
    refused(written, r"another network: units \[.*\] in the file, \[.*'Identity\(\)'\] here", longer)
    refused(written, "another network: dtype float32 in the file, float64 here", network(np.float64, seed=8))
    refused(written, r"another network: units 1 is Tanh\(\) in the file, Square\(\) here", network(python=True, seed=8))
    wider = fastbp.Network(fastbp.Linear(6, 8), fastbp.Tanh(), fastbp.Linear(8, 3), **more)  # type: ignore[arg-type]
    refused(written, r"another network: units 0 is Linear\(6, 9\) in the file, Linear\(6, 8\) here", wider)


def test_a_checkpoint_with_another_penalty_raises(written: Path) -> None:
    chain = fastbp.Linear(6, 9), fastbp.Tanh(), fastbp.Linear(9, 3)
    other = fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), seed=8, l2=0.5)
    refused(written, r"another network: l2 0.0 in the file, 0.5 here", other)


def test_a_checkpoint_in_another_mode_raises(tmp_path: Path) -> None:
    (x, t), path = samples(), tmp_path / "run.ckpt"
    net = network()
    net.eval()
    train(net, x, t, optimizer=fastbp.Adam(), epochs=1, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"another run: net\.training is False in the file, True here"):
        train(network(), x, t, optimizer=fastbp.Adam(), resume=path)


def test_a_checkpoint_of_another_optimizer_raises(written: Path) -> None:
    refused(written, "another optimizer: Adam in the file, SGD here", optimizer=fastbp.SGD(lr=0.3))

    class Adam(fastbp.Optimizer):
        state_names = ("m",)
        lr = 0.3

    refused(written, "does not fit the optimizer: unknown state 'v': known are 'm'", optimizer=Adam())
    frozen = fastbp.Adam(lr=0.3, groups=[{"match": "*.bias", "lr": 0.1}])
    refused(written, "does not fit the optimizer: carried has shape", optimizer=frozen)


def test_resume_with_other_arguments_raises(written: Path) -> None:
    x, t = samples()
    for options, message in (
        ({"data": (x[:-1], t[:-1])}, "rows of x is 53 in the file, 52 here"),
        ({"batch_size": 11}, "batch_size is 10 in the file, 11 here"),
        ({"shuffle": False}, "shuffle is True in the file, False here"),
        ({"seed": 1}, "seed is 0 in the file, 1 here"),
        ({"validation_data": (x, t)}, "rows of validation is None in the file, 53 here"),
        ({"sample_weight": np.ones(N, np.float32)}, "weights is False in the file, True here"),
        ({"train_metrics": ["accuracy"]}, r"metrics is \['loss'\] in the file, \['accuracy', 'loss'\] here"),
        ({"early_stopping": EarlyStopping("loss")}, r"callbacks with a state is \[\] in the file, \['EarlyStopping'\]"),
        ({"data": ([(x, t)], None)}, "of another run: steps_per_epoch|of another run: class_weight"),
    ):
        not_resumed(written, message, **options)
    net, optimizer = network(), fastbp.Adam()
    save_checkpoint(written, net, optimizer)
    with pytest.raises(CheckpointError, match="was written by save_checkpoint, not by train: load_checkpoint reads it"):
        train(net, x, t, optimizer=optimizer, resume=written)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"checkpoint": 3}, TypeError, "checkpoint must be the name of a file, got 3"),
        ({"checkpoint": "/nowhere/at/all.ckpt"}, FileNotFoundError, "there is no directory '/nowhere/at'"),
        ({"checkpoint_every": 3}, ValueError, "checkpoint_every needs checkpoint"),
        ({"checkpoint": "a.ckpt", "checkpoint_every": 0}, ValueError, "checkpoint_every must be at least 1"),
        ({"resume": True}, ValueError, "resume=True needs checkpoint"),
        ({"resume": None}, TypeError, "resume must be the name of a file, got None"),
        ({"resume": "not-there.ckpt"}, FileNotFoundError, "not-there.ckpt"),
    ],
)
def test_invalid_arguments_raise_and_change_nothing(
    options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net = network()
    before = net.flat_parameters.tobytes()
    with pytest.raises(error, match=message):
        train(net, *samples(), optimizer=fastbp.Adam(), **options)
    assert net.flat_parameters.tobytes() == before and os.listdir(tmp_path) == []


# ---- signals ---------------------------------------------------------------------------------------------------------

RUN = """
    import os, signal, sys, threading, time
    import numpy as np
    import fastbp

    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = np.random.default_rng(0)
    n = 20_000
    x, t = rng.standard_normal((n, 64), dtype=np.float32), rng.integers(0, 10, n)
    weight = rng.uniform(0, 2, n).astype(np.float32)
    weight[:6000] = 0

    def go(**options):
        net, optimizer = fastbp.MLP([64, 32, 10], seed=0), fastbp.Adam()
        options = dict(epochs=4, batch_size=32, progress=False, sample_weight=weight, validation_fraction=0.1) | options
        stopping = fastbp.EarlyStopping(patience=9)
        history = fastbp.train(net, x, t, optimizer=optimizer, early_stopping=stopping, **options)
        state = optimizer.state_for(net)
        return net.flat_parameters.tobytes() + state.arrays["v"].tobytes(), history.loss, history.val_loss
"""

CTRL_C = (
    RUN
    + """
    # Ctrl-C again and again, each time in the middle of an epoch; the run goes on from the place where it was.
    shuffle = sys.argv[1] == "shuffle"
    expected, hits, delay = go(shuffle=shuffle), 0, 0.004
    while True:
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        try:
            timer.start()
            found = go(checkpoint="run.ckpt", checkpoint_every=10**6, resume=True, shuffle=shuffle)
            timer.cancel()
            timer.join()
            break
        except KeyboardInterrupt:
            hits, delay = hits + 1, delay * 1.2
    assert found == expected, "other bits"
    print(hits)
"""
)


def script(code: str, directory: Path, *arguments: str) -> list[str]:
    (directory / "script.py").write_text(textwrap.dedent(code))
    return [sys.executable, "script.py", *arguments]


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(processes.PLACE), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}


@pytest.mark.serial
@pytest.mark.parametrize("shuffle", ["shuffle", "no"])
def test_ctrl_c_writes_a_checkpoint(shuffle: str, tmp_path: Path) -> None:
    done = subprocess.run(
        script(CTRL_C, tmp_path, shuffle), cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


KILLED = (
    RUN
    + """
    found = go(checkpoint="run.ckpt", checkpoint_every=3, resume=True, epochs=1)
    import hashlib
    print(hashlib.sha256(found[0]).hexdigest(), found[1:])
"""
)

WHOLE = (
    RUN
    + """
    found = go(epochs=1)
    import hashlib
    print(hashlib.sha256(found[0]).hexdigest(), found[1:])
"""
)


@pytest.mark.serial
def test_a_run_that_is_killed_many_times_ends_with_the_same_bits(tmp_path: Path) -> None:
    command = script(KILLED, tmp_path)
    numbers = random.Random(0)
    path = tmp_path / "run.ckpt"
    for _ in range(4):
        with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE) as process:
            until = time.monotonic() + 90
            before = path.stat().st_mtime_ns if path.exists() else 0
            while time.monotonic() < until and process.poll() is None:
                if path.exists() and path.stat().st_mtime_ns != before:
                    break
                time.sleep(0.001)
            time.sleep(numbers.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        load_checkpoint(path, fastbp.MLP([64, 32, 10], seed=0), fastbp.Adam())
    run = {"cwd": tmp_path, "env": environment(), "capture_output": True, "text": True, "timeout": 100}
    resumed = subprocess.run(command, **run)  # type: ignore[call-overload]
    whole = subprocess.run(script(WHOLE, tmp_path), **run)  # type: ignore[call-overload]
    assert resumed.returncode == whole.returncode == 0, resumed.stderr + whole.stderr
    assert resumed.stdout == whole.stdout


KILLS = """
    # A child writes checkpoints one after another, each with its number in all of its arrays, and is killed.
    import os, random, signal, time
    import fastbp

    net, optimizer = fastbp.MLP([50, 400, 10], seed=0), fastbp.Adam()
    state = optimizer.state_for(net)

    def write(first, pipe):
        for number in range(first, 10**9):
            net.flat_parameters[...] = state.arrays["m"][...] = state.arrays["v"][...] = state.step = number
            fastbp.save_checkpoint("run.ckpt", net, optimizer, extra={"number": number})
            os.write(pipe, b".")

    numbers, last = random.Random(1), 0
    for _ in range(30):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            write(last + 1, writing)
        os.close(writing)
        told = len(os.read(reading, 1))  # it has begun
        time.sleep(numbers.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while said := len(os.read(reading, 4096)):
            told += said
        os.close(reading)
        number = fastbp.load_checkpoint("run.ckpt", net, optimizer).extra["number"]
        # The child was killed after it was told that a file is whole, and before that was told of the next.
        assert last + told <= number <= last + told + 1, (last, told, number)
        for array in (net.flat_parameters, *state.arrays.values()):
            assert (array == number).all()
        assert state.step == number
        last = number
    parts = [name for name in os.listdir(".") if name.endswith(".tmp")]
    assert len(os.listdir(".")) == 1 + len(parts), os.listdir(".")
    for name in parts:
        os.utime(name, (0, 0))
    fastbp.save_checkpoint("run.ckpt", net, optimizer)
    print(len(parts), os.listdir("."))
"""


@pytest.mark.serial
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLS)],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parts, _, left = done.stdout.strip().partition(" ")
    assert int(parts) > 0, "no kill came while a file was being written"
    assert left == "['run.ckpt']"


# ---- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", [False, True])
def test_the_history_of_an_unfinished_epoch_is_saved_and_loaded(validation: bool, tmp_path: Path) -> None:
    net, optimizer = fastbp.MLP([1, 2, 1], loss="mse", dtype="float64", seed=0), fastbp.Adam()
    x = np.linspace(-1, 1, 64)[:, None]
    options = {"validation_data": (x, x)} if validation else {}
    history = fastbp.train(net, x, x, optimizer=optimizer, batch_size=16, epochs=2, max_steps=6, **options)
    assert history.unfinished and len(history.loss) == 2
    fastbp.save_checkpoint(tmp_path / "run.ckpt", net, optimizer, history=history)
    assert fastbp.load_checkpoint(tmp_path / "run.ckpt", net, optimizer).history == history


@pytest.mark.parametrize(
    "change",
    [
        {"made": np.full(3, np.nan)},
        {"made": np.array([0.5, 1.0, 48.0])},
        {"made": np.array([3.0, 1.0, -1.0])},
        {"batch": 1000},
        {"epoch": 10**6},
        {"steps": 10**9},
    ],
    ids=str,
)
def test_counts_that_contradict_each_other_change_nothing(change: dict[str, Any], tmp_path: Path) -> None:
    net, path = fastbp.MLP([1, 2, 1], loss="mse", dtype="float64", seed=0), tmp_path / "run.ckpt"
    x = np.linspace(-1, 1, 64)[:, None]
    options = {"optimizer": fastbp.Adam(), "batch_size": 8, "epochs": 4}
    fastbp.train(net, x, x, max_steps=11, checkpoint=path, **options)
    tree = checkpoint.read_tree(path)
    tree["run"] |= change
    checkpoint.write_tree(path, tree)
    before = net.flat_parameters.copy()
    net.flat_parameters[0] += 1
    with pytest.raises(fastbp.CheckpointError), unchanged(net.flat_parameters):
        fastbp.train(net, x, x, resume=path, **options)
    assert net.flat_parameters[0] == before[0] + 1


def test_an_epoch_whose_last_batch_a_callback_stops_after_is_whole() -> None:
    class Enough(fastbp.Callback):
        def on_batch_end(self, net: Any, history: Any, batch: Any) -> None:
            if batch.step == 8:
                raise fastbp.StopTraining

    net, x = fastbp.MLP([1, 2, 1], loss="mse", dtype="float64", seed=0), np.linspace(-1, 1, 64)[:, None]
    history = fastbp.train(net, x, x, optimizer=fastbp.Adam(), batch_size=8, epochs=4, callbacks=[Enough()])
    assert (history.epochs, history.steps, history.unfinished) == (1, 8, False)
