"""What numpy takes, every function of arrays takes: several dtypes, lists, other libraries' arrays, more dimensions.

CALLS has a call for each function. Values and dtypes of results are held against numpy's, or against the same call with
arrays that were converted before it.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from helpers import (
    DTYPES,
    Tensor,
    assert_bound,
    assert_same_bits,
    grid,
    laid_out,
    product_bound,
    target_rows,
    unchanged,
)

import fastbp
from fastbp import _validate as check
from fastbp import functional, reference
from fastbp.reference import ACTIVATIONS, LOSSES

M, K, N = 4, 3, 5


@dataclass
class Call:
    """What a function is called with: arrays of small whole numbers, which every dtype holds."""

    arrays: dict[str, np.ndarray]
    options: dict[str, Any] = field(default_factory=dict)
    codes: tuple[str, ...] = ()  # arguments whose integers have a meaning of their own

    def __call__(self, name: str, /, change: Callable[[str, np.ndarray], Any] = lambda _, x: x, **more: Any) -> Any:
        made = {argument: change(argument, x) for argument, x in self.arrays.items()}
        return getattr(functional, name)(**made, **self.options, **more)


def whole(*shape: int, least: int = 0) -> np.ndarray:
    size = int(np.prod(shape))
    return (least + np.arange(size) * 5 % 3).astype(np.float64).reshape(shape)


PAIR = {"dy": whole(M, K), "x": whole(M, K, least=1) + whole(M, 1)}
CODES = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0], [1.0, 2.0]])
CALLS: dict[str, Call] = {
    "matmul": Call({"a": whole(M, K), "b": whole(K, N)}),
    "matmul_backward": Call({"dc": whole(M, N), "a": whole(M, K), "b": whole(K, N)}),
    "linear": Call({"x": whole(M, K), "w": whole(K, N), "b": whole(N)}),
    "linear_backward": Call({"dy": whole(M, N), "x": whole(M, K), "w": whole(K, N)}),
    "softmax": Call({"z": whole(M, K)}),
    "log_softmax": Call({"z": whole(M, K)}),
    "softmax_backward": Call({"dy": whole(M, K), "p": whole(M, K)}),
    "log_softmax_backward": Call({"dy": whole(M, K), "y": whole(M, K)}),
    "layer_norm": Call({"x": PAIR["x"], "scale": whole(K), "shift": whole(K)}),
    "layer_norm_backward": Call({**PAIR, "scale": whole(K)}),
    "rms_norm": Call({"x": PAIR["x"], "scale": whole(K)}, {"eps": 1e-5}),
    "rms_norm_backward": Call({**PAIR, "scale": whole(K)}, {"eps": 1e-5}),
    "batch_norm": Call(
        {"x": PAIR["x"], "scale": whole(K), "shift": whole(K), "mean": whole(K), "variance": whole(K, least=1)},
        {"training": False},
    ),
    "batch_norm_backward": Call(
        {**PAIR, "scale": whole(K), "mean": whole(K), "variance": whole(K, least=1)}, {"training": False}
    ),
    "dropout": Call({"x": whole(M, K)}, {"p": 0.5, "seed": 0}),
    "dropout_backward": Call({"dy": whole(M, K)}, {"p": 0.5, "seed": 0}),
    "prelu": Call({"z": whole(M, K, least=-1), "slope": whole(K)}),
    "prelu_backward": Call({"dy": whole(M, K), "z": whole(M, K, least=-1), "slope": whole(K)}),
    "embedding": Call({"x": CODES, "table": whole(3, N)}, codes=("x",)),
    "embedding_backward": Call({"dy": whole(M, 2 * N), "x": CODES, "table": whole(3, N)}, codes=("x",)),
}
IMAGES, WEIGHTS = whole(2, 3, 5, 4), whole(2, 3, 2, 2)
for dims in (1, 2):
    x, w = (IMAGES, WEIGHTS) if dims == 2 else (IMAGES[:, :, 0], WEIGHTS[:, :, 0])
    pooled, convolved = (whole(2, 3, 2, 2), whole(2, 2, 4, 3)) if dims == 2 else (whole(2, 3, 2), whole(2, 2, 3))
    CALLS[f"conv{dims}d"] = Call({"x": x, "w": w, "b": whole(2)})
    CALLS[f"conv{dims}d_backward"] = Call({"dy": convolved, "x": x, "w": w})
    for kind in ("max", "avg"):
        CALLS[f"{kind}_pool{dims}d"] = Call({"x": x}, {"size": 2})
        CALLS[f"{kind}_pool{dims}d_backward"] = Call({"dy": pooled, "x": x}, {"size": 2})
CALLS["local_response_norm"] = Call({"x": IMAGES}, {"size": 3})
CALLS["local_response_norm_backward"] = Call({"dy": whole(2, 3, 5, 4), "x": IMAGES}, {"size": 3})
CALLS["pad2d"] = Call({"x": IMAGES}, {"padding": 1})
CALLS["pad2d_backward"] = Call({"dy": IMAGES}, {"padding": 1})
CALLS["global_avg_pool2d"] = Call({"x": IMAGES})
CALLS["global_avg_pool2d_backward"] = Call({"dy": whole(2, 3), "x": IMAGES})
for rule in ACTIVATIONS.values():
    CALLS[rule.name] = Call({"z": whole(M, K, least=-1)})
    CALLS[f"{rule.name}_backward"] = Call({"dy": whole(M, K), {"output": "y", "input": "z"}[rule.needs]: whole(M, K)})
for loss in LOSSES.values():
    first = next(iter(inspect.signature(loss.reference).parameters))
    rows = np.rint(target_rows(loss.targets, (M, K), np.random.default_rng(0)))
    CALLS[loss.name] = Call({first: whole(M, K), "t": rows, "sample_weight": whole(M, least=1)})

EVERY_ARGUMENT = [(name, argument) for name, call in CALLS.items() for argument in call.arrays]
OTHER = {np.float32: np.float64, np.float64: np.float32}


def test_every_function_has_a_call() -> None:
    assert set(CALLS) == set(functional.__all__)


def arrays_in(result: Any) -> list[np.ndarray]:
    """The arrays of a result; of one that has a Python float, too, the others."""
    parts = result if isinstance(result, tuple) else (result,)
    return [part for part in parts if isinstance(part, np.ndarray)]


def assert_same(got: Any, expected: Any, dtype: Any) -> None:
    assert [x.dtype for x in arrays_in(got)] == [dtype] * len(arrays_in(got))
    for x, y in itertools.zip_longest(arrays_in(got), arrays_in(expected)):
        assert_same_bits(x, y)
    if isinstance(expected, tuple) and isinstance(expected[0], float):
        assert got[0] == expected[0]


# ---- dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "argument"), EVERY_ARGUMENT)
def test_floats_promote_as_numpy_does(name: str, argument: str, dtype: Any) -> None:
    call = CALLS[name]
    given = {a: OTHER[dtype] if a == argument else dtype for a in call.arrays}
    expected = np.result_type(*given.values())
    with unchanged(*call.arrays.values()):
        got = call(name, lambda a, x: x.astype(given[a]))
    assert_same(got, call(name, lambda _, x: x.astype(expected)), expected)


@pytest.mark.parametrize("name", CALLS)
def test_promoting_loses_no_digit(name: str) -> None:
    """What is not a float32 is not rounded to one on the way."""
    call = CALLS[name]
    wide = {a: x if a in (*call.codes, "t", "sample_weight") else x + 1e-9 for a, x in call.arrays.items()}
    first = next(iter(wide))
    got = getattr(functional, name)(**wide | {first: wide[first].astype(np.float32)}, **call.options)
    rounded = wide[first].astype(np.float32).astype(np.float64)
    dtype = np.float64 if len(wide) > 1 else np.float32
    expected = getattr(functional, name)(**wide | {first: rounded.astype(dtype)}, **call.options)
    assert_same(got, expected, dtype)


@grid(
    "name,argument kind dtype",
    [(name, argument) for name, argument in EVERY_ARGUMENT if len(CALLS[name].arrays) > 1],
    ["int64", "int8", "uint16", "bool"],
    DTYPES,
)
def test_integers_take_the_dtype_of_the_floats(name: str, argument: str, kind: str, dtype: Any) -> None:
    call = CALLS[name]
    if kind in ("bool", "uint16"):  # of what they hold
        held = np.abs(call.arrays[argument]).astype(kind)
        call = Call({**call.arrays, argument: held.astype(np.float64)}, call.options, call.codes)
    got = call(name, lambda a, x: x.astype(kind if a == argument else dtype))
    expected = call(name, lambda _, x: x.astype(dtype))
    if name == "embedding_backward" and argument == "x" and kind != "bool":
        assert got[0] is None  # indices have no gradient
        got, expected = got[1:], expected[1:]
    assert_same(got, expected, dtype)


@pytest.mark.parametrize("name", CALLS)
def test_integers_alone_raise(name: str) -> None:
    with pytest.raises(
        TypeError, match=r"has dtype int64, expected float32 or float64: pass \w+\.astype\(np.float64\)"
    ):
        CALLS[name](name, lambda _, x: x.astype(np.int64))


@grid("name,argument kind", EVERY_ARGUMENT, ["object", "complex64", "complex128", "float16", ">f4", ">f8", ">i4", "S4"])
def test_other_dtypes_raise(name: str, argument: str, kind: str) -> None:
    if kind == ">i4" and argument in ("t", "sample_weight", *CALLS[name].codes):
        return  # labels, and what counts rows, of any integers
    with pytest.raises(TypeError, match=f"{argument} (has dtype|must be)"):
        CALLS[name](name, lambda a, x: x.astype(kind if a == argument else np.float32))


@pytest.mark.parametrize("name", CALLS)
def test_out_of_another_dtype_than_the_result_raises(name: str) -> None:
    call = CALLS[name]
    for given, wrong in ((np.float32, np.float64), (np.float64, np.float32)):
        results = arrays_in(call(name, lambda _, x: x.astype(given)))  # noqa: B023
        outs = [np.full(x.shape, 7, wrong) for x in results]
        out = tuple(outs) if name.endswith("_backward") and len(outs) > 1 else outs[0]
        with (
            unchanged(*outs),
            pytest.raises(TypeError, match=f"has dtype .*, expected {np.dtype(given)}: pass np.empty"),
        ):
            call(name, lambda _, x: x.astype(given), out=out)  # noqa: B023
        fitting = tuple(x.astype(given) for x in outs) if isinstance(out, tuple) else outs[0].astype(given)
        again = call(name, lambda _, x: x.astype(given), out=fitting)  # noqa: B023
        assert all(a is b for a, b in zip(arrays_in(again), arrays_in(fitting), strict=True))


def test_a_list_of_weights_has_no_dtype_of_its_own() -> None:
    y = whole(M, K).astype(np.float32)
    for weight in ([1.0, 2, 0, 1], (1, 2, 0, 1)):
        dy = functional.mse(y, y + 1, sample_weight=weight)[1]
        assert dy.dtype == np.float32
        assert_same_bits(dy, functional.mse(y, y + 1, sample_weight=np.array(weight, np.float32))[1])
    assert functional.mse(y, y + 1, sample_weight=np.ones(M))[1].dtype == np.float64


def test_batch_norm_writes_into_the_moments_that_it_was_given() -> None:
    """Also where they have another dtype, or shape, than what it computes with."""
    x = PAIR["x"].astype(np.float32)
    for dtype, shape in itertools.product(DTYPES, ((K,), (1, K), (K, 1))):
        mean, variance = np.zeros(shape, dtype), np.ones(shape, dtype)
        y = functional.batch_norm(x, mean=mean, variance=variance)
        assert y.dtype == np.result_type(x, mean)
        np.testing.assert_allclose(mean.ravel(), 0.1 * x.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(variance.ravel(), 0.9 + 0.1 * x.var(axis=0, ddof=1), rtol=1e-6)


# ---- lists, and arrays of other libraries ----------------------------------------------------------------------------


class HasArray:
    """What can give an array of its memory, as pandas' columns and h5py's data sets can."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.values if dtype is None else self.values.astype(dtype)


