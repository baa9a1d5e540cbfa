"""The estimators' options that scikit-learn does not have: each against a fit by other means."""

import contextlib
import inspect
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse
import threadpoolctl
from helpers import seeded
from scipy import sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import get_scorer, get_scorer_names, log_loss, make_scorer

import fastbp
from fastbp.reference import ACTIVATIONS, OPTIMIZERS
from fastbp.sklearn import GridSearchCV, MLPClassifier, MLPRegressor
from fastbp.sklearn import _lbfgs as lbfgs
from fastbp.sklearn._core import LOSS_NAMES
from fastbp.sklearn._private import FIT_TAKES_WEIGHT
from fastbp.sklearn._solvers import SOLVER_NAMES

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:Got `batch_size`")

X, LABELS = (array[:150] for array in load_digits(return_X_y=True))
X = X / 16
VALUES = np.c_[np.sin(X @ np.linspace(-1, 1, 64)), X.mean(axis=1)]
SMALL = {"hidden_layer_sizes": (12, 7), "random_state": 0, "max_iter": 6, "batch_size": 40}

needs_weights = pytest.mark.skipif(not FIT_TAKES_WEIGHT, reason="fit takes sample_weight since scikit-learn 1.7")


def parameters(est):
    return [*est.coefs_, *est.intercepts_]


def same(a, b, rtol=1e-12):
    """Whether two fits ended at the same parameters; the default tolerance is that of another order of sums."""
    for mine, theirs in zip(parameters(a), parameters(b), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=rtol * np.abs(theirs).max())


class TestDefaults:
    @pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
    def test_signature_is_the_base_class_s_and_then_keywords(self, cls):
        theirs = list(inspect.signature(getattr(neural_network, cls.__name__).__init__).parameters.values())
        mine = list(inspect.signature(cls.__init__).parameters.values())
        assert mine[: len(theirs)] == theirs
        assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in mine[len(theirs) :])

    def test_repr_shows_what_was_given_alone(self):
        assert repr(MLPClassifier(alpha=1.0)) == "MLPClassifier(alpha=1.0)"

    def test_unknown_parameter_is_scikit_learn_s_error(self):
        with pytest.raises(TypeError, match=r"__init__\(\) got an unexpected keyword argument 'aplha'"):
            MLPClassifier(aplha=1.0)
        with pytest.raises(TypeError, match=r"fit\(\) got an unexpected keyword argument 'eval_set'"):
            MLPClassifier().fit(X, LABELS, eval_set=(X, LABELS))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("dropout", 1.0),
            ("l1", -1.0),
            ("clip_value", 0),
            ("clip_norm", -2.0),
            ("max_seconds", 0),
            ("n_threads", 0),
            ("n_threads", 65),
            ("scoring", "acuracy"),
            ("dtype", "float16"),
            ("lbfgs_gradient", "right"),
            ("label_smoothing", 1.0),
            ("class_weight", "even"),
            ("activation", "sigmoidal"),
            ("solver", "newton"),
            ("progress", "yes"),
            ("exact_resume", 3),
        ],
    )
    def test_bad_values_are_refused_in_scikit_learn_s_words(self, name, value):
        with pytest.raises(ValueError, match=rf"The '{name}' parameter of MLPClassifier must be"):
            MLPClassifier(**{name: value}).fit(X, LABELS)

    def test_lbfgs_refuses_what_changes_its_objective(self):
        for dropout in (0.1, [0.0, 0.1]):
            with pytest.raises(ValueError, match="dropout needs a stochastic solver, got solver='lbfgs'"):
                MLPClassifier((5, 5), solver="lbfgs", dropout=dropout).fit(X, LABELS)
        with pytest.raises(ValueError, match="validation_data needs a stochastic solver, got solver='lbfgs'"):
            MLPClassifier(solver="lbfgs").fit(X, LABELS, validation_data=(X, LABELS))


class TestSubclasses:
    def test_subclass_calling_scikit_learns_constructor_has_the_defaults(self):
        class Mine(MLPRegressor):
            def __init__(self, alpha=1.0):
                neural_network.MLPRegressor.__init__(self, alpha=alpha, max_iter=3, random_state=0)

        same(Mine().fit(X, VALUES), neural_network.MLPRegressor(alpha=1.0, max_iter=3, random_state=0).fit(X, VALUES))


class TestActivations:
    @pytest.mark.parametrize("name", sorted(ACTIVATIONS))
    def test_every_activation_of_the_table(self, name):
        est = MLPRegressor(**SMALL, activation=name).fit(X, VALUES)
        unit = getattr(fastbp, ACTIVATIONS[name].unit)
        hidden = X
        for w, b in zip(est.coefs_[:-1], est.intercepts_[:-1], strict=True):
            hidden = unit().forward(hidden @ w + b)
        np.testing.assert_allclose(
            est.predict(X), hidden @ est.coefs_[-1] + est.intercepts_[-1], rtol=1e-10, atol=1e-12
        )
        assert est.loss_curve_[-1] < est.loss_curve_[0]

    def test_sigmoid_is_logistic_but_for_the_first_weights(self):
        mine, theirs = (MLPRegressor(**SMALL, activation=name, warm_start=True) for name in ("sigmoid", "logistic"))
        mine.fit(X, VALUES)
        theirs.fit(X, VALUES)
        for est in (mine, theirs):
            est.coefs_, est.intercepts_ = (
                [np.ones_like(a) / 9 for a in arrays] for arrays in (est.coefs_, est.intercepts_)
            )
            est.fit(X, VALUES)
        same(mine, theirs)

    def test_one_for_each_layer(self):
        est = MLPRegressor(**SMALL, activation=["tanh", fastbp.LeakyReLU(0.3)]).fit(X, VALUES)
        hidden = np.tanh(X @ est.coefs_[0] + est.intercepts_[0])
        z = hidden @ est.coefs_[1] + est.intercepts_[1]
        hidden = np.where(z > 0, z, 0.3 * z)
        np.testing.assert_allclose(est.predict(X), hidden @ est.coefs_[2] + est.intercepts_[2], rtol=1e-10)
        assert clone(est).activation[1].engine_options() == (0.3,)

    def test_a_list_of_another_length_is_refused(self):
        with pytest.raises(ValueError, match="activation has 1 entries, expected one for each of 2 hidden layers"):
            MLPRegressor(**SMALL, activation=["tanh"]).fit(X, VALUES)

    def test_a_unit_with_parameters_is_refused(self):
        with pytest.raises(ValueError, match=r"activation PReLU\(.*\) has parameters of its own"):
            MLPRegressor(**SMALL, activation=fastbp.PReLU()).fit(X, VALUES)


