"""What every optimizer is: the package's own and users'.

A. An optimizer object holds hyper-parameters, checked when they are set, and for each network it has served the state
   of its rule: flat arrays of the network's dtype, in the order of `Network.flat_parameters`, and a count of steps.
B. The classes of the table `fastbp.reference.OPTIMIZERS` are in `made.py`. Their rules are carried out by the engine,
   in compiled code, which `_compiled_for` hands all that it needs. `update` is the same step, in the same code, on a
   program's own arrays (`_arrays.py`).
C. An optimizer of the user's own derives from `Optimizer` and writes `update`; training then calls that.
D. The state belongs to a piece of memory, not to a Python object: a network, its `flat_parameters` and a view made of
   them find the same state. It goes when that memory goes, so an optimizer keeps no network alive.
E. A group is a number: that of the first of `groups` whose pattern matches a parameter's name, or one more than there
   are. The engine knows groups as ranges of the flat vector, each with its own hyper-parameters.
"""

from __future__ import annotations

import copy
import copyreg
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fastbp import _engine
from fastbp import _validate as check
from fastbp._assign import ArrayDict, Checked, fixed
from fastbp._names import likely, unknown
from fastbp.optim._arrays import Several, check_apart, checked_keys, checked_pairs, checked_parameter, names_of
from fastbp.optim._groups import Group
from fastbp.optim._rates import Schedule, checked_rate, rate_at, rates_of
from fastbp.optim._state import MOST_STEPS, ArrayStep, Like, OptimizerState, StateRegistry, penalized_weights, ranges
from fastbp.reference import OPTIMIZERS, OptimizerRule

__all__ = ["Optimizer", "OptimizerState", "RuleOptimizer"]

Array = NDArray[Any]
Values = dict[str, Any]
Groups = tuple[tuple[str, Values], ...]

SEVERAL = (list, tuple, Mapping)
NOT_COPIED = ("_states", "_own", "_updating")
BUSY = (
    "this optimizer is at work in another thread: it makes one step on a program's arrays at a time; give each thread "
    "an optimizer of its own (copy.deepcopy(optimizer))"
)


# ---- checks ----------------------------------------------------------------------------------------------------------


def _fraction(name: str, value: Any) -> float:
    return check.real(name, value, at_least=0, below=1)


def _betas(name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str | bytes):
        raise TypeError(f"{name} must be two numbers, got {type(value).__name__} {value!r}")
    if len(value) != 2:
        raise ValueError(f"{name} must be two numbers, got {len(value)}: {value!r}")
    return _fraction(f"{name}[0]", value[0]), _fraction(f"{name}[1]", value[1])


CHECKS = {
    "rate": checked_rate,
    "positive": lambda name, value: check.real(name, value, above=0),
    "not_negative": lambda name, value: check.real(name, value, at_least=0),
    "number": check.real,
    "fraction": _fraction,
    "flag": check.flag,
    "betas": _betas,
}


def _check_together(rule: OptimizerRule, values: Values, where: str = "") -> None:
    """Refuse hyper-parameters that do not go together."""
    for name, other in rule.excludes:
        wanted = not other.startswith("not ")
        other = other.removeprefix("not ")
        if values[name] and bool(values[other]) != wanted:
            needed = f"{other} {'> 0' if wanted else '0'}"
            raise ValueError(f"{where}{name}={values[name]!r} needs {needed}, got {other} {values[other]!r}")


# ---- state -----------------------------------------------------------------------------------------------------------


