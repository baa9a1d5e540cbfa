"""Optimizers: against torch (recorded and live), compiled rules against their numpy twins, state, and bad arguments."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp import _engine, reference
from fastbp.optimizers import SGD, Adam, Optimizer

RECORDED = json.loads((Path(__file__).parent / "data" / "torch_optimizers.json").read_text())
RULES = {"SGD": SGD, "Adam": Adam}
DTYPES = ("float32", "float64")

# Every branch of both rules, for the tests without torch.
OPTIMIZERS = {
    "plain": lambda: SGD(lr=0.1),
    "momentum": lambda: SGD(lr=0.1, momentum=0.9),
    "nesterov": lambda: SGD(lr=0.1, momentum=0.9, nesterov=True),
    "decay": lambda: SGD(lr=0.1, weight_decay=0.05),
    "sgd": lambda: SGD(lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.05),
    "adam": lambda: Adam(lr=0.01),
    "betas": lambda: Adam(lr=0.01, betas=(0.5, 0.7)),
    "zero_betas": lambda: Adam(lr=0.01, betas=(0.0, 0.0)),
    "adam_decay": lambda: Adam(lr=0.01, eps=0.1, weight_decay=0.05),
}


def numpy_step(optimizer, w, gradient):
    optimizer.update(w, gradient)


def compiled_step(optimizer, w, gradient):
    """What the engine does in a step, at its smallest."""
    state = optimizer.state_for(w)
    arrays = optimizer.state_arrays(state)
    _engine.optimizer_update(optimizer.kind, w, gradient, *arrays, optimizer.hyperparameters(), state.step + 1)
    state.step += 1


ROADS = {"numpy": numpy_step, "compiled": compiled_step}


# ---- torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: f"{case['rule']}-{case['options']}")
def test_fifty_steps_are_those_recorded_from_torch(road, case):
    w, matrix, pushes = (np.array(RECORDED[name]) for name in ("start", "matrix", "pushes"))
    optimizer = RULES[case["rule"]](**case["options"])
    for step, push in enumerate(pushes, start=1):
        ROADS[road](optimizer, w, matrix @ w + push)
        if str(step) in case["values"]:
            np.testing.assert_allclose(w, case["values"][str(step)], rtol=1e-12, atol=1e-14, err_msg=f"step {step}")
    assert optimizer.state_for(w).step == 50


def test_the_defaults_are_torchs():
    assert repr(SGD()) == "SGD(lr=0.001, momentum=0.0, nesterov=False, weight_decay=0.0)"
    assert repr(Adam()) == "Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)"


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: f"{case['rule']}-{case['options']}")
def test_live_torch_agrees(road, dtype, case):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(0)
    w = rng.standard_normal(1000).astype(dtype)
    theirs = torch.nn.Parameter(torch.tensor(w))
    optimizer = RULES[case["rule"]](**case["options"])
    their_optimizer = getattr(torch.optim, case["rule"])([theirs], **case["options"])
    for _ in range(10):
        gradient = rng.standard_normal(1000).astype(dtype)
        ROADS[road](optimizer, w, gradient)
        theirs.grad = torch.tensor(gradient)
        their_optimizer.step()
    # Ten steps, each with about ten roundings of numbers of size 1.
    np.testing.assert_allclose(w, theirs.detach().numpy(), rtol=0, atol=100 * np.finfo(dtype).eps)


def test_torch_weighs_momentum_that_comes_later_as_we_do():
    """Momentum switched on after plain steps starts from no velocity."""
    optimizer, w = SGD(lr=0.5), np.array([1.0])
    optimizer.update(w, np.array([1.0]))
    optimizer.momentum = 0.5
    for expected in (0.0, -0.75):
        optimizer.update(w, np.array([1.0]))
        assert w[0] == expected


# ---- the compiled rules against their twins --------------------------------------------------------------------------


def wide(array):
    """In a dtype whose rounding does not count beside that of the array's."""
    return array.astype(np.float64 if array.dtype == np.float32 else np.longdouble)


