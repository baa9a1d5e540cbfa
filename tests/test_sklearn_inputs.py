"""Arguments of the estimators: every form of X and y that scikit-learn takes, and its errors for all others.

A. An estimator of scikit-learn's and one of fastbp's take each form, and then agree in all attributes. No argument is
   changed.
B. A call that raises leaves both in the same state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
from helpers import grid
from sklearn import neural_network
from sklearn.exceptions import DataConversionWarning
from sklearn_pairs import EXACT, HAS_POISSON, HAS_WEIGHTS, OURS, TASKS, Array, Pair, fitted, pair

from fastbp.sklearn import MLPRegressor

SOLVERS = ("sgd", "adam", "lbfgs")


# ---- forms of X ------------------------------------------------------------------------------------------------------


def with_holes(x: Array) -> Array:
    """Return rows that are mostly zeros, one of them of nothing else, one column too."""
    x = np.where(np.abs(x) > 1.0, x, 0.0)
    x[3], x[:, 2] = 0.0, 0.0
    return x


def unsorted(x: Array) -> Any:
    """Return CSR rows with their columns backwards, some entries in two parts, and zeros that are stored."""
    rows = scipy.sparse.csr_array(x)
    indptr, indices, data = [0], [], []
    for i in range(x.shape[0]):
        part = slice(rows.indptr[i], rows.indptr[i + 1])
        columns, values = list(rows.indices[part])[::-1], list(rows.data[part])[::-1]
        if columns:
            columns, values = [*columns, columns[0], 0], [*values[:1], *values[1:], 0.5, 0.0]
        indices += columns
        data += values
        indptr.append(len(indices))
    return scipy.sparse.csr_array((data, indices, indptr), shape=x.shape)


def long_indices(x: Array) -> Any:
    rows = scipy.sparse.csr_array(with_holes(x))
    rows.indices, rows.indptr = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    return rows


def read_only(x: Any) -> Any:
    x = x.copy()
    x.flags.writeable = False
    return x


FORMS = {
    "Fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
    "backwards": lambda x: x[::-1, ::-1],
    "read-only": read_only,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "int64": lambda x: (4 * x).astype(np.int64),
    "int8": lambda x: (4 * x).astype(np.int8),
    "uint16": lambda x: (4 * np.abs(x)).astype(np.uint16),
    "bool": lambda x: x > 0,
    "float16": lambda x: x.astype(np.float16),
    "longdouble": lambda x: x.astype(np.longdouble),
    "objects": lambda x: x.astype(object),
    "lists": lambda x: x.tolist(),
    "DataFrame": lambda x: pd.DataFrame(x, columns=[f"column {i}" for i in range(x.shape[1])]),
    "DataFrame of kinds": lambda x: pd.DataFrame(
        {f"c{i}": x[:, i] if i % 2 else (4 * x[:, i]).astype(int) for i in range(7)}
    ),
    "DataFrame without names": pd.DataFrame,
    "CSR": lambda x: scipy.sparse.csr_array(with_holes(x)),
    "CSC": lambda x: scipy.sparse.csc_array(with_holes(x)),
    "COO": lambda x: scipy.sparse.coo_array(with_holes(x)),
    "CSR matrix": lambda x: scipy.sparse.csr_matrix(with_holes(x)),
    "CSC matrix": lambda x: scipy.sparse.csc_matrix(with_holes(x)),
    "LIL matrix": lambda x: scipy.sparse.lil_matrix(with_holes(x)),
    "CSR of ints": lambda x: scipy.sparse.csr_array((4 * with_holes(x)).astype(int)),
    "CSR unsorted": unsorted,
    "CSR with long indices": long_indices,
    "CSR full": scipy.sparse.csr_array,
    "CSR empty": lambda x: scipy.sparse.csr_array(np.zeros_like(x)),
    "small columns": lambda x: x * np.logspace(-150, 0, 7),
}


@grid(
    "form kind,solver",
    FORMS,
    [*[("multiclass", solver) for solver in SOLVERS], ("one output", "adam")],
    always=lambda form, _: form in ("CSR", "DataFrame", "strided"),
)
def test_forms_of_x(form: str, kind: str, solver: str) -> None:
    x, y = FORMS[form](TASKS[kind].x), TASKS[kind].y
    two = pair(kind, solver=solver, max_iter=3)
    two.within = 1e-7 if solver == "lbfgs" else EXACT
    two.do("fit", x, y)
    two.agree().predict_alike(x)
    two.do("score", x, y)
    if solver != "lbfgs":
        two.do("partial_fit", x, y)
        two.agree()


@grid(
    "options kind form",
    [{"shuffle": False}, {"early_stopping": True}, {"batch_size": 1}, {"weights": True}],
    *(TASKS, ["CSR", "CSC"]),
    pairs=["options kind", "options form", "kind form"],
)
def test_sparse(options: dict[str, Any], kind: str, form: str) -> None:
    options = dict(options)
    weights = {"sample_weight": TASKS[kind].weights} if options.pop("weights", False) and HAS_WEIGHTS else {}
    x, y = FORMS[form](TASKS[kind].x), TASKS[kind].y
    two = pair(kind, max_iter=4, activation="tanh", **options)
    two.do("fit", x, y, **weights)
    two.agree().predict_alike(x)
    two.do("predict", x[:1])


@pytest.mark.parametrize("form", ["CSR", "CSC", "DataFrame", "Fortran"])
def test_float32_forms(form: str) -> None:
    """A few steps, so that roundings have not grown: 1e-4 is some thousand of them."""
    task = TASKS["three outputs"]
    x = FORMS[form](task.x.astype(np.float32)).astype(np.float32)
    y = task.y.astype(np.float32)
    two = pair("three outputs", max_iter=2)
    two.each(lambda network: network.fit(x, y) and None)
    two.agree(1e-4)
    assert two.ours.coefs_[0].dtype == np.float32


@pytest.mark.parametrize("mode", ["r", "c"])
def test_memory_mapped(tmp_path: Any, mode: str) -> None:
    task = TASKS["multiclass"]
    for name, array in (("x", task.x), ("weights", task.weights)):
        np.save(tmp_path / name, array)
    x, weights = (np.load(tmp_path / f"{name}.npy", mmap_mode=mode) for name in ("x", "weights"))
    two = pair("multiclass")
    two.each(lambda network: network.fit(x, task.y, **({"sample_weight": weights} if HAS_WEIGHTS else {})) and None)
    two.agree().predict_alike(x)


# ---- forms of y ------------------------------------------------------------------------------------------------------


def letters(y: Array) -> Array:
    """Return the labels of the task of many classes as strings."""
    return np.array(list("abcd"))[np.unique(y, return_inverse=True)[1]]


LABELS = {
    "strings": lambda y: y,
    "objects": lambda y: y.astype(object),
    "list": lambda y: y.tolist(),
    "Series": pd.Series,
    "categories": lambda y: pd.Series(y).astype("category"),
    "ints from -1": lambda y: np.unique(y, return_inverse=True)[1] - 1,
    "int8": lambda y: np.unique(y, return_inverse=True)[1].astype(np.int8),
    "floats": lambda y: np.unique(y, return_inverse=True)[1].astype(float),
    "a column": lambda y: y[:, None],
    "bools": lambda y: y == "a",
    "two strings": lambda y: np.where(y == "a", "yes", "no"),
    "one class": lambda y: np.zeros(len(y), int),
    "one hot": lambda y: (y[:, None] == np.unique(y)).astype(int),
    "one column of labels": lambda y: (y[:, None] == np.array(["a"])).astype(int),
    "multilabel of bools": lambda y: y[:, None] <= np.array(["a", "b", "c"]),
    "multilabel CSR": lambda y: scipy.sparse.csr_array((y[:, None] <= np.array(["a", "b", "c"])).astype(int)),
    "multilabel, none": lambda y: np.zeros((len(y), 3), int),
    "real numbers": lambda y: np.linspace(0, 1, len(y)),
    "missing": lambda y: np.where(y == "a", np.nan, 1.0),
}


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("form", LABELS)
def test_forms_of_labels(form: str, early_stopping: bool) -> None:
    task = TASKS["multiclass"]
    y = LABELS[form](letters(task.y))
    two = pair("multiclass", max_iter=3, early_stopping=early_stopping)
    two.do("fit", task.x, y)
    two.agree().predict_alike(task.x)
    two.do("score", task.x, y)
    if not early_stopping:
        two.do("partial_fit", task.x, y)
        two.agree()


NUMBERS = {
    "ints": lambda y: (3 * y).astype(int),
    "float32": lambda y: y.astype(np.float32),
    "list": lambda y: y.tolist(),
    "Series": pd.Series,
    "DataFrame": lambda y: pd.DataFrame({"a": y, "b": -y}),
    "a column": lambda y: y[:, None],
    "bools": lambda y: y > 0,
    "Fortran": lambda y: np.asfortranarray(np.stack([y, y + 1], axis=1)),
    "read-only": read_only,
    "strided": lambda y: np.repeat(y, 2)[::2],
    "large": lambda y: 1e6 * y,
    "strings": lambda y: y.astype(str),
    "words": lambda y: np.full(len(y), "word"),
    "objects": lambda y: y.astype(object),
    "negative": lambda y: -np.abs(y),
    "zeros": np.zeros_like,
}


@pytest.mark.parametrize("loss", ["squared_error", "poisson"] if HAS_POISSON else ["squared_error"])
@pytest.mark.parametrize("form", NUMBERS)
def test_forms_of_numbers(form: str, loss: str) -> None:
    task = TASKS["one output"]
    y = NUMBERS[form](task.y)
    two = pair("one output", max_iter=3, **({"loss": loss} if HAS_POISSON else {}))
    with np.errstate(all="ignore"):
        two.do("fit", task.x, y)
        two.agree().predict_alike(task.x)
        two.do("score", task.x, y)


def test_several_columns_of_counts() -> None:
    if HAS_POISSON:
        counts = TASKS["counts"].y
        two = pair("counts", max_iter=5)
        two.do("fit", TASKS["counts"].x, np.stack([counts, counts[::-1]], axis=1))
        two.agree().predict_alike(TASKS["counts"].x)


# ---- few rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("kind", TASKS)
def test_few_rows(kind: str, rows: int, solver: str) -> None:
    task, two = TASKS[kind], pair(kind, solver=solver, max_iter=3, batch_size="auto")
    two.within = 1e-6 if solver == "lbfgs" else EXACT
    two.do("fit", task.x[:rows], task.y[:rows])
    two.agree().predict_alike(task.x)


@pytest.mark.parametrize("kind", TASKS)
def test_early_stopping_with_few_rows(kind: str) -> None:
    for rows in (1, 2, 9, 11, 21):
        task, two = TASKS[kind], pair(kind, early_stopping=True, max_iter=2)
        two.do("fit", task.x[:rows], task.y[:rows])
        two.agree()


def test_one_column() -> None:
    task, two = TASKS["binary"], pair("binary", hidden_layer_sizes=(1,))
    two.do("fit", task.x[:, :1], task.y)
    two.agree().predict_alike(task.x[:, :1])


# ---- what is refused -------------------------------------------------------------------------------------------------


def spoilt(x: Array, value: float) -> Array:
    x = x.copy()
    x[7, 3] = value
    return x


BAD_X = {
    "NaN": lambda x: spoilt(x, np.nan),
    "inf": lambda x: spoilt(x, -np.inf),
    "large": lambda x: spoilt(x, 1e200),
    "one row, flat": lambda x: x[0],
    "three axes": lambda x: x[:, :, None],
    "no rows": lambda x: x[:0],
    "no columns": lambda x: x[:, :0],
    "complex": lambda x: x.astype(complex),
    "strings": lambda x: np.full(x.shape, "word"),
    "other rows": lambda x: x[:-1],
    "None": lambda x: None,
    "sparse with NaN": lambda x: scipy.sparse.csr_array(spoilt(x, np.nan)),
    "dictionary": lambda x: {"a": x},
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("bad", BAD_X)
def test_bad_x(bad: str, solver: str) -> None:
    for kind in ("multiclass", "three outputs"):
        task, two = TASKS[kind], pair(kind, solver=solver, max_iter=2)
        two.within = 1e-6 if solver == "lbfgs" else EXACT
        x = BAD_X[bad](task.x)
        with np.errstate(all="ignore"):
            two.each(lambda network, x=x, y=task.y: network.fit(x, y) and None)
        if bad == "large":  # which of the parameters became NaN before the error depends on the order of operations
            continue
        assert two.last.error is not None
        two.do("fit", task.x, task.y)
        two.agree()
        for method in ("predict", "predict_proba", "partial_fit", "score"):
            if hasattr(two.theirs, method):
                more = (task.y,) if method in ("partial_fit", "score") else ()
                with np.errstate(all="ignore"):
                    two.each(
                        lambda network, method=method, x=x, more=more: _nothing_of_itself(network, method, x, *more)
                    )
        two.agree(1e-6).predict_alike(task.x)


def _nothing_of_itself(network: Any, method: str, *arguments: Any) -> Any:
    result = getattr(network, method)(*arguments)
    return None if result is network else result


@pytest.mark.parametrize("kind", ["multiclass", "one output", "multilabel"])
def test_other_columns_later(kind: str) -> None:
    task, two = TASKS[kind], fitted(kind, max_iter=2)
    for x in (
        task.x[:, :5],
        np.hstack([task.x, task.x]),
        scipy.sparse.csr_array(task.x[:, :5]),
        task.x[:1, :3],
        task.x[0],
    ):
        two.predict_alike(x)
        assert two.last.error is not None
        two.do("partial_fit", x, task.y[: x.shape[0]])
        assert two.last.error is not None
    two.agree()


def test_names_of_columns() -> None:
    task, two = TASKS["multiclass"], pair("multiclass", max_iter=2, early_stopping=True)
    named = pd.DataFrame(task.x, columns=list("abcdefg"))
    two.do("fit", named, task.y)
    two.agree()
    for x in (named, named[list("gfedcba")], named.rename(columns={"a": "z"}), task.x, named[list("abc")]):
        two.predict_alike(x)
        two.do("score", x, task.y)
    two.set(early_stopping=False)
    two.do("fit", named, task.y)
    for x in (named, task.x, named[list("gfedcba")]):
        two.do("partial_fit", x, task.y)
        two.agree()
    two.do("fit", task.x, task.y)
    two.do("predict", named)
    two.agree()


@pytest.mark.parametrize("kind", TASKS)
def test_bad_y(kind: str) -> None:
    task = TASKS[kind]
    flat = np.arange(110.0)
    for y in (
        None,
        task.y[:-1],
        np.full(110, np.nan),
        np.where(flat == 3, np.inf, flat),
        task.y[:0],
        "word",
        flat[:, None, None],
    ):
        two = pair(kind, max_iter=2)
        two.do("fit", task.x, y)
        two.agree()


@pytest.mark.skipif(not HAS_WEIGHTS, reason="this release takes no weights")
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["binary", "multiclass", "three outputs"])
def test_bad_weights(kind: str, solver: str) -> None:
    task = TASKS[kind]
    ones = np.ones(110)
    for weights in (
        ones[:-1],
        ones[:, None],
        ones * np.nan,
        np.where(np.arange(110) == 5, np.inf, ones),
        "word",
        ones > 2,
    ):
        two = pair(kind, solver=solver, max_iter=2)
        two.do("fit", task.x, task.y, sample_weight=weights)
        assert two.last.error is not None
        two.agree()


def test_before_fit() -> None:
    task = TASKS["multiclass"]
    for kind in ("multiclass", "one output"):
        pair(kind).predict_alike(task.x).do("score", task.x, task.y)


def test_partial_fit_with_other_classes() -> None:
    task, two = TASKS["multiclass"], pair("multiclass")
    task = task._replace(y=letters(task.y))
    two.do("partial_fit", task.x, task.y)
    assert two.last.error is not None
    two.do("partial_fit", task.x, task.y, classes=["a", "b"])
    assert two.last.error is not None
    two = pair("multiclass")
    two.do("partial_fit", task.x, task.y, classes=list("abcde"))
    two.agree()
    for y, classes in (
        (np.full(110, "z"), None),
        (task.y, list("abc")),
        (np.arange(110) % 3, None),
        (task.y[:, None], None),
    ):
        two.do("partial_fit", task.x, y, classes=classes)
        two.agree()
    for solver in ("lbfgs", "sgd"):
        two.set(solver=solver).do("partial_fit", task.x, task.y)
        two.agree()
    two.set(early_stopping=True).do("partial_fit", task.x, task.y)
    assert two.last.error is not None
    two.agree()


def test_warm_start_with_other_classes() -> None:
    task, two = TASKS["multiclass"], fitted("multiclass", warm_start=True, max_iter=2)
    for y in (np.where(task.y == 7, 1, task.y), np.where(task.y == 7, 5, task.y)):
        two.do("fit", task.x, y)
        assert two.last.error is not None
        two.agree()


@pytest.mark.parametrize("kind", ["multiclass", "three outputs"])
def test_warm_start_with_another_shape(kind: str) -> None:
    task = TASKS[kind]
    for attributes in (
        {"hidden_layer_sizes": (3,)},
        {"hidden_layer_sizes": (12, 6, 4)},
        {"activation": "tanh"},
        {"solver": "sgd"},
    ):
        two = fitted(kind, warm_start=True, max_iter=2)
        two.set(**attributes).do("fit", task.x, task.y)
        two.agree()


# ---- parameters ------------------------------------------------------------------------------------------------------

WIDENED = {"activation", "solver", "loss"}


@pytest.mark.parametrize("name", OURS)
def test_bad_parameters(name: str) -> None:
    """Each parameter that scikit-learn has, with values that it refuses: its words, where the package takes no more."""
    kind = "multiclass" if name == "MLPClassifier" else "one output"
    task = TASKS[kind]
    refused = 0
    for parameter in pair(kind).theirs.get_params():
        for value in (object, -1, -0.5, 0, "word", None, [], 1.5, np.nan, (3, 0), (3, -1), [[2]], (2.5,), "auto", True):
            two = pair(kind, max_iter=1)
            two.set(**{parameter: value})
            if parameter in WIDENED:
                continue
            if parameter == "random_state" and value is None:
                continue
            with np.errstate(all="ignore"):
                two.do("fit", task.x, task.y)
            refused += two.last.error is not None
            if two.last.error is None and parameter not in ("learning_rate_init",):
                two.agree()
    assert refused > 150


@pytest.mark.parametrize("parameter", sorted(WIDENED))
@pytest.mark.parametrize("name", OURS)
def test_bad_names(name: str, parameter: str) -> None:
    """Where the package takes more, it is scikit-learn's error that names what it takes."""
    two = pair("multiclass" if name == "MLPClassifier" else "one output")
    for value in ("nothing", 3, None):
        with pytest.raises(
            sklearn.utils._param_validation.InvalidParameterError, match=f"'{parameter}' parameter of {name} must"
        ):
            two.ours.set_params(**{parameter: value}).fit(TASKS["binary"].x, TASKS["binary"].y)


