"""One step of other people's programs: by their own numpy, and with their network accelerated in place.

``python -m bench.accelerate``. The programs are those of examples/accelerate, at sizes that the books and courses use;
their loop and their optimizer stay their own, or the optimizer is accelerated as well. Both start from the same
numbers, and their parameters are compared after a few steps before anything is timed. A ratio below 0.98 is a failure:
what is slower must not be swapped.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.contest import Contest, describe, make_parser
from bench.tables import align, format_seconds

PROGRAMS = Path(__file__).resolve().parents[1] / "examples" / "accelerate"
RIVALS = {"numpy": "numpy", "accelerated": "fastbp", "with optimizer": "fastbp"}
STEPS = 4  # before the parameters are compared
SLOWEST = 0.98


class Program(NamedTuple):
    """A program at work.

    Attributes
    ----------
    step : function
        One step of its loop.
    network, optimizer : object
        What is accelerated; optimizer None: there is nothing to swap.
    parameters : function
        Returns the arrays as they are now.
    """

    step: Callable[[], Any]
    network: Any
    optimizer: Any
    parameters: Callable[[], list[Any]]


class Case(NamedTuple):
    """A program at one size.

    Attributes
    ----------
    make : function
        Of a generator; global random numbers are seeded.
    goal, goal_with_optimizer : float or None
        numpy's time over the accelerated program's, at least.
    """

    make: Callable[[np.random.Generator], Program]
    goal: float | None = None
    goal_with_optimizer: float | None = None


def program(name: str) -> Any:
    """Import one of the programs' modules."""
    if str(PROGRAMS) not in sys.path:
        sys.path.append(str(PROGRAMS))
    return importlib.import_module(name)


def one_hot(labels: Any, n: int) -> Any:
    """Return a row for each label."""
    return np.eye(n)[labels]


# ---- the programs ----------------------------------------------------------------------------------------------------


def dlfs(
    rng: np.random.Generator, sizes: Sequence[int], batch: int, *, kind: str, descends: bool = False, **options: Any
) -> Program:
    """Chapters 5 and 6: the gradient as a dict, and an optimizer over dicts or chapter 5's loop of plain descent."""
    book = program("dlfs")
    if kind == "TwoLayerNet":
        net = book.TwoLayerNet(*sizes)
    else:
        net = getattr(book, kind)(sizes[0], list(sizes[1:-1]), sizes[-1], **options)
    x, t = rng.random((batch, sizes[0])), one_hot(rng.integers(0, sizes[-1], batch), sizes[-1])
    return _dlfs_descent(net, x, t) if descends else _dlfs_steps(book, net, x, t)


def _dlfs_descent(net: Any, x: Any, t: Any) -> Program:
    def step() -> None:
        gradient = net.gradient(x, t)
        for key in net.params:
            net.params[key] -= 0.1 * gradient[key]

    return Program(step, net, None, lambda: list(net.params.values()))


def dlfs_images(rng: np.random.Generator, batch: int) -> Program:
    """Chapter 7: the convolutional network."""
    book = program("dlfs")
    return _dlfs_steps(book, book.SimpleConvNet(), rng.random((batch, 1, 28, 28)), rng.integers(0, 10, batch))


def _dlfs_steps(book: Any, net: Any, x: Any, t: Any) -> Program:
    optimizer = book.Adam(lr=1e-3)

    def step() -> None:
        optimizer.update(net.params, net.gradient(x, t))

    return Program(step, net, optimizer, lambda: list(net.params.values()))


def dlfs2(rng: np.random.Generator, sizes: tuple[int, int, int], batch: int) -> Program:
    """The second book's model and the body of its trainer."""
    book = program("dlfs2")
    model, optimizer = book.TwoLayerNet(*sizes), book.Adam(lr=1e-3)
    x, t = rng.random((batch, sizes[0])), one_hot(rng.integers(0, sizes[-1], batch), sizes[-1])

    def step() -> None:
        model.forward(x, t)
        model.backward()
        optimizer.update(*book.remove_duplicate(model.params, model.grads))

    return Program(step, model, optimizer, lambda: list(model.params))


def dlfs2_trainer(rng: np.random.Generator, sizes: tuple[int, int, int], batch: int) -> Program:
    """An epoch of ten batches by the second book's Trainer, whose model and optimizer are accelerated with it."""
    book = program("dlfs2")
    model = book.TwoLayerNet(*sizes)
    trainer = book.Trainer(model, book.Adam(lr=1e-3))
    x, t = rng.random((10 * batch, sizes[0])), one_hot(rng.integers(0, sizes[-1], 10 * batch), sizes[-1])

    def epoch() -> None:
        trainer.fit(x, t, max_epoch=1, batch_size=batch, eval_interval=None)

    return Program(epoch, trainer, None, lambda: list(model.params))


