"""Optimizers: against torch (recorded and live), compiled rules against numpy, state, and bad arguments."""

from __future__ import annotations

import copy
import gc
import inspect
import json
import math
import pickle
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers import grid, seeded

import fastbp
from fastbp import _engine
from fastbp.optim import SGD, Adam, Optimizer
from fastbp.reference import OPTIMIZERS

RECORDED = json.loads((Path(__file__).parent / "data" / "torch_optimizers.json").read_text())
RULES = {rule.unit: getattr(fastbp, rule.unit) for rule in OPTIMIZERS.values()}
TORCHS = {"NAdam": "Nadam"}  # the others have the same name
DTYPES = ("float32", "float64")

# Every branch of every rule, for the tests without torch.
NOT_TORCHS = {"Lion"}  # torch has none of the name

CASES = {
    "sgd": [
        {"lr": 0.1},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"lr": 0.1, "weight_decay": 0.05},
        {"lr": 0.1, "momentum": 0.5, "nesterov": True, "weight_decay": 0.05},
        {"lr": 0.1, "momentum": 0.5, "dampening": 0.3},
        {"lr": 0.1, "momentum": 0.5, "lr_inside": True},
        {"lr": 0.1, "momentum": 0.5, "nesterov": True, "lr_inside": True, "weight_decay": 0.05},
        {"lr": 0.1, "lr_inside": True},
    ],
    "adam": [
        {"lr": 0.01},
        {"lr": 0.01, "betas": (0.5, 0.7)},
        {"lr": 0.01, "betas": (0.0, 0.0)},
        {"lr": 0.01, "eps": 0.1, "weight_decay": 0.05},
        {"lr": 0.01, "amsgrad": True},
        {"lr": 0.01, "eps": 0.1, "eps_hat": True},
    ],
    "adamw": [{"lr": 0.01, "weight_decay": 0.3}, {"lr": 0.01, "amsgrad": True, "eps": 0.1, "eps_hat": True}],
    "nadam": [
        {"lr": 0.01},
        {"lr": 0.01, "betas": (0.5, 0.7), "weight_decay": 0.05, "momentum_decay": 0.1},
        {"lr": 0.01, "weight_decay": 0.3, "decoupled_weight_decay": True, "eps": 0.1},
    ],
    "radam": [
        {"lr": 0.01},
        {"lr": 0.01, "betas": (0.5, 0.95), "weight_decay": 0.05},
        {"lr": 0.01, "weight_decay": 0.3, "decoupled_weight_decay": True, "eps": 0.1},
    ],
    "rmsprop": [
        {"lr": 0.01},
        {"lr": 0.01, "alpha": 0.6, "momentum": 0.5, "weight_decay": 0.05},
        {"lr": 0.01, "centered": True, "eps": 0.1},
        {"lr": 0.01, "centered": True, "eps": 0.1, "momentum": 0.5},
    ],
    "adagrad": [{"lr": 0.1}, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.05, "initial_accumulator_value": 0.5}],
    "adadelta": [{}, {"lr": 0.5, "rho": 0.6, "eps": 1e-3, "weight_decay": 0.05}],
    "lion": [{"lr": 0.01}, {"lr": 0.01, "betas": (0.5, 0.7), "weight_decay": 0.3}],
}
OPTIMIZER_CASES = {
    f"{kind}-{'-'.join(f'{name}={value}' for name, value in options.items() if name != 'lr')}": (kind, options)
    for kind, cases in CASES.items()
    for options in cases
}


def make(case, **more):
    kind, options = OPTIMIZER_CASES[case]
    return RULES[OPTIMIZERS[kind].unit](**options, **more)


def numpy_step(optimizer, w, gradient):
    """By the reference implementation."""
    state = optimizer.state_for(w)
    arrays, step = optimizer._state_arrays(state, w), state.step + 1
    options = {hyper.name: getattr(optimizer, hyper.name) for hyper in optimizer.rule.hyper}
    options |= {"step": step, "lr": optimizer.rate(step)}
    if optimizer.rule.carried:
        options[optimizer.rule.carried[0]] = float(state.carried[0])
    carried = optimizer.rule.step(w, gradient, *arrays, **options)
    state.carried[0] = state.carried[0] if carried is None else carried
    state.step = step


