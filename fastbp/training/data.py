"""What `train` takes its batches from: arrays, or whatever gives batches; and the rows kept for validation.

A. A source gives *pieces*: neighbouring batches of one epoch that the engine goes through in one call. Cutting an epoch
   into pieces changes no bit of what comes out, so a piece may end wherever the caller wants to look: after a second,
   after every batch, at a checkpoint.
B. Arrays are never copied whole: the engine gathers the rows of each batch. A memory-mapped file may be larger than the
   memory.
C. What comes from an iterator is checked batch by batch, each before its step.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import _validate as check
from fastbp._core.graph import input_readers
from fastbp._frozen import Record
from fastbp._validate import FloatArray
from fastbp._warnings import warn
from fastbp.losses import Loss, LossSum
from fastbp.network import Network
from fastbp.random import Philox, stream_number
from fastbp.units import Conv1d, Conv2d, Linear

__all__ = ["BatchIterator", "Piece", "Rows", "Source", "class_weights", "validation_rows"]

Array = NDArray[Any]
Batch = tuple[FloatArray, Array, FloatArray | None]  # x, t, weights


class Piece:
    """Neighbouring batches of an epoch: rows of x in `order`, or as they lie.

    Parameters
    ----------
    x : ndarray of the network's dtype, shape (n, in)
        The rows.
    t : ndarray
        Their targets.
    weight : ndarray, shape (n,), or None
        Their weights; None: 1 each.
    order : ndarray of int64, or None
        The numbers of the rows of all batches, in x; None: all rows as they lie.
    batch_size : int
        Rows of a batch; the last one may have fewer.
    accumulate : int
        Batches to a step.
    taken : int, optional
        Batches of a stream that the piece was made of, if not those of ``batch_size``.
    """

    __slots__ = ("accumulate", "batch_size", "order", "t", "taken", "weight", "x")

    def __init__(
        self,
        x: FloatArray,
        t: Array,
        weight: FloatArray | None,
        order: NDArray[np.int64] | None,
        batch_size: int,
        accumulate: int = 1,
        taken: int | None = None,
    ) -> None:
        self.x, self.t, self.weight, self.order = x, t, weight, order
        self.batch_size = batch_size
        self.accumulate = accumulate  # batches to a step
        self.taken = taken  # batches of an iterator that it was made of, if not those of batch_size

    @property
    def rows(self) -> int:
        """How many rows there are in all batches."""
        return len(self.x) if self.order is None else len(self.order)

    @property
    def count(self) -> int:
        """How many batches there are."""
        return -(-self.rows // self.batch_size) if self.taken is None else self.taken

    @property
    def steps(self) -> int:
        """How many steps there are, if no batch is without weight."""
        return -(-self.rows // (self.batch_size * self.accumulate))

    def groups(self) -> Iterator[list[Batch]]:
        """Yield the batches of each step.

        Yields
        ------
        list of (x, t, weight)
            As `batches` yields them.
        """
        batches = self.batches()
        while group := list(itertools.islice(batches, self.accumulate)):
            yield group

    def batches(self) -> Iterator[Batch]:
        """Yield the batches one by one.

        Yields
        ------
        x : ndarray, shape (rows, in)
            The rows.
        t : ndarray
            Their targets.
        weight : ndarray, shape (rows,), or None
            Their weights.
        """
        for first in range(0, self.rows, self.batch_size):
            place = slice(first, first + self.batch_size)
            rows: Any = place if self.order is None else self.order[place]
            yield self.x[rows], self.t[rows], None if self.weight is None else self.weight[rows]

    def steps_of(self, made: int, net: Network) -> int:
        """Return how many batches are gone through when so many steps have been made.

        Parameters
        ----------
        made : int
            The number of steps made.
        net : Network
            The network, whose loss decides which rows count.

        Returns
        -------
        int
            More than ``made * accumulate`` where a batch without weight makes no step.
        """
        if self.taken is not None:
            return self.taken if made else 0
        if self.weight is None and not net._inputs.counts_labels:
            return min(made * self.accumulate, self.count)
        gone = 0
        for group in self.groups():
            weights = [weight for _, _, weight in group if weight is not None]
            t = np.concatenate([t for _, t, _ in group])
            makes_step = has_mean(net._inputs.row_counts(t, np.concatenate(weights) if weights else None))
            if makes_step and made == 0:
                break
            made -= makes_step
            gone += len(group)
        return gone


def share_of(rows: int, weight: FloatArray | None) -> float:
    """Return the sum of a batch's weights, added one after another as the engine does."""
    return float(rows) if weight is None else float(np.add.accumulate(weight, dtype=np.float64)[-1])


