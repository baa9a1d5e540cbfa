"""What an interface is: which objects it knows, how the engine computes their methods, and how that is proved.

A. An interface is a module of this package with a list ``INTERFACES`` of instances of `Interface`.
B. `Interface.read` looks at one object and makes its `Counterpart`: by name the methods that the engine computes, with
   the object as their first argument. A method returns NotImplemented where the arguments are unusual; the original
   runs then. It must not change anything before it knows that.
C. `Interface.trials` says what the proof calls, on copies of the object.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastbp.dropin._chain import Left
from fastbp.dropin._kept import Kept

__all__ = ["Counterpart", "FunctionCounterpart", "Functions", "Interface", "Left", "Originals", "Space", "Trial"]

Array = np.ndarray[Any, np.dtype[Any]]
Originals = Mapping[
    str, Callable[..., Any]
]  # the methods as they were, by name: functions of the object and its arguments


class Trial(NamedTuple):
    """One call of a proof.

    Attributes
    ----------
    what : str
        What is special about it, for reasons.
    method : str
        What is called.
    args : tuple
        With what; copied for each side.
    values : sequence of ndarray, optional
        What the object's `Counterpart.arrays` are filled with before; None: as they are.
    attributes : dict, optional
        What is set on the object before.
    before : function, optional
        Called with the object before.
    """

    what: str
    method: str
    args: tuple[Any, ...]
    values: Sequence[Array] | None = None
    attributes: Mapping[str, Any] = {}
    before: Callable[[Any], object] | None = None

    def __str__(self) -> str:
        return f"{self.method}: {self.what}"


class Counterpart:
    """What the engine computes of one object of a program. It keeps no reference to the object itself.

    Attributes
    ----------
    what : str
        What the object is, as far as the proof depends on it: ``"784-100-10 float64"``.
    methods : dict of str to function
        Called with the object and the arguments of the method.
    kept : Kept or None
        The attributes that are computed when they are asked for.
    resting : int
        Above 0: the originals run.
    """

    what: str
    methods: Mapping[str, Callable[..., Any]]
    kept: Kept | None = None
    resting = 0

    def arrays(self, thing: Any) -> list[Array]:
        """Return the object's own parameters, as the proof fills and moves them."""
        raise NotImplementedError

    def looked_at(self, thing: Any) -> Mapping[str, Any]:
        """Return the objects whose attributes the proof compares, by a name for reasons."""
        return {"self": thing}

    def settled(self, result: Any) -> Any:
        """Return a result as the proof compares it: with everything that is computed when it is asked for."""
        return result

    def looked_at_in(self, args: tuple[Any, ...]) -> Mapping[str, Any]:
        """Return what the proof compares likewise of the arguments of a call."""
        return {}

    def ran(self, method: str) -> None:
        """Learn that the original has run: its attributes are those that it has set."""

    @contextlib.contextmanager
    def rest(self) -> Iterator[None]:
        """Let the originals run, in a block."""
        self.resting += 1
        try:
            yield
        finally:
            self.resting -= 1

    def call(
        self, thing: Any, method: str, original: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Compute a method by the engine, or else by the original."""
        if not self.resting:
            made = self.try_call(thing, method, args, options)
            if made is not NotImplemented:
                return made
        with self.rest():
            made = original(thing, *args, **options)
        if not self.resting:
            self.ran(method)
        return made

    def try_call(self, thing: Any, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Compute a method by the engine; NotImplemented where it is the original's to do."""
        if not self.lock.acquire(False):
            return NotImplemented  # the engine is at work in another thread
        try:
            return self.methods[method](thing, *args, **options)
        except Exception:  # the original has an exception of its own for such arguments, or takes them
            return NotImplemented
        finally:
            self.lock.release()

    @functools.cached_property
    def lock(self) -> threading.Lock:
        """What lets one call at a time into the engine."""
        return threading.Lock()


class FunctionCounterpart(Counterpart):
    """The engine's counterparts of some functions of a namespace: each is called with a `Space`, and its arguments."""

    def __init__(self, what: str, methods: Mapping[str, Callable[..., Any]]) -> None:
        self.what, self.methods = what, methods

    def arrays(self, thing: Any) -> list[Array]:
        return []

    def looked_at(self, thing: Any) -> Mapping[str, Any]:
        return {}


class Space:
    """A namespace with functions that are known.

    Attributes
    ----------
    names : dict
        The namespace's names and values, as they were.
    """

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.names = names

    def __deepcopy__(self, memo: object) -> Space:
        return self  # functions have no state


class Interface:
    """A kind of objects of other people's programs.

    Attributes
    ----------
    name : str
        Of the book, the course or the package.
    methods : tuple of str
        What is swapped, the most important one first.
    at_first_call : bool
        Whether an object can be read only when it is called, since its arguments are needed.
    has_state : bool
        Whether a result depends on the calls before.
    prints : bool
        Whether the original prints: numbers that are printed are compared then, and a proof shows nothing of it.
    draws : bool
        Whether `read` may draw random numbers, whose state is kept then; that takes as long as a small layer's pass.
    refuses : str
        Why all of the kind is left alone, which the report says; "" where it is not.
    """

    name: ClassVar[str]
    methods: ClassVar[tuple[str, ...]]
    at_first_call: ClassVar[bool] = False
    has_state: ClassVar[bool] = True
    prints: ClassVar[bool] = False
    draws: ClassVar[bool] = True
    refuses: ClassVar[str] = ""

    def looks_for(self) -> str:
        """Return what `knows_class` looks for, in words."""
        raise NotImplementedError

    def knows_class(self, cls: type) -> bool:
        """Whether instances of a class may be of this kind, as far as the class shows it."""
        raise NotImplementedError

    def knows(self, thing: Any) -> bool:
        """Whether an object of such a class is of this kind.

        Parameters
        ----------
        thing : object
            An instance.

        Returns
        -------
        bool
            As far as its attributes show it.
        """
        return True

    def needs_call(self, thing: Any) -> bool:
        """Whether an object of the kind can be read only with arguments: those of a call, or the user's x.

        Parameters
        ----------
        thing : object
            One that `knows` knows.

        Returns
        -------
        bool
            Where the sizes of images are not to be seen, for instance.
        """
        return False

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> Counterpart:
        """Return the counterpart of an object, or raise `Left` with the reason why there is none.

        Parameters
        ----------
        thing : object
            It must not be changed.
        originals : dict of str to function
            The methods as they were.
        args : tuple or None
            Of the first call, where there was one, or the user's x and t.
        """
        raise NotImplementedError

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterable[Trial]:
        """Return what the proof calls.

        Parameters
        ----------
        thing, counterpart : object
            A copy of the object, and its counterpart.
        rng : Generator
            Of the arguments.
        data : sequence
            The user's own x and t, where they were given.
        """
        raise NotImplementedError

    def timed(
        self,
        thing: Any,
        counterpart: Counterpart,
        rng: np.random.Generator,
        data: Sequence[Any],
        args: tuple[Any, ...] | None,
    ) -> Mapping[str, tuple[Any, ...]]:
        """Return the arguments with which each method is timed: the user's own, those of the first call, or others.

        The default is for a single method that is looked at when it is called first: with what it was called.

        Parameters
        ----------
        thing, counterpart : object
            A copy of the object, and its counterpart.
        rng : Generator
            Of other arguments.
        data : sequence
            The user's own x and t, where they were given.
        args : tuple or None
            Of the first call, where there was one.

        Returns
        -------
        dict of str to tuple
            By the name of each method.
        """
        (method,) = self.methods
        return {method: args or ()}

    def parts(self, thing: Any) -> Sequence[Any]:
        """Return other objects that belong to one, and are looked at with it: its optimizer.

        Parameters
        ----------
        thing : object
            One that `knows` knows.

        Returns
        -------
        sequence of object
            Those that no interface knows are left out.
        """
        return ()

    def before(self, thing: Any, method: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]] | None:
        """Return the method to call before one is timed, and its arguments: a backward pass needs a forward pass.

        Parameters
        ----------
        thing : object
            A copy.
        method : str
            What is timed.
        args : tuple
            With what.

        Returns
        -------
        (str, tuple) or None
            None where nothing is called before.
        """
        return None

    def unsettle(self, thing: Any, rng: np.random.Generator) -> None:
        """Let a copy move numbers in between by a few eps, where sums that follow may cancel all their other digits.

        Parameters
        ----------
        thing : object
            The copy.
        rng : Generator
            Of the signs.
        """

    def casts(self, thing: Any, counterpart: Counterpart) -> bool:
        """Whether a float32 object is proved in float64, too: a small constant is seen there.

        Parameters
        ----------
        thing, counterpart : object
            The object and its counterpart.

        Returns
        -------
        bool
            Not where the program names its dtype.
        """
        return True


class Functions(Interface):
    """A kind of functions in a module, a namespace or a dict; ``methods`` are their names.

    `read` gets a `Space`, and returns a `FunctionCounterpart`. `trials` and `timed` are as for objects. With
    `at_first_call` it also gets the arguments of each call, with the defaults of those that are missing; what the
    counterpart says that it is decides whether such a call was proved before.

    Attributes
    ----------
    depends_on : sequence of str
        Other functions of the namespace on which a proof depends, though these do not call them: what makes the cache
        that they read. Where one is replaced, the proof is made once more.
    """

    has_state: ClassVar[bool] = False
    depends_on: Sequence[str] = ()

    def knows_class(self, cls: type) -> bool:
        return False

    def knows_space(self, names: Mapping[str, Any]) -> bool:
        """Whether a namespace has all the functions.

        Parameters
        ----------
        names : dict
            Its names and values.

        Returns
        -------
        bool
            Plain functions alone count.
        """
        return all(isinstance(names.get(name), types.FunctionType) for name in self.methods)
