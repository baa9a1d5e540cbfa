"""Units that read images and sequences: alone, in the engine, and in all that networks do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastbp.gradcheck import check_gradients

import fastbp
from fastbp import (
    AvgPool1d,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Branches,
    Conv1d,
    Conv2d,
    Dropout1d,
    Dropout2d,
    Flatten,
    GlobalAvgPool1d,
    GlobalAvgPool2d,
    Identity,
    Linear,
    LocalResponseNorm,
    MaxPool1d,
    MaxPool2d,
    Network,
    ReLU,
    Residual,
    Sequential,
    Tanh,
    Unit,
)
from fastbp._core import core
from fastbp.units.images import ImageUnit

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

IMAGE, SEQUENCE = (4, 9, 7), (4, 11)
# Each class with arguments that show all it can, and the shape of a sample. One more unit is one more entry.
UNITS: dict[str, tuple[Callable[[], Unit], Shape]] = {
    "Conv2d": (lambda: Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, (0, 1)), dilation=(1, 2), groups=2), IMAGE),
    "Conv2d same": (lambda: Conv2d(4, 3, 3, padding="same", bias=False), IMAGE),
    "Conv2d 1x1": (lambda: Conv2d(4, 5, 1, stride=2), IMAGE),
    "Conv2d pixel": (lambda: Conv2d(2, 3, 1), (2, 1, 1)),
    "Conv1d": (lambda: Conv1d(4, 6, 3, stride=2, padding=1, groups=2), SEQUENCE),
    "MaxPool2d": (lambda: MaxPool2d(3, stride=2, padding=(1, 0)), IMAGE),
    "MaxPool2d beside": (lambda: MaxPool2d(2), IMAGE),
    "MaxPool1d": (lambda: MaxPool1d(3, stride=2), SEQUENCE),
    "AvgPool2d": (lambda: AvgPool2d((2, 3), stride=(2, 1), padding=1, count_include_pad=False), IMAGE),
    "AvgPool1d": (lambda: AvgPool1d(2), SEQUENCE),
    "GlobalAvgPool2d": (GlobalAvgPool2d, IMAGE),
    "GlobalAvgPool1d": (GlobalAvgPool1d, SEQUENCE),
    "BatchNorm2d": (lambda: BatchNorm2d(4), IMAGE),
    "BatchNorm1d": (lambda: BatchNorm1d(4, eps=0.1, momentum=0.5), SEQUENCE),
    "LocalResponseNorm": (lambda: LocalResponseNorm(3, alpha=0.3, beta=0.6, k=1.5), IMAGE),
    "Dropout2d": (lambda: Dropout2d(0.4), IMAGE),
    "Dropout1d": (lambda: Dropout1d(0.4), SEQUENCE),
}
CASES = pytest.mark.parametrize(("make", "shape"), UNITS.values(), ids=UNITS)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def test_every_unit_of_images_is_tested_here() -> None:
    found = {
        name
        for name in fastbp.units.__all__
        if isinstance(made := getattr(fastbp, name), type) and issubclass(made, ImageUnit)
    }
    assert found == {name.split()[0] for name in UNITS}


def convolution(shape: Shape, outputs: int) -> Unit:
    """Some parameters before a unit, so that there is a gradient at its input."""
    return (Conv2d if len(shape) == 3 else Conv1d)(shape[0], outputs, 1)


def network(make: Callable[[], Unit], shape: Shape, dtype: Any = np.float64, **more: Any) -> Network:
    """The unit behind a convolution and an activation, before another activation and a linear unit."""
    unit = make()
    behind = unit.output_shape(shape)
    assert behind is not None
    chain = [convolution(shape, shape[0]), Tanh(), unit, ReLU(), Flatten(), Linear(int(np.prod(behind)), 3)]
    return Network(*chain, loss="softmax_nll", input_shape=shape, dtype=dtype, seed=5, **more)


def batch(shape: Shape, rng: np.random.Generator, n: int = 5, dtype: Any = np.float64) -> tuple[Array, Array]:
    return rng.standard_normal((n, *shape)).astype(dtype), rng.integers(0, 3, n)


def by_units(net: Network, x: Array, t: Array, step: int = 0) -> tuple[float, Array]:
    """The loss and the gradient at the input, by the units' own methods; the parameters' are in them."""
    y = x
    for unit in net.units:
        unit._set_training(True)
        unit.set_rng_position(net.seed, net._streams.get(id(unit), 0), step, 0)
        y = unit.forward(y)
    loss, dy = net.loss.value_and_grad(y, t, reduction="mean")
    for unit in reversed(net.units):
        dy = unit.backward(dy)
    return float(loss), dy


# ---- a unit alone, and in an engine ----------------------------------------------------------------------------------


@pytest.mark.kernel
@DTYPES
@CASES
def test_the_engine_computes_what_the_units_do(
    make: Callable[[], Unit], shape: Shape, dtype: Any, rng: np.random.Generator
) -> None:
    net, other = network(make, shape, dtype), network(make, shape, dtype)
    for n in (5, 1, 0):
        x, t = batch(shape, rng, n, dtype)
        if n == 0:
            assert net.outputs(x).shape == (0, 3)
            continue
        step = net.steps
        loss, grads = net.value_and_grad(x, t)
        its_loss, dx = by_units(other, x, t, step)
        assert loss == pytest.approx(its_loss, rel=1e-12 if dtype == np.float64 else 1e-6)
        for name in grads:
            scale = np.abs(other.gradients[name]).max()
            np.testing.assert_allclose(grads[name], other.gradients[name], atol=scale * 1e-6, rtol=1e-5, err_msg=name)
        net.steps = step
        y = net.forward(x)
        _, dy = net.loss.value_and_grad(y, t, reduction="mean")
        found = net.backward(dy)
        assert found.shape == x.shape
        np.testing.assert_allclose(found, dx, atol=np.abs(dx).max() * 1e-6, rtol=1e-5)


@CASES
def test_gradients_and_second_order(make: Callable[[], Unit], shape: Shape, rng: np.random.Generator) -> None:
    net = network(make, shape)
    x, t = batch(shape, rng, 3)
    report = check_gradients(net, x, t, max_entries=12)
    assert report.ok, str(report)
    v = rng.standard_normal(net.n_parameters)
    found, flat, step = net.hvp(x, t, v), net.flat_parameters.copy(), 1e-6
    ends = []
    for sign in (1, -1):
        net.flat_parameters = flat + sign * step * v
        net.eval()
        ends.append(net.value_and_grad(x, t)[1].flat.copy())
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / (2 * step), atol=1e-6 * np.abs(found).max() + 1e-7)


@CASES
def test_gradients_of_each_sample(make: Callable[[], Unit], shape: Shape, rng: np.random.Generator) -> None:
    net = network(make, shape).eval()
    x, t = batch(shape, rng, 4)
    each = net.sample_gradients(x, t)
    for i in range(len(x)):
        alone = net.value_and_grad(x[i : i + 1], t[i : i + 1])[1]
        for name in alone:
            np.testing.assert_allclose(each[name][i], alone[name], atol=1e-13, err_msg=name)
    np.testing.assert_allclose(net.sample_gradient_norms(x, t), np.linalg.norm(each.flat, axis=1), rtol=1e-12)


@pytest.mark.kernel
@DTYPES
@CASES
def test_the_same_bits_for_any_number_of_threads(
    make: Callable[[], Unit], shape: Shape, dtype: Any, rng: np.random.Generator
) -> None:
    x, t = batch(shape, rng, 40, dtype)
    found = []
    for threads in (1, 2, 5):
        net = network(make, shape, dtype)
        with fastbp.runtime.threads(threads):
            found.append((net.value_and_grad(x, t)[1].flat.tobytes(), net.outputs(x).tobytes()))
    assert found[0] == found[1] == found[2]


@CASES
def test_x_may_lie_anywhere(make: Callable[[], Unit], shape: Shape, rng: np.random.Generator) -> None:
    net = network(make, shape)
    x, t = batch(shape, rng)
    loss, grads = net.value_and_grad(x, t)
    expected = grads.flat.copy()
    spaced = np.full((len(x), 2 * x[0].size), np.nan)
    spaced[:, ::2] = x.reshape(len(x), -1)
    readonly = x.copy()
    readonly.flags.writeable = False
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    columns = np.asfortranarray(x.reshape(len(x), -1))
    for view in (x.reshape(len(x), -1), spaced[:, ::2], readonly, last, columns, x[::-1][::-1]):
        net.steps = 0
        assert net.value_and_grad(view, t)[0] == loss
        np.testing.assert_array_equal(net.gradients.flat, expected)


# ---- what networks do ------------------------------------------------------------------------------------------------


@CASES
def test_copies_and_files(make: Callable[[], Unit], shape: Shape, rng: np.random.Generator, tmp_path: Path) -> None:
    net = network(make, shape, np.float32)
    x, t = batch(shape, rng, dtype=np.float32)
    net.train_step(x, t, fastbp.Adam())
    net.save(tmp_path / "net.npz")
    for other in (fastbp.load(tmp_path / "net.npz"), copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.copy()):
        assert other.input_shape == shape and repr(other.units) == repr(net.units)
        assert list(other.parameters) == list(net.parameters)
        np.testing.assert_array_equal(other.outputs(x), net.outputs(x))
    wide = net.copy(dtype="float64")
    assert wide.dtype == np.float64 and wide.units[2].output_shape(shape) == net.units[2].output_shape(shape)


@CASES
def test_every_way_of_training_takes_the_same_step(
    make: Callable[[], Unit], shape: Shape, rng: np.random.Generator
) -> None:
    x, t = batch(shape, rng, 6)
    for optimizer in (fastbp.SGD(0.1, momentum=0.9), fastbp.Adam(), fastbp.SGD(0.1, clip_norm=0.5)):
        nets = [network(make, shape) for _ in range(3)]
        for _ in range(2):
            nets[0].train_step(x, t, optimizer)
            nets[1].value_and_grad(x, t)
            nets[1].update(optimizer)
        fastbp.train(nets[2], x, t, optimizer=optimizer, epochs=2, batch_size=6, shuffle=False, progress=False)
        np.testing.assert_allclose(nets[1].flat_parameters, nets[0].flat_parameters, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(nets[2].flat_parameters, nets[0].flat_parameters)


def small_resnet() -> list[Unit]:
    def block(channels: int, outputs: int, stride: int) -> Unit:
        body = Sequential(
            Conv2d(channels, outputs, 3, stride=stride, padding=1), ReLU(), Conv2d(outputs, outputs, 3, padding=1)
        )
        if stride == 1:
            return Residual(body)
        return Branches([body, Conv2d(channels, outputs, 1, stride=stride, bias=False)])

    return [
        Conv2d(3, 8, 3, padding=1), ReLU(), block(8, 8, 1), ReLU(), block(8, 16, 2), ReLU(), GlobalAvgPool2d(),
        Linear(16, 3),
    ]  # fmt: skip


def inception() -> list[Unit]:
    branches = [
        Conv2d(3, 2, 1),
        Sequential(Conv2d(3, 2, 1), ReLU(), Conv2d(2, 4, 3, padding=1)),
        Sequential(Conv2d(3, 2, 1), ReLU(), Conv2d(2, 3, 5, padding=2)),
        Sequential(MaxPool2d(3, stride=1, padding=1), Conv2d(3, 2, 1)),
        Identity(),
    ]
    return [Branches(branches, merge="concat"), ReLU(), Flatten(), Linear(14 * 6 * 6, 3)]


GRAPHS = pytest.mark.parametrize(("make", "size"), [(small_resnet, 8), (inception, 6)], ids=["resnet", "inception"])


@GRAPHS
def test_graphs_of_images(make: Callable[[], list[Unit]], size: int, rng: np.random.Generator) -> None:
    made = [Network(*make(), loss="softmax_nll", input_shape=(3, size, size), dtype="float64", seed=2) for _ in "ab"]
    x, t = batch((3, size, size), rng, 4)
    report = check_gradients(made[0], x, t, max_entries=6)
    assert report.ok, str(report)
    loss, grads = made[0].value_and_grad(x, t)
    its_loss, dx = by_units(made[1], x, t)
    assert loss == pytest.approx(its_loss, rel=1e-12)
    for name in grads:
        np.testing.assert_allclose(grads[name], made[1].gradients[name], atol=1e-12, err_msg=name)
    np.testing.assert_allclose(made[0].input_gradient(x, t), dx, atol=1e-13)


class Doubled(Unit):
    """A user's unit of images: every channel twice."""

    def output_shape(self, shape: Shape | None) -> Shape | None:
        return None if shape is None else (2 * shape[0], *shape[1:])

    def forward(self, x: Array) -> Array:
        assert x.ndim == 4
        return np.concatenate([x, x], axis=1)

    def backward(self, dy: Array) -> Array:
        half = dy.shape[1] // 2
        return np.asarray(dy[:, :half] + dy[:, half:])


