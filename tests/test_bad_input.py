"""Whatever is wrong with an argument: the error, its message, and that nothing has changed.

Cases are made from a table of well-formed calls, one for each kernel (those of the registries included), by putting one
thing wrong in each place where it can be. The checks are a few functions that all kernels call. So each way of being
wrong meets one kernel of each family, and each argument of each kernel meets one way that shows that it is checked.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable
from typing import Any

import helpers
import numpy as np
import pytest
from helpers import DTYPES, grid, target_rows, unchanged

import fastbp
from fastbp import _validate as check
from fastbp import functional
from fastbp.reference import ACTIVATIONS, LOSSES, Activation

M, K, N = 4, 3, 5

# The arrays of floats that each kernel takes, in order, and the shapes of what it writes.
ARGUMENTS: dict[str, dict[str, tuple[int, ...]]] = {
    "matmul": {"a": (M, K), "b": (K, N)},
    "matmul_backward": {"dc": (M, N), "a": (M, K), "b": (K, N)},
    "linear": {"x": (M, K), "w": (K, N), "b": (N,)},
    "linear_backward": {"dy": (M, N), "x": (M, K), "w": (K, N)},
    "softmax": {"z": (M, K)},
    "log_softmax": {"z": (M, K)},
    "softmax_backward": {"dy": (M, K), "p": (M, K)},
    "log_softmax_backward": {"dy": (M, K), "y": (M, K)},
    **{
        name: dict.fromkeys(list(inspect.signature(rule.reference).parameters)[:2], (M, K))
        for name, rule in LOSSES.items()
    },
}
for rule in ACTIVATIONS.values():
    kept = {"output": "y", "input": "z"}[rule.needs]
    ARGUMENTS[rule.name] = {"z": (M, K)}
    ARGUMENTS[f"{rule.name}_backward"] = {"dy": (M, K), kept: (M, K)}

OUTPUTS: dict[str, dict[str, tuple[int, ...]]] = {name: {"out": (M, K)} for name in ARGUMENTS}
OUTPUTS["matmul"] = OUTPUTS["linear"] = {"out": (M, N)}
OUTPUTS["matmul_backward"] = {"out[0] (da)": (M, K), "out[1] (db)": (K, N)}
OUTPUTS["linear_backward"] = {"out[0] (dx)": (M, K), "out[1] (dw)": (K, N), "out[2] (db)": (N,)}

PRODUCTS = ("matmul", "matmul_backward", "linear", "linear_backward")
IN_PLACE = [name for name in ARGUMENTS if name not in PRODUCTS and name not in LOSSES]
EVERY_ARGUMENT = [(kernel, name) for kernel, arguments in ARGUMENTS.items() for name in arguments]
EVERY_OUTPUT = [(kernel, name) for kernel, outputs in OUTPUTS.items() for name in outputs]

# One kernel of each family, whose arguments meet every way of being wrong.
FAMILIES = ("linear_backward", "softmax", "sigmoid", "gelu_backward", "softmax_nll", "mse")
BY_ARGUMENT = [(kernel, name) for kernel, name in EVERY_ARGUMENT if helpers.DENSE or kernel in FAMILIES]
BY_OUTPUT = [(kernel, name) for kernel, name in EVERY_OUTPUT if helpers.DENSE or kernel in FAMILIES]


def in_families(kernel: str | tuple[str, str], *_: Any) -> bool:
    return (kernel if isinstance(kernel, str) else kernel[0]) in FAMILIES


def test_every_kernel_is_in_the_tables() -> None:
    kernels = {*functional.made.__all__, *functional.products.__all__}  # those of units: test_functional_units.py
    assert set(ARGUMENTS) == set(OUTPUTS) == kernels


def well_formed(kernel: str, dtype: Any = np.float32) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made = {name: rng.random(shape).astype(dtype) for name, shape in ARGUMENTS[kernel].items()}
    if kernel in LOSSES:
        made["t"] = target_rows(LOSSES[kernel].targets, (M, K), rng).astype(dtype)
    return made


def outputs_of(kernel: str, dtype: Any = np.float32) -> dict[str, Any]:
    return {name: np.full(shape, 7.0, dtype) for name, shape in OUTPUTS[kernel].items()}


def call(kernel: str, arguments: dict[str, Any], outputs: dict[str, Any] | None = None, **options: Any) -> Any:
    if outputs is None:
        outputs = outputs_of(kernel)
    given = tuple(outputs.values())
    return getattr(functional, kernel)(**arguments, out=given[0] if "out" in outputs else given, **options)


def refused(
    error: type[Exception],
    fragments: list[str],
    kernel: str,
    arguments: dict[str, Any],
    outputs: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Check that the call raises exactly this, says all of it, and changes nothing that it was given."""
    if outputs is None:
        outputs = outputs_of(kernel)
    with unchanged(*arguments.values(), *outputs.values(), *options.values()):
        with pytest.raises(error) as caught:
            call(kernel, arguments, outputs, **options)
    assert caught.type is error
    for fragment in fragments:
        assert fragment in str(caught.value)