class TestSolvers:
    @pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"sgd", "adam"}))
    def test_every_optimizer_of_the_table_by_its_name(self, name):
        est = MLPRegressor(**SMALL, solver=name, learning_rate_init=1e-3).fit(X, VALUES)
        other = MLPRegressor(**SMALL, solver=est._optimizer.solver).fit(X, VALUES)
        same(est, other, rtol=0)
        assert est.solver == name and est.t_ == 6 * 150 and est._optimizer.t == 6 * 4
        assert est.loss_curve_[-1] < est.loss_curve_[0]

    def test_adam_by_an_instance_is_torch_s_and_near_to_scikit_learn_s(self):
        est = MLPRegressor(**SMALL, solver=fastbp.Adam(lr=1e-3, eps_hat=True)).fit(X, VALUES)
        same(est, MLPRegressor(**SMALL).fit(X, VALUES), rtol=0)

    @pytest.mark.parametrize("solver", ["adam", "sgd", *sorted(SOLVER_NAMES), fastbp.AdamW(lr=0.01)], ids=str)
    @pytest.mark.parametrize("dropout", [0.0, 0.3])
    def test_partial_fit_goes_on_with_the_state_also_from_a_pickle(self, solver, dropout):
        one = MLPRegressor(**SMALL, solver=solver, dropout=dropout)
        one.partial_fit(X, VALUES)
        two = pickle.loads(pickle.dumps(one))
        for _ in range(2):
            for est in (one, two):
                est.partial_fit(X, VALUES)
            two = pickle.loads(pickle.dumps(two))
        same(one, two, rtol=0)
        assert two.loss_curve_ == one.loss_curve_ and two.t_ == 3 * 150


