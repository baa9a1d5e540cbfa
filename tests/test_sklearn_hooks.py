"""A subclass that overrides a private method of scikit-learn's estimators has it called as often as scikit-learn would.

A. Each hook is put into a subclass, a subclass of a subclass, a mixin before the estimator's class, and a mixin before
   a subclass. It counts its calls and changes a result.
B. Beside each estimator stands scikit-learn's with the same hook; all attributes and results of both must agree. That
   a hook changes a result is asserted too: the fit without it must differ.
C. An optimizer of a class of the user's own is recognised by its exact type.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from helpers import grid
from sklearn.neural_network import _multilayer_perceptron as original
from sklearn_pairs import (
    EXACT,
    TASKS,
    Outcome,
    assert_same,
    assert_same_attributes,
    fitted,
    outcome,
    pair,
)

from fastbp.sklearn import _predicting as predicting

# ---- hooks: what stands around the piece that they replace -----------------------------------------------------------


def halved_gradients(piece: Callable[..., Any], network: Any, *arguments: Any) -> Any:
    loss, coef_grads, intercept_grads = piece(*arguments)
    return 0.9 * loss, [0.5 * g for g in coef_grads], intercept_grads


def pulled_down(piece: Callable[..., Any], network: Any, layer: int, *arguments: Any) -> Any:
    result = piece(layer, *arguments)
    coef_grads = arguments[-2]
    coef_grads[layer] += 0.01 * np.sign(network.coefs_[layer])
    return result


def shrunk_activations(piece: Callable[..., Any], network: Any, activations: Any) -> Any:
    activations = piece(activations)
    activations[1] *= 0.9
    return activations


def smaller_start(piece: Callable[..., Any], network: Any, *arguments: Any, **options: Any) -> Any:
    result = piece(*arguments, **options)
    network.coefs_[0] *= 0.5
    network.intercepts_[-1] = network.intercepts_[-1] + 0.25
    return result


def half_uniform(piece: Callable[..., Any], network: Any, fan_in: int, fan_out: int, *arguments: Any) -> Any:
    coef, intercept = piece(fan_in, fan_out, *arguments)
    return 0.5 * coef, np.zeros_like(intercept)


def worse_and_worse(piece: Callable[..., Any], network: Any, *arguments: Any, **options: Any) -> Any:
    return piece(*arguments, **options) - 0.1 * len(network.validation_scores_)


def impatient(piece: Callable[..., Any], network: Any, *arguments: Any, **options: Any) -> Any:
    result = piece(*arguments, **options)
    if network.n_iter_ == 4:
        network._no_improvement_count = 99
    return result


def brighter(piece: Callable[..., Any], network: Any, *arguments: Any, **options: Any) -> Any:
    return piece(*arguments, **options) ** 2


def halved_input(piece: Callable[..., Any], network: Any, X: Any, *arguments: Any, **options: Any) -> Any:
    return piece(0.5 * X, *arguments, **options)


def scaled_input(piece: Callable[..., Any], network: Any, *arguments: Any, **options: Any) -> Any:
    x, y = piece(*arguments, **options)
    return 0.5 * x, y


def twice_the_start(piece: Callable[..., Any], network: Any, *arguments: Any, **options: Any) -> Any:
    for c in network.coefs_:
        c *= 2
    return piece(*arguments, **options)


def shifted_loss(piece: Callable[..., Any], network: Any, *arguments: Any, **options: Any) -> Any:
    loss, gradient = piece(*arguments, **options)
    return 0.5 * loss, 0.5 * gradient


def shifted_unpacking(piece: Callable[..., Any], network: Any, packed: Any) -> Any:
    return piece(1.01 * packed)


STOCHASTIC = ("sgd", "adam")
EARLY = {"early_stopping": True}

# Name, hook, solvers, parameters.
HOOKS: list[tuple[str, Callable[..., Any], tuple[str, ...], dict[str, Any]]] = [
    ("_backprop", halved_gradients, (*STOCHASTIC, "lbfgs"), {}),
    ("_compute_loss_grad", pulled_down, (*STOCHASTIC, "lbfgs"), {}),
    ("_forward_pass", shrunk_activations, (*STOCHASTIC, "lbfgs"), {}),
    ("_initialize", smaller_start, (*STOCHASTIC, "lbfgs"), {}),
    ("_init_coef", half_uniform, (*STOCHASTIC, "lbfgs"), {}),
    ("_score", worse_and_worse, STOCHASTIC, EARLY),
    ("_update_no_improvement_count", impatient, STOCHASTIC, {}),
    ("_update_no_improvement_count", impatient, STOCHASTIC, EARLY),
    ("_forward_pass_fast", brighter, STOCHASTIC, EARLY),
    ("_predict", lambda piece, network, *a, **k: piece(*a, **k)[::-1], STOCHASTIC, EARLY),
    ("_fit", halved_input, (*STOCHASTIC, "lbfgs"), {}),
    ("_validate_input", scaled_input, (*STOCHASTIC, "lbfgs"), {}),
    ("_fit_stochastic", twice_the_start, STOCHASTIC, {}),
    ("_fit_lbfgs", twice_the_start, ("lbfgs",), {}),
    ("_loss_grad_lbfgs", shifted_loss, ("lbfgs",), {}),
    ("_unpack", shifted_unpacking, ("lbfgs",), {}),
]
CASES = [(name, hook, solver, more) for name, hook, solvers, more in HOOKS for solver in solvers]


def str_of(value: Any) -> str:
    """Return a test's name for a value: names as they are, functions by theirs, nothing for the rest."""
    return value if isinstance(value, str) else getattr(value, "__name__", "").strip("<>")


