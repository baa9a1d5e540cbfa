"""Several ranks give what one process gives, on all of them alike; and what goes wrong on one is raised on all.

The ranks are threads here: what MPI has to do with it is in test_distributed_mpi.py.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastbp
from fastbp import distributed
from fastbp._core import ranks as core_ranks
from fastbp._core.sharing import pieces_of
from fastbp.distributed._mpi import share_of
from fastbp.distributed._threads import ThreadCommunicator
from fastbp.training.data import class_weights

Array = NDArray[Any]
Make = Callable[[], fastbp.Network]

RNG = np.random.default_rng(0)
X, T, W = RNG.normal(size=(37, 20)), RNG.integers(0, 5, 37), RNG.random(37)
W[3] = 0
IMAGES, CLASSES = RNG.normal(size=(12, 3, 8, 8)), RNG.integers(0, 5, 12)
UNEVEN = (0, 10, 10, 37)  # the second rank has no row
COLUMNS = [1.0, 2.0, 3.0, 4.0, 5.0]

pytestmark = pytest.mark.filterwarnings("ignore::fastbp.FastbpWarning")


class Scale(fastbp.Unit):
    """A unit in Python, which may fail."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.fails = ""

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"scale": (self.n,)}

    def initialize(self, rng: Any, parameters: dict[str, Array]) -> None:
        parameters["scale"][...] = 1.5

    def forward(self, x: Array) -> Array:
        if self.fails == "forward":
            raise ZeroDivisionError("in forward")
        self.x = x
        return x * self.parameters["scale"]

    def backward(self, dy: Array) -> Array:
        if self.fails == "backward":
            raise ZeroDivisionError("in backward")
        self.gradients["scale"][...] = (dy * self.x).sum(axis=0)
        return dy * self.parameters["scale"]


def mlp(**options: Any) -> Make:
    return lambda: fastbp.MLP([20, 30, 5], dtype="float64", seed=0, **options)


def network(*units: Callable[[], fastbp.Unit], **options: Any) -> Make:
    options = {"loss": "softmax_nll", "dtype": "float64", "seed": 1, **options}
    return lambda: fastbp.Network(*[make() for make in units], **options)


def linear(n: int, m: int) -> Callable[[], fastbp.Unit]:
    return lambda: fastbp.Linear(n, m)


def block() -> fastbp.Unit:
    return fastbp.Residual(fastbp.Sequential(fastbp.Linear(30, 30), fastbp.BatchNorm(30)))


WITH_DROPOUT = network(
    linear(20, 900), fastbp.ReLU, lambda: fastbp.Dropout(0.5), linear(900, 900), fastbp.Tanh,
    lambda: fastbp.Dropout(0.3), linear(900, 5),
)  # fmt: skip
WITH_NORM = network(linear(20, 30), lambda: fastbp.BatchNorm(30), fastbp.ReLU, block, linear(30, 5))
OF_IMAGES = network(
    lambda: fastbp.Conv2d(3, 4, 3), lambda: fastbp.BatchNorm2d(4), fastbp.ReLU, lambda: fastbp.MaxPool2d(2),
    lambda: fastbp.Dropout2d(0.5), fastbp.Flatten, linear(36, 5), input_shape=(3, 8, 8),
)  # fmt: skip
IN_PYTHON = network(linear(20, 30), lambda: Scale(30), lambda: fastbp.Dropout(0.5), linear(30, 5), l2=0.1)
IGNORING = fastbp.SoftmaxNLL(ignore_index=4)
WEIGHING = fastbp.SoftmaxNLL(class_weight=COLUMNS)
SUM = fastbp.LossSum([(0.5, WEIGHING), (0.5, fastbp.SoftmaxNLL())])

CASES: dict[str, tuple[Make, dict[str, Any]]] = {
    "even": (mlp(), {"cuts": (0, 12, 24, 36)}),
    "penalties and weights": (mlp(l1=0.01, l2=0.1), {"w": W}),
    "a rank without rows": (mlp(), {"w": W, "cuts": UNEVEN}),
    "class weights": (mlp(loss=WEIGHING), {"w": W}),
    "ignored labels": (mlp(loss=IGNORING), {"cuts": UNEVEN}),
    "sum": (mlp(loss=IGNORING, l2=0.1), {"reduction": "sum"}),
    "a sum of losses": (mlp(loss=SUM), {"w": W}),
    "dropout, in pieces": (WITH_DROPOUT, {"w": W, "cuts": UNEVEN}),
    "batch norm": (WITH_NORM, {"cuts": (0, 1, 1, 37)}),
    "images": (OF_IMAGES, {"x": IMAGES, "t": CLASSES, "cuts": (0, 5, 5, 12)}),
    "units in Python": (IN_PYTHON, {"w": W, "cuts": UNEVEN}),
    "a sum of losses in Python": (
        network(linear(20, 30), lambda: Scale(30), linear(30, 5), loss=SUM),
        {"w": W, "cuts": UNEVEN},
    ),
}


