"""scikit-learn's own tests of its networks, unmodified, with fastbp's classes in place of its own.

A. The module of tests is executed once more while `sklearn.neural_network` has fastbp's classes, so it imports these,
   for its parametrisations too. Its functions keep the globals of that module.
B. The estimator checks that scikit-learn runs on its own two classes run on fastbp's. The same failures are expected,
   and no others.
C. These tests run under scikit-learn's rules for warnings, not this project's: a warning is not an error.
D. The number of tests of each release is recorded, so none is lost in silence. No test may fit an estimator of
   scikit-learn's own classes.
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest import SkipTest, mock

import pytest
import sklearn
import sklearn.neural_network
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._test_common.instance_generator import _get_expected_failed_checks
from sklearn.utils._testing import ignore_warnings
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn_pairs import with_checks

from fastbp.sklearn import MLPClassifier, MLPRegressor

ORIGINAL = "sklearn.neural_network.tests.test_mlp"
RELEASE = tuple(int(part) for part in sklearn.__version__.split(".")[:2])

# How many tests scikit-learn's releases have of their networks, and how many checks of the two classes.
OWN_TESTS = {(1, 6): 55, (1, 7): 58, (1, 8): 58, (1, 9): 59}
CHECKS = {(1, 6): 111, (1, 7): 125, (1, 8): 125, (1, 9): 127}

THEIRS = (sklearn.neural_network.MLPClassifier, sklearn.neural_network.MLPRegressor)
OURS = (MLPClassifier, MLPRegressor)

pytestmark = pytest.mark.filterwarnings("default")
pytest.register_assert_rewrite(ORIGINAL)


def swapped_module() -> ModuleType:
    """Return scikit-learn's module of tests, executed anew with fastbp's classes in place of its own."""
    spec = importlib.util.find_spec(ORIGINAL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.multiple(sklearn.neural_network, MLPClassifier=MLPClassifier, MLPRegressor=MLPRegressor):
        spec.loader.exec_module(module)
    return module


SWAPPED = swapped_module()
OWN_NAMES = [name for name in vars(SWAPPED) if name.startswith("test_")]
globals().update({name: getattr(SWAPPED, name) for name in OWN_NAMES})


@pytest.fixture(params=[42])
def global_random_seed(request: pytest.FixtureRequest) -> int:
    """Return what scikit-learn's fixture of this name gives unless told otherwise."""
    return int(request.param)


@pytest.fixture(autouse=True)
def fitted() -> Iterator[list[type]]:
    """Return the class of each network that is fitted: their parameters are validated; fail if one is not ours."""
    networks: list[type] = []
    validate = BaseEstimator._validate_params

    def watched(self: BaseEstimator) -> None:
        if isinstance(self, THEIRS):
            networks.append(type(self))
        validate(self)

    with mock.patch.object(BaseEstimator, "_validate_params", watched):
        yield networks
    assert all(issubclass(network, OURS) for network in networks), networks


def expected_failures(estimator: Any) -> dict[str, str]:
    """Return the checks that scikit-learn expects its own class to fail, by name, with the reason."""
    theirs = THEIRS[OURS.index(type(estimator))]
    return dict(_get_expected_failed_checks(theirs()))


@with_checks([ours() for ours in OURS], expected_failed_checks=expected_failures)
def test_estimator_checks(estimator: Any, check: Any, fitted: list[type]) -> None:
    """A check may have nothing to say of networks, which have no decision function: of scikit-learn's neither."""
    with ignore_warnings(category=(FutureWarning, ConvergenceWarning, UserWarning)):
        try:
            check(estimator)
        except SkipTest as reason:
            with pytest.raises(SkipTest, match=re.escape(str(reason))):
                check(THEIRS[OURS.index(type(estimator))]())
            fitted.clear()


def test_no_test_of_scikit_learn_is_lost(request: pytest.FixtureRequest) -> None:
    """A release that is not in the tables has as many as the newest that is, or more."""
    names = [item.originalname for item in request.node.getparent(pytest.Module).collect()]
    own, checks = sum(name in OWN_NAMES for name in names), names.count("test_estimator_checks")
    assert checks == len(checks_of(*OURS))
    if RELEASE in OWN_TESTS:
        assert (own, len(checks_of(*THEIRS))) == (OWN_TESTS[RELEASE], CHECKS[RELEASE])
    else:
        assert own >= OWN_TESTS[max(OWN_TESTS)] and len(checks_of(*THEIRS)) >= CHECKS[max(CHECKS)]


def checks_of(*classes: type) -> list[tuple[str, str]]:
    """Return the checks that scikit-learn has for networks of these classes: the class's name, and the check's."""
    found = parametrize_with_checks([cls() for cls in classes]).args[1]
    pairs = [getattr(item, "values", item) for item in found]
    return [(type(estimator).__name__, repr_of(check)) for estimator, check in pairs]


def repr_of(check: Any) -> str:
    keywords = {name: value for name, value in check.keywords.items() if name != "name"}
    return f"{check.func.__name__}{keywords}"


def test_ours_are_checked_for_all_that_scikit_learns_are() -> None:
    """And for one thing more: what has class_weight is checked for it."""
    more = list((Counter(checks_of(*OURS)) - Counter(checks_of(*THEIRS))).elements())
    assert not Counter(checks_of(*THEIRS)) - Counter(checks_of(*OURS))
    assert [(name, check.partition("{")[0]) for name, check in more] == [
        ("MLPClassifier", "check_class_weight_classifiers")
    ]


def test_suite_runs_with_the_packages_classes(fitted: list[type]) -> None:
    assert SWAPPED.MLPClassifier is MLPClassifier and SWAPPED.MLPRegressor is MLPRegressor
    assert (sklearn.neural_network.MLPClassifier, sklearn.neural_network.MLPRegressor) == THEIRS
    SWAPPED.test_partial_fit_classes_error()
    SWAPPED.test_partial_fit_unseen_classes()
    assert fitted and set(fitted) == {MLPClassifier}
    fitted.clear()
    SWAPPED.test_multioutput_regression()
    assert set(fitted) == {MLPRegressor}


def test_estimator_of_scikit_learn_in_the_suite_fails(fitted: list[type]) -> None:
    THEIRS[1](hidden_layer_sizes=(2,), max_iter=1, solver="sgd").fit([[0.0], [1.0]], [0.0, 1.0])
    assert fitted == [THEIRS[1]]
    fitted.clear()
