"""The units alone: against the kernels, by hand, as a protocol for users' own."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, central_differences, some_options
from numpy.testing import assert_allclose, assert_array_equal

import fastbp
from fastbp import functional, units
from fastbp.random import Philox, stream_number
from fastbp.reference import ACTIVATIONS, Activation
from fastbp.units import Linear, Unit
from fastbp.units.elementwise import ActivationUnit

RULES = pytest.mark.parametrize("rule", ACTIVATIONS.values(), ids=lambda r: r.name)


def unit_of(rule: Activation) -> ActivationUnit:
    unit = getattr(units, rule.unit)()
    assert isinstance(unit, ActivationUnit)
    return unit


# ---- activations -----------------------------------------------------------------------------------------------------


@RULES
def test_every_activation_has_its_class(rule: Activation) -> None:
    cls = getattr(fastbp, rule.unit)
    assert cls is getattr(units, rule.unit)
    assert (cls.__name__, cls.__module__, cls.rule) == (rule.unit, "fastbp.units", rule)
    for section in ("Raises", "References", "Examples"):
        assert f"{section}\n" in inspect.getdoc(cls)
    assert repr(cls()) == f"{rule.unit}()"
    assert cls().parameter_shapes() == cls().parameters == cls().gradients == {}


@pytest.mark.parametrize("dtype", DTYPES)
@RULES
def test_activation_units_are_the_kernels(rule: Activation, dtype: Any, rng: np.random.Generator) -> None:
    x, dy = rng.normal(0, 2, (2, 5, 3)).astype(dtype)
    unit, forward = unit_of(rule), getattr(functional, rule.name)
    y = unit.forward(x)
    assert_same_bits(y, forward(x))
    kept = y if rule.needs == "output" else x
    assert_same_bits(unit.backward(dy), getattr(functional, f"{rule.name}_backward")(dy, kept))


@RULES
def test_activation_units_remember_the_last_forward(rule: Activation, rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 4, 2))
    unit, other = unit_of(rule), unit_of(rule)
    other.forward(x)
    unit.forward(np.ones((1, 1)))
    unit.forward(x)
    assert_same_bits(unit.backward(dy), other.backward(dy))
    assert_same_bits(unit.backward(dy), other.backward(dy))  # any number of times


WITH_OPTIONS = pytest.mark.parametrize(
    "rule", [rule for rule in ACTIVATIONS.values() if rule.options], ids=lambda r: r.name
)


@WITH_OPTIONS
def test_options_make_the_unit(rule: Activation, rng: np.random.Generator) -> None:
    cls, (x, dy) = getattr(fastbp, rule.unit), rng.normal(0, 2, (2, 5, 3))
    parameters = inspect.signature(cls).parameters
    assert {name: p.default for name, p in parameters.items()} == {n: o.default for n, o in rule.options.items()}
    forward, backward = getattr(functional, rule.name), getattr(functional, f"{rule.name}_backward")
    for options in some_options(rule):
        unit = cls(**options)
        shown = ", ".join(f"{name}={value:g}" for name, value in options.items())
        assert repr(unit) == f"{rule.unit}({shown})"
        given = {name: options.get(name, option.default) for name, option in rule.options.items()}
        assert unit.options == given and unit.engine_options() == tuple(given.values())
        assert {name: getattr(unit, name) for name in given} == given
        y = unit.forward(x)
        assert_same_bits(y, forward(x, **options))
        assert_same_bits(unit.backward(dy), backward(dy, y if rule.needs == "output" else x, **options))
        for other in (unit.fresh(), copy.copy(unit), copy.deepcopy(unit), pickle.loads(pickle.dumps(unit))):
            assert other.options == given
            assert_same_bits(other.forward(x), y)


@WITH_OPTIONS
def test_options_may_come_in_their_order(rule: Activation) -> None:
    cls = getattr(fastbp, rule.unit)
    values = [0.5 + option.default for option in rule.options.values()]
    assert list(cls(*values).options.values()) == values
    with pytest.raises(TypeError, match=rf"{rule.unit} has {len(values)} options .*got {len(values) + 1}"):
        cls(*values, 1.0)
    with pytest.raises(TypeError, match=f"{rule.unit} got {next(iter(rule.options))} twice"):
        cls(0.5, **dict.fromkeys(rule.options, 0.5))


@WITH_OPTIONS
def test_options_stay_as_they_were_made(rule: Activation) -> None:
    """An engine has its copy of them."""
    unit = getattr(fastbp, rule.unit)()
    unit.options.clear()
    assert unit.engine_options() == tuple(option.default for option in rule.options.values())
    for name in ("options", *rule.options):
        with pytest.raises(AttributeError):
            setattr(unit, name, 1.0)


def test_a_subclass_need_not_call_super() -> None:
    class Shifted(fastbp.LeakyReLU):
        def __init__(self, shift: float) -> None:
            self.shift = shift

        def forward(self, x: Any) -> Any:
            return super().forward(x + self.shift)

    unit = Shifted(1.0)
    assert unit.kind is None and list(inspect.signature(Shifted).parameters) == ["shift"]
    assert_array_equal(unit.forward(np.array([[-2.0, 2.0]])), [[-0.01, 3.0]])
    assert_array_equal(unit.backward(np.ones((1, 2))), [[0.01, 1.0]])


# ---- linear ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_is_the_kernels(dtype: Any, rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(5, 4)).astype(dtype), rng.normal(size=(5, 3)).astype(dtype)
    unit = Linear(4, 3, dtype=dtype, seed=1)
    w, b = unit.parameters["weight"], unit.parameters["bias"]
    b[...] = 0.5
    assert (w.shape, w.dtype, b.shape, b.dtype) == ((4, 3), dtype, (3,), dtype)
    into = {name: (g, g.ctypes.data) for name, g in unit.gradients.items()}
    assert all(not g.any() for g, _ in into.values())
    for _ in range(2):
        assert_same_bits(unit.forward(x), functional.linear(x, w, b))
        dx, dw, db = functional.linear_backward(dy, x, w)
        assert_same_bits((unit.backward(dy), unit.gradients["weight"], unit.gradients["bias"]), (dx, dw, db))
    assert {name: (g, g.ctypes.data) for name, g in unit.gradients.items()}.keys() == {"weight", "bias"}
    assert all(unit.gradients[name] is g and g.ctypes.data == address for name, (g, address) in into.items())


def test_linear_sees_what_is_written_into_its_parameters() -> None:
    unit = Linear(2, 1, dtype="float64")
    unit.parameters["weight"][...] = [[2.0], [3.0]]
    assert_array_equal(unit.forward(np.array([[1.0, 10.0]])), [[32.0]])
    unit.parameters["bias"][0] = 1.0
    assert_array_equal(unit.forward(np.array([[1.0, 10.0]])), [[33.0]])


def test_linear_begins_as_its_rule_and_seed_say() -> None:
    weights = Linear(30, 20, seed=3, dtype="float64").parameters["weight"]
    assert_same_bits(weights, Linear(30, 20, seed=3, dtype="float64").parameters["weight"])
    assert_same_bits(weights.astype(np.float32), Linear(30, 20, seed=3).parameters["weight"])
    assert (weights != Linear(30, 20, seed=4, dtype="float64").parameters["weight"]).any()
    assert (Linear(30, 20).parameters["weight"] != Linear(30, 20).parameters["weight"]).any()
    bound = np.sqrt(6 / 50)  # Glorot's
    assert 0.9 * bound < np.abs(weights).max() <= bound
    assert not Linear(3, 2, init="zeros").parameters["weight"].any()
    assert not Linear(3, 2).parameters["bias"].any()
    expected = {"weight": np.zeros((30, 20)), "bias": np.ones(20)}
    Linear(30, 20).initialize(Philox(3, stream_number("weights", 0)), expected)
    assert_same_bits(weights, expected["weight"])
    assert not expected["bias"].any()


def test_linear_shows_how_it_was_made() -> None:
    assert repr(Linear(3, 2)) == "Linear(3, 2)"
    assert repr(Linear(3, 2, init="he_normal")) == "Linear(3, 2, init='he_normal')"
    assert Linear(np.int64(3), 2).parameter_shapes() == {"weight": (3, 2), "bias": (2,)}
    assert Linear(3, 2).parameters["weight"].dtype == np.float32


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"n_in": 0}, ValueError, "n_in must be at least 1, got 0"),
        ({"n_out": -2}, ValueError, "n_out must be at least 1, got -2"),
        ({"n_in": 2.0}, TypeError, r"n_in must be an integer, got 2.0 \(float\)"),
        ({"n_out": True}, TypeError, "n_out must be an integer, got True"),
        ({"n_out": "3"}, TypeError, r"n_out must be an integer, got '3' \(str\)"),
        ({"init": "gloro"}, ValueError, "'gloro'.*glorot_uniform.*zeros"),
        ({"init": 3}, TypeError, "3"),
        ({"dtype": "float16"}, ValueError, "unknown dtype 'float16': known are 'float32', 'float64'"),
        ({"dtype": "nonsense"}, ValueError, "unknown dtype 'nonsense'"),
        ({"dtype": int}, ValueError, "unknown dtype <class 'int'>"),
        ({"dtype": 3}, TypeError, "unknown dtype 3"),
        ({"dtype": ">f4"}, ValueError, "unknown dtype '>f4'"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 0.5}, TypeError, "seed"),
        # names before sizes
        ({"init": "gloro", "n_in": 0}, ValueError, "gloro"),
        ({"dtype": "float16", "n_in": 0}, ValueError, "float16"),
    ],
)
def test_linear_refuses_invalid_arguments(kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Linear(**{"n_in": 3, "n_out": 2, **kwargs})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones((2, 4), np.float32), ValueError, r"w has shape \(3, 2\), expected \(4, n\): x has shape \(2, 4\)"),
        (np.ones(3, np.float32), ValueError, r"x has shape \(3,\), expected 2 dimensions .*x\[None\]"),
        (np.ones((2, 3)), TypeError, r"x has dtype float64 but the unit is float32: pass x.astype\(np.float32\)"),
        ([[1.0, 2.0, 3.0]], TypeError, r"x has dtype float64 .*: pass np.asarray\(x\).astype\(np.float32\)"),
    ],
)
def test_a_refused_forward_leaves_the_saved_values(x: Any, error: type[Exception], message: str) -> None:
    unit, good = Linear(3, 2, seed=0), np.ones((1, 3), np.float32)
    unit.forward(good)
    with pytest.raises(error, match=message):
        unit.forward(x)
    unit.backward(np.ones((1, 2), np.float32))
    assert_array_equal(unit.gradients["weight"], np.ones((3, 2)))
    before = unit.gradients["weight"].copy()
    with pytest.raises(ValueError, match=r"dy has shape \(1, 3\), expected \(1, 2\)"):
        unit.backward(np.ones((1, 3), np.float32))
    assert_same_bits(unit.gradients["weight"], before)


# ---- a network by hand -----------------------------------------------------------------------------------------------


def test_a_chain_worked_by_hand() -> None:
    """x -> 2 linear -> relu -> 1 linear -> squared error, every number worked on paper."""
    first, relu = Linear(2, 2, dtype="float64"), unit_of(ACTIVATIONS["relu"])
    second, loss = Linear(2, 1, dtype="float64"), fastbp.MSE()
    first.parameters["weight"][...] = [[1.0, -1.0], [2.0, 1.0]]
    first.parameters["bias"][...] = [0.0, -1.0]
    second.parameters["weight"][...] = [[3.0], [4.0]]
    second.parameters["bias"][...] = [1.0]
    x, t = np.array([[1.0, 1.0]]), np.array([[8.0]])
    h = relu.forward(first.forward(x))  # z = (3, -1), h = (3, 0)
    assert_array_equal(h, [[3.0, 0.0]])
    y = second.forward(h)
    assert_array_equal(y, [[10.0]])
    assert loss.forward(y, t) == 2.0  # (10 - 8)**2 / 2
    dx = first.backward(relu.backward(second.backward(loss.backward())))
    assert_array_equal(second.gradients["weight"], [[6.0], [0.0]])
    assert_array_equal(second.gradients["bias"], [2.0])
    assert_array_equal(first.gradients["weight"], [[6.0, 0.0], [6.0, 0.0]])  # dz = (6, 0)
    assert_array_equal(first.gradients["bias"], [6.0, 0.0])
    assert_array_equal(dx, [[6.0, 12.0]])


def test_a_chains_gradients_are_the_finite_differences(rng: np.random.Generator) -> None:
    chain: list[Unit] = [Linear(3, 4, dtype="float64", seed=1), unit_of(ACTIVATIONS["sigmoid"])]
    chain += [Linear(4, 2, dtype="float64", seed=2), unit_of(ACTIVATIONS["tanh"])]
    chain += [Linear(2, 3, dtype="float64", seed=3)]
    x, t, loss = rng.normal(size=(5, 3)), np.array([0, 2, 1, 1, 0]), fastbp.SoftmaxNLL()

    def value(at: np.ndarray) -> float:
        for unit in chain:
            at = unit.forward(at)
        return loss.forward(at, t)

    differences = {(i, name): w for i, unit in enumerate(chain) for name, w in unit.parameters.items()}
    for (i, name), w in differences.items():
        kept = w.copy()

        def moved(at: np.ndarray, w: np.ndarray = w) -> float:
            w[...] = at
            return value(x)

        differences[i, name] = central_differences(moved, kept)
        w[...] = kept
    dx_differences = central_differences(value, x)
    value(x)
    dy = loss.backward()
    for unit in reversed(chain):
        dy = unit.backward(dy)
    assert_allclose(dy, dx_differences, rtol=0, atol=1e-9)
    for (i, name), expected in differences.items():
        assert_allclose(chain[i].gradients[name], expected, rtol=0, atol=1e-9)


# ---- the protocol ----------------------------------------------------------------------------------------------------


class Scale(Unit):
    """A user's unit with a parameter, which does not call super().__init__()."""

    def __init__(self, n: int) -> None:
        self.n = n

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"factor": (self.n,)}

    def initialize(self, rng: Philox, parameters: dict[str, Any]) -> None:
        rng.uniform(parameters["factor"], 1.0, 2.0)

    def forward(self, x: Any) -> Any:
        self._saved = x
        return x * self.parameters["factor"]

    def backward(self, dy: Any) -> Any:
        self.gradients["factor"][...] = (dy * self._saved_by_forward()).sum(axis=0)
        return dy * self.parameters["factor"]


