"""`accelerate`: find what is known, prove it, measure it, and put the engine in its place."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import pkgutil
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from fastbp.dropin import _clock, _proof
from fastbp.dropin._functions import MARK, ReplacedFunctions
from fastbp.dropin._interface import Functions, Interface, Left, Originals, Space, Trial, Twin
from fastbp.dropin._patch import entries_of
from fastbp.dropin._report import Entry, Report
from fastbp.dropin._seams import Seam, deciding, proving, seam_of

__all__ = ["accelerate", "accelerated", "interfaces"]

Array = np.ndarray[Any, np.dtype[Any]]
Cls = TypeVar("Cls", bound=type)
Found = tuple[Any, list[Interface]]  # an object or a class, and what it may be

SLOWEST = 1 / 0.98  # a smaller ratio is no gain
SEED = 20240501  # of the trials: a proof says the same each time
MOST_SHOWN = 12


def interfaces() -> list[Interface]:
    """Return all interfaces that are known, in the order of their modules' names."""
    package = importlib.import_module("fastbp.dropin")
    names = sorted(found.name for found in pkgutil.iter_modules(package.__path__) if not found.name.startswith("_"))
    modules = [importlib.import_module(f"fastbp.dropin.{name}") for name in names]
    return [interface for module in modules for interface in module.INTERFACES]


# ---- what a target holds ---------------------------------------------------------------------------------------------


def _is_space(target: Any) -> bool:
    return isinstance(target, types.ModuleType | types.SimpleNamespace | MutableMapping)


def _things(target: Any) -> list[Any]:
    """Return the classes and objects of a target, each once."""
    if isinstance(target, list | tuple):
        found = [thing for part in target for thing in _things(part)]
    else:
        found = list(entries_of(target).values()) if _is_space(target) else [target]
    return list({id(thing): thing for thing in found}.values())


def _spaces(target: Any) -> list[Any]:
    """Return the namespaces of a target."""
    if isinstance(target, list | tuple):
        return [space for part in target for space in _spaces(part)]
    return [target] if _is_space(target) else []


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "fastbp"


def _interfaces_of(thing: Any, known: Sequence[Interface]) -> list[Interface]:
    """Return the interface of an object, or of a class all whose instances may be of: the first that knows one."""
    is_class = isinstance(thing, type)
    cls = thing if is_class else type(thing)
    if _is_ours(cls) or cls.__module__ == "builtins":
        return []
    found = [interface for interface in known if interface.knows_class(cls)]
    return found if is_class else [interface for interface in found if interface.knows(thing)][:1]


def _parts(found: Sequence[Found], known: Sequence[Interface]) -> list[Found]:
    """Return what belongs to objects that were found, and was not found itself."""
    met = {id(thing) for thing, _ in found}
    parts = [part for thing, its in found if not isinstance(thing, type) for part in its[0].parts(thing)]
    own = {id(part): part for part in parts if id(part) not in met}
    return [(part, its) for part in own.values() if (its := _interfaces_of(part, known))]


def _with_parts(thing: Any, known: Sequence[Interface]) -> list[Any]:
    """Return an object, or what an object that is not known holds: the layers of a model, say."""
    if isinstance(thing, type | types.ModuleType | types.FunctionType) or not hasattr(thing, "__dict__"):
        return [thing]
    if _is_ours(type(thing)) or _interfaces_of(thing, known):
        return [thing]
    parts: list[Any] = []
    for value in vars(thing).values():
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
        parts += [part for part in inner if not isinstance(part, type)]
    return list({id(part): part for part in parts}.values())


def _unknown(target: Any, known: Sequence[Interface]) -> ValueError:
    """Return what to raise where nothing is known: what was looked for, and what was found."""
    looked = "; ".join(dict.fromkeys(f"{interface.looks_for()} ({interface.name})" for interface in known))
    if _is_space(target):
        found = [name for name in entries_of(target) if not name.startswith("__")]
        shown = ", ".join(found[:MOST_SHOWN]) + (", ..." if len(found) > MOST_SHOWN else "")
        found_in = f"the names {shown}" if found else "no names"
    else:
        cls = target if isinstance(target, type) else type(target)
        methods = [name for name in dir(cls) if not name.startswith("_")]
        found_in = f"{cls.__name__} with {', '.join(methods[:MOST_SHOWN]) or 'no methods'}"
    return ValueError(f"target holds nothing that is known: found {found_in}; looked for {looked}")


