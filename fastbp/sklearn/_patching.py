"""scikit-learn's public names for ours, and back.

A. What is replaced are two attributes of the package `sklearn.neural_network`: code that asks that package for
   ``MLPClassifier`` gets ours from then on. The module that defines scikit-learn's own classes keeps them, since the
   pickle of an instance looks its class up there.
B. A name that was taken out of the package before (``from sklearn.neural_network import MLPClassifier``) is
   his own and stays what it was.
C. `patch` is a switch and `patched` a count of the blocks that are open; the names are ours while one of the two says
   so. So blocks may nest, and overlap in several threads, without one of them ending another.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from sklearn import neural_network

__all__ = ["patch", "patched", "unpatch"]

NAMES = ("MLPClassifier", "MLPRegressor")


class _Switch:
    """Whether the names are ours, and what they were before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.on = False
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


def _ours() -> dict[str, type]:
    from fastbp.sklearn import _estimators

    return {name: getattr(_estimators, name) for name in NAMES}


def patch() -> None:
    """Make `sklearn.neural_network.MLPClassifier` and `MLPRegressor` the classes of this package, until `unpatch`.

    Calling it again changes nothing.

    Notes
    -----
    It counts for the whole process, all of its threads included, and for nothing else: worker processes that are
    started afresh (joblib's) import scikit-learn as it is, while estimators that are sent to them stay what they are.

    Modules that have imported the names before keep scikit-learn's classes: call this first. Estimators that exist,
    and pickles of them, are not touched. ``isinstance(estimator, MLPClassifier)`` with scikit-learn's own class is true
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
    _SWITCH.set(on=True)


def unpatch() -> None:
    """Return scikit-learn its own classes back.

    Without a `patch` before it this changes nothing. Inside a block of `patched` it takes effect where the last block
    ends. A name that other code has replaced after `patch` is left alone.

    Examples
    --------
    >>> import fastbp.sklearn
    >>> fastbp.sklearn.unpatch()
    >>> from sklearn.neural_network import MLPClassifier
    >>> MLPClassifier is fastbp.sklearn.MLPClassifier
    False
    """
    _SWITCH.set(on=False)


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Have scikit-learn's names as `patch` makes them for the length of a ``with``.

    Blocks may nest. In several threads the names are ours until the last block has ended: for all threads, since a
    module has only one attribute of a name.

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