@pytest.mark.parametrize("name", CALLS)
def test_lists_are_what_numpy_makes_of_them(name: str) -> None:
    call = CALLS[name]
    assert_same(call(name, lambda _, x: x.tolist()), call(name), np.float64)


@pytest.mark.parametrize("made", [Tensor, HasArray, memoryview])
@pytest.mark.parametrize("name", CALLS)
def test_arrays_of_other_libraries(name: str, made: Callable[[np.ndarray], Any]) -> None:
    call = CALLS[name]
    for dtype in DTYPES:
        narrow = lambda _, x: x.astype(dtype)  # noqa: B023, E731
        with unchanged(*call.arrays.values()):
            assert_same(call(name, lambda a, x: made(narrow(a, x))), call(name, narrow), dtype)  # noqa: B023


@pytest.mark.parametrize("made", [Tensor, HasArray, memoryview])
def test_they_are_read_where_they_lie(made: Callable[[np.ndarray], Any]) -> None:
    x = whole(M, K)
    assert np.shares_memory(check.plain("x", made(x)), x)


def test_a_scalar_is_an_array_without_axes() -> None:
    for value in (0.5, np.float64(0.5), np.array(0.5)):
        y = functional.sigmoid(value)
        assert (y.shape, y.dtype) == ((), np.float64)
    assert functional.sigmoid(np.float32(0.5)).dtype == np.float32