# ---- one object ------------------------------------------------------------------------------------------------------


class Proving:
    """One object that is read, proved and measured; nothing of it is changed.

    Attributes
    ----------
    twin : Twin
        Of the object itself.
    entries : dict of str to Entry
        By method.
    """

    def __init__(
        self, thing: Any, interface: Interface, originals: Originals, args: tuple[Any, ...] | None, data: Sequence[Any]
    ) -> None:
        self.thing, self.interface, self.originals, self.args = thing, interface, originals, args
        self.data = data
        self.name = "" if isinstance(thing, Space) else f"{type(thing).__name__}."
        self.twin = interface.read(thing, originals, args)
        self.entries: dict[str, Entry] = {}

    def what(self, method: str) -> str:
        return f"{self.name}{method}, {self.twin.what}".removesuffix(", ")

    def decide(self, prefer: Report | None) -> None:
        """Prove every method, and measure those that are equal."""
        dtypes = {array.dtype for array in self.twin.arrays(self.thing)}
        why, difference = "", 0.0
        if dtypes == {np.dtype(np.float32)} and self.interface.casts(self.thing, self.twin):
            why, difference = self._prove(np.dtype(np.float64))
            why = why and f"in float64 {why}"
        if not why:
            why, difference = self._prove(None)
        for method in self.twin.methods:
            what = self.what(method)
            if why:
                self.entries[method] = Entry(what, False, why, difference)
            else:
                self.entries[method] = self._choose(method, what, difference, prefer)

    def _choose(self, method: str, what: str, difference: float, prefer: Report | None) -> Entry:
        before = prefer.choice(what) if prefer is not None else None
        if before is not None and before.ratio is not None:
            return Entry(what, before.swapped, before.why, difference, before.ratio)
        ratio = self._ratio(method)
        swapped = ratio >= SLOWEST
        return Entry(what, swapped, "" if swapped else "no faster here", difference, ratio)

    # ---- the proof

    def _prove(self, dtype: np.dtype[Any] | None) -> _proof.Proof:
        """Prove all methods, on copies in which parameters have another dtype."""
        copies = [_proof.copied((self.thing, self.args), self._cast(dtype)) for _ in range(3)]
        twin = self.interface.read(copies[1][0], self.originals, copies[1][1])
        rng = np.random.default_rng(SEED)
        trials = list(self.interface.trials(copies[0][0], twin, rng, self.data))
        taken: set[str] = set()
        proof = _proof.prove(
            trials,
            self._side(copies[0][0], twin),
            self._ours(copies[1][0], twin, taken),
            self._moved(copies[2][0], twin),
            self._finer(copies[0][0], twin),
        )
        if not proof.why_not and taken != set(self.twin.methods):
            return proof._replace(why_not="is never of the kind that the engine takes")
        return proof

    def _cast(self, dtype: np.dtype[Any] | None) -> dict[int, Array]:
        """Return what stands for the parameters in one copy: each has arrays of its own."""
        arrays = [] if dtype is None else self.twin.arrays(self.thing)
        return {id(array): array.astype(dtype) for array in arrays}

    def _side(self, thing: Any, twin: Twin) -> _proof.Side:
        def run(trial: Trial) -> dict[str, Any]:
            _prepare(thing, twin, trial)
            args = _proof.copied(trial.args)
            with self._quietly() as printed:
                result = self.originals[trial.method](thing, *args)
            return _outcome(thing, twin, args, result, printed)

        return run

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[io.StringIO]:
        """Take what the original prints, where it does."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed) if self.interface.prints else contextlib.nullcontext():
            yield printed

    def _ours(self, thing: Any, twin: Twin, taken: set[str]) -> _proof.Side:
        def run(trial: Trial) -> dict[str, Any]:
            _prepare(thing, twin, trial)
            args = _proof.copied(trial.args)
            with self._quietly() as printed:
                result = twin.try_call(thing, trial.method, args, {})
                if result is NotImplemented:
                    with twin.rest():
                        result = self.originals[trial.method](thing, *args)
                    twin.ran(trial.method)
                else:
                    taken.add(trial.method)
            if twin.kept is not None:
                twin.kept.fill_all()
            return _outcome(thing, twin, args, twin.settled(result), printed)

        return run

    def _moved(self, thing: Any, twin: Twin) -> _proof.Side:
        rng = np.random.default_rng(SEED)
        self.interface.unsettle(thing, rng)

        def run(trial: Trial) -> dict[str, Any]:
            _prepare(thing, twin, trial)
            arrays = twin.arrays(thing)
            n = 16 + _proof.longest([arrays, trial.args])
            for array in arrays:
                array[...] = _proof.shaken(array, n, rng)
            args = _proof.shaken(_proof.copied(trial.args), n, rng)
            with self._quietly() as printed:
                result = self.originals[trial.method](thing, *args)
            return _outcome(thing, twin, args, result, printed)

        return run

    def _finer(self, thing: Any, twin: Twin) -> _proof.Side:
        def run(trial: Trial) -> dict[str, Any]:
            arrays = twin.arrays(thing)
            if self.interface.has_state and not arrays:
                raise Left("its state is not known")
            memo = {id(array): _proof.refined(array) for array in arrays}  # the values of the trial before, or its own
            copied = _proof.copied(thing, memo)
            _prepare(copied, twin, trial)
            args = _proof.refined(_proof.copied(trial.args))
            with self._quietly() as printed:
                result = self.originals[trial.method](copied, *args)
            return _outcome(copied, twin, args, result, printed)

        return run

    # ---- the clock

    def _ratio(self, method: str) -> float:
        copies = [_proof.copied((self.thing, self.args)) for _ in range(2)]
        twin = self.interface.read(copies[1][0], self.originals, copies[1][1])
        rng = np.random.default_rng(SEED)
        timed = self.interface.timed(copies[0][0], twin, rng, self.data, copies[0][1])[method]
        mine, original = _proof.copied(timed), self.originals[method]
        if (first := self.interface.before(copies[0][0], method, timed)) is not None:
            self.originals[first[0]](copies[0][0], *_proof.copied(first[1]))
            twin.call(copies[1][0], first[0], self.originals[first[0]], first[1], {})
        with self._quietly():
            return _clock.ratio(
                lambda: original(copies[0][0], *timed), lambda: twin.call(copies[1][0], method, original, mine, {})
            )


def _prepare(thing: Any, twin: Twin, trial: Trial) -> None:
    for name, value in trial.attributes.items():
        setattr(thing, name, _proof.copied(value))
    if trial.before is not None:
        trial.before(thing)
    if trial.values is not None:
        for array, values in zip(twin.arrays(thing), trial.values, strict=True):
            array[...] = values


def _outcome(thing: Any, twin: Twin, args: Any, result: Any, printed: io.StringIO) -> dict[str, Any]:
    found = {"result": result, "args": args}
    for name, looked_at in {**twin.looked_at(thing), **twin.looked_at_in(args)}.items():
        found[name] = dict(sorted(vars(looked_at).items()))
    if words := printed.getvalue().split():
        found["result, printed"] = [_number_of(word) for word in words]
    return found


def _number_of(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word


# ---- classes and objects ---------------------------------------------------------------------------------------------


class Accelerating:
    """What one call of `accelerate` has to do, and its report."""

    def __init__(self, data: Sequence[Any], prefer: Report | None) -> None:
        self.data, self.prefer = data, prefer
        self.report = Report()
        self._decided: dict[tuple[type | Space, str, str], Entry] = {}  # by class, method and what the object is
        self._known = interfaces()
        self._looked_at: dict[int, type] = {}  # which keeps them: no other class gets such an id

    def take_all(self, target: Any) -> None:
        """Accelerate what a target holds; ValueError where nothing of it is known."""
        known = self._known
        candidates = [part for thing in _things(target) for part in _with_parts(thing, known)]
        things = [(thing, its) for thing in candidates if (its := _interfaces_of(thing, known))]
        spaces = [(space, i) for space in _spaces(target) for i in self._functions_in(space)]
        if not things and not spaces:
            raise _unknown(target, known)
        for thing, its in things + _parts(things, known):
            self.take(thing, its)
        for space, functions in spaces:
            self.take_space(space, functions)

    def look(self, space: Any) -> None:
        """Wait for the first calls of all that a namespace has, and had not when it was looked at before."""
        for cls in list(entries_of(space).values()):
            if issubclass(type(cls), type) and id(cls) not in self._looked_at:  # isinstance asks for cls.__class__
                self._looked_at[id(cls)] = cls
                if found := _interfaces_of(cls, self._known):
                    self.take(cls, found)
        for its in self._functions_in(space):
            if not any(hasattr(entries_of(space)[name], MARK) for name in its.methods):
                self.take_space(space, its, wait=True)

    def _functions_in(self, space: Any) -> list[Functions]:
        names = entries_of(space)
        return [
            interface for interface in self._known if isinstance(interface, Functions) and interface.knows_space(names)
        ]

    def take(self, thing: Any, candidates: Sequence[Interface]) -> None:
        """Accelerate an object, or a class: of each instance the first interface that knows it."""
        cls = thing if isinstance(thing, type) else type(thing)
        if refused := next((interface.refuses for interface in candidates if interface.refuses), ""):
            self._leave(cls.__name__, Left(refused))
            return
        seams: dict[str, Seam] = {}
        usable, left = [], Left("")
        for interface in candidates:
            try:
                _add_seams(thing, cls, interface, seams)
                usable.append(interface)
            except Left as error:
                left = error
        if not usable:
            self._leave(cls.__name__, left)
        elif thing is cls or usable[0].at_first_call or (not self.data and usable[0].needs_call(thing)):
            self._wait(cls, None if thing is cls else thing, usable, seams)
        else:
            self._enter(thing, usable[0], seams, None)

    def take_space(self, space: Any, interface: Functions, wait: bool = False) -> None:
        """Accelerate functions of a namespace, now or when they are called first."""
        names = entries_of(space)
        if interface.refuses:
            self._leave(interface.methods[0], Left(interface.refuses))
            return
        functions = {name: names[name] for name in interface.methods}
        if any(hasattr(function, MARK) for function in functions.values()):
            self._leave(interface.methods[0], Left("accelerated already"))
            return
        get = (space if isinstance(space, MutableMapping) else vars(space)).get
        decide = functools.partial(self._decide_functions, interface, space)
        also = [(get, name) for name in interface.depends_on]
        replaced = ReplacedFunctions(Space(names), functions, decide, also)
        for name in functions:
            if interface.at_first_call:
                self.report.waiting.append(name)
                decided = functools.partial(self._decide_call, replaced.space, interface, replaced.originals, name)
                self.report._patches.put(space, name, replaced.deciding(name, decided))
            elif wait or replaced.twin_of(name) is not None:
                self.report._patches.put(space, name, replaced.dispatcher(name))

    def _decide_functions(self, interface: Functions, space: Any, replaced: ReplacedFunctions) -> Mapping[str, Twin]:
        """Return the twins of those functions that are swapped."""
        replaced.space.names = entries_of(space)
        try:
            twin, entries = self._decide(replaced.space, interface, replaced.originals, None)
        except Left as left:
            self._add(Entry(interface.methods[0], False, str(left)))
            return {}
        for entry in entries.values():
            if not any((entry.what, entry.swapped) == (before.what, before.swapped) for before in self.report.entries):
                self._add(entry)
        return {name: twin for name, entry in entries.items() if entry.swapped}

    def _decide_call(
        self, thing: Space, interface: Functions, originals: Originals, name: str, args: tuple[Any, ...]
    ) -> Twin | None:
        """Return the twin for one call of a function; None where the original is to run."""
        if name in self.report.waiting:
            self.report.waiting.remove(name)
        try:
            twin, entries = self._decide(thing, interface, originals, args)
        except Left as left:
            self._add(Entry(name, False, str(left)))
            return None
        for entry in entries.values():
            self._add(entry)
        return twin if entries[name].swapped else None

    def _leave(self, what: str, left: Exception) -> None:
        self._add(Entry(what, False, str(left)))

    def _wait(self, cls: type, only: Any, candidates: Sequence[Interface], seams: Mapping[str, Seam]) -> None:
        """Look at each instance of a class, or at one of them, when it is called first."""
        name = cls.__name__
        self.report.waiting.append(name)

        ref = None if only is None else weakref.ref(only)

        def first(thing: Any, args: tuple[Any, ...]) -> None:
            if ref is not None and thing is not ref():
                return
            with deciding:
                if any(seam.knows(thing) for seam in seams.values()):
                    return  # another thread has called it first
                if name in self.report.waiting:
                    self.report.waiting.remove(name)
                interface = next((one for one in candidates if one.knows(thing)), candidates[0])
                self._enter(thing, interface, seams, args)

        for seam in seams.values():
            self._begin(seam)
            seam.makers.append(first)
            self.report._patches.later(functools.partial(_forget, seam.makers, first))

    def _begin(self, seam: Seam) -> None:
        self.report._patches.later(_once(seam.end))
        self.report._patches.later(functools.partial(seam.forget, self.report))
        seam.begin()

    def _enter(self, thing: Any, interface: Interface, seams: Mapping[str, Seam], args: tuple[Any, ...] | None) -> None:
        """Prove one object; put the engine in the place of the methods that are equal and faster."""
        originals = {name: seams[name].original for name in interface.methods}
        try:
            if not interface.knows(thing):
                raise Left(f"has not what {interface.name} has: {interface.looks_for()}")
            twin, entries = self._decide(thing, interface, originals, args)
        except Left as left:
            twin, entries = None, {}
            self._add(Entry(type(thing).__name__, False, str(left)))
        for entry in entries.values():
            self._add(entry)
        swapped = [name for name, entry in entries.items() if entry.swapped]
        for name, seam in seams.items():
            if args is None and name not in swapped:
                continue
            if args is None:
                self._begin(seam)
            seam.enter(thing, twin if name in swapped else None, self.report)
        if twin is not None and twin.kept is not None and swapped:
            # Taken back first: while the dispatchers still know the object, they let the original run.
            self.report._patches.later(twin.kept.hook())

    def _add(self, entry: Entry) -> None:
        if entry not in self.report.entries:
            self.report.entries.append(entry)

    def _decide(
        self, thing: Any, interface: Interface, originals: Originals, args: tuple[Any, ...] | None
    ) -> tuple[Twin, dict[str, Entry]]:
        proving.now = True
        try:
            with _proof.keeping_random_state() if interface.draws else contextlib.nullcontext():
                made = Proving(thing, interface, originals, args or tuple(self.data) or None, self.data)
            if isinstance(thing, Space) and not interface.at_first_call:
                self._prove(made)  # for what the functions read now
                return made.twin, made.entries
            kind = thing if isinstance(thing, Space) else type(thing)
            keys = {method: (kind, method, made.twin.what) for method in made.twin.methods}
            if not all(key in self._decided for key in keys.values()):
                self._prove(made)
                self._decided |= {keys[method]: entry for method, entry in made.entries.items()}
            return made.twin, {method: self._decided[key] for method, key in keys.items()}
        except Left:
            raise
        except Exception as error:  # of a program that is not what it looks like: it runs on as it was
            raise Left(f"could not be tried: {error!r}") from error
        finally:
            proving.now = False

    def _prove(self, made: Proving) -> None:
        with _proof.keeping_random_state():
            made.decide(self.prefer)


def _add_seams(thing: Any, cls: type, interface: Interface, seams: dict[str, Seam]) -> None:
    """Add the seams of an interface's methods; Left, and nothing is added, where they cannot be swapped."""
    found = {name: seams.get(name) or seam_of(cls, name) for name in interface.methods}
    if thing is not cls and (own := [name for name in interface.methods if name in vars(thing)]):
        raise Left(f"has a {own[0]} of its own")
    if thing is not cls and any(seam.twin_of(thing) for seam in found.values()):
        raise Left("accelerated already")
    seams.update(found)


