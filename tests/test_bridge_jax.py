"""Networks as functions of JAX: gradients, compiled, batched, and of second order."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers import seeded
from processes import output

import fastbp

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import fastbp.jax as fj  # noqa: E402

pytestmark = pytest.mark.bridge


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    """JAX in double precision, where a test does not say otherwise."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True, params=["buffers", "copies"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which XLA calls back."""
    if request.param == "copies":
        monkeypatch.setattr(fj, "_buffer_callback", lambda: None)
    elif fj._buffer_callback() is None:
        pytest.skip("this release of JAX has no buffer_callback")
    return str(request.param)


def chain(*units: Any, loss: str = "mse", **options: Any) -> Any:
    return fastbp.Network(*units, loss=loss, dtype="float64", seed=0, **options)


NETWORKS: dict[str, Any] = {
    "mlp": lambda: fastbp.MLP([4, 6, 3], hidden="tanh", dtype="float64", seed=0),
    "penalties": lambda: fastbp.MLP([4, 6, 3], hidden="silu", dtype="float64", seed=0, l2=0.3),
    "binary": lambda: fastbp.MLP([4, 6, 1], hidden="tanh", loss="sigmoid_nll", dtype="float64", seed=0),
    "evaluated": lambda: chain(fastbp.BatchNorm(4), fastbp.Dropout(), fastbp.Linear(4, 2)).eval(),
    "images": lambda: chain(
        fastbp.Conv2d(1, 2, 2), fastbp.Tanh(), fastbp.Flatten(), fastbp.Linear(2, 2), input_shape=(1, 2, 2)
    ),
}


def problem(net: Any, n: int = 6) -> tuple[Any, Any]:
    """Rows and targets."""
    rng = seeded(4)
    x = rng.normal(size=(n, *(net.input_shape or (net.n_in,)))).astype(net.dtype)
    labels = net.loss.rule.targets == "labels"
    return x, rng.integers(0, net.n_out, n) if labels else rng.random((n, net.n_out)).astype(net.dtype)


def assert_same(got: Any, want: Any) -> None:
    for name, values in want.items():
        np.testing.assert_array_equal(np.asarray(got[name]), values)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_values_and_gradients(name: str, compiled: bool) -> None:
    """The engine computes either way: the same bits."""
    net = NETWORKS[name]()
    (x, t), p, flat, weight = problem(net), fj.params(net), jnp.array(net.flat_parameters), np.arange(1.0, 7.0)
    prepare = jax.jit if compiled else lambda f: f
    for options in ({}, {"sample_weight": weight}):
        want, grads = net.value_and_grad(x, t, **options)
        for f in (fj.value_and_grad(net), jax.value_and_grad(fj.loss(net))):
            value, gradient = prepare(f)(p, x, t, *options.values())
            assert (float(value), value.dtype) == (want, np.float64)
            assert_same(gradient, grads)
            np.testing.assert_array_equal(prepare(f)(flat, x, t, *options.values())[1], grads.flat)
    np.testing.assert_allclose(prepare(fj.loss(net))(p, x, t), net.loss_value(x, t), rtol=1e-14)
    np.testing.assert_array_equal(prepare(fj.outputs(net))(p, x), net.outputs(x))
    np.testing.assert_array_equal(flat, net.flat_parameters)  # XLA lends its own memory: nothing has written there


@pytest.mark.parametrize("name", NETWORKS)
def test_jaxs_own_check_of_gradients(name: str) -> None:
    net = NETWORKS[name]()
    (x, t), p, f, y = problem(net), fj.params(net), fj.loss(net), fj.outputs(net)
    check_grads(lambda p: f(p, x, t), (p,), order=2, modes=["rev"])
    check_grads(lambda x: f(p, x, t), (x,), order=1, modes=["rev"])
    check_grads(y, (p, x), order=1, modes=["rev"])
    check_grads(jax.jit(y), (p, x), order=1, modes=["rev"])


def test_hessians() -> None:
    net = NETWORKS["penalties"]()
    (x, t), flat, f = problem(net), jnp.array(net.flat_parameters), fj.loss(net)
    hessian = jax.jacrev(jax.grad(f))
    for compute in (hessian, jax.jit(hessian)):
        np.testing.assert_allclose(compute(flat, x, t), net.hessian(x, t), atol=1e-14)