class Optimizer(Checked):
    """Base of all optimizers, and of your own.

    A subclass writes ``update(parameters, gradients)``, which changes ``parameters`` in place; `Network.train_step` and
    `train` call it once a step with the network's ``flat_parameters`` and its flat gradient. Arrays that the rule
    keeps from step to step are named in ``state_names`` and come, with the count of steps, from ``state_for``. An
    ``update`` that uses the count adds 1 to ``state.step`` itself.

    Attributes
    ----------
    kind : str or None
        Name of the engine's compiled rule; None: the rule is ``update``, in Python. A subclass of `SGD` or `Adam`
        that writes its own ``update`` has None unless it says otherwise.
    state_names : tuple of str
        Names of the arrays kept for each network.
    makes_whole_steps : bool
        Whether it has ``step(net, x, t, *, sample_weight=None)``, which computes as many losses and gradients as it
        likes, in place of ``update``: as `LBFGSB` does.
    wants_all_rows : bool
        Whether `train` gives it all rows as one batch where no ``batch_size`` is given.

    Notes
    -----
    One optimizer may serve several networks: each has a state of its own, which goes when the network goes. A copy
    (`copy.copy`, `copy.deepcopy`, `pickle`) has the hyper-parameters and no state.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> class MeanSquare(fastbp.Optimizer):
    ...     state_names = ("mean_square",)
    ...     def update(self, parameters, gradients):
    ...         mean_square = self.state_for(parameters).arrays["mean_square"]
    ...         mean_square += 0.1 * (gradients**2 - mean_square)
    ...         parameters -= 0.01 * gradients / (np.sqrt(mean_square) + 1e-8)
    >>> w = np.array([1.0, -2.0])
    >>> MeanSquare().update(w, np.array([0.5, -0.5]))
    >>> w.round(4)
    array([ 0.9684, -1.9684])
    """

    kind: ClassVar[str | None] = None
    state_names: ClassVar[tuple[str, ...]] = ()
    makes_whole_steps: ClassVar[bool] = False
    wants_all_rows: ClassVar[bool] = False

    _constants: ClassVar[tuple[str, ...]] = ("kind", "rule", "state_names", "makes_whole_steps", "wants_all_rows")
    _cures: ClassVar[dict[str, str]] = dict.fromkeys(_constants, "it belongs to the class")
    _states: StateRegistry[OptimizerState]
    _own: Several | None
    _updating: _engine.CallLock

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        # Here, so that a subclass need not call our __init__.
        self._states = StateRegistry()
        self._own = None  # of the list or dict of arrays that `update` was given
        self._updating = _engine.CallLock()
        self._updating.message = BUSY
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "update" in vars(cls) and "kind" not in vars(cls):
            cls.kind = None  # else the engine would carry out the base's rule, and never call this update
        if "set_state" in vars(cls) and "check_state" not in vars(cls):
            cls.check_state = _checks_nothing  # type: ignore[method-assign]  # it knows its own states, the base does not

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in NOT_COPIED}

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        shown = (f"{name.removeprefix('_')}={value!r}" for name, value in self.__getstate__().items())
        return f"{type(self).__name__}({', '.join(shown)})"

    def update(self, parameters: Array, gradients: Array) -> None:
        """Make one step: change ``parameters`` in place.

        Parameters
        ----------
        parameters : ndarray, shape (n,)
            All parameters of one network, float32 or float64.
        gradients : ndarray, shape (n,)
            The gradient of the loss, of the same dtype. Not to be changed.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update(parameters, gradients)")

    def hyperparameters(self, step: int = 1, group: int | None = None) -> tuple[float, ...]:
        """Return the numbers that the engine's rule reads, in its order; none where the rule is Python's.

        Parameters
        ----------
        step : int
            The number of the step, from 1: the learning rate may follow from it.
        group : int, optional
            A group by its place in ``groups``; None: the parameters that are in none.

        Returns
        -------
        tuple of float
            Empty where the rule is Python's.
        """
        return ()

    def observe(self, loss: float) -> None:
        """Tell the schedules, each once, the loss of an epoch. `train` calls it.

        Parameters
        ----------
        loss : float
            On the validation data, where there are any.
        """
        for schedule in {id(schedule): schedule for schedule in self._schedules().values()}.values():
            schedule.observe(loss)

    def state_for(self, network_like: Any) -> OptimizerState:
        """Return the state kept for one network; it is made where there is none.

        Parameters
        ----------
        network_like : Network or ndarray
            A network, or its ``flat_parameters``: both give the same state.

        Returns
        -------
        state : OptimizerState
            Always the same object for the same network.

        Raises
        ------
        TypeError
            If it is neither an array nor has an array ``flat_parameters``.
        """
        return self._states.of(network_like, self._begin)

    def _begin(self, flat: Array) -> OptimizerState:
        # Large zeros take no memory until they are written, so nothing is saved by making them later.
        return OptimizerState({name: np.zeros(flat.size, flat.dtype) for name in self.state_names})

    def get_state(self, net: Any) -> dict[str, Any]:
        """Return what is remembered of a network, to go on from it with the same bits.

        Parameters
        ----------
        net : Network
            The network that is trained.

        Returns
        -------
        dict of str to object
            Arrays, numbers and strings by name. The arrays are the state's own, not copies.
        """
        state = self.state_for(net)
        made = {"optimizer": type(self).__name__, "step": state.step}
        made.update({f"state.{name}": array for name, array in state.arrays.items()})
        made.update({f"setting.{name}": value for name, value in self._settings().items()})
        for name, schedule in self._schedules().items():
            made.update({f"schedule.{name}.{key}": value for key, value in schedule.get_state(net).items()})
        return made

    def _settings(self) -> dict[str, Any]:
        """Return the attributes that are plain numbers and strings."""
        return {n: value for n, value in self.__getstate__().items() if isinstance(value, bool | int | float | str)}

    def _schedules(self) -> dict[str, Schedule]:
        """Return the schedules by the name that their state has."""
        return {name: value for name, value in self.__getstate__().items() if isinstance(value, Schedule)}

    def set_state(self, net: Any, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` returned for a network of the same size and dtype.

        Parameters
        ----------
        net : Network
            The network that is trained.
        state : mapping of str to object
            What `get_state` returned; its arrays are copied.

        Raises
        ------
        ValueError
            It is another optimizer's or of another size. Nothing has been changed then.
        """
        arrays = self.check_state(net, state)
        mine = self.state_for(net)
        mine.step = state["step"]
        mine._arrays = ArrayDict({name: np.array(array) for name, array in arrays.items()}, "arrays")
        mine._made = None
        for name, schedule in self._schedules().items():
            schedule.set_state(net, _below(f"schedule.{name}.", state))
        vars(self).update(_below("setting.", state))

    def check_state(self, net: Any, state: Mapping[str, Any]) -> dict[str, Array]:
        """Return the arrays of a state, or raise where `set_state` would. Nothing is changed.

        Parameters
        ----------
        net : Network
            The network that is trained.
        state : mapping of str to object
            What `get_state` returned.

        Returns
        -------
        dict of str to ndarray
            The state arrays by their names.

        Raises
        ------
        ValueError
            The state is another optimizer's, of another size, or incomplete.
        """
        if state.get("optimizer") != type(self).__name__:
            raise ValueError(f"the state is that of {state.get('optimizer')!r}, this is {type(self).__name__}")
        if "step" not in state:
            raise ValueError("the state has no 'step'")
        check.integer("step", state["step"], 0, MOST_STEPS)
        arrays, likes = _below("state.", state), self._likes_of(net)
        for name, array in arrays.items():
            if name not in likes:
                raise ValueError(f"unknown state {name!r}: known are {', '.join(map(repr, likes))}")
            shape, dtype = likes[name]
            if np.shape(array) != shape or np.asarray(array).dtype != dtype:
                got = f"{np.shape(array)} {np.asarray(array).dtype}"
                raise ValueError(f"state.{name} is {got}, the network has {shape} {dtype}")
        for name, schedule in self._schedules().items():
            if set(_below(f"schedule.{name}.", state)) != set(schedule.get_state(net)):
                raise ValueError(f"the state does not fit the schedule {name}={schedule!r}")
            copy.deepcopy(schedule).set_state(net, _below(f"schedule.{name}.", state))
        if unknown := set(_below("setting.", state)) - set(self._settings()):
            raise ValueError(f"the state has settings that this optimizer has not: {', '.join(sorted(unknown))}")
        for name, value in _below("setting.", state).items():
            if name in self._checks:
                self._checks[name](name, value)
        return arrays

    def _likes_of(self, net: Any) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Return shape and dtype of each state array by its name."""
        flat = getattr(net, "flat_parameters", net)
        return dict.fromkeys(self.state_names, (flat.shape, flat.dtype))


def _checks_nothing(self: Optimizer, net: Any, state: Mapping[str, Any]) -> dict[str, Array]:
    """Leave it to `set_state`, which refuses what does not fit before it changes anything."""
    return {}


# ---- optimizers of the table -----------------------------------------------------------------------------------------


_EXTRAS = ("groups", "clip_value", "clip_norm")  # keywords of every rule


class RuleOptimizer(Optimizer):
    """Base of the optimizers of the table `fastbp.reference.OPTIMIZERS`.

    Parameters
    ----------
    *args : object
        Hyper-parameters in the order of the table.
    **options : object
        Hyper-parameters by name, and ``groups``, ``clip_value`` and ``clip_norm``.

    Attributes
    ----------
    rule : fastbp.reference.OptimizerRule
        The optimizer's entry in the table.
    """

    rule: ClassVar[OptimizerRule]
    _version = 0  # another one after each change: what was made for the engine before is out of date then

    def __init__(self, *args: Any, **options: Any) -> None:
        names = [hyper.name for hyper in self.rule.hyper]
        options = check.named(type(self).__name__, names, args, options)
        extras = {name: options.pop(name, None) for name in _EXTRAS}
        self._values = {hyper.name: hyper.default for hyper in self.rule.hyper}
        self._values.update(self._checked(options, f"{type(self).__name__}: "))
        _check_together(self.rule, self._values)
        self._groups = self._checked_groups(extras["groups"])
        self._clip_value = _clip("clip_value", extras["clip_value"])
        self._clip_norm = _clip("clip_norm", extras["clip_norm"])
        self._version = 0

    def _checked(self, options: Mapping[str, Any], where: str) -> Values:
        known = {hyper.name: hyper.check for hyper in self.rule.hyper}
        for name in options:
            if name not in known:
                raise TypeError(f"{where}{unknown('hyper-parameter', name, [*known, *_EXTRAS])}")
        return {name: CHECKS[known[name]](name, value) for name, value in options.items()}

    def _checked_groups(self, groups: Any) -> Groups:
        if groups is None:
            return ()
        if isinstance(groups, Mapping | str) or not hasattr(groups, "__iter__"):
            raise TypeError(f"groups must be a sequence of dicts, got {type(groups).__name__} {groups!r}")
        made = []
        for i, group in enumerate(groups):
            where = f"groups[{i}]: "
            if not isinstance(group, Mapping):
                raise TypeError(f"groups[{i}] must be a dict, got {type(group).__name__} {group!r}")
            if not isinstance(group.get("match"), str):
                raise TypeError(f'{where}match must be a pattern such as "*.bias", got {group.get("match")!r}')
            values = self._checked({name: value for name, value in group.items() if name != "match"}, where)
            _check_together(self.rule, {**self._values, **values}, where)
            made.append((group["match"], values))
        return tuple(made)

    # ---- settings

    def _set(self, name: str, value: Any, group: int | None = None) -> None:
        """Change a hyper-parameter, everywhere or of a group; or nothing."""
        checked = self._checked({name: value}, "" if group is None else f"groups[{group}]: ")
        values, groups = self._values if group is not None else {**self._values, **checked}, list(self._groups)
        if group is not None:
            groups[group] = groups[group][0], {**groups[group][1], **checked}
        _check_together(self.rule, values)
        for i, (_, own) in enumerate(groups):
            _check_together(self.rule, {**values, **own}, f"groups[{i}]: ")
        self._values, self._groups = values, tuple(groups)
        self._version += 1

    @fixed
    def groups(self) -> tuple[Group, ...]:
        """Hyper-parameters of some parameters, by name: ``optimizer.groups[0]["lr"] = 0.01`` takes effect."""
        return tuple(
            Group(partial(self._shown_group, i), partial(self._set, group=i)) for i in range(len(self._groups))
        )

    def _shown_group(self, i: int) -> Values:
        match, values = self._groups[i]
        return {"match": match, **values}

    @property
    def clip_value(self) -> float | None:
        """The largest absolute value that an element of the gradient keeps, above 0; or None."""
        return self._clip_value

    @clip_value.setter
    def clip_value(self, value: float | None) -> None:
        self._clip_value = _clip("clip_value", value)
        self._version += 1

    @property
    def clip_norm(self) -> float | None:
        """The largest norm that the whole gradient keeps, above 0; or None."""
        return self._clip_norm

    @clip_norm.setter
    def clip_norm(self, value: float | None) -> None:
        self._clip_norm = _clip("clip_norm", value)
        self._version += 1

    def __repr__(self) -> str:
        shown = dict(self._values)
        given = {"groups": list(self.groups), "clip_value": self._clip_value, "clip_norm": self._clip_norm}
        shown.update({name: value for name, value in given.items() if value})
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def _values_of(self, group: int | None) -> Values:
        if group is None or group == len(self._groups):
            return self._values
        return {**self._values, **self._groups[group][1]}

    def rate(self, step: int, group: int | None = None) -> float:
        """Return the learning rate of a step.

        Parameters
        ----------
        step : int
            The number of the step, from 1.
        group : int, optional
            A group by its place in ``groups``; None: the parameters that are in none.

        Returns
        -------
        float
            The rate, >= 0.
        """
        return rate_at(self._values_of(group)["lr"], step)

    def hyperparameters(self, step: int = 1, group: int | None = None) -> tuple[float, ...]:
        """Return the numbers that the engine's rule reads, in its order, the learning rate of that step first."""
        return tuple(_flat({**self._values_of(group), "lr": self.rate(step, group)}))

    def _schedules(self) -> dict[str, Schedule]:
        """Return the schedules by the name that their state has."""
        rates = {"lr": self._values["lr"]}
        rates.update({f"groups.{i}.lr": values["lr"] for i, (_, values) in enumerate(self._groups) if "lr" in values})
        return {name: rate for name, rate in rates.items() if isinstance(rate, Schedule)}

    # ---- state

    def _begin(self, flat: Array) -> OptimizerState:
        state = self._fresh()
        for name in self._used():
            state.array(name, partial(self._first_array, state, name, flat))
        return state

    def _fresh(self) -> OptimizerState:
        first = self.rule.carried[1] if self.rule.carried else 0.0
        return OptimizerState(carried=np.full(len(self._groups) + 1, first))

    def _used(self) -> list[str]:
        """Return the names of the state arrays that some group uses now."""
        groups = [self._values_of(group) for group in range(len(self._groups) + 1)]
        needed = self.rule.used_if
        return [n for n in self.rule.states if n not in needed or any(values[needed[n]] for values in groups)]

    def _first_array(self, state: OptimizerState, name: str, like: Array, group: int | None = None) -> Array:
        made = np.zeros(like.shape, like.dtype, "F" if like.flags.fnc else "C")
        if name in self.rule.begins_as:
            hyper, first = self.rule.begins_as[name], 0
            made[...] = self._values_of(group)[hyper]
            for end, its_group, _ in state.layout or ():
                made[first:end] = self._values_of(its_group)[hyper]
                first = end
        return made

    def state_for(self, network_like: Any) -> OptimizerState:
        """Return the state kept for one network, or for arrays; it is made where there is none.

        Parameters
        ----------
        network_like : Network, ndarray, or list or dict of ndarray
            A network, or its ``flat_parameters``: both give the same state. Or arrays, as `update` takes them.

        Returns
        -------
        state : OptimizerState
            Always the same object for the same network.

        Raises
        ------
        TypeError
            If it is none of these.
        ValueError
            The arrays are others than those that the optimizer has a state of.
        """
        if isinstance(network_like, SEVERAL):
            return self._several(network_like).state
        state = super().state_for(network_like)
        if state.layout is None and hasattr(network_like, "parameters"):
            state._layout = self._layout(network_like)
            if state.step == 0:
                for name in self.rule.begins_as:
                    state.arrays[name] = self._first_array(state, name, network_like.flat_parameters)
        return state

    def _layout(self, net: Any) -> tuple[tuple[int, int, bool], ...]:
        """Return the end, the group and the kind of each parameter; refuse a group that has none."""
        named = ranges(net)
        self._check_matches(named, "the network has")
        weights = penalized_weights(net)
        return tuple((end, self._group_of(name), name in weights) for name, (_, end) in named.items())

    def _check_matches(self, names: Collection[str], which: str) -> None:
        for i, (match, _) in enumerate(self._groups):
            if not any(fnmatchcase(name, match) for name in names):
                known = ", ".join(map(repr, names))
                raise ValueError(f"groups[{i}] matches no parameter: {match!r}; {which} {known}")

    def _group_of(self, name: str) -> int:
        found = (i for i, (match, _) in enumerate(self._groups) if fnmatchcase(name, match))
        return next(found, len(self._groups))

    def _state_arrays(self, state: OptimizerState, flat: Array) -> list[Array | None]:
        """Return the state arrays as the engine's rule takes them.

        Parameters
        ----------
        state : OptimizerState
            The state of a network; arrays that it lacks are made.
        flat : ndarray, shape (n_parameters,)
            The network's parameters.

        Returns
        -------
        list of ndarray or None
            In the order of the rule; None for an array that the settings do not use.
        """
        used = self._used()
        return [
            state.array(name, partial(self._first_array, state, name, flat)) if name in used else None
            for name in self.rule.states
        ]

    def get_state(self, net: Any) -> dict[str, Any]:
        """Return what is remembered of a network and of the schedules, and the hyper-parameters that are numbers."""
        made = {**super().get_state(net), "carried": self.state_for(net).carried, **_numbers("hyper.", self._values)}
        made.update(clip_value=self._clip_value or 0.0, clip_norm=self._clip_norm or 0.0)  # 0: none
        for i, (match, values) in enumerate(self._groups):
            made.update({f"group.{i}.match": match, **_numbers(f"group.{i}.", values)})
        return made

    def set_state(self, net: Any, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` returned, with its hyper-parameters and with schedules of the same kind.

        Raises
        ------
        ValueError
            It is another optimizer's, or of a network of another size. Nothing has been changed then.
        """
        self.check_state(net, state)
        super().set_state(net, state)
        self.state_for(net).carried[...] = np.array(state["carried"], float)
        self._values, self._groups = self._values_in(state)
        self._clip_value, self._clip_norm = self._clips_in(state)
        self._version += 1

    def check_state(self, net: Any, state: Mapping[str, Any]) -> dict[str, Array]:
        arrays = super().check_state(net, state)
        carried = np.array(state.get("carried", ()), float)
        if carried.shape != (len(self._groups) + 1,):
            raise ValueError(f"carried has shape {carried.shape}, expected {(len(self._groups) + 1,)}: other groups?")
        self._values_in(state)
        self._clips_in(state)
        return arrays

    def _likes_of(self, net: Any) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        if isinstance(net, SEVERAL):
            own = self._several(net)
            return {f"{s}.{n}": like for n, like in zip(own.names, own.likes, strict=True) for s in self.rule.states}
        return super()._likes_of(net)

    def _settings(self) -> dict[str, Any]:
        return {}  # hyper-parameters have their checks, and are none of these

    def _values_in(self, state: Mapping[str, Any]) -> tuple[Values, Groups]:
        """Return the hyper-parameters with those of a state, and those of the groups."""
        values = {**self._values, **self._numbers_in("hyper.", state, self._values)}
        _check_together(self.rule, values)
        groups = []
        for i, (match, own) in enumerate(self._groups):
            if (theirs := state.get(f"group.{i}.match")) != match:
                raise ValueError(f"groups[{i}] matches {theirs!r} in the state, {match!r} here")
            changing = {name: value for name, value in own.items() if callable(value)}
            its = {**changing, **self._numbers_in(f"group.{i}.", state, own)}
            _check_together(self.rule, {**values, **its}, f"groups[{i}]: ")
            groups.append((match, its))
        return values, tuple(groups)

    def _numbers_in(self, start: str, state: Mapping[str, Any], mine: Values) -> Values:
        """Return the hyper-parameters that a state has under names that begin so; a rate that changes stays."""
        given = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in _below(start, state).items()
            if name != "match" and not (name == "lr" and callable(mine.get("lr")))
        }
        return self._checked(given, "")

    @staticmethod
    def _clips_in(state: Mapping[str, Any]) -> tuple[float | None, float | None]:
        value, norm = (check.real(name, state.get(name, 0.0), at_least=0) for name in ("clip_value", "clip_norm"))
        return value or None, norm or None

    # ---- steps

    def _compiled_for(
        self,
        net: Any,
        gradients: Array,
        *,
        steps: int = 1,
        penalized: bool = True,
        accumulate: int = 1,
        average: Any = None,
        penalty_per_batch: bool = False,
    ) -> _engine.Update:
        """Return what the engine needs to make the next steps on a network.

        Parameters
        ----------
        net : Network
            The network whose parameters change.
        gradients : ndarray, shape (n_parameters,)
            The array of the flat gradient, which the engine fills or reads.
        steps : int
            The number of steps that learning rates are needed for.
        penalized : bool
            Whether the network's penalties are not in the gradients yet.
        accumulate : int
            Batches to a step.
        average : fastbp.averages.Average, optional
            Of the parameters.
        penalty_per_batch : bool
            Whether a step's penalties are divided by what the mean loss of its rows is divided by.

        Returns
        -------
        Update
            The engine's update; out of date when ``_version`` has changed.
        """
        state = self.state_for(net)
        assert state.layout is not None
        flat, first = net.flat_parameters, state.step + 1
        shares = None if average is None else average.shares(net, steps)
        return _engine.Update(
            flat,
            gradients,
            _parts(state.layout, net.l1, net.l2, [name in net.frozen for name in net.parameters]),
            self.kind,
            self._state_arrays(state, flat),
            self._numbers_of_groups(),
            state.carried,
            state,
            rates=self._rates(first, steps),
            limit=math.inf if self._clip_value is None else self._clip_value,
            clip_norm=self._clip_norm or 0.0,
            penalized=penalized,
            accumulate=accumulate,
            room=np.empty_like(flat) if accumulate > 1 else None,
            averages=None if average is None else average.values(net),
            shares=shares,
            penalty_per_batch=penalty_per_batch,
        )

    @property
    def _remembers(self) -> bool:
        """Whether a step follows from the steps before."""
        return bool(self._used()) or self._moves

    @property
    def _moves(self) -> bool:
        """Whether some learning rate changes with the step."""
        return any(callable(self._values_of(group)["lr"]) for group in range(len(self._groups) + 1))

    def _rates(self, first: int, steps: int) -> NDArray[np.float64] | None:
        """Return the learning rate of each of so many steps and each group.

        Parameters
        ----------
        first : int
            The number of the first step, from 1.
        steps : int
            How many steps.

        Returns
        -------
        ndarray of float64, shape (steps, groups + 1), or None
            None where no learning rate changes with the step.
        """
        if not self._moves:
            return None
        rates = [self._values_of(group)["lr"] for group in range(len(self._groups) + 1)]
        return np.ascontiguousarray(np.stack([rates_of(rate, first, steps) for rate in rates], axis=1))

    def _rates_of_step(self, step: int) -> list[float]:
        """Return the learning rate of each group at one step."""
        return [rate_at(self._values_of(group)["lr"], step) for group in range(len(self._groups) + 1)]

    def update(self, parameters: Any, gradients: Any) -> None:
        """Make one step on a program's own arrays: change them, and the state kept for them, in place.

        Parameters
        ----------
        parameters : ndarray, or list, tuple or dict of ndarray
            Of any shapes and strides, float32 or float64, each its own. Arrays of a list keep their state by position,
            those of a dict by name: they may be other arrays in each step. The state of a single array goes by its
            memory, and another one of its shape and dtype is refused.
        gradients : as parameters
            Of the same shapes and dtypes, in the same order or by the same names.

        Raises
        ------
        TypeError
            An array has another dtype, or is no array.
        ValueError
            Numbers, names or shapes are not those of the gradients, or of the step before; a parameter is read-only or
            shares memory with another array; a single array is another one than before, and the rule remembers; a
            pattern of ``groups`` matches no name. Nothing has been changed then.
        RuntimeError
            Another thread is making a step with this optimizer, on these or other arrays.

        Notes
        -----
        All arrays are updated where they lie: dense ones, in C order, in Fortran's or in any other, as one row of
        memory, others by rows; only elements that are not aligned go by way of a copy. ``clip_norm`` is that of all
        gradients together. The patterns of ``groups`` match the names of a dict, and "0", "1", ... of a list. A
        network's own step is ``net.update(optimizer)``.
        """
        if type(parameters) is not np.ndarray and isinstance(parameters, SEVERAL):
            self._update_several(parameters, gradients)
            return
        state = self._states.known(parameters)
        made = None if state is None else state._made
        if state is None or made is None or made.version != self._version or self._groups:
            self._update_one(parameters, gradients)
        elif not made.update.apply((parameters,), (gradients,), False, self._rates_of_step if made.moves else None):
            self._step(made, (parameters,), (gradients,), lambda what: [what])

    def _update_several(self, parameters: Any, gradients: Any) -> None:
        own = self._own
        if own is None:
            with self._updating:
                own = self._own or self._begin_several(parameters, gradients)
            try:
                self._step_several(own, parameters, gradients)
            except BaseException:
                if own.state.step == 0:
                    self._own = None  # they may have been the wrong arrays
                raise
        else:
            self._step_several(own, parameters, gradients)

    def _step_several(self, own: Several, parameters: Any, gradients: Any) -> None:
        arrays = own.in_order("parameters", parameters), own.in_order("gradients", gradients)
        made = own.state._made
        if made is None or made.version != self._version:
            with self._updating:
                made = self._step_on_several(own)
        self._step(made, *arrays, own.shown)

    def _update_one(self, parameters: Any, gradients: Any) -> None:
        """Make a step on one array for the first time, after a change of the settings, or where there are groups."""
        with self._updating:
            state = self._states.known(parameters)
            if state is None:
                values = checked_pairs(("parameters",), ("gradients",), (parameters,), (gradients,))[0][0]
                begin = self._states.first if self._remembers else self._states.of
                state = begin(values, self._begin)
            pairs = self._pieces(state, parameters, gradients) if self._groups else ((parameters,), (gradients,))
            made = state._made
            if made is None or made.version != self._version:
                made = self._step_on_one(state, parameters, pairs[0])
        self._step(made, *pairs, lambda what: [what] * len(pairs[0]))

    def _step(
        self,
        made: ArrayStep,
        parameters: Sequence[Any],
        gradients: Sequence[Any],
        names: Callable[[str], list[str]],
    ) -> None:
        rates = self._rates_of_step if made.moves else None
        if made.update.apply(parameters, gradients, False, rates):
            return
        called = names("parameters"), names("gradients")
        given, slopes = checked_pairs(*called, parameters, gradients, made.likes)
        # What is not aligned has a stand-in.
        arrays, slopes = [check.aligned(values) for values in given], [check.aligned(values) for values in slopes]
        if not made.update.apply(arrays, slopes, False, rates):
            check_apart(*called, given, slopes)
            made.update.apply(arrays, slopes, True, rates)
        for values, array in zip(given, arrays, strict=True):
            check.deliver(array, values)

    def _begin_several(self, parameters: Any, gradients: Any) -> Several:
        """Make the state of a list or a dict of arrays, which are checked first."""
        keys = checked_keys(parameters)
        given = list(parameters.values() if keys is not None else parameters)
        names = names_of("parameters", keys, len(given))
        arrays = [checked_parameter(name, array) for name, array in zip(names, given, strict=True)]
        own = Several(keys, [(array.shape, array.dtype) for array in arrays], self._fresh())
        if gradients is not None:
            slopes = own.in_order("gradients", gradients)
            arrays, slopes = checked_pairs(names, own.shown("gradients"), given, slopes)
            check_apart(names, own.shown("gradients"), arrays, slopes)
        self._check_matches(own.names, "known are")
        self._own = own
        self._several_arrays(own, arrays)
        return own

    def _several(self, parameters: Any) -> Several:
        """Return the state of a list or a dict of arrays; it is made where there is none."""
        if self._own is None:
            return self._begin_several(parameters, None)
        for name, array, like in zip(
            self._own.shown("parameters"), self._own.in_order("parameters", parameters), self._own.likes, strict=True
        ):
            checked_parameter(name, array, like)
        return self._own

    def _several_arrays(self, own: Several, arrays: Sequence[Array] | None = None) -> list[list[Array | None]]:
        """Return the state arrays of each array in the order of the rule; those that are not there yet are made."""
        used, made = self._used(), []
        for i, (name, (shape, dtype)) in enumerate(zip(own.names, own.likes, strict=True)):
            like = np.broadcast_to(np.zeros((), dtype), shape) if arrays is None else arrays[i]
            group = self._group_of(name)

            made.append(
                [
                    own.state.array(f"{state}.{name}", partial(self._first_array, own.state, state, like, group))
                    if state in used
                    else None
                    for state in self.rule.states
                ]
            )
        return made

    def _step_on_several(self, own: Several) -> ArrayStep:
        groups = [self._group_of(name) for name in own.names]
        return self._compiled(own.state, own.likes, self._several_arrays(own), groups)

    def _pieces(self, state: OptimizerState, parameters: Any, gradients: Any) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return a network's flat arrays as pieces of one group each."""
        if state.layout is None:
            raise ValueError("groups need the parameters' names: pass a dict of arrays, or call state_for(net) first")
        (whole,), (slopes,) = checked_pairs(("parameters",), ("gradients",), (parameters,), (gradients,))
        places = self._places(state)
        return [whole[first:end] for first, end, _ in places], [slopes[first:end] for first, end, _ in places]

    def _places(self, state: OptimizerState) -> list[tuple[int, int, int]]:
        """Return where each group's neighbours begin and end, and the group."""
        assert state.layout is not None
        merged = _merged(state.layout)
        return [
            (first, end, group) for (end, group, _), first in zip(merged, (0, *(m[0] for m in merged)), strict=False)
        ]

    def _step_on_one(self, state: OptimizerState, parameters: Array, pieces: Sequence[Array]) -> ArrayStep:
        arrays = self._state_arrays(state, parameters)
        places = self._places(state) if self._groups else None
        likes = tuple((piece.shape, piece.dtype) for piece in pieces)
        if places is None:
            return self._compiled(state, likes, [arrays], [0])
        cut = [[array if array is None else array[first:end] for array in arrays] for first, end, _ in places]
        return self._compiled(state, likes, cut, [group for _, _, group in places])

    def _compiled(
        self,
        state: OptimizerState,
        likes: tuple[Like, ...],
        states: Sequence[Sequence[Array | None]],
        groups: Sequence[int],
    ) -> ArrayStep:
        """Return the compiled step on arrays of these shapes and dtypes, and keep it with the state."""
        update = _engine.ArrayUpdate(
            self.rule.name,
            likes,
            states,
            groups,
            self._numbers_of_groups(),
            state.carried,
            state,
            self._updating,
            limit=math.inf if self._clip_value is None else self._clip_value,
            clip_norm=self._clip_norm or 0.0,
        )
        state._made = ArrayStep(self._version, self._moves, likes, update)
        return state._made

    def _numbers_of_groups(self) -> list[tuple[float, ...]]:
        """Return the hyper-parameters of each group in the engine's order."""
        return [tuple(_flat(self._values_of(group))) for group in range(len(self._groups) + 1)]


def _below(start: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries whose names begin so, without that beginning."""
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


def _numbers(start: str, values: Values) -> dict[str, Any]:
    """Return the hyper-parameters that are numbers, under names that begin so."""
    return {
        f"{start}{name}": np.array(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if not callable(value)
    }


def _clip(name: str, value: Any) -> float | None:
    return None if value is None else check.real(name, value, above=0)


def _flat(values: Values) -> list[float]:
    """Return the numbers of the hyper-parameters one after another; a schedule's is there when its step is known."""
    numbers: list[float] = []
    for value in values.values():
        numbers += value if isinstance(value, tuple) else [0.0 if callable(value) else float(value)]
    return numbers


def _merged(layout: Sequence[tuple[int, int, bool]]) -> list[tuple[int, int, bool]]:
    """Return neighbours of one group as one."""
    made: list[tuple[int, int, bool]] = []
    for entry in layout:
        if made and made[-1][1] == entry[1]:
            made.pop()
        made.append(entry)
    return made


def _parts(
    layout: Sequence[tuple[int, int, bool]], l1: float, l2: float, frozen: Sequence[bool]
) -> list[tuple[int, int, float, float, bool]]:
    """Return the engine's parts: neighbours of one group and one penalty, frozen or not."""
    made: list[tuple[int, int, float, float, bool]] = []
    for (end, group, weight), still in zip(layout, frozen, strict=True):
        part = end, group, l1 if weight else 0.0, l2 if weight else 0.0, still
        if made and made[-1][1:] == part[1:]:
            made.pop()
        made.append(part)
    return made


def check_optimizer(optimizer: Any) -> None:
    """Raise unless it is an optimizer."""
    if not isinstance(optimizer, Optimizer):
        meant = OPTIMIZERS.get(likely(optimizer, OPTIMIZERS) or "")
        such = "SGD(lr=0.1)" if meant is None else f"{meant.unit}()"
        raise TypeError(f"optimizer must be a fastbp.Optimizer such as fastbp.{such}, got {optimizer!r}")