class TestLosses:
    @pytest.mark.parametrize("name", sorted(LOSS_NAMES))
    def test_every_loss_of_values_by_its_name(self, name):
        rows = np.abs(VALUES)
        est = MLPRegressor(**SMALL, loss=name, alpha=0.0).fit(X, rows)
        assert est.loss_curve_[-1] < est.loss_curve_[0]
        if name == "mse":
            other = MLPRegressor(**SMALL, alpha=0.0).fit(X, rows)
            same(est, other)
            np.testing.assert_allclose(est.loss_curve_, np.multiply(other.loss_curve_, 2), rtol=1e-12)

    def test_scikit_learn_s_name_elsewhere_for_absolute_errors(self):
        same(
            MLPRegressor(**SMALL, loss="absolute_error").fit(X, VALUES),
            MLPRegressor(**SMALL, loss="mae").fit(X, VALUES),
            rtol=0,
        )

    def test_a_loss_with_options(self):
        est = MLPRegressor(**SMALL | {"max_iter": 400}, loss=fastbp.Quantile(0.9)).fit(X, VALUES[:, 0])
        assert 0.8 < (VALUES[:, 0] <= est.predict(X)).mean() < 1.0

    def test_a_callable(self):
        def absolute(y, t):
            return np.abs(y - t).sum(axis=1), np.sign(y - t)

        options = {**SMALL, "l1": 0.01, "alpha": 0.1}
        est = MLPRegressor(**options, loss=absolute).fit(X, VALUES)
        other = MLPRegressor(**options, loss="mae").fit(X, VALUES)
        same(est, other)
        np.testing.assert_allclose(est.loss_curve_, other.loss_curve_, rtol=1e-12)

    @needs_weights
    def test_a_callable_with_weights(self):
        def squared(y, t):
            return 0.5 * ((y - t) ** 2).sum(axis=1), y - t

        weight = np.linspace(0.5, 2, 150)
        same(MLPRegressor(**SMALL, loss=squared).fit(X, VALUES, weight), MLPRegressor(**SMALL).fit(X, VALUES, weight))

    def test_invalid_losses_raise(self):
        with pytest.raises(TypeError, match=r"loss is the class MSE, expected one of its objects: MSE\(\)"):
            MLPRegressor(**SMALL, loss=fastbp.MSE).fit(X, VALUES)
        with pytest.raises(TypeError, match="loss gave float64, expected the loss of each row and its gradient"):
            MLPRegressor(**SMALL, loss=lambda y, t: ((y - t) ** 2).mean()).fit(X, VALUES)

    def test_a_callable_of_another_shape_is_refused(self):
        with pytest.raises(
            ValueError, match=r"loss gave arrays of shape \(\) and \(40, 2\), expected the loss of each"
        ):
            MLPRegressor(**SMALL, loss=lambda y, t: (0.0, y - t)).fit(X, VALUES)

    @pytest.mark.parametrize("name", ["hinge", "squared_hinge"])
    @pytest.mark.parametrize(
        "y", [LABELS, LABELS > 4, np.c_[LABELS > 4, LABELS % 2]], ids=["many", "two", "multilabel"]
    )
    def test_margins_of_classes(self, name, y):
        options = SMALL | {"hidden_layer_sizes": (40,), "max_iter": 60}
        est = MLPClassifier(**options, loss=name, alpha=0.0, learning_rate_init=0.01).fit(X, y)
        assert est.score(X, y) > 0.9
        assert not hasattr(est, "predict_proba") and not hasattr(est, "predict_log_proba")

    @pytest.mark.parametrize("loss", ["hinge", fastbp.SquaredHinge()], ids=["name", "object"])
    @pytest.mark.parametrize(
        "y", [LABELS, LABELS > 4, np.c_[LABELS > 4, LABELS % 2]], ids=["many", "two", "multilabel"]
    )
    def test_decision_function_of_margins(self, loss, y):
        est = MLPClassifier(**SMALL, loss=loss).fit(X, y)
        hidden = X
        for w, b in zip(est.coefs_[:-1], est.intercepts_[:-1], strict=True):
            hidden = np.maximum(hidden @ w + b, 0)
        margins = est.decision_function(X)
        expected = hidden @ est.coefs_[-1] + est.intercepts_[-1]
        np.testing.assert_allclose(margins, expected[:, 0] if margins.ndim == 1 else expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(est.decision_function(sparse.csr_array(X)), margins)
        found = est.classes_[margins.argmax(axis=1)] if y is LABELS else (margins > 0).astype(y.dtype)
        np.testing.assert_array_equal(est.predict(X), found)

    def test_decision_function_needs_margins_and_a_fit(self):
        assert not hasattr(MLPClassifier(), "decision_function")
        with pytest.raises(NotFittedError):
            MLPClassifier(loss="hinge").decision_function(X)

    def test_margins_are_calibrated(self):
        est = CalibratedClassifierCV(MLPClassifier(**SMALL, loss="hinge"), cv=2).fit(X, LABELS > 4)
        assert est.predict_proba(X).shape == (len(X), 2)

    def test_the_loss_of_margins(self):
        est = MLPClassifier(**SMALL | {"batch_size": 150}, loss="hinge", alpha=0.0).fit(X, LABELS > 4)
        before = MLPClassifier(**SMALL | {"batch_size": 150, "max_iter": 5}, loss="hinge", alpha=0.0).fit(X, LABELS > 4)
        hidden = X
        for w, b in zip(before.coefs_[:-1], before.intercepts_[:-1], strict=True):
            hidden = np.maximum(hidden @ w + b, 0)
        scores = (hidden @ before.coefs_[-1] + before.intercepts_[-1])[:, 0]
        wrong = np.maximum(0, 1 - np.where(LABELS > 4, 1, -1) * scores)
        assert est.loss_curve_[-1] == pytest.approx(wrong.mean(), rel=1e-12)

    def test_losses_of_other_targets_are_refused(self):
        with pytest.raises(ValueError, match=r"loss=SigmoidNLL\(\) has sigmoid outputs, but y asks for softmax ones"):
            MLPClassifier(**SMALL, loss=fastbp.SigmoidNLL()).fit(X, LABELS)
        with pytest.raises(ValueError, match=r"loss=SoftmaxNLL\(\) is no loss of 2 values"):
            MLPRegressor(**SMALL, loss=fastbp.SoftmaxNLL()).fit(X, VALUES)

    def test_a_loss_of_probabilities_with_options(self):
        est = MLPClassifier(**SMALL, loss=fastbp.SigmoidNLL(pos_weight=3.0)).fit(X, LABELS > 6)
        assert est.predict(X).mean() >= MLPClassifier(**SMALL).fit(X, LABELS > 6).predict(X).mean()
        same(
            MLPClassifier(**SMALL, loss=fastbp.SoftmaxNLL()).fit(X, LABELS),
            MLPClassifier(**SMALL).fit(X, LABELS),
            rtol=0,
        )

    def test_a_loss_that_ignores_a_label_is_refused(self):
        """Each label of y is a class to scikit-learn; the message's advice is a fit without the rows."""
        y = np.where(np.arange(150) % 5 == 0, -1, LABELS)
        with pytest.raises(ValueError, match=r"fit\(X\[y != -1\], y\[y != -1\]\)"):
            MLPClassifier(**SMALL, loss=fastbp.SoftmaxNLL(ignore_index=-1)).fit(X, y)
        assert MLPClassifier(**SMALL).fit(X[y != -1], y[y != -1]).classes_.tolist() == list(range(10))

    @pytest.mark.parametrize("loss", ["hinge", fastbp.SoftmaxNLL()], ids=["margins", "object"])
    def test_label_smoothing_ignored_by_the_loss_raises(self, loss):
        with pytest.raises(ValueError, match=r"label_smoothing=0.1 needs loss='log_loss', got loss="):
            MLPClassifier(**SMALL, loss=loss, label_smoothing=0.1).fit(X, LABELS)

    def test_label_smoothing_moves_the_targets(self):
        one_hot = np.eye(10)[LABELS] * 0.8 + 0.02
        est = MLPClassifier(**SMALL, label_smoothing=0.2, alpha=0.0, max_fun=1).fit(X, LABELS)
        plain = MLPClassifier(**SMALL, alpha=0.0).fit(X, LABELS)
        assert est.predict_proba(X).max() < plain.predict_proba(X).max()
        net = fastbp.MLP([64, 12, 7, 10], dtype="float64")
        assert net.loss_value(X, one_hot) == pytest.approx(
            fastbp.SoftmaxNLL(label_smoothing=0.2).value_and_grad(net.outputs(X), LABELS)[0]
        )


def blas_threads():
    """Of BLAS, without the engine's own, which goes by the same name."""
    pools = [one for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]
    return {one["num_threads"] for one in pools if one["internal_api"] != "fastbp"}


class TestThreadsOfBlas:
    def test_lbfgs_limits_and_restores_blas_threads(self, monkeypatch):
        before, within, own = blas_threads(), [], fastbp.get_num_threads()
        objective = lbfgs.Objective.__call__

        def noted(self, packed):
            within.append(blas_threads())
            assert fastbp.get_num_threads() == own
            if len(within) == 3:
                raise RuntimeError("enough")
            return objective(self, packed)

        monkeypatch.setattr(lbfgs.Objective, "__call__", noted)
        with pytest.raises(RuntimeError, match="enough"):
            MLPRegressor(**SMALL | {"batch_size": "auto"}, solver="lbfgs").fit(X, VALUES)
        assert within == [{1}] * 3 and blas_threads() == before

    def test_last_thread_restores_blas_threads(self):
        before = blas_threads()
        first, second = (contextlib.ExitStack() for _ in range(2))
        first.enter_context(lbfgs.single_blas)
        second.enter_context(lbfgs.single_blas)
        first.close()
        assert blas_threads() == {1}
        second.close()
        assert blas_threads() == before


class TestPenaltiesAndClipping:
    def test_l1_makes_zeros_where_l2_does_not(self):
        options = {**SMALL, "max_iter": 60, "alpha": 0.0}
        small = [
            np.mean(np.abs(MLPRegressor(**options, **more).fit(X, VALUES).coefs_[0]) < 1e-3)
            for more in ({}, {"l1": 1.0})
        ]
        assert small[1] > 4 * small[0]

    def test_l1_s_share_of_the_loss(self):
        est = MLPRegressor(**SMALL | {"batch_size": 150}, l1=0.5, alpha=0.0).fit(X, VALUES)
        before = MLPRegressor(**SMALL | {"batch_size": 150, "max_iter": 5}, l1=0.5, alpha=0.0).fit(X, VALUES)
        penalty = 0.5 * sum(np.abs(w).sum() for w in before.coefs_) / 150
        value = 0.5 * ((before.predict(X) - VALUES) ** 2).mean()
        assert est.loss_curve_[-1] == pytest.approx(value + penalty, rel=1e-12)

    def test_clipping_by_value_bounds_each_step(self):
        est = MLPRegressor(
            **SMALL | {"batch_size": 150, "max_iter": 1},
            solver="sgd",
            momentum=0.0,
            clip_value=1e-4,
            learning_rate_init=0.1,
        )
        est.fit(X, VALUES)
        start = MLPRegressor(
            **SMALL | {"batch_size": 150, "max_iter": 1}, solver="sgd", momentum=0.0, learning_rate_init=1e-300
        )
        start.fit(X, VALUES)
        moved = max(np.abs(a - b).max() for a, b in zip(parameters(est), parameters(start), strict=True))
        assert moved == pytest.approx(1e-5, rel=1e-9)

    def test_clipping_by_norm_bounds_the_whole(self):
        options = SMALL | {"batch_size": 150, "max_iter": 1, "solver": "sgd", "momentum": 0.0}
        est = MLPRegressor(**options, clip_norm=1e-3, learning_rate_init=1.0).fit(X, VALUES)
        start = MLPRegressor(**options, learning_rate_init=1e-300).fit(X, VALUES)
        moved = np.concatenate([(a - b).ravel() for a, b in zip(parameters(est), parameters(start), strict=True)])
        assert np.linalg.norm(moved) == pytest.approx(1e-3, rel=1e-2)


class TestClassWeight:
    @needs_weights
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    @pytest.mark.parametrize("labels", [LABELS, LABELS > 6])
    def test_is_a_weight_of_the_rows(self, solver, labels):
        from sklearn.utils.class_weight import compute_sample_weight

        est = MLPClassifier(**SMALL, solver=solver, class_weight="balanced").fit(X, labels)
        plain = neural_network.MLPClassifier(**SMALL, solver=solver)
        plain.fit(X, labels, compute_sample_weight("balanced", labels))
        same(est, plain, rtol=1e-9)

    @needs_weights
    def test_a_dict_and_early_stopping_whose_score_does_not_weigh_classes(self):
        options = {**SMALL, "early_stopping": True, "validation_fraction": 0.3}
        est = MLPClassifier(**options, class_weight={1: 3.0}).fit(X, LABELS)
        weight = np.where(LABELS == 1, 3.0, 1.0)
        plain = MLPClassifier(**options).fit(X, LABELS, weight)
        np.testing.assert_allclose(est.loss_curve_, plain.loss_curve_, rtol=1e-12)

    def test_two_classes(self):
        est = MLPClassifier(**SMALL, class_weight={True: 5.0}).fit(X, LABELS > 6)
        assert est.predict(X).mean() >= MLPClassifier(**SMALL).fit(X, LABELS > 6).predict(X).mean()

    LABELS_OF_ROWS = np.c_[LABELS > 4, LABELS % 2, LABELS > 6].astype(int)

    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    @pytest.mark.parametrize("as_list", [False, True], ids=["one dict", "a dict for each label"])
    def test_several_labels_weigh_their_product(self, as_list, solver):
        """The meaning that "balanced" has there: scikit-learn's `compute_sample_weight` of several outputs."""
        shares = [{0: 1.0, 1: 5.0}, {0: 0.5, 1: 2.0}, {1: 3.0}] if as_list else [{0: 0.5, 1: 5.0}] * 3
        y = self.LABELS_OF_ROWS
        weight = np.ones(len(y))
        for label, of in enumerate(shares):
            weight *= np.array([of.get(value, 1.0) for value in y[:, label]])
        given = shares if as_list else shares[0]
        est = MLPClassifier(**SMALL, solver=solver, class_weight=given).fit(X, y)
        if FIT_TAKES_WEIGHT:
            same(est, MLPClassifier(**SMALL, solver=solver).fit(X, y, weight), rtol=1e-9)
        assert clone(est).class_weight == given

    @needs_weights
    def test_balanced_labels_weigh_their_product(self):
        from sklearn.utils.class_weight import compute_sample_weight

        y = self.LABELS_OF_ROWS
        est = MLPClassifier(**SMALL, class_weight="balanced").fit(X, y)
        same(est, MLPClassifier(**SMALL).fit(X, y, compute_sample_weight("balanced", y)), rtol=1e-9)
        shares = [{value: 75 / (labels == value).sum() for value in (0, 1)} for labels in y.T]
        same(est, MLPClassifier(**SMALL, class_weight=shares).fit(X, y), rtol=1e-9)

    def test_a_batch_may_lack_a_value_of_a_label(self):
        est = MLPClassifier(**SMALL, class_weight={1: 5.0})
        est.partial_fit(X, self.LABELS_OF_ROWS, classes=np.arange(3))
        est.partial_fit(X[:20], np.zeros((20, 3), int))
        assert est.t_ == 170

    @pytest.mark.parametrize(
        ("weights", "words"),
        [
            ([{1: 2.0}] * 2, "or a list of 3 of them"),
            ([{1: 2.0}, None, {1: 2.0}], "or a list of 3 of them"),
            ({2: 5.0}, "expected weights of 0 and 1, the classes of each label"),
            ([{0: 1.0}, {1: 2.0}, {1: -2.0}], "expected finite numbers of at least 0"),
        ],
    )
    def test_invalid_weights_of_labels_raise(self, weights, words):
        with pytest.raises(ValueError, match=words):
            MLPClassifier(**SMALL, class_weight=weights).fit(X, self.LABELS_OF_ROWS)


class TestDropout:
    def test_trains_with_it_and_predicts_without(self):
        est = MLPRegressor(**SMALL, dropout=0.5).fit(X, VALUES)
        plain = MLPRegressor(**SMALL).fit(X, VALUES)
        assert not np.allclose(est.coefs_[0], plain.coefs_[0])
        hidden = X
        for w, b in zip(est.coefs_[:-1], est.intercepts_[:-1], strict=True):
            hidden = np.maximum(hidden @ w + b, 0)
        np.testing.assert_allclose(est.predict(X), hidden @ est.coefs_[-1] + est.intercepts_[-1], rtol=1e-10)
        same(est, MLPRegressor(**SMALL, dropout=[0.5, 0.5]).fit(X, VALUES), rtol=0)
        same(est, MLPRegressor(**SMALL, dropout=0.5).fit(X, VALUES), rtol=0)

    def test_goes_on_from_a_pickle(self):
        one = MLPRegressor(**SMALL, dropout=0.5).partial_fit(X, VALUES)
        two = pickle.loads(pickle.dumps(one))
        same(one.partial_fit(X, VALUES), two.partial_fit(X, VALUES), rtol=0)

    def test_a_list_of_another_length_is_refused(self):
        with pytest.raises(ValueError, match="dropout has 1 entries, expected one for each of 2 hidden layers"):
            MLPRegressor(**SMALL, dropout=[0.5]).fit(X, VALUES)


class TestValidation:
    def test_validation_data_replaces_the_split(self):
        est = MLPClassifier(**SMALL, early_stopping=True)
        est.fit(X[:100], LABELS[:100], validation_data=(X[100:], LABELS[100:]))
        plain = MLPClassifier(**SMALL).fit(X[:100], LABELS[:100])
        assert est.loss_curve_ == plain.loss_curve_
        assert est.validation_scores_[-1] == plain.score(X[100:], LABELS[100:])
        share = plain.predict_proba(X[100:])[np.arange(50), LABELS[100:]]
        assert est.validation_loss_curve_[-1] == pytest.approx(-np.log(share).mean(), rel=1e-12)
        assert "_validation_data" not in vars(est)

    def test_validation_data_without_early_stopping_is_only_scored(self):
        est = MLPRegressor(**SMALL).fit(X[:100], VALUES[:100], validation_data=(X[100:], VALUES[100:]))
        value = 0.5 * ((est.predict(X[100:]) - VALUES[100:]) ** 2).mean()
        assert len(est.validation_loss_curve_) == 6 and est.validation_loss_curve_[-1] == pytest.approx(
            value, rel=1e-12
        )
        assert est.validation_scores_ is None

    def test_a_curve_of_no_rows_is_refused(self):
        with pytest.raises(ValueError, match="validation_loss=True needs rows for it"):
            MLPRegressor(**SMALL, validation_loss=True).fit(X, VALUES)

    def test_the_loss_of_the_rows_split_off(self):
        est = MLPRegressor(**SMALL, early_stopping=True, validation_loss=True).fit(X, VALUES)
        assert len(est.validation_loss_curve_) == len(est.validation_scores_) == 6
        assert not hasattr(MLPRegressor(**SMALL, early_stopping=True).fit(X, VALUES), "validation_loss_curve_")

    @pytest.mark.parametrize(
        "scoring", ["neg_log_loss", lambda est, x, y: -((est.predict_proba(x).argmax(1) != y).mean())]
    )
    def test_scorer_function_is_used(self, scoring):
        est = MLPClassifier(**SMALL, early_stopping=True, scoring=scoring)
        est.fit(X[:100], LABELS[:100], validation_data=(X[100:], LABELS[100:]))
        assert max(est.validation_scores_) < 0

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ((X,), r"validation_data must be \(X, y\) or \(X, y, sample_weight\)"),
            ((X[:, :9], LABELS), "validation_data has 9 features, expected 64"),
            ((X, LABELS + 5), r"validation_data has classes that are not in y: \[10, 11, 12, 13, 14\]"),
        ],
    )
    def test_bad_data_is_refused(self, given, words):
        with pytest.raises(ValueError, match=words):
            MLPClassifier(**SMALL).fit(X, LABELS, validation_data=given)

    @pytest.mark.parametrize("searched", [False, True])
    def test_names_of_columns_are_checked_as_score_does(self, searched):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(X[:, :3], columns=["age", "b", "c"])
        est = MLPRegressor(**SMALL, early_stopping=True)
        model = GridSearchCV(est, {"alpha": [1e-4]}, cv=2, error_score="raise") if searched else est
        model.fit(frame, VALUES, validation_data=(frame, VALUES))
        for other in (frame[["b", "c", "age"]], frame.rename(columns={"c": "other"})):
            with pytest.raises(ValueError, match="feature names should match") as by_score:
                model.score(other, VALUES)
            with pytest.raises(ValueError, match="feature names should match") as by_fit:
                model.fit(frame, VALUES, validation_data=(other, VALUES))
            assert str(by_fit.value) == str(by_score.value)
        with pytest.warns(UserWarning, match="X does not have valid feature names"):
            est.fit(frame, VALUES, validation_data=(X[:, :3], VALUES))

    CLASSES = np.repeat([0, 1, 2], [70, 70, 10])  # of validation rows with the first two alone

    @pytest.mark.parametrize("n_classes", [2, 3])
    @pytest.mark.parametrize("names", [None, "abc"], ids=["numbers", "words"])
    def test_log_loss_of_rows_that_lack_a_class(self, names, n_classes):
        y = np.minimum(self.CLASSES, n_classes - 1)
        rows = y < n_classes - 1
        labels = y if names is None else np.array(list(names))[y]
        est = MLPClassifier(**SMALL, early_stopping=True, scoring="neg_log_loss")
        est.fit(X, labels, validation_data=(X[rows], labels[rows]))
        expected = np.log(est.predict_proba(X)[rows, y[rows]]).mean()
        assert est.best_validation_score_ == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(est.validation_scores_, np.negative(est.validation_loss_curve_), rtol=1e-10)

    @pytest.mark.parametrize("scoring", ["neg_brier_score", "top_k_accuracy", "d2_log_loss_score"])
    def test_other_scores_of_rows_that_lack_a_class(self, scoring):
        y = self.CLASSES
        if scoring not in get_scorer_names() or "labels" not in str(inspect.signature(get_scorer(scoring)._score_func)):
            pytest.skip("this release does not take the classes")
        rows = np.r_[0:60, 70:120]
        est = MLPClassifier(**SMALL, early_stopping=True, scoring=scoring)
        est.fit(X, y, validation_data=(X[rows], y[rows]))
        p, hits = est.predict_proba(X[rows]), np.eye(3)[y[rows]]
        shares = hits.mean(axis=0)
        expected = {
            "neg_brier_score": -((p - hits) ** 2).sum(axis=1).mean(),
            "top_k_accuracy": (hits[np.arange(110)[:, None], p.argsort(axis=1)[:, 1:]].sum(axis=1)).mean(),
            "d2_log_loss_score": 1 - np.log(p[hits > 0]).mean() / (shares[:2] @ np.log(shares[:2])),
        }[scoring]
        possible = (expected, expected / 2)  # before 1.7 and since, by `scale_by_half`
        assert any(est.best_validation_score_ == pytest.approx(one, rel=1e-10) for one in possible)

    def test_a_scorer_of_a_users_own_knows_the_classes(self):
        rows, scores = self.CLASSES < 2, []
        own = make_scorer(log_loss, greater_is_better=False, response_method="predict_proba")
        for scoring in ("neg_log_loss", own):
            est = MLPClassifier(**SMALL, early_stopping=True, scoring=scoring)
            scores.append(est.fit(X, self.CLASSES, validation_data=(X[rows], self.CLASSES[rows])).validation_scores_)
        assert scores[0] == scores[1]

    @pytest.mark.parametrize("scoring", ["roc_auc_ovr", "roc_auc_ovo_weighted"])
    def test_a_score_that_needs_every_class_is_refused_before_the_first_step(self, scoring):
        rows = self.CLASSES < (1 if "ovo" in scoring else 2)
        est = MLPClassifier(**SMALL, early_stopping=True, scoring=scoring)
        words = r"cannot be computed for the rows of validation: .*; they have no row of the classes \[.*2\]"
        with pytest.raises(ValueError, match=words) as raised:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                est.fit(X, self.CLASSES, validation_data=(X[rows], self.CLASSES[rows]))
        assert f"scoring={scoring!r}" in str(raised.value) and not hasattr(est, "coefs_")
        est.fit(X, self.CLASSES, validation_data=(X, self.CLASSES))  # what the message says

    def test_a_split_may_lack_a_class(self):
        y = np.repeat([0, 1, 2], [80, 66, 4])
        for seed in range(5):
            est = MLPClassifier(**SMALL | {"random_state": seed}, early_stopping=True, scoring="neg_log_loss")
            assert len(est.fit(X, y).validation_scores_) == est.n_iter_