def test_a_users_unit_works_alone() -> None:
    unit = Scale(3)
    x = np.ones((2, 3), np.float32)
    y = unit.forward(x)
    factor = unit.parameters["factor"]
    assert factor.dtype == np.float32 and ((factor >= 1) & (factor <= 2)).all()
    assert_same_bits(y, x * factor)
    assert_same_bits(unit.backward(x), x * factor)
    assert_array_equal(unit.gradients["factor"], [2.0, 2.0, 2.0])


@pytest.mark.parametrize(("method", "args"), [("forward(x)", (np.ones((1, 1)),)), ("backward(dy)", (np.ones((1, 1)),))])
def test_missing_methods_are_named(method: str, args: tuple[Any, ...]) -> None:
    class Half(Unit):
        pass

    with pytest.raises(NotImplementedError, match=re.escape(f"Half does not define {method}")):
        getattr(Half(), method.partition("(")[0])(*args)


def test_parameters_without_initialize_are_refused() -> None:
    class Half(Unit):
        def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
            return {"weight": (1,)}

    with pytest.raises(NotImplementedError, match=r"Half does not define initialize\(rng, parameters\)"):
        _ = Half().parameters


@pytest.mark.parametrize("unit", [Linear(2, 2), *[unit_of(rule) for rule in ACTIVATIONS.values()]], ids=repr)
def test_backward_before_forward_raises(unit: Unit) -> None:
    with pytest.raises(RuntimeError, match=r"backward before forward: call forward\(x\) first"):
        unit.backward(np.ones((1, 2), np.float32))


