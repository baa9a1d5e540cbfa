"""An estimator of scikit-learn's and one of fastbp's, with the same calls and a comparison of all their attributes.

A. Each call is made on both. Errors, warnings, printed text and results must be the same, to the letter. Where a call
   raises and fastbp's estimator is as it was, scikit-learn's is put back, too: it has set attributes before the error.
B. `agree` compares every attribute that scikit-learn's estimator then has, private ones too: the RandomState's
   position, the optimizer and its moments. Counts, names and types must be equal; arrays and losses within the
   tolerance of the pair.
C. scikit-learn's classes are taken from the module that defines them, which `patch` does not change.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse
import sklearn
from numpy.typing import NDArray
from sklearn.neural_network import _multilayer_perceptron as original
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastbp.sklearn import MLPClassifier, MLPRegressor

Array = NDArray[Any]

THEIRS = {"MLPClassifier": original.MLPClassifier, "MLPRegressor": original.MLPRegressor}
OURS = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}

RELEASE = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
HAS_WEIGHTS = "sample_weight" in inspect.signature(original.MLPClassifier.fit).parameters
HAS_POISSON = "loss" in inspect.signature(original.MLPRegressor).parameters

# What fastbp's networks have beyond scikit-learn's after fit; nothing else may be there.
MORE = ("_fastbp", "validation_loss_curve_")

EXACT = 1e-9  # of the largest element: what twenty epochs in float64 must agree to


# ---- data ------------------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """Data to fit, and the name and the parameters of the network that fits them."""

    name: str
    x: Array
    y: Array
    weights: Array
    parameters: dict[str, Any]


def _tasks() -> dict[str, Task]:
    """Return one task of each kind of target."""
    # The same with every --seed: the networks agree to 1e-9 where a training neither diverges nor comes near a
    # probability of 0 or 1, whose logarithm scikit-learn takes with fewer digits. So the data were looked at.
    rng = np.random.default_rng(5)
    n = 110
    x = rng.standard_normal((n, 7))
    scores = x @ rng.standard_normal((7, 4)) + 0.3 * rng.standard_normal((n, 4))
    weights = rng.uniform(0.2, 3.0, n)
    classes, values = ("MLPClassifier", {}), ("MLPRegressor", {})
    targets = {
        "binary": (scores[:, 0] > 0.3, classes),
        "multiclass": (np.array([7, 0, 2, 1])[scores.argmax(axis=1)], classes),
        "multilabel": ((scores[:, :3] > 0).astype(int), classes),
        "one output": (scores[:, 0], values),
        "three outputs": (scores[:, :3], values),
    }
    if HAS_POISSON:
        targets["counts"] = (rng.poisson(np.exp(0.4 * scores[:, 0])), ("MLPRegressor", {"loss": "poisson"}))
    return {kind: Task(name, x, y, weights, dict(more)) for kind, (y, (name, more)) in targets.items()}


TASKS = _tasks()


# ---- what a call does ------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What came of a call."""

    result: Any
    error: tuple[type, str] | None
    warned: list[tuple[type, str]]
    printed: str


def outcome(call: Callable[[], Any]) -> Outcome:
    """Make the call; return its result or its error, and what it warned of and printed."""
    result, error, printed = None, None, io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
        warnings.simplefilter("always")
        try:
            result = call()
        except Exception as raised:
            error = (type(raised), str(raised))
    warned = [(warning.category, str(warning.message)) for warning in caught]
    return Outcome(result, error, warned, printed.getvalue())


def assert_same(ours: Any, theirs: Any, within: float = 0.0, where: str = "") -> None:
    """Assert that two values are the same throughout, arrays and floats to this share of the largest element."""
    assert type(ours) is type(theirs) or _both_networks(ours, theirs), f"{where}: {type(ours)}, not {type(theirs)}"
    if isinstance(theirs, np.ndarray):
        _assert_same_arrays(ours, theirs, within, where)
    elif scipy.sparse.issparse(theirs):
        _assert_same_arrays(ours.toarray(), theirs.toarray(), within, where)
    elif hasattr(theirs, "equals"):
        assert theirs.equals(ours), f"{where}: {ours}, not {theirs}"
    elif isinstance(theirs, float | np.floating):
        same = math.isclose(ours, theirs, rel_tol=within) or (math.isnan(ours) and math.isnan(theirs))
        assert same, f"{where}: {ours!r}, not {theirs!r}"
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), f"{where}: {len(ours)} items, not {len(theirs)}"
        for i, (mine, its) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(mine, its, within, f"{where}[{i}]")
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs), f"{where}: {list(ours)}, not {list(theirs)}"
        for key in theirs:
            assert_same(ours[key], theirs[key], within, f"{where}[{key!r}]")
    elif isinstance(theirs, np.random.RandomState):
        assert_same(ours.get_state(), theirs.get_state(), 0.0, f"{where}.get_state()")
    elif hasattr(theirs, "__dict__") and not isinstance(theirs, type) and not callable(theirs):
        assert_same_attributes(ours, theirs, within, where)
    else:
        assert ours == theirs, f"{where}: {ours!r}, not {theirs!r}"