def _forget(makers: list[Any], maker: Any) -> None:
    if maker in makers:
        makers.remove(maker)


def _once(function: Callable[[], object]) -> Callable[[], None]:
    """Return a function that calls another one the first time only."""
    left = [function]

    def call() -> None:
        if left:
            left.pop()()

    return call


# ---- for users -------------------------------------------------------------------------------------------------------


def accelerate(target: Any, x: Any = None, t: Any = None, *, prefer: Report | None = None) -> Report:
    """Let the engine compute the gradients of a program that was written by hand in numpy.

    Classes and objects of known books and courses are recognised by the names of their methods and attributes. For each
    of their methods that the engine can compute, both ways are run on copies, with random data of many kinds; where
    all that comes out is equal to rounding, and where the engine is faster here, a dispatcher takes the method's place.
    What is not equal or not faster is left alone, and the report says why.

    Parameters
    ----------
    target : object, class, module, namespace or dict, or a list of these
        A network or an optimizer of the program, their class, or what holds such. Instances of a class are looked at
        when they are called for the first time.
    x, t : array_like, optional
        A batch of the program's own data, to be tried and timed with.
    prefer : Report, optional
        A report of before: what is equal is swapped where it was swapped then, and nothing is timed.

    Returns
    -------
    report : Report
        ``print(report)`` shows a table, ``report.undo()`` takes all back.

    Raises
    ------
    TypeError
        `prefer` is no report.
    ValueError
        Nothing in the target is known.

    Notes
    -----
    Arrays stay the program's: the engine reads its parameters where they lie. Parameters, attributes, data and global
    random states are left as they were. An exception, or Ctrl-C, leaves nothing swapped.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> class SGD:
    ...     def __init__(self, lr=0.01):
    ...         self.lr = lr
    ...     def update(self, params, grads):
    ...         for key in params:
    ...             params[key] -= self.lr * grads[key]
    >>> report = fastbp.accelerate(SGD)
    >>> params, grads = {"W": np.ones(3)}, {"W": np.ones(3)}
    >>> SGD(lr=0.5).update(params, grads)
    >>> params
    {'W': array([0.5, 0.5, 0.5])}
    >>> report.undo()
    """
    if prefer is not None and not isinstance(prefer, Report):
        raise TypeError(f"prefer must be a Report, as accelerate returns, got {type(prefer).__name__}")
    data = () if x is None else (x,) if t is None else (x, t)
    work = Accelerating(data, prefer)
    try:
        work.take_all(target)
    except BaseException:
        work.report.undo()
        raise
    return work.report


