"""Predictions against those of scikit-learn's own estimator with the same arrays.

Tolerances: a prediction is a chain of a few products of at most 64 terms, summed in another order; 1e-12 of the largest
is some thousand roundings in float64, and 1e-4 in float32.
"""

from __future__ import annotations

import copy
import pickle
import threading
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
from helpers import LAYOUTS, laid_out
from numpy.typing import NDArray
from scipy import sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import fastbp
from fastbp.sklearn import MLPClassifier, MLPRegressor
from fastbp.sklearn import _predicting as predicting

Array = NDArray[Any]

TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-4}
N_IN = 7

SPARSE = (sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.coo_matrix)

# What is predicted, by a name: the targets of `rows` rows.
TARGETS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "one value": lambda rng, rows: rng.standard_normal(rows),
    "three values": lambda rng, rows: rng.standard_normal((rows, 3)),
    "two classes": lambda rng, rows: np.array(["no", "yes"])[np.arange(rows) % 2],
    "two numbers": lambda rng, rows: np.arange(rows) % 2 * 7 - 3,
    "five classes": lambda rng, rows: np.array(["a", "bb", "c", "d", "e"], object)[np.arange(rows) % 5],
    "twenty classes": lambda rng, rows: (np.arange(rows) % 20).astype(np.int16),
    "multilabel": lambda rng, rows: (rng.random((rows, 4)) > 0.5).astype(int),
    "one class": lambda rng, rows: np.full(rows, "only"),
}


def fitted(kind: str, rng: np.random.Generator, dtype: Any = np.float64, **options: Any) -> Any:
    """An estimator after two epochs, so that its parameters are of no special form."""
    made = (MLPRegressor if kind.endswith(("value", "values")) else MLPClassifier)(
        **{"hidden_layer_sizes": (11, 6), "max_iter": 2, "random_state": 3, **options}
    )
    x = rng.standard_normal((60, N_IN)).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return made.fit(x, TARGETS[kind](rng, 60))


def reference(est: Any) -> Any:
    """scikit-learn's own estimator with the very same attributes."""
    base = neural_network.MLPClassifier if isinstance(est, MLPClassifier) else neural_network.MLPRegressor
    made = base.__new__(base)
    made.__dict__.update({name: value for name, value in vars(est).items() if name != "_fastbp"})
    return made


def methods(est: Any) -> tuple[str, ...]:
    return ("predict", "predict_proba", "predict_log_proba") if isinstance(est, MLPClassifier) else ("predict",)


def agree(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    if sparse.issparse(ours):
        ours, theirs = ours.toarray(), theirs.toarray()
    if ours.dtype.kind != "f":
        np.testing.assert_array_equal(ours, theirs)
        return
    assert ours.flags.c_contiguous == theirs.flags.c_contiguous and ours.flags.writeable
    tolerance = TOLERANCE.get(ours.dtype, 1e-12)
    largest = np.abs(theirs[np.isfinite(theirs)]).max(initial=0)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * largest)


def agree_on(est: Any, x: Any) -> None:
    """Compare twice: the first call may take the path through scikit-learn's checks, the second the fast path."""
    theirs = reference(est)
    for name in methods(est):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            expected = getattr(theirs, name)(x)
            agree(getattr(est, name)(x), expected)
            agree(getattr(est, name)(x), expected)


def takes_fast_path(est: Any, x: Any) -> bool:
    kept = predicting.kept_predictor(est)
    return kept is not None and kept.cache.outputs(est, x) is not None


def told(call: Callable[[], Any]) -> tuple[type, str]:
    with pytest.raises(Exception) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        call()
    return type(caught.value), str(caught.value)


# ---- the same predictions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", TARGETS)
def test_predictions_equal_scikit_learns(kind: str, dtype: Any, rng: np.random.Generator) -> None:
    est = fitted(kind, rng, dtype)
    for rows in (1, 2, 5, 131):
        x = rng.standard_normal((rows, N_IN)).astype(dtype)
        agree_on(est, x)
        assert takes_fast_path(est, x)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("sizes", [(), (1,), (33,), (5, 1, 70)])
def test_activations_and_depths(activation: str, sizes: tuple[int, ...], rng: np.random.Generator) -> None:
    for kind in ("one value", "five classes"):
        est = fitted(kind, rng, activation=activation, hidden_layer_sizes=sizes)
        agree_on(est, rng.standard_normal((40, N_IN)))