def compiled_step(optimizer, w, gradient):
    """What the engine does in a step, at its smallest."""
    state = optimizer.state_for(w)
    arrays, step = optimizer._state_arrays(state, w), state.step + 1
    hyper = optimizer.hyperparameters(step)
    state.carried[0] = _engine.optimizer_update(
        *(optimizer.kind, w, gradient, arrays, hyper, step, state.carried[0]),
        math.inf if optimizer.clip_value is None else optimizer.clip_value,
        optimizer.clip_norm or 0,
    )
    state.step += 1


def update_step(optimizer, w, gradient):
    optimizer.update(w, gradient)


STEPS = {"numpy": numpy_step, "compiled": compiled_step, "update": update_step}


# ---- torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", STEPS)
@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: f"{case['rule']}-{case['options']}")
def test_fifty_steps_are_those_recorded_from_torch(by, case):
    w, matrix, pushes = (np.array(RECORDED[name]) for name in ("start", "matrix", "pushes"))
    optimizer = RULES[TORCHS.get(case["rule"], case["rule"])](**case["options"])
    for step, push in enumerate(pushes, start=1):
        STEPS[by](optimizer, w, matrix @ w + push)
        if str(step) in case["values"]:
            # torch keeps NAdam's product of momenta in float32, whatever the parameters are.
            rtol, atol = (1e-6, 1e-9) if case["rule"] == "NAdam" else (1e-12, 1e-14)
            np.testing.assert_allclose(w, case["values"][str(step)], rtol=rtol, atol=atol, err_msg=f"step {step}")
    assert optimizer.state_for(w).step == 50


def test_defaults_are_torchs():
    assert repr(SGD()) == (
        "SGD(lr=0.001, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, lr_inside=False)"
    )
    assert repr(Adam()) == (
        "Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0, amsgrad=False, eps_hat=False)"
    )
    recorded = {TORCHS.get(case["rule"], case["rule"]) for case in RECORDED["cases"] if not case["options"]}
    assert recorded == set(RULES) - NOT_TORCHS  # every rule of torch's has a case of defaults alone


@pytest.mark.bridge
@pytest.mark.parametrize("by", STEPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: f"{case['rule']}-{case['options']}")
def test_live_torch_agrees(by, dtype, case):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = seeded(0)
    w = rng.standard_normal(1000).astype(dtype)
    theirs = torch.nn.Parameter(torch.tensor(w))
    optimizer = RULES[TORCHS.get(case["rule"], case["rule"])](**case["options"])
    their_optimizer = getattr(torch.optim, case["rule"])([theirs], **case["options"])
    for _ in range(10):
        gradient = rng.standard_normal(1000).astype(dtype)
        STEPS[by](optimizer, w, gradient)
        theirs.grad = torch.tensor(gradient)
        their_optimizer.step()
    # Ten steps of numbers of size 1. Each has about twenty roundings; in float32 torch takes 1 - b1, a tenth, in the
    # arrays' type, and RMSprop's variance is a difference.
    eps = np.finfo("float32" if case["rule"] == "NAdam" else dtype).eps
    np.testing.assert_allclose(w, theirs.detach().numpy(), rtol=0, atol=1000 * eps)


def test_torch_weighs_momentum_that_comes_later_as_we_do():
    """Momentum switched on after plain steps starts from no velocity."""
    optimizer, w = SGD(lr=0.5), np.array([1.0])
    optimizer.update(w, np.array([1.0]))
    optimizer.momentum = 0.5
    for expected in (0.0, -0.75):
        optimizer.update(w, np.array([1.0]))
        assert w[0] == expected