def test_what_raises_while_it_is_read_is_named() -> None:
    class Closed:
        def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
            raise RuntimeError("the file is closed")

    with pytest.raises(TypeError, match="x must be a numpy array, got Closed: the file is closed"):
        functional.linear(Closed(), np.ones((2, 2)))


@pytest.mark.parametrize("made", [Tensor, HasArray])
def test_networks_read_arrays_of_other_libraries(made: Callable[[np.ndarray], Any]) -> None:
    net = fastbp.MLP([K, 6, 2], seed=0)
    x, t, weight = whole(M, K).astype(np.float32), np.array([0, 1, 1, 0]), np.ones(M, np.float32)
    loss, grads = net.value_and_grad(x, t, sample_weight=weight)
    expected = grads.flat.copy()
    again, grads = net.value_and_grad(made(x), made(t), sample_weight=made(weight))
    assert again == loss
    assert_same_bits(grads.flat, expected)
    assert_same_bits(net.predict(made(x)), net.predict(x))
    history = [
        fastbp.train(net.copy(), *data, optimizer=fastbp.SGD(), epochs=2, batch_size=2, progress=False).loss
        for data in ((x, t), (made(x), made(t)), ([(made(x[i : i + 2]), made(t[i : i + 2])) for i in (0, 2)],))
    ]
    assert history[0] == history[1] and len(history[2]) == 2


