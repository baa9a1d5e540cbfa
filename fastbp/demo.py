"""The demonstration: real digits, a gradient check, and AlexNet's classifier, against the same in plain numpy.

``python -m fastbp demo`` runs it. It has four parts:

1. a sigmoid network learns scikit-learn's handwritten digits with `fastbp.train`, and once more in plain numpy from the
   same initial weights with the same batches; the two loss curves must agree;
2. `fastbp.check_gradients` compares the gradient with finite differences;
3. one gradient of AlexNet's classifier by fastbp and by plain numpy, compared element by element, and timed;
4. the figures are drawn into one picture.

Every figure that is printed or drawn was measured in that run. scikit-learn and matplotlib are imported when the
demonstration starts, not before: they come with ``pip install "fastbp[demo]"``.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp.random import Philox, stream_number

Array = NDArray[Any]
Gradient = tuple[float, list[Array], list[Array]]

#: Both loss curves are float64. Rounding alone separates them by about 1e-13; a gradient wrong by 0.05 % does by
#: more than 1e-5 (tests/test_demo.py plants one). The bound lies between.
CURVE_TOLERANCE = 1e-8

#: How many standard deviations of its rounding error one of the 58.6 million elements may be off. A normal variable is
#: farther off once in 1e15 draws.
SIGMAS = 8.0

#: numpy's BLAS threads go on spinning for some 30 ms after their last product. Nothing is timed during that.
QUIET_SECONDS = 0.1


@dataclass(frozen=True)
class Settings:
    """The sizes of one run of the demonstration."""

    label: str = ""
    # This network and schedule reached 97.2 to 98.7 % on each of fourteen splits and seeds that were tried.
    digits: tuple[int, ...] = (64, 100, 10)
    epochs: int = 40
    batch_size: int = 16
    lr: float = 0.3
    momentum: float = 0.9
    seed: int = 0
    required_accuracy: float = 97.0
    checked: tuple[int, ...] = (64, 100, 10)
    checked_rows: int = 12
    large_name: str = "AlexNet's classifier"
    large: tuple[int, ...] = (9216, 4096, 4096, 1000)
    large_batch: int = 128
    rounds: int = 4


FULL = Settings()
QUICK = Settings(
    label="quick run: fewer epochs, smaller networks, a lower bar",
    epochs=8,
    required_accuracy=90.0,
    checked=(64, 16, 10),
    checked_rows=4,
    large_name="a small classifier",
    large=(1024, 512, 512, 100),
    large_batch=32,
)


# The numpy half: the same mathematics as people write it.


def numpy_forward(x: Array, weights: Sequence[Array], biases: Sequence[Array], hidden: str) -> list[Array]:
    """The input of each layer, and at the end the logits."""
    values = [x]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        z = values[-1] @ w + b
        values.append(1 / (1 + np.exp(-z)) if hidden == "sigmoid" else np.maximum(z, 0))
    return [*values, values[-1] @ weights[-1] + biases[-1]]


def numpy_value_and_grad(
    x: Array, t: Array, weights: Sequence[Array], biases: Sequence[Array], hidden: str = "relu"
) -> Gradient:
    """Mean softmax-NLL and its gradient, by back-propagation in plain numpy; ``hidden`` is "sigmoid" or "relu"."""
    *values, z = numpy_forward(x, weights, biases, hidden)
    rows = np.arange(len(x))
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    loss = -np.log(p[rows, t]).mean()
    dz = p.copy()
    dz[rows, t] -= 1
    dz /= len(x)
    dweights: list[Array] = []
    dbiases: list[Array] = []
    for i in reversed(range(len(weights))):
        dweights.append(values[i].T @ dz)
        dbiases.append(dz.sum(axis=0))
        if i > 0:
            y = values[i]
            dz = (dz @ weights[i].T) * (y * (1 - y) if hidden == "sigmoid" else y > 0)
    return float(loss), dweights[::-1], dbiases[::-1]


def numpy_epoch(
    x: Array, t: Array, parameters: tuple[list[Array], list[Array]], velocities: list[Array], epoch: int, s: Settings
) -> float:
    """One epoch of mini-batches with SGD and momentum; returns the mean loss of its samples.

    The shuffle is the one that `fastbp.train` draws for this seed and epoch.
    """
    weights, biases = parameters
    order = Philox(s.seed, stream_number("shuffle", epoch)).permutation(len(x))
    total = 0.0
    for start in range(0, len(x), s.batch_size):
        batch = order[start : start + s.batch_size]
        loss, dweights, dbiases = numpy_value_and_grad(x[batch], t[batch], weights, biases, hidden="sigmoid")
        total += loss * len(batch)
        for w, dw, v in zip(weights + biases, dweights + dbiases, velocities, strict=True):
            v *= s.momentum
            v += dw
            w -= s.lr * v
    return total / len(x)


# Part 1: the digits.


@dataclass(frozen=True)
class Data:
    """Inputs in [0, 1] and labels, to train with and held out."""

    x: Array
    t: Array
    x_test: Array
    t_test: Array


@dataclass
class Curve:
    """What one training gave: each epoch's loss, the accuracy on the held-out digits after it (in %), and the time."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    seconds: float = 0.0