def test_lion_follows_its_paper():
    """Algorithm 2 of the paper, written out for one number."""
    optimizer, w, m = fastbp.Lion(lr=0.1, betas=(0.9, 0.99), weight_decay=0.5), np.array([1.0]), 0.0
    expected = 1.0
    for gradient in (0.5, -3.0, 0.0, 2.0, -1e-9):
        c = 0.9 * m + 0.1 * gradient
        expected -= 0.1 * ((c > 0) - (c < 0) + 0.5 * expected)
        m = 0.99 * m + 0.01 * gradient
        optimizer.update(w, np.array([gradient]))
        assert w[0] == pytest.approx(expected, rel=1e-14)


SKLEARNS = [
    ("SGDOptimizer", {"momentum": 0.8, "nesterov": False}, lambda: SGD(0.05, momentum=0.8, lr_inside=True)),
    ("SGDOptimizer", {"momentum": 0.8}, lambda: SGD(0.05, momentum=0.8, nesterov=True, lr_inside=True)),
    ("SGDOptimizer", {"momentum": 0.0, "nesterov": False}, lambda: SGD(0.05, lr_inside=True)),
    ("AdamOptimizer", {"epsilon": 0.01}, lambda: Adam(0.05, eps=0.01, eps_hat=True)),
]


@pytest.mark.parametrize("by", STEPS)
@pytest.mark.parametrize(("name", "options", "ours"), SKLEARNS)
def test_options_give_scikit_learns_convention(by, name, options, ours):
    theirs = pytest.importorskip("sklearn.neural_network._stochastic_optimizers")
    rng = seeded(0)
    w, optimizer = rng.standard_normal(50), ours()
    params = [w.copy()]
    their_optimizer = getattr(theirs, name)(params, learning_rate_init=0.05, **options)
    for step in range(20):
        gradient = rng.standard_normal(50)
        if name == "SGDOptimizer":  # a rate that changes tells whether it is inside the velocity
            optimizer.lr = their_optimizer.learning_rate = 0.05 / (1 + step)
        STEPS[by](optimizer, w, gradient)
        their_optimizer.update_params(params, [gradient])
    np.testing.assert_allclose(w, params[0], rtol=1e-12, atol=1e-14)


# ---- the compiled rules against their references ---------------------------------------------------------------------


def wide(array):
    """In a dtype whose rounding does not count beside that of the array's."""
    return array.astype(np.float64 if array.dtype == np.float32 else np.longdouble)


def moved_by(optimizer, w, gradient, arrays, step, carried):
    """The reference's step in a wider dtype: the parameters, the states and what is carried after it."""
    w, arrays = wide(w), [None if array is None else wide(array) for array in arrays]
    options = {hyper.name: getattr(optimizer, hyper.name) for hyper in optimizer.rule.hyper} | {"step": step}
    if optimizer.rule.carried:
        options[optimizer.rule.carried[0]] = carried
    made = optimizer.rule.step(w, wide(gradient), *arrays, **options)
    return w, arrays, carried if made is None else made


def test_the_compiled_table_has_the_rows():
    rows = {name: len(rule.states) for name, rule in OPTIMIZERS.items()}
    assert _engine.updates() == rows
    assert set(CASES) == set(OPTIMIZERS)


