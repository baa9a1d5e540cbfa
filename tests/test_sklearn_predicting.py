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