def cs231n(rng: np.random.Generator, model: Any, x: Any, rule: str) -> Program:
    """The Solver's step on one batch."""
    course = program("cs231n")
    y, update = rng.integers(0, 10, len(x)), getattr(course, rule)
    configs: dict[str, Any] = {name: {"learning_rate": 1e-3} for name in model.params}

    def step() -> None:
        _, grads = model.loss(x, y)
        for name, w in model.params.items():
            model.params[name], configs[name] = update(w, grads[name], configs[name])

    return Program(step, model, None, lambda: list(model.params.values()))


def cs231n_rows(rng: np.random.Generator, hidden: Sequence[int], batch: int, dtype: Any) -> Program:
    """The second assignment's network of linear units, on rows of CIFAR's size."""
    net = program("cs231n").FullyConnectedNet(list(hidden), input_dim=3072, weight_scale=5e-2, reg=1e-3, dtype=dtype)
    return cs231n(rng, net, rng.standard_normal((batch, 3072)).astype(dtype), "sgd_momentum")


def cs231n_images(rng: np.random.Generator, batch: int) -> Program:
    """The second assignment's convolutional network."""
    net = program("cs231n").ThreeLayerConvNet(weight_scale=1e-2, reg=1e-3)
    return cs231n(rng, net, rng.standard_normal((batch, 3, 32, 32)).astype(np.float32), "sgd_momentum")


def nielsen(rng: np.random.Generator, sizes: Sequence[int], batch: int, module: str) -> Program:
    """A mini-batch of pairs of columns."""
    net = program(module).Network(list(sizes))
    targets = one_hot(rng.integers(0, sizes[-1], batch), sizes[-1])
    pairs = [(rng.random((sizes[0], 1)), t[:, None]) for t in targets]
    more = () if module == "nielsen" else (5.0, 50_000)
    return Program(lambda: net.update_mini_batch(pairs, 0.5, *more), net, None, lambda: [*net.weights, *net.biases])


def nnfs(rng: np.random.Generator, sizes: Sequence[int], batch: int) -> Program:
    """One step of the last chapters' Model, which prints what it does."""
    book = program("nnfs")
    model = book.Model()
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes), start=2):
        model.add(book.Layer_Dense(n_in, n_out))
        model.add(book.Activation_ReLU() if i < len(sizes) else book.Activation_Softmax())
    optimizer = book.Optimizer_Adam(learning_rate=1e-3)
    model.set(loss=book.Loss_CategoricalCrossentropy(), optimizer=optimizer, accuracy=book.Accuracy_Categorical())
    model.finalize()
    x, y = rng.standard_normal((batch, sizes[0])), rng.integers(0, sizes[-1], batch)

    def step() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            model.train(x, y, batch_size=batch, print_every=1000)

    layers = model.trainable_layers
    return Program(step, model, None, lambda: [a for layer in layers for a in (layer.weights, layer.biases)])


def deeplearning_ai(rng: np.random.Generator, sizes: Sequence[int], batch: int) -> Program:
    """The course's L-layer model: functions and a dict of parameters."""
    course = program("deeplearning_ai")
    parameters = course.initialize_parameters_deep(list(sizes))
    x, y = rng.random((sizes[0], batch)), rng.integers(0, 2, (1, batch))

    def step() -> None:
        nonlocal parameters
        outputs, caches = course.L_model_forward(x, parameters)
        course.compute_cost(outputs, y)
        parameters = course.update_parameters(parameters, course.L_model_backward(outputs, y, caches), 0.0075)

    return Program(step, course, None, lambda: list(parameters.values()))


def joelnet(rng: np.random.Generator, sizes: tuple[int, int, int], batch: int) -> Program:
    """The loop of its `train`."""
    package = program("joelnet")
    net = package.NeuralNet([package.Linear(*sizes[:2]), package.Tanh(), package.Linear(*sizes[1:])])
    loss, optimizer = package.MSE(), package.SGD(lr=1e-4)
    x, t = rng.standard_normal((batch, sizes[0])), one_hot(rng.integers(0, sizes[-1], batch), sizes[-1])

    def step() -> None:
        predicted = net.forward(x)
        loss.loss(predicted, t)
        net.backward(loss.grad(predicted, t))
        optimizer.step(net)

    return Program(step, net, optimizer, lambda: [p for layer in net.layers for p in layer.params.values()])


