"""The units of the table `UNITS`: alone, against their functions, in both modes, and in a network."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, unchanged
from numpy.testing import assert_allclose, assert_array_equal

import fastbp
from fastbp import reference, units
from fastbp.random import Philox, stream_number
from fastbp.reference import UNITS, UnitRule
from fastbp.units import Unit

RULES = pytest.mark.parametrize("rule", UNITS.values(), ids=lambda r: r.name)
BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)
N = 6


def make(rule: UnitRule, **options: Any) -> Unit:
    cls = getattr(fastbp, rule.unit)
    taken = inspect.signature(cls).parameters
    unit: Unit = cls(*rule.arguments(N), **{k: v for k, v in ({"seed": 3} | options).items() if k in taken})
    return unit


def make_x(rule: UnitRule, dtype: Any, rng: np.random.Generator) -> np.ndarray:
    x = rng.integers(0, 11, (7, N)) if rule.name == "embedding" else rng.normal(size=(7, N))
    return x.astype(dtype)


# ---- the table -------------------------------------------------------------------------------------------------------


@RULES
def test_entries_are_consistent(rule: UnitRule) -> None:
    assert getattr(reference, rule.name) is rule.forward
    assert getattr(reference, f"{rule.name}_backward") is rule.backward
    assert rule.unit.lower() == rule.name.replace("_", "")
    cls = getattr(fastbp, rule.unit)
    assert cls is getattr(units, rule.unit)
    unit = make(rule)
    assert unit.kind == rule.kind
    assert tuple(unit.parameter_shapes()) == rule.parameters
    for section in ("Raises", "References", "Examples"):
        assert f"{section}\n" in inspect.getdoc(cls)
    assert len(unit.engine_options()) <= 4 and all(isinstance(option, int | float) for option in unit.engine_options())


@RULES
def test_a_subclass_that_computes_something_else_has_no_kind(rule: UnitRule) -> None:
    base = getattr(fastbp, rule.unit)
    assert type("Mine", (base,), {"forward": base.forward}).kind is None
    assert type("Named", (base,), {}).kind == rule.kind


# ---- alone -----------------------------------------------------------------------------------------------------------


@pytest.mark.kernel
@BY_DTYPE
@RULES
def test_units_are_their_functions(rule: UnitRule, dtype: Any, rng: np.random.Generator) -> None:
    unit, x = make(rule, dtype=dtype), make_x(rule, dtype, rng)
    y = unit.forward(x)
    assert y.dtype == dtype and y.shape == (7, unit.outputs_for(N))
    dy = rng.normal(size=y.shape).astype(dtype)
    into = {name: (g, g.ctypes.data) for name, g in unit.gradients.items()}
    dx = unit.backward(dy)
    assert dx.shape == x.shape
    assert all(unit.gradients[name] is g and g.ctypes.data == address for name, (g, address) in into.items())
    if rule.name == "flatten":
        assert_same_bits((y, dx), (x, dy))
        return
    p = tuple(unit.parameters.values())
    if rule.name == "dropout":
        kept = {"p": 0.5, "seed": 3, "stream": stream_number("dropout", 0), "step": 0}
        expected, grads = fastbp.dropout(x, **kept), (fastbp.dropout_backward(dy, **kept),)
    elif rule.name in ("softmax", "log_softmax"):
        expected = getattr(fastbp, rule.name)(x)
        grads = (getattr(fastbp, f"{rule.name}_backward")(dy, expected),)
    else:
        expected = getattr(fastbp, rule.name)(x, *p)
        grads = getattr(fastbp, f"{rule.name}_backward")(dy, x, *p[:1])
    assert_same_bits(y, expected)
    assert_same_bits((dx, *unit.gradients.values()), grads)
    assert_same_bits((unit.backward(dy), *unit.gradients.values()), grads)  # any number of times


@RULES
def test_backward_before_forward_raises(rule: UnitRule) -> None:
    with pytest.raises(RuntimeError, match=r"backward before forward: call forward\(x\) first"):
        make(rule).backward(np.ones((2, N), np.float32))


@RULES
def test_units_survive_copy_and_pickle(rule: UnitRule, rng: np.random.Generator) -> None:
    unit, x = make(rule), make_x(rule, np.float32, rng)
    y = unit.forward(x)
    for other in (copy.deepcopy(unit), pickle.loads(pickle.dumps(unit))):
        assert repr(other) == repr(unit)
        if isinstance(other, fastbp.Dropout):
            other.steps = 0
        assert_same_bits(other.forward(x), y)


@RULES
def test_fresh_units_have_the_settings_alone(rule: UnitRule, rng: np.random.Generator) -> None:
    unit, x = make(rule), make_x(rule, np.float32, rng)
    y = unit.forward(x)
    fresh = unit.fresh()
    assert repr(fresh) == repr(unit) and "parameters" not in vars(fresh) and "state" not in vars(fresh)
    assert_same_bits(fresh.forward(x), y)


def test_units_show_how_they_were_made() -> None:
    shown = {
        "PReLU()": fastbp.PReLU(),
        "PReLU(4, init=0.1)": fastbp.PReLU(4, 0.1),
        "PReLU(init=0.1)": fastbp.PReLU(init=0.1),
        "Dropout(0.5)": fastbp.Dropout(),
        "LayerNorm(3)": fastbp.LayerNorm(3),
        "LayerNorm(3, eps=0.1, affine=False)": fastbp.LayerNorm(3, 0.1, affine=False),
        "RMSNorm(3)": fastbp.RMSNorm(3),
        "RMSNorm(3, eps=0.0)": fastbp.RMSNorm(3, 0),
        "BatchNorm(3)": fastbp.BatchNorm(3),
        "BatchNorm(3, eps=0.1, momentum=0.2)": fastbp.BatchNorm(3, 0.1, 0.2),
        "Embedding(9, 4)": fastbp.Embedding(9, 4),
        "Embedding(9, 4, columns=2)": fastbp.Embedding(9, 4, 2),
        "Flatten()": fastbp.Flatten(),
        "Softmax()": fastbp.Softmax(),
        "LogSoftmax()": fastbp.LogSoftmax(),
    }
    assert {text: repr(unit) for text, unit in shown.items()} == {text: text for text in shown}


def test_options_are_what_the_kernels_read() -> None:
    assert fastbp.PReLU(5).engine_options() == (5,)
    assert fastbp.Dropout(0.25).engine_options() == (0.25,)
    assert fastbp.LayerNorm(3, 0.5).engine_options() == (0.5,)
    assert fastbp.RMSNorm(3).engine_options()[0] < 0
    assert fastbp.RMSNorm(3, 0.5).engine_options() == (0.5,)
    assert fastbp.BatchNorm(3, 0.5, 0.2).engine_options() == (0.5, 0.2)
    assert fastbp.Embedding(9, 4).engine_options() == (9, 4, 0)
    assert fastbp.Embedding(9, 4, 2).engine_options() == (9, 4, 2)


def test_how_many_outputs_follow() -> None:
    assert fastbp.PReLU().outputs_for(7) == 7 and fastbp.PReLU().outputs_for(None) is None
    assert fastbp.PReLU(7).outputs_for(7) == fastbp.PReLU(7).outputs_for(None) == 7
    assert fastbp.LayerNorm(7).outputs_for(None) == fastbp.BatchNorm(7).outputs_for(7) == 7
    assert fastbp.Embedding(9, 4).outputs_for(3) == 12 and fastbp.Embedding(9, 4, 2).outputs_for(3) == 9
    assert fastbp.Embedding(9, 4).outputs_for(None) is None
    for unit in (fastbp.PReLU(7), fastbp.LayerNorm(7), fastbp.RMSNorm(7), fastbp.BatchNorm(7)):
        with pytest.raises(ValueError, match="takes 7 inputs, but the unit before it gives 3"):
            unit.outputs_for(3)
    with pytest.raises(ValueError, match="takes its indices from 4 columns, but the unit before it gives 3"):
        fastbp.Embedding(9, 2, 4).outputs_for(3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fastbp.PReLU(0), ValueError, "n must be at least 1, got 0"),
        (lambda: fastbp.PReLU(init=np.nan), ValueError, "init must be finite, got nan"),
        (lambda: fastbp.Dropout(1.1), ValueError, "p must be finite and at least 0 and at most 1, got 1.1"),
        (lambda: fastbp.Dropout("half"), TypeError, "p must be a number, got 'half'"),
        (lambda: fastbp.Dropout(0.5, seed=-1), ValueError, "seed"),
        (lambda: fastbp.LayerNorm(0), ValueError, "n must be at least 1, got 0"),
        (lambda: fastbp.LayerNorm(3.0), TypeError, "n must be an integer, got 3.0"),
        (lambda: fastbp.LayerNorm(3, -1), ValueError, "eps must be finite and at least 0, got -1"),
        (lambda: fastbp.RMSNorm(3, np.inf), ValueError, "eps must be finite and at least 0, got inf"),
        (lambda: fastbp.BatchNorm(3, momentum=2), ValueError, "momentum must be finite and .* at most 1, got 2"),
        (lambda: fastbp.Embedding(0, 2), ValueError, "n_codes must be at least 1, got 0"),
        (lambda: fastbp.Embedding(2, 0), ValueError, "width must be at least 1, got 0"),
        (lambda: fastbp.Embedding(2, 2, 0), ValueError, "columns must be at least 1, got 0"),
        (lambda: fastbp.LayerNorm(3, dtype="float16"), ValueError, "unknown dtype 'float16'"),
    ],
)
def test_invalid_settings_raise(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("unit", [fastbp.LayerNorm(3, affine=False), fastbp.LayerNorm(3), fastbp.BatchNorm(3)])
def test_a_refused_forward_leaves_the_saved_values(unit: Unit, rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3)).astype(np.float32)
    unit.forward(x)
    expected, state = unit.backward(x), copy.deepcopy(unit.state)
    with pytest.raises(ValueError, match="shape"):
        unit.forward(np.ones((4, 5), np.float32))
    assert_same_bits(unit.backward(x), expected)
    assert all(np.array_equal(unit.state[name], values) for name, values in state.items())


# ---- what each begins with -------------------------------------------------------------------------------------------


def test_parameters_begin_as_they_should() -> None:
    assert_array_equal(fastbp.PReLU(3, 0.1, dtype="float64").parameters["slope"], [0.1] * 3)
    for unit in (fastbp.LayerNorm(3), fastbp.BatchNorm(3)):
        assert_array_equal(unit.parameters["scale"], [1, 1, 1])
        assert_array_equal(unit.parameters["shift"], [0, 0, 0])
    assert_array_equal(fastbp.RMSNorm(3).parameters["scale"], [1, 1, 1])
    assert fastbp.LayerNorm(3, affine=False).parameters == {}
    table = fastbp.Embedding(200, 50, seed=4).parameters["table"]
    expected = Philox(4, stream_number("weights", 0)).normal(np.empty((200, 50)))
    assert_same_bits(table, expected.astype(np.float32))


def test_layer_norm_without_parameters(rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 5, 4)).astype(np.float32)
    unit = fastbp.LayerNorm(4, affine=False)
    assert_same_bits(unit.forward(x), fastbp.layer_norm(x))
    assert_same_bits(unit.backward(dy), fastbp.layer_norm_backward(dy, x)[0])
    with pytest.raises(ValueError, match=r"x has shape \(5, 3\), expected \(n, 4\): LayerNorm\(4, affine=False\)"):
        unit.forward(x[:, :3])


# ---- modes -----------------------------------------------------------------------------------------------------------


def test_dropout_takes_another_mask_each_step(rng: np.random.Generator) -> None:
    x = np.ones((50, 40), np.float32)
    unit, other = fastbp.Dropout(0.5, seed=1), fastbp.Dropout(0.5, seed=1)
    first, second = unit.forward(x), unit.forward(x)
    assert unit.steps == 2 and (first != second).any()
    assert_same_bits(unit.backward(x), second)
    assert_same_bits((other.forward(x), other.forward(x)), (first, second))
    other.stream += 1
    other.steps = 1
    assert (other.forward(x) != second).any()
    free = fastbp.Dropout(0.5), fastbp.Dropout(0.5)
    assert (free[0].forward(x) != free[1].forward(x)).any()
    assert_same_bits(free[0].backward(x), free[0].backward(x))


def test_dropout_that_evaluates_copies() -> None:
    x = np.ones((5, 4), np.float32)
    unit = fastbp.Dropout(0.5, seed=1)
    unit.training = False
    y = unit.forward(x)
    assert_same_bits((y, unit.backward(x)), (x, x))
    assert not np.shares_memory(y, x) and unit.steps == 0


@pytest.mark.kernel
@BY_DTYPE
def test_batch_norm_in_both_modes(dtype: Any, rng: np.random.Generator) -> None:
    unit = fastbp.BatchNorm(N, momentum=0.3, dtype=dtype)
    mean, variance = np.zeros(N), np.ones(N)
    state = unit.state
    assert state["mean"].dtype == dtype
    for _ in range(3):
        x = rng.normal(2, 3, (20, N)).astype(dtype)
        unit.forward(x)
        mean = 0.7 * mean + 0.3 * x.mean(axis=0, dtype=np.float64)
        variance = 0.7 * variance + 0.3 * x.var(axis=0, ddof=1, dtype=np.float64)
    assert unit.state is state
    tolerance = 8 * float(np.finfo(dtype).eps)
    assert_allclose(state["mean"], mean, rtol=tolerance)
    assert_allclose(state["variance"], variance, rtol=tolerance)
    unit.training = False
    with unchanged(*state.values()):
        y = unit.forward(x[:1])  # one row will do
        dx = unit.backward(np.ones_like(y))
    assert_allclose(y[0], (x[0] - mean) / np.sqrt(variance + 1e-5), rtol=0, atol=20 * tolerance)
    assert_allclose(dx[0], 1 / np.sqrt(variance + 1e-5), rtol=tolerance)
    unit.training = True
    with pytest.raises(ValueError, match=r"x has shape \(1, 6\), expected at least 2 rows"):
        unit.forward(x[:1])


# ---- shapes and indices ----------------------------------------------------------------------------------------------


def test_flatten_takes_any_shape() -> None:
    unit = fastbp.Flatten()
    for shape in [(5,), (5, 1), (5, 2, 3), (0, 2, 3), (5, 0)]:
        x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
        y = unit.forward(x)
        assert y.ndim == 2 and len(y) == len(x)
        assert_same_bits(y, reference.flatten(x))
        assert_same_bits(unit.backward(y), x)
        assert_same_bits(unit.backward(y), reference.flatten_backward(y, x))
    with pytest.raises(ValueError, match="at least one axis"):
        unit.forward(np.array(1.0))
    unit.forward(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"dy has shape \(2, 3, 4\), expected \(2, 12\)"):
        unit.backward(np.zeros((2, 3, 4)))
    with pytest.raises(TypeError, match="dy has dtype float32 but x is float64"):
        unit.backward(np.zeros((2, 12), np.float32))


def test_embedding_takes_integers() -> None:
    unit, indices = fastbp.Embedding(5, 3, seed=0), np.array([[0, 4], [4, 4]])
    y = unit.forward(indices)
    assert_same_bits(y, unit.parameters["table"][indices].reshape(2, 6))
    assert_array_equal(unit.backward(np.ones((2, 6), np.float32)), np.zeros((2, 2)))
    assert_array_equal(unit.gradients["table"][:, 0], [1, 0, 0, 0, 3])
    with pytest.raises(ValueError, match=re.escape("x[1, 0] is 5, expected an index: an integer from 0 to 4")):
        unit.forward(np.array([[0], [5]]))


# ---- in a network ----------------------------------------------------------------------------------------------------


def in_python(name: str, *arguments: Any) -> Unit:
    """The unit as one that Python runs."""
    base = getattr(fastbp, name)
    cls = type(f"Python{name}", (base,), {"forward": base.forward, "backward": base.backward})
    unit: Unit = cls(*arguments)
    return unit


@pytest.mark.kernel
@RULES
def test_a_network_with_the_unit_has_the_right_gradients(rule: UnitRule, rng: np.random.Generator) -> None:
    if rule.is_random:
        pytest.skip("differences need the same mask twice")
    x = rng.normal(size=(8, N))
    if rule.name == "embedding":
        x[:, :5] = rng.integers(0, 11, (8, 5))
        chain: list[Unit] = [in_python("Embedding", 11, 3, 5), fastbp.Linear(16, 3)]
    else:
        chain = [fastbp.Linear(N, N), in_python(rule.unit, *rule.arguments(N)), fastbp.Linear(N, 3)]
    net = fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), dtype="float64", seed=2)
    t = rng.integers(0, 3, 8)
    _, grads = net.value_and_grad(x, t)
    flat, h = grads.flat.copy(), 1e-6
    differences = np.empty_like(flat)
    for i in range(flat.size):
        kept = net.flat_parameters[i]
        losses = []
        for value in (kept + h, kept - h):
            net.flat_parameters[i] = value
            losses.append(net.value_and_grad(x, t)[0])
        net.flat_parameters[i] = kept
        differences[i] = (losses[0] - losses[1]) / (2 * h)
    # eps |loss| / h, and h**2 times a third derivative of order 100
    assert_allclose(flat, differences, rtol=0, atol=2e-9)
