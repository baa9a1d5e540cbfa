"""Put the package's estimators in the place of scikit-learn's, and undo it.

A. `patch` replaces two attributes of the package `sklearn.neural_network`: code that then asks it for
   ``MLPClassifier`` gets the class of this package. The module that defines scikit-learn's own classes keeps them,
   since the pickle of an instance looks its class up there.
B. A name that a module has imported before (``from sklearn.neural_network import MLPClassifier``) stays
   scikit-learn's class.
C. `patch` sets a switch, and `patched` counts the blocks that are open; the names are replaced while the switch is on
   or a block is open. So blocks may nest, and overlap in several threads, without one of them ending another.
D. A process that multiprocessing spawns, or a worker of joblib, begins with a pickle that its parent makes: the path,
   the arguments, the main program's file. ``patch(children=True)`` adds an object to it whose unpickling patches the
   child, before it imports the main program. Coverage.py reaches its children in this way.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing.spawn
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from joblib.externals.loky.backend import spawn as loky_spawn
from sklearn import neural_network

__all__ = ["patch", "patched", "unpatch"]

NAMES = ("MLPClassifier", "MLPRegressor")


class _Switch:
    """Whether the names are replaced, here and in children, and the classes that they had before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.on = self.children = False
        self.blocks = 0
        self.before: dict[str, type] = {}

    def set(self, *, on: bool | None = None, blocks: int = 0) -> None:
        with self.lock:
            self.on = self.on if on is None else on
            self.blocks += blocks
            if not (self.on or self.blocks):
                self._put_back()
            elif not self.before:
                self._replace()

    def _replace(self) -> None:
        ours = _ours()
        self.before = {name: getattr(neural_network, name) for name in NAMES}
        for name in NAMES:
            setattr(neural_network, name, ours[name])

    def _put_back(self) -> None:
        ours = _ours()
        for name, cls in self.before.items():
            if getattr(neural_network, name) is ours[name]:  # else other code has replaced it since
                setattr(neural_network, name, cls)
        self.before = {}


_SWITCH = _Switch()


class _PatchOfChild:
    """Its pickle patches the process that loads it, which has no path yet."""

    def __reduce__(self) -> tuple[Any, ...]:
        path = [str(place) for place in sys.path]
        code = f"import sys\nsys.path[:] = {path!r}\nfrom fastbp.sklearn import patch\npatch(children=True)"
        return exec, (code, {})


def _with_patch(preparation: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return the function that prepares a child, with the patch as the last thing that it sends."""

    @functools.wraps(preparation)
    def prepare(*args: Any, **kwargs: Any) -> dict[str, Any]:
        data = preparation(*args, **kwargs)
        return {**data, "fastbp": _PatchOfChild()} if _SWITCH.children else data

    return prepare


@functools.cache
def _reach_children() -> None:
    """Let both ways of starting a child, and the fork server, which uses the first, send the patch while it is on."""
    modules: tuple[Any, ...] = (multiprocessing.spawn, loky_spawn)
    for module in modules:
        module.get_preparation_data = _with_patch(module.get_preparation_data)


def _ours() -> dict[str, type]:
    from fastbp.sklearn import _estimators

    return {name: getattr(_estimators, name) for name in NAMES}


def patch(*, children: bool = False) -> None:
    """Make `sklearn.neural_network.MLPClassifier` and `MLPRegressor` the classes of this package, until `unpatch`.

    Calling it again changes nothing, but that it may add the children.

    Parameters
    ----------
    children : bool, default=False
        Patch the processes, too, that `multiprocessing`, `concurrent.futures` and joblib start from now on, and those
        that these start. Each of them then imports scikit-learn.

    Notes
    -----
    The patch holds for all threads of the process. A child that is a fork of it has the patch. Any other one, as by
    the start methods "spawn" and "forkserver" and in workers of joblib, imports scikit-learn without it, unless
    `children` is set; estimators that are sent to it keep their class. Workers that run already are not reached, nor
    programs that are started in other ways, such as by `subprocess`: run them by ``python -m fastbp.sklearn``.

    Modules that have imported the names before keep scikit-learn's classes: call `patch` first. Existing estimators
    and pickles of them do not change. ``isinstance(estimator, MLPClassifier)`` with scikit-learn's own class is true
    for estimators of either kind.

    References
    ----------
    Intel, "Extension for Scikit-learn", ``patch_sklearn``, whose use this follows.

    Examples
    --------
    >>> import fastbp.sklearn
    >>> fastbp.sklearn.patch()
    >>> from sklearn.neural_network import MLPClassifier
    >>> MLPClassifier is fastbp.sklearn.MLPClassifier
    True
    >>> fastbp.sklearn.unpatch()
    """
    if children:
        _reach_children()
        _SWITCH.children = True
    _SWITCH.set(on=True)


def unpatch() -> None:
    """Undo `patch`: scikit-learn's names are its own classes again, and children are started without the patch.

    Without a `patch` before, nothing changes. Inside a block of `patched` the names change where the last block ends. A
    name that other code has replaced after `patch` is left alone.

    Examples
    --------
    >>> import fastbp.sklearn
    >>> fastbp.sklearn.unpatch()
    >>> from sklearn.neural_network import MLPClassifier
    >>> MLPClassifier is fastbp.sklearn.MLPClassifier
    False
    """
    _SWITCH.children = False
    _SWITCH.set(on=False)


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Patch scikit-learn, as `patch` does, for the length of a ``with`` block.

    Blocks may nest. The names are replaced for all threads until the last block of any thread has ended, since a
    module has one attribute of a name.

    Examples
    --------
    >>> import fastbp.sklearn, sklearn.neural_network
    >>> with fastbp.sklearn.patched():
    ...     model = sklearn.neural_network.MLPRegressor()
    >>> isinstance(model, fastbp.sklearn.MLPRegressor)
    True
    """
    _SWITCH.set(blocks=1)
    try:
        yield
    finally:
        _SWITCH.set(blocks=-1)
