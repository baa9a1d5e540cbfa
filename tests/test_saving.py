"""Models in files, copies and pickles: what comes back is equal, and what is no model is refused.

A. What is tested follows from the package's public classes: a new unit or loss is tested by being there. Arguments
   without a default are taken from `ARGUMENTS` by their name.
B. Files are attacked in three ways: bytes flipped and cut off at random, entries changed one at a time by an attacker
   who also corrects the digest, and files of other programs.
"""

from __future__ import annotations

import copy
import inspect
import io
import json
import math
import os
import pickle
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, grid
from processes import output

import fastbp
from fastbp import _config
from fastbp.io import _describe, saving
from fastbp.losses import Loss
from fastbp.units import Unit
from fastbp.units.images import ImageUnit

safetensors = pytest.importorskip("safetensors", reason="needs the extra save")

SUFFIXES = tuple(saving.FORMATS)
WIDTH = 3

# A callable makes a new value each time: a unit belongs to one network.
ARGUMENTS: dict[str, Any] = {
    "n": WIDTH,
    "n_in": WIDTH,
    "n_out": 4,
    "n_codes": 5,
    "width": 2,
    "n_features": WIDTH,
    "in_channels": WIDTH,
    "out_channels": 2,
    "size": 1,  # images here have one pixel: as many numbers as other units read
    "p": 0.25,
    "units": lambda: [fastbp.Tanh(), fastbp.Sequential(fastbp.Linear(WIDTH, 2), fastbp.Linear(2, WIDTH))],
    "block": lambda: fastbp.Linear(WIDTH, WIDTH),
    "losses": lambda: [(0.75, fastbp.MSE()), (0.25, fastbp.Huber(delta=0.5))],
}

# Options that are more than a number, by the class that has them.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "Linear": [{"n_in": WIDTH, "n_out": 2, "init": "he_uniform", "seed": 7}],
    "Branches": [{"units": ARGUMENTS["units"], "merge": merge} for merge in ("concat", "mean")],
    "Conv2d": [
        {
            "in_channels": WIDTH,
            "out_channels": 6,
            "size": (3, 2),
            "stride": (2, 1),
            "padding": (1, (0, 1)),
            "groups": 3,
        },
        {"in_channels": WIDTH, "out_channels": 2, "size": 3, "padding": "same", "bias": False, "init": "he_uniform"},
    ],
    "SoftmaxNLL": [{"class_weight": [0.5, 2.0]}, {"class_weight": np.array([0.1, 2.0])}, {"ignore_index": -1}],
    "SigmoidNLL": [{"pos_weight": 2.5}, {"pos_weight": np.array([0.5, 1 / 3], np.float32)}],
    "GaussianNLL": [
        {"covariance": np.array([0.5, 1 / 3])},
        {"covariance": np.array([[2.0, 0.1], [0.1, 1.0]])},
        {"predict_variance": True},
    ],
    "Quantile": [{"q": 0.9}, {"q": (0.1, 0.9)}, {"q": [0.1, 0.9]}],
}


def public(base: type) -> list[type]:
    found = [getattr(fastbp, name) for name in fastbp.__all__]
    return [cls for cls in found if isinstance(cls, type) and issubclass(cls, base) and cls is not base]


def settings_of(cls: type) -> list[dict[str, Any]]:
    """Arguments for a class: those that it needs, then with each number that has a default halved, then OPTIONS."""
    least, more, names = {}, {}, set()
    for parameter in _config.parameters_of(cls):
        names.add(parameter.name)
        if parameter.default is not parameter.empty:
            if isinstance(parameter.default, float):
                more[parameter.name] = parameter.default / 2
        elif parameter.kind is not parameter.VAR_KEYWORD:
            assert parameter.name in ARGUMENTS, f"{cls.__name__} needs {parameter.name!r}: put one into ARGUMENTS"
            least[parameter.name] = ARGUMENTS[parameter.name]
    known = [values for values in OPTIONS.get(cls.__name__, []) if values.keys() <= names]
    return [least, *([{**least, **more}] if more else []), *known]


def make(cls: type, values: dict[str, Any]) -> Any:
    return _config.call(cls, {name: value() if callable(value) else value for name, value in values.items()})


UNITS = [(cls, values) for cls in public(Unit) for values in settings_of(cls)]
LOSSES = [(cls, values) for cls in public(Loss) for values in settings_of(cls)]


def name_of(case: Any) -> str:
    if isinstance(case, dict):  # a function's repr differs from process to process
        return ", ".join(f"{name}={'...' if callable(value) else value}" for name, value in case.items()) or "defaults"
    return case.__name__ if isinstance(case, type) else str(case)


def with_loss(loss: type, values: dict[str, Any], dtype: Any) -> fastbp.Network:
    """Return a linear model."""
    return fastbp.Network(fastbp.Linear(WIDTH, 2), loss=make(loss, values), dtype=dtype, seed=2)


def with_unit(cls: type, values: dict[str, Any], dtype: Any) -> fastbp.Network:
    unit = make(cls, values)
    return behind(unit, 2, fastbp.MSE(), dtype, 3)


def behind(unit: Unit, n_out: int, loss: Loss, dtype: Any, seed: int) -> fastbp.Network:
    """Return a network of the unit and a linear one; what a unit of images reads has one pixel."""
    if isinstance(unit, ImageUnit):
        shape = (WIDTH, 1, 1)[: 1 + unit.dims]
        units = unit, fastbp.Flatten(), fastbp.Linear(math.prod(unit.output_shape(shape)), n_out)
        return fastbp.Network(*units, loss=loss, input_shape=shape, dtype=dtype, seed=seed)
    outputs = unit.outputs_for(WIDTH)
    assert outputs is not None
    return fastbp.Network(unit, fastbp.Linear(outputs, n_out), loss=loss, dtype=dtype, seed=seed)