class TestLimitsAndTypes:
    def test_max_seconds(self):
        est = MLPRegressor(**SMALL | {"max_iter": 10**6, "n_iter_no_change": 10**6}, max_seconds=0.05).fit(X, VALUES)
        assert 1 <= est.n_iter_ < 10**5

    def test_n_threads_changes_no_bit(self):
        same(
            MLPRegressor(**SMALL, n_threads=1).fit(X, VALUES), MLPRegressor(**SMALL, n_threads=3).fit(X, VALUES), rtol=0
        )

    def test_dtype(self):
        est = MLPClassifier(**SMALL, dtype="float32").fit(X, LABELS)
        other = MLPClassifier(**SMALL).fit(X.astype(np.float32), LABELS)
        assert est.coefs_[0].dtype == np.float32
        same(est, other, rtol=0)

    def test_lbfgs_in_float32(self):
        plain = MLPRegressor(**SMALL, solver="lbfgs").fit(X.astype(np.float32), VALUES)
        assert plain.coefs_[0].dtype == np.float64  # as scikit-learn's
        est = MLPRegressor(**SMALL, solver="lbfgs", dtype=np.float32).fit(X, VALUES)
        assert all(array.dtype == np.float32 for array in parameters(est))
        assert est.loss_ == pytest.approx(plain.loss_, rel=0.05)