class Accelerated:
    """The block of a ``with`` statement in which a target is accelerated; or a decorator of a class."""

    def __init__(self, target: Any, x: Any, t: Any, prefer: Report | None) -> None:
        self._target, self._x, self._t, self._prefer = target, x, t, prefer
        self._reports: list[Report] = []

    def __enter__(self) -> Report:
        report = accelerate(self._target, self._x, self._t, prefer=self._prefer)
        self._reports.append(report)
        return report

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reports.pop().undo()

    def __call__(self, cls: Cls) -> Cls:
        accelerate(cls, self._x, self._t, prefer=self._prefer)
        return cls


def accelerated(target: Any = None, x: Any = None, t: Any = None, *, prefer: Report | None = None) -> Any:
    """Accelerate a target within a ``with`` block; or, as a decorator, a class from its definition on.

    Parameters
    ----------
    target : object, module, namespace, dict or list, optional
        As for `accelerate`. A class itself is decorated: within a block write it in a list.
    x, t : array_like, optional
        As for `accelerate`.
    prefer : Report, optional
        As for `accelerate`.

    Returns
    -------
    context manager or class
        Entered, it gives the `Report`; what it has swapped is taken back at the block's end. A class is returned
        itself.

    Raises
    ------
    TypeError, ValueError
        As `accelerate`.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> @fastbp.accelerated
    ... class SGD:
    ...     def __init__(self, lr=0.01):
    ...         self.lr = lr
    ...     def update(self, params, grads):
    ...         for key in params:
    ...             params[key] -= self.lr * grads[key]
    >>> params = {"W": np.ones(3)}
    >>> SGD(lr=0.5).update(params, {"W": np.ones(3)})
    >>> params
    {'W': array([0.5, 0.5, 0.5])}
    """
    made = Accelerated(target, x, t, prefer)
    return made(target) if isinstance(target, type) else made