@grid("kernel dtype", ARGUMENTS, DTYPES, always=in_families)
def test_valid_calls_pass(kernel: str, dtype: Any) -> None:
    call(kernel, well_formed(kernel, dtype), outputs_of(kernel, dtype))


# ---- dtypes and kinds ------------------------------------------------------------------------------------------------


# Each with the dtype of the cure where any float is right.
WRONG_DTYPES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "int64": (lambda x: x.astype(np.int64), "float64"),
    "bool": (lambda x: x > 0.5, "float64"),
    "float16": (lambda x: x.astype(np.float16), "float32"),
    "object": (lambda x: x.astype(object), "float64"),
    "complex64": (lambda x: x.astype(np.complex64), "float32"),
    "longdouble": (lambda x: x.astype(np.longdouble), "float64"),
    "<U32": (lambda x: x.astype("<U32"), "float64"),
    "datetime64[s]": (lambda x: np.zeros(x.shape, "datetime64[s]"), "float64"),
}


@grid("kernel,name dtype", EVERY_ARGUMENT, WRONG_DTYPES, always=in_families)
def test_wrong_dtypes_raise(kernel: str, name: str, dtype: str) -> None:
    """Integers and bools where no other argument has floats; all else anywhere."""
    change, target = WRONG_DTYPES[dtype]
    arguments = well_formed(kernel)
    wrong = arguments[name] = change(arguments[name])
    if wrong.dtype.kind in "ib":
        if len(arguments) > 1:
            call(kernel, arguments)
        wrong = arguments[name] = change(well_formed(kernel)[name])
        arguments = {other: wrong if other == name else change(x) for other, x in arguments.items()}
        if name != next(iter(arguments)):
            return  # the message is about the first
    expected = "expected float32 or float64"
    if kernel in LOSSES and name == "t":
        expected, target = "is float32", "float32"
    remedy = f"pass {name}{'.real' * (wrong.dtype.kind == 'c')}.astype(np.{target})"
    refused(TypeError, [f"{name} has dtype {wrong.dtype}", expected, remedy], kernel, arguments)