@pytest.mark.parametrize("kind", ["multiclass", "one output"])
def test_invalid_parameters_raise_in_each_call(kind: str) -> None:
    task, two = TASKS[kind], fitted(kind, max_iter=2)
    two.do("partial_fit", task.x, task.y)
    for attributes in (
        {"alpha": -1.0},
        {"alpha": 0.5},
        {"batch_size": 0},
        {"batch_size": 8},
        {"hidden_layer_sizes": (0,)},
    ):
        two.set(**attributes).do("partial_fit", task.x, task.y)
        two.agree()


def test_assume_finite() -> None:
    """What scikit-learn's configuration switches off is off."""
    task = TASKS["one output"]
    for x in (task.x, spoilt(task.x, np.nan)):
        two = pair("one output", max_iter=2)
        with sklearn.config_context(assume_finite=True), np.errstate(all="ignore"):
            two.do("fit", x, task.y)
            two.do("predict", task.x)
    with sklearn.config_context(skip_parameter_validation=True):
        pair("one output", alpha=-0.1, max_iter=2).do("fit", task.x, task.y)


def test_comparison_of_pairs_detects_differences() -> None:
    """The helper itself: a network that differs in one number is found out."""
    two = fitted("multiclass", max_iter=2)
    two.ours.coefs_[1][0, 0] += 1e-6
    with pytest.raises(AssertionError, match="coefs_"):
        two.agree()
    two = fitted("multiclass", max_iter=2)
    two.ours.random_state.rand()
    with pytest.raises(AssertionError, match="random_state"):
        two.agree()
    two = fitted("multiclass", max_iter=2)
    two.ours._optimizer.ms[0][0, 0] += 1.0
    with pytest.raises(AssertionError, match=r"_optimizer\.ms"):
        two.agree()
    two = fitted("multiclass", max_iter=2)
    two.ours.extra_ = 1
    with pytest.raises(AssertionError, match="extra_"):
        two.agree()
    assert isinstance(two, Pair)


def test_a_column_later_is_warned_of_each_time() -> None:
    """The short way of `partial_fit` must not take what scikit-learn's validation has a word about."""
    x, y = np.linspace(-1, 1, 20).reshape(10, 2), np.linspace(0, 1, 10)
    ours, theirs = (cls(random_state=0) for cls in (MLPRegressor, neural_network.MLPRegressor))
    for est in (ours, theirs):
        est.partial_fit(x, y)
        with pytest.warns(DataConversionWarning, match="column-vector"):
            est.partial_fit(x, y[:, None])
    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=0, atol=1e-12)
