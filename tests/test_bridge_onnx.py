"""Networks as ONNX graphs and back, against ONNX Runtime; graphs that other programs write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, seeded, some_options

import fastbp
from fastbp import units
from fastbp.io import _onnx_reading, _onnx_writing
from fastbp.reference import ACTIVATIONS, Activation

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT

pytestmark = [pytest.mark.bridge, pytest.mark.filterwarnings("ignore::DeprecationWarning:onnx")]

L = fastbp.Linear


def computed(model: Any, x: Any, output: str | None = None) -> Any:
    """What ONNX Runtime computes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None if output is None else [output], {session.get_inputs()[0].name: x})[0]


def written(net: Any, path: Path, **options: Any) -> Any:
    net.to_onnx(path, **options)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return model


def assert_near(got: Any, want: Any, dtype: Any = np.float32) -> None:
    """The sums have another order: 1e-5 is what is promised in single precision."""
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


# ---- out and back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ACTIVATIONS.values(), ids=lambda rule: rule.name)
def test_every_activation(rule: Activation, dtype: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    for options in some_options(rule):
        net = fastbp.Network(
            L(4, 9), getattr(fastbp, rule.unit)(**options), L(9, 3), loss="softmax_nll", dtype=dtype, seed=0
        )
        x = (3 * rng.normal(size=(20, 4))).astype(dtype)
        model = written(net, tmp_path / "net.onnx")
        got = computed(model, x)
        single = dtype == np.float32 or rule.name == "gelu"  # whose erf is float32's
        np.testing.assert_allclose(got, net.predict_proba(x), atol=1e-6 if single else 1e-13)
        back = fastbp.from_onnx(tmp_path / "net.onnx")
        assert back.dtype == net.dtype
        assert_near(back.predict_proba(x), net.predict_proba(x), dtype)
        kinds = [type(unit) for unit in back.units]
        same = {fastbp.CELU: (fastbp.CELU, fastbp.ELU), fastbp.Identity: (L,)}.get(type(net.units[1]))
        assert kinds[1] in (same or (type(net.units[1]),))


CHAINS: dict[str, tuple[tuple[int, ...] | None, Any]] = {
    "linear": (None, lambda: [L(4, 3)]),
    "norms": (None, lambda: [L(4, 6), fastbp.BatchNorm(6, eps=1e-3), fastbp.ReLU(), L(6, 3), fastbp.LayerNorm(3)]),
    "plain norm": (None, lambda: [L(4, 6), fastbp.LayerNorm(6, affine=False)]),
    "prelu": (None, lambda: [L(4, 6), fastbp.PReLU(6), L(6, 5), fastbp.PReLU(), fastbp.Dropout(0.5), L(5, 2)]),
    "softmax inside": (None, lambda: [L(4, 6), fastbp.Softmax(), L(6, 5), fastbp.LogSoftmax(), L(5, 2)]),
    "images": (
        (3, 13, 12),
        lambda: [
            fastbp.Conv2d(3, 6, (3, 5), stride=(2, 1), padding=[(0, 1), (2, 2)], bias=False),
            fastbp.BatchNorm2d(6),
            fastbp.Tanh(),
            fastbp.MaxPool2d(3, stride=2, padding=1),
            fastbp.Conv2d(6, 4, 2, groups=2, dilation=2),
            fastbp.LocalResponseNorm(3, alpha=0.3),
            fastbp.Dropout2d(),
            fastbp.Flatten(),
            L(4 * 1 * 4, 3),
        ],
    ),
    "means": (
        (2, 8, 8),
        lambda: [
            fastbp.Conv2d(2, 5, 3, padding="same"),
            fastbp.AvgPool2d(3, stride=2, padding=1),
            fastbp.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
            fastbp.GlobalAvgPool2d(),
            L(5, 2),
        ],
    ),
    "sequences": (
        (2, 16),
        lambda: [
            fastbp.Conv1d(2, 4, 3, padding="same"),
            fastbp.BatchNorm1d(4),
            fastbp.Dropout1d(),
            fastbp.AvgPool1d(2),
            fastbp.MaxPool1d(2),
            fastbp.Conv1d(4, 3, 1),
            fastbp.GlobalAvgPool1d(),
            L(3, 2),
        ],
    ),
    "an image out": ((1, 6, 6), lambda: [fastbp.Conv2d(1, 2, 3, padding=1)]),
}


def trained(chain: Any, shape: tuple[int, ...] | None, dtype: Any = "float32") -> tuple[Any, Any]:
    """A network whose norms have seen rows, and rows."""
    net = fastbp.Network(*chain, loss="mse", input_shape=shape, dtype=dtype, seed=0)
    x = seeded(1).normal(1, 2, (7, *(shape or (4,)))).astype(dtype)
    for _ in range(3):
        net.forward(x)
    net.flat_parameters[...] += 0.1 * seeded(2).normal(size=net.n_parameters)
    return net, x


@pytest.mark.parametrize("name", CHAINS)
def test_chains(name: str, tmp_path: Path) -> None:
    shape, chain = CHAINS[name]
    net, x = trained(chain(), shape)
    assert_near(computed(written(net, tmp_path / "net.onnx"), x), net.outputs(x))
    back = fastbp.from_onnx(tmp_path / "net.onnx")
    assert_near(back.outputs(x), net.outputs(x))
    assert back.input_shape == net.input_shape
    kept = [type(unit) for unit in net.units if "Dropout" not in repr(unit)]
    assert [type(unit) for unit in back.units] == kept
    loss, _ = back.value_and_grad(x, back.outputs(x) + 1)  # it can be trained
    assert np.isfinite(loss)


OTHER_UNITS = {
    "residual": (None, lambda: [fastbp.Residual(fastbp.Sequential(L(4, 8), fastbp.SiLU(), L(8, 4))), L(4, 2)]),
    "sum": (None, lambda: [fastbp.Branches([L(4, 3), fastbp.Sequential(L(4, 3), fastbp.Tanh()), L(4, 3)])]),
    "mean": (None, lambda: [fastbp.Branches([L(4, 3), L(4, 3)], merge="mean")]),
    "concat": (None, lambda: [fastbp.Branches([L(4, 3), fastbp.Identity()], merge="concat"), L(7, 2)]),
    "rms norm": (None, lambda: [L(4, 6), fastbp.RMSNorm(6, eps=1e-3), L(6, 2), fastbp.RMSNorm(2)]),
    "channels": ((2, 5, 5), lambda: [fastbp.Branches([fastbp.Conv2d(2, 3, 1), fastbp.MaxPool2d(1)], merge="concat")]),
}


@pytest.mark.parametrize("name", OTHER_UNITS)
def test_units_that_are_written_alone(name: str, tmp_path: Path) -> None:
    shape, chain = OTHER_UNITS[name]
    for dtype in ("float32", "float64") if shape is None else ("float32",):
        net, x = trained(chain(), shape, dtype)
        assert_near(computed(written(net, tmp_path / "net.onnx"), x), net.outputs(x), np.dtype(dtype))


@pytest.mark.parametrize("columns", [None, 2])
def test_embedding_is_written(columns: int | None, tmp_path: Path) -> None:
    width = 12 if columns is None else 7
    net = fastbp.Network(fastbp.Embedding(5, 3, columns=columns), L(width + 0, 2), loss="mse", seed=0)
    x = seeded(0).integers(0, 5, (6, 4 if columns is None else 3)).astype(np.float32)
    assert_near(computed(written(net, tmp_path / "net.onnx"), x), net.outputs(x))


def test_every_unit_is_written() -> None:
    known = {cls.__name__ for cls in _onnx_writing.WRITERS} | {rule.unit for rule in ACTIVATIONS.values()}
    assert known == set(units.__all__) - {"Unit"}


def test_models_are_written(tmp_path: Path) -> None:
    for net, shape in ((fastbp.models.lenet5(seed=0), (1, 28, 28)), (fastbp.models.resnet20(seed=0), (3, 32, 32))):
        x = seeded(0).normal(size=(2, *shape)).astype(np.float32)
        assert_near(computed(written(net, tmp_path / "net.onnx"), x), net.predict_proba(x))


# ---- the end of a graph ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "n", "has"),
    [("softmax_nll", 3, True), ("sigmoid_nll", 2, True), ("mse", 2, False), ("poisson_nll", 1, False)],
)
def test_what_the_graph_ends_with(loss: str, n: int, has: bool, tmp_path: Path) -> None:
    net, x, path = fastbp.MLP([4, 5, n], loss=loss, seed=0), np.ones((2, 4), np.float32), tmp_path / "net.onnx"
    model = written(net, path)
    assert model.graph.output[0].name == ("probabilities" if has else "y")
    assert_near(computed(model, x), net.predict_proba(x) if has else net.outputs(x))
    assert_near(computed(written(net, path, output="outputs"), x), net.outputs(x))
    assert fastbp.from_onnx(path).loss.rule.name == loss  # which the file notes
    if not has:
        with pytest.raises(ValueError, match="are no probabilities: leave output out"):
            net.to_onnx(path, output="probabilities")


