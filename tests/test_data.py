"""Where batches come from: pieces of an epoch, rows kept for validation, class weights, files, iterators."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import processes
import pytest
from helpers import LAYOUTS, advice, assert_same_bits, laid_out, seeded, unchanged

import fastbp
from fastbp.random import Philox, stream_number
from fastbp.training import data
from fastbp.training._advice import FirstEpoch
from fastbp.training.data import Rows, class_weights, validation_rows

Array = np.ndarray[Any, Any]

N, BATCH = 53, 10


class Square(fastbp.Unit):
    """A unit in Python."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return np.asarray(x * np.abs(x))

    def backward(self, dy: Array) -> Array:
        return np.asarray(2 * np.abs(self.x) * dy)


def problem(dtype: Any = np.float64, python: bool = False, n: int = N) -> tuple[fastbp.Network, Array, Array]:
    rng = seeded(5)
    chain = fastbp.Linear(6, 9), Square() if python else fastbp.Tanh(), fastbp.Linear(9, 3)
    net = fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), dtype=dtype, seed=0)
    return net, rng.normal(size=(n, 6)).astype(dtype), rng.integers(0, 3, n)


def train(net: fastbp.Network, x: Any, t: Any = None, **options: Any) -> fastbp.History:
    options = {"optimizer": fastbp.Adam(lr=0.05), "batch_size": BATCH, "epochs": 2, "progress": False} | options
    return fastbp.train(net, x, t, **options)


IN_ENGINE_AND_PYTHON = pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])


# ---- pieces ----------------------------------------------------------------------------------------------------------