class Counting:
    """A hook around a piece of a network, which counts how often it is called."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = hook
        self.calls = 0

    def around(self, find: Callable[[Any], Callable[..., Any]]) -> Callable[..., Any]:
        """Return a method that calls the hook with the piece that find gives for a network."""

        def method(network: Any, *arguments: Any, **options: Any) -> Any:
            self.calls += 1
            return self.hook(find(network), network, *arguments, **options)

        return method


# ---- where users override them --------------------------------------------------------------------------------------


def overriding(base: type, name: str, counting: Counting) -> type:
    """Return a subclass with the hook."""
    made = type(base.__name__, (base,), {name: counting.around(lambda n: getattr(super(made, n), name))})
    return made


def mixed_in(base: type, name: str, counting: Counting) -> type:
    """Return a subclass with a mixin before the base, as users write for scikit-learn's estimators."""
    mixin = type("Mixin", (), {name: counting.around(lambda n: getattr(super(mixin, n), name))})
    return type(base.__name__, (mixin, base), {})


def subclass(base: type) -> type:
    return type(base.__name__, (base,), {"more": lambda self: None})


def in_a_subclass(base: type, name: str, counting: Counting) -> type:
    return overriding(base, name, counting)


def in_a_mixin(base: type, name: str, counting: Counting) -> type:
    return mixed_in(base, name, counting)


def under_a_subclass(base: type, name: str, counting: Counting) -> type:
    return subclass(overriding(base, name, counting))


def over_a_subclass(base: type, name: str, counting: Counting) -> type:
    return overriding(subclass(base), name, counting)


def in_a_mixin_before_a_subclass(base: type, name: str, counting: Counting) -> type:
    return subclass(mixed_in(subclass(base), name, counting))


KINDS = ["binary", "three outputs"]
PLACES = [in_a_subclass, in_a_mixin, under_a_subclass, over_a_subclass, in_a_mixin_before_a_subclass]


class Run(NamedTuple):
    """A network after all that was asked of it, what came of each call, and how often the hook was called in each."""

    network: Any
    outcomes: list[Outcome]
    calls: list[int]


def run(network: Any, kind: str, place: Any, name: str, hook: Callable[..., Any]) -> Run:
    """Make an estimator with the hook of the network's parameters; fit, predict, train on and predict again."""
    task, counting = TASKS[kind], Counting(hook)
    hooked = place(type(network), name, counting)(**network.get_params())
    predictions = [lambda: hooked.predict(task.x)]
    if hasattr(hooked, "predict_proba"):
        predictions += [lambda: hooked.predict_proba(task.x)]
    steps = [lambda: hooked.fit(task.x, task.y), *predictions]
    if not hooked.early_stopping and hooked.solver != "lbfgs":
        steps += [lambda: hooked.partial_fit(task.x, task.y), *predictions]
    outcomes, calls = [], []
    with np.errstate(all="ignore"):
        for step in steps:
            done = outcome(step)
            outcomes.append(done._replace(result=None if done.result is hooked else done.result))
            calls.append(counting.calls)
    return Run(hooked, outcomes, calls)


def options_of(solver: str, more: dict[str, Any]) -> dict[str, Any]:
    return {"solver": solver, "max_iter": 3 if solver == "lbfgs" else 6, **more}


def assert_same_runs(ours: Run, theirs: Run) -> None:
    """Three steps of lbfgs amplify roundings too little to come near 1e-7."""
    within = 1e-7 if theirs.network.solver == "lbfgs" else EXACT
    assert ours.calls == theirs.calls
    assert_same([tuple(o) for o in ours.outcomes], [tuple(o) for o in theirs.outcomes], within)
    assert_same_attributes(ours.network, theirs.network, within)


@grid(
    "name,hook,solver,more place,kind",
    CASES,
    [(p, k) for i, p in enumerate(PLACES) for k in KINDS[: 2 if i == 0 else 1]],
    always=lambda case, _: case in (CASES[0], CASES[-1]),
)
def test_overridden_hook_is_called(
    name: str, hook: Callable[..., Any], solver: str, more: dict[str, Any], place: Any, kind: str
) -> None:
    two = pair(kind, **options_of(solver, more))
    theirs = run(two.theirs, kind, place, name, hook)
    assert theirs.calls[-1] > 0
    assert_same_runs(run(two.ours, kind, place, name, hook), theirs)