def assert_same_attributes(ours: Any, theirs: Any, within: float, where: str = "") -> None:
    """Assert that an object has every attribute of the other, and the same in it."""
    missing = [name for name in vars(theirs) if not hasattr(ours, name)]
    assert not missing, f"{where}: lacks {missing}"
    allowed = {*MORE, *ours.get_params(deep=False)} if hasattr(ours, "get_params") else set()
    added = set(vars(ours)) - set(vars(theirs)) - allowed
    assert not added, f"{where}: has {added}"
    for name, value in vars(theirs).items():
        assert_same(getattr(ours, name), value, within, f"{where}.{name}")


def _assert_same_arrays(ours: Array, theirs: Array, within: float, where: str) -> None:
    assert ours.shape == theirs.shape, f"{where}: {ours.shape}, not {theirs.shape}"
    assert ours.dtype == theirs.dtype, f"{where}: {ours.dtype}, not {theirs.dtype}"
    if theirs.dtype.kind != "f" or within == 0.0:
        np.testing.assert_array_equal(ours, theirs, err_msg=where)
        return
    finite = np.isfinite(theirs)
    np.testing.assert_array_equal(np.where(finite, 0, ours), np.where(finite, 0, theirs), err_msg=where)
    largest = np.abs(theirs[finite]).max(initial=0.0)
    error = np.abs(ours[finite] - theirs[finite]).max(initial=0.0)
    assert error <= within * largest, f"{where}: differs by {error / max(largest, 1e-300):.2e} of the largest element"


def _both_networks(ours: Any, theirs: Any) -> bool:
    name = type(theirs).__name__
    return name in OURS and type(ours).__name__ == name and isinstance(ours, type(theirs))


# ---- pairs -----------------------------------------------------------------------------------------------------------


class Pair:
    """Two networks of the same parameters; what is called is called on both, and the outcomes are compared."""

    def __init__(self, ours: Any, theirs: Any, within: float = EXACT) -> None:
        self.ours = ours
        self.theirs = theirs
        self.within = within

    def each(self, call: Callable[[Any], Any]) -> Any:
        """Make a call for both; assert the same outcome and return its result, scikit-learn's."""
        theirs, ours = outcome(lambda: call(self.theirs)), outcome(lambda: call(self.ours))
        for name in ("error", "warned", "printed"):
            mine, its = getattr(ours, name), getattr(theirs, name)
            assert mine == its, f"{name}:\n{mine}\nnot\n{its}"
        assert_same(ours.result, theirs.result, self.within, "result")
        self.last = theirs
        return theirs.result

    def do(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of both with copies of the same arguments; assert the same outcome, and no argument changed."""
        given = [copy.deepcopy((arguments, options)) for _ in range(2)]
        own = dict(zip((id(self.theirs), id(self.ours)), given, strict=True))

        def call(network: Any) -> Any:
            args, kwargs = own[id(network)]
            result = getattr(network, method)(*args, **kwargs)
            return None if result is network else result

        before, copied = vars(self.ours).copy(), copy.deepcopy(vars(self.theirs))
        result = self.each(call)
        assert_same(given[1], given[0], 0.0, "arguments")
        now = vars(self.ours)
        if self.last.error is not None and now.keys() == before.keys():
            if all(now[name] is before[name] for name in before):
                self.theirs.__dict__ = copied
        return result

    def agree(self, within: float | None = None) -> Pair:
        """Assert that everything that is in scikit-learn's network is in fastbp's."""
        assert_same_attributes(self.ours, self.theirs, self.within if within is None else within)
        return self

    def predict_alike(self, x: Any) -> Pair:
        """Assert that all predictions for these rows are the same.

        A logarithm amplifies the rounding of 1 - p without bound, so that it is compared by its exponential.
        """
        self.do("predict", x)
        if hasattr(self.theirs, "predict_proba"):
            self.do("predict_proba", x)
            with np.errstate(divide="ignore"):
                self.each(lambda network: np.exp(network.predict_log_proba(x)))
        return self

    def set(self, **attributes: Any) -> Pair:
        """Set attributes of both, each to a copy of its own."""
        for name, value in attributes.items():
            setattr(self.theirs, name, copy.deepcopy(value))
            setattr(self.ours, name, copy.deepcopy(value))
        return self


def pair(kind: str, **parameters: Any) -> Pair:
    """Return two networks for this kind of task, small unless told otherwise, each with a RandomState of its own."""
    task = TASKS[kind]
    chosen = {"hidden_layer_sizes": (12, 6), "max_iter": 20, "learning_rate_init": 0.01, "batch_size": 32}
    chosen |= task.parameters | parameters
    seeded = [{"random_state": np.random.RandomState(3)} | copy.deepcopy(chosen) for _ in range(2)]
    return Pair(OURS[task.name](**seeded[0]), THEIRS[task.name](**seeded[1]))


def fitted(kind: str, *, weighted: bool = False, **parameters: Any) -> Pair:
    """Return two networks fitted to the task, which agree in everything."""
    task, two = TASKS[kind], pair(kind, **parameters)
    two.do("fit", task.x, task.y, **({"sample_weight": task.weights} if weighted else {}))
    return two.agree().predict_alike(task.x)


def weighted_or_not() -> Iterable[bool]:
    """Return whether to give weights of samples: both, where this release of scikit-learn takes them."""
    return (False, True) if HAS_WEIGHTS else (False,)


def with_checks(estimators: list[Any], **options: Any) -> pytest.MarkDecorator:
    """Return scikit-learn's mark for its checks of these; some releases give pytest a generator, which it refuses."""
    made = parametrize_with_checks(estimators, **options)
    return pytest.mark.parametrize(made.args[0], list(made.args[1]), **made.kwargs)
