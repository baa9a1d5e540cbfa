"""Files with valid digests and wrong contents: each is refused by its own error, and nothing is changed."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import unchanged

import fastbp
from fastbp.io import saving
from fastbp.training import checkpoint


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


VALUES: list[Any] = [None, True, -1, 0.5, 2**80, 10**400, math.nan, math.inf, "x", "", [], [1], {}, {"x": 1}]
Place = tuple[Any, ...]


def places(tree: Any, place: Place = ()) -> Iterator[Place]:
    """Return the place of every node of a tree of JSON."""
    if place:
        yield place
    for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(inner, (*place, key))


def at(tree: Any, place: Place) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def changed(tree: Any, below: Place = ()) -> Iterator[tuple[Place, Any, Any]]:
    """Return the tree with each node replaced by each value, and left out: the place, the value and the whole tree."""
    for place in places(at(tree, below), below):
        if place == below:
            continue
        for value in [*VALUES, ...]:
            made = copy.deepcopy(tree)
            if value is ...:
                del at(made, place[:-1])[place[-1]]
            else:
                at(made, place[:-1])[place[-1]] = value
            yield place, value, made


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def network() -> fastbp.Network:
    units = fastbp.Linear(2, 2), fastbp.BatchNorm(2), fastbp.Dropout(0.5), fastbp.Linear(2, 2)
    return fastbp.Network(*units, loss=fastbp.MSE(), dtype="float64", seed=0)


def adam() -> fastbp.Optimizer:
    groups = [{"match": "*.bias", "lr": 0.5}]
    return fastbp.Adam(lr=fastbp.optim.schedules.ReduceOnPlateau(0.01), groups=groups, clip_norm=1.0)


def batch() -> tuple[Any, Any]:
    x = np.arange(12.0).reshape(6, 2) / 10
    return x, x[:, ::-1].copy()


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the header of a checkpoint, and the bytes of its arrays."""
    whole = path.read_bytes()
    start = len(checkpoint.MAGIC) + 8
    length = int.from_bytes(whole[start - 8 : start], "little")
    header: dict[str, Any] = json.loads(whole[start : start + length])
    return header, whole[start + length : -checkpoint.DIGEST]


def write(path: Path, header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header).encode()
    whole = checkpoint.MAGIC + len(text).to_bytes(8, "little") + text + data
    path.write_bytes(whole + hashlib.sha256(whole).digest())


def bits(*made: Any) -> bytes:
    """Return all that a load may change."""
    net, optimizer, *others = made
    state = {name: np.array(values) for name, values in net.state.items()}
    parts = [np.array(net.flat_parameters), state, net.seed, net.steps, copy.deepcopy(optimizer.get_state(net))]
    for other in others:
        kept = other.get_state() if isinstance(other, fastbp.Callback) else other.get_state(net)
        parts.append(copy.deepcopy(kept))
    return pickle.dumps(parts)


def test_a_changed_checkpoint_is_refused_or_loaded_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    net, optimizer = network(), adam()
    for _ in range(2):
        net.train_step(*batch(), optimizer)
    optimizer.observe(1.0)
    history = fastbp.History(loss=[1.0, 0.5], val_loss=[], seconds=[0.1, 0.1], best_epoch=1, steps=2)
    fastbp.save_checkpoint(path, net, optimizer, history=history, extra={"mine": [1, (2.5, None)], "x": np.ones(2)})
    header, data = header_of(path)
    write(path, header, data)
    other, fresh = network(), adam()
    fastbp.load_checkpoint(path, other, fresh)
    assert bits(other, fresh) == bits(net, optimizer)

    other, fresh = network(), adam()
    before, refused, loaded = bits(other, fresh), 0, 0
    for place, value, made in changed(header):
        write(path, made, data)
        try:
            found = fastbp.load_checkpoint(path, other, fresh)
        except fastbp.CheckpointError as error:
            assert str(path) in str(error)
            assert bits(other, fresh) == before, (place, value)
            refused += 1
        else:
            loaded += 1
            fastbp.save_checkpoint(path, other, fresh, history=found.history, extra=found.extra)
            again, another = network(), adam()
            fastbp.load_checkpoint(path, again, another)
            assert bits(again, another) == bits(other, fresh), (place, value)
            again.train_step(*batch(), another)
            other, fresh = network(), adam()
    assert refused > 1000 and loaded < refused / 4


def test_a_network_that_computes_from_adopted_arrays_is_left_alone(tmp_path: Path) -> None:
    path, net, optimizer = tmp_path / "run.ckpt", network(), adam()
    fastbp.save_checkpoint(path, net, optimizer)
    arrays = [values.copy() for values in net.parameters.values()]
    net.adopt(arrays, in_place=True)
    with unchanged(*arrays), pytest.raises(ValueError, match="computes from adopted arrays"):
        fastbp.load_checkpoint(path, net, optimizer)


def average_and_stopping() -> tuple[fastbp.EMA, fastbp.EarlyStopping]:
    return fastbp.EMA(0.5), fastbp.EarlyStopping("loss", patience=5)