def test_a_sum_of_losses_has_the_probabilities_of_its_first(tmp_path: Path) -> None:
    loss = fastbp.LossSum([(0.5, fastbp.SoftmaxNLL()), (0.5, fastbp.SoftmaxNLL(label_smoothing=0.1))])
    net, x = fastbp.MLP([4, 3], loss=loss, seed=0), np.ones((2, 4), np.float32)
    assert_near(computed(written(net, tmp_path / "net.onnx"), x), net.predict_proba(x))
    assert fastbp.from_onnx(tmp_path / "net.onnx").loss.rule.name == "softmax_nll"


def test_probabilities_of_images_are_a_row(tmp_path: Path) -> None:
    net = fastbp.Network(fastbp.Conv2d(1, 1, 3), loss="sigmoid_nll", input_shape=(1, 5, 5), seed=0)
    x = seeded(0).normal(size=(2, 1, 5, 5)).astype(np.float32)
    assert_near(computed(written(net, tmp_path / "net.onnx"), x), net.predict_proba(x))


def test_classes_come_back(tmp_path: Path) -> None:
    net, x = fastbp.MLP([4, 2], classes=["no", "yes"], seed=0), seeded(0).normal(size=(9, 4)).astype(np.float32)
    net.to_onnx(tmp_path / "net.onnx")
    back = fastbp.from_onnx(tmp_path / "net.onnx")
    assert back.predict(x).tolist() == net.predict(x).tolist()
    assert fastbp.from_onnx(tmp_path / "net.onnx", classes=[0.5, 1.5]).predict(x).dtype == np.float64