def test_batches_of_parameters() -> None:
    net = NETWORKS["mlp"]()
    (x, t), flat = problem(net), jnp.array(net.flat_parameters)
    several = jnp.stack([flat, 2 * flat, -flat])
    losses, grads = jax.vmap(fj.value_and_grad(net), in_axes=(0, None, None))(several, x, t)
    again = jax.jit(jax.vmap(jax.grad(fj.loss(net)), in_axes=(0, None, None)))(several, x, t)
    for i, values in enumerate(several):
        net.flat_parameters = np.asarray(values)
        want, gradient = net.value_and_grad(x, t)
        assert float(losses[i]) == want
        np.testing.assert_array_equal(grads[i], gradient.flat)
        np.testing.assert_array_equal(again[i], gradient.flat)


def test_a_loss_in_jax() -> None:
    """Of the outputs, against the same network in jax.numpy: by another road."""
    net = fastbp.MLP([4, 6, 3], hidden="tanh", dtype="float64", seed=0)
    (x, _), p, y = problem(net), fj.params(net), fj.outputs(net)

    def theirs(p: Any, x: Any) -> Any:
        return jnp.tanh(x @ p["0.weight"] + p["0.bias"]) @ p["2.weight"] + p["2.bias"]

    def loss(function: Any) -> Any:
        return jax.jit(jax.value_and_grad(lambda p, x: jnp.log(jnp.cosh(function(p, x))).sum(), argnums=(0, 1)))

    (got, (dp, dx)), (want, (want_dp, want_dx)) = loss(y)(p, x), loss(theirs)(p, x)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(dx, want_dx, rtol=1e-9, atol=1e-12)
    for name in p:
        np.testing.assert_allclose(dp[name], want_dp[name], rtol=1e-9, atol=1e-12)


def test_training_in_single_precision() -> None:
    jax.config.update("jax_enable_x64", False)
    net = fastbp.MLP([4, 6, 3], seed=0)
    (x, t), p, f = problem(net), fj.params(net), fj.loss(net)

    @jax.jit
    def step(p: Any) -> Any:
        return jax.tree.map(lambda values, g: values - 0.1 * g, p, jax.grad(f)(p, x, t))

    for _ in range(20):
        p = step(p)
        net.train_step(x, t, fastbp.SGD(lr=0.1))
    for name, values in net.parameters.items():
        assert p[name].dtype == np.float32
        np.testing.assert_allclose(p[name], values, rtol=1e-4, atol=1e-6)
    net.parameters = jax.device_get(p)


def test_calls_inside_a_loop_of_xla() -> None:
    net = NETWORKS["mlp"]()
    (x, t), flat, gradient = problem(net), jnp.array(net.flat_parameters), jax.grad(fj.loss(net))
    got = jax.jit(lambda flat: jax.lax.fori_loop(0, 30, lambda _, v: v - 0.5 * gradient(v, x, t), flat))(flat)
    for _ in range(30):
        net.train_step(x, t, fastbp.SGD(lr=0.5))
    np.testing.assert_allclose(got, net.flat_parameters, rtol=1e-9, atol=1e-12)


def test_a_unit_in_python() -> None:
    class Doubled(fastbp.Unit):
        def forward(self, x: Any) -> Any:
            return 2 * x

        def backward(self, dy: Any) -> Any:
            return 2 * dy

    net = chain(fastbp.Linear(4, 3), Doubled()).eval()
    (x, t), p = problem(fastbp.MLP([4, 3], loss="mse", dtype="float64")), fj.params(net)
    assert_same(jax.jit(jax.grad(fj.loss(net)))(p, x, t), net.value_and_grad(x, t)[1])
    np.testing.assert_array_equal(jax.jit(fj.outputs(net))(p, x), net.outputs(x))


# ---- the two ways of calling back ------------------------------------------------------------------------------------


def test_what_is_traced(way: str) -> None:
    net = NETWORKS["mlp"]()
    (x, t), flat = problem(net), jnp.array(net.flat_parameters)
    traced = str(jax.make_jaxpr(fj.loss(net))(flat, x, t))
    assert ("buffer_callback" in traced) == (way == "buffers")
    assert "pure_callback" in traced  # for other devices than CPUs