def views(unit: Unit, dtype: Any = np.float32) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    made = [{name: np.zeros(shape, dtype) for name, shape in unit.parameter_shapes().items()} for _ in range(2)]
    return made[0], made[1]


def test_a_network_binds_its_views_once() -> None:
    unit = Linear(3, 2)
    parameters, gradients = views(unit)
    unit.bind(parameters, gradients)
    assert unit.parameters["weight"] is parameters["weight"] and unit.gradients["bias"] is gradients["bias"]
    with pytest.raises(ValueError, match=r"Linear\(3, 2\) is in a network already"):
        unit.bind(*views(unit))
    assert unit.parameters["weight"] is parameters["weight"]
    unit.release()
    unit.bind(*views(unit))
    assert unit.parameters["weight"] is not parameters["weight"]


def test_an_activation_is_in_one_network_only() -> None:
    unit = unit_of(ACTIVATIONS["relu"])
    unit.bind({}, {})
    with pytest.raises(ValueError, match=r"ReLU\(\) is in a network already"):
        unit.bind({}, {})


def test_binding_a_used_unit_raises() -> None:
    unit = Linear(3, 2)
    own = unit.parameters
    with pytest.raises(ValueError, match=r"Linear\(3, 2\) has been used alone"):
        unit.bind(*views(unit))
    assert unit.parameters is own
    explicit = Linear(3, 2, dtype="float64")
    with pytest.raises(ValueError, match="made with dtype float64, but weight of the network is float32"):
        explicit.bind(*views(unit))
    explicit.bind(*views(unit, np.float64))


def test_fresh_units_have_the_settings_alone() -> None:
    unit = Linear(3, 2, init="he_normal", dtype="float64", seed=5)
    unit.forward(np.ones((1, 3)))
    fresh = unit.fresh()
    assert type(fresh) is Linear and (fresh.n_in, fresh.n_out, fresh.init, fresh.seed) == (3, 2, "he_normal", 5)
    with pytest.raises(RuntimeError):
        fresh.backward(np.ones((1, 2)))
    fresh.bind(*views(fresh))
    assert "parameters" in vars(unit) and unit.backward(np.ones((1, 2))).shape == (1, 3)


@pytest.mark.parametrize("unit", [Linear(3, 2, seed=0), *[unit_of(rule) for rule in ACTIVATIONS.values()]], ids=repr)
def test_units_survive_copy_and_pickle(unit: Unit) -> None:
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    y = unit.forward(x)
    for other in (copy.deepcopy(unit), pickle.loads(pickle.dumps(unit))):
        assert type(other) is type(unit)
        assert_same_bits(other.forward(x), y)