def test_adopted_arrays_are_written(tmp_path: Path) -> None:
    net, x = fastbp.MLP([4, 3], loss="mse", seed=0), np.ones((2, 4), np.float32)
    net.adopt([np.ones((3, 4), np.float32), np.zeros(3, np.float32)], layout="out,in", in_place=True)
    assert_near(computed(written(net, tmp_path / "net.onnx"), x), np.full((2, 3), 4, np.float32))


# ---- refused ---------------------------------------------------------------------------------------------------------


class Odd(fastbp.ReLU):  # type: ignore[misc]
    """An activation that no graph knows."""

    def forward(self, x: Any) -> Any:
        return super().forward(x) + 1


def test_what_cannot_be_written_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    net = fastbp.Network(L(4, 4), fastbp.Sequential(Odd(), L(4, 2)), loss="mse", seed=0)
    with pytest.raises(ValueError, match=r"unit 1\.0, ReLU\(\)|unit 1\.0, Odd\(\), cannot be written to ONNX"):
        net.to_onnx(path)
    even = fastbp.Network(fastbp.LocalResponseNorm(2), loss="mse", input_shape=(3, 2, 2))
    with pytest.raises(ValueError, match=r"unit 0, LocalResponseNorm\(2\), .* an even size"):
        even.to_onnx(path)
    with pytest.raises(ValueError, match="unknown output 'logits'"):
        fastbp.MLP([4, 2]).to_onnx(path, output="logits")
    monkeypatch.setattr(_onnx_writing, "MOST_BYTES", 8)
    with pytest.raises(ValueError, match="one ONNX file holds at most 2 GB"):
        fastbp.MLP([4, 2]).to_onnx(path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


def test_without_onnx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (lambda: fastbp.MLP([4, 2]).to_onnx(tmp_path / "net.onnx"), lambda: fastbp.from_onnx("net.onnx")):
        with pytest.raises(ImportError, match=r'pip install "fastbp\[onnx\]"'):
            call()


# ---- graphs of others ------------------------------------------------------------------------------------------------


class Made:
    """A graph in the making: nodes one after another, each reading the one before it."""

    def __init__(self, shape: Any, opset: int = 17, kind: int = FLOAT) -> None:
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []
        self.shape, self.opset, self.kind, self.last = shape, opset, kind, "x"

    def then(self, operator: str, *constants: Any, first: bool = False, **attributes: Any) -> Made:
        names = []
        for values in constants:
            name = f"c{len(self.arrays)}"
            self.arrays.append(onnx.numpy_helper.from_array(np.asarray(values), name))
            names.append(name)
        inputs = [*names, self.last] if first else [self.last, *names]
        out = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [out], name=f"n{len(self.nodes)}", **attributes))
        self.last = out
        return self

    @property
    def model(self) -> Any:
        x = helper.make_tensor_value_info("x", self.kind, self.shape)
        y = helper.make_tensor_value_info(self.last, self.kind, None)
        graph = helper.make_graph(self.nodes, "made", [x], [y], self.arrays)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def f(*shape: int, seed: int = 0) -> Any:
    return seeded(seed).normal(size=shape).astype(np.float32)


