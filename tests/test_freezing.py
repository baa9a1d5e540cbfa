"""Frozen parameters: nothing changes them, and nothing is computed for them that is not asked for."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, seeded, unchanged
from numpy.testing import assert_allclose, assert_array_equal
from test_optimizers import OPTIMIZER_CASES, make

import fastbp
from fastbp.optim import Optimizer

Array = np.ndarray[Any, Any]


class Scale(fastbp.Unit):
    """A unit in Python; with a parameter, unless it is told not to have one."""

    backwards = 0

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"factor": (1,)}

    def initialize(self, rng: Any, parameters: Any) -> None:
        parameters["factor"][...] = 1.5

    def outputs_for(self, n_in: int | None) -> int | None:
        return n_in

    def forward(self, x: Array) -> Array:
        self.x = x
        return x * self.parameters["factor"]

    def backward(self, dy: Array) -> Array:
        self.backwards += 1
        self.gradients["factor"][...] = (dy * self.x).sum()
        return dy * self.parameters["factor"]


def chain(in_python: bool = False) -> list[fastbp.Unit]:
    block = fastbp.Residual(fastbp.Sequential(fastbp.Linear(6, 6), fastbp.LayerNorm(6), fastbp.SiLU()))
    first = fastbp.Linear(5, 6), fastbp.BatchNorm(6), fastbp.Tanh()
    middle = Scale() if in_python else fastbp.PReLU(6)
    return [*first, middle, block, fastbp.RMSNorm(6), fastbp.Linear(6, 4), fastbp.Sigmoid(), fastbp.Linear(4, 3)]


def problem(in_python: bool = False, dtype: str = "float64", rows: int = 24, **options: Any) -> Any:
    rng = seeded(0)
    net = fastbp.Network(*chain(in_python), loss="softmax_nll", dtype=dtype, seed=0, **options)
    return net, rng.normal(size=(rows, 5)).astype(dtype), rng.integers(0, 3, rows)


WHICH = [
    ("0.*",),
    ("*.bias",),
    ("0.*", "1.*", "3.*"),
    ("8.*",),
    ("4.*", "6.weight"),
    ("6.bias",),
    ("*.weight",),
    ("*",),
]


@pytest.mark.kernel
@pytest.mark.parametrize("in_python", [False, True])
@pytest.mark.parametrize("which", WHICH, ids="+".join)
def test_gradients_of_frozen_parameters_are_zero_and_others_stay(which: tuple[str, ...], in_python: bool) -> None:
    net, x, t = problem(in_python, l2=0.1)
    copied = net.copy()
    net.freeze(*which)
    expected_loss, expected = copied.value_and_grad(x, t)
    out = expected.copy()
    out.flat[...] = 7
    for _ in range(2):
        for loss, grads in (net.value_and_grad(x, t), net.value_and_grad(x, t, out=out)):
            assert loss == pytest.approx(expected_loss, rel=1e-15)
            for name, values in grads.items():
                if name in net.frozen:
                    assert not values.any(), name
                else:
                    assert_same_bits(values, expected[name])
        copied.value_and_grad(x, t)
    dy = seeded(1).normal(size=(24, 3))
    net.forward(x), copied.forward(x)
    assert_same_bits(net.backward(dy), copied.backward(dy).copy())  # the gradient at the input is asked for
    for name, values in net.gradients.items():
        assert_array_equal(values, 0 if name in net.frozen else copied.gradients[name])


@pytest.mark.parametrize("rows", [8, 300])
@pytest.mark.parametrize("case", OPTIMIZER_CASES)
def test_no_optimizer_changes_a_frozen_parameter(case: str, rows: int) -> None:
    net, x, t = problem(rows=rows, l1=1e-3, l2=1e-2)
    copied, optimizer, other = net.copy(), make(case), make(case)
    for of, steps in ((net, optimizer), (copied, other)):
        of.train_step(x, t, steps)  # with momenta that would go on
    net.freeze("0.*", "*.bias", net.units[4])
    kept = {name: net.parameters[name].copy() for name in net.frozen}
    for _ in range(3):
        net.train_step(x, t, optimizer)
        net.value_and_grad(x, t)
        net.update(optimizer)
        # The same by hand: all gradients, those of what is frozen 0, and parameters put back.
        for _ in range(2):
            copied.value_and_grad(x, t)
            copied.update(other)
            for name, values in kept.items():
                copied.parameters[name][...] = values
    for name, values in net.parameters.items():
        if name in net.frozen:
            assert_same_bits(values, kept[name])
        else:
            assert_allclose(values, copied.parameters[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("options", [{"clip_norm": 0.01}, {"clip_value": 1e-3}, {"momentum": 0.9}], ids=str)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_epochs_leave_frozen_parameters(options: dict[str, Any], accumulate: int) -> None:
    net, x, t = problem(dtype="float32", rows=100, l2=0.01)
    net.freeze("0.*", "8.bias")
    average, before = fastbp.EMA(0.5), {name: values.copy() for name, values in net.parameters.items()}
    fastbp.train(
        net,
        x,
        t,
        optimizer=fastbp.SGD(lr=0.1, weight_decay=0.1, **options),
        epochs=2,
        batch_size=16,
        accumulate=accumulate,
        average=average,
        progress=False,
    )
    for name, values in net.parameters.items():
        assert np.array_equal(values, before[name]) == (name in net.frozen), name
    with average.applied(net):
        assert_allclose(net.parameters["0.weight"], before["0.weight"], rtol=1e-6)


def test_the_norm_counts_no_frozen_gradient() -> None:
    net, x, t = problem()
    net.freeze("0.*", "6.bias")
    before, grads = net.flat_parameters.copy(), net.value_and_grad(x, t)[1].copy()
    net.train_step(x, t, fastbp.SGD(lr=1.0, clip_norm=1e-3))
    scale = 1e-3 / (np.sqrt((grads.flat**2).sum()) + 1e-6)
    assert_allclose(net.flat_parameters, before - scale * grads.flat, rtol=1e-12)


@pytest.mark.parametrize("in_python", [False, True])
def test_users_optimizers_and_lbfgs_leave_frozen_parameters(in_python: bool) -> None:
    class Restless(Optimizer):
        def update(self, parameters: Array, gradients: Array) -> None:
            parameters += 1.0

    net, x, t = problem(in_python)
    net.freeze("0.*", "6.bias")
    kept = {name: net.parameters[name].copy() for name in net.frozen}
    before = net.flat_parameters.copy()
    net.train_step(x, t, Restless())
    net.value_and_grad(x, t)
    net.update(Restless())
    for name, values in net.parameters.items():
        expected = kept.get(name, None)
        if expected is not None:
            assert_same_bits(values, expected)
    assert_allclose(np.sort(np.unique(np.round(net.flat_parameters - before, 9))), [0, 2])
    pytest.importorskip("scipy")
    loss = net.train_step(x, t, fastbp.LBFGSB(max_iter=5))
    assert net.value_and_grad(x, t)[0] < loss
    for name, expected in kept.items():
        assert_same_bits(net.parameters[name], expected)


def test_nothing_is_computed_before_the_first_unit_that_trains() -> None:
    first, second = Scale(), Scale()
    net = fastbp.Network(first, fastbp.Linear(3, 4), fastbp.Tanh(), second, fastbp.Linear(4, 2), loss="mse", seed=0)
    x, t = np.ones((5, 3), "f"), np.ones((5, 2), "f")

    def backwards() -> tuple[int, int]:
        before = first.backwards, second.backwards
        net.value_and_grad(x, t)
        return first.backwards - before[0], second.backwards - before[1]

    assert backwards() == (1, 1)
    net.freeze("0.*")
    assert backwards() == (0, 1)
    net.freeze("3.*")
    assert backwards() == (0, 1)  # the linear unit before it trains
    net.freeze(net.units[1])
    assert backwards() == (0, 0)
    net.unfreeze("0.*")
    assert backwards() == (1, 1)
    net.unfreeze()
    assert backwards() == (1, 1)


def test_an_engine_computes_no_gradient_that_nothing_asks_for() -> None:
    """An engine that keeps every gradient at an output tells which there are."""
    net = fastbp.Network(
        fastbp.Linear(3, 4),
        fastbp.Identity(),
        fastbp.Linear(4, 4),
        fastbp.Linear(4, 2),
        loss="mse",
        dtype="float64",
        seed=0,
    )
    engine = net._whole.engine
    wanted = fastbp._engine.Engine(8, [(s.kind, s.n_in, s.n_out) for s in net._whole.plan.specs], "mse", separate=True)

    def places(frozen: list[tuple[bool, bool]]) -> list[bool]:
        wanted.freeze(frozen)
        y = wanted.forward(np.ones((5, 3)), net._whole.table)
        wanted.backward_outputs(np.ones_like(y), net._whole.table)
        return [wanted.output_gradient(i) is not None for i in range(4)]

    assert engine is not wanted
    assert places([(False, False)] * 3) == [True] * 4
    assert places([(True, True), (False, False), (False, False)]) == [False, False, True, True]
    assert places([(True, True), (True, False), (False, False)]) == [False, False, True, True]
    assert places([(True, True), (True, True), (False, False)]) == [False, False, False, True]
    assert places([(True, True)] * 3) == [False] * 4
    with pytest.raises(ValueError, match="2 pairs of flags, the engine has 3 units with parameters"):
        wanted.freeze([(True, True)] * 2)


def test_names_and_units_and_their_order() -> None:
    net, *_ = problem()
    assert net.frozen == ()
    net.freeze("8.bias", net.units[0])
    assert net.frozen == ("0.weight", "0.bias", "8.bias")
    net.freeze(net.units[4].units[0].units[1])
    assert net.frozen == ("0.weight", "0.bias", "4.0.1.scale", "4.0.1.shift", "8.bias")
    net.unfreeze("*.bias")
    assert net.frozen == ("0.weight", "4.0.1.scale", "4.0.1.shift")
    net.freeze()
    assert net.frozen == tuple(net.parameters)
    net.unfreeze()
    assert net.frozen == ()


@pytest.mark.parametrize("change", ["freeze", "unfreeze"])
def test_unknown_names_and_units_raise_and_change_nothing(change: str) -> None:
    net, *_ = problem()
    net.freeze("0.*")
    for given, error, message in (
        (("1.*", "9.*"), ValueError, r"'9\.\*' matches no parameter of the network: known are '0.weight', '0.bias'"),
        ((fastbp.Linear(5, 6),), ValueError, r"Linear\(5, 6\) is no unit of this network: pass one of net.units"),
        ((net.units[2],), ValueError, r"Tanh\(\) matches no parameter of the network"),
        ((0,), TypeError, r"expected a pattern such as '0\.\*' or a unit of the network, got 0"),
    ):
        with pytest.raises(error, match=message):
            getattr(net, change)(*given)
        assert net.frozen == ("0.weight", "0.bias")


def test_copies_and_pickles_stay_frozen_and_files_do_not(tmp_path: Any) -> None:
    net, x, t = problem()
    net.freeze("0.*")
    for other in (net.copy(), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.frozen == net.frozen
        with unchanged(other.parameters["0.weight"]):
            other.train_step(x, t, fastbp.Adam())
    net.save(tmp_path / "model.npz")
    assert fastbp.load(tmp_path / "model.npz").frozen == ()


def test_checkpoints_say_what_is_frozen(tmp_path: Any) -> None:
    """Also what a callback froze or thawed on the way: the resumed run goes on with the same bits."""

    class Thaw(fastbp.Callback):
        def on_epoch_begin(self, net: Any, history: Any) -> None:
            if len(history) == 1:
                net.unfreeze("0.weight")

    net, x, t = problem()
    net.freeze("0.*")
    other, options = net.copy(), {"batch_size": 4, "checkpoint": tmp_path / "run.ckpt"}
    fastbp.train(net, x, t, optimizer=fastbp.Adam(), epochs=4, callbacks=[Thaw()], **options)
    fastbp.train(other, x, t, optimizer=fastbp.Adam(), epochs=2, callbacks=[Thaw()], **options)
    assert other.frozen == ("0.bias",)
    other = problem()[0]
    fastbp.train(other, x, t, optimizer=fastbp.Adam(), epochs=4, batch_size=4, resume=tmp_path / "run.ckpt")
    assert other.frozen == ("0.bias",)
    assert_same_bits(other.flat_parameters, net.flat_parameters)


def test_derivatives_beyond_the_gradient_are_those_of_all_parameters() -> None:
    net, x, t = problem()
    net.eval()
    copied = net.copy()
    net.freeze("0.*")
    assert_same_bits(net.sample_gradients(x, t).flat, copied.sample_gradients(x, t).flat)
    report = fastbp.check_gradients(net, x, t)
    assert report.ok
    assert not {row.name for row in report.rows} & set(net.frozen)


def test_a_rate_of_0_freezes() -> None:
    net, x, t = problem()
    groups = [{"match": "0.*", "lr": 0.0}, {"match": "8.*", "lr": lambda step: 0.0}]
    for name in ("0.weight", "8.weight"):
        with unchanged(net.parameters[name]):
            for optimizer in (
                fastbp.SGD(lr=0.1, momentum=0.9, weight_decay=0.1, groups=groups),
                fastbp.AdamW(groups=groups),
            ):
                net.train_step(x, t, optimizer)
    with unchanged(net.flat_parameters):
        net.train_step(x, t, fastbp.Lion(lr=0, weight_decay=0.1))


def test_a_freeze_that_is_refused_changes_nothing() -> None:
    """While another thread is in the engine."""
    net, x, t = problem()
    ended = threading.Event()

    def predict() -> None:
        while not ended.is_set():
            net.predict(x)

    thread = threading.Thread(target=predict)
    thread.start()
    for _ in range(200):
        try:
            net.freeze("0.*")
        except RuntimeError:
            assert net.frozen == ()
        else:
            assert net.frozen == ("0.weight", "0.bias")
            break
    ended.set()
    thread.join()
    _, grads = net.value_and_grad(x, t)
    assert bool(np.any(grads["0.weight"])) == (net.frozen == ())