# ---- shapes ----------------------------------------------------------------------------------------------------------


@grid("shape layout dtype", [(N,), (1, N), (N, 1)], ["C", "strided", "negative", "misaligned", "readonly"], DTYPES)
def test_a_bias_has_one_value_for_each_output(shape: tuple[int, ...], layout: str, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    x, w, dy = (rng.normal(size=s).astype(dtype) for s in ((M, K), (K, N), (M, N)))
    values = rng.normal(size=N).astype(dtype)
    b = laid_out(values.reshape(shape), layout)
    assert_same_bits(functional.linear(x, w, b), functional.linear(x, w, values))
    expected = functional.linear_backward(dy, x, w)
    got = functional.linear_backward(dy, x, w, b=b)
    assert_same_bits(got, (*expected[:2], expected[2].reshape(shape)))
    assert_same_bits(reference.linear_backward(dy, x, w, b=b)[2].shape, shape)
    out = laid_out(np.zeros(shape, dtype), "C" if layout == "readonly" else layout)
    assert functional.linear_backward(dy, x, w, b=b, out=(None, None, out))[2] is out
    assert_same_bits(np.ascontiguousarray(out), expected[2].reshape(shape))
    for wrong in ((N,), (1, N), (N, 1)):
        if wrong != shape:
            with pytest.raises(ValueError, match=r"\(db\) has shape"):
                functional.linear_backward(dy, x, w, b=b, out=(None, None, np.zeros(wrong, dtype)))
    if shape == (N,):
        assert_same_bits(functional.linear_backward(dy[:0], x[:0], w, b=b)[2], np.zeros(N, dtype))


def test_one_output_and_no_row() -> None:
    x, w, dy = whole(M, K), whole(K, 1), whole(M, 1)
    for shape in ((1,), (1, 1)):
        assert_same_bits(functional.linear(x, w, np.ones(shape)), x @ w + 1)
        assert_same_bits(functional.linear_backward(dy, x, w, b=np.ones(shape))[2], dy.sum(axis=0).reshape(shape))
        assert_same_bits(functional.linear_backward(dy[:0], x[:0], w, b=np.ones(shape))[2], np.zeros(shape))
        assert_same_bits(functional.linear_backward(dy[:, :0], x, w[:, :0], b=np.ones((1, 0)))[2], np.zeros((1, 0)))


LEADING = [(), (1,), (M,), (2, M), (2, 0), (2, 1, M)]
LAYOUTS = ["C", "F", "padded", "strided", "misaligned"]


@grid("leading layout dtype", LEADING, LAYOUTS, DTYPES, pairs=["leading layout"])
def test_leading_axes_are_rows_as_in_matmul(leading: tuple[int, ...], layout: str, dtype: Any) -> None:
    rng = np.random.default_rng(2)
    x, dy = (laid_out(rng.normal(size=(*leading, n)).astype(dtype), layout) for n in (K, N))
    w, b = rng.normal(size=(K, N)).astype(dtype), rng.normal(size=N).astype(dtype)
    rows, dy_rows = x.reshape(-1, K).astype(np.longdouble), dy.reshape(-1, N).astype(np.longdouble)
    bound = product_bound(rows, w, dtype, b).reshape(*leading, N)
    for got, expected in (
        (functional.linear(x, w, b), np.matmul(x, w) + b),
        (functional.matmul(x, w), np.matmul(x, w)),
        (functional.linear(x, w, b, out=laid_out(np.zeros((*leading, N), dtype), layout)), np.matmul(x, w) + b),
        (functional.matmul(x, w, out=laid_out(np.zeros((*leading, N), dtype), layout)), np.matmul(x, w)),
    ):
        assert got.dtype == dtype
        assert_bound(got, expected.astype(np.longdouble), 2 * bound)
    shapes = ((*leading, K), (K, N), (N,))
    outs = tuple(laid_out(np.zeros(s, dtype), layout) for s in shapes)
    plain = functional.linear_backward(
        np.ascontiguousarray(dy.reshape(-1, N)), np.ascontiguousarray(x.reshape(-1, K)), w
    )
    bounds = (
        product_bound(dy_rows, w.T, dtype),
        product_bound(rows.T, dy_rows, dtype),
        len(rows) * (np.finfo(dtype).eps * np.abs(dy_rows).sum(axis=0)),
    )
    for got in (
        functional.linear_backward(dy, x, w),
        functional.linear_backward(dy, x, w, out=outs),
        (*functional.matmul_backward(dy, x, w), plain[2]),
        (*functional.matmul_backward(dy, x, w, out=outs[:2]), plain[2]),
    ):
        assert [part.shape for part in got] == list(shapes)
        for part, exact, limit in zip(got, plain, bounds, strict=True):
            assert_bound(part.reshape(exact.shape), exact.astype(np.longdouble), 2 * limit)
    assert functional.linear_backward(dy, x, w, need_dx=False)[0] is None


@pytest.mark.parametrize("leading", LEADING)
def test_matmul_takes_vectors_as_numpy_does(leading: tuple[int, ...]) -> None:
    a, b, dc = whole(*leading, K), whole(K), whole(*leading)
    c = functional.matmul(a, b)
    assert c.shape == leading
    assert_same_bits(c, np.asarray(np.matmul(a, b)))  # of small whole numbers: exact
    da, db = functional.matmul_backward(dc, a, b)
    assert_same_bits(da, dc[..., None] * b)
    assert_same_bits(db, np.tensordot(a, dc, axes=(range(a.ndim - 1), range(dc.ndim))))
    assert_same_bits(reference.matmul_backward(dc, a, b), (da, db))


def test_rows_are_seen_where_they_lie() -> None:
    """No copy of x or of out: the kernel gets their memory."""
    x, out = np.ones((2, M, K)), np.empty((2, M, N))
    assert np.shares_memory(functional._calls.as_rows(x), x)
    assert np.shares_memory(functional._calls.as_rows(x[:, ::2]), x)
    assert functional._calls.place(out, out.shape, out.dtype, ()) is out


@pytest.mark.parametrize("leading", [(2, M), (1, 2, M), (2, 0)])
@pytest.mark.parametrize("rule", LOSSES.values(), ids=lambda rule: rule.name)
def test_losses_of_more_dimensions_are_those_of_their_rows(rule: Any, leading: tuple[int, ...]) -> None:
    function, rng = getattr(functional, rule.name), np.random.default_rng(3)
    z = rng.normal(size=(*leading, K))
    rows = int(np.prod(leading))
    kinds = [target_rows(rule.targets, (rows, K), rng)]
    if rule.targets in ("labels", "signs"):
        kinds.append(rng.integers(0, K, rows))
    for t, reduction in itertools.product(kinds, ("mean", "sum", "none")):
        weight = rng.uniform(1, 2, rows)
        if reduction == "mean" and rows == 0:
            continue
        loss, dz = function(z.reshape(rows, K), t, sample_weight=weight, reduction=reduction)
        options = {"sample_weight": weight.reshape(leading), "reduction": reduction, "out": np.empty(z.shape)}
        got, dz_got = function(z, t.reshape(*leading, *t.shape[1:]), **options)
        assert dz_got is options["out"]
        assert_same_bits(dz_got, dz.reshape(z.shape))
        assert_same_bits(got, loss.reshape(leading) if reduction == "none" else loss)
    if rule.targets not in ("labels", "signs"):
        t = target_rows(rule.targets, (rows, 1), rng).reshape(leading)  # of one output: the last axis may be missing
        dz = function(z[..., :1], t, reduction="sum")[1]
        assert_same_bits(dz, function(z[..., :1], t[..., None], reduction="sum")[1])
    for wrong in ({"t": np.ones((rows, K))}, {"t": np.ones((*leading, K)), "sample_weight": np.ones(rows)}):
        with pytest.raises(ValueError, match=r"has shape .* first: the outputs' axes before their last"):
            function(z, reduction="sum", **wrong)


BY_ROW = ["layer_norm", "rms_norm", "batch_norm", "dropout", "prelu", "softmax", "log_softmax"]


@grid("name leading layout", BY_ROW, [(2, M), (2, 1, M), (M,)], LAYOUTS)
def test_units_of_more_dimensions_are_those_of_their_rows(name: str, leading: tuple[int, ...], layout: str) -> None:
    rows = int(np.prod(leading))
    forward, backward = CALLS[name], CALLS[f"{name}_backward"]
    values = {"x": whole(rows, K) + whole(rows, 1), "z": whole(rows, K, least=-1), "dy": whole(rows, K)}
    values |= {"p": whole(rows, K), "y": whole(rows, K)}
    for call, function in ((forward, name), (backward, f"{name}_backward")):
        flat = call(function, lambda a, x: values.get(a, x))
        change = lambda a, x: laid_out(values[a].reshape(*leading, K), layout) if a in values else x  # noqa: E731
        first = flat[0] if isinstance(flat, tuple) else flat
        got = call(function, change)
        place = laid_out(np.zeros((*leading, K)), layout)
        out = (place, *[None] * (len(flat) - 1)) if isinstance(flat, tuple) else place
        again = call(function, change, out=out)
        assert_same_bits(np.ascontiguousarray(place), first.reshape(*leading, K))
        for one in (got, again):
            parts = one if isinstance(one, tuple) else (one,)
            assert_same_bits(np.ascontiguousarray(parts[0]), first.reshape(*leading, K))
            assert_same_bits(parts[1:], flat[1:] if isinstance(flat, tuple) else ())


@pytest.mark.parametrize("shape", [(K,), (1, K), (K, 1)])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "batch_norm", "prelu"])
def test_values_of_columns_have_their_own_shape(name: str, shape: tuple[int, ...]) -> None:
    """As biases: one for each column whatever the shape, and the gradient has it too."""
    for function in (name, f"{name}_backward"):
        call = CALLS[function]
        got = call(function, lambda _, x: x.reshape(shape) if x.shape == (K,) else x)
        expected = call(function)
        if isinstance(got, tuple):
            assert [part.shape for part in got] == [(M, K), *[shape] * (len(got) - 1)]
            got, expected = (tuple(part.ravel() for part in parts) for parts in (got, expected))
        assert_same_bits(got, expected)


