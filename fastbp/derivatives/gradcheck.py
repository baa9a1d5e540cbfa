"""The gradient checker: back-propagation against central differences.

A. Two roads. The gradient under test comes from the network as it is, in its own dtype and through its own kernels. The
   numbers it is held against come from losses alone, of a float64 copy with one entry moved at a time: nothing that is
   wrong in a backward pass can be wrong in both.

B. One entry w of the copy, with the loss J at w, w ± h and w ± h/2, h = cbrt(eps) max(1, |w|), taken as the exact
   differences of the moved values:

       D(h) = (J(w + h) - J(w - h)) / 2h                      central difference
       s(h) = (J(w + h) - 2 J(w) + J(w - h)) / h              jump of the one-sided slopes

   For a smooth J, D(h) - D(h/2) = h² J'''/8 and s(h) - 2 s(h/2) = O(h³): both vanish beside the rounding error of J.
   The number taken is D(h/2); its error is estimated as

       e = ⅔ |D(h) - D(h/2)| + ½ |s(h) - 2 s(h/2)| + 8 σ/h,

   with the truncation doubled and σ the rounding error of one loss. σ is measured, not assumed (Hamming's difference
   table in the form of Moré and Wild, 2011): losses along a line of tiny equal steps, whose third to fifth differences
   are noise only.

C. A kink (relu at 0) between w - h and w + h lets the slope jump by some j at c = k h, 0 <= k <= 1 (either side):

       |D(h) - D(h/2)| = ½ j min(k, 1 - k)
       |s(h) - 2 s(h/2)| = j |(1 - k) - 2 max(1 - 2k, 0)|

   Where the first is small (k near 0) the second is j; where the second is small (k = 1/3) the first is j/6; both are
   small only near k = 1, where D(h/2) is right. So an entry is called kinked if either is beyond noise and beyond a
   tenth (for the second: the whole) of what the entry is allowed. It is counted, and not judged. What is kinked is
   decided by losses alone: a wrong gradient cannot make itself a kink.

D. Small gradients (the first layer of a deep sigmoid network) drown in σ/h. Where noise would be half of what an array
   is allowed, steps 32 and 1024 times as long are tried too, and for each entry the number with the smallest e is kept.

E. What is allowed. With g the gradient, n the numbers (both over the entries judged), r = rtol:

       array:   ‖g - n‖ <= r ‖n‖ + ‖e‖
       entry:   |g_i - n_i| <= r (|n_i| + max|n| / 5) + e_i

   r = 1e-6 in float64 and 1e-4 in float32 (840 eps), a fifth of the 0.05 % that must not pass. The second line is for
   what a norm hides: one wrong entry.

   Where the terms of a gradient cancel (near a minimum), rounding in the network's own dtype is not small beside what
   they leave: each dy is rounded to about eps (|y| + |t|), whatever is left of it. An array that fails is judged again
   with

       f_i = 16 eps ‖s ∂y/∂w_i‖,    s = (|y| + |t|) · row's weight + |dy|

   added to e, where ∂y/∂w_i are central differences of the copy's outputs. At usual gradients f is a few 1e-6 of them.
   It does not come from `backward`: a gradient that adds up what earlier calls left would excuse itself.

F. Where the right-hand side exceeds a half of 0.05 % of the numbers, the check could not have told. Such a row is
   marked "coarse" in the report; a gradient and numbers of exactly zero are "zero".

G. An array that fails is held against multiples of the numbers, and against their transpose (`_hints.py`): the report
   says by which factor a gradient is wrong where one factor explains all entries, and what usually causes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp._core.core import NetworkCore
from fastbp._core.graph import runs_in_engine, walk
from fastbp._core.segments import rows_of
from fastbp._frozen import Frozen, Record
from fastbp.derivatives._hints import explained, located

__all__ = ["GradientError", "GradientReport", "GradientRow", "check_gradients"]

Array = NDArray[Any]

EPS64 = float(np.finfo(np.float64).eps)
RTOL = {"float32": 1e-4, "float64": 1e-6}
ENTRY_SHARE = 0.2  # of the array's largest number, in the allowance of an entry
ROUNDING = 16.0  # eps in f of paragraph E
LONGER = (32.0, 1024.0)  # paragraph D
RESOLVED = 2.5e-4  # half of the 0.05 % that must not pass
KINK_SHARE = 0.05  # of an array's entries; beyond it the report speaks of it


# ---- what comes out --------------------------------------------------------------------------------------------------


class GradientRow(Record):
    """What was found for one array.

    Attributes
    ----------
    name : str
        A key of ``net.parameters``, or ``"input"``.
    shape : tuple of int
        Of the array.
    checked, skipped : int
        Entries judged, and entries not judged because the loss has a kink there.
    max_abs_error : float
        Largest |gradient - number|.
    max_rel_error : float
        The same, divided by the largest |number|.
    norm_error : float
        ‖gradient - numbers‖ / ‖numbers‖.
    tolerance : float
        What ``norm_error`` may be.
    worst : tuple of int or None
        Index of the entry that uses most of what it is allowed; None where none was judged.
    gradient, number : float
        The two values there: by back-propagation and by central differences.
    ok : bool
        Whether the array and all its entries are within what is allowed.
    hint : str
        Of an array that is not: one factor that explains all its entries, and what usually causes it; empty where there
        is none.
    """

    name: str
    shape: tuple[int, ...]
    checked: int
    skipped: int
    max_abs_error: float
    max_rel_error: float
    norm_error: float
    tolerance: float
    worst: tuple[int, ...] | None
    gradient: float
    number: float
    ok: bool
    hint: str = ""

    @property
    def coarse(self) -> bool:
        """Whether an error of 0.05 % could have passed, since the gradient is too small against rounding errors."""
        return self.checked > 0 and not self.zero and not self.tolerance <= RESOLVED

    @property
    def zero(self) -> bool:
        """Whether the loss does not depend on these entries at all, and the gradient says so."""
        return self.checked > 0 and self.max_abs_error == 0 and math.isinf(self.tolerance)

    @property
    def note(self) -> str:
        """A remark for the report; empty where there is nothing to say."""
        total = self.checked + self.skipped
        if not self.checked:
            return "nothing judged: a kink at every entry"
        if self.zero:
            return "zero"
        remarks = ["coarse"] if self.coarse else []
        if self.skipped > KINK_SHARE * total:
            remarks.append(f"{100 * self.skipped / total:.0f} % kinks")
        return ", ".join(remarks)


class GradientReport(Frozen):
    """What `check_gradients` found; printed, it is a table with a line for each array.

    Attributes
    ----------
    rows : tuple of GradientRow
        One for each parameter array, in the network's order, and one for the input.
    dtype : dtype
        Of the network.
    loss : float
        The network's own loss.
    loss64 : float
        That of its float64 copy.
    noise : float
        The measured rounding error of ``loss64``.
    own_units : dict of str to str
        The units that Python runs, by their places in the network: what a report suspects first.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> net = fastbp.MLP([2, 1], loss="mse", dtype="float64", seed=0)
    >>> report = fastbp.check_gradients(net, np.ones((3, 2)), np.zeros((3, 1)))
    >>> report.ok, [row.name for row in report.rows]
    (True, ['0.weight', '0.bias', 'input'])
    """

    rows: tuple[GradientRow, ...]
    dtype: np.dtype[Any]
    loss: float
    loss64: float
    noise: float
    own_units: Mapping[str, str]

    def __init__(
        self,
        rows: tuple[GradientRow, ...],
        dtype: np.dtype[Any],
        loss: float,
        loss64: float,
        noise: float,
        own_units: Mapping[str, str] | None = None,
    ) -> None:
        own_units = dict(own_units or {})
        vars(self).update(rows=rows, dtype=dtype, loss=loss, loss64=loss64, noise=noise, own_units=own_units)

    @property
    def ok(self) -> bool:
        """Whether every array is within what is allowed."""
        return all(row.ok for row in self.rows)

    def __str__(self) -> str:
        head = f"gradient check ({self.dtype}): {'ok' if self.ok else 'FAILED'}, loss {self.loss:.6g}"
        return "\n".join([head, *_table(self.rows), *_remarks(self.rows, self.own_units)])


class GradientError(AssertionError):
    """A gradient is wrong; raised by `check_gradients` with ``raise_on_fail=True``.

    Parameters
    ----------
    report : GradientReport
        Kept as the attribute ``report``, which says where; its text is the message.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> class Twice(fastbp.Unit):
    ...     def forward(self, x):
    ...         return 2 * x
    ...     def backward(self, dy):
    ...         return 2.01 * dy
    >>> net = fastbp.Network(fastbp.Linear(2, 1), Twice(), loss="mse", dtype="float64", seed=0)
    >>> try:
    ...     fastbp.check_gradients(net, np.ones((3, 2)), np.zeros((3, 1)), raise_on_fail=True)
    ... except fastbp.GradientError as error:
    ...     print([row.name for row in error.report.rows if not row.ok])
    ['0.weight', '0.bias', 'input']
    """

    def __init__(self, report: GradientReport) -> None:
        super().__init__(str(report))
        self.report = report


def _table(rows: tuple[GradientRow, ...]) -> list[str]:
    head = ("array", "shape", "checked", "kinks", "max abs", "max rel", "norm rel", "allowed", "", "")
    cells: list[tuple[str, ...]] = [head]
    for row in rows:
        errors = (f"{v:.1e}" for v in (row.max_abs_error, row.max_rel_error, row.norm_error, row.tolerance))
        verdict = "ok" if row.ok else "FAILED"
        counts = str(row.checked), str(row.skipped)
        cells.append((row.name, str(row.shape), *counts, *errors, verdict, row.note))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = {0, 1, 8, 9}  # columns of text; numbers stand at the right
    align = [str.ljust if i in left else str.rjust for i in range(len(widths))]
    return ["  ".join(a(c, w) for a, c, w in zip(align, line, widths, strict=True)).rstrip() for line in cells]


def _remarks(rows: tuple[GradientRow, ...], own: Mapping[str, str]) -> Iterator[str]:
    for row in rows:
        if not row.ok and row.worst is not None:
            index = ", ".join(map(str, row.worst))
            yield f"{row.name}[{index}]: gradient {row.gradient:.9g}, central difference {row.number:.9g}"
            if row.hint:
                yield f"{row.name} is {row.hint}"
    if place := located(_in_order(rows), own):
        yield place
    if any(row.coarse for row in rows):
        yield "coarse: so small against rounding errors that an error of 0.05 % would not have been seen"


def _in_order(rows: tuple[GradientRow, ...]) -> list[tuple[str, bool]]:
    """The arrays that were judged and whether each is right, the input before the parameters."""
    first = [row for row in rows if row.name == "input"]
    rest = [row for row in rows if row.name != "input"]
    return [(row.name, row.ok) for row in (*first, *rest) if row.checked]


def _own_units(net: NetworkCore) -> dict[str, str]:
    """Return the units that Python runs, by their places; composites stand for nothing but their units."""
    units = getattr(net, "units", ())  # what a program of its own gives to the check may have none
    return {path: repr(unit) for path, unit in walk(units) if not hasattr(unit, "units") and not runs_in_engine(unit)}


# ---- the check -------------------------------------------------------------------------------------------------------


def check_gradients(
    net: NetworkCore,
    x: ArrayLike,
    t: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    eps: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    raise_on_fail: bool = False,
    max_entries: int | None = None,
    seed: int = 0,
) -> GradientReport:
    """Compare a network's gradients with central differences.

    For each parameter array and for the input (unless it holds indices for an `Embedding`), ∂J/∂w by back-propagation
    is held against (J(w + h) - J(w - h)) / 2h of a float64 copy of the network, entry by entry; J is the mean loss over
    the rows of x, as `Network.loss_value` has it: without dropout, and normalised by running statistics.
    The network's own parameters are not touched. A gradient that is wrong by 0.05 %, in an array or in one of its
    larger entries, fails.

    Parameters
    ----------
    net : NetworkCore
        With the parameters at which its gradient is to be checked.
    x : ndarray, shape (n_rows, n_in)
        Of the network's dtype.
    t : array_like
        Targets, as ``net.value_and_grad`` takes them.
    sample_weight : array_like, shape (n_rows,), optional
        Weights of the rows.
    eps : float, optional
        Step h of an entry of size up to 1, in (0, 0.1]; by default the cube root of float64's eps, 6.1e-6. It grows
        with larger entries, and where the gradient is too small to be seen with it.
    rtol : float, optional
        Largest relative error of an array, in its norm; by default 1e-6 for a float64 network and 1e-4 for a float32
        one. An entry may be wrong by as much, plus a fifth of it relative to the largest number of the array.
    atol : float, optional
        Absolute error that every entry is allowed besides; by default 0.
    raise_on_fail : bool
        Raise `GradientError` if anything is out of tolerance.
    max_entries : int, optional
        Judge that many entries of each array, chosen at random; by default all. A network of a million
        parameters would otherwise need four million losses.
    seed : int
        Of that choice; the same seed chooses the same entries.

    Returns
    -------
    report : GradientReport
        ``report.ok`` tells all; ``print(report)`` shows a table.

    Raises
    ------
    GradientError
        (An AssertionError.) If ``raise_on_fail`` and not ``report.ok``; it bears the report.
    ValueError
        If an option is out of range, or the loss is not finite.
    TypeError, ValueError
        As ``net.value_and_grad`` for x, t and sample_weight.

    Notes
    -----
    Entries within h of a kink of the loss (relu at 0) have no central difference. They are recognised by their
    one-sided differences and counted as skipped. The gradient of a loss with ``clip`` is that of the loss without: it
    fails where a probability is held, and is to be checked with ``clip=0.0``.

    References
    ----------
    J. J. Moré and S. M. Wild, Estimating computational noise, SIAM J. Sci. Comput. 33 (2011).

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> net = fastbp.MLP([4, 8, 3], hidden="sigmoid", seed=0)
    >>> x = np.random.default_rng(0).standard_normal((16, 4), dtype=np.float32)
    >>> report = fastbp.check_gradients(net, x, np.arange(16) % 3)
    >>> report.ok
    True
    >>> [row.name for row in report.rows]
    ['0.weight', '0.bias', '2.weight', '2.bias', 'input']
    """
    step = _option("eps", eps, EPS64 ** (1 / 3), lambda v: 0 < v <= 0.1, "in (0, 0.1]")
    dtype = np.dtype(net.dtype)
    relative = _option("rtol", rtol, RTOL[dtype.name], lambda v: v > 0, "> 0")
    absolute = _option("atol", atol, 0.0, lambda v: v >= 0, ">= 0")
    _check_count(max_entries)

    loss, gradients = _gradients(net, x, t, sample_weight)
    copy = _Copy(net, x, t, sample_weight)
    if not math.isfinite(copy.loss):
        raise ValueError(f"the loss must be finite where its gradient is checked, got {copy.loss}")
    rng = np.random.Generator(np.random.Philox(seed))
    noise = copy.noise(rng)
    rounding = ROUNDING * float(np.finfo(dtype).eps)

    rows = []
    for name, array in copy.arrays.items():
        if name in getattr(net, "frozen", ()):
            continue  # its gradient is zero by what was asked for
        g = np.asarray(gradients[name], np.float64)
        if g.shape != array.shape:
            raise ValueError(f"the gradient of {name} must have its shape {array.shape}, got {g.shape}")
        chosen = _choose(array.size, max_entries, rng)
        number, error, kinked = _differences(copy, array, chosen, step, noise, relative)
        judged = chosen[~kinked]
        pair = _Pair(name, array.shape, judged, int(kinked.sum()), g.ravel()[judged], number[~kinked])
        error = error[~kinked] + absolute
        row = _judge(pair, error, relative)
        if not row.ok:
            row = _judge(pair, error + rounding * _sensitivity(copy, array, judged, step), relative)
        if not row.ok:
            row = _with_hint(row, pair, copy, error, relative)
        rows.append(row)
    report = GradientReport(tuple(rows), dtype, loss, copy.loss, noise, _own_units(net))
    if raise_on_fail and not report.ok:
        raise GradientError(report)
    return report


def _option(name: str, value: float | None, default: float, allowed: Callable[[float], bool], words: str) -> float:
    if value is None:
        return default
    if not (math.isfinite(value) and allowed(value)):
        raise ValueError(f"{name} must be {words}, got {value}")
    return float(value)


def _check_count(max_entries: Any) -> None:
    if max_entries is None:
        return
    if isinstance(max_entries, (int, np.integer)) and not isinstance(max_entries, bool) and max_entries >= 1:
        return
    raise ValueError(f"max_entries must be an integer >= 1 or None, got {max_entries!r}")


def _choose(size: int, max_entries: int | None, rng: np.random.Generator) -> NDArray[np.intp]:
    if max_entries is None or max_entries >= size:
        return np.arange(size)
    return np.sort(rng.choice(size, max_entries, replace=False))


def _gradients(net: Any, x: Any, t: Any, sample_weight: Any) -> tuple[float, dict[str, Array]]:
    """The loss and every gradient of the network as it is, copied: its own arrays serve its next call too."""
    training = net.training
    net.eval()  # as losses are computed
    try:
        loss, grads = net.value_and_grad(x, t, sample_weight=sample_weight)
        gradients = {name: np.array(grads[name]) for name in net.parameters}
        if not net._inputs.takes_indices:
            y = rows_of(net.forward(x))
            _, dy = net.loss.value_and_grad(y, rows_of(t), sample_weight=sample_weight, reduction="mean")
            gradients["input"] = np.array(net.backward(dy))
    finally:
        if training:
            net.train()
    return float(loss), gradients


class _Copy:
    """The float64 copy of a network, its data, and the loss as a function of every array."""

    def __init__(self, net: Any, x: Any, t: Any, sample_weight: Any) -> None:
        self.net = net.copy(dtype="float64")
        self.x = np.array(x, np.float64)  # always a copy: entries of it are moved
        self.t: Array = rows_of(_widened(t))
        self.sample_weight = None if sample_weight is None else _widened(sample_weight)
        self.arrays: dict[str, Array] = dict(self.net.parameters)
        if not net._inputs.takes_indices:
            self.arrays["input"] = self.x
        self.loss = self.value()

    def total_weight(self) -> float:
        """What a mean over the rows divides by."""
        return float(len(self.x) if self.sample_weight is None else np.sum(self.sample_weight))

    def outputs(self) -> int:
        """How many numbers a row has at the output."""
        return int(rows_of(self.net.forward(self.x)).shape[1])

    def value(self) -> float:
        return float(self.net.loss_value(self.x, self.t, sample_weight=self.sample_weight))

    def noise(self, rng: np.random.Generator) -> float:
        """The rounding error of one loss, by differences along a line (paragraph B)."""
        saved = {name: array.copy() for name, array in self.arrays.items()}
        # Steps of 1e-10: a million roundings long, and far too short for a third difference of J itself.
        signs = {name: rng.choice((-1.0, 1.0), array.shape) for name, array in saved.items()}
        line = {name: 1e-10 * signs[name] * np.maximum(np.abs(array), 0.1) for name, array in saved.items()}
        losses = []
        for k in range(8):
            for name, array in self.arrays.items():
                array[...] = saved[name] + k * line[name]
            losses.append(self.value())
        for name, array in self.arrays.items():
            array[...] = saved[name]
        # An m-th difference of independent errors of deviation σ has the variance σ² (2m)! / (m!)².
        deviations = [math.sqrt(np.mean(np.diff(losses, m) ** 2) / math.comb(2 * m, m)) for m in (3, 4, 5)]
        return max(*deviations, EPS64 * abs(self.loss) / 2, np.finfo(np.float64).tiny)

    def rounding_scale(self) -> Array:
        """s of paragraph E, in the shape of y."""
        y = np.array(rows_of(self.net.forward(self.x)), np.float64)
        _, dy = self.net.loss.value_and_grad(y, self.t, sample_weight=self.sample_weight, reduction="mean")
        weight = np.ones(len(y)) if self.sample_weight is None else np.asarray(self.sample_weight, np.float64)
        share = (weight / weight.sum())[:, None]
        # A dy of inf or NaN must not excuse itself.
        finite = np.where(np.isfinite(dy), np.abs(dy), 0)
        return np.asarray((np.abs(y) + self._target_size(y.shape)) * share + finite)

    def _target_size(self, shape: tuple[int, ...]) -> Array:
        """|t| in a shape that goes with y; labels stand for rows with a single 1."""
        if self.t.size == math.prod(shape):
            return np.abs(self.t.reshape(shape).astype(np.float64))
        return np.ones(())


def _widened(values: Any) -> Array:
    """Floats as float64; integers and bools as they are."""
    array = np.asarray(values)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


# ---- central differences ---------------------------------------------------------------------------------------------


class _Stencils(Record):
    """For the chosen entries: the number, the estimate e of its error, and the two signs of a kink."""

    number: Array
    error: Array
    c1: Array  # |D(h) - D(h/2)|
    c2: Array  # |s(h) - 2 s(h/2)|
    noise: Array  # σ/h


def _differences(
    copy: _Copy, array: Array, chosen: NDArray[np.intp], step: float, noise: float, rtol: float
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Numbers, estimated errors and kinks of the chosen entries."""
    base = _stencil(copy, array, chosen, step, noise)
    allowed = rtol * ENTRY_SHARE * np.max(np.abs(base.number), initial=0.0)
    kinked = (base.c1 > 16 * base.noise + 0.1 * allowed) | (base.c2 > 80 * base.noise + allowed)
    number, error = base.number, base.error
    smooth = ~kinked
    if smooth.any() and 8 * np.max(base.noise[smooth]) > 0.5 * rtol * math.sqrt(np.mean(number[smooth] ** 2)):
        for factor in LONGER:
            longer = _stencil(copy, array, chosen, min(factor * step, 0.1), noise)
            better = longer.error < error
            number, error = np.where(better, longer.number, number), np.where(better, longer.error, error)
    return number, error, kinked