@pytest.mark.parametrize(("kernel", "name"), BY_ARGUMENT)
def test_out_of_less_than_the_promoted_dtype_raises(kernel: str, name: str) -> None:
    arguments = well_formed(kernel)
    arguments[name] = arguments[name].astype(np.float64)
    fragments = [f"{next(iter(OUTPUTS[kernel]))} has dtype float32, expected float64: pass np.empty("]
    refused(TypeError, fragments, kernel, arguments)
    call(kernel, arguments, outputs_of(kernel, np.float64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kernel", "name"), BY_ARGUMENT)
def test_byte_swapped_arrays_raise(kernel: str, name: str, dtype: Any) -> None:
    arguments = well_formed(kernel, dtype)
    swapped = arguments[name] = arguments[name].astype(np.dtype(dtype).newbyteorder())
    fragments = [f"{name} has dtype {swapped.dtype}", f'pass {name}.astype({name}.dtype.newbyteorder("="))']
    refused(TypeError, fragments, kernel, arguments, outputs_of(kernel, dtype))
    native = swapped.astype(swapped.dtype.newbyteorder("="))
    call(kernel, {**arguments, name: native}, outputs_of(kernel, dtype))


@pytest.mark.parametrize("wrong", [None, "text", b"bytes", {}, object(), [[1.0], [1.0, 2.0]]])
@pytest.mark.parametrize(("kernel", "name"), BY_ARGUMENT)
def test_what_numpy_makes_no_array_of_raises(kernel: str, name: str, wrong: Any) -> None:
    if (kernel, name, wrong) == ("linear", "b", None):
        return  # no bias
    arguments = {**well_formed(kernel), name: wrong}
    came = "None" if wrong is None else type(wrong).__name__
    refused(TypeError, [f"{name} must be a numpy array, got {came}"], kernel, arguments)


@pytest.mark.parametrize(("kernel", "name"), BY_ARGUMENT)
def test_masked_arrays_raise(kernel: str, name: str) -> None:
    arguments = well_formed(kernel)
    arguments[name] = np.ma.masked_array(arguments[name], mask=False)
    fragments = [f"{name} is a masked array", f"pass {name}.filled(0)"]
    refused(TypeError, fragments, kernel, arguments)


# ---- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "name", "wrong", "fragment"),
    [
        ("linear", "x", (), "x has shape (), expected at least 1 dimension"),
        ("linear", "w", (), "w has shape (), expected 2 dimensions (n_in, n_out)"),
        ("linear", "w", (K,), "w has shape (3,), expected 2 dimensions (n_in, n_out): pass w[:, None] for one output"),
        ("linear", "w", (M, K, N), "w has shape (4, 3, 5), expected 2 dimensions"),
        ("linear", "b", (), "b has shape (), expected (5,), (1, 5) or (5, 1)"),
        ("linear", "b", (1, 1, N), "b has shape (1, 1, 5), expected (5,), (1, 5) or (5, 1)"),
        ("linear_backward", "dy", (N,), "dy has shape (5,), expected (4, 5)"),
        ("linear_backward", "x", (), "x has shape (), expected at least 1 dimension"),
        ("linear_backward", "w", (K,), "pass w[:, None] for one output"),
        ("matmul", "a", (), "a has shape (), expected at least 1 dimension"),
        ("matmul", "b", (), "b has shape (), expected 1 or 2 dimensions"),
        ("matmul", "b", (M, K, N), "b has shape (4, 3, 5), expected 1 or 2 dimensions: use np.matmul"),
        ("matmul_backward", "dc", (M, 1, N), "dc has shape (4, 1, 5), expected (4, 5)"),
        *((name, next(iter(ARGUMENTS[name])), (), "expected at least 2 dimensions (rows, columns)") for name in LOSSES),
        *((name, next(iter(ARGUMENTS[name])), (K,), "[None] for one row") for name in LOSSES),
        *(
            (name, next(iter(ARGUMENTS[name])), (1, M, K), "t has shape (4, 3), expected (1, 4) first")
            for name in LOSSES
        ),
    ],
)
def test_wrong_ranks_raise(kernel: str, name: str, wrong: tuple[int, ...], fragment: str) -> None:
    arguments = {**well_formed(kernel), name: np.ones(wrong, np.float32)}
    refused(ValueError, [fragment], kernel, arguments)


@pytest.mark.parametrize(("kernel", "name"), EVERY_ARGUMENT)
def test_wrong_sizes_raise(kernel: str, name: str) -> None:
    """One row or column more does not fit where another argument has the same size, and else not to out."""
    shape = ARGUMENTS[kernel][name]
    sizes = [n for other in ARGUMENTS[kernel].values() for n in other]  # M, K and N differ
    for axis, n in enumerate(shape):
        arguments = well_formed(kernel)
        arguments[name] = np.ones([m + (i == axis) for i, m in enumerate(shape)], np.float32)
        refused(ValueError, ["has shape", "expected", str(n + 1)], kernel, arguments)
        without_out = dict.fromkeys(OUTPUTS[kernel])
        if sizes.count(n) == 1:
            call(kernel, arguments, without_out)
        else:
            refused(ValueError, ["has shape", "expected", str(n + 1)], kernel, arguments, without_out)


def test_messages_about_sizes_name_both_arguments() -> None:
    def message(kernel: str, **wrong: np.ndarray) -> str:
        with pytest.raises(ValueError) as caught:
            getattr(functional, kernel)(**{**well_formed(kernel), **wrong})
        return str(caught.value)

    w = np.ones((K + 1, N), np.float32)
    assert message("linear", w=w) == "w has shape (4, 5), expected (3, n): x has shape (4, 3)"
    b = np.ones((1, N + 1), np.float32)
    expected = "b has shape (1, 6), expected (5,), (1, 5) or (5, 1): one value for each column of w"
    assert message("linear", b=b) == expected
    dy = np.ones((M, N + 1), np.float32)
    assert message("linear_backward", dy=dy) == "dy has shape (4, 6), expected (4, 5): the shape of x @ w"
    y = np.ones((M, 1), np.float32)
    assert message("sigmoid_backward", y=y) == "dy has shape (4, 3), expected (4, 1): the shape of y"


@pytest.mark.parametrize("kernel", ["softmax", "log_softmax", "softmax_backward", "log_softmax_backward"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_softmax_of_no_columns_raises(kernel: str, shape: tuple[int, ...]) -> None:
    arguments = {name: np.ones(shape) for name in ARGUMENTS[kernel]}
    fragments = [f"has shape {shape}, expected at least one column on the last axis"]
    refused(ValueError, fragments, kernel, arguments, {"out": np.ones(shape)})


def test_softmax_nll_of_no_columns_raises() -> None:
    arguments = {"z": np.ones((2, 0), np.float32), "t": np.zeros(2, np.int64)}
    fragments = ["z has shape (2, 0), expected at least one column"]
    refused(ValueError, fragments, "softmax_nll", arguments, {"out": np.ones((2, 0), np.float32)})


# ---- out -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "name"), EVERY_OUTPUT)
def test_out_of_the_wrong_shape_raises(kernel: str, name: str) -> None:
    shape = OUTPUTS[kernel][name]
    for wrong in ((), shape[:-1], (*shape, 1), (1, *shape), tuple(n + 1 for n in shape), (1,) * len(shape)):
        outputs = {**outputs_of(kernel), name: np.full(wrong, 7.0, np.float32)}
        fragments = [f"{name} has shape {wrong}, expected {shape}"]
        refused(ValueError, fragments, kernel, well_formed(kernel), outputs)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "complex64", "object", ">f4"])
@pytest.mark.parametrize(("kernel", "name"), BY_OUTPUT)
def test_out_of_the_wrong_dtype_raises(kernel: str, name: str, dtype: str) -> None:
    shape = OUTPUTS[kernel][name]
    outputs = {**outputs_of(kernel), name: np.ones(shape, dtype)}
    fragments = [f"{name} has dtype {dtype}, expected float32", f"pass np.empty({shape}, np.float32)"]
    refused(TypeError, fragments, kernel, well_formed(kernel), outputs)


@pytest.mark.parametrize(("kernel", "name"), BY_OUTPUT)
def test_read_only_out_raises(kernel: str, name: str) -> None:
    outputs = outputs_of(kernel)
    outputs[name].flags.writeable = False
    refused(ValueError, [f"{name} is read-only"], kernel, well_formed(kernel), outputs)


@pytest.mark.parametrize(("kernel", "name"), BY_OUTPUT)
def test_out_that_is_not_an_array_raises(kernel: str, name: str) -> None:
    for wrong in ([[0.0]], 1.0, "out"):
        fragments = [f"{name} must be a numpy array to write into, got {type(wrong).__name__}"]
        refused(TypeError, fragments, kernel, well_formed(kernel), {**outputs_of(kernel), name: wrong})
    masked = np.ma.masked_array(outputs_of(kernel)[name])
    refused(TypeError, [f"{name} is a masked array"], kernel, well_formed(kernel), {**outputs_of(kernel), name: masked})


@pytest.mark.parametrize(("kernel", "name"), BY_OUTPUT)
def test_out_that_overlaps_itself_raises(kernel: str, name: str) -> None:
    shape = OUTPUTS[kernel][name]
    buffer = np.full(64, 7.0, np.float32)
    step = buffer.itemsize
    # all elements at one address; each row begins at the second element of the one before
    for strides in ((0,) * len(shape), (step,) * len(shape) if len(shape) > 1 else (0,)):
        wrong = np.lib.stride_tricks.as_strided(buffer, shape, strides)
        fragments = [f"{name} has strides {strides}", "share one address"]
        refused(ValueError, fragments, kernel, well_formed(kernel), {**outputs_of(kernel), name: wrong})


def overlapping(x: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return a copy of x and an array of this shape that share one element."""
    size = int(np.prod(shape))
    buffer = np.zeros(x.size + size - 1, x.dtype)
    copy = buffer[: x.size].reshape(x.shape)
    copy[...] = x
    return copy, buffer[x.size - 1 :].reshape(shape)


@pytest.mark.parametrize(("kernel", "name"), EVERY_OUTPUT)
def test_out_that_overlaps_an_input_raises(kernel: str, name: str) -> None:
    for argument in ARGUMENTS[kernel]:
        arguments, outputs = well_formed(kernel), outputs_of(kernel)
        arguments[argument], outputs[name] = overlapping(arguments[argument], OUTPUTS[kernel][name])
        refused(ValueError, [f"{name} shares memory with {argument}"], kernel, arguments, outputs)


@pytest.mark.parametrize("kernel", [*PRODUCTS, *LOSSES])
def test_out_that_is_an_input_of_a_product_or_a_loss(kernel: str) -> None:
    size = 3
    arguments = {name: np.ones((size,) * len(s), np.float32) for name, s in ARGUMENTS[kernel].items()}
    names = list(OUTPUTS[kernel])
    for argument, (i, name) in itertools.product(arguments, enumerate(names)):
        outputs: dict[str, Any] = {n: np.full((size,) * len(OUTPUTS[kernel][n]), 7.0, np.float32) for n in names}
        if outputs[names[i]].ndim != arguments[argument].ndim:
            continue
        outputs[name] = arguments[argument]
        refused(ValueError, [f"{name} shares memory with {argument}"], kernel, arguments, outputs)


@pytest.mark.parametrize("kernel", [kernel for kernel in IN_PLACE if helpers.DENSE or kernel in FAMILIES])
def test_out_shifted_against_an_input_raises(kernel: str) -> None:
    for argument in ARGUMENTS[kernel]:
        arguments = well_formed(kernel)
        square = np.random.default_rng(0).random((M, M)).astype(np.float32)
        arguments = {name: square.copy() for name in arguments}
        for wrong in (arguments[argument].T, arguments[argument][::-1], arguments[argument][:, ::-1]):
            fragments = [f"out shares memory with {argument} without being the same array"]
            refused(ValueError, fragments, kernel, arguments, {"out": wrong})


def test_overlapping_outputs_raise() -> None:
    for kernel in ("linear_backward", "matmul_backward"):
        names = list(OUTPUTS[kernel])
        for first, second in itertools.combinations(names, 2):
            outputs = outputs_of(kernel)
            outputs[first], outputs[second] = overlapping(outputs[first], OUTPUTS[kernel][second])
            refused(ValueError, [f"{second} shares memory with {first}"], kernel, well_formed(kernel), outputs)


@pytest.mark.parametrize("kernel", ["linear_backward", "matmul_backward"])
def test_out_that_is_not_a_tuple_of_the_right_length_raises(kernel: str) -> None:
    function, arguments, outputs = getattr(functional, kernel), well_formed(kernel), list(outputs_of(kernel).values())
    with unchanged(*outputs):
        for wrong in (outputs, outputs[0], {}):
            with pytest.raises(TypeError, match=f"out must be a tuple \\(.*\\), got {type(wrong).__name__}"):
                function(**arguments, out=wrong)
        for short in ((), tuple(outputs[:-1]), (*outputs, None)):
            with pytest.raises(ValueError, match=f"out must be a tuple \\(.*\\), got {len(short)} entries"):
                function(**arguments, out=short)


def test_out_for_dx_without_need_dx_raises() -> None:
    fragments = ["out[0] (dx) is given, expected None with need_dx=False"]
    refused(ValueError, fragments, "linear_backward", well_formed("linear_backward"), need_dx=False)


def test_overlap_is_exact_where_that_is_cheap() -> None:
    """Interleaved columns share a range of addresses, and no element."""
    buffer = np.zeros((4, 6), np.float32)
    functional.sigmoid(buffer[:, ::2], out=buffer[:, 1::2])
    assert (buffer[:, 1::2] == 0.5).all() and not buffer[:, ::2].any()


def test_overlap_that_is_hard_to_tell_counts_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_hard(*args: Any, **kwargs: Any) -> bool:
        raise np.exceptions.TooHardError

    monkeypatch.setattr(np, "shares_memory", too_hard)
    buffer = np.zeros((4, 6), np.float32)
    with pytest.raises(ValueError, match="out shares memory with z"):
        functional.sigmoid(buffer[:, ::2], out=buffer[:, 1::2])


# ---- targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [K, -1, 1000, 2**31, -(2**40)])
def test_labels_out_of_range_raise(label: int) -> None:
    t = np.array([0, 1, label, 2])
    fragments = [f"t[2] is {label}, expected a label from 0 to {K - 1}"]
    refused(ValueError, fragments, "softmax_nll", {**well_formed("softmax_nll"), "t": t})


@pytest.mark.parametrize(
    ("t", "columns", "error", "cure"),
    [
        ([1, 2, 3, 3], 3, ValueError, "(3 classes): labels count from 0, pass np.asarray(t) - 1"),
        ([0, 1, 1, 0], 1, ValueError, '(1 classes): a softmax of one output is always 1; for values take loss="mse"'),
        (
            [0.5, 1, 2, 3],
            1,
            TypeError,
            'integer labels: a softmax of one output is always 1; for values take loss="mse"',
        ),
        ([0.5, 1, 2, 3], 3, TypeError, 'integer labels: for values take a loss of values, such as "mse"'),
    ],
)
def test_labels_that_are_counted_from_1_or_are_none_get_advice(t: Any, columns: int, error: Any, cure: str) -> None:
    net = fastbp.MLP([2, columns], seed=0)
    with pytest.raises(error, match=re.escape(cure)):
        fastbp.train(net, np.ones((4, 2), np.float32), t, optimizer=fastbp.Adam())


@pytest.mark.parametrize(
    ("t", "outputs", "loss", "cure"),
    [
        (np.array([0, 1, 2, 1]), 3, "mse", ': for labels take loss="softmax_nll"'),
        (np.ones(4, np.float32), 2, "gaussian_nll", "the loss is fastbp.GaussianNLL(predict_variance=True)"),
        (np.ones((4, 2), np.float32), 4, "gaussian_nll", "the loss is fastbp.GaussianNLL(predict_variance=True)"),
    ],
)
def test_values_for_another_loss_get_advice(t: Any, outputs: int, loss: str, cure: str) -> None:
    net = fastbp.MLP([2, outputs], loss=loss, seed=0)
    with pytest.raises(ValueError, match=re.escape(cure)):
        fastbp.train(net, np.ones((4, 2), np.float32), t, optimizer=fastbp.Adam())


@pytest.mark.parametrize(
    ("dtype", "label"), [(np.uint64, 2**64 - 1), (np.uint64, 2**63), (np.int8, -128), (np.uint8, 255)]
)
def test_labels_at_the_ends_of_their_dtype_raise(dtype: Any, label: int) -> None:
    t = np.array([0, 0, 0, label], dtype)
    fragments = [f"t[3] is {label}, expected a label from 0 to 2"]
    refused(ValueError, fragments, "softmax_nll", {**well_formed("softmax_nll"), "t": t})


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool", "object", "complex128", "<U1"])
def test_labels_of_the_wrong_dtype_raise(dtype: str) -> None:
    t = np.zeros(M, dtype)
    cure = {"<U1": ": write classes, t = np.unique(t, return_inverse=True)", "complex128": ""}
    fragments = [f"t has dtype {dtype}, expected integer labels" + cure.get(dtype, ": pass t.astype(np.int64)")]
    refused(TypeError, fragments, "softmax_nll", {**well_formed("softmax_nll"), "t": t})


@pytest.mark.parametrize(
    ("shape", "fragments"),
    [
        ((M + 1,), ["t has shape (5,), expected (4,): one label for each row"]),
        ((0,), ["t has shape (0,), expected (4,)"]),
        ((M, K + 1), ["t has shape (4, 4), expected labels of shape (4,) or rows of shape (4, 3)"]),
        ((M + 1, K), ["t has shape (5, 3)"]),
        ((1, K), ["t has shape (1, 3)"]),
        ((M, 1), ["t has shape (4, 1)", "pass t.ravel() if these are labels"]),
        ((), ["t has shape (), expected labels of shape (4,)"]),
        ((M, K, 1), ["t has shape (4, 3, 1)"]),
    ],
)
def test_class_targets_of_the_wrong_shape_raise(shape: tuple[int, ...], fragments: list[str]) -> None:
    arguments = {**well_formed("softmax_nll"), "t": np.zeros(shape, np.int64)}
    refused(ValueError, fragments, "softmax_nll", arguments)


@grid(
    "kernel shape",
    [name for name, rule in LOSSES.items() if rule.targets not in ("labels", "signs")],
    [(M,), (1, K), (M, 1), (K,), (M, K, 1), (), (M + 1, K)],
    always=in_families,
)
def test_targets_are_never_broadcast(kernel: str, shape: tuple[int, ...]) -> None:
    arguments = {**well_formed(kernel), "t": np.zeros(shape, np.float32)}
    refused(ValueError, [f"t has shape {shape}, expected (4, 3)"], kernel, arguments)


@pytest.mark.parametrize("kernel", [name for name, rule in LOSSES.items() if rule.targets != "labels"])
def test_targets_on_one_axis_need_their_length(kernel: str) -> None:
    first = next(iter(ARGUMENTS[kernel]))
    for shape in ((M + 1,), (1,), (1, M), (M, 2)):
        arguments = {first: np.ones((M, 1), np.float32), "t": np.zeros(shape, np.float32)}
        fragments = [f"t has shape {shape}, expected (4, 1) or (4,)"]
        refused(ValueError, fragments, kernel, arguments, {"out": np.ones((M, 1), np.float32)})


@pytest.mark.parametrize("value", [-0.001, 1.001, np.nan, np.inf, -np.inf, 2])
def test_probabilities_outside_of_0_and_1_raise(value: float) -> None:
    for dtype in (np.float32, np.int64) if value == 2 else (np.float32,):
        arguments = well_formed("sigmoid_nll")
        arguments["t"] = np.zeros((M, K), dtype)
        arguments["t"][1, 2] = value
        shown = np.float32(value)
        fragments = [f"t[1, 2] is {shown}, expected a value in [0, 1]"]
        refused(ValueError, fragments, "sigmoid_nll", arguments)


def test_ragged_labels_raise() -> None:
    fragments = ["t must be a numpy array, got list"]
    refused(TypeError, fragments, "softmax_nll", {**well_formed("softmax_nll"), "t": [[1], [1, 2], [], [0]]})


# ---- weights and reductions ------------------------------------------------------------------------------------------


@grid("kernel value", LOSSES, [-1.0, np.nan, np.inf, -np.inf, -1e-45], always=in_families)
def test_negative_or_nonfinite_weights_raise(kernel: str, value: float) -> None:
    weight = np.ones(M, np.float32)
    weight[2] = value
    fragments = [f"sample_weight[2] is {weight[2]}, expected a finite weight of at least 0"]
    for given in (weight, weight.tolist()):
        refused(ValueError, fragments, kernel, well_formed(kernel), sample_weight=given)


@grid("kernel shape", LOSSES, [(), (M + 1,), (1,), (0,), (M, 1), (1, M)], always=in_families)
def test_weights_of_the_wrong_shape_raise(kernel: str, shape: tuple[int, ...]) -> None:
    fragments = [f"sample_weight has shape {shape}, expected (4,): one weight for each row"]
    refused(ValueError, fragments, kernel, well_formed(kernel), sample_weight=np.ones(shape, np.float32))


@pytest.mark.parametrize("kernel", LOSSES)
def test_weights_of_the_wrong_dtype_raise(kernel: str) -> None:
    for dtype in ("float16", "complex64", "object", ">f4"):
        wrong = np.ones(M, dtype)
        fragments = [f"sample_weight has dtype {dtype}", "float32", "pass sample_weight.astype("]
        if dtype == "complex64":
            fragments[-1] = "pass sample_weight.real"
        refused(TypeError, fragments, kernel, well_formed(kernel), sample_weight=wrong)
    for wrong in ("heavy", ["a"] * M, [[1], [1, 2]], {"a": 1}, [None] * M, [1j] * M):
        fragments = ["sample_weight must be "]
        refused(TypeError, fragments, kernel, well_formed(kernel), sample_weight=wrong)
    fragments = ["sample_weight is a masked array"]
    refused(TypeError, fragments, kernel, well_formed(kernel), sample_weight=np.ma.ones(M, np.float32))


@pytest.mark.parametrize("kernel", LOSSES)
def test_a_list_of_weights_beyond_float32_raises(kernel: str) -> None:
    fragments = ["sample_weight[0] is inf, expected a finite weight"]
    refused(ValueError, fragments, kernel, well_formed(kernel), sample_weight=[1e300, 1.0, 1.0, 1.0])


@pytest.mark.parametrize("kernel", LOSSES)
def test_means_over_no_rows_raise(kernel: str) -> None:
    fragments = ["sample_weight sums to 0.0, so that the mean is not defined"]
    refused(ValueError, fragments, kernel, well_formed(kernel), sample_weight=np.zeros(M, np.float32))
    call(kernel, well_formed(kernel), sample_weight=np.zeros(M, np.float32), reduction="sum")
    empty = {name: x[:0] for name, x in well_formed(kernel).items()}
    for weight in (None, np.ones(0, np.float32)):
        with pytest.raises(ValueError, match="the mean"):
            getattr(functional, kernel)(**empty, sample_weight=weight)


@grid(
    "kernel reduction,error",
    LOSSES,
    [("average", ValueError), ("", ValueError), (None, TypeError), (0, TypeError)],
    always=in_families,
)
def test_unknown_reductions_raise(kernel: str, reduction: Any, error: type[Exception]) -> None:
    fragments = [f"unknown reduction {reduction!r}: known are 'mean', 'sum', 'none'"]
    refused(error, fragments, kernel, well_formed(kernel), reduction=reduction)


@pytest.mark.parametrize("kernel", LOSSES)
def test_names_are_checked_before_dtypes_and_sizes(kernel: str) -> None:
    arguments = {**well_formed(kernel), "t": np.ones((99, 99), np.complex64)}
    with pytest.raises(ValueError, match="unknown reduction 'average'"):
        getattr(functional, kernel)(**arguments, reduction="average")


def test_unknown_options_and_positional_options_are_refused() -> None:
    z, t = np.ones((2, 2)), np.zeros(2, np.int64)
    with pytest.raises(TypeError, match="weights"):
        functional.softmax_nll(z, t, weights=None)
    with pytest.raises(TypeError, match="positional"):
        functional.softmax_nll(z, t, None)
    with pytest.raises(TypeError, match="positional"):
        functional.sigmoid(z, z)


# ---- options of activations ------------------------------------------------------------------------------------------

OPTIONS = [(rule, name) for rule in ACTIVATIONS.values() for name in rule.options]
BY_OPTION = pytest.mark.parametrize(("rule", "name"), OPTIONS, ids=[f"{rule.name} {name}" for rule, name in OPTIONS])


@BY_OPTION
def test_options_out_of_range_raise(rule: Activation, name: str) -> None:
    option = rule.options[name]
    low, high = np.nextafter(option.at_least, -np.inf), 10 * option.at_most
    bounds = f"{name} must be finite and at least {option.at_least:g} and at most {option.at_most:g}, got "
    for value in (low, high, np.inf, np.nan, np.float32(-1)):
        for kernel in (rule.name, f"{rule.name}_backward"):
            refused(ValueError, [bounds, repr(value)], kernel, well_formed(kernel), **{name: value})
        with pytest.raises(ValueError, match=re.escape(bounds)):
            getattr(fastbp, rule.unit)(**{name: value})


@grid("rule,name value", OPTIONS, ["0.5", True, None, [1.0, 2.0], 1j], always=lambda option, _: option == OPTIONS[0])
def test_options_that_are_not_numbers_raise(rule: Activation, name: str, value: Any) -> None:
    fragments = [f"{name} must be a number, got {value!r} ({type(value).__name__})"]
    for kernel in (rule.name, f"{rule.name}_backward"):
        arguments, out = well_formed(kernel), np.full((M, K), 7.0, np.float32)
        with unchanged(out, *arguments.values()), pytest.raises(TypeError, match=re.escape(fragments[0])):
            getattr(functional, kernel)(**arguments, out=out, **{name: value})
    with pytest.raises(TypeError, match=re.escape(fragments[0])):
        getattr(fastbp, rule.unit)(**{name: value})


@pytest.mark.parametrize("rule", ACTIVATIONS.values(), ids=lambda r: r.name)
def test_unknown_options_list_the_known_ones(rule: Activation) -> None:
    known = f"its options are {', '.join(rule.options)}" if rule.options else "it has no options"
    with pytest.raises(TypeError, match=f"{rule.unit} got an unexpected keyword 'gain': {known}"):
        getattr(fastbp, rule.unit)(gain=1.0)
    for kernel in (rule.name, f"{rule.name}_backward"):
        with pytest.raises(TypeError, match=rf"{kernel}.* got an unexpected keyword.*'gain'"):
            getattr(functional, kernel)(**well_formed(kernel), gain=1.0)


@BY_OPTION
def test_options_are_checked_before_arrays(rule: Activation, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        getattr(functional, rule.name)("no array", **{name: -1.0})


# ---- the checks of single values -------------------------------------------------------------------------------------


def test_check_choice_lists_the_known_names() -> None:
    assert check.choice("loss", "mse", LOSSES) == "mse"
    with pytest.raises(ValueError, match=r"unknown loss 'mce': known are 'softmax_nll', 'sigmoid_nll', 'mse', "):
        check.choice("loss", "mce", LOSSES)
    with pytest.raises(TypeError, match=r"unknown loss 3: known are"):
        check.choice("loss", 3, LOSSES)
    with pytest.raises(TypeError, match=r"unknown loss \[\]: known are"):
        check.choice("loss", [], LOSSES)


def test_check_integer_refuses_other_types_and_ranges() -> None:
    assert check.integer("n", 3) == 3
    assert check.integer("n", np.uint8(3)) == 3 and type(check.integer("n", np.uint8(3))) is int
    assert check.integer("n", 0, 0) == 0
    for wrong, error, message in (
        (0, ValueError, "n must be at least 1, got 0"),
        (9, ValueError, "n must be at most 8, got 9"),
        (2.0, TypeError, "n must be an integer, got 2.0 (float)"),
        (True, TypeError, "n must be an integer, got True"),
        (np.True_, TypeError, "n must be an integer, got np.True_"),
        ("2", TypeError, "n must be an integer, got '2' (str)"),
        (None, TypeError, "n must be an integer, got None (NoneType)"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            check.integer("n", wrong, 1, 8)


def test_check_real_refuses_other_types_and_ranges() -> None:
    assert check.real("lr", 1) == 1.0
    assert check.real("lr", np.float32(0.5), above=0) == 0.5
    for wrong, error, message in (
        (0, ValueError, "lr must be finite and above 0 and below 1, got 0"),
        (1.0, ValueError, "lr must be finite and above 0 and below 1, got 1.0"),
        (float("nan"), ValueError, "got nan"),
        (float("inf"), ValueError, "got inf"),
        ("0.5", TypeError, "lr must be a number, got '0.5' (str)"),
        (True, TypeError, "lr must be a number, got True (bool)"),
        (None, TypeError, "lr must be a number, got None (NoneType)"),
        (1j, TypeError, "lr must be a number, got 1j (complex)"),
        (10**400, TypeError, "lr must be a number"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            check.real("lr", wrong, above=0, below=1)
    assert check.real("p", 0, at_least=0, at_most=1) == 0.0
    with pytest.raises(ValueError, match=r"p must be finite and at least 0 and at most 1, got 1\.5"):
        check.real("p", 1.5, at_least=0, at_most=1)


def test_dtype_errors_of_a_network_name_the_fix() -> None:
    for came, more in ((float, ', or make the network with dtype="float64"'), (int, "")):
        with pytest.raises(TypeError) as caught:
            check.matrix("x", np.ones((2, 2), came), np.dtype(np.float32), check.NETWORK)
        message = f"x has dtype {np.dtype(came)} but the network is float32: pass x.astype(net.dtype)"
        assert str(caught.value) == message + more