@pytest.mark.kernel
@grid(
    "name size dtype",
    OPTIMIZER_CASES,
    [0, 1, 3, 17, 4_003],
    DTYPES,
    pairs=["name dtype", "size dtype"],
    always=lambda name, size, _: size == 4_003 or name.startswith("adam-"),
)
def test_compiled_rules_agree_with_their_reference(name, size, dtype):
    """To what 40 roundings make of it: found by the reference itself, with its inputs moved by so much."""
    optimizer = make(name)
    eps = np.finfo(dtype).eps
    rng = seeded(size)
    carried = optimizer.rule.carried[1] if optimizer.rule.carried else 0.0
    for step in (1, 2, 7, 10_000):
        # Slices that start at no vector's boundary, between guards that must stay.
        blocks = rng.uniform(0.5, 2, size=(5, size + 4)).astype(dtype)
        w, gradient = blocks[:2, 1 : size + 1]
        w *= rng.choice([-1, 1], size)
        gradient *= np.sign(w) * rng.choice([1, 3], size)  # of w's sign, so that weight_decay * w does not cancel it
        states = dict(zip(optimizer.rule.states, blocks[2:, 1 : size + 1], strict=False))
        for kept in ("m", "velocity", "mean"):
            if kept in states:
                # Of the gradient's sign, so that no mean cancels; a mean below the root of the mean square.
                states[kept][...] = np.sign(gradient) * np.abs(states[kept]) * (0.1 if kept == "mean" else 1)
        if step == 1:
            for state in states.values():
                state[...] = 0
        used = [states[n] if n in optimizer._used() else None for n in optimizer.rule.states]
        before = blocks.copy()
        expected, after, number = moved_by(optimizer, w, gradient, used, step, carried)
        # Every operation rounds once; with nothing that cancels, so many roundings are one of each input.
        shift = 1 + 40 * wide(np.array([eps], dtype))[0]
        others = [
            moved_by(optimizer, w, wide(gradient) * by, [s if s is None else wide(s) * to for s in used], step, carried)
            for by in (shift, 1 / shift)
            for to in (shift, 1 / shift)
        ]
        hyper = optimizer.hyperparameters()
        got = _engine.optimizer_update(optimizer.kind, w, gradient, used, hyper, step, carried)
        assert got == pytest.approx(number)
        start = before[0, 1 : size + 1]
        spread = np.max([np.abs(other[0] - expected) for other in others], axis=0)
        # What is a quotient of like things does not move with them: its own roundings count beside it.
        assert np.all(np.abs(w - expected) <= spread + 40 * eps * np.abs(expected - start) + 4 * eps * np.abs(start))
        for i, array in enumerate(used):
            if array is not None:
                assert np.all(np.abs(array - after[i]) <= 40 * eps * np.abs(after[i]))
        np.testing.assert_array_equal(gradient, before[1, 1 : size + 1])
        np.testing.assert_array_equal(blocks[:, [0, -3, -2, -1]], before[:, [0, -3, -2, -1]])


@pytest.mark.kernel
@grid("name dtype", OPTIMIZER_CASES, DTYPES)
def test_nan_gradients_stay_in_their_element(name, dtype):
    optimizer = make(name)
    gradient = np.ones(21, dtype)
    gradient[5] = np.nan
    w = np.ones(21, dtype)
    compiled_step(optimizer, w, gradient)
    assert np.flatnonzero(np.isnan(w)).tolist() == [5]


@pytest.mark.kernel
@grid("name dtype", OPTIMIZER_CASES, DTYPES)
def test_state_after_a_nan_gradient_is_the_references(name, dtype):
    """In particular the largest second moment of amsgrad, which a later finite gradient must not bring back."""
    optimizers, gradient = (make(name), make(name)), np.ones(21, dtype)
    parameters = [np.ones(21, dtype) for _ in optimizers]
    for value in (1, np.nan, 1):
        gradient[5] = value
        for optimizer, w, step in zip(optimizers, parameters, (compiled_step, numpy_step), strict=True):
            with np.errstate(invalid="ignore"):
                step(optimizer, w, gradient)
        found, expected = (each.state_for(w).arrays for each, w in zip(optimizers, parameters, strict=True))
        for state in expected:
            np.testing.assert_array_equal(np.isnan(found[state]), np.isnan(expected[state]))


@pytest.mark.parametrize("name", OPTIMIZER_CASES)
def test_changed_hyperparameters_count_from_the_next_step(name):
    """Both carry on from step to step the same things."""
    rng = seeded(0)
    ours, by_numpy = make(name), make(name)
    a = rng.standard_normal(33)
    b = a.copy()
    for step in range(12):
        for optimizer in (ours, by_numpy):
            optimizer.lr = 0.1 / (1 + step)
            if step == 5 and "betas" in optimizer._values:
                optimizer.betas = (0.6, 0.8)
            if step == 5 and "momentum" in optimizer._values:
                optimizer.momentum = 0.4
        gradient = rng.standard_normal(33)
        compiled_step(ours, a, gradient)
        numpy_step(by_numpy, b, gradient)
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


