"""One after another: who may wait for whom."""

from __future__ import annotations

import os
import threading

__all__ = ["Turns"]


class Turns:
    """Lets callers in one after another: predictions of a network whose units, in Python, remember what they have seen.

    A caller that is in already would wait for itself, and gets a RuntimeError. A fork's child begins anew: the thread
    that was in is not there any more.
    """

    def __init__(self) -> None:
        self._process, self._lock, self._inside = os.getpid(), threading.Lock(), 0

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self._process, self._lock, self._inside = os.getpid(), threading.Lock(), 0
        if self._inside == threading.get_ident():
            raise RuntimeError("a unit of this network asks the network for a prediction while it makes one")
        self._lock.acquire()
        self._inside = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._inside = 0
        self._lock.release()