@pytest.mark.parametrize(("name", "hook", "solver", "more"), CASES, ids=str_of)
def test_hook_changes_a_result(name: str, hook: Callable[..., Any], solver: str, more: dict[str, Any]) -> None:
    """Without a change, agreement would prove nothing."""
    runs = [
        run(pair("binary", **options_of(solver, more)).theirs, "binary", in_a_subclass, name, hook_or_none)
        for hook_or_none in (hook, lambda piece, _, *arguments, **options: piece(*arguments, **options))
    ]
    with pytest.raises(AssertionError):
        assert_same_runs(*runs)


# ---- subclasses that override nothing --------------------------------------------------------------------------------


class Scaling:
    """A mixin with methods of its own, and public ones that scikit-learn's have too."""

    factor = 1.0

    def predict(self, X: Any) -> Any:
        return super().predict(self.factor * X)  # type: ignore[misc]

    def describe(self) -> str:
        return type(self).__name__


def with_a_method(base: Any) -> type:
    return subclass(subclass(base))


def with_a_mixin(base: Any) -> type:
    return type(base.__name__, (Scaling, base), {})


def with_the_same_function(base: Any) -> type:
    """A hook that is defined anew, but is the very function of the base class."""
    return type(base.__name__, (base,), {name: getattr(base, name) for name in ("_backprop", "_forward_pass_fast")})


@pytest.mark.parametrize("make", [with_a_method, with_a_mixin, with_the_same_function])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("kind", KINDS)
def test_subclass_without_hooks_uses_the_engine(kind: str, solver: str, make: Callable[[Any], type]) -> None:
    """scikit-learn's own passes, which would do the work otherwise, are not called."""
    task, plain = TASKS[kind], pair(kind, solver=solver, max_iter=3).ours
    network = make(type(plain))(**copy.deepcopy(plain.get_params(deep=False)))

    def forbidden(*_: Any, **__: Any) -> Any:
        pytest.fail("scikit-learn's own pass was called")

    passes = {"_backprop": forbidden, "_forward_pass": forbidden, "_forward_pass_fast": forbidden}
    if make is with_the_same_function:
        del passes["_backprop"]  # it was taken before
    with mock.patch.multiple(original.BaseMultilayerPerceptron, **passes):
        for one in (network, plain):
            outcome(lambda one=one: one.fit(task.x, task.y))  # type: ignore[misc]
            if solver == "adam":
                outcome(lambda one=one: one.partial_fit(task.x, task.y))  # type: ignore[misc]
        for _ in range(2):
            assert_same(network.predict(task.x), plain.predict(task.x))
    kept = predicting.kept_predictor(network)
    assert kept is not None and kept.cache.matches(network)
    assert network._has_fast_predict
    assert_same(network.coefs_, plain.coefs_)


# ---- the optimizer ---------------------------------------------------------------------------------------------------


class Clipped:
    """A mixin of scikit-learn's optimizers: no step is larger than 1e-3."""

    def _get_updates(self, grads: Any) -> Any:
        return [np.clip(update, -1e-3, 1e-3) for update in super()._get_updates(grads)]  # type: ignore[misc]


class Decaying:
    """A rate that falls by a tenth each epoch."""

    def iteration_ends(self, time_step: int) -> None:
        super().iteration_ends(time_step)  # type: ignore[misc]
        self.learning_rate_init *= 0.9  # type: ignore[has-type]
        self.learning_rate *= 0.9  # type: ignore[has-type]


class Stubborn:
    """An optimizer that never stops."""

    def trigger_stopping(self, msg: str, verbose: bool) -> bool:
        return False


@pytest.mark.parametrize("mixin", [Clipped, Decaying, Stubborn])
@pytest.mark.parametrize("name", ["SGDOptimizer", "AdamOptimizer"])
def test_optimizer_of_another_class_makes_its_own_steps(name: str, mixin: type) -> None:
    """In place of scikit-learn's class, and put into an estimator."""
    theirs = getattr(original, name)
    solver = name.removesuffix("Optimizer").lower()
    own = type(name, (mixin, theirs), {})
    task, two = TASKS["three outputs"], pair("three outputs", solver=solver, max_iter=12, tol=0.5, n_iter_no_change=1)
    with mock.patch.object(original, name, own):
        two.do("fit", task.x, task.y)
        assert type(two.theirs._optimizer) is own
        two.agree()
    two.do("partial_fit", task.x, task.y)
    two.agree()

    two = fitted("three outputs", solver=solver, max_iter=3)
    for network in (two.ours, two.theirs):
        network._optimizer.__class__ = own
    for _ in range(2):
        two.do("partial_fit", task.x, task.y)
        two.agree()