# One network of each kind, made for a dtype.
KINDS: dict[str, Callable[[Any], fastbp.Network]] = {
    **{
        f"MLP {hidden}": lambda dtype, hidden=hidden: fastbp.MLP([WIDTH, 5, 4, 2], hidden=hidden, dtype=dtype, seed=1)
        for hidden in fastbp.reference.ACTIVATIONS
    },
    **{f"{loss.__name__} {name_of(v)}": lambda dtype, loss=loss, v=v: with_loss(loss, v, dtype) for loss, v in LOSSES},
    **{f"{cls.__name__} {name_of(v)}": lambda dtype, cls=cls, v=v: with_unit(cls, v, dtype) for cls, v in UNITS},
    "deep MLP": lambda dtype: fastbp.MLP(
        [WIDTH, *[4] * 20, 1], loss="mse", init="he_normal", dtype=dtype, seed=2**64 - 1
    ),
    "no parameters": lambda dtype: fastbp.Network(fastbp.Sigmoid(), loss=fastbp.MSE(), dtype=dtype),
}


@pytest.fixture
def net(kind: str, dtype: Any) -> fastbp.Network:
    return KINDS[kind](dtype)


def is_typical(kind: str, *_: Any) -> bool:
    """Return whether a network is one that goes every way: all kinds are taken apart by the same functions."""
    return kind in ("MLP relu", "deep MLP") or kind.startswith(("BatchNorm", "Residual"))


SUFFIX = pytest.mark.parametrize("suffix", SUFFIXES)


def assert_equal(net: fastbp.Network, other: fastbp.Network, rng: np.random.Generator) -> None:
    """Equal in all that can be seen, and with nothing shared."""
    assert type(other) is type(net) and repr(other) == repr(net)
    assert (other.seed, other.dtype) == (net.seed, net.dtype)
    assert _describe.describe(other) == _describe.describe(net)
    mine, others = dict(_describe.arrays_of(net, saving.VERSION)), dict(_describe.arrays_of(other, saving.VERSION))
    assert list(mine) == list(others)
    for name, values in mine.items():
        assert_same_bits(others[name], values)
        assert not np.shares_memory(others[name], values)
        assert others[name].flags.writeable
    assert not np.shares_memory(other.flat_parameters, net.flat_parameters)
    x = inputs(rng, 5, net.dtype)
    steps = net.steps
    assert_same_bits(other.forward(x), net.forward(x))
    net.steps = other.steps = steps  # a forward pass of training counts


def inputs(rng: np.random.Generator, rows: int, dtype: Any = np.float32) -> np.ndarray:
    """Numbers that an embedding may take for indices."""
    return rng.integers(0, 4, (rows, WIDTH)).astype(dtype)


def scrambled(net: fastbp.Network, rng: np.random.Generator) -> fastbp.Network:
    """Parameters that no seed gives."""
    net.flat_parameters[...] = rng.uniform(0.5, 1.5, net.n_parameters)
    return net


# ---- architecture as data --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "values"), UNITS + LOSSES, ids=name_of)
def test_every_unit_and_loss_says_what_it_was_made_with(cls: type, values: dict[str, Any]) -> None:
    one = make(cls, values)
    data = json.loads(json.dumps(_config.describe(one), allow_nan=False))
    assert data["class"] == f"fastbp.{cls.__name__}"
    again = _config.decode(data, _describe._Maker({}, None).part)
    assert type(again) is cls and repr(again) == repr(one) and again.config() == one.config()
    for name, value in values.items():
        if isinstance(value, int | float | str):
            assert data["config"][name] in (value, [value], [value, value])  # one number for each axis


@grid("kind dtype", KINDS, DTYPES, always=is_typical)
def test_a_network_is_built_from_its_description(net: fastbp.Network) -> None:
    data = json.loads(json.dumps(_describe.describe(net), allow_nan=False))
    other = _describe.build(data, limit=sum(a.size for _, a in _describe.arrays_of(net, saving.VERSION)))
    assert type(other) is type(net) and repr(other) == repr(net)
    assert {k: v.shape for k, v in other.parameters.items()} == {k: v.shape for k, v in net.parameters.items()}


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        2**70,
        0.1,
        float("inf"),
        -float("inf"),
        "relu",
        [1, [2.5, "a"]],
        {"a": 1, 2: [0.5]},
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.zeros((0, 2)),
        np.array(2.5),
        np.array([True, False]),
        np.array([np.nan, np.inf, 1e-320]),
        [np.ones(2, np.int8)],
    ],
    ids=repr,
)
def test_values_survive_encoding(value: Any) -> None:
    data = json.loads(json.dumps(_config.encode(value, "value"), allow_nan=False))
    again = _config.decode(data, lambda name, values: None)
    assert type(again) is type(value)
    np.testing.assert_equal(again, value)
    if isinstance(value, np.ndarray):
        assert (again.dtype, again.shape) == (value.dtype, value.shape)


def test_tuples_and_numpy_values_become_json_types() -> None:
    values = {"a": (1, 2), "b": np.float32(0.5), "c": np.int64(3), "d": np.dtype("f8"), "e": np.float32}
    values["f"] = np.bool_(True)
    plain = {"a": [1, 2], "b": 0.5, "c": 3, "d": "float64", "e": "float32", "f": True}
    assert _config.decode(_config.encode(values, "values"), lambda name, values: None) == plain
    assert np.isnan(_config.decode(_config.encode(np.nan, "nan"), lambda name, values: None))


@pytest.mark.parametrize("value", [print, object(), b"raw", 1j, np.array([1j]), np.array([None])])
def test_values_that_are_not_data_raise(value: Any) -> None:
    with pytest.raises(TypeError, match=r"Unit\.thing.*cannot be written as data"):
        _config.encode(value, "Unit.thing")


# ---- files -----------------------------------------------------------------------------------------------------------