@pytest.fixture(params=["overlapped", "at the end"])
def sums(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks whose sums are on their way while they compute, and those that have them at the end."""
    monkeypatch.setattr(ThreadCommunicator, "on_one_machine", request.param == "at the end", raising=False)


def parts(cuts: tuple[int, ...], rank: int, *arrays: Any) -> list[Any]:
    return [None if array is None else array[cuts[rank] : cuts[rank + 1]] for array in arrays]


def close(a: Any, b: Any, by: float = 1e-12) -> bool:
    return bool(np.abs(np.asarray(a) - b).max() <= by * max(1.0, float(np.abs(b).max())))


@pytest.mark.usefixtures("sums")
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_all_rows(case: str) -> None:
    make, options = CASES[case]
    x, t, w = options.get("x", X), options.get("t", T), options.get("w")
    cuts, reduction = options.get("cuts", (0, 12, 24, 37)), options.get("reduction", "mean")
    x, t, w = (None if array is None else array[: cuts[-1]] for array in (x, t, w))
    net = make()
    wanted, grads = net.value_and_grad(x, t, sample_weight=w, reduction=reduction)

    def run(comm: Any) -> tuple[float, Array, dict[str, Array]]:
        mine = make()
        its_x, its_t, its_w = parts(cuts, comm.rank, x, t, w)
        loss, its = mine.value_and_grad(its_x, its_t, sample_weight=its_w, reduction=reduction, comm=comm)
        return loss, its.flat.copy(), {name: values.copy() for name, values in mine.state.items()}

    found = distributed.run_in_threads(3, run)
    for loss, flat, state in found:
        assert loss == pytest.approx(wanted, rel=1e-12)
        assert close(flat, grads.flat)
        assert flat.tobytes() == found[0][1].tobytes() and loss == found[0][0]
        for name, values in net.state.items():
            assert close(state[name], values)


@pytest.mark.usefixtures("sums")
@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_all_rows(case: str) -> None:
    make, options = CASES[case]
    x, t, w = options.get("x", X), options.get("t", T), options.get("w")
    cuts, reduction = options.get("cuts", (0, 12, 24, 37)), options.get("reduction", "mean")
    x, t, w = (None if array is None else array[: cuts[-1]] for array in (x, t, w))

    def steps(comm: Any, its_x: Array, its_t: Array, its_w: Any) -> tuple[float, Array, Array]:
        net, optimizer, loss = make(), fastbp.SGD(lr=0.05, momentum=0.9, clip_norm=0.5), 0.0
        for _ in range(3):
            loss = net.train_step(its_x, its_t, optimizer, sample_weight=its_w, reduction=reduction, comm=comm)
        return loss, net.flat_parameters.copy(), net.state

    wanted, flat, _ = steps(None, x, t, w)
    for loss, its, _ in distributed.run_in_threads(3, lambda comm: steps(comm, *parts(cuts, comm.rank, x, t, w))):
        assert loss == pytest.approx(wanted, rel=1e-10)
        assert close(its, flat, by=1e-10)


@pytest.mark.usefixtures("sums")
def test_gradients_go_where_out_says() -> None:
    net = mlp()()
    _, wanted = net.value_and_grad(X, T)

    def run(comm: Any) -> bool:
        mine = mlp()()
        out = mine.gradients.copy()
        _, its = mine.value_and_grad(*parts(UNEVEN, comm.rank, X, T), out=out, comm=comm)
        return its is out and close(out.flat, wanted.flat)

    assert all(distributed.run_in_threads(3, run))


def test_frozen_parameters_stay() -> None:
    def run(comm: Any) -> tuple[Array, Array]:
        net = mlp()()
        net.freeze("0.*")
        before = net.parameters["0.weight"].copy()
        net.train_step(X[comm.rank :: 2], T[comm.rank :: 2], fastbp.Adam(), comm=comm)
        return before, net.parameters["0.weight"].copy()

    for before, after in distributed.run_in_threads(2, run):
        assert (before == after).all()


@pytest.mark.parametrize(("overlaps", "count", "largest"), [(True, 3, 50 << 20), (False, 77, 2 << 20)])
def test_pieces_cover_the_gradient_from_its_end_on(overlaps: bool, count: int, largest: int) -> None:
    net = fastbp.MLP([2000, 4000, 3000, 10], dtype="float32", seed=0)
    pieces = pieces_of(net, overlaps)
    assert len(pieces) == count and pieces[0][1] == net.n_parameters and pieces[-1][0] == 0
    assert all(before[0] == after[1] for before, after in pairwise(pieces))
    assert all(before[2] >= after[2] for before, after in pairwise(pieces))
    assert max(end - first for first, end, _ in pieces) * 4 < largest
    assert len(pieces_of(mlp()(), overlaps)) == 1


def test_an_optimizer_in_python_and_one_of_whole_steps() -> None:
    class Plain(fastbp.Optimizer):
        def update(self, parameters: Array, gradients: Array) -> None:
            parameters -= 0.1 * gradients

    for make in (Plain, lambda: fastbp.LBFGSB(max_iter=3)):
        net = mlp()()
        wanted = net.train_step(X, T, make())

        def run(comm: Any, make: Any = make) -> tuple[float, Array]:
            mine = mlp()()
            return mine.train_step(X[comm.rank :: 2], T[comm.rank :: 2], make(), comm=comm), mine.flat_parameters

        for loss, flat in distributed.run_in_threads(2, run):
            assert loss == pytest.approx(wanted, rel=1e-12)
            assert close(flat, net.flat_parameters, by=1e-7)


# ---- training --------------------------------------------------------------------------------------------------------


def alike(make: Make, optimizer: Callable[[], Any], by: float = 1e-11, n: int = 3, **options: Any) -> fastbp.History:
    """Train on one process and on several, and compare."""
    later = {name: value for name, value in options.items() if name in ("early_stopping", "average")}
    plain = {"x": X, "t": T, **{name: value for name, value in options.items() if name not in later}}

    def train(comm: Any) -> tuple[Array, fastbp.History]:
        net, fresh = make(), {name: value() for name, value in later.items()}
        arguments = {**plain, **fresh, "optimizer": optimizer(), "progress": False, "comm": comm}
        history = fastbp.train(net, **arguments)
        return net.flat_parameters.copy(), history

    flat, history = train(None)
    found = distributed.run_in_threads(n, train)
    for its, mine in found:
        assert close(its, flat, by)
        assert its.tobytes() == found[0][0].tobytes()
        assert mine.loss == pytest.approx(history.loss, rel=1e-10)
        assert mine.val_loss == pytest.approx(history.val_loss, rel=1e-10)
        assert mine.metrics.keys() == history.metrics.keys()
        for name, values in history.metrics.items():
            assert mine.metrics[name] == pytest.approx(values, rel=1e-10)
        assert (mine.stopped, mine.epochs, mine.steps) == (history.stopped, history.epochs, history.steps)
        assert mine.best_epoch == history.best_epoch
    return history


def adam() -> fastbp.Optimizer:
    return fastbp.Adam(lr=0.01)


def plateau() -> fastbp.Optimizer:
    return fastbp.SGD(lr=fastbp.schedules.ReduceOnPlateau(0.05, patience=1))


BATCHES = [(X[:10], T[:10]), (X[10:13], T[10:13], W[10:13]), (X[13:14], T[13:14])]
TRAININGS: dict[str, tuple[Make, Callable[[], Any], dict[str, Any]]] = {
    "plain": (mlp(), adam, {"epochs": 3, "batch_size": 10}),
    "small batches, ignored labels": (mlp(loss=IGNORING), lambda: fastbp.SGD(lr=0.1), {"epochs": 2, "batch_size": 2}),
    "weights, penalties, metrics": (
        mlp(l2=0.1),
        lambda: fastbp.Adam(lr=0.01, clip_norm=0.1),
        {
            "epochs": 3, "batch_size": 10, "sample_weight": W, "class_weight": "balanced", "validation_fraction": 0.2,
            "metrics": ["accuracy", "top_2"], "train_metrics": ["accuracy"],
        },
    ),
    "early stopping": (
        mlp(),
        lambda: fastbp.Adam(lr=0.05),
        {"epochs": 60, "batch_size": 10, "validation_fraction": 0.2, "early_stopping": fastbp.EarlyStopping},
    ),
    "plateau": (mlp(), plateau, {"epochs": 8, "batch_size": 10, "validation_data": (X[:9], T[:9])}),
    "accumulate, average": (
        mlp(),
        adam,
        {"epochs": 3, "batch_size": 10, "accumulate": 3, "sample_weight": W, "average": lambda: fastbp.EMA(0.9)},
    ),
    "accumulate, norm": (
        network(linear(20, 30), lambda: fastbp.BatchNorm(30), fastbp.ReLU, block, linear(30, 5)),
        lambda: fastbp.SGD(lr=0.1),
        {"epochs": 2, "batch_size": 7, "accumulate": 2},
    ),
    "norm, dropout, augment": (
        network(linear(20, 30), lambda: fastbp.BatchNorm(30), fastbp.ReLU, lambda: fastbp.Dropout(0.4), linear(30, 5)),
        lambda: fastbp.SGD(lr=0.1),
        {"epochs": 2, "batch_size": 10, "augment": lambda x, rng: x + rng.normal(size=x.shape)},
    ),
    "batches": (mlp(), adam, {"epochs": 2, "x": BATCHES, "t": None}),
    "a loss that is not finite": (mlp(), lambda: fastbp.SGD(lr=1e200), {"epochs": 3, "batch_size": 10, "by": np.inf}),
    "max_steps": (mlp(), adam, {"epochs": 3, "batch_size": 10, "max_steps": 7}),
    "units in Python": (IN_PYTHON, adam, {"epochs": 2, "batch_size": 10}),
}  # fmt: skip


@pytest.mark.usefixtures("sums")
@pytest.mark.parametrize("case", TRAININGS)
def test_training_is_that_of_one_process(case: str) -> None:
    make, optimizer, options = TRAININGS[case]
    history = alike(make, optimizer, **options)
    assert history.epochs or history.stopped


@pytest.mark.usefixtures("sums")
def test_own_rows_are_trained_as_batches_of_all_of_them() -> None:
    count, size = len(X), 10
    batches = -(-count // size)

    def run(comm: Any) -> tuple[Array, fastbp.History]:
        net = mlp()()
        x, t, w = parts(UNEVEN, comm.rank, X, T, W)
        history = fastbp.train(
            net, x, t, sample_weight=w, class_weight="balanced", optimizer=adam(), epochs=2, batch_size=size,
            shuffle=False, rows="own", train_metrics=["accuracy"], progress=False, comm=comm,
        )  # fmt: skip
        return net.flat_parameters.copy(), history

    def rows(b: int) -> Array:
        spans = [(first, end - first) for first, end in pairwise(UNEVEN)]
        return np.concatenate([np.arange(f + n * b // batches, f + n * (b + 1) // batches) for f, n in spans])

    weight = W * class_weights("balanced", T, 5)[T]
    net = mlp()()
    of_all = [(X[rows(b)], T[rows(b)], weight[rows(b)]) for b in range(batches)]
    history = fastbp.train(net, of_all, optimizer=adam(), epochs=2, progress=False)
    for flat, mine in distributed.run_in_threads(3, run):
        assert close(flat, net.flat_parameters, by=1e-11)
        assert mine.loss == pytest.approx(history.loss)
        assert mine.metrics["accuracy"][-1] == pytest.approx(np.average(net.predict(X) == T, weights=weight))


def test_own_rows_are_shuffled_and_validated() -> None:
    def run(comm: Any) -> tuple[Array, fastbp.History]:
        net = mlp()()
        x, t = parts((0, 10, 21, 37), comm.rank, X, T)
        history = fastbp.train(
            net, x, t, optimizer=adam(), epochs=2, validation_fraction=0.2, metrics=["accuracy"], rows="own",
            progress=False, comm=comm,
        )  # fmt: skip
        return net.flat_parameters.copy(), history

    found = distributed.run_in_threads(3, run)
    assert all(flat.tobytes() == found[0][0].tobytes() for flat, _ in found)
    assert all(history.val_loss == found[0][1].val_loss for _, history in found)


def test_own_rows_for_validation_may_be_none_and_have_weights_on_one_rank_alone() -> None:
    def run(comm: Any) -> fastbp.History:
        x, t, w = parts(UNEVEN, comm.rank, X, T, W)
        return fastbp.train(
            mlp()(), x, t, sample_weight=w if comm.rank == 0 else None, optimizer=adam(), epochs=2, rows="own",
            validation_fraction=0.3, metrics=["accuracy"], class_weight={4: 2.0}, progress=False, comm=comm,
        )  # fmt: skip

    found = distributed.run_in_threads(3, run)
    assert all(history.val_loss == found[0].val_loss and len(history.val_loss) == 2 for history in found)


def test_validation_data_of_own_rows_are_those_of_all_ranks() -> None:
    def run(comm: Any) -> fastbp.History:
        x, t, w = parts(UNEVEN, comm.rank, X, T, W)
        return fastbp.train(
            mlp()(), x, t, optimizer=fastbp.SGD(lr=0.0), epochs=1, rows="own", validation_data=(x, t, w),
            metrics=["accuracy", "top_2"], progress=False, comm=comm,
        )  # fmt: skip

    history = fastbp.train(
        mlp()(), X, T, optimizer=fastbp.SGD(lr=0.0), epochs=1, validation_data=(X, T, W), metrics=["accuracy", "top_2"],
        progress=False,
    )  # fmt: skip
    for mine in distributed.run_in_threads(3, run):
        assert mine.val_loss == pytest.approx(history.val_loss, rel=1e-12)
        assert mine.metrics == {name: pytest.approx(values) for name, values in history.metrics.items()}


def test_resume_with_another_number_of_ranks(tmp_path: Path) -> None:
    def train(comm: Any, epochs: int, resume: bool) -> Array:
        net = TRAININGS["norm, dropout, augment"][0]()
        fastbp.train(
            net, X, T, optimizer=fastbp.SGD(lr=0.1), epochs=epochs, batch_size=10, checkpoint=tmp_path / "run.npz",
            resume=resume, progress=False, comm=comm,
        )  # fmt: skip
        return net.flat_parameters.copy()

    distributed.run_in_threads(3, lambda comm: train(comm, 2, False))
    found = distributed.run_in_threads(2, lambda comm: train(comm, 4, True))
    net = TRAININGS["norm, dropout, augment"][0]()
    fastbp.train(net, X, T, optimizer=fastbp.SGD(lr=0.1), epochs=4, batch_size=10, progress=False)
    assert close(found[0], net.flat_parameters, by=1e-11) and close(found[1], net.flat_parameters, by=1e-11)


def test_rank_0_alone_reports(capsys: pytest.CaptureFixture[str]) -> None:
    distributed.run_in_threads(
        2, lambda comm: fastbp.train(mlp()(), X, T, optimizer=adam(), epochs=2, progress="lines", comm=comm)
    )
    assert capsys.readouterr().err.count("epoch 2/2") == 1


def test_broadcast_makes_all_ranks_alike() -> None:
    def run(comm: Any) -> tuple[Array, int, Array]:
        net, optimizer = fastbp.MLP([20, 5], dtype="float64", seed=comm.rank), fastbp.Adam(lr=0.1 + comm.rank)
        for _ in range(comm.rank + 1):
            net.train_step(X, T, optimizer)
        distributed.broadcast(net, optimizer, comm=comm, root=1)
        fastbp.train(net, X, T, optimizer=optimizer, epochs=1, progress=False, comm=comm)
        return net.flat_parameters.copy(), net.steps, optimizer.state_for(net).arrays["m"].copy()

    found = distributed.run_in_threads(3, run)
    assert all(np.array_equal(one, other) for its in found[1:] for one, other in zip(its, found[0], strict=True))


def test_using_splits_the_rows_of_scikit_learns_estimators() -> None:
    sklearn = pytest.importorskip("fastbp.sklearn")
    y = X[:, 0] + X[:, 1]

    for make, targets in (
        (lambda: sklearn.MLPClassifier((16,), max_iter=5, random_state=0, batch_size=8, dropout=0.3), T),
        (lambda: sklearn.MLPRegressor(max_iter=5, random_state=0, batch_size=8, early_stopping=True, l1=0.01), y),
        (lambda: sklearn.MLPRegressor(max_iter=5, random_state=0, solver="lbfgs"), y),
    ):
        with pytest.warns(Warning):  # five epochs are few
            alone = make().fit(X, targets)

        def run(comm: Any, make: Any = make, targets: Any = targets) -> Any:
            with distributed.using(comm):
                return make().fit(X, targets)

        with pytest.warns(Warning):
            found = distributed.run_in_threads(3, run)
        for its in found:
            assert its.n_iter_ == alone.n_iter_ and its.loss_ == pytest.approx(alone.loss_, rel=1e-7)
            for mine, wanted in zip(its.coefs_, alone.coefs_, strict=True):
                assert close(mine, wanted, by=1e-6)


def test_fits_side_by_side_under_using_raise() -> None:
    sklearn = pytest.importorskip("fastbp.sklearn")

    def run(comm: Any) -> None:
        with distributed.using(comm):
            sklearn.fit_many([sklearn.MLPClassifier(random_state=0)], X, T)

    assert all("one after another" in one for one in errors_of(2, run))


# ---- faults ----------------------------------------------------------------------------------------------------------


def errors_of(n: int, function: Callable[[Any], Any]) -> list[str]:
    """Return what a function raises on each rank."""

    def run(comm: Any) -> str:
        try:
            function(comm)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"

    return distributed.run_in_threads(n, run)


@pytest.mark.usefixtures("sums")
def test_a_wrong_argument_on_one_rank_raises_on_all_and_changes_nothing() -> None:
    def run(comm: Any) -> None:
        net = mlp()()
        before = net.flat_parameters.copy()
        with pytest.raises((ValueError, distributed.RankError)) as caught:
            net.train_step(X[:5, :3] if comm.rank == 1 else X[:5], T[:5], adam(), comm=comm)
        assert (net.flat_parameters == before).all() and net.steps == 0
        raise caught.value

    found = errors_of(3, run)
    assert found[1].startswith("ValueError: x has shape (5, 3)")
    assert found[0] == found[2] and found[0].startswith("RankError: rank 1 of 3: ValueError: x has shape (5, 3)")


@pytest.mark.usefixtures("sums")
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda comm: mlp()().train_step(X, T, adam(), reduction=["mean", "sum"][comm.rank], comm=comm), "reduction"),
        (lambda comm: fastbp.MLP([20, 5], seed=comm.rank, dtype="float64").value_and_grad(X, T, comm=comm), "seed"),
        (lambda comm: mlp()().value_and_grad(X[:0], T[:0], comm=comm), "no rank has a row"),
        (lambda comm: mlp()().value_and_grad(X, T, sample_weight=np.zeros(37), comm=comm), "sample_weight sums to"),
        (lambda comm: mlp(loss=IGNORING)().value_and_grad(X, np.full(37, 4), comm=comm), "ignored"),
        (lambda comm: fastbp.train(mlp()(), X, T, optimizer=adam(), epochs=1 + comm.rank, comm=comm), "epochs is 1"),
        (lambda comm: fastbp.train(mlp()(), X, T, optimizer=adam(), rows="mine", comm=comm), "rows"),
        (lambda comm: fastbp.train(mlp()(), X, T, optimizer=adam(), metrics=["a"] * comm.rank, comm=comm), "metric"),
    ],
)  # fmt: skip
def test_ranks_that_differ_raise_on_both(function: Callable[[Any], Any], message: str) -> None:
    found = errors_of(2, function)
    assert all(message in one for one in found), found


def test_bits_that_differ_raise_on_both() -> None:
    def run(comm: Any) -> None:
        def spoil(net: fastbp.Network, history: fastbp.History) -> None:
            net.flat_parameters[0] += 1e-12 * comm.rank

        fastbp.train(mlp()(), X, T, optimizer=adam(), epochs=3, callbacks=[spoil], progress=False, comm=comm)

    found = errors_of(2, run)
    assert all(one.startswith("RankError: parameters") and "rank 1 of 2 differ" in one for one in found)


def test_a_rank_that_stops_ends_the_training_of_all() -> None:
    def run(comm: Any) -> fastbp.History:
        def stop(net: fastbp.Network, history: fastbp.History) -> None:
            if comm.rank == 1 and history.epochs == 2:
                raise fastbp.StopTraining("rank 1 has enough")

        return fastbp.train(mlp()(), X, T, optimizer=adam(), epochs=9, callbacks=[stop], progress=False, comm=comm)

    for history in distributed.run_in_threads(3, run):
        assert history.stopped == "rank 1 has enough" and history.epochs == 2


def failing_training(comm: Any, rng: np.random.Generator) -> None:
    """Train, and fail on one rank at some moment; afterwards train on as if nothing had been."""
    culprit, moment, where = int(rng.integers(comm.size)), int(rng.integers(1, 12)), int(rng.integers(5))
    unit, calls = Scale(30), [0]
    norms = [fastbp.BatchNorm(30), unit, fastbp.BatchNorm(30)] if rng.random() < 0.5 else [unit]
    net = fastbp.Network(
        fastbp.Linear(20, 30), *norms, fastbp.Linear(30, 5), loss="softmax_nll", dtype="float64", seed=1
    )

    def now(name: str) -> bool:
        calls[0] += 1
        return name == ("forward", "backward", "augment", "callback", "metric")[where] and calls[0] >= moment

    def fail(name: str) -> None:
        if comm.rank == culprit and now(name):
            raise ZeroDivisionError(f"in {name}")

    class Callback(fastbp.Callback):
        def on_batch_end(self, net: fastbp.Network, history: fastbp.History, batch: fastbp.BatchInfo) -> None:
            unit.fails = (
                ("forward", "backward", "")[min(where, 2)] if comm.rank == culprit and calls[0] > moment else ""
            )
            fail("callback")

    def augment(x: Array, rng: Any) -> Array:
        fail("augment")
        return x

    def error(t: Array, y: Array) -> float:
        fail("metric")
        return 0.0

    options: dict[str, Any] = {"optimizer": fastbp.SGD(lr=0.1), "batch_size": 10, "progress": False, "comm": comm}
    with pytest.raises((ZeroDivisionError, distributed.RankError)) as caught:
        fastbp.train(net, X, T, epochs=50, callbacks=[Callback()], augment=augment, train_metrics=[error], **options)
    assert isinstance(caught.value, ZeroDivisionError if comm.rank == culprit else distributed.RankError)
    assert comm.rank == culprit or f"rank {culprit} of {comm.size}: ZeroDivisionError" in str(caught.value)
    unit.fails = ""
    distributed.broadcast(net, comm=comm)
    fastbp.train(net, X, T, epochs=1, **options)


@pytest.mark.usefixtures("sums")
@pytest.mark.parametrize("first", range(0, 50, 10))
def test_errors_at_random_moments_are_raised_on_all_ranks(first: int) -> None:
    for seed in range(first, first + 10):
        distributed.run_in_threads(3, lambda comm, seed=seed: failing_training(comm, np.random.default_rng(seed)))


class Flaky:
    """A communicator one of whose sums fails, at its start or while it is on its way."""

    def __init__(self, comm: Any, moment: int, at_start: bool) -> None:
        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        self.on_one_machine = comm.on_one_machine
        self.moment, self.at_start = moment, at_start

    def _now(self) -> bool:
        self.moment -= 1
        return self.moment == 0

    def allreduce(self, buffer: Array) -> None:
        if self._now():
            raise ConnectionError("the wire is cut")
        self.comm.allreduce(buffer)

    def broadcast(self, buffer: Array, root: int) -> None:
        self.comm.broadcast(buffer, root)

    def start_allreduce(self, buffer: Array) -> Any:
        if not self._now():
            return self.comm.start_allreduce(buffer)
        if self.at_start:
            raise ConnectionError("the wire is cut")
        self.comm.start_allreduce(buffer)
        return self

    def test(self) -> bool:
        raise ConnectionError("the wire is cut")

    wait = test


@pytest.mark.usefixtures("sums")
@pytest.mark.parametrize("first", range(0, 50, 10))
def test_sums_that_fail_at_random_moments_end_all_ranks(first: int) -> None:
    ended = []

    def run(comm: Any, seed: int) -> None:
        rng = np.random.default_rng(seed)
        culprit, moment, at_start = int(rng.integers(3)), int(rng.integers(1, 60)), bool(rng.integers(2))
        net = fastbp.MLP([20, 600, 600, 5], dtype="float64", seed=0) if rng.random() < 0.5 else WITH_NORM()
        mine = Flaky(comm, moment, at_start) if comm.rank == culprit else comm
        try:
            fastbp.train(net, X, T, optimizer=adam(), epochs=50, batch_size=10, progress=False, comm=mine)
        except (ConnectionError, distributed.RankError) as error:
            ended.append(comm.rank)
            assert comm.rank != culprit or "the wire is cut" in f"{error}", error
            raise

    for seed in range(first, first + 10):
        ended.clear()
        with pytest.raises((ConnectionError, distributed.RankError)):
            distributed.run_in_threads(3, lambda comm, seed=seed: run(comm, seed))
        assert sorted(ended) == [0, 1, 2]


def test_batches_that_end_on_one_rank_first_raise_on_all() -> None:
    def run(comm: Any) -> None:
        batches = [(X[:10], T[:10])] * (3 + comm.rank)
        fastbp.train(mlp()(), batches, optimizer=adam(), rows="own", progress=False, comm=comm)

    assert all("rank 0 has no more batches in this epoch, but rank 1 has" in one for one in errors_of(2, run))


def test_own_batches_are_parts_of_one() -> None:
    def run(comm: Any) -> Array:
        net = mlp()()
        batches = [(X[comm.rank : 10 : 2], T[comm.rank : 10 : 2]), (X[10 + comm.rank : 12], T[10 + comm.rank : 12])]
        fastbp.train(net, batches, optimizer=adam(), epochs=2, rows="own", progress=False, comm=comm)
        return net.flat_parameters.copy()

    net = mlp()()
    rows = [*range(10, 12), 11]
    of_all = [(X[:10], T[:10]), (X[rows], T[rows])]
    fastbp.train(net, of_all, optimizer=adam(), epochs=2, progress=False)
    assert all(close(flat, net.flat_parameters, by=1e-11) for flat in distributed.run_in_threads(2, run))


def test_other_rows_under_split_raise() -> None:
    found = errors_of(2, lambda comm: fastbp.train(mlp()(), X, (T + comm.rank) % 5, optimizer=adam(), comm=comm))
    assert all('rows="own"' in one for one in found)


def test_jobs_of_fit_many_have_no_ranks() -> None:
    job = (mlp()(), X, T, adam())
    with pytest.raises(ValueError, match="comm is for train"):
        distributed.run_in_threads(2, lambda comm: fastbp.fit_many([job], comm=comm))


def test_a_thread_that_ends_ends_the_others() -> None:
    def run(comm: Any) -> None:
        if comm.rank == 1:
            raise KeyError("gone")
        comm.allreduce(np.zeros(1))

    with pytest.raises(KeyError, match="gone"):
        distributed.run_in_threads(3, run)


# ---- the protocol ----------------------------------------------------------------------------------------------------


def test_something_else_is_no_communicator() -> None:
    net = mlp()()
    for call in (
        lambda: net.value_and_grad(X, T, comm="all"),
        lambda: net.train_step(X, T, adam(), comm="all"),
        lambda: fastbp.train(net, X, T, optimizer=adam(), comm="all"),
        lambda: distributed.broadcast(net, comm="all"),
        lambda: distributed.using("all").__enter__(),
    ):
        with pytest.raises(TypeError, match="comm must have rank, size"):
            call()


def test_sums_and_copies_among_threads() -> None:
    def run(comm: Any) -> tuple[Array, Array, bool]:
        buffers = [np.full(3, comm.rank + 1.0), np.full(2, comm.rank, np.int64)]
        handles = [comm.start_allreduce(buffer) for buffer in buffers]
        for handle in handles[::-1]:
            handle.wait()
        sent = np.full(2, comm.rank, np.uint8)
        comm.broadcast(sent, 2)
        return buffers[0], sent, all(handle.test() for handle in handles)

    for total, sent, is_over in distributed.run_in_threads(3, run):
        assert total.tolist() == [6, 6, 6] and sent.tolist() == [2, 2] and is_over


def test_calls_that_differ_among_threads_raise() -> None:
    found = errors_of(2, lambda comm: comm.allreduce(np.zeros(2 + comm.rank)))
    assert all("RankError" in one for one in found)


def test_rows_and_objects_come_to_all_ranks() -> None:
    def run(comm: Any) -> tuple[Array, Any]:
        ranks = core_ranks.Ranks(comm)
        return ranks.rows(np.full((comm.rank, 2), comm.rank, np.float32)), ranks.sent({"rank": comm.rank}, 1)

    for rows, sent in distributed.run_in_threads(3, run):
        assert rows.tolist() == [[1, 1], [2, 2], [2, 2]] and rows.dtype == np.float32
        assert sent == {"rank": 1}


def test_ctrl_c_is_noted_and_raised_at_the_end_of_the_block() -> None:
    deferral = core_ranks.Deferral()
    with pytest.raises(KeyboardInterrupt), deferral:
        signal.raise_signal(signal.SIGINT)
        assert deferral.noted
    assert not deferral.noted
    with pytest.raises(KeyboardInterrupt), deferral:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one is raised at once")
    assert threading.current_thread() is threading.main_thread()


def test_processors_are_divided_among_those_who_may_run_there() -> None:
    both, apart = [[0, 1, 2, 3]] * 2, [[0, 1], [2, 3]]
    assert share_of(both[0], both) == 2 and share_of(apart[0], apart) == 2
    assert share_of([0], [[0], [0], [0]]) == 1


# ---- batch norm over each rank's own rows ----------------------------------------------------------------------------

UNSYNCED = network(linear(20, 30), lambda: fastbp.BatchNorm(30, sync=False), fastbp.ReLU, linear(30, 5))
UNSYNCED_IMAGES = network(
    lambda: fastbp.Conv2d(3, 4, 3), lambda: fastbp.BatchNorm2d(4, sync=False), fastbp.ReLU,
    lambda: fastbp.MaxPool2d(2), fastbp.Flatten, linear(36, 5), input_shape=(3, 8, 8),
)  # fmt: skip


@pytest.mark.parametrize(
    ("make", "x", "t"), [(UNSYNCED, X, T), (UNSYNCED_IMAGES, IMAGES, CLASSES)], ids=["rows", "images"]
)
def test_unsynced_norms_normalise_by_own_rows(make: Make, x: Any, t: Any) -> None:
    """The gradient is the mean of those of each rank's rows by themselves, and so are the running moments."""
    cuts = (0, 4, 12)
    alone = []
    for rank in range(2):
        net = make()
        loss, grads = net.value_and_grad(*parts(cuts, rank, x, t))
        alone.append((loss, grads.flat.copy(), net.state))
    weights = np.diff(cuts) / cuts[-1]

    def on_rank(comm: Any) -> Any:
        net = make()
        loss, grads = net.value_and_grad(*parts(cuts, comm.rank, x, t), comm=comm)
        return loss, grads.flat.copy(), net.state

    for loss, flat, state in distributed.run_in_threads(2, on_rank):
        assert close(loss, sum(w * one[0] for w, one in zip(weights, alone, strict=True)))
        assert close(flat, sum(w * one[1] for w, one in zip(weights, alone, strict=True)))
        for name, values in state.items():
            assert close(values, (alone[0][2][name] + alone[1][2][name]) / 2)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_with_unsynced_norms_is_alike_on_all_ranks(accumulate: int) -> None:
    def on_rank(comm: Any) -> Any:
        net = network(
            linear(20, 30), lambda: fastbp.BatchNorm(30, sync=False), fastbp.ReLU, block, linear(30, 5)
        )()  # the block's norm is synced
        fastbp.train(
            net, X[:36], T[:36], optimizer=fastbp.Adam(), epochs=3, batch_size=12, accumulate=accumulate,
            progress=False, comm=comm,
        )  # fmt: skip
        return net

    first, second = distributed.run_in_threads(2, on_rank)
    np.testing.assert_array_equal(first.flat_parameters, second.flat_parameters)
    for name, values in first.state.items():
        np.testing.assert_array_equal(values, second.state[name])
        assert not np.array_equal(values, WITH_NORM().state[name])


@pytest.mark.parametrize("moment", [0, 1, 2, 3, 4])
def test_an_error_between_the_sums_of_norms_is_raised_on_all_ranks(moment: int) -> None:
    """Of several batches for one step: a unit between two norms fails on rank 1, in some forward pass."""

    def on_rank(comm: Any) -> str:
        forwards = [0]

        class Failing(Scale):
            def forward(self, x: Any) -> Any:
                forwards[0] += 1
                if comm.rank == 1 and forwards[0] == 1 + moment:
                    raise ZeroDivisionError("in forward")
                return super().forward(x)

        net = network(
            linear(20, 30), lambda: fastbp.BatchNorm(30), lambda: Failing(30), lambda: fastbp.BatchNorm(30),
            linear(30, 5),
        )()  # fmt: skip
        before = net.flat_parameters.copy()
        with pytest.raises((ZeroDivisionError, distributed.RankError), match="in forward") as raised:
            fastbp.train(
                net, X[:36], T[:36], optimizer=fastbp.SGD(lr=0.1), epochs=2, batch_size=6, accumulate=3,
                shuffle=False, progress=False, comm=comm,
            )  # fmt: skip
        assert np.array_equal(net.flat_parameters, before) == (moment < 3)  # a step has three batches
        return type(raised.value).__name__

    assert distributed.run_in_threads(2, on_rank) == ["RankError", "ZeroDivisionError"]


def test_unsynced_norms_need_two_rows_on_a_rank_or_none() -> None:
    def one_row(comm: Any) -> str:
        with pytest.raises((ValueError, distributed.RankError), match="at least 2 rows") as raised:
            UNSYNCED().value_and_grad(*parts((0, 1, 9), comm.rank, X, T), comm=comm)
        return type(raised.value).__name__

    def no_row(comm: Any) -> Any:
        net = UNSYNCED()
        _, grads = net.value_and_grad(*parts((0, 0, 9), comm.rank, X, T), comm=comm)
        return grads.flat, net.state

    assert distributed.run_in_threads(2, one_row) == ["ValueError", "RankError"]
    alone = UNSYNCED()
    _, grads = alone.value_and_grad(X[:9], T[:9])
    for flat, state in distributed.run_in_threads(2, no_row):
        assert close(flat, grads.flat)
        assert all(close(values, alone.state[name]) for name, values in state.items())


def test_ranks_of_which_one_syncs_its_norms_raise() -> None:
    def differs(comm: Any) -> None:
        net = network(linear(20, 30), lambda: fastbp.BatchNorm(30, sync=comm.rank == 1), linear(30, 5))()
        with pytest.raises(distributed.RankError, match="differ from those of rank 0"):
            net.value_and_grad(X, T, comm=comm)

    distributed.run_in_threads(2, differs)


def test_whether_a_norm_is_synced_is_saved(tmp_path: Path) -> None:
    UNSYNCED().save(tmp_path / "net.npz")
    assert repr(fastbp.load(tmp_path / "net.npz").units[1]) == "BatchNorm(30, sync=False)"
    assert fastbp.BatchNorm(3).sync and not fastbp.BatchNorm2d(3, sync=False).sync
    with pytest.raises(TypeError, match="sync"):
        fastbp.BatchNorm(3, sync="no")  # type: ignore[arg-type]