def load_digits() -> Data:
    """scikit-learn's 1797 digits of 8 x 8 pixels as float64; a stratified random third is held out."""
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split

    x, t = sklearn_digits(return_X_y=True)
    x, x_test, t, t_test = train_test_split(x / 16.0, t, test_size=1 / 3, stratify=t, random_state=0)
    return Data(x, t, x_test, t_test)


def percent_right(predicted: Array, t: Array) -> float:
    """The share of equal labels, in percent."""
    return 100.0 * float(np.mean(predicted == t))


def train_with_fastbp(net: Any, data: Data, s: Settings) -> Curve:
    """``fastbp.train`` with the progress bar. The clock stands still while the held-out digits are classified."""
    curve = Curve()
    pause = 0.0

    def classify_held_out(net: Any, history: Any) -> None:
        nonlocal pause
        start = time.perf_counter()
        curve.accuracy.append(percent_right(net.predict(data.x_test), data.t_test))
        pause += time.perf_counter() - start

    start = time.perf_counter()
    history = fastbp.train(
        net,
        data.x,
        data.t,
        optimizer=fastbp.SGD(lr=s.lr, momentum=s.momentum),
        epochs=s.epochs,
        batch_size=s.batch_size,
        seed=s.seed,
        progress=True,
        callbacks=(classify_held_out,),
    )
    curve.seconds = time.perf_counter() - start - pause
    curve.loss = list(history.loss)
    return curve


def train_with_numpy(weights: list[Array], biases: list[Array], data: Data, s: Settings) -> Curve:
    """The same training in numpy: the arrays are changed in place. The clock stops at the same places."""
    curve = Curve()
    velocities = [np.zeros_like(p) for p in weights + biases]
    for epoch in range(s.epochs):
        start = time.perf_counter()
        curve.loss.append(numpy_epoch(data.x, data.t, (weights, biases), velocities, epoch, s))
        curve.seconds += time.perf_counter() - start
        logits = numpy_forward(data.x_test, weights, biases, "sigmoid")[-1]
        curve.accuracy.append(percent_right(logits.argmax(axis=1), data.t_test))
    return curve


def largest_relative_difference(a: Sequence[float], b: Sequence[float]) -> float:
    """The largest |a - b| / |b|; infinite where the lengths differ or a value is not finite."""
    if len(a) != len(b):
        return float("inf")
    u, v = np.asarray(a), np.asarray(b)
    if not (np.isfinite(u).all() and np.isfinite(v).all()):
        return float("inf")
    return float(np.max(np.abs(u - v) / np.abs(v)))


def learn_digits(s: Settings, failures: list[str]) -> tuple[Curve, Curve]:
    """Part 1: train twice, print the accuracy, the agreement and the times; return (fastbp's curve, numpy's)."""
    data = load_digits()
    print(f"\n1. Handwritten digits: {describe(s.digits)}, sigmoid, softmax-NLL, float64;", end=" ")
    print(f"{len(data.x)} to learn from, {len(data.x_test)} held out, batches of {s.batch_size}", flush=True)
    net = fastbp.MLP(s.digits, hidden="sigmoid", loss="softmax_nll", dtype="float64", seed=s.seed)
    weights, biases = [w.copy() for w in net.weights], [b.copy() for b in net.biases]
    ours = train_with_fastbp(net, data, s)
    theirs = train_with_numpy(weights, biases, data, s)

    print(f"test accuracy: {ours.accuracy[-1]:.1f} %")
    print(f"the same training in plain numpy: {theirs.accuracy[-1]:.1f} %")
    difference = largest_relative_difference(ours.loss, theirs.loss)
    print(f"loss curves: largest relative difference {difference:.1e} (allowed: {CURVE_TOLERANCE:.0e})")
    print(f"{s.epochs} epochs: {describe_times(ours.seconds, theirs.seconds)}")
    if ours.accuracy[-1] < s.required_accuracy:
        failures.append(f"test accuracy {ours.accuracy[-1]:.1f} % is below {s.required_accuracy:.0f} %")
    if not difference <= CURVE_TOLERANCE:
        failures.append(f"the loss curves differ by {difference:.1e}, allowed is {CURVE_TOLERANCE:.0e}")
    return ours, theirs