def test_a_unit_of_ones_own_reads_images(rng: np.random.Generator) -> None:
    def chain() -> list[Unit]:
        return [Conv2d(1, 2, 3), Doubled(), Conv2d(4, 2, 3), Flatten(), Linear(8, 3)]

    x, t = batch((1, 6, 6), rng)
    net = Network(*chain(), loss="softmax_nll", input_shape=(1, 6, 6), dtype="float64", seed=0)
    other = Network(*chain(), loss="softmax_nll", input_shape=(1, 6, 6), dtype="float64", seed=0)
    assert check_gradients(net, x, t).ok
    loss, grads = net.value_and_grad(x, t)
    its_loss, dx = by_units(other, x, t)
    assert loss == pytest.approx(its_loss)
    np.testing.assert_allclose(grads.flat, other.gradients.flat, atol=1e-13)
    np.testing.assert_allclose(net.input_gradient(x, t), dx, atol=1e-14)
    net.train_step(x, t, fastbp.Adam())
    fastbp.train(net, x, t, optimizer=fastbp.SGD(0.1), epochs=2, progress=False)
    with pytest.raises(ValueError, match=r"unit 1, Halved\(\), returned.* from forward has shape .* expected"):

        class Halved(Doubled):
            def forward(self, x: Array) -> Array:
                return x

        wrong = Network(Conv2d(1, 2, 3), Halved(), Flatten(), loss="mse", input_shape=(1, 6, 6), dtype="float64")
        wrong.forward(x)