class TestLbfgsGradient:
    def test_exact_is_the_gradient_of_the_loss(self):
        options = {**SMALL, "solver": "lbfgs", "max_iter": 1}
        plain = neural_network.MLPRegressor(**options).fit(X, VALUES)
        same(MLPRegressor(**options).fit(X, VALUES), plain, rtol=1e-9)
        est = MLPRegressor(**options, lbfgs_gradient="exact")
        est.fit(X, VALUES)
        checked = {}

        class Spy(MLPRegressor):
            def _fit_lbfgs(self, X, y, *rest):
                self._objective_kept = self._objective(X, y, rest[0])
                super()._fit_lbfgs(X, y, *rest)

        for kind in ("sklearn", "exact"):
            spy = Spy(**options, lbfgs_gradient=kind).fit(X, VALUES)
            point = seeded(0).normal(size=spy._packed().size)
            direction = seeded(1).normal(size=point.size)
            objective = spy._objective_kept
            slope = (objective(point + 1e-6 * direction)[0] - objective(point - 1e-6 * direction)[0]) / 2e-6
            checked[kind] = objective(point)[1] @ direction / slope
        assert checked["exact"] == pytest.approx(1, abs=1e-6)
        assert checked["sklearn"] == pytest.approx(2, abs=1e-2)  # two outputs: all but the penalty

    def test_one_output_has_one_gradient(self):
        options = {**SMALL, "solver": "lbfgs"}
        same(
            MLPRegressor(**options, lbfgs_gradient="exact").fit(X, VALUES[:, 0]),
            MLPRegressor(**options).fit(X, VALUES[:, 0]),
            rtol=0,
        )


