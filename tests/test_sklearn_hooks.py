"""Whoever overrides a piece of scikit-learn's networks is obeyed: it is called as often as there, and changes as much.

A. A hook is put where people put it: a method of a subclass, an attribute of one network, a patch of fastbp's class,
   a patch of scikit-learn's own class. Each counts its calls and changes what it is there to change.
B. The tables of activations, derivatives and losses, and the optimizer's classes, are scikit-learn's, and read at
   each fit.
C. Beside each network stands scikit-learn's with the same hook; everything in both must agree. That a hook changes
   something at all is asserted too: the fit without it must differ.
"""

from __future__ import annotations

import contextlib
import copy
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from helpers import grid
from sklearn.neural_network import _base as tables
from sklearn.neural_network import _multilayer_perceptron as original
from sklearn_pairs import (
    EXACT,
    TASKS,
    THEIRS,
    Outcome,
    Task,
    assert_same,
    assert_same_attributes,
    fitted,
    outcome,
    pair,
)

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


# ---- where people put them -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_a_subclass(network: Any, name: str, counting: Counting) -> Iterator[Any]:
    base = type(network)
    hooked = type(base.__name__, (base,), {name: counting.around(lambda n: getattr(super(hooked, n), name))})
    yield hooked(**network.get_params())


@contextlib.contextmanager
def on_a_mixin(network: Any, name: str, counting: Counting) -> Iterator[Any]:
    """A class before fastbp's, as somebody would write for scikit-learn's."""
    base = type(network)
    mixin = type("Mixin", (), {name: counting.around(lambda n: getattr(super(mixin, n), name))})
    yield type(base.__name__, (mixin, base), {})(**network.get_params())


@contextlib.contextmanager
def on_the_network(network: Any, name: str, counting: Counting) -> Iterator[Any]:
    piece = getattr(network, name)
    network.__dict__[name] = types.MethodType(counting.around(lambda n: piece), network)
    yield network
    del network.__dict__[name]


@contextlib.contextmanager
def on_the_class(network: Any, name: str, counting: Counting) -> Iterator[Any]:
    piece = getattr(type(network), name)
    with mock.patch.object(type(network), name, counting.around(lambda n: piece.__get__(n))):
        yield network


@contextlib.contextmanager
def on_scikit_learns_class(network: Any, name: str, counting: Counting) -> Iterator[Any]:
    theirs = THEIRS[type(network).__name__]
    owner = next(cls for cls in theirs.__mro__ if name in vars(cls))
    piece = vars(owner)[name]
    with mock.patch.object(owner, name, counting.around(lambda n: piece.__get__(n))):
        yield network


KINDS = ["binary", "three outputs"]
PLACES = [on_a_subclass, on_a_mixin, on_the_network, on_the_class, on_scikit_learns_class]


class Run(NamedTuple):
    """A network after all that was asked of it, what came of each call, and how often the hook was called in each."""

    network: Any
    outcomes: list[Outcome]
    calls: list[int]


def run(network: Any, kind: str, place: Any, name: str, hook: Callable[..., Any]) -> Run:
    """Put the hook where it belongs; fit, predict, train on and predict again."""
    task, counting = TASKS[kind], Counting(hook)
    with place(network, name, counting) as hooked, np.errstate(all="ignore"):
        steps = [lambda: hooked.fit(task.x, task.y), lambda: hooked.predict(task.x)]
        if not hooked.early_stopping and hooked.solver != "lbfgs":
            steps += [lambda: hooked.partial_fit(task.x, task.y), lambda: hooked.predict(task.x)]
        outcomes, calls = [], []
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
def test_hooks(name: str, hook: Callable[..., Any], solver: str, more: dict[str, Any], place: Any, kind: str) -> None:
    two = pair(kind, **options_of(solver, more))
    theirs = run(two.theirs, kind, place, name, hook)
    assert theirs.calls[-1] > 0
    assert_same_runs(run(two.ours, kind, place, name, hook), theirs)


@pytest.mark.parametrize(("name", "hook", "solver", "more"), CASES, ids=str_of)
def test_the_hooks_change_something(name: str, hook: Callable[..., Any], solver: str, more: dict[str, Any]) -> None:
    """Else agreement would prove nothing."""
    runs = [
        run(pair("binary", **options_of(solver, more)).theirs, "binary", on_the_network, name, hook_or_none)
        for hook_or_none in (hook, lambda piece, _, *arguments, **options: piece(*arguments, **options))
    ]
    with pytest.raises(AssertionError):
        assert_same_runs(*runs)


@pytest.mark.parametrize(("name", "hook", "solver", "more"), CASES, ids=str_of)
def test_a_hook_that_came_later(name: str, hook: Callable[..., Any], solver: str, more: dict[str, Any]) -> None:
    """On a network that was fitted without it."""
    two = pair("binary", **options_of(solver, more))
    two.do("fit", TASKS["binary"].x, TASKS["binary"].y)
    theirs = run(two.theirs, "binary", on_the_network, name, hook)
    assert_same_runs(run(two.ours, "binary", on_the_network, name, hook), theirs)


# ---- the tables ------------------------------------------------------------------------------------------------------


def softer_relu(z: Any) -> None:
    z[...] = np.where(z > 0, z, 0.1 * z)


def softer_relu_derivative(z: Any, delta: Any) -> None:
    delta[z <= 0] *= 0.1


def cold_softmax(z: Any) -> None:
    tables.inplace_softmax(np.multiply(z, 0.5, out=z))