# ---- with networks ---------------------------------------------------------------------------------------------------


def a_network(dtype="float64", seed=0):
    rng = seeded(seed)
    net = fastbp.MLP((5, 7, 3), hidden="tanh", dtype=dtype, seed=seed)
    return net, rng.standard_normal((12, 5)).astype(dtype), rng.integers(0, 3, 12)


@pytest.mark.parametrize("name", OPTIMIZER_CASES)
def test_train_step_makes_the_step_of_update(name):
    net, x, t = a_network()
    net_copy = net.copy()
    compiled, python = make(name), make(name)
    for step in range(1, 6):
        loss = net.train_step(x, t, compiled)
        expected_loss, grads = net_copy.value_and_grad(x, t)
        numpy_step(python, net_copy.flat_parameters, grads.flat)
        assert loss == pytest.approx(expected_loss, rel=1e-12)
        np.testing.assert_allclose(net.flat_parameters, net_copy.flat_parameters, rtol=1e-11, atol=1e-13)
        assert compiled.state_for(net).step == step
    for array, other in zip(
        compiled.state_for(net).arrays.values(), python.state_for(net_copy).arrays.values(), strict=True
    ):
        np.testing.assert_allclose(array, other, rtol=1e-10, atol=1e-13)


def test_a_users_optimizer_is_called():
    class Sign(Optimizer):
        calls = 0

        def update(self, parameters, gradients):
            self.calls += 1
            parameters -= 0.01 * np.sign(gradients)

    net, x, t = a_network()
    before, grads = net.flat_parameters.copy(), net.value_and_grad(x, t)[1].copy()
    optimizer = Sign()
    net.train_step(x, t, optimizer)
    np.testing.assert_array_equal(net.flat_parameters, before - 0.01 * np.sign(grads.flat))
    fastbp.train(net, x, t, optimizer=optimizer, epochs=2, batch_size=4, progress=False)
    assert optimizer.calls == 1 + 2 * 3


def test_an_overridden_update_is_called():
    class Still(SGD):
        def update(self, parameters, gradients):
            pass

    net, x, t = a_network()
    before = net.flat_parameters.copy()
    net.train_step(x, t, Still(lr=0.1))
    np.testing.assert_array_equal(net.flat_parameters, before)


def test_a_subclass_keeps_the_compiled_rule_unless_it_writes_its_own():
    class Renamed(SGD):
        pass

    class Own(Adam):
        def update(self, parameters, gradients):
            pass

    class Both(Adam):
        kind = "adam"

        def update(self, parameters, gradients):
            pass

    assert (SGD.kind, Adam.kind, Renamed.kind, Own.kind, Both.kind) == ("sgd", "adam", "sgd", None, "adam")
    assert Optimizer.kind is None


# ---- state -----------------------------------------------------------------------------------------------------------


class FlatNetwork:
    """As much of a network as an optimizer looks at; ``flat_parameters`` is a new view each time."""

    def __init__(self, size=5, dtype="float32"):
        self._memory = np.zeros(size + 32, dtype)
        self._size = size

    @property
    def flat_parameters(self):
        return self._memory[7 : 7 + self._size]


@pytest.mark.parametrize("dtype", DTYPES)
def test_state_has_the_networks_size_and_dtype(dtype):
    net = FlatNetwork(5, dtype)
    cases = (SGD(momentum=0.5), ["velocity"]), (Adam(), ["m", "v"]), (Adam(amsgrad=True), ["m", "v", "v_max"])
    for optimizer, names in cases:
        state = optimizer.state_for(net)
        assert state.step == 0
        assert list(state.arrays) == names
        for array in state.arrays.values():
            assert (array.shape, array.dtype, array.any()) == ((5,), np.dtype(dtype), False)


