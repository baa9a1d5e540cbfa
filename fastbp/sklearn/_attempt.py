"""What a fit refuses changes nothing: an error before the first step restores the estimator.

A. scikit-learn's `fit` sets attributes while it checks, and the checks of the engine come after. So `unless_refused`
   records the attributes at the beginning of a call, and puts the record back where the call raises.
B. No attribute is changed in place before the first step, except a RandomState, whose position is recorded too. From
   the first step on the parameters have changed, so an error (of a callback, a scorer, a diverged fit) keeps them as
   they are after a whole step. lbfgs has no whole steps before its end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

__all__ = ["Attempt", "note_step", "noting_steps", "unless_refused"]


class Attempt:
    """One call of `fit` or `partial_fit`.

    Attributes
    ----------
    has_stepped : bool
        Whether the parameters have changed.
    """

    has_stepped = False


@contextlib.contextmanager
def unless_refused(est: Any) -> Iterator[None]:
    """Restore all attributes of an estimator where the block raises before a step of training."""
    before = vars(est).copy()
    if "_attempt" in before:  # a call within a call: the outer one restores
        yield
        return
    everyones = check_random_state(None)
    own = {id(one): one for one in before.values() if isinstance(one, np.random.RandomState) and one is not everyones}
    positions = [(one, one.get_state()) for one in own.values()]
    attempt = est._attempt = Attempt()
    try:
        yield
    except BaseException:
        if not attempt.has_stepped:
            for random_state, position in positions:
                random_state.set_state(position)
            est.__dict__ = before  # at once: a Ctrl-C finds all attributes, or all of those before
        raise
    finally:
        vars(est).pop("_attempt", None)


def note_step(est: Any) -> None:
    """Note that the parameters have changed: an error no longer restores them."""
    attempt: Attempt | None = vars(est).get("_attempt")
    if attempt is not None:
        attempt.has_stepped = True


@contextlib.contextmanager
def noting_steps(est: Any) -> Iterator[None]:
    """Note a step where scikit-learn's own loop, which writes into the parameters, raises after one."""
    arrays = [*est.coefs_, *est.intercepts_]
    before = [array.copy() for array in arrays]
    try:
        yield
    except BaseException:
        if not all(map(np.array_equal, arrays, before)):
            note_step(est)
        raise