def ten_times(loss: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **options: 10 * loss(*arguments, **options)


ENTRIES: list[tuple[str, str, str, Callable[..., Any]]] = [
    ("multiclass", "ACTIVATIONS", "relu", softer_relu),
    ("multiclass", "DERIVATIVES", "relu", softer_relu_derivative),
    ("multiclass", "ACTIVATIONS", "softmax", cold_softmax),
    ("binary", "ACTIVATIONS", "logistic", lambda z: np.clip(0.5 + 0.2 * z, 0.01, 0.99, out=z)),
    ("one output", "ACTIVATIONS", "identity", lambda z: np.tanh(z, out=z)),
    ("multiclass", "LOSS_FUNCTIONS", "log_loss", ten_times(tables.log_loss)),
    ("binary", "LOSS_FUNCTIONS", "binary_log_loss", ten_times(tables.binary_log_loss)),
    ("three outputs", "LOSS_FUNCTIONS", "squared_error", ten_times(tables.squared_loss)),
]


@pytest.mark.parametrize("solver", [*STOCHASTIC, "lbfgs"])
@pytest.mark.parametrize(("kind", "table", "name", "entry"), ENTRIES, ids=str_of)
def test_tables(kind: str, table: str, name: str, entry: Callable[..., Any], solver: str) -> None:
    """An entry of a table is replaced, before the fit or after it; then it is put back."""
    task, options = TASKS[kind], options_of(solver, {})
    before, after = pair(kind, **options), pair(kind, **options)
    before.within = after.within = 1e-7 if solver == "lbfgs" else EXACT
    after.do("fit", task.x, task.y)
    plain = fitted_values(before.theirs, task)
    with mock.patch.dict(getattr(original, table), {name: entry}):
        before.do("fit", task.x, task.y)
        before.agree().predict_alike(task.x)
        assert not same_values(plain, [*before.theirs.coefs_, before.theirs.loss_])
        after.do("partial_fit" if solver != "lbfgs" else "fit", task.x, task.y)
        after.agree().predict_alike(task.x)
    before.predict_alike(task.x).do("fit", task.x, task.y)
    before.agree()


def fitted_values(network: Any, task: Task) -> list[Any]:
    """Return the parameters and the loss of a copy, fitted."""
    twin = copy.deepcopy(network)
    outcome(lambda: twin.fit(task.x, task.y))
    return [*twin.coefs_, twin.loss_]


def same_values(a: list[Any], b: list[Any]) -> bool:
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("table", ["ACTIVATIONS", "DERIVATIVES", "LOSS_FUNCTIONS"])
def test_a_table_of_ones_own(table: str) -> None:
    """The table itself is replaced, in the module that reads it."""
    entries = {"relu": softer_relu} if table == "ACTIVATIONS" else {"relu": softer_relu_derivative}
    if table == "LOSS_FUNCTIONS":
        entries = {"log_loss": ten_times(tables.log_loss)}
    task, two = TASKS["multiclass"], pair("multiclass", max_iter=3)
    with mock.patch.object(original, table, {**getattr(original, table), **entries}):
        two.do("fit", task.x, task.y)
        two.agree().predict_alike(task.x)


# ---- the optimizer ---------------------------------------------------------------------------------------------------


class Clipped:
    """What somebody mixes into an optimizer of scikit-learn's: no step is larger than this."""

    def _get_updates(self, grads: Any) -> Any:
        return [np.clip(update, -1e-3, 1e-3) for update in super()._get_updates(grads)]  # type: ignore[misc]


class Decaying:
    """A rate that falls by a tenth each epoch."""

    def iteration_ends(self, time_step: int) -> None:
        super().iteration_ends(time_step)  # type: ignore[misc]
        self.learning_rate_init *= 0.9  # type: ignore[has-type]
        self.learning_rate *= 0.9  # type: ignore[has-type]


class Stubborn:
    """One that never stops."""

    def trigger_stopping(self, msg: str, verbose: bool) -> bool:
        return False


@pytest.mark.parametrize("mixed_in", [Clipped, Decaying, Stubborn])
@pytest.mark.parametrize("name", ["SGDOptimizer", "AdamOptimizer"])
def test_optimizers(name: str, mixed_in: type) -> None:
    """An optimizer of one's own, in place of scikit-learn's, or put into a network."""
    theirs = getattr(original, name)
    solver = name.removesuffix("Optimizer").lower()
    own = type(name, (mixed_in, theirs), {})
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


@pytest.mark.parametrize("method", ["update_params", "_get_updates", "iteration_ends", "trigger_stopping"])
@pytest.mark.parametrize("name", ["SGDOptimizer", "AdamOptimizer"])
def test_patched_optimizers(name: str, method: str) -> None:
    """A method of scikit-learn's optimizer is patched: it is called as often."""
    theirs = getattr(original, name)
    piece = getattr(theirs, method)
    task = TASKS["three outputs"]
    two = pair("three outputs", solver=name.removesuffix("Optimizer").lower(), max_iter=12, tol=0.5, n_iter_no_change=1)
    calls = []
    counted = []
    for network in (two.theirs, two.ours):
        calls.clear()
        with mock.patch.object(theirs, method, lambda *a: (calls.append(a), piece(*a))[1]):
            outcome(lambda network=network: network.fit(task.x, task.y))  # type: ignore[misc]
        counted.append(len(calls))
    assert counted[0] == counted[1] > 0
    two.agree()