# Part 2: finite differences.


def check_by_differences(s: Settings, failures: list[str]) -> None:
    """Part 2: the gradient of a fresh network against central differences, for both dtypes."""
    data = load_digits()
    for dtype in ("float64", "float32"):
        print(f"\n2. Gradient against finite differences: {describe(s.checked)}, sigmoid, {dtype}", flush=True)
        net = fastbp.MLP(s.checked, hidden="sigmoid", loss="softmax_nll", dtype=dtype, seed=s.seed + 1)
        report = fastbp.check_gradients(net, data.x[: s.checked_rows].astype(dtype), data.t[: s.checked_rows])
        print(report)
        if not report.ok:
            failures.append(f"the {dtype} gradient does not agree with finite differences")


# Part 3: a large gradient.


def product_variance(a: Array, var_a: Array | None, b: Array, var_b: Array | None) -> Array:
    """Variance of the difference of two evaluations of ``a @ b``, in units of eps**2, from those of ``a`` and ``b``.

    Each of K additions rounds its partial sum, by a relative error of variance u**2 / 3. The partial sums drift towards
    the result c, sum (k c / K)**2 = K c**2 / 3, and walk about it, for terms of either sign by sum = |a|**2 |b|**2 / 2
    (norms of the row and of the column). Two evaluations and u = eps / 2 give the first line below. What ``a`` and
    ``b`` differed by before passes through the product, and variances add. The view is that of N. J. Higham and
    T. Mary, Sharper probabilistic backward error analysis for basic linear algebra kernels with random data, 2020.
    """
    variance = len(b) * (a @ b) ** 2 / 18 + np.outer((a * a).sum(axis=1), (b * b).sum(axis=0)) / 12
    if var_a is not None:
        variance += var_a @ (b * b)
    if var_b is not None:
        variance += (a * a) @ var_b
    return variance


def softmax_error(z: Array, var_z: Array, t: Array) -> tuple[Array, Array]:
    """The gradient of mean softmax-NLL at the logits, and the variance of its error in units of eps**2.

    dp_k = p_k (dz_k - sum_j p_j dz_j); exp adds the rounding of its argument, |z_k - max z|, and a few ulp.
    """
    shifted = z - z.max(axis=1, keepdims=True)
    p = np.exp(shifted)
    p /= p.sum(axis=1, keepdims=True)
    relative = 2 * (var_z + (p * var_z).sum(axis=1, keepdims=True)) + (4 + np.abs(shifted)) ** 2
    dz = p.copy()
    dz[np.arange(len(z)), t] -= 1
    return dz / len(z), (p * p * relative + dz * dz) / len(z) ** 2


def allowed_differences(x: Array, t: Array, weights: Sequence[Array], biases: Sequence[Array]) -> Gradient:
    """How far two evaluations of a relu network's loss and gradient may lie apart, element by element.

    First-order propagation of the rounding errors of the network's own dtype through both sweeps. A relu whose input is
    nearer to 0 than its own error may be open in one evaluation and shut in the other; its whole gradient is allowed as
    a difference.
    """
    unit = SIGMAS * float(np.finfo(x.dtype).eps)
    values, variances = [x], [np.zeros_like(x)]
    inputs: list[Array] = []
    for w, b in zip(weights, biases, strict=True):
        inputs.append(values[-1] @ w + b)
        variances.append(product_variance(values[-1], variances[-1], w, None))
        values.append(np.maximum(inputs[-1], 0))
    dz, var_dz = softmax_error(inputs[-1], variances[-1], t)
    # dloss = sum_k (p_k - t_k) dz_k is at most twice the worst error of a logit; log and the mean add a few ulp.
    loss = unit * float(np.sqrt(4 * variances[-1].max() + (4 + np.ptp(inputs[-1])) ** 2))
    dweights: list[Array] = []
    dbiases: list[Array] = []
    for i in reversed(range(len(weights))):
        dweights.append(unit * np.sqrt(product_variance(values[i].T, variances[i].T, dz, var_dz)))
        dbiases.append(unit * np.sqrt(product_variance(np.ones((1, len(x)), x.dtype), None, dz, var_dz))[0])
        if i > 0:
            is_open, uncertain = inputs[i - 1] > 0, np.abs(inputs[i - 1]) <= unit * np.sqrt(variances[i])
            da, var_da = dz @ weights[i].T, product_variance(dz, var_dz, weights[i].T, None)
            dz = da * is_open
            var_dz = var_da * is_open + uncertain * (da / unit) ** 2
    return loss, dweights[::-1], dbiases[::-1]