def test_a_network_its_parameters_and_their_views_have_one_state():
    net, optimizer = FlatNetwork(), Adam()
    state = optimizer.state_for(net)
    for same in (net, net.flat_parameters, net.flat_parameters[:]):
        assert optimizer.state_for(same) is state
    assert optimizer.state_for(net.flat_parameters[1:]) is not state


def test_each_network_has_its_own_state():
    a, b, optimizer = FlatNetwork(), FlatNetwork(), SGD(momentum=0.9)
    gradient = np.ones(5, np.float32)
    for net in (a, b):
        optimizer.state_for(net)
    optimizer.update(a.flat_parameters, gradient)
    optimizer.update(a.flat_parameters, gradient)
    optimizer.update(b.flat_parameters, gradient)
    assert (optimizer.state_for(a).step, optimizer.state_for(b).step) == (2, 1)
    assert optimizer.state_for(a).arrays["velocity"][0] == np.float32(1.9)
    assert optimizer.state_for(b).arrays["velocity"][0] == 1


def test_state_is_freed_with_its_network():
    optimizer, net, other = SGD(momentum=0.9), FlatNetwork(), FlatNetwork()
    optimizer.state_for(other)
    velocity, memory = weakref.ref(optimizer.state_for(net).arrays["velocity"]), weakref.ref(net)
    del net
    gc.collect()
    assert memory() is None
    assert velocity() is None
    assert len(optimizer._states) == 1


def test_an_optimizer_may_be_freed_before_its_network():
    net, optimizer = FlatNetwork(), Adam()
    gone = weakref.ref(optimizer)
    optimizer.state_for(net)
    del optimizer
    gc.collect()
    assert gone() is None
    del net  # and the callback of the weak reference finds nothing amiss


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("name", OPTIMIZER_CASES)
def test_copies_have_the_hyperparameters_and_no_state(copied, name):
    net, optimizer = FlatNetwork(), make(name)
    optimizer.update(net.flat_parameters, np.ones(5, np.float32))
    other = copied(optimizer)
    assert repr(other) == repr(optimizer)
    assert other.hyperparameters() == optimizer.hyperparameters()
    assert other.state_for(net).step == 0
    assert optimizer.state_for(net).step == 1


def test_the_engine_gets_the_arrays_it_uses():
    net = FlatNetwork()
    sgd, adam = SGD(), Adam()
    state = sgd.state_for(net)
    assert sgd._state_arrays(state, net.flat_parameters) == [None]
    assert state.arrays == {}
    sgd.momentum = 0.5
    assert sgd._state_arrays(state, net.flat_parameters)[0] is state.arrays["velocity"]
    state = adam.state_for(net)
    m, v, v_max = adam._state_arrays(state, net.flat_parameters)
    assert (m is state.arrays["m"], v is state.arrays["v"], v_max) == (True, True, None)


def test_states_begin_as_their_rule_says():
    net = FlatNetwork()
    optimizer = fastbp.Adagrad(initial_accumulator_value=0.25)
    assert optimizer.state_for(net).arrays["total"].tolist() == [0.25] * 5


def test_hyperparameters_come_in_the_engines_order():
    assert SGD(0.1, 0.9, 0.0, 0.01, True).hyperparameters() == (0.1, 0.9, 0.0, 0.01, 1.0, 0.0)
    assert Adam(0.1, (0.8, 0.9), 1e-6, 0.01).hyperparameters() == (0.1, 0.8, 0.9, 1e-6, 0.01, 0.0, 0.0)


def test_state_names_give_the_users_own_optimizer_its_arrays():
    class Own(Optimizer):
        state_names = ("a", "b")

        def __init__(self, rate):  # without super().__init__()
            self.rate = rate

    optimizer = Own(3)
    state = optimizer.state_for(np.ones(4))
    assert {name: array.tolist() for name, array in state.arrays.items()} == {"a": [0.0] * 4, "b": [0.0] * 4}
    assert repr(optimizer) == "Own(rate=3)"
    assert optimizer.hyperparameters() == ()
    with pytest.raises(NotImplementedError, match=r"Own must define update\(parameters, gradients\)"):
        optimizer.update(np.ones(4), np.ones(4))