def run(net: Any, optimizer: Any, average: Any, stopping: Any, **options: Any) -> Any:
    given = {"batch_size": 2, "seed": 3, "average": average, "early_stopping": stopping, "progress": False}
    return fastbp.train(net, *batch(), optimizer=optimizer, epochs=3, **given, **options)


def test_a_changed_checkpoint_of_a_run_is_refused_or_resumed(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    run(network(), adam(), *average_and_stopping(), checkpoint=path, max_steps=5)
    header, data = header_of(path)
    made = network(), adam(), *average_and_stopping()
    before, refused = bits(*made), 0
    for below in (("content", "dict", "run"), ("content", "dict", "history")):
        for place, value, changed_header in changed(header, below):
            write(path, changed_header, data)
            try:
                run(*made, resume=path)
            except fastbp.CheckpointError as error:
                assert str(path) in str(error)
                assert bits(*made) == before, (place, value)
                refused += 1
            else:
                made = network(), adam(), *average_and_stopping()
    assert refused > 300


class Refusing(fastbp.Callback):
    """A user's callback that takes its state and then raises."""

    def __init__(self) -> None:
        self.seen = 0

    def get_state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def set_state(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]
        if self.seen:
            raise KeyError("other")

    def on_epoch_end(self, net: Any, history: Any) -> None:
        self.seen += 1


def test_a_callback_that_refuses_its_state_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    options = {"epochs": 2, "seed": 0, "progress": False}
    net, optimizer = network(), adam()
    stopping = fastbp.EarlyStopping("loss", patience=5)
    fastbp.train(net, *batch(), optimizer=optimizer, callbacks=[stopping, Refusing()], checkpoint=path, **options)
    net, optimizer, calls = network(), adam(), [fastbp.EarlyStopping("loss", patience=5), Refusing()]
    before = bits(net, optimizer, calls[0])
    with pytest.raises(fastbp.CheckpointError, match="does not fit the callbacks: 'other'"):
        fastbp.train(net, *batch(), optimizer=optimizer, callbacks=calls, resume=path, **options)
    assert bits(net, optimizer, calls[0]) == before and calls[1].seen == 0


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_changed_model_is_refused_or_loaded_as_it_is(suffix: str, tmp_path: Path) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"model{suffix}"
    loss = fastbp.SoftmaxNLL(class_weight=[1.0, 2.0])
    units = fastbp.Linear(2, 2), fastbp.Residual(fastbp.Sequential(fastbp.LeakyReLU(0.1), fastbp.BatchNorm(2)))
    net = fastbp.Network(*units, loss=loss, seed=0, classes=["a", "b"], metadata={"author": "me", "list": [1, None]})
    net.save(path)
    form = saving.FORMATS[suffix]
    with form.read(path) as found:
        metadata, arrays = dict(found.metadata), {name: np.array(found[name]) for name in found}
    refused = loaded = 0
    for place, value, made in changed(json.loads(metadata["architecture"])):
        metadata["architecture"] = text = json.dumps(made)
        metadata["sha256"] = saving._digest(saving.VERSION, text, arrays)
        with open(path, "wb") as file:
            form.write(file, arrays, metadata)
        try:
            other = fastbp.load(path)
        except ValueError as error:
            assert str(path) in str(error), (place, value)
            refused += 1
        else:
            loaded += 1
            assert other.flat_parameters.tobytes() == net.flat_parameters.tobytes()
            other.save(path)
            assert fastbp.load(path).config() == other.config(), (place, value)
    assert refused > 500 and loaded < refused / 2


def test_the_digest_comes_before_the_architecture(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    fastbp.MLP([2, 2], seed=0).save(path)
    with saving.FORMATS[".npz"].read(path) as found:
        metadata, arrays = dict(found.metadata), {name: np.array(found[name]) for name in found}
    for digest, message in (("0" * 64, "its digest does not fit"), (None, "are not all numbers of float32")):
        data = json.loads(metadata["architecture"])
        data["network"]["config"]["l1"] = {"array": [10**400], "dtype": "float32", "shape": [1]}
        text = json.dumps(data)
        with open(path, "wb") as file:
            strings = {"architecture": text, "sha256": digest or saving._digest(saving.VERSION, text, arrays)}
            saving.FORMATS[".npz"].write(file, arrays, metadata | strings)
        with pytest.raises(ValueError, match=message):
            fastbp.load(path)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([2**70], "int64"),
        ([300], "int8"),
        ([-1], "uint8"),
        ([0.5], "int32"),
        ([10**400], "float64"),
        ([1e39], "float32"),
        ([math.nan], "int64"),
        ([2], "bool"),
        ([1], "str"),
    ],
)
def test_numbers_that_their_dtype_does_not_hold_are_refused(values: list[Any], dtype: str) -> None:
    from fastbp import _config

    with pytest.raises(ValueError, match=r"are not all numbers of|is not written as one"):
        _config.decode({"array": values, "dtype": dtype, "shape": [1]}, lambda name, given: None)
