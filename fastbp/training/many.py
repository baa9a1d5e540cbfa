"""Many networks trained side by side, each in a thread of its own."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from fastbp._warnings import collected, warn
from fastbp.network import Network
from fastbp.optim import Optimizer, check_optimizer
from fastbp.optim._rates import Schedule
from fastbp.training._loop import Run, checked_run, train
from fastbp.training._parallel import Pool
from fastbp.training.callbacks import EarlyStopping, checked_callbacks
from fastbp.training.history import History

__all__ = ["fit_many"]

OF_ONE = ("checkpoint", "checkpoint_every", "resume", "progress")  # options of `train` that one network has


def fit_many(
    jobs: Iterable[tuple[Network, Any, Any, Optimizer]],
    *,
    epochs: int = 10,
    batch_size: int | None = None,
    **options: Any,
) -> list[History]:
    """Train several networks side by side, each with exactly the result of its own `train`.

    Each of the package's threads trains one network after another, so it pays for networks whose gradients are too
    small to be shared by threads: with an epoch of more than about 100 µs, as an epoch needs no Python. One large
    network uses all threads by itself.

    Parameters
    ----------
    jobs : iterable of (net, x, t, optimizer)
        As `train` takes them; t is None where x gives batches. Each network and each optimizer comes once; data may be
        shared.
    epochs : int
        At least 1; for each.
    batch_size : int, optional
        Rows of a batch, as of `train`.
    **options : object
        Other keywords of `train`, for each of them, but ``checkpoint``, ``checkpoint_every``, ``resume`` and
        ``progress``. ``early_stopping`` is copied for each. Callbacks are called from several threads, and get the
        network.

    Returns
    -------
    list of History
        In the order of the jobs.

    Raises
    ------
    TypeError, ValueError
        A network, an optimizer, or a schedule with a memory comes twice, or an argument is wrong. Nothing has been
        changed.
    KeyboardInterrupt
        After Ctrl-C has ended all of them, each after a whole step.

    Notes
    -----
    An exception in one training is raised after the others have ended, with a note that names the job.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> nets = [fastbp.MLP([1, 8, 1], hidden="tanh", loss="mse", dtype="float64", seed=i) for i in range(4)]
    >>> jobs = [(net, x, x**2, fastbp.Adam(lr=0.02)) for net in nets]
    >>> histories = fastbp.fit_many(jobs, epochs=50, batch_size=16)
    >>> len(histories), min(history.loss[-1] for history in histories) < 0.01
    (4, True)
    """
    given = [_checked_job(i, job) for i, job in enumerate(jobs)]
    _check_apart(given)
    for name in OF_ONE:
        if name in options:
            raise TypeError(f"{name} is an option of one network's training, expected none here: call fastbp.train")
    options |= {"epochs": epochs, "batch_size": batch_size}
    runs = []
    for i, job in enumerate(given):
        messages: list[str] = []
        with _noting(i), collected(messages):
            runs.append(_checked_run(job, options))
        _warn_of(i, messages)
    # --- checked
    said = [list[str]() for _ in runs]
    with Pool(len(runs), cancels_all=True).open() as pool:
        calls = [pool.submit(partial(_train, run, messages)) for run, messages in zip(runs, said, strict=True)]
        for call in calls:
            pool.wait(call)
    for call in calls:
        if isinstance(call.error, KeyboardInterrupt):
            raise call.error
    for i, messages in enumerate(said):
        _warn_of(i, messages)
    for i, call in enumerate(calls):
        with _noting(i):
            call.outcome()
    return [call.result for call in calls]


def _checked_job(i: int, job: Any) -> Sequence[Any]:
    if not isinstance(job, tuple | list) or len(job) != 4:
        raise TypeError(f"jobs[{i}] must be (net, x, t, optimizer), got {type(job).__name__}")
    check_optimizer(job[3])
    return job


def _check_apart(jobs: Sequence[Sequence[Any]]) -> None:
    """Raise where two trainings would change the same object."""
    cures = {"network": "net.copy()"} | {what: f"copy.deepcopy({what})" for what in ("optimizer", "schedule")}
    cures["iterator"] = "a list, or a function of the epoch"
    seen: dict[int, int] = {}
    for i, (net, x, _, optimizer) in enumerate(jobs):
        own = [("network", net), ("optimizer", optimizer)]
        rates = [one for rate in optimizer._schedules().values() for one in _with_following(rate)]
        own += [("schedule", one) for one in rates if one.get_state(net)]
        own += [("iterator", x)] if isinstance(x, Iterator) else []
        for what, thing in own:
            if (before := seen.setdefault(id(thing), i)) != i:
                raise ValueError(f"jobs[{before}] and jobs[{i}] have the same {what}: give each its own, {cures[what]}")


def _with_following(schedule: Schedule) -> Iterator[Schedule]:
    """Yield a schedule and those that it is made of, as `WarmUp` of the one that follows."""
    yield schedule
    for one in vars(schedule).values():
        if isinstance(one, Schedule):
            yield from _with_following(one)


def _checked_run(job: Sequence[Any], options: dict[str, Any]) -> Run:
    net, x, t, optimizer = job
    own = dict(options)
    if own.get("comm") is not None:
        raise ValueError("comm is for train: the jobs of fit_many end in any order, and ranks must make the same calls")
    if isinstance(stopping := own.get("early_stopping"), EarlyStopping):
        own["early_stopping"] = copy.copy(stopping)
    if "callbacks" in own:
        calls = checked_callbacks(own["callbacks"])
        own["callbacks"] = tuple(copy.copy(call) if isinstance(call, EarlyStopping) else call for call in calls)
    arguments = inspect.signature(train).bind(net, x, t, optimizer=optimizer, progress=False, **own)
    arguments.apply_defaults()
    return checked_run(**arguments.arguments)


def _warn_of(i: int, messages: list[str]) -> None:
    for message in messages:
        warn(f"jobs[{i}]: {message}")


def _train(run: Run, messages: list[str]) -> History:
    with collected(messages):
        return run.train()


@contextlib.contextmanager
def _noting(i: int) -> Iterator[None]:
    """Add to an error which job raised it."""
    try:
        yield
    except Exception as error:
        error.add_note(f"raised by jobs[{i}]")
        raise