ROWS: dict[str, Any] = {
    "gemm": lambda: Made(["n", 4]).then("Gemm", f(3, 4), f(1, 3), transB=1, alpha=0.5, beta=2.0),
    "gemm without bias": lambda: Made(["n", 4]).then("Gemm", f(4, 3)),
    "gemm of unknown width": lambda: Made([None, None]).then("Gemm", f(4, 3), np.float32(0.5)),
    "no declared shape": lambda: Made(None).then("MatMul", f(4, 3)),
    "matmul and add": lambda: Made(["n", 4]).then("MatMul", f(4, 3)).then("Add", f(3)),
    "bias first": lambda: Made(["n", 4]).then("MatMul", f(4, 3)).then("Add", f(1, 3), first=True),
    "two biases": lambda: Made(["n", 4]).then("Gemm", f(4, 3), f(3)).then("Add", f(1, 3)).then("Add", np.float32(2)),
    "passing": lambda: Made(["n", 4]).then("Identity").then("Dropout").then("MatMul", f(4, 3)).then("Cast", to=FLOAT),
    "identity alone": lambda: Made(["n", 4]).then("Identity"),
    "clip": lambda: Made(["n", 4]).then("Clip", np.float32(0), np.float32(6)).then("Clip", np.float32(0)),
    "older clip": lambda: Made(["n", 4], opset=9).then("Clip", min=-1.0, max=1.0),
    "relu by max": lambda: Made(["n", 4]).then("Max", np.float32(0)),
    "hard sigmoid": lambda: Made(["n", 4]).then("HardSigmoid", alpha=1 / 6),
    "softmax of old": lambda: Made(["n", 4], opset=11).then("Softmax").then("Gemm", f(4, 3)),
    "to rows of rows": lambda: (
        Made(["n", 4]).then("Reshape", np.array([-1, 4])).then("Flatten").then("MatMul", f(4, 2))
    ),
    "batch norm": lambda: Made(["n", 4]).then("BatchNormalization", f(4), f(4), f(4), np.ones(4, np.float32)),
}