# ---- programs as people write them -----------------------------------------------------------------------------------


def pixels_and_wide_weights(f: Any) -> list[np.ndarray]:
    """Pixels are float32, as files have them, and weights float64, as numpy draws them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (32, 8, 8), dtype=np.uint8)
    x = images.reshape(32, 64).astype(np.float32) / 255
    t = rng.integers(0, 10, 32)
    w1, b1 = rng.normal(0, 0.1, (64, 16)), np.zeros((1, 16))
    w2, b2 = rng.normal(0, 0.1, (16, 10)), np.zeros((1, 10))
    for _ in range(3):
        h = f.sigmoid(f.linear(x, w1, b1))
        _, dz = f.softmax_nll(f.linear(h, w2, b2), t)
        dh, dw2, db2 = f.linear_backward(dz, h, w2, b=b2)
        _, dw1, db1 = f.linear_backward(f.sigmoid_backward(dh, h), x, w1, b=b1)
        for parameter, gradient in ((w1, dw1), (b1, db1), (w2, dw2), (b2, db2)):
            parameter -= 0.5 * gradient
    return [w1, b1, w2, b2]


def samples_in_columns(f: Any) -> list[np.ndarray]:
    """Samples are columns, weights (out, in) and biases (out, 1); labels are a list of rows of 0 and 1."""
    rng = np.random.default_rng(1)
    x, t = rng.normal(size=(5, 40)), [[int(v > 0) for v in rng.normal(size=40)]]
    w1, b1 = rng.normal(0, 0.5, (7, 5)), np.zeros((7, 1))
    w2, b2 = rng.normal(0, 0.5, (1, 7)), np.zeros((1, 1))
    for _ in range(3):
        a = f.tanh(f.linear(x.T, w1.T, b1).T)
        _, dz = f.sigmoid_nll(f.linear(a.T, w2.T, b2), np.transpose(t))
        da, dw2, db2 = f.linear_backward(dz, a.T, w2.T, b=b2)
        _, dw1, db1 = f.linear_backward(f.tanh_backward(da.T, a).T, x.T, w1.T, b=b1)
        for parameter, gradient in ((w1, dw1.T), (b1, db1), (w2, dw2.T), (b2, db2)):
            parameter -= 0.5 * gradient
    return [w1, b1, w2, b2]


def sequences(f: Any) -> list[np.ndarray]:
    """Rows of steps: (batch, time, features), with a loss at each step."""
    rng = np.random.default_rng(2)
    x, t = rng.normal(size=(6, 9, 4)).astype(np.float32), rng.normal(size=(6, 9, 2))
    w1, b1, w2 = rng.normal(size=(4, 8)), np.zeros(8), rng.normal(size=(8, 2))
    for _ in range(3):
        h = f.relu(f.linear(x, w1, b1))
        _, dy = f.mse(f.matmul(h, w2), t)
        dh, dw2 = f.matmul_backward(dy, h, w2)
        _, dw1, db1 = f.linear_backward(f.relu_backward(dh, h), x, w1, b=b1)
        for parameter, gradient in ((w1, dw1), (b1, db1), (w2, dw2)):
            parameter -= 0.05 * gradient
    return [w1, b1, w2]


class Numpy:
    """The functions of the programs in numpy's own words, for float64."""

    @staticmethod
    def linear(x: Any, w: Any, b: Any) -> Any:
        return x @ w + b.ravel()

    @staticmethod
    def linear_backward(dy: Any, x: Any, w: Any, b: Any) -> Any:
        axes = tuple(range(dy.ndim - 1))
        return dy @ w.T, np.tensordot(x, dy, (axes, axes)), dy.sum(axis=axes).reshape(b.shape)

    @staticmethod
    def matmul(a: Any, b: Any) -> Any:
        return a @ b

    @staticmethod
    def matmul_backward(dc: Any, a: Any, b: Any) -> Any:
        axes = tuple(range(a.ndim - 1))
        return dc @ b.T, np.tensordot(a, dc, (axes, axes))

    @staticmethod
    def sigmoid(z: Any) -> Any:
        return 1 / (1 + np.exp(-z))

    @staticmethod
    def sigmoid_backward(dy: Any, y: Any) -> Any:
        return dy * y * (1 - y)

    @staticmethod
    def tanh(z: Any) -> Any:
        return np.tanh(z)

    @staticmethod
    def tanh_backward(dy: Any, y: Any) -> Any:
        return dy * (1 - y**2)

    @staticmethod
    def relu(z: Any) -> Any:
        return np.maximum(z, 0)

    @staticmethod
    def relu_backward(dy: Any, y: Any) -> Any:
        return dy * (y > 0)

    @staticmethod
    def softmax_nll(z: Any, t: Any) -> Any:
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return -np.log(p[np.arange(len(t)), t]).mean(), (p - np.eye(z.shape[1])[t]) / len(t)

    @staticmethod
    def sigmoid_nll(z: Any, t: Any) -> Any:
        p = 1 / (1 + np.exp(-z))
        return -np.log(np.where(t, p, 1 - p)).mean(), (p - t) / len(t)

    @staticmethod
    def mse(y: Any, t: Any) -> Any:
        n = y.size // y.shape[-1]
        return ((y - t) ** 2).sum() / 2 / n, (y - t) / n


@pytest.mark.parametrize("program", [pixels_and_wide_weights, samples_in_columns, sequences])
def test_programs_in_numpy_take_the_functions_by_name(program: Callable[[Any], list[np.ndarray]]) -> None:
    for got, expected in zip(program(fastbp), program(Numpy), strict=True):
        assert (got.shape, got.dtype) == (expected.shape, np.float64)
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)