@pytest.mark.parametrize("way", ["buffers"], indirect=True)
def test_other_releases_of_jax(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `buffer_callback` that is missing, refuses the call or calls back in another way is not used."""
    from jax.experimental.buffer_callback import buffer_callback

    def refusing(callback: Any, result_shape_dtypes: Any) -> Any:
        raise AssertionError("not reached")

    def returning(callback: Any, shapes: Any, **options: Any) -> Any:
        return lambda *args: jax.pure_callback(lambda *given: callback(*given), shapes, *args)

    def silent(callback: Any, shapes: Any, **options: Any) -> Any:
        return buffer_callback(lambda context, out, given: None, shapes, **options)

    find = fj._buffer_callback.__wrapped__
    assert find() is buffer_callback
    for other in (refusing, returning, silent):
        monkeypatch.setattr("jax.experimental.buffer_callback.buffer_callback", other)
        assert find() is None
    monkeypatch.setitem(sys.modules, "jax.experimental.buffer_callback", types.ModuleType("empty"))
    assert find() is None


def test_the_trial_call_within_a_trace(way: str) -> None:
    """Also where the network is made there."""
    net = NETWORKS["mlp"]()
    (x, t), flat = problem(net), jnp.array(net.flat_parameters)

    def gradient(flat: Any) -> Any:
        if way == "buffers":
            fj._buffer_callback.cache_clear()
        return jax.grad(fj.loss(net))(flat, x, t)

    np.testing.assert_array_equal(jax.jit(gradient)(flat), net.value_and_grad(x, t)[1].flat)
    assert (fj._buffer_callback() is None) == (way == "copies")


@pytest.mark.parametrize("way", ["buffers"], indirect=True)
def test_what_a_unit_keeps_is_its_own(way: str) -> None:
    """XLA's memory is lent for the call alone."""
    kept = []

    class Keeping(fastbp.Unit):
        def forward(self, x: Any) -> Any:
            kept.append(x)
            return x

        def backward(self, dy: Any) -> Any:
            kept.append(dy)
            return dy

    net = chain(Keeping(), fastbp.Linear(4, 3), Keeping()).eval()
    (x, t), p = problem(fastbp.MLP([4, 3], loss="mse", dtype="float64")), fj.params(net)
    f, y = jax.jit(jax.grad(fj.loss(net))), jax.jit(jax.grad(lambda p, x: fj.outputs(net)(p, x).sum()))
    f(p, x, t), y(p, x)
    assert len(kept) >= 8
    for array in kept:
        while isinstance(array.base, np.ndarray):
            array = array.base
        assert array.base is None


def test_the_call_after_one_that_raised() -> None:
    net = NETWORKS["binary"]()
    (x, t), flat, f = problem(net), jnp.array(net.flat_parameters), jax.jit(fj.value_and_grad(net))
    with pytest.raises(Exception, match=r"expected a value in \[0, 1\]"):
        jax.block_until_ready(f(flat, x, t + 2))
    np.testing.assert_array_equal(f(flat, x, t)[1], net.value_and_grad(x, t)[1].flat)


def test_several_devices_and_threads(way: str) -> None:
    """One network at work on two devices at once, and rows that lie on both."""
    code = f"""
    import threading
    import jax, numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    import fastbp, fastbp.jax as fj

    if {way == "copies"}:
        fj._buffer_callback = lambda: None
    net = fastbp.MLP([4, 6, 3], seed=0)
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(8, 4)).astype(np.float32), rng.integers(0, 3, 8).astype(np.int32)
    want, f = net.value_and_grad(x, t)[1].flat, jax.jit(fj.value_and_grad(net))
    made = {{}}

    def work(device):
        args = jax.device_put((net.flat_parameters, x, t), device)
        made[device] = [np.asarray(f(*args)[1]) for _ in range(30)]

    threads = [threading.Thread(target=work, args=(device,)) for device in 2 * jax.devices()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2 and all((values == want).all() for each in made.values() for values in each)

    mesh = Mesh(np.array(jax.devices()), ("rows",))
    flat = jax.device_put(net.flat_parameters, NamedSharding(mesh, PartitionSpec()))
    rows = jax.device_put((x, t), NamedSharding(mesh, PartitionSpec("rows")))
    np.testing.assert_array_equal(np.asarray(f(flat, *rows)[1]), want)
    print("done")
    """
    assert output(code, XLA_FLAGS="--xla_force_host_platform_device_count=2", warnings="default") == "done"


# ---- refused ---------------------------------------------------------------------------------------------------------


def test_derivatives_that_are_not_there_raise() -> None:
    net = fastbp.MLP([4, 3], hidden="tanh", loss="mse", dtype="float64", seed=0)
    (x, t), v, f, y = problem(net), jnp.array(net.flat_parameters), fj.loss(net), fj.outputs(net)
    calls = {
        "gradient of a network's loss at its targets": lambda: jax.grad(f, 2)(v, x, t),
        "second derivative of a network at its input": lambda: jax.jacrev(jax.grad(f, 1), 1)(v, x, t),
        "derivative at x of a network's gradient": lambda: jax.jacrev(jax.grad(f), 1)(v, x, t),
        "third derivative of a network": lambda: jax.jacrev(jax.jacrev(jax.grad(f)))(v, x, t),
        "second derivative of a network's outputs": lambda: jax.jacrev(jax.grad(lambda v: y(v, x).sum()))(v),
    }
    for message, call in calls.items():
        for run in (call, jax.jit(call)):
            with pytest.raises(NotImplementedError, match=f"fastbp has no {message}"):
                run()


def test_networks_that_are_no_functions_raise() -> None:
    for unit in (fastbp.Dropout(), fastbp.BatchNorm(4)):
        net = chain(unit, fastbp.Linear(4, 2))
        for make in (fj.loss, fj.value_and_grad, fj.outputs):
            with pytest.raises(ValueError, match=rf"in training, where {type(unit).__name__}\(.*call net.eval\(\)"):
                make(net)
    for make in (fj.loss, fj.params):
        with pytest.raises(TypeError, match=r"net must be a fastbp\.Network, got 3"):
            make(3)


def test_wrong_arguments_raise() -> None:
    net = NETWORKS["mlp"]()
    (x, t), f, p = problem(net), fj.loss(net), fj.params(net)
    cases: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        (({**p, "4.weight": p["0.bias"]}, x, t), ValueError, "unknown parameter '4.weight'"),
        (({"0.weight": p["0.weight"]}, x, t), ValueError, "params lacks '0.bias'"),
        (({**p, "0.bias": jnp.ones(5)}, x, t), ValueError, r"params\['0.bias'\] has shape \(5,\), expected \(6,\)"),
        ((jnp.ones(51, np.float32), x, t), TypeError, "params has dtype float32, but the network is float64"),
        (([1.0], x, t), TypeError, "params must be a dict of arrays by name, or a vector"),
        ((p, x.astype(np.float32), t), TypeError, r"x has dtype float32, .* x.astype\('float64'\)"),
        ((p, x[:, :3], t), ValueError, r"x has shape \(6, 3\), expected \(n, 4\)"),
        ((p, x[0], t), ValueError, r"x has shape \(4,\), expected \(n, 4\)"),
    ]
    for args, kind, message in cases:
        for run in (f, jax.jit(f)) if not isinstance(args[0], list) else (f,):
            with pytest.raises(kind, match=message):
                run(*args)
    with pytest.raises(ValueError, match="label"):
        f(p, x, t + 3)
    with pytest.raises(Exception, match="label"):  # XLA's own, with the message of the callback
        jax.block_until_ready(jax.jit(f)(p, x, t + 3))


def test_double_precision_needs_jaxs() -> None:
    jax.config.update("jax_enable_x64", False)
    net = NETWORKS["mlp"]()
    for make in (fj.loss, fj.params):
        with pytest.raises(ValueError, match=r'jax.config.update\("jax_enable_x64", True\), or net.copy\("float32"\)'):
            make(net)


def test_without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "fastbp.jax")
    monkeypatch.delattr(fastbp, "jax")
    with pytest.raises(ModuleNotFoundError, match=r'pip install "fastbp\[jax\]"'):
        importlib.import_module("fastbp.jax")