def _stencil(copy: _Copy, array: Array, chosen: NDArray[np.intp], step: float, noise: float) -> _Stencils:
    """Paragraph B for each chosen entry of an array of the copy, which is left as it was found."""
    rows = np.empty((len(chosen), 5))
    for row, flat in zip(rows, chosen, strict=True):
        index = np.unravel_index(flat, array.shape)
        w = float(array[index])
        h = step * max(1.0, abs(w))
        d1, s1 = _slopes(copy, array, index, w, h)
        d2, s2 = _slopes(copy, array, index, w, h / 2)
        c1, c2 = abs(d1 - d2), abs(s1 - 2 * s2)
        row[:] = d2, 2 / 3 * c1 + c2 / 2 + 8 * noise / h, c1, c2, noise / h
    return _Stencils(*rows.T)


def _slopes(copy: _Copy, array: Array, index: tuple[Any, ...], w: float, h: float) -> tuple[float, float]:
    """D(h) and s(h) at one entry, with the steps as they come out in floating point."""
    above, below = w + h, w - h
    array[index] = above
    j_above = copy.value()
    array[index] = below
    j_below = copy.value()
    array[index] = w
    central = (j_above - j_below) / (above - below)
    jump = (j_above - copy.loss) / (above - w) - (copy.loss - j_below) / (w - below)
    return central, jump