# ---- bad arguments ---------------------------------------------------------------------------------------------------

BAD_VALUES = [
    (SGD, "lr", -0.1, ValueError, r"lr must be finite and at least 0, got -0\.1"),
    (SGD, "lr", float("nan"), ValueError, "lr must be finite and at least 0, got nan"),
    (SGD, "lr", float("inf"), ValueError, "lr must be finite and at least 0, got inf"),
    (SGD, "lr", "0.1", TypeError, r"lr must be a number, got '0\.1' \(str\): .* fastbp\.schedules\.Cosine"),
    (SGD, "lr", None, TypeError, r"lr must be a number, got None \(NoneType\)"),
    (SGD, "lr", True, TypeError, r"lr must be a number, got True \(bool\)"),
    (SGD, "lr", 1j, TypeError, r"lr must be a number, got 1j \(complex\)"),
    (SGD, "momentum", 1.0, ValueError, r"momentum must be finite and at least 0 and below 1, got 1\.0"),
    (SGD, "momentum", -0.5, ValueError, r"momentum must be finite and at least 0 and below 1, got -0\.5"),
    (SGD, "nesterov", True, ValueError, r"nesterov=True needs momentum > 0, got momentum 0\.0"),
    (SGD, r"nesterov", 1, TypeError, r"nesterov must be True or False, got 1 \(int\)"),
    (SGD, "dampening", "x", TypeError, r"dampening must be a number, got 'x' \(str\)"),
    (SGD, "lr_inside", 1, TypeError, r"lr_inside must be True or False, got 1 \(int\)"),
    (SGD, "weight_decay", -1e-4, ValueError, r"weight_decay must be finite and at least 0, got -0\.0001"),
    (SGD, "clip_value", 0.0, ValueError, r"clip_value must be finite and above 0, got 0\.0"),
    (Adam, "clip_norm", -1.0, ValueError, r"clip_norm must be finite and above 0, got -1\.0"),
    (Adam, "betas", 0.9, TypeError, r"betas must be two numbers, got float 0\.9"),
    (Adam, "betas", "ab", TypeError, "betas must be two numbers, got str 'ab'"),
    (Adam, "betas", (0.9,), ValueError, r"betas must be two numbers, got 1: \(0\.9,\)"),
    (Adam, "betas", (1.0, 0.9), ValueError, r"betas\[0\] must be finite and at least 0 and below 1, got 1\.0"),
    (Adam, "betas", (0.9, -0.1), ValueError, r"betas\[1\] must be finite and at least 0 and below 1, got -0\.1"),
    (Adam, "betas", (0.9, "x"), TypeError, r"betas\[1\] must be a number, got 'x' \(str\)"),
    (Adam, "eps", -1e-8, ValueError, "eps must be finite and at least 0, got -1e-08"),
    (Adam, "amsgrad", 1, TypeError, r"amsgrad must be True or False, got 1 \(int\)"),
    (Adam, "weight_decay", -1.0, ValueError, r"weight_decay must be finite and at least 0, got -1\.0"),
    (fastbp.RMSprop, "alpha", 1.5, ValueError, r"alpha must be finite and at least 0 and below 1, got 1\.5"),
    (fastbp.Nadam, "momentum_decay", -1, ValueError, "momentum_decay must be finite and at least 0, got -1"),
]


@pytest.mark.parametrize(("rule", "name", "value", "error", "message"), BAD_VALUES)
def test_bad_hyperparameters_raise_and_change_nothing(rule, name, value, error, message):
    with pytest.raises(error, match=message):
        rule(**{name: value})
    optimizer = rule()
    before = repr(optimizer)
    with pytest.raises(error, match=message):
        setattr(optimizer, name, value)
    assert repr(optimizer) == before