@pytest.mark.parametrize("name", ROWS)
def test_graphs_of_rows(name: str) -> None:
    model, x = ROWS[name]().model, 3 * f(6, 4, seed=1)
    net = fastbp.from_onnx(model)
    assert_near(net.outputs(x), computed(model, x))


IMAGES: dict[str, Any] = {
    "bias of a convolution": lambda: Made(["n", 2, 9, 8]).then("Conv", f(3, 2, 3, 3)).then("Add", f(1, 3, 1, 1)),
    "older bias": lambda: Made(["n", 2, 9, 8]).then("Conv", f(3, 2, 3, 3)).then("Add", f(3, 1, 1)),
    "squeeze": lambda: (
        Made(["n", 2, 9, 8]).then("GlobalAveragePool").then("Squeeze", np.array([2, 3])).then("MatMul", f(2, 3))
    ),
    "older squeeze": lambda: Made(["n", 2, 9, 8], opset=11).then("GlobalMaxPool").then("Squeeze", axes=[2, 3]),
    "pooled image": lambda: Made(["n", 2, 9, 8]).then("GlobalAveragePool").then("Conv", f(3, 2, 1, 1)),
    "mean of places": lambda: Made(["n", 2, 9, 8]).then("ReduceMean", axes=[-1, 2], keepdims=0).then("MatMul", f(2, 3)),
    "kept mean": lambda: Made(["n", 2, 9, 8], opset=18).then("ReduceMean", np.array([2, 3])).then("Flatten"),
    "reshape": lambda: Made(["n", 2, 9, 8]).then("Reshape", np.array([0, -1])).then("MatMul", f(144, 3)),
    "rows of images": lambda: Made(["n", 2, 9, 8]).then("Flatten").then("MatMul", f(144, 3)),
    "norm of channels": lambda: Made(["n", 2, 9, 8]).then(
        "BatchNormalization", f(2), f(2), f(2), np.ones(2, np.float32), epsilon=0.01
    ),
    "response norm": lambda: Made(["n", 2, 9, 8]).then("LRN", size=3, alpha=0.5),
}


@pytest.mark.parametrize("name", IMAGES)
def test_graphs_of_images(name: str) -> None:
    model, x = IMAGES[name]().model, f(5, 2, 9, 8, seed=1)
    assert_near(fastbp.from_onnx(model).outputs(x), computed(model, x))