def largest_share(ours: Gradient, theirs: Gradient, allowed: Gradient) -> float:
    """The largest difference between two gradients, as a share of what is allowed there; infinite for NaN."""
    worst = 0.0
    for a, b, bound in zip(flatten(ours), flatten(theirs), flatten(allowed), strict=True):
        difference = np.abs(a - b)
        if not np.isfinite(difference).all():
            return float("inf")
        # 0 differs from 0 by nothing: a column that no sample reaches is allowed no difference, and must show none.
        share = np.divide(difference, bound, out=np.where(difference > 0, np.inf, 0.0), where=bound > 0)
        worst = max(worst, float(share.max()))
    return worst


def flatten(gradient: Gradient) -> list[Array]:
    """Loss, weights and biases of a gradient as a plain list of arrays."""
    loss, dweights, dbiases = gradient
    return [np.asarray(loss), *dweights, *dbiases]


def interleaved(rivals: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each call of each rival: the rounds go around the rivals, and before each call there is quiet."""
    seconds: list[list[float]] = [[] for _ in rivals]
    for _ in range(rounds):
        for call, record in zip(rivals, seconds, strict=True):
            time.sleep(QUIET_SECONDS)
            start = time.perf_counter()
            call()
            record.append(time.perf_counter() - start)
    return seconds


def large_gradient(s: Settings, failures: list[str]) -> tuple[float, float]:
    """Part 3: one gradient of a large relu network, compared and timed; returns the shortest (fastbp, numpy) times."""
    net = fastbp.MLP(s.large, hidden="relu", loss="softmax_nll", dtype="float32", seed=s.seed)
    print(f"\n3. One gradient of {s.large_name}: {describe(s.large)}, relu, softmax-NLL, float32;", end=" ")
    print(f"{net.n_parameters / 1e6:.1f} million parameters, batch {s.large_batch}", flush=True)
    rng = np.random.default_rng(s.seed)
    x = rng.standard_normal((s.large_batch, s.large[0]), dtype=np.float32)
    t = rng.integers(s.large[-1], size=s.large_batch)

    def plain_numpy() -> Gradient:
        return numpy_value_and_grad(x, t, net.weights, net.biases, hidden="relu")

    loss, gradients = net.value_and_grad(x, t)
    ours: Gradient = (loss, list(gradients.weights), list(gradients.biases))
    share = largest_share(ours, plain_numpy(), allowed_differences(x, t, net.weights, net.biases))
    print(f"all {net.n_parameters} elements compared: the largest difference is {share:.2f} of what rounding allows")
    if not share <= 1:
        failures.append(f"{s.large_name}: a gradient differs by {share:.2f} times what rounding allows")
    seconds = [min(times) for times in interleaved([lambda: net.value_and_grad(x, t), plain_numpy], s.rounds)]
    print(f"shortest of {s.rounds} interleaved rounds: {describe_times(*seconds)}")
    return seconds[0], seconds[1]


# Part 4: the picture.


def draw_picture(
    path: str | os.PathLike[str], curves: tuple[Curve, Curve], large_seconds: tuple[float, float], s: Settings
) -> None:
    """Loss curves, accuracy, and the times of both computations, in one PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    loss_axes, accuracy_axes, training_axes, large_axes = figure.subplots(2, 2).ravel()
    draw_curves(loss_axes, [curve.loss for curve in curves])
    loss_axes.set(yscale="log", ylabel="mean loss of the epoch", title="Digits: softmax-NLL while learning")
    draw_curves(accuracy_axes, [curve.accuracy for curve in curves])
    accuracy_axes.axhline(s.required_accuracy, color="0.5", linestyle=":", label=f"required: {s.required_accuracy:g} %")
    accuracy_axes.legend(loc="lower right")
    accuracy_axes.set(ylabel="held-out digits right, %", title=f"Digits: {curves[0].accuracy[-1]:.1f} % in the end")
    draw_bars(training_axes, [curve.seconds for curve in curves])
    training_axes.set_title(f"Digits: {s.epochs} epochs of {describe(s.digits)}, float64")
    draw_bars(large_axes, large_seconds)
    large_axes.set_title(f"{s.large_name}: one gradient, batch {s.large_batch}, float32")
    figure.suptitle(describe_software() + (f"\n{s.label}" if s.label else ""), fontsize="medium")
    figure.savefig(path, format="png", dpi=120)


NAMES = ("fastbp", "plain numpy")
COLOURS = ("tab:blue", "tab:orange")


def draw_curves(axes: Any, values: Sequence[Sequence[float]]) -> None:
    """One line for each rival over the epochs; numpy's is dashed and above, as both lie on the same points."""
    styles: tuple[dict[str, Any], ...] = ({"linewidth": 4.0, "alpha": 0.6}, {"linewidth": 1.5, "linestyle": "--"})
    for name, colour, style, line in zip(NAMES, COLOURS, styles, values, strict=True):
        axes.plot(range(1, len(line) + 1), line, label=name, color=colour, **style)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    axes.legend()


def draw_bars(axes: Any, seconds: Sequence[float]) -> None:
    """One bar for each rival with its time written on it, and the ratio under the axis."""
    bars = axes.barh(NAMES, seconds, color=COLOURS)
    axes.bar_label(bars, labels=[describe_seconds(value) for value in seconds], padding=4)
    axes.set_xlim(0, 1.2 * max(seconds))
    axes.invert_yaxis()
    axes.set_xlabel(f"seconds (numpy / fastbp = {seconds[1] / seconds[0]:.2f})")


# Words and the whole.


def describe(sizes: Sequence[int]) -> str:
    """(64, 100, 10) as "64-100-10"."""
    return "-".join(str(size) for size in sizes)


def describe_seconds(seconds: float) -> str:
    """A time with three digits in the unit that suits it."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 0.9995:
            return f"{seconds * factor:#.3g}".rstrip(".") + f" {unit}"
    return f"{seconds * 1e6:#.3g}".rstrip(".") + " µs"


def describe_times(ours: float, theirs: float) -> str:
    """Both times and their ratio."""
    return (
        f"fastbp {describe_seconds(ours)}, plain numpy {describe_seconds(theirs)}, numpy / fastbp = {theirs / ours:.2f}"
    )


def describe_software() -> str:
    """What was measured: versions, instruction set and threads."""
    config = fastbp.config()
    return (
        f"fastbp {config['version']} ({config['isa']}, threads: {fastbp.get_num_threads()}), "
        f"numpy {np.__version__} (threads: {blas_threads()}), processors: {os.cpu_count()}"
    )


def blas_threads() -> str:
    """How many threads the BLAS libraries of this process use, as threadpoolctl sees them; fastbp is one of its own."""
    from threadpoolctl import threadpool_info

    libraries = [entry for entry in threadpool_info() if entry["user_api"] == "blas"]
    return "/".join(sorted({str(entry["num_threads"]) for entry in libraries if entry["internal_api"] != "fastbp"}))


def same_threads() -> AbstractContextManager[Any]:
    """Return numpy's BLAS as many threads as fastbp has, for a comparison of equals."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(fastbp.get_num_threads(), user_api="blas")
    return limits


class MissingExtraError(ImportError):
    """Something that only the demonstration needs is not installed."""


def require_extras() -> None:
    """Import what the demonstration needs besides fastbp.

    Raises
    ------
    MissingExtraError
        If one is not installed; the message says how.
    """
    for name in ("matplotlib.figure", "sklearn.datasets", "threadpoolctl"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise MissingExtraError(f'the demonstration needs {error.name}: pip install "fastbp[demo]"') from error


def run(picture: str | os.PathLike[str] = "./fastbp-demo.png", *, quick: bool = False) -> int:
    """Run the four parts and print what they find.

    Parameters
    ----------
    picture : str or path
        Where the PNG is written.
    quick : bool
        Fewer epochs, smaller networks and a lower bar on the accuracy, for tests; the checks are the same.

    Returns
    -------
    int
        0 if the accuracy was reached and everything agreed, else 1, with the reasons on standard error.

    Raises
    ------
    MissingExtraError
        (An ImportError.) If scikit-learn or matplotlib is not installed; the message names the extra that brings them.
    FileNotFoundError
        If there is no folder where the picture is to be written.
    """
    require_extras()
    if not Path(picture).parent.is_dir():
        raise FileNotFoundError(f"there is no folder {Path(picture).parent} to write the picture into")
    s = QUICK if quick else FULL
    failures: list[str] = []
    with same_threads():
        print(describe_software() + (f"\n{s.label}" if s.label else ""))
        curves = learn_digits(s, failures)
        check_by_differences(s, failures)
        large_seconds = large_gradient(s, failures)
        draw_picture(picture, curves, large_seconds, s)
    print(f"\npicture: {os.fspath(picture)}")
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0