@IN_ENGINE_AND_PYTHON
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_pieces_change_no_bit(
    layout: str, weighted: bool, shuffle: bool, python: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever number of batches is made in one call: parameters, state and losses are the same."""
    results = []
    for count in (None, 1, 2, 5, 6, "random"):
        net, x, t = problem(np.float32, python)
        weight = np.linspace(0, 2, N).astype(np.float32) if weighted else None
        if weight is not None:
            weight[20:30] = 0  # without shuffles a batch makes no step
        numbers = seeded(1)

        def wanted(_: Any, count: Any = count, numbers: Any = numbers) -> int | None:
            return int(numbers.integers(1, 4)) if count == "random" else count

        monkeypatch.setattr("fastbp.training._loop.Run._wanted", wanted)
        optimizer = fastbp.Adam(lr=0.05)
        options = {"sample_weight": weight, "shuffle": shuffle, "optimizer": optimizer}
        with unchanged(x, t, weight):
            history = train(net, laid_out(x, layout), t, **options)
        results.append((net.flat_parameters.copy(), optimizer.state_for(net).arrays["v"], history.loss))
    for parameters, state, losses in results[1:]:
        assert_same_bits(parameters, results[0][0])
        assert_same_bits(state, results[0][1])
        assert losses == results[0][2]


def test_resume_position_follows_from_the_steps() -> None:
    net, x, t = fastbp.MLP([1, 2]), np.zeros((50, 1)), np.zeros(50, np.int64)
    weight = np.ones(50)
    weight[10:20] = weight[40:] = 0
    rows = Rows(x, t, weight, batch_size=10, seed=None)
    rows.begin(0, 0)
    piece = rows.piece(None)
    assert [piece.steps_of(made, net) for made in range(4)] == [0, 2, 3, 5]
    piece.weight = None
    assert [piece.steps_of(made, net) for made in range(6)] == list(range(6))


# ---- limits ----------------------------------------------------------------------------------------------------------


@IN_ENGINE_AND_PYTHON
@pytest.mark.parametrize("steps", [1, 5, 6, 7, 12, 100])
def test_max_steps_ends_the_training(steps: int, python: bool) -> None:
    net, x, t = problem(python=python)
    other = net.copy()
    optimizer = fastbp.Adam(lr=0.05)
    history = train(net, x, t, max_steps=steps, optimizer=optimizer)
    made = min(steps, 12)
    assert optimizer.state_for(net).step == history.steps == made
    assert len(history) == made // 6
    assert history.stopped == (None if steps >= 12 else f"max_steps: {steps} steps were made")
    same = fastbp.Adam(lr=0.05)
    for epoch in range(2):
        order = Philox(0, stream_number("shuffle", epoch)).permutation(N)
        for first in list(range(0, N, BATCH))[: max(0, made - 6 * epoch)]:
            rows = order[first : first + BATCH]
            other.train_step(x[rows], t[rows], same)
    assert_same_bits(net.flat_parameters, other.flat_parameters)


@IN_ENGINE_AND_PYTHON
def test_max_seconds_ends_within_an_epoch(python: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that a callback moves: no test waits, and a busy machine changes nothing."""
    now = [0.0]
    monkeypatch.setattr("fastbp.training._loop.time.perf_counter", lambda: now[0])

    class Tick(fastbp.Callback):
        def on_batch_end(self, net: Any, history: Any, batch: Any) -> None:
            now[0] += 1.0

    history = train(*problem(python=python), max_seconds=8.5, callbacks=[Tick()], epochs=9)
    assert (history.steps, len(history)) == (9, 1)
    assert history.stopped == "max_seconds: 8.5 seconds were over"


def test_max_seconds_by_the_real_clock() -> None:
    rng = seeded(0)
    x, t = rng.normal(size=(200_000, 64)).astype(np.float32), rng.integers(0, 10, 200_000)
    net = fastbp.MLP([64, 128, 10], seed=0)
    other = net.copy()
    history = train(net, x, t, max_seconds=0.3, epochs=10**6, batch_size=64)
    assert history.steps > 0 and "max_seconds" in str(history.stopped)
    train(other, x, t, max_steps=history.steps, epochs=10**6, batch_size=64)
    assert_same_bits(net.flat_parameters, other.flat_parameters)


# ---- validation ------------------------------------------------------------------------------------------------------


def test_validation_rows_are_those_train_draws() -> None:
    training, validation = validation_rows(20, 0.25, 7)
    assert validation.tolist() == sorted(Philox(7, stream_number("validation", 0)).permutation(20)[:5].tolist())
    assert sorted([*training, *validation]) == list(range(20))
    labels = np.array([0] * 10 + [1] * 7 + [2] * 3)
    _, validation = validation_rows(20, 0.3, 7, labels)
    # 6 rows: 3.0, 2.1 and 0.9 of them: 3, 2 and 1.
    assert np.bincount(labels[validation]).tolist() == [3, 2, 1]
    order = Philox(7, stream_number("validation", 0)).permutation(20).tolist()
    expected = [row for k, m in ((0, 3), (1, 2), (2, 1)) for row in [r for r in order if labels[r] == k][:m]]
    assert validation.tolist() == sorted(expected)


@pytest.mark.parametrize("n", [2, 3, 10, 101])
@pytest.mark.parametrize("fraction", [1e-9, 0.1, 0.5, 0.999999])
@pytest.mark.parametrize("classes", [0, 1, 4])
def test_every_split_leaves_both_parts_a_row(n: int, fraction: float, classes: int) -> None:
    labels = np.arange(n) * 7 % classes if classes else None
    training, validation = validation_rows(n, fraction, 0, labels)
    assert len(validation) == min(max(1, round(fraction * n)), n - 1)
    assert np.array_equal(np.sort(np.r_[training, validation]), np.arange(n))
    if labels is not None:
        share = len(validation) * np.bincount(labels, minlength=classes) / n
        counts = np.bincount(labels[validation], minlength=classes)
        assert np.all(np.abs(counts - share) < 1)


@IN_ENGINE_AND_PYTHON
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_fraction_is_training_on_the_rest(layout: str, python: bool) -> None:
    net, x, t = problem(python=python)
    other = net.copy()
    weight = np.linspace(0.5, 2, N)
    laid = laid_out(x, layout)
    history = train(net, laid, t, validation_fraction=0.3, sample_weight=weight, seed=3)
    rest, kept = validation_rows(N, 0.3, 3, t)
    data = x[kept], t[kept], weight[kept]
    expected = train(other, x[rest], t[rest], sample_weight=weight[rest], validation_data=data, seed=3)
    assert_same_bits(net.flat_parameters, other.flat_parameters)
    assert history.loss == expected.loss and history.val_loss == expected.val_loss


def test_validation_rows_are_stratified_by_default_for_labels() -> None:
    net, x, t = problem()
    results = {}
    for stratify in (None, True, False):
        results[stratify] = train(net.copy(), x, t, validation_fraction=0.3, stratify=stratify).val_loss
    assert results[None] == results[True] != results[False]
    _, kept = validation_rows(N, 0.3, 0)
    other = net.copy()
    rest = np.setdiff1d(np.arange(N), kept)
    assert results[False] == train(other, x[rest], t[rest], validation_data=(x[kept], t[kept])).val_loss


def test_large_validation_data_is_predicted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, t = problem()
    weight = np.linspace(0, 2, N)
    weight[:7] = 0  # a part that weighs nothing
    for more in ((), (weight,)):
        expected = train(net.copy(), x, t, validation_data=(x, t, *more)).val_loss
        with monkeypatch.context() as patch:
            patch.setattr(data, "VALIDATED", 7)
            assert train(net.copy(), x, t, validation_data=(x, t, *more)).val_loss == pytest.approx(expected, rel=1e-14)


# ---- class weights ---------------------------------------------------------------------------------------------------


def test_class_weights_by_hand() -> None:
    t = np.array([0, 0, 0, 2])
    assert class_weights("balanced", t, 3).tolist() == [4 / 6, 1.0, 2.0]  # two classes occur
    assert class_weights({2: 3, 0: 0.5}, t, 3).tolist() == [0.5, 1.0, 3.0]
    assert class_weights([1, 2, 3], t, 3).tolist() == [1.0, 2.0, 3.0]


def test_balanced_class_weights_are_scikit_learns() -> None:
    utils = pytest.importorskip("sklearn.utils.class_weight")
    t = seeded(0).choice(5, 100, p=[0.5, 0.2, 0.1, 0.1, 0.1])
    expected = utils.compute_class_weight("balanced", classes=np.arange(5), y=t)
    np.testing.assert_allclose(class_weights("balanced", t, 5), expected, rtol=1e-15)


@IN_ENGINE_AND_PYTHON
@pytest.mark.parametrize("given", ["balanced", {0: 2.0, 2: 0.5}, (1.0, 3.0, 0.25)])
@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_class_weights_are_weights_of_rows(given: Any, fraction: float, python: bool) -> None:
    net, x, t = problem(python=python)
    t[::2] = 0
    other = net.copy()
    weight = np.linspace(0.5, 2, N)
    history = train(net, x, t, class_weight=given, sample_weight=weight, validation_fraction=fraction)
    rest, kept = validation_rows(N, fraction, 0, t) if fraction else (np.arange(N), None)
    table = class_weights(given, t[rest], 3)
    # The loss on validation data does not know of them.
    options = {} if kept is None else {"validation_data": (x[kept], t[kept], weight[kept])}
    expected = train(other, x[rest], t[rest], sample_weight=weight[rest] * table[t[rest]], **options)
    assert_same_bits(net.flat_parameters, other.flat_parameters)
    assert history.val_loss == expected.val_loss


def test_class_weights_of_one_output() -> None:
    x = seeded(0).normal(size=(20, 2))
    t = (x[:, :1] > 0.7).astype(float)
    net = fastbp.MLP([2, 1], loss="sigmoid_nll", dtype="float64", seed=0)
    other = net.copy()
    train(net, x, t, class_weight={1: 4.0})
    train(other, x, t[:, 0], sample_weight=1 + 3 * t[:, 0])
    assert_same_bits(net.flat_parameters, other.flat_parameters)


# ---- batches from elsewhere ------------------------------------------------------------------------------------------


def batches_of(x: Array, t: Array, weight: Any = None, epoch: int | None = None) -> Iterator[Any]:
    order = np.arange(len(x)) if epoch is None else Philox(0, stream_number("shuffle", epoch)).permutation(len(x))
    for first in range(0, len(x), BATCH):
        rows = order[first : first + BATCH]
        yield (x[rows], t[rows]) if weight is None else (x[rows], t[rows], weight[rows])


class Loader:
    """As a DataLoader: it can be iterated over anew, and gives lists."""

    def __init__(self, *arrays: Any) -> None:
        self.arrays = arrays

    def __iter__(self) -> Iterator[Any]:
        return (list(batch) for batch in batches_of(*self.arrays))


@IN_ENGINE_AND_PYTHON
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("form", ["list", "loader", "function", "generator"])
def test_batches_are_the_same_training(form: str, weighted: bool, python: bool) -> None:
    net, x, t = problem(np.float32, python)
    other = net.copy()
    weight = np.linspace(0, 2, N).astype(np.float32) if weighted else None
    arrays = (x, t) if weight is None else (x, t, weight)
    endless = (batch for _ in range(99) for batch in batches_of(*arrays))
    given: dict[str, Any] = {
        "list": list(batches_of(*arrays)),
        "loader": Loader(*arrays),
        "function": lambda epoch: batches_of(x, t, weight, epoch),
        "generator": endless,
    }
    options = {"steps_per_epoch": 6} if form == "generator" else {}
    history = train(net, given[form], validation_data=(x, t), metrics=["accuracy"], **options)
    more = {"shuffle": form == "function", "sample_weight": weight}
    expected = train(other, x, t, validation_data=(x, t), metrics=["accuracy"], **more)
    assert_same_bits(net.flat_parameters, other.flat_parameters)
    assert (history.loss, history.val_loss, history.metrics) == (expected.loss, expected.val_loss, expected.metrics)


def test_batches_of_changing_size_and_kind() -> None:
    net, x, t = problem()
    other = net.copy()
    sizes = [3, 20, 1, 7]
    ends = np.cumsum(sizes)
    places = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    given = [(laid_out(x[place], "F"), t[place].astype(np.int8).tolist()) for place in places]
    history = train(net, given, epochs=1)
    optimizer = fastbp.Adam(lr=0.05)
    losses = [other.train_step(x[place], t[place], optimizer) for place in places]
    assert_same_bits(net.flat_parameters, other.flat_parameters)
    assert history.loss == [pytest.approx(math.fsum(np.multiply(losses, sizes)) / sum(sizes), rel=1e-14)]


def test_tensors_of_another_library_are_accepted() -> None:
    class Tensor:
        def __init__(self, values: Array) -> None:
            self.values = values

        def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
            return self.values

    net, x, t = problem()
    other = net.copy()
    train(net, [[Tensor(x), Tensor(t)]])
    train(other, [(x, t)])
    assert_same_bits(net.flat_parameters, other.flat_parameters)


def test_class_weights_of_batches() -> None:
    net, x, t = problem()
    other = net.copy()
    train(net, Loader(x, t), class_weight={1: 3.0})
    train(other, x, t, class_weight={1: 3.0}, shuffle=False)
    assert_same_bits(net.flat_parameters, other.flat_parameters)


def test_a_generator_serves_one_epoch_and_limits() -> None:
    net, x, t = problem()
    assert len(train(net, batches_of(x, t), epochs=1)) == 1
    assert train(net, (batch for _ in range(9) for batch in batches_of(x, t)), epochs=1, max_steps=8).steps == 8


WRONG_BATCHES: list[tuple[Any, type[Exception], str]] = [
    (lambda x, t: (x, t[:-1]), ValueError, r"t of batch 2 of epoch 1 has shape \(9,\), expected \(10,\)"),
    (lambda x, t: (x[:, :5], t), ValueError, r"x of batch 2 of epoch 1 has shape \(10, 5\), expected \(n, 6\)"),
    (lambda x, t: (x[0], t[0]), ValueError, r"x of batch 2 of epoch 1 has shape \(6,\), expected 2 dimensions"),
    (lambda x, t: (x[:0], t[:0]), ValueError, "x of batch 2 of epoch 1 .* needs at least one row"),
    (
        lambda x, t: (x.astype(np.float32), t),
        TypeError,
        r"x of batch 2 of epoch 1 has dtype float32 but the network is float64: pass x.astype\(net.dtype\)",
    ),
    (lambda x, t: (x, t + 3), ValueError, r"t\[0\] of batch 2 of epoch 1 is \d, expected a label from 0 to 2"),
    (lambda x, t: (x, t, t[:-1]), ValueError, r"sample_weight of batch 2 of epoch 1 has shape \(9,\)"),
    (lambda x, t: x, TypeError, r"batch 2 of epoch 1 must be \(x, t\) or \(x, t, sample_weight\), got ndarray"),
    (lambda x, t: (x,), TypeError, "batch 2 of epoch 1 must be .* got tuple of 1"),
    (lambda x, t: None, TypeError, "batch 2 of epoch 1 must be .* got NoneType"),
    (
        lambda x, t: ([["a"] * 4] * len(x), t),
        TypeError,
        "x of batch 2 of epoch 1 has dtype <U1 but the network is float64",
    ),
]


@IN_ENGINE_AND_PYTHON
@pytest.mark.parametrize(("spoil", "error", "message"), WRONG_BATCHES, ids=map(str, range(len(WRONG_BATCHES))))
def test_a_wrong_batch_is_refused_before_its_step(
    spoil: Any, error: type[Exception], message: str, python: bool
) -> None:
    net, x, t = problem(python=python)
    other = net.copy()
    given = [(x[:10], t[:10]), spoil(x[10:20], t[10:20]), (x[20:], t[20:])]
    optimizer, same = fastbp.Adam(lr=0.05), fastbp.Adam(lr=0.05)
    with pytest.raises(error, match=message):
        train(net, given, optimizer=optimizer)
    other.train_step(x[:10], t[:10], same)
    assert_same_bits(net.flat_parameters, other.flat_parameters)
    assert optimizer.state_for(net).step == 1


def test_batches_that_end_too_early_raise() -> None:
    net, x, t = problem()
    before = net.flat_parameters.tobytes()
    for empty in ([], iter(()), lambda epoch: iter(())):
        with pytest.raises(ValueError, match=r"batches gave no batch in epoch 1$"):
            train(net, empty, epochs=1)
    assert net.flat_parameters.tobytes() == before
    with pytest.raises(ValueError, match=r"batches ended after 1 of 9 batches of epoch 1, which steps_per_epoch asks"):
        train(net, [(x, t)], steps_per_epoch=9)
    with pytest.raises(ValueError, match=r"no batch in epoch 2: give a list, or a function of the epoch"):
        once = iter([(x, t)])
        train(net, lambda epoch: once)
    with pytest.raises(TypeError, match=r"what the function gave for epoch 0 is no iterable of batches: 3"):
        train(net, lambda epoch: 3)


def test_batches_without_weight_make_no_step() -> None:
    net, x, t = problem()
    before = net.flat_parameters.tobytes()
    with pytest.raises(ValueError, match="no batch of epoch 1 had any weight"):
        train(net, [(x, t, np.zeros(N))])
    assert net.flat_parameters.tobytes() == before


# ---- bad input -------------------------------------------------------------------------------------------------------

EYE = np.eye(3)[np.zeros(N, int)]
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"class_weight": "equal"}, ValueError, "unknown class_weight 'equal': known are 'balanced'"),
    ({"class_weight": {3: 1.0}}, ValueError, "class_weight has class 3, but the classes are 0 to 2"),
    ({"class_weight": {-1: 1.0}}, ValueError, "a class in class_weight must be at least 0, got -1"),
    ({"class_weight": {"a": 1.0}}, TypeError, "a class in class_weight must be an integer, got 'a'"),
    ({"class_weight": {1: -1.0}}, ValueError, r"class_weight\[1\] must be finite and at least 0, got -1"),
    ({"class_weight": {1: 2.0}, "t": np.zeros(N, int)}, ValueError, "has class 1, which is not among the targets"),
    ({"class_weight": [1.0, 2.0]}, ValueError, "class_weight has 2 entries, expected 3"),
    ({"class_weight": [1.0, 2.0, math.inf]}, ValueError, r"class_weight\[2\] must be finite"),
    ({"class_weight": 3}, TypeError, 'class_weight must be "balanced", a dict or an array, got 3'),
    ({"class_weight": "balanced", "t": EYE}, ValueError, r"class_weight needs labels, but t holds rows of shape"),
    ({"class_weight": [0, 0, 0]}, ValueError, "sample_weight sums to 0.0 over the rows for training"),
    ({"validation_fraction": 1.0}, ValueError, "validation_fraction must be finite and at least 0 and below 1, got 1"),
    ({"validation_fraction": -0.1}, ValueError, "validation_fraction must be finite and at least 0"),
    ({"validation_fraction": "a"}, TypeError, "validation_fraction must be a number, got 'a'"),
    ({"validation_fraction": 0.1, "validation_data": (1, 2)}, ValueError, "validation_data and validation_fraction"),
    ({"stratify": True}, ValueError, "stratify=True needs validation_fraction"),
    ({"stratify": 1, "validation_fraction": 0.1}, TypeError, "stratify must be True, False or None, got 1"),
    ({"stratify": True, "validation_fraction": 0.1, "t": EYE}, ValueError, "stratify=True needs labels"),
    ({"max_steps": 0}, ValueError, "max_steps must be at least 1, got 0"),
    ({"max_seconds": 0}, ValueError, "max_seconds must be finite and above 0, got 0"),
    ({"max_seconds": math.nan}, ValueError, "max_seconds must be finite"),
    ({"steps_per_epoch": 3}, ValueError, "steps_per_epoch is for batches"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), BAD, ids=[case[2][:40] for case in BAD])