@pytest.mark.parametrize("operator", ["Conv", "MaxPool", "AveragePool"])
def test_random_windows(operator: str) -> None:
    """Padding of any kind, also that which rounding up adds: 40 graphs of each operator."""
    rng, read = seeded(3), 0
    for _ in range(40):
        size = rng.integers(1, 4, 2).tolist()
        attributes: dict[str, Any] = {
            "kernel_shape": size,
            "strides": [int(rng.integers(1, side + 1)) for side in size],
        }
        auto = rng.choice(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
        if auto == "NOTSET":
            attributes["pads"] = [int(rng.integers(0, side)) for side in size * 2]
        attributes["auto_pad"] = str(auto)
        constants = ()
        if operator == "Conv":
            attributes["dilations"] = rng.integers(1, 3, 2).tolist() if "SAME" not in auto else [1, 1]
            constants = (f(4, 2, *size), f(4))
        elif auto == "NOTSET":
            attributes["ceil_mode"] = int(rng.integers(2))
        if operator == "AveragePool":
            attributes["count_include_pad"] = int(rng.integers(2))
        model, x = Made(["n", 2, 9, 8]).then(operator, *constants, **attributes).model, f(3, 2, 9, 8)
        try:
            net = fastbp.from_onnx(model)
        except ValueError as error:
            assert "ceil_mode" in str(error) and operator == "AveragePool", attributes
            continue
        read += 1
        want = computed(model, x)
        assert net.outputs(x).shape == want.shape, attributes
        np.testing.assert_allclose(net.outputs(x), want, rtol=1e-5, atol=1e-5, err_msg=repr(attributes))
    assert read >= 30


def test_rows_may_become_images() -> None:
    made = Made(["n", 12]).then("Reshape", np.array([-1, 1, 3, 4])).then("Conv", f(2, 1, 2, 2)).then("Flatten")
    net, x = fastbp.from_onnx(made.model), f(3, 12)
    assert net.input_shape == (1, 3, 4)
    assert_near(net.outputs(x), computed(made.model, x))


def test_constants_are_folded() -> None:
    made = Made(["n", 4])
    made.arrays.append(onnx.numpy_helper.from_array(f(3, 4), "w"))
    made.nodes += [
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Mul", ["wt", "two"], ["twice"]),
        helper.make_node("MatMul", ["x", "twice"], ["y"]),
    ]
    made.last, x = "y", f(5, 4)
    assert_near(fastbp.from_onnx(made.model).outputs(x), computed(made.model, x))


def test_sizes_that_the_graph_leaves_open() -> None:
    made = Made(["n", 2, None, None]).then("Conv", f(3, 2, 3, 3)).then("GlobalAveragePool").then("Flatten")
    with pytest.raises(ValueError, match=r"n0' \(Conv\).*input 'x' does not declare: pass input_shape="):
        fastbp.from_onnx(made.model)
    net, x = fastbp.from_onnx(made.model, input_shape=(2, 7, 6)), f(3, 2, 7, 6)
    assert_near(net.outputs(x), computed(made.model, x))


def test_the_loss_takes_the_end() -> None:
    x = f(3, 4)
    soft = Made(["n", 4]).then("MatMul", f(4, 3)).then("Softmax").model
    for loss, kept in ((None, 1), ("softmax_nll", 1), ("mse", 2)):
        net = fastbp.from_onnx(soft, loss=loss)
        assert len(net.units) == kept
        assert_near(net.outputs(x) if kept == 2 else net.predict_proba(x), computed(soft, x))
    log = fastbp.from_onnx(Made(["n", 4]).then("MatMul", f(4, 3)).then("LogSoftmax").model)
    assert_near(log.predict_proba(x), computed(soft, x))
    alone = Made(["n", 4]).then("Sigmoid").model
    assert_near(fastbp.from_onnx(alone, loss="mse").outputs(x), computed(alone, x))


def test_double_precision() -> None:
    made = Made(["n", 4], kind=onnx.TensorProto.DOUBLE).then("MatMul", f(4, 3).astype(float)).then("Tanh")
    net, x = fastbp.from_onnx(made.model), f(3, 4).astype(float)
    assert_near(net.outputs(x), computed(made.model, x), np.float64)


def test_an_estimator_of_scikit_learn() -> None:
    skl2onnx, neural_network = pytest.importorskip("skl2onnx"), pytest.importorskip("sklearn.neural_network")
    x, t = f(60, 4), seeded(0).integers(0, 3, 60)
    model = neural_network.MLPClassifier((8,), solver="lbfgs", tol=1.0, random_state=0).fit(x, t)
    graph = skl2onnx.to_onnx(model, x[:1], options={"zipmap": False})
    with pytest.raises(ValueError, match="the graph has outputs 'label', 'probabilities': say which one"):
        fastbp.from_onnx(graph)
    with pytest.raises(ValueError, match="unknown output 'logits': the graph has 'label'"):
        fastbp.from_onnx(graph, output="logits")
    net = fastbp.from_onnx(graph, output="probabilities")
    assert_near(net.predict_proba(x), computed(graph, x, "probabilities"))


# ---- graphs that no network computes ---------------------------------------------------------------------------------


def joined() -> Any:
    made = Made(["n", 4]).then("Relu")
    made.nodes.append(helper.make_node("Add", ["x", "v0"], ["y"], name="around"))
    made.last = "y"
    return made


REFUSED: dict[str, tuple[Any, str]] = {
    "operator": (lambda: Made(["n", 4]).then("Sin"), r"node 'n0' \(Sin\) cannot .*: no unit of fastbp computes"),
    "expression": (lambda: Made(["n", 4]).then("Mul", f(4)), r"'n0' \(Mul\).*no activation of fastbp"),
    "residual": (joined, r"'around' \(Add\).*it joins 'x' and 'v0': from_onnx reads chains"),
    "lone bias": (lambda: Made(["n", 4]).then("Relu").then("Add", f(4)), r"'n1' \(Add\).*adds a constant to something"),
    "wide bias": (lambda: Made(["n", 4]).then("MatMul", f(4, 3)).then("Add", f(2, 3)), r"array of shape \(2, 3\)"),
    "bias of places": (
        lambda: Made(["n", 2, 5, 5]).then("Conv", f(3, 2, 3, 3)).then("Add", f(1, 3, 3, 3)),
        "one number for each of 3 channels",
    ),
    "transposed": (lambda: Made([4, 4]).then("Gemm", f(4, 3), transA=1), "transA=1"),
    "width": (lambda: Made(["n", 5]).then("MatMul", f(4, 3)), r"samples of shape \(5,\), expected rows of 4"),
    "images into rows": (lambda: Made(["n", 1, 2, 4]).then("MatMul", f(4, 3)), r"samples of shape \(1, 2, 4\)"),
    "window": (lambda: Made(["n", 2, 5, 5]).then("Conv", f(3, 2, 7, 7)), "its window covers 7 of height"),
    "channels": (lambda: Made(["n", 2, 5, 5]).then("Conv", f(3, 4, 3, 3)), "takes 4 channels"),
    "volume": (lambda: Made(["n", 2, 5, 5]).then("Conv", f(3, 2, 3)), "its weights have shape"),
    "spread pooling": (
        lambda: Made(["n", 2, 5, 5]).then("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]),
        r"dilations \[2, 2\]",
    ),
    "softmax of channels": (lambda: Made(["n", 2, 5, 5]).then("Softmax", axis=1), "expected rows and their columns"),
    "mean of channels": (lambda: Made(["n", 2, 5, 5]).then("ReduceMean", axes=[1]), r"axes \[1\], expected all places"),
    "flatten": (lambda: Made(["n", 2, 5, 5]).then("Flatten", axis=2), "axis=2, expected 1"),
    "mixed rows": (lambda: Made(["n", 4]).then("Reshape", np.array([-1, 2])), "rows of the batch would be mixed"),
    "reshape inside": (lambda: Made(["n", 4]).then("Relu").then("Reshape", np.array([-1, 2, 2])), "only makes rows"),
    "limits": (lambda: Made(["n", 4]).then("Clip", np.float32(0), np.float32(2)), "its limits are 0.0 and 2.0"),
    "slope": (lambda: Made(["n", 4]).then("HardSigmoid"), "alpha=0.2, and HardSigmoid"),
    "moments": (
        lambda: Made(["n", 4]).then("BatchNormalization", f(4), f(4), f(1), np.ones(4, np.float32)),
        r"its mean has shape \(1,\), expected \(4,\): BatchNorm\(4",
    ),
    "training": (
        lambda: Made(["n", 4], opset=14).then("BatchNormalization", f(4), f(4), f(4), f(4), training_mode=1),
        "training_mode=1",
    ),
    "damaged": (lambda: Made(["n", 2, 5, 5]).then("LRN"), "the graph is damaged: onnx.checker"),
    "even norm": (lambda: Made(["n", 2, 5, 5]).then("LRN", size=2), "an even number"),
    "prelu of images": (lambda: Made(["n", 2, 5, 5]).then("PRelu", f(2, 1, 1)), "PReLU of fastbp reads rows"),
    "cast": (lambda: Made(["n", 4]).then("Cast", to=onnx.TensorProto.INT64), "other numbers than FLOAT and DOUBLE"),
    "rank": (lambda: Made([4]).then("Relu"), "has 1 dimensions, expected rows"),
    "half": (lambda: Made(["n", 4], kind=onnx.TensorProto.FLOAT16).then("Relu"), "type FLOAT16, expected FLOAT"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_graphs_that_no_network_computes_raise(name: str) -> None:
    made, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        fastbp.from_onnx(made().model)


def test_computed_parameters_raise() -> None:
    made = Made(["n", 4]).then("Relu")
    made.nodes.append(helper.make_node("MatMul", ["x", "v0"], ["y"], name="square"))
    made.last = "y"
    with pytest.raises(ValueError, match=r"'square' \(MatMul\).*its input 'v0' is computed"):
        fastbp.from_onnx(made.model)


def test_a_graph_with_several_inputs_raises() -> None:
    made = Made(["n", 4]).then("Relu").model
    made.graph.input.append(helper.make_tensor_value_info("z", FLOAT, [1]))
    with pytest.raises(ValueError, match=r"the graph has 2 inputs \('x', 'z'\), expected one"):
        fastbp.from_onnx(made)


def test_files_that_are_no_models_raise(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fastbp.from_onnx(tmp_path / "none.onnx")
    for content in (b"", b"no model at all", b"\x00" * 50):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(ValueError, match="is no ONNX model"):
            fastbp.from_onnx(tmp_path / "bad.onnx")
    with pytest.raises(TypeError):
        fastbp.from_onnx(3)  # type: ignore[arg-type]


def test_damaged_files_raise_value_errors(tmp_path: Path) -> None:
    """Bytes changed anywhere: a network, or a ValueError."""
    path, rng, read = tmp_path / "net.onnx", seeded(0), 0
    fastbp.MLP([4, 5, 3], hidden="silu", seed=0).to_onnx(path)
    whole = path.read_bytes()
    for _ in range(300):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            fastbp.from_onnx(path)
            read += 1
        except ValueError:
            pass
    assert 0 < read < 300


def test_every_reader_is_tried() -> None:
    """Each operator that is read occurs in a graph that ONNX Runtime has computed, here or as an activation."""
    seen = {node.op_type for made in (*ROWS.values(), *IMAGES.values()) for node in made().nodes}
    for shape, chain in CHAINS.values():
        net, _ = trained(chain(), shape)
        seen |= {node.op_type for node in _onnx_writing.to_model(net).graph.node}
    seen |= {node for name in ACTIVATIONS for node in operators_of(name)} | {"LogSoftmax", "AveragePool", "MaxPool"}
    assert set(_onnx_reading.READERS) - seen == {"Gelu", "Mish", "Swish"}  # of newer opsets: below


def operators_of(name: str) -> set[str]:
    unit = getattr(fastbp, ACTIVATIONS[name].unit)()
    model = _onnx_writing.to_model(fastbp.Network(L(2, 2), unit, L(2, 2), loss="mse"))
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(
    ("operator", "opset", "attributes", "unit"),
    [
        ("Gelu", 20, {}, "GELU()"),
        ("Gelu", 20, {"approximate": "tanh"}, "GELUTanh()"),
        ("Mish", 18, {}, "Mish()"),
        ("Swish", 24, {}, "SiLU()"),
    ],
)
def test_activations_of_newer_opsets(operator: str, opset: int, attributes: dict[str, Any], unit: str) -> None:
    made = Made(["n", 4], opset=opset).then(operator, **attributes)
    net, x = fastbp.from_onnx(made.model), f(6, 4)
    assert repr(net.units[0]) == unit
    if operator != "Swish":  # which ONNX Runtime lacks as yet
        assert_near(net.outputs(x), computed(made.model, x))