def has_mean(weight: FloatArray | None) -> bool:
    """Whether a batch makes a step: beneath the normal numbers the reciprocal of its weight is inf."""
    return weight is None or ((share := share_of(0, weight)) > 0 and 1 / share < math.inf)


class Source(Protocol):
    """What gives the batches of a training."""

    @property
    def ended(self) -> bool:
        """Whether it is known that the epoch has no more batches."""

    def begin(self, epoch: int, first: int) -> None:
        """Begin an epoch.

        Parameters
        ----------
        epoch : int
            Its number, from 0.
        first : int
            The batch to begin with: not 0 in a run that is resumed.
        """

    def piece(self, count: int | None) -> Piece | None:
        """Return the next batches of an epoch that has not ended.

        Parameters
        ----------
        count : int or None
            At most so many batches; None: as many as there are.

        Returns
        -------
        Piece or None
            None where the epoch ends here.
        """


class Rows:
    """Batches of arrays' rows, all of them or some.

    Parameters
    ----------
    x : ndarray of the network's dtype, shape (n, in)
        The rows; they are not copied.
    t : ndarray
        Their targets.
    weight : ndarray, shape (n,), or None
        Their weights; None: 1 each.
    batch_size : int
        Rows of a batch; the last one may have fewer.
    seed : int or None
        The seed of the shuffles; None: the rows stay in their order.
    subset : ndarray of int64, optional
        The numbers of the rows that are used; None: all.
    """

    def __init__(
        self,
        x: FloatArray,
        t: Array,
        weight: FloatArray | None,
        *,
        batch_size: int,
        seed: int | None,
        subset: NDArray[np.int64] | None = None,
    ) -> None:
        self.x, self.t, self.weight = x, t, weight
        self.batch_size = batch_size
        self.seed = seed  # of the shuffles; None: no shuffles
        self.subset = subset
        self.count = len(x) if subset is None else len(subset)
        self.order: NDArray[np.int64] | None = subset
        self.accumulate = 1
        self._buffer = np.empty(self.count, np.int64) if seed is not None else None
        self._next = 0

    @property
    def here(self) -> int:
        """How many rows this process has: other ranks may have more."""
        return self.count

    @property
    def batches(self) -> int:
        """How many batches an epoch has."""
        return -(-self.count // self.batch_size)

    @property
    def ended(self) -> bool:
        """Whether all batches have been given."""
        return self._next == self.batches

    def begin(self, epoch: int, first: int) -> None:
        """Draw the order of an epoch.

        Parameters
        ----------
        epoch : int
            Its number, from 0.
        first : int
            The batch to begin with: not 0 in a run that is resumed.
        """
        self._next = first
        if self._buffer is None:
            return
        assert self.seed is not None
        Philox(self.seed, stream_number("shuffle", epoch)).permutation(self.count, out=self._buffer)
        self.order = self._buffer if self.subset is None else self.subset[self._buffer]

    def piece(self, count: int | None) -> Piece:
        """Return the next batches.

        Parameters
        ----------
        count : int or None
            At most so many batches; None: as many as there are.

        Returns
        -------
        Piece
            Whole steps, but for the last one of the epoch.
        """
        left = self.batches - self._next
        wanted = left
        if count is not None and count < left:
            wanted = min(left, max(1, count // self.accumulate) * self.accumulate)  # whole steps
        place = self._place(self._next, wanted)
        self._next += wanted
        x, t, weight = self.x, self.t, self.weight
        if self.order is not None:
            return Piece(x, t, weight, self.order[place], self.batch_size, self.accumulate)
        weight = None if weight is None else weight[place]
        return Piece(x[place], t[place], weight, None, self.batch_size, self.accumulate)

    def _place(self, batch: int, count: int) -> slice:
        return slice(batch * self.batch_size, (batch + count) * self.batch_size)

    def rows_until(self, batch: int) -> int:
        """Return how many rows the first batches of an epoch have.

        Parameters
        ----------
        batch : int
            How many batches.

        Returns
        -------
        int
            At most all rows: the last batch may have fewer.
        """
        return min(batch * self.batch_size, self.count)

    def not_finite(self, batch: int, count: int) -> str | None:
        """Return the first value of x or t in some batches of the epoch that is not finite, as a message shows it.

        Parameters
        ----------
        batch : int
            The first batch, from 0.
        count : int
            How many.

        Returns
        -------
        str or None
            None where all are finite.
        """
        place = self._place(batch, count)
        rows = np.arange(len(self.x))[place] if self.order is None else self.order[place]
        for name, array in (("x", self.x), ("t", self.t)):
            if (found := _first_not_finite(array[rows])) is not None:
                at = (int(rows[found[0]]), *found[1:])
                return f"{name}[{', '.join(map(str, at))}] is {array[at]}"
        return None

    def settings(self) -> dict[str, Any]:
        """Return the settings that must be the same in a run that is resumed.

        Returns
        -------
        dict of str to object
            By the names that an error message shows.
        """
        return {
            "rows of x": len(self.x),
            "rows for training": self.count,
            "batch_size": self.batch_size,
            "shuffle": self.seed is not None,
            "weights": self.weight is not None,
        }


class BatchIterator:
    """Batches from an iterator, from something that can be iterated over anew, or from a function of the epoch.

    Parameters
    ----------
    net : Network
        The network, which checks each batch.
    batches : iterable, or callable of the epoch
        Gives (x, t) or (x, t, sample_weight).
    steps_per_epoch : int or None
        Batches of an epoch; None: until the iterator ends.
    by_class : ndarray, shape (classes,), optional
        A factor for the weights of each class.
    """

    def __init__(
        self, net: Network, batches: Any, steps_per_epoch: int | None, by_class: FloatArray | None = None
    ) -> None:
        self.net, self.given = net, batches
        self.steps_per_epoch = steps_per_epoch
        self.accumulate = 1
        self.by_class = by_class
        self._one_pass = isinstance(batches, Iterator)
        self._begun, self._is_first = False, True
        self._batches: Iterator[Any] = iter(())
        self._epoch, self._next = 0, 0

    @property
    def ended(self) -> bool:
        """Whether ``steps_per_epoch`` have been given: an iterator's own end is known only when it comes."""
        return self._next == self.steps_per_epoch

    def begin(self, epoch: int, first: int) -> None:
        """Open the iterator of an epoch, and leave out the batches before the first.

        Parameters
        ----------
        epoch : int
            Its number, from 0.
        first : int
            The batch to begin with: not 0 in a run that is resumed.

        Raises
        ------
        ValueError
            There are fewer batches than are to be left out.
        """
        skipped = first
        if self._one_pass:
            skipped = 0 if self._begun else first + epoch * (self.steps_per_epoch or 0)
            self._batches = self.given
        else:
            self._batches = self._open(epoch)
        self._begun = True
        self._epoch, self._next = epoch, first
        gone = sum(1 for _ in itertools.islice(self._batches, skipped))
        if gone < skipped:
            raise ValueError(f"batches end after {gone}, but the run to be resumed had gone through {skipped}")

    def settings(self) -> dict[str, Any]:
        """Return the settings that must be the same in a run that is resumed.

        Returns
        -------
        dict of str to object
            By the names that an error message shows.
        """
        return {"steps_per_epoch": self.steps_per_epoch, "class_weight": self.by_class is not None}

    def _open(self, epoch: int) -> Iterator[Any]:
        given = self.given(epoch) if callable(self.given) else self.given
        if not isinstance(given, Iterable):
            raise TypeError(f"what the function gave for epoch {epoch} is no iterable of batches: {given!r}")
        return iter(given)

    def piece(self, count: int | None) -> Piece | None:
        """Return the next batch, or those of the next step, checked.

        Parameters
        ----------
        count : int or None
            At most so many batches; None: as many as there are.

        Returns
        -------
        Piece or None
            None where the epoch ends here.

        Raises
        ------
        TypeError, ValueError
            A batch is wrong, or there are fewer than ``steps_per_epoch``.
        """
        found: list[Batch] = []
        while len(found) < self.accumulate and not self.ended:
            try:
                batch = next(self._batches)
            except StopIteration:
                self._check_end()
                break
            name = f"batch {self._next + 1} of epoch {self._epoch + 1}"
            self._next += 1
            found.append(self._checked(name, batch))
        if not found:
            return None
        x, t, weight = self._last = found[0] if len(found) == 1 else _joined(found)
        if self._is_first:
            self._is_first = False
            warn_of_unscaled(self.net, x)
        return Piece(x, t, weight, None, max(len(x) for x, *_ in found), self.accumulate, len(found))

    def not_finite(self, batch: int, count: int) -> str | None:
        """Return the first value of x or t in the last piece that is not finite, as a message shows it.

        Parameters
        ----------
        batch : int
            As in `Rows.not_finite`.
        count : int
            As in `Rows.not_finite`.

        Returns
        -------
        str or None
            None where all are finite.
        """
        of = "of it" if self.accumulate == 1 else "of the rows of its step"
        x, t, _ = self._last
        for name, array in (("x", x), ("t", t)):
            if (found := _first_not_finite(array)) is not None:
                return f"{name}{list(found)} {of} is {array[found]}"
        return None

    def _check_end(self) -> None:
        if self.steps_per_epoch is not None:
            raise ValueError(
                f"batches ended after {self._next} of {self.steps_per_epoch} batches of epoch {self._epoch + 1}, which "
                "steps_per_epoch asks for"
            )
        if self._next == 0:
            again = "" if self._epoch == 0 else ": give a list, or a function of the epoch that gives a new iterator"
            raise ValueError(f"batches gave no batch in epoch {self._epoch + 1}{again}")

    def _checked(self, name: str, batch: Any) -> Batch:
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            came = type(batch).__name__ + (f" of {len(batch)}" if isinstance(batch, tuple | list) else "")
            raise TypeError(f"{name} must be (x, t) or (x, t, sample_weight), got {came}")
        x, t, weight = batch if len(batch) == 3 else (*batch, None)
        x = self.net._inputs.checked_x(x, f"x of {name}")
        if len(x) == 0:
            raise ValueError(f"x of {name} has shape {x.shape}: a batch needs at least one row")
        t = checked_targets(self.net, t, len(x), f"t of {name}")
        weight = check.sample_weights(weight, len(x), self.net.dtype, f"sample_weight of {name}")
        if self.by_class is not None:
            weight = _times(weight, _factors(self.net, t, self.by_class, f"t of {name}"))
        return x, t, None if weight is None else np.ascontiguousarray(weight)


def _first_not_finite(values: Array) -> tuple[int, ...] | None:
    """Return the place of the first element that is infinite or NaN."""
    found = np.argwhere(~np.isfinite(values))
    return tuple(map(int, found[0])) if len(found) else None


def _joined(batches: list[Batch]) -> Batch:
    """Batches one under another."""
    xs, ts, weights = zip(*batches, strict=True)
    if all(weight is None for weight in weights):
        return np.concatenate(xs), np.concatenate(ts), None
    given = [np.ones(len(x), x.dtype) if w is None else w for x, w in zip(xs, weights, strict=True)]
    return np.concatenate(xs), np.concatenate(ts), np.concatenate(given)


def is_iterator(x: Any, t: Any) -> bool:
    """Whether these are batches, and not arrays."""
    return t is None and not isinstance(x, np.ndarray) and (callable(x) or isinstance(x, Iterable | Sequence))


# ---- targets and weights ---------------------------------------------------------------------------------------------


def checked_targets(net: Network, t: Any, rows: int, name: str = "t") -> Array:
    """Targets as the engine takes them for a whole epoch; for a Python loss, an array with a target for each row."""
    if net._inputs.checks_targets:
        targets = np.ascontiguousarray(net._inputs.checked_targets(t, rows, name))
        # Checked labels stay as they are, whatever a callback writes into the caller's: kernels take them for indices.
        return targets.copy() if targets.ndim == 1 else targets
    targets = np.asarray(t)
    if targets.ndim == 0 or targets.shape[0] != rows:
        raise ValueError(f"{name} has shape {targets.shape}, expected {rows} rows, as x has")
    return targets


def class_labels(net: Network, t: Array, name: str = "t") -> Array:
    """Return the labels in checked targets: those of the classes, or 0 and 1 where there is one output.

    Labels that the loss ignores are among them; `counted_labels` tells which.
    """
    if t.ndim == 1 and t.dtype.kind in "iu":
        return t
    t = yes_or_no(net, t)
    if t.ndim == 2 and t.shape[1] == 1 and ((t == 0) | (t == 1)).all():
        return t[:, 0].astype(np.int64)
    raise ValueError(f"class_weight needs labels, but {name} holds rows of shape {t.shape}: use sample_weight")


def yes_or_no(net: Network, t: Array) -> Array:
    """Return checked targets with 0 for each no of a loss that takes -1 as well, as `predict` returns it."""
    return (t > 0).astype(t.dtype) if t.ndim == 2 and _takes_signs(net) else t


def _takes_signs(net: Network) -> bool:
    return any(loss.rule.targets == "signs" for _, loss in net._inputs.losses or ())


def _classes_of(net: Network, given: Any) -> Any:
    """Return class weights with class 0 for -1, where both are names of a no."""
    if not (isinstance(given, Mapping) and -1 in given and net.n_out == 1 and _takes_signs(net)):
        return given
    if 0 in given:
        raise ValueError("class_weight has weights for -1 and for 0, which are the same class: give one of them")
    return {0 if label == -1 else label: weight for label, weight in given.items()}


def counted_labels(net: Network, t: Array) -> NDArray[np.bool_] | None:
    """Return which rows of checked targets the loss does not ignore; None: all of them."""
    ignored = _ignored(net.loss) if t.ndim == 1 else set()
    return ~np.isin(t, list(ignored)) if ignored else None


def _ignored(loss: Loss) -> set[int]:
    """Return the labels that no part of a loss looks at."""
    if isinstance(loss, LossSum):
        return set.intersection(*(_ignored(part) for _, part in loss.losses))
    ignored = getattr(loss, "ignore_index", None)
    return set() if ignored is None else {ignored}


def class_weights(given: str | Mapping[int, float] | ArrayLike, t: Array, classes: int) -> FloatArray:
    """Return the weight of each class.

    Parameters
    ----------
    given : "balanced", dict of int to float, or array_like of shape (classes,)
        "balanced": n / (K · count) for n rows of K classes that occur, so that each class weighs the same. In a dict,
        classes that are not named weigh 1.
    t : ndarray of integers, shape (n,)
        The labels.
    classes : int
        How many there are.

    Returns
    -------
    ndarray of float64, shape (classes,)
        A fresh array.

    Raises
    ------
    TypeError, ValueError
        A weight is negative or no finite number, there is no such class, a class of the dict is not in t, or t holds
        something else than labels: rows that a loss ignores must be left out.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.training.data import class_weights
    >>> class_weights("balanced", np.array([0, 0, 0, 1]), 2)
    array([0.66666667, 2.        ])
    >>> class_weights({1: 5}, np.array([0, 0, 0, 1]), 2)
    array([1., 5.])
    """
    t = check.targets("labels", np.asarray(t).ravel(), np.size(t), classes, check.FLOAT64)
    counts = np.bincount(t, minlength=classes)
    if isinstance(given, str):
        check.choice("class_weight", given, ("balanced",))
        return np.where(counts > 0, len(t) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 1.0)
    table = weights_by_class(given, classes)
    for label in given if isinstance(given, Mapping) else ():
        if counts[label] == 0:
            raise ValueError(f"class_weight has class {label}, which is not among the targets")
    return table


def weights_by_class(given: Any, classes: int) -> FloatArray:
    """Return the weights of a dict or an array, whatever the targets."""
    if isinstance(given, Mapping):
        table = np.ones(classes)
        for label, weight in given.items():
            number = check.integer("a class in class_weight", label, 0)
            if number >= classes:
                raise ValueError(f"class_weight has class {number}, but the classes are 0 to {classes - 1}")
            table[number] = check.real(f"class_weight[{number}]", weight, at_least=0.0)
        return table
    if isinstance(given, str) or not isinstance(given, np.ndarray | Sequence):
        raise TypeError(f'class_weight must be "balanced", a dict or an array, got {given!r}')
    if len(given) != classes:
        raise ValueError(f"class_weight has {len(given)} entries, expected {classes}: one for each class")
    return np.array([check.real(f"class_weight[{i}]", weight, at_least=0.0) for i, weight in enumerate(given)])


def class_count(net: Network) -> int:
    """How many classes a network's labels have: two where it has one output."""
    if net.n_out is None:
        raise ValueError("class_weight needs a network whose number of outputs is known: use sample_weight")
    return max(2, net.n_out)


def _times(weight: FloatArray | None, factor: FloatArray) -> FloatArray:
    return factor if weight is None else factor.astype(weight.dtype) * weight


def weighted_by_class(net: Network, given: Any, t: Array, weight: FloatArray | None, rows: Any) -> FloatArray:
    """Return the weights of all rows, where `given` counts the classes of these rows, but of those that are ignored."""
    labels, counted = class_labels(net, t)[rows], counted_labels(net, t)
    labels = labels if counted is None else labels[counted[rows]]
    table = class_weights(_classes_of(net, given), labels, class_count(net))
    return _times(weight, _factors(net, t, table.astype(net.dtype)))


def _factors(net: Network, t: Array, table: FloatArray, name: str = "t") -> FloatArray:
    """Return the weight of each row by its label; 0 for an ignored one."""
    labels, counted = class_labels(net, t, name), counted_labels(net, t)
    if counted is None:
        return table[labels]
    return np.where(counted, table[np.where(counted, labels, 0)], table.dtype.type(0))


# ---- validation ------------------------------------------------------------------------------------------------------


def validation_rows(
    n: int, fraction: float, seed: int, labels: ArrayLike | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the rows that `train` keeps for validation.

    The rows are gone through in the order ``Philox(seed, stream_number("validation", 0)).permutation(n)``; the first
    m = round(fraction · n) of them are kept, at least 1 and at most n − 1. With labels each class has its share of the
    m: the first ⌊m · count / n⌋ of its rows, and one more in the classes with the largest remainders (of equal ones the
    first) until there are m.

    Parameters
    ----------
    n : int
        How many rows there are, at least 2.
    fraction : float
        In (0, 1).
    seed : int
        That of the training.
    labels : array_like of integers, shape (n,), optional
        The classes to be represented alike.

    Returns
    -------
    training, validation : ndarray of int64
        The numbers of the rows, ascending.

    Raises
    ------
    ValueError
        There are fewer than two rows, or the fraction is out of range.

    Examples
    --------
    >>> from fastbp.training.data import validation_rows
    >>> training, validation = validation_rows(10, 0.2, seed=0, labels=[0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    >>> validation
    array([3, 8])
    >>> len(training)
    8
    """
    fraction = check.real("fraction", fraction, above=0.0, below=1.0)
    if n < 2:
        raise ValueError(f"a validation set needs at least two rows, one of them for training, got {n}")
    order = Philox(seed, stream_number("validation", 0)).permutation(n)
    wanted = min(max(1, round(fraction * n)), n - 1)
    chosen = np.zeros(n, bool)
    chosen[order[:wanted] if labels is None else _stratified(order, np.asarray(labels), wanted)] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _stratified(order: NDArray[np.int64], labels: Array, wanted: int) -> NDArray[np.int64]:
    """The first rows of each class, as many as are its share of those wanted."""
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    share, remainder = np.divmod(wanted * counts, len(labels))
    share[np.argsort(-remainder, kind="stable")[: wanted - share.sum()]] += 1
    in_order = which[order]
    return np.concatenate([order[in_order == k][:rows] for k, rows in enumerate(share)])


class Validation(Record):
    """What is evaluated after each epoch."""

    x: FloatArray
    t: Any
    weight: FloatArray | None

    def loss(self, net: Network) -> float:
        """Return the mean loss, computed some rows at a time: the buffers for all of them may not fit."""
        if len(self.x) <= VALIDATED:
            return net.loss_value(self.x, self.t, sample_weight=self.weight)
        if net._inputs.counts_apart:
            loss, _ = net.loss.value_and_grad(self._outputs(net), self.t, sample_weight=self.weight)
            return net._with_penalty(float(loss))
        total = weights = 0.0
        for first in range(0, len(self.x), VALIDATED):
            place = slice(first, first + VALIDATED)
            weight = None if self.weight is None else self.weight[place]
            counts = net._inputs.row_counts(self.t[place], weight)
            if has_mean(counts):
                share = share_of(len(self.x[place]), counts)
                total += share * net.loss_value(self.x[place], self.t[place], sample_weight=weight)
                weights += share
        return total / weights

    def _outputs(self, net: Network) -> FloatArray:
        return np.concatenate([net.outputs(self.x[i : i + VALIDATED]) for i in range(0, len(self.x), VALIDATED)])


VALIDATED = 2**15


def checked_validation(net: Network, data: Any, of_many: bool = False) -> Validation | None:
    """Return the data of `train`'s argument ``validation_data``; `of_many`: other ranks have more of them."""
    if data is None:
        return None
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise TypeError(f"validation_data must be (x, t) or (x, t, sample_weight), got {type(data).__name__}")
    x, t, weight = data if len(data) == 3 else (*data, None)
    x = net._inputs.checked_x(x, "validation_data[0]")
    if x.shape[0] == 0 and not of_many:
        raise ValueError(f"validation_data[0] has shape {x.shape}: there must be at least one row")
    if net._inputs.checks_targets:
        t = net._inputs.checked_targets(t, x.shape[0], "validation_data[1]")
    weight = check.sample_weights(weight, x.shape[0], net.dtype, "validation_data[2]")
    if not of_many:
        _check_mean(net, t, weight, "validation_data")
    return Validation(x, t, weight)


# ---- what `train` is given -------------------------------------------------------------------------------------------


class Split(Record):
    """Where the validation data come from."""

    data: Any
    fraction: Any
    stratify: Any


def refuse_for_batches(weight: Any, by_class: Any, split: Split, train_metrics: Any) -> None:
    """Raise for what only arrays can have."""
    refused = {
        "sample_weight": (weight is not None, "batches may be (x, t, sample_weight)"),
        "class_weight='balanced'": (isinstance(by_class, str), "the classes are not counted before: give a dict"),
        "validation_fraction": (split.fraction != 0.0, "give validation_data"),
        "stratify": (split.stratify is not None, "give validation_data"),
        "train_metrics": (bool(train_metrics), "the batches are gone by then"),
    }
    for name, (given, hint) in refused.items():
        if given:
            raise ValueError(f"{name} needs arrays x and t, and x gives batches: {hint}")


def checked_iterator(
    net: Network, x: Any, steps: Any, epochs: int, by_class: Any, split: Split
) -> tuple[BatchIterator, Validation | None]:
    """Return the source of batches that x gives, and the data for validation."""
    if steps is not None:
        steps = check.integer("steps_per_epoch", steps)
    elif isinstance(x, Iterator) and epochs > 1:
        raise ValueError(
            f"an iterator can be gone through once, but epochs is {epochs}: give epochs=1, steps_per_epoch, a list, or "
            "a function of the epoch that gives a new iterator"
        )
    table = None
    if by_class is not None:
        table = weights_by_class(_classes_of(net, by_class), class_count(net)).astype(net.dtype)
    return BatchIterator(net, x, steps, table), checked_validation(net, split.data)


def checked_rows(
    net: Network,
    x: Any,
    t: Any,
    weight: Any,
    by_class: Any,
    split: Split,
    batch_size: int | None,
    seed: int,
    order_seed: int | None,
    of_many: bool = False,
) -> tuple[Rows, Validation | None]:
    """Return the rows of arrays to train on, and those for validation; `of_many`: other ranks have more of them."""
    x = net._inputs.checked_x(x)
    if x.shape[0] == 0 and not of_many:
        raise ValueError(f"x has shape {x.shape}: there must be at least one row to train on")
    t = checked_targets(net, t, x.shape[0])
    weight = check.sample_weights(weight, x.shape[0], net.dtype)
    if not of_many:
        _check_mean(net, t, weight, "all rows")
    subset, kept = _split(net, x, t, split, seed, of_many)
    validation = checked_validation(net, split.data, of_many)
    if kept is not None:
        validation = Validation(x[kept], t[kept], None if weight is None else weight[kept])
        if not of_many:
            _check_mean(net, validation.t, validation.weight, "the rows for validation")
    if by_class is not None:
        weight = weighted_by_class(net, by_class, t, weight, slice(None) if subset is None else subset)
    if weight is not None:
        weight = np.ascontiguousarray(weight)
    if (by_class is not None or subset is not None) and not of_many:
        rows = slice(None) if subset is None else subset
        _check_mean(net, t[rows], None if weight is None else weight[rows], "the rows for training")
    if batch_size is None:
        batch_size = x.shape[0] if subset is None else len(subset)
    return Rows(x, t, weight, batch_size=batch_size, seed=order_seed, subset=subset), validation


def _check_mean(net: Network, t: Array, weight: FloatArray | None, what: str) -> None:
    """Raise where the loss has no mean over these rows."""
    if not has_mean(weight):
        assert weight is not None
        raise ValueError(f"sample_weight sums to {weight.sum()} over {what}, so that the mean is not defined")
    if net._inputs.checks_targets and not has_mean(net._inputs.row_counts(t, weight)):
        raise ValueError(
            f"{what}: the loss {net.loss!r} counts none of them (their labels are ignored, or have no weight), so that "
            "the mean is not defined: at least one row needs a label that counts"
        )


def _split(net: Network, x: FloatArray, t: Any, split: Split, seed: int, of_many: bool = False) -> tuple[Any, Any]:
    """The rows for training and for validation; None and None where all are for training."""
    fraction = check.real("validation_fraction", split.fraction, at_least=0.0, below=1.0)
    if split.stratify is not None and not isinstance(split.stratify, bool | np.bool_):
        raise TypeError(f"stratify must be True, False or None, got {split.stratify!r}")
    if fraction == 0.0:
        if split.stratify:
            raise ValueError("stratify=True needs validation_fraction")
        return None, None
    if split.data is not None:
        raise ValueError("validation_data and validation_fraction are given: expected one of them")
    if len(x) < 2 and of_many:
        return np.arange(len(x)), np.arange(0)
    if len(x) < 2:
        raise ValueError("validation_fraction needs at least two rows, got 1")
    return validation_rows(len(x), fraction, seed, _labels_to_stratify(net, t, split.stratify))


def _labels_to_stratify(net: Network, t: Any, stratify: object) -> Any:
    """Return the labels; rows that the loss ignores are a class of their own."""
    if stratify is not None and not stratify:
        return None
    try:
        return class_labels(net, t)
    except ValueError:
        if stratify:
            raise ValueError(f"stratify=True needs labels, but t holds rows of shape {t.shape}") from None
        return None


# ---- what can be said of x for sure ----------------------------------------------------------------------------------

LOOKED_AT = 256  # rows
LARGE = 1e3


def warn_of_unscaled(net: Network, x: FloatArray) -> None:
    """Warn where weights meet columns whose mean or deviation, in the first rows, is beyond a thousand."""
    x = x[:LOOKED_AT]
    if not all(isinstance(unit, Linear | Conv1d | Conv2d) for unit in input_readers(net.units)):
        return
    if -LARGE <= x.min(initial=0) and x.max(initial=0) <= LARGE:  # so is every mean and every deviation
        return
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        sizes = np.maximum(np.abs(wide.mean(axis=0)), wide.std(axis=0))
    columns = np.flatnonzero((sizes > LARGE) & np.isfinite(sizes))
    if len(columns):
        named = ", ".join(map(str, columns[:5])) + (", ..." if len(columns) > 5 else "")
        warn(
            f"x is not scaled: in its first {len(x)} rows the mean or the deviation is beyond {LARGE:g} in column "
            f"{named} (up to {sizes[columns].max():.3g}), and initial weights and usual learning rates are made for "
            "values about 1: pass (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-8), or begin the network with "
            f"fastbp.BatchNorm{'' if net.input_shape is None else '2d'}"
        )


def __getattr__(name: str) -> Any:
    if name == "Stream":
        warnings.warn("fastbp.training.data.Stream is BatchIterator now", DeprecationWarning, stacklevel=2)
        return BatchIterator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