@grid("kind dtype suffix", KINDS, DTYPES, SUFFIXES, always=is_typical)
def test_a_saved_network_is_loaded_equal(
    net: fastbp.Network, suffix: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    scrambled(net, rng)
    assert net.save(tmp_path / f"model{suffix}") is None
    assert_equal(net, fastbp.load(str(tmp_path / f"model{suffix}")), rng)
    assert [path.name for path in tmp_path.iterdir()] == [f"model{suffix}"]


@SUFFIX
def test_every_bit_of_the_parameters_is_kept(suffix: str, tmp_path: Path) -> None:
    net = fastbp.MLP([2, 3], dtype="float64", seed=0)
    net.flat_parameters[...] = [np.nan, -0.0, np.inf, -np.inf, 5e-324, 1e308, np.pi, 0, 1]
    net.flat_parameters.view(np.int64)[8] = -1  # a NaN with a payload
    net.save(tmp_path / f"m{suffix}")
    assert fastbp.load(tmp_path / f"m{suffix}").flat_parameters.tobytes() == net.flat_parameters.tobytes()


@SUFFIX
def test_a_trained_network_goes_on_as_it_would_have(suffix: str, tmp_path: Path, rng: np.random.Generator) -> None:
    net = fastbp.MLP([3, 8, 2], hidden="tanh", seed=0)
    x, t = rng.random((20, 3), np.float32), rng.integers(0, 2, 20)
    fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.1), epochs=2, progress=False, seed=0)
    net.save(tmp_path / f"m{suffix}")
    other = fastbp.load(tmp_path / f"m{suffix}")
    for one in (net, other):
        fastbp.train(one, x, t, optimizer=fastbp.SGD(lr=0.1), epochs=2, progress=False, seed=1)
    assert_same_bits(other.flat_parameters, net.flat_parameters)


def test_other_programs_can_read_the_arrays(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    net = fastbp.MLP([2, 3, 1], loss="mse", seed=0)
    net.save(tmp_path / "m.safetensors")
    net.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz", allow_pickle=False) as archive:
        for arrays in (load_file(tmp_path / "m.safetensors"), archive):
            for name, values in net.parameters.items():
                assert_same_bits(arrays[f"parameters.{name.replace('weight', 'weight_in_out')}"], values)


@SUFFIX
def test_no_name_in_a_file_is_one_that_torch_has(suffix: str, tmp_path: Path) -> None:
    """There weights are (out, in): a square one would be transposed, or the bias alone be loaded."""
    net = fastbp.Network(fastbp.Linear(3, 3), fastbp.BatchNorm(3), fastbp.PReLU(), loss=fastbp.MSE(), seed=0)
    path = tmp_path / f"m{suffix}"
    net.save(path)
    torchs = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "2.weight"}
    with saving.FORMATS[suffix].read(path) as found:
        assert len(found) == 7 and "parameters.0.weight_in_out" in found
        assert not torchs & set(found) and all(name.startswith(("parameters.", "state.")) for name in found)


def version_1(net: fastbp.Network, path: Path) -> None:
    """Write a file as an earlier release did."""
    data = _describe.describe(net)
    del data["metadata"], data["network"]["config"]["metadata"], data["network"]["config"]["classes"]
    text = json.dumps(data)
    arrays = {name: np.asarray(values, order="C") for name, values in _describe.arrays_of(net, 1)}
    metadata = {"format": "fastbp", "version": "1", "architecture": text, "sha256": saving._digest(1, text, arrays)}
    with open(path, "wb") as file:
        saving.FORMATS[path.suffix].write(file, arrays, metadata)