def test_outputs_that_are_images(rng: np.random.Generator) -> None:
    net = Network(Conv2d(1, 2, 3, padding=1), loss="mse", input_shape=(1, 5, 4), dtype="float64", seed=0)
    x, t = rng.standard_normal((3, 1, 5, 4)), rng.standard_normal((3, 2, 5, 4))
    assert net.output_shape == (2, 5, 4) and net.n_out == 40
    for made in (net.outputs(x), net.predict(x), net.forward(x)):
        assert made.shape == t.shape
    loss, grads = net.value_and_grad(x, t)
    assert loss == pytest.approx(((net.outputs(x) - t) ** 2).sum() / (2 * 3))
    expected = grads.flat.copy()
    y = net.forward(x).copy()
    assert net.backward((y - t) / 3).shape == x.shape
    np.testing.assert_allclose(net.gradients.flat, expected, atol=1e-14)
    assert net.jacobian(x).shape == (3, 40, 1, 5, 4)
    for dtype in ("float32", "float64"):
        report = check_gradients(net.copy(dtype=dtype), x.astype(dtype), t.astype(dtype))
        assert report.ok and report.rows[-1].name == "input", str(report)
    rows, v = t.reshape(3, 40), rng.standard_normal(net.n_parameters)
    np.testing.assert_array_equal(net.input_gradient(x, t), net.input_gradient(x, rows))
    np.testing.assert_array_equal(net.hvp(x, t, v), net.hvp(x, rows, v))
    np.testing.assert_array_equal(net.sample_gradients(x, t).flat, net.sample_gradients(x, rows).flat)
    np.testing.assert_array_equal(net.sample_gradient_norms(x, t), net.sample_gradient_norms(x, rows))