def twin_and_bound(optimizer, w, gradient, state, step):
    """One step by the twin in a wider dtype, and how far a kernel of w's dtype may be from it."""
    eps = np.finfo(w.dtype).eps
    w, gradient = wide(w), wide(gradient)
    result = w.copy()
    size = np.abs(gradient) + optimizer.weight_decay * np.abs(w)  # of the terms of g
    if isinstance(optimizer, SGD):
        lr, mu = optimizer.lr, optimizer.momentum
        velocity = wide(state[0]) if mu else None
        size = (1 + mu) * size + (mu + mu**2) * (np.abs(velocity) if mu else 0)  # of the terms of the direction
        options = {"momentum": mu, "nesterov": optimizer.nesterov, "weight_decay": optimizer.weight_decay}
        reference.sgd_step(result, gradient, velocity, lr=lr, first_step=step == 1, **options)
        # 2 roundings each in g, v, the look-ahead and lr * direction, and as many of the constants; 1 in w - ...
        return result, [velocity, None], eps * (16 * lr * size + np.abs(w) + np.abs(result))
    (b1, b2), m, v = optimizer.betas, wide(state[0]), wide(state[1])
    m_size = b1 * np.abs(m) + (1 - b1) * size
    options = {"lr": optimizer.lr, "betas": optimizer.betas, "eps": optimizer.eps}
    reference.adam_step(result, gradient, m, v, step=step, weight_decay=optimizer.weight_decay, **options)
    denominator = np.sqrt(v / (1 - np.longdouble(b2) ** step)) + optimizer.eps
    moved = optimizer.lr / (1 - np.longdouble(b1) ** step) * m_size / denominator
    # m: 6 roundings; v, whose terms are positive and whose g does not cancel in these tests: 12; root, quotients: 6.
    return result, [m, v], eps * (24 * moved + np.abs(w) + np.abs(result))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 3, 17, 1000, 100_003])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_compiled_rules_agree_with_their_twins(dtype, size, name):
    optimizer = OPTIMIZERS[name]()
    rng = np.random.default_rng(size)
    for step in (1, 2, 7, 10_000):
        # Slices that start at no vector's boundary, between guards that must stay.
        blocks = rng.standard_normal((4, size + 4)).astype(dtype)
        w, gradient, state0, state1 = blocks[:, 1 : size + 1]
        gradient += np.copysign(np.asarray(0.5, dtype), gradient)  # so that weight_decay * w does not cancel it
        if step == 1:
            state0[...] = state1[...] = 0
        np.abs(state1, out=state1)
        np.clip(w, -2, 2, out=w)
        before = blocks.copy()
        expected, states, bound = twin_and_bound(optimizer, w, gradient, (state0, state1), step)
        used = [array if twin is not None else None for array, twin in zip((state0, state1), states, strict=True)]
        _engine.optimizer_update(optimizer.kind, w, gradient, *used, optimizer.hyperparameters(), step)
        assert np.all(np.abs(w - expected) <= bound)
        for array, twin in zip(used, states, strict=True):
            if twin is not None:
                scale = 4 * np.finfo(dtype).eps * (1 + np.abs(w) + np.abs(gradient) + np.abs(array)) ** 2
                assert np.all(np.abs(array - twin) <= scale)
        np.testing.assert_array_equal(gradient, before[1, 1 : size + 1])
        np.testing.assert_array_equal(blocks[:, [0, -3, -2, -1]], before[:, [0, -3, -2, -1]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_nan_stays_where_it_is(dtype, name):
    optimizer = OPTIMIZERS[name]()
    gradient = np.ones(21, dtype)
    gradient[5] = np.nan
    w = np.ones(21, dtype)
    compiled_step(optimizer, w, gradient)
    assert np.flatnonzero(np.isnan(w)).tolist() == [5]


# ---- with networks ---------------------------------------------------------------------------------------------------


def a_network(dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    net = fastbp.MLP((5, 7, 3), hidden="tanh", dtype=dtype, seed=seed)
    return net, rng.standard_normal((12, 5)).astype(dtype), rng.integers(0, 3, 12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_train_step_makes_the_step_of_update(name):
    net, x, t = a_network()
    twin = net.copy()
    compiled, python = OPTIMIZERS[name](), OPTIMIZERS[name]()
    for step in range(1, 6):
        loss = net.train_step(x, t, compiled)
        twin_loss, grads = twin.value_and_grad(x, t)
        python.update(twin.flat_parameters, grads.flat)
        assert loss == pytest.approx(twin_loss, rel=1e-12)
        np.testing.assert_allclose(net.flat_parameters, twin.flat_parameters, rtol=1e-11, atol=1e-13)
        assert compiled.state_for(net).step == step
    for array, other in zip(
        compiled.state_for(net).arrays.values(), python.state_for(twin).arrays.values(), strict=True
    ):
        np.testing.assert_allclose(array, other, rtol=1e-10, atol=1e-13)


def test_an_optimizer_of_the_users_own_is_called():
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


def test_an_update_written_over_that_of_sgd_is_called():
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
    for optimizer, names in ((SGD(), ["velocity"]), (Adam(), ["m", "v"])):
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
    optimizer.update(a.flat_parameters, gradient)
    optimizer.update(a.flat_parameters, gradient)
    optimizer.update(b.flat_parameters, gradient)
    assert (optimizer.state_for(a).step, optimizer.state_for(b).step) == (2, 1)
    assert optimizer.state_for(a).arrays["velocity"][0] == np.float32(1.9)
    assert optimizer.state_for(b).arrays["velocity"][0] == 1


def test_state_goes_with_its_network_and_keeps_none_alive():
    optimizer, net, other = SGD(momentum=0.9), FlatNetwork(), FlatNetwork()
    optimizer.state_for(other)
    velocity, memory = weakref.ref(optimizer.state_for(net).arrays["velocity"]), weakref.ref(net)
    del net
    gc.collect()
    assert memory() is None
    assert velocity() is None
    assert len(optimizer._states) == 1


def test_an_optimizer_can_go_before_its_network():
    net, optimizer = FlatNetwork(), Adam()
    gone = weakref.ref(optimizer)
    optimizer.state_for(net)
    del optimizer
    gc.collect()
    assert gone() is None
    del net  # and the callback of the weak reference finds nothing amiss


@pytest.mark.parametrize("road", [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_copies_have_the_hyperparameters_and_no_state(road, name):
    net, optimizer = FlatNetwork(), OPTIMIZERS[name]()
    optimizer.update(net.flat_parameters, np.ones(5, np.float32))
    other = road(optimizer)
    assert repr(other) == repr(optimizer)
    assert other.hyperparameters() == optimizer.hyperparameters()
    assert other.state_for(net).step == 0
    assert optimizer.state_for(net).step == 1


def test_the_engine_gets_the_arrays_it_uses():
    net = FlatNetwork()
    sgd, adam = SGD(), Adam()
    assert sgd.state_arrays(sgd.state_for(net)) == (None, None)
    sgd.momentum = 0.5
    assert sgd.state_arrays(sgd.state_for(net))[0] is sgd.state_for(net).arrays["velocity"]
    m, v = adam.state_arrays(adam.state_for(net))
    assert m is adam.state_for(net).arrays["m"]
    assert v is adam.state_for(net).arrays["v"]


def test_hyperparameters_come_in_the_engines_order():
    assert SGD(0.1, 0.9, True, 0.01).hyperparameters() == (0.1, 0.9, 1.0, 0.01)
    assert Adam(0.1, (0.8, 0.9), 1e-6, 0.01).hyperparameters() == (0.1, 0.8, 0.9, 1e-6, 0.01)


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
    (SGD, "lr", 0, ValueError, r"lr must be > 0, got 0\.0"),
    (SGD, "lr", -0.1, ValueError, r"lr must be > 0, got -0\.1"),
    (SGD, "lr", float("nan"), ValueError, "lr must be finite, got nan"),
    (SGD, "lr", float("inf"), ValueError, "lr must be finite, got inf"),
    (SGD, "lr", "0.1", TypeError, r"lr must be a number, got str '0\.1'"),
    (SGD, "lr", None, TypeError, "lr must be a number, got NoneType None"),
    (SGD, "lr", True, TypeError, "lr must be a number, got bool True"),
    (SGD, "lr", 1j, TypeError, "lr must be a number, got complex 1j"),
    (SGD, "momentum", 1.0, ValueError, r"momentum must be in \[0, 1\), got 1\.0"),
    (SGD, "momentum", -0.5, ValueError, r"momentum must be in \[0, 1\), got -0\.5"),
    (SGD, "nesterov", True, ValueError, r"nesterov=True needs momentum > 0, got momentum 0\.0"),
    (SGD, "nesterov", 1, TypeError, "nesterov must be True or False, got int 1"),
    (SGD, "weight_decay", -1e-4, ValueError, r"weight_decay must be >= 0, got -0\.0001"),
    (Adam, "lr", 0.0, ValueError, r"lr must be > 0, got 0\.0"),
    (Adam, "betas", 0.9, TypeError, r"betas must be two numbers, got float 0\.9"),
    (Adam, "betas", "ab", TypeError, "betas must be two numbers, got str 'ab'"),
    (Adam, "betas", (0.9,), ValueError, r"betas must be two numbers, got 1: \(0\.9,\)"),
    (Adam, "betas", (1.0, 0.9), ValueError, r"betas\[0\] must be in \[0, 1\), got 1\.0"),
    (Adam, "betas", (0.9, -0.1), ValueError, r"betas\[1\] must be in \[0, 1\), got -0\.1"),
    (Adam, "betas", (0.9, "x"), TypeError, r"betas\[1\] must be a number, got str 'x'"),
    (Adam, "eps", -1e-8, ValueError, "eps must be >= 0, got -1e-08"),
    (Adam, "weight_decay", -1.0, ValueError, r"weight_decay must be >= 0, got -1\.0"),
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


def test_momentum_cannot_be_taken_from_under_nesterov():
    optimizer = SGD(momentum=0.9, nesterov=True)
    with pytest.raises(ValueError, match=r"nesterov=True needs momentum > 0"):
        optimizer.momentum = 0.0
    assert optimizer.momentum == 0.9
    optimizer.nesterov = False
    optimizer.momentum = 0.0


@pytest.mark.parametrize("number", [1, np.float32(0.5), np.float64(0.5), np.int64(1), Fraction(1, 2)])
def test_any_real_number_will_do(number):
    optimizer = SGD(lr=number)
    assert type(optimizer.lr) is float
    assert optimizer.lr == float(number)
    assert Adam(betas=np.array([0.5, 0.25])).betas == (0.5, 0.25)
    assert Adam(betas=[0.5, 0.25]).betas == (0.5, 0.25)


@pytest.mark.parametrize(
    ("parameters", "gradients", "error", "message"),
    [
        (np.ones(3), [1.0] * 3, TypeError, "gradients must be a numpy array, got list"),
        (np.ones((3, 1)), np.ones((3, 1)), ValueError, r"parameters must be 1-D, got shape \(3, 1\)"),
        (np.ones(3, int), np.ones(3), TypeError, "parameters must be float32 or float64, got int64"),
        (np.ones(3), np.ones(3, "f"), TypeError, "gradients must be float64 like parameters, got float32"),
        (np.ones(3), np.ones(1), ValueError, r"gradients must have the shape \(3,\) of parameters, got \(1,\)"),
        (np.broadcast_to(1.0, 3), np.ones(3), ValueError, "parameters must be writable"),
    ],
)
@pytest.mark.parametrize("rule", [SGD, Adam])
def test_update_takes_two_flat_arrays(rule, parameters, gradients, error, message):
    with pytest.raises(error, match=message):
        rule().update(parameters, gradients)


def test_state_for_wants_a_network():
    with pytest.raises(TypeError, match="expected a network or its flat_parameters, got str"):
        SGD().state_for("net")