def test_rates(rng: np.random.Generator) -> None:
    if "loss" not in neural_network.MLPRegressor().get_params():
        pytest.skip("this release has no Poisson loss")
    est = MLPRegressor(loss="poisson", hidden_layer_sizes=(4,), max_iter=2, random_state=0)
    x = rng.standard_normal((50, N_IN))
    with pytest.warns(ConvergenceWarning):
        est.fit(x, rng.poisson(3, 50))
    assert est.out_activation_ == "exp"
    agree_on(est, x)


def test_many_rows(rng: np.random.Generator) -> None:
    agree_on(fitted("five classes", rng), rng.standard_normal((5003, N_IN)))
    agree_on(fitted("one value", rng, hidden_layer_sizes=(600, 500)), rng.standard_normal((1200, N_IN)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, rng: np.random.Generator) -> None:
    for kind in ("one value", "five classes"):
        est = fitted(kind, rng)
        for rows in (1, 70):
            agree_on(est, laid_out(rng.standard_normal((rows, N_IN)), layout))


@pytest.mark.parametrize("kept", [np.float32, np.float64])
@pytest.mark.parametrize("given", ["f2", "f4", "f8", "g", ">f8", ">f4", "i1", "i2", "i4", "i8", "u8", "?"])
def test_dtypes(kept: Any, given: str, rng: np.random.Generator) -> None:
    x = np.round(3 * rng.standard_normal((9, N_IN))).astype(given)
    for kind in ("one value", "two classes", "five classes"):
        agree_on(fitted(kind, rng, kept), x)


def test_other_containers(rng: np.random.Generator) -> None:
    est = fitted("five classes", rng)
    x = np.round(rng.standard_normal((6, N_IN)), 2)
    for given in (x.tolist(), x.astype(object), *(kind(x) for kind in SPARSE)):
        agree_on(est, given)


def test_multilabel_of_sparse_targets(rng: np.random.Generator) -> None:
    est = MLPClassifier(hidden_layer_sizes=(5,), max_iter=2, random_state=0)
    x = rng.standard_normal((40, N_IN))
    with pytest.warns(ConvergenceWarning):
        est.fit(x, (rng.random((40, 3)) > 0.5).astype(int))
    est._label_binarizer.sparse_input_ = True  # as after targets that were sparse
    agree_on(est, x)


def test_ties_and_one_half(rng: np.random.Generator) -> None:
    for kind in ("five classes", "two classes", "multilabel"):
        est = fitted(kind, rng)
        for array in (*est.coefs_, *est.intercepts_):
            array[...] = 0
        agree_on(est, rng.standard_normal((4, N_IN)))


# ---- the same complaints ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["one value", "two classes", "five classes"])
def test_errors(kind: str, rng: np.random.Generator) -> None:
    est = fitted(kind, rng)
    x = rng.standard_normal((300, N_IN))
    est.predict(x)
    bad: list[Any] = [x[0], x[:0], x[:, :-1], x[:, :0], x[None], np.float64(1), x.astype(complex), x.astype(str)]
    bad += ["words", None]
    for value in (np.nan, np.inf, -np.inf):
        for place in ((0, 0), (299, N_IN - 1), (150, 3)):
            for layout in ("C", "F", "strided"):
                wrong = x.copy()
                wrong[place] = value
                bad.append(laid_out(wrong, layout))
    theirs = reference(est)
    for name in methods(est):
        for wrong in bad:
            assert told(partial(getattr(est, name), wrong)) == told(partial(getattr(theirs, name), wrong))


def test_not_fitted() -> None:
    x = np.zeros((2, 3))
    assert told(lambda: MLPRegressor().predict(x)) == told(lambda: neural_network.MLPRegressor().predict(x))
    for name in ("predict", "predict_proba"):
        ours, theirs = MLPClassifier(), neural_network.MLPClassifier()
        assert told(partial(getattr(ours, name), x)) == told(partial(getattr(theirs, name), x))


def test_assume_finite(rng: np.random.Generator) -> None:
    est = fitted("five classes", rng, activation="tanh")
    x = rng.standard_normal((30, N_IN))
    x[3, 2], x[5, 1] = np.nan, np.inf
    with sklearn.config_context(assume_finite=True):
        agree_on(est, x)
    assert told(lambda: est.predict(x)) == told(lambda: reference(est).predict(x))


def test_predictions_that_overflow_warn(rng: np.random.Generator) -> None:
    est = fitted("one value", rng)
    est.coefs_[0][...] = 1e300
    x = np.full((4, N_IN), 1e300)

    def noted(predict: Callable[[Any], Any]) -> tuple[Array, list[str]]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            return predict(x), [str(one.message) for one in found]

    (ours, our_words), (theirs, their_words) = noted(est.predict), noted(reference(est).predict)
    np.testing.assert_array_equal(ours, theirs)
    assert our_words == their_words != []


def test_nan_parameters(rng: np.random.Generator) -> None:
    for kind in ("one value", "two classes", "five classes", "multilabel"):
        est = fitted(kind, rng)
        est.intercepts_[-1][-1] = np.nan
        agree_on(est, rng.standard_normal((3, N_IN)))


def test_feature_names(rng: np.random.Generator) -> None:
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame(rng.standard_normal((30, 3)), columns=["a", "b", "c"])
    est = MLPRegressor(hidden_layer_sizes=(4,), max_iter=2, random_state=0)
    with pytest.warns(ConvergenceWarning):
        est.fit(x, x["a"])
    agree_on(est, x)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        agree(est.predict(x.to_numpy()), reference(est).predict(x))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        est.predict(x.to_numpy())
    assert told(lambda: est.predict(x[["b", "a", "c"]])) == told(lambda: reference(est).predict(x[["b", "a", "c"]]))


# ---- arguments that become plain arrays ------------------------------------------------------------------------------

NAMES = [f"column {i}" for i in range(N_IN)]


class Arrayed:
    """Not an array, but it can become one."""

    def __init__(self, x: Array) -> None:
        self.x = x

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.x if dtype is None else self.x.astype(dtype)

    def __len__(self) -> int:
        return len(self.x)


class Exported:
    """What exports its memory, as an array of another library does."""

    def __init__(self, x: Array) -> None:
        self.x, self.shape = x, x.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.x if dtype is None else self.x.astype(dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.x.__dlpack_device__()


def heard(call: Callable[[], Any]) -> tuple[Any, list[tuple[type, str]]]:
    """Return a call's value or its error, and its warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            value = call()
        except Exception as error:
            value = type(error), str(error)
    return value, [(one.category, str(one.message)) for one in found]


def assert_alike(est: Any, x: Any) -> None:
    """Values, errors and warnings are scikit-learn's, also when the estimator has predicted before."""
    theirs = reference(est)
    for name in methods(est):
        expected, said = heard(lambda name=name: getattr(theirs, name)(x))
        for _ in range(2):
            found, told_ = heard(lambda name=name: getattr(est, name)(x))
            assert said == told_
            if isinstance(expected, tuple):
                assert found == expected
            else:
                agree(found, expected)


def quick(est: Any, x: Any) -> bool:
    """Whether x is, or becomes, a plain array without scikit-learn's checks."""
    kept = predicting.kept_predictor(est)
    return kept is not None and predicting.on_fast_path(est, kept.cache.outputs, x, kept.dtype) is not None


def named(kind: str, rng: np.random.Generator, **options: Any) -> Any:
    """An estimator that has been fitted to a DataFrame."""
    est = fitted(kind, rng, **options)
    est.feature_names_in_ = np.array(NAMES, object)
    return est


QUICK: dict[str, Callable[[Array], Any]] = {
    "list": lambda x: x.tolist(),
    "tuple": lambda x: tuple(map(tuple, x.tolist())),
    "list of integers": lambda x: x.astype(int).tolist(),
    "list of arrays": lambda x: list(x),
    "list of booleans": lambda x: (x > 0).tolist(),
    "float16": lambda x: x.astype(np.float16),
    "float32": lambda x: x.astype(np.float32),
    "int64": lambda x: x.astype(np.int64),
    "uint8": lambda x: np.abs(x).astype(np.uint8),
    "bool": lambda x: x > 0,
    "big-endian": lambda x: x.astype(">f8"),
    "float32 by columns": lambda x: np.asfortranarray(x.astype(np.float32)),
    "every second row of integers": lambda x: np.repeat(x.astype(int), 2, axis=0)[::2],
}
# Of a DataFrame with columns of these names.
QUICK_FRAMES: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda frame: frame,
    "some rows": lambda frame: frame.iloc[1:],
    "float32": lambda frame: frame.astype(np.float32),
    "integers": lambda frame: frame.astype(int),
    "booleans": lambda frame: frame > 0,
    "mixed": lambda frame: frame.astype({frame.columns[0]: int, frame.columns[2]: bool, frame.columns[3]: np.float32}),
    "small and large": lambda frame: frame.abs().astype({frame.columns[1]: np.uint64, frame.columns[2]: np.int64}),
}


@pytest.mark.parametrize("kind", ["one value", "two classes", "five classes", "multilabel"])
@pytest.mark.parametrize("form", QUICK)
def test_quick_forms(form: str, kind: str, rng: np.random.Generator) -> None:
    est = fitted(kind, rng)
    for rows in (1, 9):
        x = QUICK[form](np.round(3 * rng.standard_normal((rows, N_IN)), 2))
        assert_alike(est, x)
        assert quick(est, x)
        assert_alike(named(kind, rng), x)  # warns


@pytest.mark.parametrize("kind", ["one value", "two classes"])
@pytest.mark.parametrize("form", QUICK_FRAMES)
def test_quick_frames(form: str, kind: str, rng: np.random.Generator) -> None:
    pandas = pytest.importorskip("pandas")
    x = np.round(3 * rng.standard_normal((9, N_IN)), 2)
    for est, columns in (
        (named(kind, rng), NAMES),
        (fitted(kind, rng), range(N_IN)),
        (fitted(kind, rng), [*range(N_IN)]),
    ):
        frame = QUICK_FRAMES[form](pandas.DataFrame(x, columns=columns))
        assert_alike(est, frame)
        assert quick(est, frame)


def odd_rows(x: Array) -> dict[str, Any]:
    lists = x.tolist()
    masked = np.ma.masked_array(x, x > 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        matrix = np.matrix(x)
    return {
        **{"empty": [], "no columns": [[]], "one axis": lists[0], "three axes": [lists, lists], "a number": 3.0},
        **{"ragged": [lists[0], lists[1][:-1]], "strings": x.astype(str).tolist(), "None": [[None] * N_IN]},
        **{"a column less": x[:, 1:].tolist(), "a column more": np.c_[x, x[:, 0]].tolist()},
        **{"NaN": [[np.nan] * N_IN], "infinite": [[np.inf] * N_IN], "complex": (x + 1j).tolist()},
        **{"huge integers": [[10**30] * N_IN], "not even float": [[10**400] * N_IN], "words": [["a"] * N_IN]},
        **{"a generator": (row for row in ()), "a set": {1, 2}, "a dict": {"a": lists}, "bytes": b"abc"},
        **{"object": x.astype(object), "objects with words": np.full((2, N_IN), "a", object)},
        **{"structured": np.zeros((2, N_IN), [("a", float)]), "dates": x.astype("M8[s]"), "longdouble": x.astype("g")},
        **{"matrix": matrix, "masked": masked, "float32 with NaN": np.full((2, N_IN), np.nan, np.float32)},
        **{"float16 infinite": np.full((2, N_IN), np.inf, np.float16), "no rows": x[:0].astype(int)},
        **{"array-like": Arrayed(x), "array-like of integers": Arrayed(x.astype(int)), "dlpack": Exported(x)},
        **{kind.__name__: kind(x) for kind in SPARSE},
        "coo": sparse.coo_array(x),
    }


ROWS_OF_ODD_FORMS = tuple(odd_rows(np.zeros((3, N_IN))))


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("form", ROWS_OF_ODD_FORMS)
def test_odd_forms(form: str, rng: np.random.Generator) -> None:
    x = np.round(3 * rng.standard_normal((3, N_IN)), 2)
    for est in (fitted("one value", rng), fitted("five classes", rng), named("two classes", rng)):
        est.predict(pandas_or_rows(est, x))
        assert_alike(est, odd_rows(x)[form])


def pandas_or_rows(est: Any, x: Array) -> Any:
    """What an estimator with or without names takes without a word."""
    return pytest.importorskip("pandas").DataFrame(x, columns=NAMES) if hasattr(est, "feature_names_in_") else x


def odd_frames(pandas: Any, x: Array) -> dict[str, Any]:
    frame = pandas.DataFrame(x, columns=NAMES)

    class Frame(pandas.DataFrame):  # type: ignore[misc]
        pass

    def with_columns(columns: Any) -> Any:
        return pandas.DataFrame(x, columns=columns)

    def with_first(column: Any) -> Any:
        return frame.assign(**{NAMES[0]: column})

    return {
        **{"other order": frame[NAMES[::-1]], "one missing": frame[NAMES[1:]], "one more": frame.assign(more=1.0)},
        **{
            "other names": with_columns(list("abcdefg")),
            "numbers": with_columns(range(N_IN)),
            "floats": with_columns(x[0]),
        },
        **{"names and numbers": with_columns(["a", *range(1, N_IN)]), "twice": with_columns([*NAMES[:-1], NAMES[0]])},
        **{
            "numpy's strings": with_columns(pandas.Index([*map(np.str_, NAMES)], dtype=object)),
            "tuples": with_columns(pandas.MultiIndex.from_tuples([("a", name) for name in NAMES])),
            "dates": with_columns(pandas.date_range("2020", periods=N_IN)),
        },
        **{
            "objects": frame.astype(object),
            "words": with_first("a"),
            "an object": with_first(np.array([1, 2, 3], object)),
        },
        **{
            "numbers in strings": with_first(["1", "2", "3"]),
            "category": with_first(pandas.Categorical([1.0, 2.0, 1.0])),
        },
        **{
            "Int64": with_first(pandas.array([1, 2, 3], "Int64")),
            "missing": with_first(pandas.array([1, None, 3], "Int64")),
        },
        **{"Float64": frame.astype("Float64"), "boolean": with_first(pandas.array([True, False, True], "boolean"))},
        **{
            "NaN": with_first(np.nan),
            "infinite": with_first(np.inf),
            "complex": with_first(1j),
            "longdouble": with_first(np.ones(3, "g")),
        },
        **{
            "dates in a column": with_first(pandas.Timestamp("2020")),
            "a sparse column": with_first(pandas.arrays.SparseArray(x[:, 0])),
        },
        **{
            "all sparse": frame.astype(pandas.SparseDtype(float, 0.0)),
            "no rows": frame.iloc[:0],
            "no columns": frame[[]],
        },
        **{
            "subclass": Frame(frame),
            "a Series": frame[NAMES[0]],
            "an Index": frame.columns,
            "half precision": frame.astype(np.float16),
        },
        "a column named dtype": with_columns(["dtype", *NAMES[1:]]),
    }


ODD_FRAMES = (
    *("other order", "one missing", "one more", "other names", "numbers", "floats", "names and numbers", "twice"),
    *("numpy's strings", "tuples", "dates", "objects", "words", "an object", "numbers in strings", "category", "Int64"),
    *(
        "missing",
        "Float64",
        "boolean",
        "NaN",
        "infinite",
        "complex",
        "longdouble",
        "dates in a column",
        "a sparse column",
    ),
    *(
        "all sparse",
        "no rows",
        "no columns",
        "subclass",
        "a Series",
        "an Index",
        "half precision",
        "a column named dtype",
    ),
)


@pytest.mark.parametrize("form", ODD_FRAMES)
def test_odd_frames(form: str, rng: np.random.Generator) -> None:
    pandas = pytest.importorskip("pandas")
    x = np.round(3 * rng.standard_normal((3, N_IN)), 2)
    frames = odd_frames(pandas, x)
    assert tuple(frames) == ODD_FRAMES
    for est in (named("one value", rng), named("two classes", rng), fitted("five classes", rng)):
        est.predict(pandas_or_rows(est, x))
        assert_alike(est, frames[form])


def test_changed_names(rng: np.random.Generator) -> None:
    pandas = pytest.importorskip("pandas")
    est, x = named("one value", rng), rng.standard_normal((4, N_IN))
    frame = pandas.DataFrame(x, columns=NAMES)
    assert_alike(est, frame)
    frame.columns = NAMES[::-1]
    assert_alike(est, frame)
    frame.columns = NAMES
    assert_alike(est, frame)
    est.feature_names_in_ = np.array(NAMES[::-1], object)
    assert_alike(est, frame)
    est.feature_names_in_ = NAMES  # a list
    assert_alike(est, frame)
    del est.feature_names_in_
    assert_alike(est, frame)


def test_quick_forms_in_other_precisions(rng: np.random.Generator) -> None:
    """Of parameters in float32, what numpy would compute in float64 is computed there; the option casts."""
    x = np.round(3 * rng.standard_normal((5, N_IN)), 2)
    est = fitted("three values", rng, np.float32)
    est.predict(x.astype(np.float32))
    for form, make in QUICK.items():
        given = make(x)
        assert_alike(est, given)
        assert quick(est, given) == (np.result_type(np.asarray(given), np.float32) == np.float32), form
    short = MLPRegressor(hidden_layer_sizes=(5,), max_iter=2, random_state=0, dtype="float32")
    with pytest.warns(ConvergenceWarning):
        short.fit(x, x[:, :2]).predict(x)
    for form, make in QUICK.items():
        given = make(x)
        agree(short.predict(given), reference(short).predict(np.asarray(given).astype(np.float32)))
        assert quick(short, given), form
    infinite = np.full((1, N_IN), np.inf, np.float32)
    assert told(lambda: short.predict([[1e300] * N_IN])) == told(lambda: reference(short).predict(infinite))


# ---- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TARGETS)
def test_scores(kind: str, rng: np.random.Generator) -> None:
    pandas = pytest.importorskip("pandas")
    est, x = fitted(kind, rng), rng.standard_normal((60, N_IN))
    y = TARGETS[kind](rng, 60)
    weight = rng.uniform(size=60)
    forms = [y, y.tolist(), y[:59], y[:0], y[:, None], y.astype(object), y + y if y.dtype.kind in "if" else y]
    forms += [
        y.astype(np.float32) if y.dtype.kind in "if" else y,
        np.full(60, np.nan),
        np.full(60, 2.5),
        np.full(60, 1e200),
    ]
    forms += [np.full(60, 1), np.full(60, "no"), None, np.arange(60) % 3, np.where(np.arange(60) < 5, np.inf, 0.5)]
    forms += [pandas.Series(y) if y.ndim == 1 else pandas.DataFrame(y), pandas.Series(np.arange(60) % 2, dtype="Int64")]
    theirs = reference(est)
    for target in forms:
        for more in ({}, {"sample_weight": weight}):
            expected = heard(lambda target=target, more=more: theirs.score(x, target, **more))
            found = heard(lambda target=target, more=more: est.score(x, target, **more))
            assert type(found[0]) is type(expected[0]) and found[1] == expected[1]
            if isinstance(expected[0], float):
                np.testing.assert_allclose(found[0], expected[0], rtol=1e-10)
            else:
                assert found[0] == expected[0]
    for rows in (1, 2):
        expected = heard(lambda rows=rows: theirs.score(x[:rows], y[:rows]))
        np.testing.assert_equal(heard(lambda rows=rows: est.score(x[:rows], y[:rows]))[1], expected[1])


def test_score_calls_an_overriding_predict(rng: np.random.Generator) -> None:
    class Constant(MLPRegressor):
        def predict(self, X: Any) -> Any:
            return [1.0, 2.0, 4.0]

    est = Constant()
    vars(est).update(vars(fitted("one value", rng)))
    assert est.score(np.zeros((3, N_IN)), np.array([1.0, 2.0, 3.0])) == pytest.approx(0.5)


def test_score_has_the_requests_of_metadata() -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        est = MLPClassifier().set_score_request(sample_weight=True)
        assert est.get_metadata_routing().score.requests == {"sample_weight": True}


# ---- changed estimators, and subclasses ------------------------------------------------------------------------------


def test_changed_parameters(rng: np.random.Generator) -> None:
    est = fitted("five classes", rng)
    x = rng.standard_normal((20, N_IN))
    agree_on(est, x)
    est.coefs_[1][...] += 1
    agree_on(est, x)
    est.coefs_[0] = est.coefs_[0] * 2
    agree_on(est, x)
    assert takes_fast_path(est, x)
    est.intercepts_ = [intercept - 0.5 for intercept in est.intercepts_]
    agree_on(est, x)
    assert takes_fast_path(est, x)
    est.coefs_[1] = np.asfortranarray(est.coefs_[1])
    agree_on(est, x)
    est.coefs_[1] = np.repeat(np.repeat(est.coefs_[1], 2, axis=0), 2, axis=1)[::2, ::2]
    agree_on(est, x)
    est.coefs_[1] = est.coefs_[1].astype(np.float32)
    agree_on(est, x)
    est.coefs_ = [coef.astype(np.float32) for coef in est.coefs_]
    est.intercepts_ = [intercept.astype(np.float32) for intercept in est.intercepts_]
    agree_on(est, x)
    agree_on(est, x.astype(np.float32))
    est.coefs_ = tuple(est.coefs_)
    agree_on(est, x)


def test_changed_shapes(rng: np.random.Generator) -> None:
    est = fitted("one value", rng, hidden_layer_sizes=(6, 6))
    x = rng.standard_normal((20, N_IN))
    est.predict(x)
    est.coefs_[0] = est.coefs_[0].copy()
    est.predict(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        est.coefs_[0].shape = (6, N_IN)
    assert told(lambda: est.predict(x)) == told(lambda: reference(est).predict(x))
    est.n_features_in_ = 6
    assert told(lambda: est.predict(x)) == told(lambda: reference(est).predict(x))


def test_changed_settings(rng: np.random.Generator) -> None:
    est = fitted("two classes", rng)
    x = rng.standard_normal((20, N_IN))
    agree_on(est, x)
    est.set_params(activation="tanh")
    agree_on(est, x)
    est.out_activation_ = "identity"
    agree_on(est, x)
    est._label_binarizer = copy.deepcopy(est._label_binarizer)
    est._label_binarizer.pos_label = 3
    agree_on(est, x)


def with_method(est: Any, name: str, result: Array) -> Any:
    """Return the same estimator of a subclass, whose method of this name returns the result."""
    cls = type("Mine", (type(est),), {name: lambda self, X, check_input=True: result})
    vars(made := cls()).update(vars(est))
    return made


@pytest.mark.parametrize(
    ("kind", "method", "name", "result"),
    [
        ("one value", "predict", "_forward_pass_fast", np.full((3, 1), 42.0)),
        ("one value", "predict", "_predict", np.full(3, 42.0)),
        ("two classes", "predict", "_forward_pass_fast", np.array([[0.2], [0.7], [0.9]])),
        ("two classes", "predict", "_predict", np.array(["yes", "yes", "no"])),
        ("five classes", "predict_proba", "_forward_pass_fast", np.eye(3, 5)),
    ],
)
def test_overridden_method_of_a_subclass_predicts(
    kind: str, method: str, name: str, result: Array, rng: np.random.Generator
) -> None:
    est, x = fitted(kind, rng), rng.standard_normal((3, N_IN))
    est.predict(x)  # the subclass has this predictor, too
    ours, theirs = with_method(est, name, result), with_method(reference(est), name, result)
    for _ in range(2):
        agree(getattr(ours, method)(x), getattr(theirs, method)(x))
    agree_on(est, x)


def test_overriding_method_may_call_the_base_class(rng: np.random.Generator) -> None:
    class Doubled(MLPRegressor):
        def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Array:
            return 2 * super()._forward_pass_fast(X, check_input)

    est = fitted("one value", rng)
    doubled = Doubled(hidden_layer_sizes=(11, 6))
    vars(doubled).update({name: value for name, value in vars(est).items() if name != "_fastbp"})
    x = rng.standard_normal((3, N_IN))
    for _ in range(2):
        np.testing.assert_array_equal(doubled.predict(x), 2 * est.predict(x))


def test_subclass_with_its_own_is_fitted_raises(rng: np.random.Generator) -> None:
    class Doubtful(MLPRegressor):
        def __sklearn_is_fitted__(self) -> bool:
            return False

    est = fitted("one value", rng)
    doubtful = Doubtful()
    vars(doubtful).update({name: value for name, value in vars(est).items() if name != "_fastbp"})
    x = rng.standard_normal((3, N_IN))
    doubtful._forward_pass_fast(x)
    with pytest.raises(NotFittedError):
        doubtful.predict(x)


def test_subclass_with_feature_names_is_warned(rng: np.random.Generator) -> None:
    class Named(MLPRegressor):
        @property
        def feature_names_in_(self) -> Array:
            return np.array([f"column {i}" for i in range(N_IN)], object)

    named = Named()
    vars(named).update(vars(fitted("one value", rng)))
    x = rng.standard_normal((3, N_IN))
    for _ in range(2):
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            named.predict(x)


# ---- copies, threads, memory -----------------------------------------------------------------------------------------


def test_predicting_changes_no_attribute(rng: np.random.Generator) -> None:
    est = pickle.loads(pickle.dumps(fitted("five classes", rng)))
    before = dict(vars(est))
    x = rng.standard_normal((3, N_IN))
    for name in methods(est):
        getattr(est, name)(x)
    assert vars(est) == before and "_fastbp" not in before


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda est: pickle.loads(pickle.dumps(est))])
def test_copies(copied: Callable[[Any], Any], rng: np.random.Generator) -> None:
    est = fitted("five classes", rng)
    x = rng.standard_normal((8, N_IN))
    other = copied(est)
    agree_on(other, x)
    assert takes_fast_path(other, x)
    other.coefs_ = [2 * coef for coef in other.coefs_]
    agree_on(other, x)
    agree_on(est, x)
    assert told(lambda: clone(est).predict(x)) == told(lambda: neural_network.MLPClassifier().predict(x))


@pytest.mark.parametrize("kind", ["one value", "two classes", "five classes"])
def test_parameters_mapped_from_a_file(kind: str, tmp_path: Any, rng: np.random.Generator) -> None:
    est, x = fitted(kind, rng), rng.standard_normal((30, N_IN))
    joblib.dump(est, tmp_path / "model")
    mapped = joblib.load(tmp_path / "model", mmap_mode="r")
    assert type(mapped.coefs_[0]) is np.memmap
    np.testing.assert_array_equal(mapped.predict(x), est.predict(x))
    assert takes_fast_path(mapped, x)


def test_subclass_without_hash_predicts(rng: np.random.Generator) -> None:
    class Equal(MLPRegressor):
        def __eq__(self, other: object) -> bool:
            return self is other

    est = fitted("one value", rng)
    other = Equal()
    vars(other).update({name: value for name, value in vars(est).items() if name != "_fastbp"})
    x = rng.standard_normal((3, N_IN))
    np.testing.assert_array_equal(other.predict(x), est.predict(x))


def test_several_threads_at_once(rng: np.random.Generator) -> None:
    est = fitted("five classes", rng)
    x = rng.standard_normal((4000, N_IN))
    expected, wrong = est.predict_proba(x), []

    def predict() -> None:
        for rows in (1, 3000, 10, 4000):
            for _ in range(10):
                if not np.allclose(est.predict_proba(x[:rows]), expected[:rows], rtol=1e-12, atol=1e-15):
                    wrong.append(rows)

    threads = [threading.Thread(target=predict) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_any_number_of_threads_gives_the_same_bits(rng: np.random.Generator) -> None:
    est = fitted("five classes", rng)
    x = rng.standard_normal((5000, N_IN))
    with fastbp.threads(1):
        alone = est.predict_proba(x)
    np.testing.assert_array_equal(est.predict_proba(x), alone)
    est.n_threads = 1
    np.testing.assert_array_equal(est.predict_proba(x), alone)


def test_memory(rng: np.random.Generator) -> None:
    est = MLPClassifier((100,), max_iter=1, random_state=0)
    with pytest.warns(ConvergenceWarning):
        est.fit(rng.standard_normal((100, 64)), np.arange(100) % 10)
    x = rng.standard_normal((100_000, 64))
    est.predict_proba(x[:1000])
    for predict, result in ((est.predict_proba, 100_000 * 10 * 8), (est.predict, 2 * 100_000 * 8)):
        tracemalloc.start()
        try:
            predict(x)
            assert tracemalloc.get_traced_memory()[1] < result + 2_000_000
        finally:
            tracemalloc.stop()


# ---- what scikit-learn does not have ---------------------------------------------------------------------------------


def by_network(est: Any, x: Array) -> Array:
    """Return the outputs by the reference implementations of the units."""
    z = x
    for i, (coef, intercept) in enumerate(zip(est.coefs_, est.intercepts_, strict=True)):
        z = z @ coef + intercept
        if i < len(est.coefs_) - 1:
            names = est.activation
            name = names if isinstance(names, str) else names[i]
            z = getattr(fastbp.reference, name)(z)
    return z


@pytest.mark.parametrize("activation", ["gelu", "softplus", ["gelu", "tanh"]])
def test_own_activations(activation: Any, rng: np.random.Generator) -> None:
    est = fitted("three values", rng, activation=activation)
    x = rng.standard_normal((1500, N_IN))
    expected = by_network(est, x)
    for given in (x, x.tolist(), sparse.csr_matrix(x), sparse.csc_matrix(x)):
        for _ in range(2):
            np.testing.assert_allclose(est.predict(given), expected, rtol=1e-10, atol=1e-12)
    est.coefs_[0] = np.asfortranarray(est.coefs_[0])
    np.testing.assert_allclose(est.predict(x), expected, rtol=1e-10, atol=1e-12)
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        est.predict(x)


def test_a_unit_as_activation(rng: np.random.Generator) -> None:
    unit = fastbp.LeakyReLU(0.3)
    est = fitted("three values", rng, activation=unit)
    x = rng.standard_normal((5, N_IN))
    z = x
    for coef, intercept in zip(est.coefs_, est.intercepts_, strict=True):
        z = z @ coef + intercept
        if coef is not est.coefs_[-1]:
            z = np.where(z > 0, z, 0.3 * z)
    np.testing.assert_allclose(est.predict(x), z, rtol=1e-10, atol=1e-12)


def test_dtype_option_sets_the_dtype_of_predictions(rng: np.random.Generator) -> None:
    est = fitted("three values", rng, dtype=np.float64)
    short = MLPRegressor(hidden_layer_sizes=(5,), max_iter=2, random_state=0, dtype="float32")
    x = rng.standard_normal((30, N_IN))
    with pytest.warns(ConvergenceWarning):
        short.fit(x, x[:, :2])
    assert short.predict(x).dtype == np.float32 and est.predict(x).dtype == np.float64
    agree(short.predict(x), reference(short).predict(x.astype(np.float32)))