def joelnet_train(rng: np.random.Generator, sizes: tuple[int, int, int], batch: int) -> Program:
    """Ten epochs of 32 batches by its own function, which prints the loss (and makes 5000 epochs if it is not told)."""
    package = program("joelnet")
    net = package.NeuralNet([package.Linear(*sizes[:2]), package.Tanh(), package.Linear(*sizes[1:])])
    rows = 32 * batch
    x, t = rng.standard_normal((rows, sizes[0])), one_hot(rng.integers(0, sizes[-1], rows), sizes[-1])
    iterator, loss, optimizer = package.BatchIterator(batch), package.MSE(), package.SGD(lr=1e-4)

    def epochs() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            package.train(net, x, t, 10, iterator, loss, optimizer)

    return Program(epochs, package, None, lambda: [p for layer in net.layers for p in layer.params.values()])


def scratch(rng: np.random.Generator, sizes: tuple[int, int, int], batch: int) -> Program:
    """ML-From-Scratch's `train_on_batch`."""
    package = program("scratch")
    net = package.NeuralNetwork(optimizer=package.Adam(learning_rate=1e-3), loss=package.CrossEntropy)
    dense = [package.Dense(sizes[1], input_shape=(sizes[0],)), package.Dense(sizes[2])]
    for layer, activation in zip(dense, ("leaky_relu", "softmax"), strict=True):
        net.add(layer)
        net.add(package.Activation(activation))
    x, t = rng.standard_normal((batch, sizes[0])), one_hot(rng.integers(0, sizes[-1], batch), sizes[-1])
    return Program(
        lambda: net.train_on_batch(x, t), net, None, lambda: [a for layer in dense for a in (layer.W, layer.w0)]
    )


def numpy_ml(rng: np.random.Generator, sizes: Sequence[int], batch: int) -> Program:
    """Layers of numpy-ml, and a step of each."""
    net = program("train_numpy_ml").Classifier(list(sizes[1:-1]), sizes[-1])
    x, t = rng.standard_normal((batch, sizes[0])), one_hot(rng.integers(0, sizes[-1], batch), sizes[-1])
    net.forward(x, retain_derived=False)  # makes the parameters
    layers = list(net.layers.values())
    return Program(
        lambda: net.fit_batch(x, t), net, None, lambda: [a for layer in layers for a in layer.parameters.values()]
    )


def _cs231n_rows(hidden: Sequence[int], dtype: Any) -> Callable[[np.random.Generator], Program]:
    return lambda rng: cs231n_rows(rng, hidden, 100, dtype)


CASES: dict[str, Case] = {
    "dlfs TwoLayerNet 784-50-10 @ 100, plain descent": Case(
        lambda rng: dlfs(rng, (784, 50, 10), 100, kind="TwoLayerNet", descends=True), 1.5
    ),
    "dlfs TwoLayerNet 784-50-10 @ 100": Case(
        lambda rng: dlfs(rng, (784, 50, 10), 100, kind="TwoLayerNet"), 1.5, 2.0
    ),
    "dlfs MultiLayerNet 784-4x100-10 @ 128": Case(
        lambda rng: dlfs(rng, (784, 100, 100, 100, 100, 10), 128, kind="MultiLayerNet"), 1.5, 2.0
    ),
    "dlfs MultiLayerNetExtend, batch norm @ 100": Case(
        lambda rng: dlfs(
            rng, (784, 100, 100, 100, 100, 100, 10), 100, kind="MultiLayerNetExtend", use_batchnorm=True
        ), 1.5, 2.0
    ),
    "dlfs SimpleConvNet @ 100": Case(lambda rng: dlfs_images(rng, 100), 6.0),
    "dlfs2 TwoLayerNet 784-100-10 @ 100": Case(lambda rng: dlfs2(rng, (784, 100, 10), 100), 1.5, 2.0),
    "dlfs2 Trainer.fit 784-100-10 @ 100": Case(lambda rng: dlfs2_trainer(rng, (784, 100, 10), 100), 1.5),
    "cs231n FullyConnectedNet 3072-100-10 float32 @ 100": Case(_cs231n_rows((100,), np.float32), 1.5),
    "cs231n FullyConnectedNet 3072-5x100-10 float32 @ 100": Case(_cs231n_rows((100,) * 5, np.float32), 1.5),
    "cs231n FullyConnectedNet 3072-100-10 float64 @ 100": Case(_cs231n_rows((100,), np.float64)),
    "cs231n ThreeLayerConvNet @ 50": Case(lambda rng: cs231n_images(rng, 50), 6.0),
    "nielsen 784-30-10 @ 10": Case(lambda rng: nielsen(rng, (784, 30, 10), 10, "nielsen"), 8.0),
    "nielsen2 784-100-10 @ 10": Case(lambda rng: nielsen(rng, (784, 100, 10), 10, "nielsen2"), 8.0),
    "nnfs Model 784-128-128-10 @ 128": Case(lambda rng: nnfs(rng, (784, 128, 128, 10), 128), 2.0),
    "deeplearning.ai 12288-20-7-5-1 @ 209": Case(lambda rng: deeplearning_ai(rng, (12288, 20, 7, 5, 1), 209), 1.3),
    "joelnet 10-50-4 @ 32": Case(lambda rng: joelnet(rng, (10, 50, 4), 32), 5.0),
    "joelnet train 10-50-4 @ 32": Case(lambda rng: joelnet_train(rng, (10, 50, 4), 32), 5.0),
    "ML-From-Scratch 64-512-10 @ 256": Case(lambda rng: scratch(rng, (64, 512, 10), 256)),
    "numpy-ml 64-64-32-10 @ 50": Case(lambda rng: numpy_ml(rng, (64, 64, 32, 10), 50)),
}  # fmt: skip


