"""Beside dask, dask-ml and joblib's dask backend: a cluster of processes has the results of one process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from processes import PLACE

import fastbp
from fastbp import distributed
from fastbp.random import Philox, stream_number

pytestmark = [pytest.mark.dask, pytest.mark.filterwarnings("default")]  # dask's and its servers' own, in many threads

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("distributed")

N, D, K = 1200, 20, 5
RNG = np.random.default_rng(0)
X, Y, W = RNG.normal(size=(N, D)), RNG.integers(0, K, N), RNG.random(N)
BLOCK = 100


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Four workers of one thread each, which are processes."""
    places = [str(PLACE), os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]
    with (
        pytest.MonkeyPatch.context() as patch,
        dask.config.set({"distributed.comm.timeouts.connect": "100s", "distributed.admin.log-format": "%(message)s"}),
    ):
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
        options = {"n_workers": 4, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        with dd.LocalCluster(**options) as cluster, dd.Client(cluster) as made:
            yield made


def blocks(x: Any = X, t: Any = Y) -> tuple[Any, Any]:
    return da.from_array(x, chunks=(BLOCK, D)), da.from_array(t, chunks=BLOCK)


# ---- estimators ------------------------------------------------------------------------------------------------------


def targets(kind: str) -> tuple[Any, dict[str, Any]]:
    return (Y, {"classes": np.arange(K)}) if kind == "MLPClassifier" else (X[:, 0] ** 2, {})


def by_hand(est: Any, t: Any, **options: Any) -> Any:
    for first in range(0, N, BLOCK):
        est.partial_fit(X[first : first + BLOCK], t[first : first + BLOCK], **options)
    return est


def parameters(est: Any) -> Any:
    return np.concatenate([array.ravel() for array in (*est.coefs_, *est.intercepts_)])


@pytest.mark.parametrize(
    ("kind", "solver"),
    [("MLPClassifier", "adam"), ("MLPClassifier", "sgd"), ("MLPRegressor", "adam"), ("MLPRegressor", fastbp.AdamW())],
    ids=str,
)
def test_incremental_is_partial_fit_of_the_same_blocks(client: Any, kind: str, solver: Any) -> None:
    from dask_ml.wrappers import Incremental
    from sklearn import neural_network

    import fastbp.sklearn

    t, options = targets(kind)
    settings = {"hidden_layer_sizes": (30,), "solver": solver, "random_state": 0}
    x, y = client.persist([*blocks(t=t)])  # on all workers: the estimator goes from one to another
    made = Incremental(getattr(fastbp.sklearn, kind)(**settings), shuffle_blocks=False).fit(x, y, **options)
    alone = by_hand(getattr(fastbp.sklearn, kind)(**settings), t, **options)
    assert (parameters(made.estimator_) == parameters(alone)).all()
    assert made.estimator_.loss_curve_ == alone.loss_curve_
    assert (made.predict(x).compute()[:BLOCK] == alone.predict(X[:BLOCK])).all()
    if solver in ("adam", "sgd"):
        theirs = by_hand(getattr(neural_network, kind)(**settings), t, **options)
        assert np.abs(parameters(theirs) - parameters(alone)).max() < 1e-12


def test_incremental_goes_on(client: Any) -> None:
    from dask_ml.wrappers import Incremental

    from fastbp.sklearn import MLPClassifier

    made = Incremental(MLPClassifier((30,), random_state=0), shuffle_blocks=False)
    alone = MLPClassifier((30,), random_state=0)
    for _ in range(2):
        made.partial_fit(*blocks(), classes=np.arange(K))
        by_hand(alone, Y, classes=np.arange(K))
    assert (parameters(made.estimator_) == parameters(alone)).all()


def test_predictions_of_a_fitted_estimator_are_those_of_each_block(client: Any) -> None:
    from dask_ml.wrappers import ParallelPostFit

    from fastbp.sklearn import MLPClassifier

    est = by_hand(MLPClassifier((30,), random_state=0), Y, classes=np.arange(K))
    made = ParallelPostFit(est).predict_proba(blocks()[0]).compute()
    assert all((made[i : i + BLOCK] == est.predict_proba(X[i : i + BLOCK])).all() for i in range(0, N, BLOCK))


def with_dask(function: Callable[[], Any]) -> Any:
    import joblib

    with joblib.parallel_config("dask"):
        return function()


@pytest.mark.parametrize("search", ["sklearn.model_selection", "fastbp.sklearn"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_search_on_the_workers_has_the_results_of_one_process(client: Any, search: str) -> None:
    import importlib

    from fastbp.sklearn import MLPClassifier

    def fit() -> Any:
        est = MLPClassifier((16,), max_iter=5, random_state=0)
        return importlib.import_module(search).GridSearchCV(est, {"alpha": [1e-4, 10.0]}, cv=3).fit(X, Y)

    alone, together = fit(), with_dask(fit)
    for name in ("mean_test_score", "split0_test_score"):
        assert (together.cv_results_[name] == alone.cv_results_[name]).all()
    assert (parameters(together.best_estimator_) == parameters(alone.best_estimator_)).all()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scores_and_bags_on_the_workers_are_those_of_one_process(client: Any) -> None:
    from sklearn.ensemble import BaggingClassifier
    from sklearn.model_selection import cross_val_score

    from fastbp.sklearn import MLPClassifier

    est = MLPClassifier((16,), max_iter=5, random_state=0)
    bag = BaggingClassifier(est, n_estimators=4, random_state=0, n_jobs=4)
    assert (with_dask(lambda: cross_val_score(est, X, Y, cv=4)) == cross_val_score(est, X, Y, cv=4)).all()
    together, alone = with_dask(lambda: bag.fit(X, Y).estimators_), bag.set_params(n_jobs=1).fit(X, Y).estimators_
    assert all((parameters(a) == parameters(b)).all() for a, b in zip(together, alone, strict=True))


# ---- threads ---------------------------------------------------------------------------------------------------------


def test_a_worker_that_a_nanny_starts_has_one_thread(client: Any) -> None:
    assert set(client.run(fastbp.get_num_threads).values()) == {1}


def test_the_environment_of_workers_sets_their_threads() -> None:
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": True, "dashboard_address": None}
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ.FASTBP_NUM_THREADS": 3}),
        dd.LocalCluster(**options) as cluster,
        dd.Client(cluster) as client,
    ):
        assert set(client.run(fastbp.get_num_threads).values()) == {3}


@pytest.mark.parametrize(("given", "expected"), [(None, 1), (3, 3)])
def test_ranks_have_the_threads_of_their_worker(client: Any, given: int | None, expected: int) -> None:
    def n_threads(t: Any, y: Any) -> float:
        return fastbp.get_num_threads()

    history = trained(client, plain(), 2, n_threads=given, train_metrics=[n_threads])[1]
    assert history.metrics["n_threads"] == [expected] * 2


# ---- one network on all workers --------------------------------------------------------------------------------------


def plain() -> fastbp.Network:
    return fastbp.MLP([D, 300, K], dtype="float64", seed=1)


def trained(client: Any, net: fastbp.Network, size: int, **options: Any) -> tuple[Any, Any]:
    options = {"optimizer": fastbp.Adam(), "epochs": 2, "batch_size": 120, **options}
    workers = sorted(client.nthreads())[:size]
    history = distributed.train_dask(net, *blocks(), client=client, workers=workers, **options)
    return net.flat_parameters.copy(), history


def same_batches(size: int, batch_size: int = 120) -> Callable[[int], Iterator[Any]]:
    """Return the batches of ranks with equal parts of the rows: of each a part of its own shuffle."""
    mine, n = N // size, N // batch_size

    def batches(epoch: int) -> Iterator[Any]:
        order = Philox(0, stream_number("shuffle", epoch)).permutation(mine)
        for i in range(n):
            place = order[mine * i // n : mine * (i + 1) // n]
            rows = np.concatenate([rank * mine + place for rank in range(size)])
            yield X[rows], Y[rows], W[rows]

    return batches


@pytest.mark.parametrize("size", [1, 2, 4])
def test_training_is_that_of_one_process(client: Any, size: int) -> None:
    alone, optimizers = plain(), (fastbp.Adam(), fastbp.Adam())
    options = {"epochs": 3, "validation_data": (X[:99], Y[:99]), "metrics": ["accuracy"], "progress": False}
    wanted = fastbp.train(alone, same_batches(size), optimizer=optimizers[0], **options)
    del options["progress"]
    found, again = [
        trained(client, plain(), size, optimizer=optimizer, sample_weight=W, **options)
        for optimizer in (optimizers[1], fastbp.Adam())
    ]
    assert np.abs(found[0] - alone.flat_parameters).max() < 1e-12
    assert (found[0] == again[0]).all() and found[1].loss == again[1].loss
    for name in ("loss", "val_loss"):
        assert np.abs(np.subtract(getattr(found[1], name), getattr(wanted, name))).max() < 1e-12
    assert found[1].metrics == wanted.metrics and found[1].steps == wanted.steps


def test_networks_with_state_optimizers_and_averages_go_on(client: Any) -> None:
    made = []
    for how in ("dask", "threads"):
        net = fastbp.Network(
            fastbp.Linear(D, 40), fastbp.BatchNorm(40), fastbp.Tanh(), fastbp.Dropout(0.3), fastbp.Linear(40, K),
            loss="softmax_nll", dtype="float64", seed=3,
        )  # fmt: skip
        optimizer, average = fastbp.Adam(lr=fastbp.schedules.StepDecay(0.01, every=15)), fastbp.EMA(0.9)
        for _ in range(2):
            options = {"optimizer": optimizer, "average": average}
            if how == "dask":
                trained(client, net, 2, **options)
            else:
                net, optimizer, average = in_threads(net, **options)
        made.append((net, average.values(net), optimizer.state_for(net).step))
    (ours, our_average, our_step), (theirs, their_average, their_step) = made
    assert np.abs(ours.flat_parameters - theirs.flat_parameters).max() < 1e-12
    assert np.abs(our_average - their_average).max() < 1e-12
    assert our_step == their_step == 40 and ours.steps == theirs.steps
    assert all(np.abs(ours.state[name] - theirs.state[name]).max() < 1e-12 for name in ours.state)


def in_threads(net: fastbp.Network, *, optimizer: Any, average: Any) -> tuple[Any, Any, Any]:
    """Train on two ranks in threads of this process; return what rank 0 has."""
    import copy
    import pickle

    from fastbp.training import checkpoint

    tree, of_average = checkpoint.pack(net, optimizer, None), average.get_state(net)

    def run(comm: Any) -> tuple[Any, Any, Any]:
        its = net if comm.rank == 0 else pickle.loads(pickle.dumps(net))
        how, what = (optimizer, average) if comm.rank == 0 else copy.deepcopy((optimizer, average))
        if comm.rank:
            checkpoint.unpack("tree", tree, its, how)
            what.set_state(its, of_average)
        rows = slice(comm.rank * N // 2, (comm.rank + 1) * N // 2)
        options = {"epochs": 2, "batch_size": 120, "progress": False, "comm": comm, "rows": "own", "average": what}
        fastbp.train(its, X[rows], Y[rows], optimizer=how, **options)
        return its, how, what

    return distributed.run_in_threads(2, run)[0]


def test_blocks_of_any_length_are_trained_on(client: Any) -> None:
    x, t = da.from_array(X, chunks=((700, 0, 13, 487), (7, 13))), da.from_array(Y, chunks=331)
    net = plain()
    history = distributed.train_dask(net, x, t, optimizer=fastbp.SGD(lr=0.1), epochs=1, batch_size=N, client=client)
    alone = plain()
    wanted = fastbp.train(alone, X, Y, optimizer=fastbp.SGD(lr=0.1), epochs=1, batch_size=N, progress=False)
    assert abs(history.loss[0] - wanted.loss[0]) < 1e-12
    assert np.abs(net.flat_parameters - alone.flat_parameters).max() < 1e-12


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def assert_usable(client: Any) -> None:
    """All four workers train, after what went before, and no process is left in a group."""
    client.wait_for_workers(4)
    first, second = (trained(client, plain(), 4)[0] for _ in range(2))
    assert (first == second).all()
    assert set(client.run(in_group).values()) == {False}


def in_group() -> bool:
    import torch.distributed as dist

    return bool(dist.is_initialized())


def fail_on_rank_2(net: Any, history: Any) -> None:
    rank = int(dd.get_worker().get_current_task().rpartition("-")[2])
    if rank == 2 and len(history.loss) == 2:
        raise ZeroDivisionError("in a callback")


def test_an_error_of_one_rank_names_it(client: Any) -> None:
    net = plain()
    before = net.flat_parameters.copy()
    with pytest.raises(ZeroDivisionError, match="in a callback") as caught:
        trained(client, net, 4, epochs=5, callbacks=[fail_on_rank_2])
    assert any("rank 2 of 4, on the worker tcp://" in note for note in caught.value.__notes__)
    assert (net.flat_parameters == before).all()
    assert_usable(client)


def test_an_error_of_a_block_is_raised(client: Any) -> None:
    x = blocks()[0].map_blocks(lambda block: block / 0 if len(block) == 0 else np.linalg.inv(block), dtype=X.dtype)
    with pytest.raises(np.linalg.LinAlgError):
        distributed.train_dask(plain(), x, blocks()[1], optimizer=fastbp.Adam(), client=client)


def kill_rank_1(net: Any, history: Any) -> None:
    if dd.get_worker().get_current_task().endswith("-1"):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_ends_the_training(client: Any) -> None:
    net = plain()
    before, started = net.flat_parameters.copy(), time.monotonic()
    with pytest.raises(distributed.RankError, match=r"rank 1 of 4 has been lost|a sum over all ranks has failed"):
        trained(client, net, 4, epochs=50, callbacks=[kill_rank_1])
    assert (net.flat_parameters == before).all()
    assert time.monotonic() - started < 300  # and not the 600 seconds of the timeout; the machine may be busy
    assert_usable(client)


def test_ctrl_c_at_the_client_ends_the_ranks(client: Any) -> None:
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        trained(client, plain(), 4, epochs=10**6)
    assert_usable(client)


def test_wrong_arguments_raise(client: Any) -> None:
    x, t = blocks()

    def call(x: Any = x, t: Any = t, **options: Any) -> None:
        distributed.train_dask(plain(), x, t, **{"optimizer": fastbp.Adam(), "client": client, **options})

    with pytest.raises(TypeError, match="x must be a dask array, got ndarray"):
        call(X)
    with pytest.raises(TypeError, match=r"x has dtype float32, the network float64: x.astype\('float64'\)"):
        call(x.astype("float32"))
    with pytest.raises(ValueError, match=r"x.compute_chunk_sizes\(\) counts their rows"):
        call(x[x[:, 0] > 0])
    with pytest.raises(ValueError, match=r"t has shape \(1199,\), x has shape \(1200, 20\)"):
        call(t=t[:-1])
    with pytest.raises(TypeError, match="train_dask gives each rank comm"):
        call(comm=None)
    with pytest.raises(ValueError, match="the cluster has no worker 'tcp://nowhere'"):
        call(workers=["tcp://nowhere"])
    with pytest.raises(ValueError, match="epochs must be"):
        call(epochs=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        call(epoch=3)


def test_workers_in_one_process_are_refused() -> None:
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with (
        dd.LocalCluster(**options) as cluster,
        dd.Client(cluster) as client,
        pytest.raises(ValueError, match="share one process, which ranks cannot"),
    ):
        distributed.train_dask(plain(), *blocks(), optimizer=fastbp.Adam(), client=client)


def test_a_missing_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastbp.distributed import _dask

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "torch.distributed", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "fastbp\[dask,torch\]", on every worker'):
        _dask._place(needs_torch=True)