@SUFFIX
def test_files_of_version_1_are_loaded(
    stateful: fastbp.Network, suffix: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / f"m{suffix}"
    version_1(stateful, path)
    with saving.FORMATS[suffix].read(path) as found:
        assert "0.weight" in found
    assert_equal(stateful, fastbp.load(path, units={"Running": Running}), rng)


def test_an_archive_depends_on_the_network_alone(tmp_path: Path) -> None:
    """Safetensors writes its metadata in any order."""
    for name in ("a", "b"):
        fastbp.MLP([2, 3], seed=0).save(tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("name", ["model", "model.pt", "model.pkl", "model.safetensors.bak"])
def test_an_unknown_suffix_lists_the_known(name: str, tmp_path: Path) -> None:
    for act in (fastbp.MLP([1, 1]).save, fastbp.load):
        with pytest.raises(ValueError, match=r"unknown suffix.*known are '\.safetensors', '\.npz'"):
            act(tmp_path / name)
    assert not list(tmp_path.iterdir())


@SUFFIX
def test_errors_of_the_system_are_passed_on(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fastbp.load(tmp_path / f"none{suffix}")
    with pytest.raises(FileNotFoundError):
        fastbp.MLP([1, 1]).save(tmp_path / "none" / f"m{suffix}")
    (tmp_path / f"directory{suffix}").mkdir()
    with pytest.raises(OSError):
        fastbp.load(tmp_path / f"directory{suffix}")
    with pytest.raises(OSError):
        fastbp.MLP([1, 1]).save(tmp_path / f"directory{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"directory{suffix}"]


def test_without_safetensors_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = fastbp.MLP([1, 1])
    net.save(tmp_path / "m.safetensors")
    before = (tmp_path / "m.safetensors").read_bytes()
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for act in (net.save, fastbp.load):
        with pytest.raises(ImportError, match=r'pip install "fastbp\[save\]"'):
            act(tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


# ---- a user's own ----------------------------------------------------------------------------------------------------


class Scale(Unit):
    def __init__(self, n: int, factor: float = 2.0) -> None:
        self.n, self.factor = n, factor

    def outputs_for(self, n_in: int | None) -> int | None:
        return n_in

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"scale": (self.n,)}

    def initialize(self, rng: Any, parameters: dict[str, Any]) -> None:
        parameters["scale"][...] = self.factor

    def forward(self, x: Any) -> Any:
        self._saved = x
        return x * self.parameters["scale"]

    def backward(self, dy: Any) -> Any:
        self.gradients["scale"][...] = (dy * self._saved_by_forward()).sum(axis=0)
        return dy * self.parameters["scale"]


class Cubic(Loss):
    def __init__(self, power: float = 3.0) -> None:
        self.power = power

    def value_and_grad(self, y: Any, t: Any, *, sample_weight: Any = None, reduction: Any = "mean") -> Any:
        return float((np.abs(y) ** self.power).sum() / len(y)), self.power * np.abs(y) ** (self.power - 1) / len(y)


class Encoder(fastbp.Network):
    def __init__(self, n: int, *, seed: int | None = None) -> None:
        self.n = n
        super().__init__(fastbp.Linear(n, 1), fastbp.Linear(1, n), loss=fastbp.MSE(), seed=seed)


OWN = {"Scale": Scale, "Cubic": Cubic}


def own_network() -> fastbp.Network:
    return fastbp.Network(fastbp.Linear(WIDTH, 4), Scale(4, factor=0.5), loss=Cubic(2.5), seed=0)


@SUFFIX
def test_users_classes_are_handed_over(suffix: str, tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / f"m{suffix}"
    net = scrambled(own_network(), rng)
    net.save(path)
    assert_equal(net, fastbp.load(path, units=OWN), rng)
    for units, name in ((None, "Scale"), ({"Cubic": Cubic}, "Scale"), ({"Scale": Scale}, "Cubic")):
        with pytest.raises(
            ValueError, match=rf"'{name}' is not of this package: hand its class over, load\("
        ) as caught:
            fastbp.load(path, units=units)
    # The advice of the last message is a line that works.
    advice = str(caught.value).partition("hand its class over, ")[2]
    assert_equal(net, eval(advice, {"load": fastbp.load, "path": path} | OWN), rng)


@SUFFIX
def test_a_users_network_is_loaded_as_its_class(suffix: str, tmp_path: Path, rng: np.random.Generator) -> None:
    path, net = tmp_path / f"m{suffix}", scrambled(Encoder(WIDTH, seed=4), rng)
    net.save(path)
    assert_equal(net, fastbp.load(path, units={"Encoder": Encoder}), rng)
    with pytest.raises(ValueError, match="network 'Encoder' is not of this package"):
        fastbp.load(path)


def test_users_classes_cannot_replace_the_packages(tmp_path: Path) -> None:
    ours = fastbp.Network(fastbp.Linear(2, 2), fastbp.ReLU(), loss=fastbp.MSE(), seed=0)
    ours.save(tmp_path / "ours.npz")
    namesake = type("ReLU", (Scale,), {})
    assert type(fastbp.load(tmp_path / "ours.npz", units={"ReLU": namesake}).units[1]) is fastbp.ReLU
    fastbp.Network(fastbp.Linear(2, 2), namesake(2), loss=fastbp.MSE()).save(tmp_path / "own.npz")
    with pytest.raises(ValueError, match="'ReLU' is not of this package"):
        fastbp.load(tmp_path / "own.npz")
    assert type(fastbp.load(tmp_path / "own.npz", units={"ReLU": namesake}).units[1]) is namesake


@pytest.mark.parametrize(
    ("units", "message"),
    [(["Scale"], "units must be a dict"), ({"Scale": "Scale"}, r"units\['Scale'\]"), ({"a": dict}, r"units\['a'\]")],
)
def test_units_must_be_classes_by_name(units: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=message):
        fastbp.load(tmp_path / "m.npz", units=units)


class Forgetful(Scale):
    def __init__(self, n: int, secret: int) -> None:
        self.n, self.factor = n, float(secret)


class Wrong(Scale):
    def __init__(self, n: int) -> None:
        self.n, self.factor = n + 1, 1.0

    def config(self) -> dict[str, Any]:
        return {"n": self.n}


class Callable_(Scale):
    def __init__(self, n: int, function: Callable[..., Any] = abs) -> None:
        self.n, self.factor, self.function = n, 1.0, function


@pytest.mark.parametrize(
    ("unit", "error", "message"),
    [
        (Forgetful(2, 3), TypeError, r"Forgetful takes 'secret'.*set self\.secret.*, or define Forgetful\.config"),
        (Wrong(1), ValueError, r"made again from its config has .*\(3,\).*expected.*\(2,\).*define Wrong\.config"),
        (Callable_(2), TypeError, r"Callable_\.function is .*cannot be written as data"),
    ],
    ids=lambda case: type(case).__name__,
)
def test_a_unit_that_cannot_be_read_back_raises_on_save(unit: Unit, error: Any, message: str, tmp_path: Path) -> None:
    net = fastbp.Network(fastbp.Linear(1, 2), unit, loss=fastbp.MSE())
    with pytest.raises(error, match=message):
        net.save(tmp_path / "m.npz")
    assert not list(tmp_path.iterdir())


def test_two_users_classes_of_one_name_raise(tmp_path: Path) -> None:
    net = fastbp.Network(Scale(2), type("Scale", (Scale,), {})(2), fastbp.Linear(2, 2), loss=fastbp.MSE())
    with pytest.raises(ValueError, match="two classes of the network are named 'Scale'"):
        net.save(tmp_path / "m.npz")


class Settled(Scale):
    """Its arguments are in a dict, as those of units made from a table are."""

    def __init__(self, n: int, **options: float) -> None:
        self.n, self.options = n, options
        self.factor = options.get("factor", 1.0)


class Declared(Settled):
    __signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("n", "factor")]
    )


@pytest.mark.parametrize("cls", [Settled, Declared])
def test_options_may_be_in_a_dict(cls: type, tmp_path: Path, rng: np.random.Generator) -> None:
    net = fastbp.Network(cls(n=WIDTH, factor=0.75), loss=fastbp.MSE())
    assert net.units[0].config() == {"n": WIDTH, "factor": 0.75}
    net.save(tmp_path / "m.npz")
    assert_equal(net, fastbp.load(tmp_path / "m.npz", units={cls.__name__: cls}), rng)


class Nest(Unit):
    def __init__(self, inner: list[Unit]) -> None:
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return self.inner[0].forward(x)


def nested_network(depth: int) -> fastbp.Network:
    unit: Unit = fastbp.Tanh()
    for _ in range(depth):
        unit = Nest([unit])
    return fastbp.Network(unit, loss=fastbp.MSE(), seed=0)


@SUFFIX
def test_units_inside_units_are_saved_up_to_a_depth(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    nested_network(40).save(path)
    found = fastbp.load(path, units={"Nest": Nest})
    assert _describe.describe(found) == _describe.describe(nested_network(40))
    before = path.read_bytes()
    for depth in (70, 400):
        with pytest.raises(ValueError, match="nested"):
            nested_network(depth).save(path)
    assert path.read_bytes() == before


class Running(Unit):
    """A mean of all that went through: state beside the parameters."""

    def __init__(self, n: int) -> None:
        self.n = n

    def outputs_for(self, n_in: int | None) -> int | None:
        return n_in

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"mean": (self.n,)}

    def forward(self, x: Any) -> Any:
        self.state["mean"][...] += x.mean(axis=0)
        return x + self.state["mean"]

    def backward(self, dy: Any) -> Any:
        return dy


@pytest.fixture
def stateful() -> fastbp.Network:
    inner = fastbp.Sequential(Running(2), fastbp.Residual(Running(2)))
    net = fastbp.Network(fastbp.Linear(WIDTH, 2), inner, loss=fastbp.MSE(), seed=0)
    net.forward(np.ones((4, WIDTH), np.float32))
    net.eval()
    return net


@SUFFIX
def test_state_is_saved(stateful: fastbp.Network, suffix: str, tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / f"m{suffix}"
    assert all(values.any() for values in stateful.state.values()) and stateful.steps == 1
    stateful.save(path)
    found = fastbp.load(path, units={"Running": Running})
    assert (found.training, found.steps) == (False, 1)
    assert_equal(stateful, found, rng)
    arrays = dict(_describe.arrays_of(stateful, saving.VERSION))
    assert list(arrays) == ["parameters.0.weight_in_out", "parameters.0.bias", "state.1.0.mean", "state.1.1.0.mean"]


def test_state_is_copied(stateful: fastbp.Network, rng: np.random.Generator) -> None:
    for again in COPIES.values():
        other = again(stateful)
        assert (other.training, other.steps) == (False, 1)
        assert_equal(stateful, other, rng)


def test_a_composite_is_copied_alone(rng: np.random.Generator) -> None:
    """Its own dicts and those of the units inside share their arrays again."""
    x = inputs(rng, 4)
    block = fastbp.Sequential(Running(WIDTH), fastbp.Residual(fastbp.Linear(WIDTH, WIDTH)), Running(WIDTH))
    block.forward(x)
    block.training = False
    for again in COPIES.values():
        other = again(block)
        assert not other.training
        for name, values in block.state.items():
            assert_same_bits(other.state[name], values)
        expected = copy.deepcopy(block).forward(x)
        assert_same_bits(other.forward(x), expected)
        other.backward(x)
        assert other.gradients["1.0.weight"].any() and not block.gradients["1.0.weight"].any()
        other.parameters["1.0.weight"][...] = 0
        assert not other.units[1].block.parameters["weight"].any() and block.parameters["1.0.weight"].any()
        fastbp.Network(other.fresh(), loss=fastbp.MSE())


@SUFFIX
@pytest.mark.parametrize("hidden", [["relu", "tanh"], fastbp.Tanh(), [fastbp.Sigmoid(), "relu"]], ids=repr)
def test_an_mlp_keeps_its_hidden_units(hidden: Any, suffix: str, tmp_path: Path, rng: np.random.Generator) -> None:
    net = scrambled(fastbp.MLP([WIDTH, 4, 5, 2], hidden=hidden, seed=0), rng)
    net.save(tmp_path / f"m{suffix}")
    assert_equal(net, fastbp.load(tmp_path / f"m{suffix}"), rng)
    for again in COPIES.values():
        assert_equal(net, again(net), rng)


# ---- files that are no models ----------------------------------------------------------------------------------------


def small() -> fastbp.Network:
    return fastbp.Network(fastbp.Linear(2, 3), fastbp.Tanh(), fastbp.Linear(3, 1), loss=fastbp.MSE(), seed=0)


@SUFFIX
@pytest.mark.parametrize("kind", ["flip", "cut", "insert", "swap"])
def test_a_damaged_file_is_loaded_equal_or_refused(
    kind: str, suffix: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    net, path = small(), tmp_path / f"m{suffix}"
    net.save(path)
    whole = path.read_bytes()
    refused = 0
    for _ in range(250):
        path.write_bytes(damaged(whole, kind, rng))
        try:
            other = fastbp.load(path)
        except (ValueError, OSError) as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert_same_bits(other.flat_parameters, net.flat_parameters)
            assert _describe.describe(other) == _describe.describe(net)
    assert refused > 100  # the .npz has bytes without a meaning


def damaged(whole: bytes, kind: str, rng: np.random.Generator) -> bytes:
    data, at = bytearray(whole), int(rng.integers(len(whole)))
    if kind == "flip":
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del data[at:]
    elif kind == "insert":
        data[at:at] = rng.bytes(int(rng.integers(1, 9)))
    else:
        length, to = int(rng.integers(1, 9)), int(rng.integers(len(whole)))
        data[at : at + length], data[to : to + length] = data[to : to + length], data[at : at + length]
    return bytes(data)


@SUFFIX
def test_every_truncation_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    small().save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            fastbp.load(path)


def test_each_bit_of_a_parameter_counts(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    small().save(path)
    whole = path.read_bytes()
    for i in range(len(whole) - small().flat_parameters.nbytes, len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(ValueError, match="is damaged: its digest does not fit"):
            fastbp.load(path)


def rewrite(
    path: Path, change: Callable[[dict[str, Any], dict[str, Any], dict[str, str]], None], *, digest: bool = True
) -> None:
    """Change a file's arrays, architecture and metadata, and make its digest fit again."""
    net = small()
    architecture, arrays = _describe.describe(net), dict(_describe.arrays_of(net, saving.VERSION))
    metadata = {"format": "fastbp", "version": str(saving.VERSION)}
    change(architecture, arrays, metadata)
    metadata.setdefault("architecture", json.dumps(architecture))
    if digest:
        fixed = {name: np.asarray(values, order="C") for name, values in arrays.items()}
        metadata["sha256"] = saving._digest(saving.VERSION, metadata["architecture"], fixed)
    with open(path, "wb") as file:
        saving.FORMATS[path.suffix].write(file, arrays, metadata)


def set_config(position: int, **values: Any) -> Callable[..., None]:
    def change(architecture: dict[str, Any], arrays: dict[str, Any], metadata: dict[str, str]) -> None:
        architecture["network"]["config"]["chain"][position]["config"].update(values)

    return change


def replace_unit(position: int, unit: Any) -> Callable[..., None]:
    def change(architecture: dict[str, Any], arrays: dict[str, Any], metadata: dict[str, str]) -> None:
        architecture["network"]["config"]["chain"][position] = unit

    return change


def set_architecture(text: str) -> Callable[..., None]:
    return lambda architecture, arrays, metadata: metadata.update(architecture=text)


def whole_network(cls: str, **config: Any) -> Callable[..., None]:
    def change(architecture: dict[str, Any], arrays: dict[str, Any], metadata: dict[str, str]) -> None:
        architecture["network"] = {"class": cls, "config": config}

    return change


HUGE = 10**15
LOSS = {"class": "fastbp.MSE", "config": {}}

HOSTILE: dict[str, tuple[Callable[..., Any], str]] = {
    "a missing array": (lambda c, a, m: a.pop("parameters.2.bias"), "has 13 parameters, but there are only 12 numbers"),
    "an array by another name": (
        lambda c, a, m: a.update({"2.bias": a.pop("parameters.2.bias")}),
        "it lacks 'parameters.2.bias'",
    ),
    "one array more": (lambda c, a, m: a.update({"9.weight": np.ones(3)}), "it has the unknown '9.weight'"),
    "a name with a path": (lambda c, a, m: a.update({"../../x": np.ones(3)}), "it has the unknown '../../x'"),
    "another shape": (
        lambda c, a, m: a.update({"parameters.0.weight_in_out": np.ones((3, 2), np.float32)}),
        r"0\.weight_in_out is float32 \(3, 2\), expected float32 \(2, 3\)",
    ),
    "another dtype": (
        lambda c, a, m: a.update({"parameters.0.bias": np.ones(3)}),
        r"0\.bias is float64 \(3,\), expected float32 \(3,\)",
    ),
    "integers": (lambda c, a, m: a.update({"parameters.0.bias": np.ones(3, np.int64)}), "0.bias is .*expected float32"),
    "another dtype of the network": (
        lambda c, a, m: c["network"]["config"].update(dtype="float64"),
        "expected float64",
    ),
    "a newer version": (lambda c, a, m: m.update(version="3"), "has version 3 .*reads versions up to 2.*newer fastbp"),
    "no version": (lambda c, a, m: m.pop("version"), "version of the format is ''"),
    "a strange version": (lambda c, a, m: m.update(version="²"), "version of the format is '²'"),
    "another format": (lambda c, a, m: m.update(format="pt"), "is no model of fastbp"),
    "no JSON": (set_architecture("import os"), "no model that can be read"),
    "an empty architecture": (set_architecture("{}"), "has no entries 'network'"),
    "a list": (set_architecture("[1, 2]"), "has no entries 'network'"),
    "deep lists": (set_architecture("[" * 100_000 + "]" * 100_000), "nested too deep|no model that can be read"),
    "NaN": (set_architecture('{"network": NaN, "training": true, "steps": 0}'), "NaN is no number"),
    "digits without end": (set_architecture("9" * 5000), "no model that can be read"),
    "a unit that is none": (replace_unit(1, "Tanh"), "must be a fastbp.Unit"),
    "an unknown unit": (
        replace_unit(1, {"class": "fastbp.Tan", "config": {}}),
        "unknown unit or loss 'fastbp.Tan': known are 'fastbp",
    ),
    "a unit of another module": (
        replace_unit(1, {"class": "os.system", "config": {}}),
        "'os.system' is not of this package",
    ),
    "a function of ours": (replace_unit(1, {"class": "fastbp.train", "config": {}}), "unknown unit or loss"),
    "the base": (replace_unit(1, {"class": "fastbp.Unit", "config": {}}), "unknown unit or loss 'fastbp.Unit'"),
    "a class without a name": (replace_unit(1, {"class": None, "config": {}}), "has no meaning"),
    "a network in a network": (replace_unit(1, {"class": "fastbp.MLP", "config": {"sizes": [1, 1]}}), "unknown unit"),
    "an unknown option": (set_config(0, colour="red"), "Linear cannot be made from"),
    "huge sizes": (set_config(0, n_in=HUGE, n_out=HUGE), "the architecture has .* but there are only 13 numbers"),
    "a negative size": (set_config(0, n_in=-2), "n_in must be at least 1"),
    "a size that is no integer": (set_config(0, n_in=2.0), "n_in must be an integer"),
    "an infinite size": (set_config(0, n_in={"number": "inf"}), "n_in must be an integer"),
    "NaN as a size": (set_config(0, n_in={"number": "nan"}), "n_in must be an integer"),
    "a size as a list": (set_config(0, n_in=[2]), "n_in must be an integer"),
    "sizes that do not follow": (set_config(2, n_in=2), "cannot be made"),
    "a huge array": (set_config(0, n_in={"array": [1], "dtype": "float32", "shape": [HUGE]}), "not written as one"),
    "an array of objects": (set_config(0, n_in={"array": [1], "dtype": "object", "shape": [1]}), "not written as one"),
    "a meaningless entry": (set_config(0, n_in={"$ref": "#"}), "has no meaning"),
    "an unknown network": (whole_network("fastbp.Transformer"), "unknown network 'fastbp.Transformer': known are"),
    "a unit for a network": (whole_network("fastbp.ReLU"), "unknown network 'fastbp.ReLU'"),
    "no units": (whole_network("fastbp.Network", loss=LOSS), "at least one unit"),
    "no list of units": (whole_network("fastbp.Network", chain="abc", loss=LOSS), "chain must be a list"),
    "no loss": (whole_network("fastbp.Network", chain=[{"class": "fastbp.ReLU", "config": {}}]), "loss"),
    "a huge MLP": (whole_network("fastbp.MLP", sizes=[HUGE, HUGE]), "the architecture has .* but there are only 13"),
    "a long MLP": (whole_network("fastbp.MLP", sizes=[1] * 100_000), "the architecture has .* but there are only 13"),
    "an MLP of NaN": (whole_network("fastbp.MLP", sizes=[{"number": "nan"}, 1]), "sizes.0. must be an integer"),
    "an MLP of strings": (whole_network("fastbp.MLP", sizes=["1", 1]), "sizes.0. must be an integer"),
    "a mode that is none": (lambda c, a, m: c.update(training="yes"), "training 'yes'"),
    "negative steps": (lambda c, a, m: c.update(steps=-1), "steps -1"),
}


@SUFFIX
@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused(change: Callable[..., Any], message: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    rewrite(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        fastbp.load(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 3000


@SUFFIX
def test_unchanged_files_are_loaded(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    rewrite(path, lambda c, a, m: None)
    assert_same_bits(fastbp.load(path).flat_parameters, small().flat_parameters)
    rewrite(path, lambda c, a, m: None, digest=False)
    with pytest.raises(ValueError, match="it has no sha256"):
        fastbp.load(path)
    rewrite(path, lambda c, a, m: m.update(sha256="0" * 64), digest=False)
    with pytest.raises(ValueError, match="its digest does not fit"):
        fastbp.load(path)


def npy(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """The start of an .npy entry that promises this."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_an_archive_that_promises_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    for shape in ((HUGE,), (2**40, 2**40), (3,)):
        small().save(path)
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        entries["parameters.0.bias.npy"] = npy(shape)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        with pytest.raises(ValueError, match=r"0\.bias"):
            fastbp.load(path)


def version_2(entries: dict[str, bytes]) -> list[tuple[str, bytes]]:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.zeros(3, np.float32), version=(2, 0))
    return [*{**entries, "parameters.0.bias.npy": file.getvalue()}.items()]


DAMAGED: dict[str, tuple[Callable[[dict[str, bytes]], list[tuple[str, bytes]]], str]] = {
    "an entry twice": (
        lambda entries: [*entries.items(), ("parameters.0.bias.npy", b"")],
        "two of its entries have one name",
    ),
    "another version of npy": (version_2, r"version \(2, 0\) of its format, expected \(1, 0\)"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # of zipfile, where the file is made
@pytest.mark.parametrize("damage", DAMAGED)
def test_foreign_archives_are_refused(damage: str, tmp_path: Path) -> None:
    make, message = DAMAGED[damage]
    path = tmp_path / "m.npz"
    small().save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in make(entries):
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=message):
        fastbp.load(path)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    """It could hold a thousand times its size."""
    path = tmp_path / "m.npz"
    small().save(path)
    with np.load(path) as archive:
        np.savez_compressed(path, **archive)
    with pytest.raises(ValueError, match="is compressed, which net\\.save never does"):
        fastbp.load(path)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def test_nothing_in_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bomb = np.array([Bomb()], dtype=object)
    small().save("m.npz")
    with np.load("m.npz") as archive:
        arrays = dict(archive)
    for files in ({"fastbp.json": bomb}, {**arrays, "parameters.0.bias": bomb}, {"a": bomb}):
        np.savez("m.npz", **files)
        with pytest.raises(ValueError):
            fastbp.load("m.npz")
    for name in ("m.npz", "m.safetensors"):
        Path(name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ValueError):
            fastbp.load(name)
    assert not Path("exploded").exists()


def foreign_files(directory: Path) -> Iterator[tuple[str, bytes]]:
    from safetensors.numpy import save as to_safetensors

    yield "empty", b""
    yield "text", b"epoch,loss\n1,0.5\n" * 100
    yield "pickle", pickle.dumps({"weight": np.ones(3)})
    np.save(directory / "array.npy", np.ones(5))
    yield "one array", (directory / "array.npy").read_bytes()
    np.savez(directory / "arrays.npz", a=np.ones(3), b=np.array(["text"]))
    yield "arrays", (directory / "arrays.npz").read_bytes()
    torch = io.BytesIO()  # the layout of a torch checkpoint
    with zipfile.ZipFile(torch, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": 0}))
        archive.writestr("archive/data/0", b"\0" * 64)
    yield "torch", torch.getvalue()
    yield "safetensors", to_safetensors({"weight": np.ones(3, np.float16)}, {"format": "pt"})
    yield "safetensors without metadata", to_safetensors({"0.weight": np.ones(3)})
    yield "a header that is too long", struct.pack("<Q", 2**62) + b"{}"


@SUFFIX
def test_files_of_other_programs_are_refused(suffix: str, tmp_path: Path) -> None:
    for name, content in foreign_files(tmp_path):
        path = tmp_path / f"foreign{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is (no model of fastbp|damaged or no)"):
            fastbp.load(path)
            pytest.fail(f"loaded: {name}")


# ---- writing beside --------------------------------------------------------------------------------------------------


@SUFFIX
def test_a_file_that_cannot_be_finished_leaves_the_old_one(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, net = tmp_path / f"m{suffix}", small()
    net.save(path)
    before = path.read_bytes()
    net.flat_parameters[...] = 0

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for place in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, place, full)
            with pytest.raises(OSError, match="No space"):
                net.save(path)
        assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    net.save(path)
    assert not fastbp.load(path).flat_parameters.any()


@SUFFIX
def test_saving_while_training_raises(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, net, form = tmp_path / f"m{suffix}", small(), saving.FORMATS[suffix]
    net.save(path)
    before = path.read_bytes()

    def write(file: Any, arrays: Any, metadata: Any) -> None:
        form.write(file, arrays, metadata)
        net.flat_parameters[3] += 1  # as another thread's step would

    monkeypatch.setitem(saving.FORMATS, suffix, saving.Format(write, form.read))
    with pytest.raises(RuntimeError, match="was changed while it was saved"):
        net.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


KILL = """
    import os, signal, sys, time
    import fastbp
    nets = [fastbp.MLP([2, 300, 2], seed=0), fastbp.MLP([3, 200, 2], seed=0)]
    paths, delays = {paths!r}, {delays!r}
    found = set()
    for delay in delays:
        there, here = os.pipe()
        child = os.fork()
        while child == 0:
            for net in nets:
                for path in paths:
                    net.save(path)
            os.write(here, b"saved")
        os.read(there, 5)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found |= {{fastbp.load(path).n_in for path in paths}}
    print(found <= {{2, 3}})
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_kill_leaves_a_whole_file(tmp_path: Path, rng: np.random.Generator) -> None:
    """A process that saves two networks again and again is killed at any moment."""
    paths = [str(tmp_path / f"m{suffix}") for suffix in SUFFIXES]
    assert output(KILL.format(paths=paths, delays=rng.uniform(0, 0.05, 8).tolist())) == "True"


# ---- copy, pickle, joblib --------------------------------------------------------------------------------------------

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda made, protocol=protocol: pickle.loads(pickle.dumps(made, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}
COPY = pytest.mark.parametrize("again", COPIES.values(), ids=COPIES)


@grid("kind dtype way", KINDS, DTYPES, COPIES, always=is_typical)
def test_networks_are_copied(net: fastbp.Network, way: str, rng: np.random.Generator) -> None:
    scrambled(net, rng)
    net.forward(inputs(rng, 2, net.dtype))
    assert_equal(net, COPIES[way](net), rng)


@COPY
def test_users_units_losses_and_networks_are_copied(again: Callable[[Any], Any], rng: np.random.Generator) -> None:
    for net in (own_network(), Encoder(WIDTH, seed=4)):
        scrambled(net, rng)
        x = inputs(rng, 2)
        net.value_and_grad(x, x)
        other = again(net)
        assert_equal(net, other, rng)
        assert getattr(other, "n", None) == getattr(net, "n", None)
        assert_same_bits(other.value_and_grad(x, x)[1].flat, net.value_and_grad(x, x)[1].flat)


@COPY
def test_copies_are_independent(again: Callable[[Any], Any], rng: np.random.Generator) -> None:
    net = fastbp.MLP([3, 4, 2], seed=0)
    other, before = again(net), net.flat_parameters.copy()
    x, t = rng.random((8, 3), np.float32), rng.integers(0, 2, 8)
    other.train_step(x, t, fastbp.SGD(lr=0.5))
    other.weights[0][...] = 0
    assert_same_bits(net.flat_parameters, before)
    with pytest.raises(RuntimeError, match="backward before forward"):
        again(net).backward(np.zeros((8, 2), np.float32))


@grid("cls,values way", UNITS, COPIES, always=lambda case, _: case[0] in (fastbp.Residual, fastbp.Linear))
def test_units_are_copied_alone_and_out_of_a_network(
    cls: type, values: dict[str, Any], way: str, rng: np.random.Generator
) -> None:
    again = COPIES[way]
    alone, inside = make(cls, values), make(cls, values)
    x = inputs(rng, 2)
    net = behind(inside, 1, fastbp.MSE(), "float32", 1)
    net.forward(x)
    if net.input_shape is not None:
        x = x.reshape(2, *net.input_shape)
    alone.forward(x)
    alone.training = False  # chance is drawn anew where there is no seed
    net.eval()
    for unit in (alone, inside):
        other = again(unit)
        assert type(other) is cls and other.config() == unit.config()
        assert other.parameters.keys() == unit.parameters.keys()
        for name, mine in unit.parameters.items():
            assert_same_bits(other.parameters[name], mine)
            assert not np.shares_memory(other.parameters[name], mine)
        other.training = False
        assert_same_bits(other.forward(x), unit.forward(x))
    other.fresh().outputs_for(WIDTH)
    fastbp.Network(other.fresh(), loss=fastbp.MSE(), input_shape=net.input_shape)  # a copy is in no network


@grid("cls,values way", LOSSES, COPIES, always=lambda case, _: case[0] is fastbp.LossSum)
def test_losses_are_copied_with_their_options_and_without_a_memory(cls: type, values: dict[str, Any], way: str) -> None:
    loss = make(cls, values)
    other = COPIES[way](loss)
    assert type(other) is cls and repr(other) == repr(loss) and other.config() == loss.config()
    with pytest.raises(RuntimeError, match="backward before forward"):
        other.backward()


@COPY
def test_optimizers_are_copied_without_state(again: Callable[[Any], Any], rng: np.random.Generator) -> None:
    net, optimizer = fastbp.MLP([3, 2], seed=0), fastbp.Adam(lr=0.25, betas=(0.5, 0.75))
    net.train_step(rng.random((4, 3), np.float32), np.zeros(4, int), optimizer)
    other = again(optimizer)
    assert repr(other) == repr(optimizer) and other.betas == (0.5, 0.75)
    assert optimizer.state_for(net).step == 1 and other.state_for(net).step == 0


@COPY
def test_gradients_are_copied(again: Callable[[Any], Any], rng: np.random.Generator) -> None:
    net = fastbp.MLP([3, 4, 2], seed=0)
    x, t = rng.random((8, 3), np.float32), rng.integers(0, 2, 8)
    grads = net.value_and_grad(x, t)[1]
    other = again(grads)
    before = grads.flat.copy()
    net.value_and_grad(x + 1, t)
    assert_same_bits(other.flat, before)
    assert np.shares_memory(other["0.weight"], other.flat)
    net.value_and_grad(x, t, out=other)
    assert_same_bits(other.flat, before)


def test_a_pickle_holds_the_parameters_once() -> None:
    net = fastbp.MLP([100, 100, 100], seed=0)
    net.forward(np.ones((1000, 100), np.float32))
    assert len(pickle.dumps(net)) < net.flat_parameters.nbytes + 4000


ELSEWHERE = """
    import numpy as np, fastbp
    {imports}
    net = fastbp.MLP([3, 300, 400, 2], hidden="tanh", seed=0)
    net.flat_parameters[...] *= 1.5
    x = np.random.default_rng(0).random((7, 3), np.float32)
    if __name__ == "__main__":
        for y in {results}:
            assert (y == net.predict_proba(x)).all()
        print("equal")
"""


def test_networks_can_be_sent_to_other_processes() -> None:
    """By spawn, where a process begins with nothing."""
    script = ELSEWHERE.format(
        imports="import multiprocessing",
        results='multiprocessing.get_context("spawn").Pool(1).starmap(fastbp.Network.predict_proba, [(net, x)] * 2)',
    )
    assert output(script, warnings="default") == "equal"


def test_networks_survive_joblib(tmp_path: Path, rng: np.random.Generator) -> None:
    """Parallel maps large arrays into the workers' memory, read-only; a network has its own all the same."""
    joblib = pytest.importorskip("joblib", reason="scikit-learn brings it")
    net = scrambled(fastbp.MLP([WIDTH, 50, 50, 2], seed=0), rng)
    joblib.dump(net, tmp_path / "net.joblib")
    assert_equal(net, joblib.load(tmp_path / "net.joblib"), rng)
    assert_equal(net, joblib.load(tmp_path / "net.joblib", mmap_mode="r"), rng)
    script = ELSEWHERE.format(
        imports="from joblib import Parallel, delayed",
        results="Parallel(n_jobs=2, max_nbytes=1000)(delayed(net.predict_proba)(x) for _ in range(3))",
    )
    assert output(script, warnings="default") == "equal"