# ---- timing ----------------------------------------------------------------------------------------------------------


def make(case: str) -> Program:
    """Return a program, from the same numbers each time."""
    np.random.seed(0)  # noqa: NPY002  # the programs' own habit
    return CASES[case].make(np.random.default_rng(0))


def accelerate(rival: str, made: Program) -> list[Any]:
    """Accelerate what the rival does, and return the reports."""
    fastbp = importlib.import_module("fastbp")
    things = [made.network]
    if rival == "with optimizer" and made.optimizer is not None:
        things.append(made.optimizer)
    return [fastbp.accelerate(thing) for thing in things]


def load(rival: str, name: str) -> Callable[[], Any]:
    """Build a program, accelerate it, and assert that its parameters are those of the original."""
    expected = parameters_after(make(name)) if rival != "numpy" else None
    made = make(name)
    if expected is not None:
        accelerate(rival, made)
        scale = max(float(np.abs(right).max(initial=0.0)) for right in expected)
        for got, right in zip(parameters_after(made), expected, strict=True):
            np.testing.assert_allclose(got, right, rtol=0, atol=1e4 * float(np.finfo(right.dtype).eps) * scale)
    return made.step


def parameters_after(made: Program) -> list[Any]:
    """Run a few steps and return copies of the parameters."""
    for _ in range(STEPS):
        made.step()
    return [np.array(values) for values in made.parameters()]


def reports(name: str) -> str:
    """Return what the reports say, of a network and its optimizer."""
    made = make(name)
    found = accelerate("with optimizer", made)
    made.step()  # what waits for its first call
    return "\n".join(map(str, found))


def row_of(name: str, times: dict[str, float]) -> tuple[list[str], bool]:
    """Return a row of the table, and whether something is slower than numpy."""
    case = CASES[name]
    ratios = {rival: times["numpy"] / times[rival] for rival in ("accelerated", "with optimizer")}
    goals = {"accelerated": case.goal, "with optimizer": case.goal_with_optimizer}
    cells = [name, *(format_seconds(times[rival]) for rival in RIVALS)]
    for rival, ratio in ratios.items():
        goal = goals[rival]
        cells.append(f"{ratio:.2f}" + (f" ({goal:g})" if goal is not None else ""))
    return cells, min(ratios.values()) < SLOWEST


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 where an accelerated program is slower than it was."""
    parser = make_parser("accelerate", "Other people's networks, accelerated in place.", threads=1, rounds=7)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--report", action="store_true", help="print what was swapped, and measure nothing")
    given = parser.parse_args(arguments)
    names = [name for name in CASES if given.only in name]
    if given.quick:
        names = [name for name in names if "ConvNet" not in name]
    if given.report:
        for name in names:
            print(f"{name}\n{reports(name)}\n")
        return 0
    rows, slower = [["one step", *RIVALS, "accelerated (goal)", "with optimizer (goal)"]], False
    seconds, rounds = (0.002, 2) if given.quick else (0.05, given.rounds)
    with Contest("accelerate", RIVALS, threads=given.threads, rounds=rounds, seconds=seconds) as contest:
        for name in names:
            row, is_slower = row_of(name, contest.minima(name=name))
            rows.append(row)
            slower = slower or is_slower
            print(f"{name}: {row[4]}, {row[5]}", flush=True)
    print(f"\n{describe(given)}\n\n{align(rows)}")
    return int(slower and not given.quick)


if __name__ == "__main__":
    sys.exit(main())