def test_dampening_with_nesterov_or_rate_inside_raises():
    for options in ({"nesterov": True}, {"lr_inside": True}):
        with pytest.raises(ValueError, match=r"needs dampening 0, got dampening 0\.1"):
            SGD(momentum=0.9, dampening=0.1, **options)
        optimizer = SGD(momentum=0.9, **options)
        with pytest.raises(ValueError, match="needs dampening 0"):
            optimizer.dampening = 0.1
        assert optimizer.dampening == 0


@pytest.mark.parametrize("rule", RULES.values())
def test_signatures_list_the_hyperparameters(rule):
    """`help` and editors read it; a subclass with arguments of its own has its own."""
    defaults = {name: p.default for name, p in inspect.signature(rule).parameters.items()}
    extras = dict.fromkeys(("groups", "clip_value", "clip_norm"))
    assert defaults == {hyper.name: hyper.default for hyper in rule.rule.hyper} | extras

    class Own(rule):
        def __init__(self, scale):
            super().__init__(lr=scale)

    assert list(inspect.signature(Own).parameters) == ["scale"]
    assert Own(0.5).lr == 0.5


@pytest.mark.parametrize("rule", RULES.values())
def test_unknown_hyperparameters_list_the_known(rule):
    with pytest.raises(TypeError, match=rf"{rule.__name__}: unknown hyper-parameter 'rate': known are 'lr'"):
        rule(rate=0.1)
    with pytest.raises(TypeError, match="got lr twice"):
        rule(0.1, lr=0.1)
    with pytest.raises(TypeError, match=rf"{rule.__name__} has \d options .*got 9"):
        rule(*range(9))


def test_removing_momentum_with_nesterov_raises():
    optimizer = SGD(momentum=0.9, nesterov=True)
    with pytest.raises(ValueError, match=r"nesterov=True needs momentum > 0"):
        optimizer.momentum = 0.0
    assert optimizer.momentum == 0.9
    optimizer.nesterov = False
    optimizer.momentum = 0.0


@pytest.mark.parametrize("number", [1, np.float32(0.5), np.float64(0.5), np.int64(1), Fraction(1, 2)])
def test_any_real_number_is_accepted(number):
    optimizer = SGD(lr=number)
    assert type(optimizer.lr) is float
    assert optimizer.lr == float(number)
    assert Adam(betas=np.array([0.5, 0.25])).betas == (0.5, 0.25)
    assert Adam(betas=[0.5, 0.25]).betas == (0.5, 0.25)


@pytest.mark.parametrize(
    ("parameters", "gradients", "error", "message"),
    [
        ([1.0] * 3, np.ones(3), TypeError, r"parameters\[0\] must be a numpy array, which a step"),
        (np.ones(3, int), np.ones(3), TypeError, "parameters has dtype int64, expected float32 or float64"),
        (np.ones(3), np.ones(3, "f"), TypeError, "gradients has dtype float32 but parameters is float64"),
        (np.ones(3), np.ones(1), ValueError, r"gradients has shape \(1,\), expected \(3,\), that of parameters"),
        (np.broadcast_to(1.0, 3), np.ones(3), ValueError, "parameters is read-only"),
    ],
)
@pytest.mark.parametrize("rule", [SGD, Adam])
def test_update_of_other_arrays_raises(rule, parameters, gradients, error, message):
    with pytest.raises(error, match=message):
        rule().update(parameters, gradients)


def test_state_for_other_objects_raises():
    with pytest.raises(TypeError, match="expected a network or its flat_parameters, got str"):
        SGD().state_for("net")


@pytest.mark.parametrize("rule", OPTIMIZERS.values(), ids=lambda rule: rule.unit)
def test_every_setting_can_be_read_and_set_again(rule):
    optimizer = RULES[rule.unit]()
    for hyper in rule.hyper:
        value, version = getattr(optimizer, hyper.name), optimizer._version
        assert value == (0.1 if hyper.name == "lr" and hyper.default is None else hyper.default)
        setattr(optimizer, hyper.name, value)
        assert getattr(optimizer, hyper.name) == value
        assert optimizer._version > version  # the engine is handed the settings anew