def _sensitivity(copy: _Copy, array: Array, entries: NDArray[np.intp], step: float) -> Array:
    """‖s ∂y/∂w_i‖ of paragraph E for each entry, by central differences of the outputs."""
    scale = copy.rounding_scale()
    norms = np.empty(len(entries))
    for i, flat in enumerate(entries):
        index = np.unravel_index(flat, array.shape)
        w = float(array[index])
        h = step * max(1.0, abs(w))
        array[index] = w + h
        above = np.array(rows_of(copy.net.forward(copy.x)))
        array[index] = w - h
        norms[i] = np.linalg.norm(scale * (above - rows_of(copy.net.forward(copy.x)))) / (2 * h)
        array[index] = w
    return norms


# ---- the verdict -----------------------------------------------------------------------------------------------------


class _Pair(Record):
    """The two sides of the comparison for one array, at the entries that are judged."""

    name: str
    shape: tuple[int, ...]
    entries: NDArray[np.intp]
    skipped: int
    gradient: Array
    number: Array


def _judge(pair: _Pair, error: Array, rtol: float) -> GradientRow:
    """Paragraph E for one array."""
    g, n = pair.gradient, pair.number
    if len(n) == 0:
        nan = math.nan
        return GradientRow(pair.name, pair.shape, 0, pair.skipped, 0.0, 0.0, 0.0, 0.0, None, nan, nan, True)
    wrong = np.abs(g - n)
    largest, norm = float(np.max(np.abs(n))), float(np.linalg.norm(n))
    array_allowed = float(rtol * norm + np.linalg.norm(error))
    entry_allowed = rtol * (np.abs(n) + ENTRY_SHARE * largest) + error
    worst = int(np.argmax(np.where(np.isnan(wrong), np.inf, wrong / entry_allowed)))
    return GradientRow(
        pair.name,
        pair.shape,
        len(n),
        pair.skipped,
        max_abs_error=float(np.max(wrong)),
        max_rel_error=_ratio(float(np.max(wrong)), largest),
        norm_error=_ratio(float(np.linalg.norm(wrong)), norm),
        tolerance=_ratio(array_allowed, norm),
        worst=tuple(int(i) for i in np.unravel_index(pair.entries[worst], pair.shape)),
        gradient=float(g[worst]),
        number=float(n[worst]),
        # Written so that a NaN on either side is not ok.
        ok=bool(np.linalg.norm(wrong) <= array_allowed) and bool(np.all(wrong <= entry_allowed)),
    )


def _with_hint(row: GradientRow, pair: _Pair, copy: _Copy, error: Array, rtol: float) -> GradientRow:
    """Paragraph G for one array: the tolerance is that of an array, as paragraph E has it."""
    rows, columns = pair.shape if len(pair.shape) == 2 else (0, 1)
    square = (rows, columns) if rows == columns and len(pair.entries) == rows * columns else None
    tolerance = 4 * _ratio(
        float(rtol * np.linalg.norm(pair.number) + np.linalg.norm(error)), float(np.linalg.norm(pair.number))
    )
    hint = explained(pair.gradient, pair.number, square, copy.total_weight(), copy.outputs(), tolerance)
    return GradientRow(**{**vars(row), "hint": hint})


def _ratio(a: float, b: float) -> float:
    return a / b if b else (0.0 if a == 0 else math.inf)