def test_many_images_are_predicted_piece_by_piece(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with them: the engine never sees more than some at a time."""
    x, t = batch((3, 8, 8), rng, 70)
    weight = rng.random(70)
    whole = Network(*small_resnet(), loss="softmax_nll", input_shape=(3, 8, 8), dtype="float64", seed=2, l2=0.1)
    expected = whole.outputs(x), whole.predict(x), whole.loss_value(x, t, sample_weight=weight)
    monkeypatch.setattr(core, "IMAGE_BYTES", 1)
    net = Network(*small_resnet(), loss="softmax_nll", input_shape=(3, 8, 8), dtype="float64", seed=2, l2=0.1)
    found = net.outputs(x), net.predict(x), net.loss_value(x, t, sample_weight=weight)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    np.testing.assert_array_equal(found[1], expected[1])
    assert found[2] == pytest.approx(expected[2], rel=1e-12)
    assert net._whole is not None and net._whole.engine.capacity == core.LEAST_IMAGES
    np.testing.assert_array_equal(net.predict(x.reshape(70, -1)), expected[1])
    assert net.loss_value(x, t, reduction="sum") == pytest.approx(whole.loss_value(x, t, reduction="sum"), rel=1e-12)


def test_the_summary_follows_shapes() -> None:
    net = Network(
        Conv2d(3, 4, 3, stride=2), Residual(Conv2d(4, 4, 3, padding=1)), MaxPool2d(2), Flatten(), Linear(36, 2),
        loss="softmax_nll", input_shape=(3, 15, 15),
    )  # fmt: skip
    rows = net.summary(4).rows
    assert [row.shape_behind for row in rows] == [(4, 7, 7), (4, 7, 7), (4, 7, 7), (4, 3, 3), (36,), (2,)]
    assert [row.multiply_adds for row in rows] == [49 * 108, 49 * 144, 49 * 144, 0, 0, 72]
    assert net.summary(4).gradient_multiply_adds == 2 * 49 * 108 + 3 * (49 * 144 + 72)
    assert "(n, 4, 7, 7)" in str(net.summary())


def test_frozen_convolutions(rng: np.random.Generator) -> None:
    x, t = batch((3, 8, 8), rng)
    net = Network(*small_resnet(), loss="softmax_nll", input_shape=(3, 8, 8), dtype="float64", seed=2)
    free = net.value_and_grad(x, t)[1].copy()
    net.freeze("0.weight", "0.bias", "2.*")
    grads = net.value_and_grad(x, t)[1]
    for name in grads:
        if name.startswith(("0.", "2.")):
            assert not grads[name].any()
        else:
            np.testing.assert_allclose(grads[name], free[name], atol=1e-14)
    before = net.parameters["0.weight"].copy()
    net.train_step(x, t, fastbp.Adam())
    np.testing.assert_array_equal(net.parameters["0.weight"], before)


# ---- augment ---------------------------------------------------------------------------------------------------------


def test_augment_sees_images_and_follows_the_seed(rng: np.random.Generator, tmp_path: Any) -> None:
    x, t = batch((3, 8, 8), rng, 20)
    seen: list[Shape] = []

    def mirrored(x: Array, rng: np.random.Generator) -> Array:
        seen.append(x.shape)
        turned = rng.random(len(x)) < 0.5
        x[turned] = x[turned, :, :, ::-1]
        return x

    def run(epochs: int, **more: Any) -> Network:
        net = Network(*small_resnet(), loss="softmax_nll", input_shape=(3, 8, 8), dtype="float64", seed=2)
        options: dict[str, Any] = {"optimizer": fastbp.Adam(), "batch_size": 8, "progress": False, "augment": mirrored}
        fastbp.train(net, x, t, epochs=epochs, **(options | more))
        return net

    before = x.copy()
    whole, plain = run(3), run(3, augment=None)
    assert seen == [(8, 3, 8, 8), (8, 3, 8, 8), (4, 3, 8, 8)] * 3
    np.testing.assert_array_equal(x, before)
    assert not np.array_equal(whole.flat_parameters, plain.flat_parameters)
    path = tmp_path / "run.ckpt"
    run(1, checkpoint=path)
    resumed = run(3, checkpoint=path, resume=True)
    np.testing.assert_array_equal(resumed.flat_parameters, whole.flat_parameters)
    with pytest.raises(fastbp.CheckpointError, match="augment is True in the file, None here"):
        run(4, augment=None, checkpoint=path, resume=True)


def test_augment_is_held_to_its_promise(rng: np.random.Generator) -> None:
    x, t = batch((3, 8, 8), rng, 8)
    net = Network(*small_resnet(), loss="softmax_nll", input_shape=(3, 8, 8), dtype="float64", seed=2)
    before = net.flat_parameters.copy()
    for augment, message in [
        (lambda x, rng: x[:3], "what augment returned has 3 rows, expected 8"),
        (lambda x, rng: x[:, :, :7], r"what augment returned has shape \(8, 3, 7, 8\), expected \(n, 3, 8, 8\)"),
        (lambda x, rng: x.astype(np.float32), "what augment returned has dtype float32"),
        (lambda x, rng: None, "what augment returned must be"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            fastbp.train(net, x, t, optimizer=fastbp.Adam(), augment=augment, progress=False)
        np.testing.assert_array_equal(net.flat_parameters, before)
    with pytest.raises(TypeError, match=r"augment must be a function augment\(x, rng\) or None, got 3"):
        fastbp.train(net, x, t, optimizer=fastbp.Adam(), augment=3, progress=False)  # type: ignore[arg-type]


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conv2d(0, 1, 3), ValueError, "in_channels must be at least 1, got 0"),
        (lambda: Conv2d(3, 4.0, 3), TypeError, "out_channels must be an integer, got 4.0"),
        (lambda: Conv2d(3, 4, 0), ValueError, "size must be at least 1, got 0"),
        (lambda: Conv2d(3, 4, (3, 3, 3)), ValueError, "size has 3 entries, expected 2: one for each of height, width"),
        (lambda: Conv2d(3, 4, 3, stride=0), ValueError, "stride must be at least 1, got 0"),
        (lambda: Conv2d(3, 4, 3, stride=-1), ValueError, "stride must be at least 1, got -1"),
        (lambda: Conv2d(3, 4, 3, dilation=0), ValueError, "dilation must be at least 1, got 0"),
        (lambda: Conv2d(3, 4, 3, padding=-1), ValueError, "padding must be at least 0, got -1"),
        (lambda: Conv2d(3, 4, 3, padding="full"), ValueError, "unknown padding 'full': known are 'same', 'valid'"),
        (lambda: Conv2d(3, 4, 3, groups=2), ValueError, "in_channels is 3, expected a multiple of groups=2"),
        (lambda: Conv2d(4, 3, 3, groups=2), ValueError, "out_channels is 3, expected a multiple of groups=2"),
        (lambda: Conv2d(3, 4, 3, bias=1), TypeError, "bias must be True or False, got 1"),
        (lambda: Conv2d(3, 4, 3, init="best"), ValueError, "unknown"),
        (lambda: Conv2d(3, 4, 3, dtype="float16"), ValueError, "unknown dtype 'float16'"),
        (lambda: MaxPool2d(0), ValueError, "size must be at least 1, got 0"),
        (
            lambda: MaxPool2d(2, padding=2),
            ValueError,
            "padding is 2 \\+ 2 in height, expected less than the window's 2",
        ),
        (lambda: AvgPool2d(2, stride=0), ValueError, "stride must be at least 1, got 0"),
        (lambda: AvgPool2d(2, count_include_pad=None), TypeError, "count_include_pad must be True or False"),
    ],
)
def test_bad_arguments_of_units(make: Callable[[], Unit], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("units", "shape", "message"),
    [
        ([lambda: Conv2d(3, 4, 3)], None, r"unit 0, Conv2d\(3, 4, 3\), reads images .* input_shape=\(channels, height"),
        ([lambda: Conv2d(3, 4, 3)], (1, 8, 8), r"unit 0, .* reads images of shape \(1, 8, 8\), but takes 3 channels"),
        ([lambda: Conv2d(3, 4, 9)], (3, 8, 8), r"unit 0, .* reads images of shape \(3, 8, 8\): its window covers 9"),
        (
            [lambda: Conv2d(3, 4, 3)],
            (3, 8),
            r"reads images of shape .*, but gets samples of shape \(3, 8\): input_shape=\(1, 3, 8\) has",
        ),
        ([lambda: Conv1d(3, 4, 3)], (3, 8, 8), r"reads sequences of shape .*, but gets samples of shape \(3, 8, 8\)"),
        (
            [lambda: Conv2d(3, 4, 3), lambda: Linear(144, 3)],
            (3, 8, 8),
            r"unit 1, .* images of shape \(4, 6, 6\): put a",
        ),
        ([Flatten, lambda: Linear(100, 3)], (3, 8, 8), r"unit 1, Linear\(100, 3\), takes 100 inputs, but"),
        (
            [lambda: Residual(Conv2d(3, 4, 1))],
            (3, 8, 8),
            r"\(3, 8, 8\) to the outputs of its block of shape \(4, 8, 8\)",
        ),
        (
            [lambda: Branches([Conv2d(3, 4, 3), Conv2d(3, 4, 1)], merge="concat")],
            (3, 8, 8),
            "equal, but for their chan",
        ),
        (
            [lambda: Branches([Conv2d(3, 4, 1), Conv2d(3, 5, 1)])],
            (3, 8, 8),
            r"for 'sum' they must be equal, as a whole",
        ),
        ([lambda: Sequential(ReLU(), Conv2d(5, 4, 1))], (3, 8, 8), r"unit 0, .* has unit 1, Conv2d\(5, 4, 1\), which"),
        ([lambda: MaxPool2d(9)], (3, 8, 8), r"unit 0, MaxPool2d\(9\), reads images of shape \(3, 8, 8\): its window"),
        ([lambda: fastbp.BatchNorm(192)], (3, 8, 8), "takes rows, but gets images"),
    ],
)
def test_shapes_that_do_not_fit(units: list[Callable[[], Unit]], shape: Shape | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network(*(make() for make in units), loss="mse", input_shape=shape)


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        (3, TypeError, r"input_shape must be a sequence of integers, such as \(3, 32, 32\), got 3"),
        ((3, 0, 8), ValueError, r"input_shape\[1\] must be at least 1, got 0"),
        ((3, 8.0, 8), TypeError, r"input_shape\[1\] must be an integer, got 8.0"),
        ((1, 3, 8, 8), ValueError, r"input_shape is \(1, 3, 8, 8\), expected \(channels, height, width\)"),
        ((), ValueError, r"input_shape is \(\), expected"),
    ],
)
def test_bad_input_shapes(shape: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Network(Conv2d(3, 4, 3), loss="mse", input_shape=shape)


def test_x_of_another_shape() -> None:
    net = Network(Conv2d(3, 4, 3), Flatten(), loss="mse", input_shape=(3, 8, 6), seed=0)
    for x, message in [
        (np.zeros((2, 8, 6, 3), np.float32), r"expected \(n, 3, 8, 6\), channels first: np.moveaxis\(x, -1, 1\)"),
        (np.zeros((2, 3, 6, 8), np.float32), r"x has shape \(2, 3, 6, 8\), expected \(n, 3, 8, 6\)"),
        (np.zeros((3, 8, 6), np.float32), r"x has shape \(3, 8, 6\), expected \(n, 3, 8, 6\): x\[None\] is a batch of"),
        (np.zeros((3, 8, 5), np.float32), r"x has shape \(3, 8, 5\), expected \(n, 3, 8, 6\)$"),
        (np.zeros((2, 143), np.float32), r"expected \(n, 3, 8, 6\), or rows \(n, 144\)"),
        (np.zeros((2, 3, 8, 6)), "float64"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            net.forward(x)
    with pytest.raises(AttributeError):
        net.input_shape = (3, 8, 8)  # type: ignore[misc]


def test_a_unit_alone_checks_what_it_reads() -> None:
    unit = Conv2d(3, 4, 3, seed=0)
    with pytest.raises(ValueError, match=r"x has shape \(3, 8, 8\), expected \(n, channels, height, width\): Conv2d"):
        unit.forward(np.zeros((3, 8, 8), np.float32))
    with pytest.raises(TypeError, match="float64"):
        unit.forward(np.zeros((1, 3, 8, 8)))
    with pytest.raises(RuntimeError, match="backward before forward"):
        unit.backward(np.zeros((1, 4, 6, 6), np.float32))
    unit.forward(np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(ValueError, match=r"dy has shape \(1, 4, 6, 5\), expected \(1, 4, 6, 6\)"):
        unit.backward(np.zeros((1, 4, 6, 5), np.float32))


@pytest.mark.parametrize(
    "name", ["ConvTranspose1d", "ConvTranspose2d", "conv_transpose1d", "conv_transpose2d", "Upsample"]
)
def test_what_is_not_there_says_so(name: str) -> None:
    with pytest.raises(NotImplementedError, match=rf"fastbp\.{name}: .* not part of fastbp"):
        getattr(fastbp, name)(3, 4, 2)


def test_penalties_are_about_weights_of_convolutions(rng: np.random.Generator) -> None:
    x, t = batch((3, 8, 8), rng)
    made = [
        Network(*small_resnet(), loss="softmax_nll", input_shape=(3, 8, 8), dtype="float64", seed=2, l2=l2, l1=l1)
        for l1, l2 in ((0.0, 0.0), (0.0, 0.3), (0.2, 0.0))
    ]
    plain, l2, l1 = [net.value_and_grad(x, t) for net in made]
    for name, values in made[0].parameters.items():
        counts = name.endswith("weight")
        np.testing.assert_allclose(l2[1][name], plain[1][name] + 0.3 * counts * values, atol=1e-13)
        np.testing.assert_allclose(l1[1][name], plain[1][name] + 0.2 * counts * np.sign(values), atol=1e-13)