class TestExactResume:
    @pytest.mark.parametrize("solver", ["adam", "sgd", "nadam"])
    @pytest.mark.parametrize("early_stopping", [False, True])
    @pytest.mark.parametrize("pickled", [False, True])
    def test_two_fits_are_one(self, solver, early_stopping, pickled):
        options = {
            **SMALL,
            "solver": solver,
            "early_stopping": early_stopping,
            "validation_fraction": 0.3,
            "dropout": 0.2,
        }
        whole = MLPClassifier(**options).fit(X, LABELS)
        parts = MLPClassifier(**options | {"max_iter": 2}, warm_start=True, exact_resume=True).fit(X, LABELS)
        for _ in range(2):
            if pickled:
                parts = pickle.loads(pickle.dumps(parts))
            parts.fit(X, LABELS)
        same(parts, whole, rtol=0)
        assert parts.loss_curve_ == whole.loss_curve_ and parts.validation_scores_ == whole.validation_scores_
        assert parts.t_ == whole.t_

    @pytest.mark.parametrize("between", ["lbfgs", "the user"])
    def test_it_goes_on_from_weights_that_were_changed_since(self, between):
        options = {**SMALL, "early_stopping": True, "validation_fraction": 0.3, "warm_start": True}
        est = MLPRegressor(**options, exact_resume=True).fit(X, VALUES)
        if between == "lbfgs":
            est.set_params(solver="lbfgs", max_iter=20).fit(X, VALUES)
        else:
            est.coefs_[0][...] += 1
        before = [array.copy() for array in parameters(est)]
        est.set_params(solver="adam", max_iter=1).fit(X, VALUES)
        steps = -(-105 // 40)  # each moves a weight by no more than some of Adam's rate, and not back by a whole fit
        for now, then in zip(parameters(est), before, strict=True):
            assert np.abs(now - then).max() < 4 * steps * est.learning_rate_init

    @pytest.mark.parametrize("second", ["sgd", "nadam", fastbp.Lion(lr=0.01)])
    @pytest.mark.parametrize("first", ["adam", "radam"])
    def test_another_solver_begins_its_own_state(self, first, second):
        est = MLPRegressor(**SMALL, solver=first, warm_start=True, exact_resume=True).fit(X, VALUES)
        plain = pickle.loads(pickle.dumps(est)).set_params(exact_resume=False)
        same(est.set_params(solver=second).fit(X, VALUES), plain.set_params(solver=second).fit(X, VALUES), rtol=0)

    def test_without_it_scikit_learn_begins_the_optimizer_anew(self):
        options = {**SMALL, "max_iter": 3, "warm_start": True}
        est, plain = MLPClassifier(**options), neural_network.MLPClassifier(**options)
        for _ in range(2):
            same(est.fit(X, LABELS), plain.fit(X, LABELS), rtol=1e-9)


class TestRefusals:
    def test_options_with_an_overridden_gradient_raise(self):
        class Mine(MLPClassifier):
            def _backprop(self, *args):
                return super()._backprop(*args)

        Mine(**SMALL).fit(X, LABELS)
        with pytest.raises(ValueError, match="dropout, l1: only the engine can do that, but _backprop is overridden"):
            Mine(**SMALL, dropout=0.5, l1=1.0).fit(X, LABELS)

    def test_partial_fit_with_early_stopping(self):
        with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
            MLPClassifier(**SMALL, early_stopping=True).partial_fit(X, LABELS, classes=np.arange(10))

    def test_partial_fit_with_lbfgs(self):
        with pytest.raises(AttributeError, match="partial_fit"):
            MLPClassifier(solver="lbfgs").partial_fit(X, LABELS, classes=np.arange(10))


# ---- options that change between two fits, and fits that fail --------------------------------------------------------


@pytest.mark.parametrize("early_stopping", [False, True])
def test_the_validation_loss_may_be_asked_for_at_a_later_warm_start(early_stopping):
    options = SMALL | {"warm_start": True, "early_stopping": early_stopping}
    est = MLPRegressor(**options).fit(X, VALUES)
    assert not hasattr(est, "validation_loss_curve_")
    if early_stopping:
        est.set_params(validation_loss=True).fit(X, VALUES)
    else:
        est.fit(X, VALUES, validation_data=(X, VALUES))
    assert len(est.validation_loss_curve_) == est.n_iter_


@pytest.mark.parametrize(
    "options",
    [{"activation": ["relu"]}, {"dropout": [0.1]}, {"loss": fastbp.SoftmaxNLL()}, {"activation": fastbp.PReLU()}],
    ids=lambda options: next(iter(options)),
)
def test_options_that_do_not_fit_leave_the_estimator_as_it_was(options):
    est = MLPRegressor(**SMALL | options)
    with pytest.raises(ValueError, match=next(iter(options))):
        est.fit(X, VALUES)
    assert not hasattr(est, "coefs_")
    fitted = MLPRegressor(**SMALL).fit(X, VALUES)
    before, p = [array.copy() for array in parameters(fitted)], fitted.predict(X)
    with pytest.raises(ValueError, match=next(iter(options))):
        fitted.set_params(**options).fit(X, VALUES)
    fitted.set_params(**SMALL, activation="relu", dropout=0.0, loss="squared_error")
    assert all((a == b).all() for a, b in zip(parameters(fitted), before, strict=True))
    np.testing.assert_array_equal(fitted.predict(X), p)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("dtype", [int, np.float16, np.dtype(">f8"), complex, object])
def test_unsupported_dtype_raises(dtype, solver):
    est = MLPRegressor(**SMALL, solver=solver, dtype=dtype)
    before = set(vars(est))
    with pytest.raises(ValueError, match=r"dtype is .*, expected float32, float64 or None"):
        est.fit(X, VALUES)
    assert not hasattr(est, "coefs_")
    assert not hasattr(est, "n_features_in_"), set(vars(est)) - before


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
def test_overflow_in_a_smaller_dtype_raises(form):
    est = MLPRegressor(**SMALL, dtype="float32").fit(form(X), VALUES)
    for method in (est.predict, lambda x: est.fit(x, VALUES), lambda x: est.partial_fit(x, VALUES)):
        with pytest.raises(ValueError, match=r"infinity or a value too large for dtype..float32"):
            method(form(1e300 * X))


class Pickled(MLPRegressor):
    """Pickles itself after each epoch."""

    pickles: list[bytes] = []  # noqa: RUF012

    def _update_no_improvement_count(self, *arguments):
        self.pickles.append(pickle.dumps(self))
        super()._update_no_improvement_count(*arguments)


def test_a_pickle_of_an_estimator_that_is_being_fitted():
    est = Pickled(**SMALL, solver="adamw").fit(X, VALUES, validation_data=(X, VALUES))
    copy = pickle.loads(Pickled.pickles[2])
    assert copy.solver == "adamw"
    assert not {"_own_solver", "_validation_data"} & set(vars(copy))
    same(copy.fit(X, VALUES), est)
    other = MLPRegressor(**SMALL, solver="adam").fit(X, VALUES)
    same(copy.set_params(solver="adam").fit(X, VALUES), other)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("share", [-1.0, np.nan, np.inf])
def test_invalid_class_weight_raises(share, solver):
    """A NaN would make a loss of zero, and weights without training."""
    with pytest.raises(ValueError, match=r"class_weight is .*, expected finite numbers of at least 0"):
        MLPClassifier(**SMALL, solver=solver, class_weight={3: share}).fit(X, LABELS)


def test_balanced_weights_need_all_rows():
    """Those of a batch would be others each time, and none where a class is not in it."""
    est = MLPClassifier(**SMALL, class_weight="balanced").fit(X, LABELS)
    before = [array.copy() for array in parameters(est)]
    with pytest.raises(ValueError, match="class_weight='balanced' is of all rows"):
        est.partial_fit(X[:20], LABELS[:20])
    assert all((a == b).all() for a, b in zip(parameters(est), before, strict=True))
    shares = {label: 1.0 + label for label in range(10)}
    dicts, weighted = (MLPClassifier(**SMALL, class_weight=given) for given in (shares, None))
    rows = LABELS < 4
    dicts.partial_fit(X, LABELS, classes=np.arange(10)).partial_fit(X[rows], LABELS[rows])
    assert dicts.t_ == len(X) + rows.sum()
    if FIT_TAKES_WEIGHT:
        weighted.fit(X, LABELS, 1.0 + LABELS)
        same(MLPClassifier(**SMALL, class_weight=shares).fit(X, LABELS), weighted)


def test_an_unknown_argument_of_fit():
    for cls in (MLPRegressor, neural_network.MLPRegressor):
        with pytest.raises(TypeError, match=r"fit\(\) got an unexpected keyword argument 'weights'"):
            cls().fit(X, VALUES, weights=VALUES[:, 0])