def test_invalid_arguments_raise_and_change_nothing(
    wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    net, x, t = problem()
    before = net.flat_parameters.tobytes()
    with pytest.raises(error, match=message):
        train(net, x, **({"t": t} | wrong))
    assert net.flat_parameters.tobytes() == before


def test_splitting_one_row_raises() -> None:
    net, x, t = problem()
    with pytest.raises(ValueError, match="validation_fraction needs at least two rows, got 1"):
        train(net, x[:1], t[:1], validation_fraction=0.5)
    with pytest.raises(ValueError, match="a validation set needs at least two rows"):
        validation_rows(1, 0.5, 0)


def test_arguments_for_arrays_alone_raise_with_batches() -> None:
    net, x, t = problem()
    given = [(x, t)]
    for wrong, message in (
        ({"sample_weight": np.ones(N)}, "sample_weight needs arrays x and t"),
        ({"class_weight": "balanced"}, "class_weight='balanced' needs arrays"),
        ({"validation_fraction": 0.1}, "validation_fraction needs arrays"),
        ({"stratify": True}, "stratify needs arrays"),
        ({"train_metrics": ["accuracy"]}, "train_metrics needs arrays"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            train(net, given, **wrong)
    with pytest.raises(ValueError, match="an iterator can be gone through once, but epochs is 2: give epochs=1"):
        train(net, iter(given))
    with pytest.raises(ValueError, match=r"x has shape \(\), expected 2 dimensions"):
        train(net, 3)


# ---- files larger than the memory ------------------------------------------------------------------------------------

LARGE = """
    # A file of 200 MB is trained on where a copy of it would not fit: 100 MB more are all that the process may have.
    import resource
    import numpy as np
    import fastbp

    rows, columns = 200_000, 256
    x = np.memmap("LARGE.bin", np.float32, "r", shape=(rows, columns))
    t = np.arange(rows) % 10
    net = fastbp.MLP([columns, 16, 10], seed=0)
    options = dict(optimizer=fastbp.SGD(lr=0.01), epochs=1, batch_size=500, progress=False)
    fastbp.train(net, np.zeros((500, columns), np.float32), t[:500], **options)  # what a first call needs

    def anonymous():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024

    def limit(more):
        with open("/proc/self/status") as status:
            now = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (now * 1024 + more, resource.RLIM_INFINITY))

    limit(100 * 2**20)
    try:
        np.array(x)
    except MemoryError:
        before = anonymous()
        for more in ({}, {"shuffle": False}, {"max_steps": 150}, {"validation_fraction": 0.02}, {"max_seconds": 60.0}):
            fastbp.train(net, x, t, **options, **more)
        print(round(anonymous() - before) < 60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_larger_than_the_memory(tmp_path: Any) -> None:
    path = tmp_path / "large.bin"
    with open(path, "wb") as file:
        file.truncate(200_000 * 256 * 4)
    script = LARGE.replace('"LARGE.bin"', repr(str(path)))
    assert processes.output(script, FASTBP_NUM_THREADS="1") == "True"


def test_validation_in_parts_of_a_sum_of_losses_that_weigh_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = seeded(0)
    x, t, weight = rng.normal(size=(50, 4)), rng.integers(0, 3, 50), rng.random(50)
    t[:9] = 1
    own = fastbp.SoftmaxNLL(class_weight=[1.0, 5.0, 0.5])
    loss = fastbp.LossSum([(0.7, own), (0.3, fastbp.SoftmaxNLL(ignore_index=1))])
    net = fastbp.MLP([4, 3], loss=loss, dtype="float64", seed=0, l2=0.5)
    monkeypatch.setattr("fastbp.training.data.VALIDATED", 8)
    for its in (weight, None):
        got = data.Validation(x, t, its).loss(net)
        assert got == pytest.approx(net.loss_value(x, t, sample_weight=its), rel=1e-14)


def test_the_old_name_of_the_batch_iterator_warns() -> None:
    with pytest.warns(DeprecationWarning, match="Stream is BatchIterator now"):
        assert fastbp.data.Stream is fastbp.data.BatchIterator
    with pytest.raises(AttributeError, match="no attribute 'Streams'"):
        _ = fastbp.data.Streams


# ---- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignored", [-1, -100, 255, 2])
@pytest.mark.parametrize("given", ["balanced", {1: 5.0}, [1.0, 2.0, 3.0]], ids=str)
@pytest.mark.parametrize("form", ["arrays", "batches"])
def test_class_weights_with_ignored_labels(form: str, given: Any, ignored: int) -> None:
    """As without the ignored rows."""
    rng = seeded(2)
    x, t = rng.normal(size=(60, 6)), rng.integers(0, 2, 60)
    t[::5] = ignored
    kept, losses = t != ignored, []
    if form == "batches" and given == "balanced":
        pytest.skip("the classes of batches are not counted")
    for rows in (np.ones(60, bool), kept):
        data = (x[rows], t[rows])
        net = fastbp.MLP([6, 5, 3], loss=fastbp.SoftmaxNLL(ignore_index=ignored), dtype="float64", seed=0)
        source = data if form == "arrays" else (lambda epoch, data=data: [data],)
        losses.append(train(net, *source, class_weight=given, batch_size=None if form == "batches" else 60).loss)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-12)


def test_class_weights_refuse_what_is_no_label() -> None:
    with pytest.raises(ValueError, match=r"t\[1\] is -100, expected a label from 0 to 2"):
        class_weights("balanced", np.array([0, -100]), 3)
    net = fastbp.MLP([6, 3], loss=fastbp.SoftmaxNLL(ignore_index=-1), dtype="float64", seed=0)
    with pytest.raises(ValueError, match="class_weight has class 2, which is not among the targets"):
        train(net, np.ones((3, 6)), [0, 1, -1], class_weight={2: 3.0})


def test_stratified_rows_with_ignored_labels() -> None:
    """The rows without a label have their share, too: those with one are as many as they should be."""
    t = np.repeat([0, 1, -100], 20)
    net = fastbp.MLP([6, 3], loss=fastbp.SoftmaxNLL(ignore_index=-100), dtype="float64", seed=0)
    x = seeded(0).normal(size=(60, 6))
    history = train(net, x, t, validation_fraction=0.25, stratify=True, metrics=["accuracy"])
    _, kept = validation_rows(60, 0.25, 0, t)
    assert [int((t[kept] == label).sum()) for label in (0, 1, -100)] == [5, 5, 5]
    assert history.val_loss[-1] == net.loss_value(x[kept], t[kept])
    labelled = kept[t[kept] >= 0]
    assert history.metrics["val_accuracy"][-1] == (net.predict(x[labelled]) == t[labelled]).mean()


def test_rows_that_all_are_ignored_raise_before_the_training() -> None:
    net = fastbp.MLP([6, 3], loss=fastbp.SoftmaxNLL(ignore_index=-100), dtype="float64", seed=0)
    x, t = np.ones((8, 6)), np.full(8, -100)
    with pytest.raises(ValueError, match=r"^all rows: the loss SoftmaxNLL\(ignore_index=-100\) counts none of them"):
        train(net, x, t)
    with pytest.raises(ValueError, match=r"^validation_data: the loss SoftmaxNLL"):
        train(net, x, np.zeros(8, int), validation_data=(x, t))
    some = np.where(np.arange(8) == validation_rows(8, 0.1, 0)[1], -100, 0)
    with pytest.raises(ValueError, match=r"^the rows for validation: the loss SoftmaxNLL"):
        train(net, x, some, validation_fraction=0.1, stratify=False)


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize(
    "options",
    [
        {"class_weight": "balanced"},
        {"class_weight": {1: 5.0}},
        {"class_weight": {0: 2.0, 1: 5.0}},
        {"validation_fraction": 0.2, "stratify": True},
        {"validation_fraction": 0.2, "metrics": ["accuracy"]},
        {"validation_fraction": 0.2, "metrics": [lambda t, y: float((t == y).mean())]},
    ],
    ids=["balanced", "dict", "both classes", "stratify", "accuracy", "own metric"],
)
def test_both_forms_of_signs_are_the_same(options: dict[str, Any], loss: str) -> None:
    x = seeded(0).normal(size=(80, 3))
    yes = x[:, 0] > 0.8
    results = []
    for t in (np.where(yes, 1, -1), np.where(yes, 1, 0), np.where(yes, 1.0, -1.0)[:, None]):
        net = fastbp.MLP([3, 4, 1], loss=loss, dtype="float64", seed=0)
        history = train(net, x, t, **options)
        results.append((history.loss, history.val_loss, history.metrics, net.flat_parameters.tolist()))
        batches = fastbp.MLP([3, 4, 1], loss=loss, dtype="float64", seed=0)
        if isinstance(options.get("class_weight"), dict):
            results[-1] += (train(batches, [(x, t)], class_weight=options["class_weight"]).loss,)
    assert results[0] == results[1] == results[2]


def test_a_no_may_be_called_minus_one() -> None:
    x, t = seeded(0).normal(size=(20, 3)), np.repeat([-1, 1], 10)
    losses = [
        train(fastbp.MLP([3, 1], loss="hinge", dtype="float64", seed=0), x, t, class_weight=given).loss
        for given in ({-1: 3.0}, {0: 3.0})
    ]
    assert losses[0] == losses[1]
    with pytest.raises(ValueError, match="class_weight has weights for -1 and for 0, which are the same class"):
        train(fastbp.MLP([3, 1], loss="hinge", dtype="float64", seed=0), x, t, class_weight={-1: 1.0, 0: 3.0})


# ---- epochs that are not finished ------------------------------------------------------------------------------------


@IN_ENGINE_AND_PYTHON
@pytest.mark.parametrize("form", ["arrays", "batches"])
def test_an_unfinished_epoch_is_in_the_history(form: str, python: bool) -> None:
    net, x, t = problem(python=python)
    other = net.copy()
    data = (x, t) if form == "arrays" else ([(x[i : i + BATCH], t[i : i + BATCH]) for i in range(0, N, BATCH)],)
    options: dict[str, Any] = {"validation_data": (x[:9], t[:9]), "metrics": ["accuracy"], "shuffle": False}
    history = train(net, *data, max_steps=4, **options)
    assert (history.epochs, len(history), history.steps, history.unfinished) == (0, 0, 4, True)
    same = train(other, x[:40], t[:40], epochs=1, shuffle=False)
    assert history.loss == pytest.approx(same.loss, rel=1e-14) and len(history.seconds) == 1
    assert history.val_loss == [net.loss_value(x[:9], t[:9])] and len(history.metrics["val_accuracy"]) == 1
    assert history.best_epoch == 1
    # No step in the second epoch: nothing of it is known.
    history = train(net, x, t, max_steps=6, **options)
    assert (history.epochs, len(history.loss), history.unfinished) == (1, 1, False)


def test_early_stopping_takes_an_unfinished_epoch_for_the_best() -> None:
    net, x, t = problem()
    stopping = fastbp.EarlyStopping(patience=50)
    history = train(net, x, t, epochs=9, max_steps=9, validation_data=(x, t), early_stopping=stopping)
    assert history.unfinished and history.val_loss[1] < history.val_loss[0]
    assert stopping.best_epoch == history.best_epoch == 2
    assert net.loss_value(x, t) == history.val_loss[1]


# ---- x that is not scaled --------------------------------------------------------------------------------------------


def test_x_that_is_not_scaled_is_told() -> None:
    net, x, t = problem()
    x[:, 4] = 5000 + x[:, 4]
    x[:, 1] *= 3000
    message = r"^x is not scaled: in its first 53 rows .* is beyond 1000 in column 1, 4 \(up to 5e\+03\)"
    with pytest.warns(fastbp.FastbpWarning, match=message) as said:
        train(net, x, t)
    assert len(said) == 1
    x[:, 0] = 5000.0  # a constant column
    scaled = eval(advice(str(said[0].message), ("x",))[1], {"x": x})
    assert (scaled[:, 0] == 0).all() and np.allclose(scaled[:, 1:].std(axis=0), 1.0)
    train(net, scaled, t)
    x[:, 0] = 0.5
    net, _, _ = problem()
    with pytest.warns(fastbp.FastbpWarning, match=message) as said:
        train(net, [(x, t)], epochs=3)
    assert len(said) == 1


def test_what_is_scaled_or_need_not_be_is_not_told() -> None:
    net, x, t = problem()
    spike = x.copy()
    spike[3, 2] = 4000.0  # neither mean nor deviation
    train(net, spike, t)
    normed = fastbp.Network(fastbp.BatchNorm(6), fastbp.Linear(6, 3), loss="softmax_nll", dtype="float64", seed=0)
    train(normed, 5000 + x, t)
    table = fastbp.Network(
        fastbp.Embedding(9000, 2), fastbp.Flatten(), fastbp.Linear(12, 3), loss="softmax_nll", dtype="float64", seed=0
    )
    train(table, seeded(0).integers(0, 9000, x.shape), t)


def test_a_large_learning_rate_is_told_after_the_first_epoch() -> None:
    net, x, t = problem()
    other = net.copy()
    with pytest.warns(fastbp.FastbpWarning, match=r"^the learning rate is too large: the loss of 53 rows rose"):
        train(net, x, t, optimizer=fastbp.SGD(lr=300.0))
    train(other, x, t, optimizer=fastbp.SGD(lr=0.1))
    train(other, x, t, optimizer=fastbp.SGD(lr=300.0))  # it was trained before: nothing is known for sure


def test_the_learning_rate_is_judged_by_rows_of_all_classes() -> None:
    """The first 128 rows are all that there are of a class, whose loss rises while the mean loss falls."""
    n = 100_000
    x, t = seeded(0).normal(size=(n, 2)), (np.arange(n) < 128).astype(int)
    net = fastbp.MLP([2, 8, 2], dtype="float64", seed=0)
    begun, of_class = net.loss_value(x, t), net.loss_value(x[:128], t[:128])
    train(net, x, t, optimizer=fastbp.SGD(lr=0.1), batch_size=128, epochs=1)
    assert net.loss_value(x, t) < 0.1 * begun
    assert net.loss_value(x[:128], t[:128]) > 10 * max(of_class, math.log(2))


@pytest.mark.parametrize("n", [5, 128, 129, 1000])
@pytest.mark.parametrize("kept", [False, True])
def test_the_learning_rate_is_judged_by_128_rows_for_training(n: int, kept: bool) -> None:
    net, x, t = problem(n=2 * n if kept else n)
    subset = np.arange(1, 2 * n, 2) if kept else None
    weight = np.arange(1.0, len(x) + 1)
    found = FirstEpoch.of(net, Rows(x, t, weight, batch_size=BATCH, seed=0, subset=subset))
    assert found is not None and found.weight is not None
    rows = found.weight.astype(int) - 1
    assert_same_bits(found.x, x[rows])
    assert_same_bits(found.t, t[rows])
    used = np.arange(n) if subset is None else subset
    places = np.searchsorted(used, rows)
    assert (used[places] == rows).all() and len(rows) == min(n, 128)
    assert places[0] == 0 and places[-1] >= n - -(-n // 128) and (np.diff(places) >= 1).all()
