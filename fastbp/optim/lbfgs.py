"""L-BFGS: steps along the gradient times an estimate of the inverse Hessian, for whole data sets that fit one batch.

A. `LBFGS` follows torch's of the name: the same directions, step lengths, line search and tests for the end, so that a
   run there can be repeated here. `LBFGSB` hands the network to scipy's solver.
B. Both make whole steps: ``step(net, x, t)`` computes as many losses and gradients as it needs; `Network.train_step`
   and `train` call it. Everything is done on flat vectors in numpy, beside which the gradients are what costs time.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import _validate as check
from fastbp._frozen import Record
from fastbp._validate import FloatArray
from fastbp.optim import Optimizer
from fastbp.optim._state import Memories

__all__ = ["LBFGS", "LBFGSB"]


class Steppable(Protocol):
    """What such an optimizer needs of a network."""

    @property
    def flat_parameters(self) -> FloatArray: ...

    def value_and_grad(self, x: Any, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> tuple[float, Any]: ...

Array = NDArray[Any]
Evaluate = Callable[[float], tuple[float, Array]]  # the loss and the gradient so far along the direction

_CURVED = 1e-10  # y.s above which a pair says something about the curvature
_ARRAYS = ("direction", "gradient", "steps", "changes")  # of a state
_FALL, _FLAT = 1e-4, 0.9  # Wolfe's two constants


class _Memory:
    """What is kept of one network: the pairs, and where the last iteration was."""

    def __init__(self) -> None:
        self.iterations = 0
        self.steps: list[Array] = []  # s = w - w of the iteration before
        self.changes: list[Array] = []  # y = g - g of the iteration before
        self.scale = 1.0  # of the first estimate, s.y / y.y of the last pair
        self.direction: Array | None = None
        self.length = 0.0
        self.gradient: Array | None = None


class LBFGS(Optimizer):
    """Limited-memory BFGS, as torch.optim.LBFGS: for smooth losses on the whole data at once.

    Each call makes up to ``max_iter`` iterations w = w + length * direction, with direction = -H g, and H the inverse
    Hessian as the last ``history_size`` changes of w and of the gradient g tell it. The first direction is -g, and its
    length at most 1 / Σ|g|.

    Parameters
    ----------
    lr : float
        The length of a step, or the one that a line search begins with, above 0.
    max_iter : int
        Iterations in a call, at least 1.
    max_eval : int, optional
        Gradients in a call, at least 1; None: 5/4 of ``max_iter``.
    tolerance_grad : float
        The call ends where no element of the gradient is larger.
    tolerance_change : float
        The call ends where neither a parameter nor the loss changes by more.
    history_size : int
        Pairs that are kept, at least 1.
    line_search_fn : {None, "strong_wolfe"}
        None: the length is ``lr``. "strong_wolfe": one at which the loss and its slope have fallen enough.

    Notes
    -----
    It wants all the data at once, and `train` gives it that unless it is told a ``batch_size``. Ctrl-C in a step leaves
    the parameters as they were.

    References
    ----------
    J. Nocedal and S. J. Wright, Numerical Optimization, 2nd edition, 2006, sections 3.5 and 7.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> net = fastbp.MLP([1, 8, 1], hidden="tanh", loss="mse", dtype="float64", seed=0)
    >>> optimizer = fastbp.LBFGS(line_search_fn="strong_wolfe")
    >>> losses = [net.train_step(x, x**2, optimizer) for _ in range(5)]
    >>> losses[-1] < 1e-3 * losses[0]
    True
    """

    makes_whole_steps: ClassVar[bool] = True
    wants_all_rows: ClassVar[bool] = True

    def __init__(
        self,
        lr: float = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        self.lr = check.real("lr", lr, above=0)
        self.max_iter = check.integer("max_iter", max_iter)
        self.max_eval = self.max_iter * 5 // 4 if max_eval is None else check.integer("max_eval", max_eval)
        self.tolerance_grad = check.real("tolerance_grad", tolerance_grad, at_least=0)
        self.tolerance_change = check.real("tolerance_change", tolerance_change, at_least=0)
        self.history_size = check.integer("history_size", history_size)
        self.line_search_fn = (
            None if line_search_fn is None else check.choice("line_search_fn", line_search_fn, ("strong_wolfe",))
        )
        self._kept: Memories[_Memory] = Memories()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_kept"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _kept=Memories())

    def memory_of(self, net: Any) -> _Memory:
        """Give what is kept of a network."""
        return self._kept.of(net, lambda _: _Memory())

    def step(self, net: Steppable, x: Any, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
        """Make the iterations of one call; give the loss before them."""
        w = net.flat_parameters
        before = w.copy()

        def gradient() -> tuple[float, Array]:
            loss, grads = net.value_and_grad(x, t, sample_weight=sample_weight)
            return loss, grads.flat.copy()

        try:
            first = _Descent(self, self.memory_of(net), w, gradient).run()
        except BaseException:
            w[...] = before
            raise
        self.state_for(net).step += 1
        return first

    def get_state(self, net: Any) -> dict[str, Any]:
        """Give what is kept of a network: the pairs one under another, the last direction and gradient, and numbers."""
        memory = self.memory_of(net)
        made = {**super().get_state(net), "iterations": memory.iterations, "scale": memory.scale}
        made["length"] = memory.length
        if memory.direction is not None and memory.gradient is not None:
            made.update(direction=memory.direction, gradient=memory.gradient)
        if memory.steps:
            made.update(steps=np.array(memory.steps), changes=np.array(memory.changes))
        return made

    def set_state(self, net: Any, state: Any) -> None:
        """Go on from what `get_state` gave for a network of the same size and dtype."""
        super().set_state(net, state)
        arrays = {name: np.array(state[name]) for name in _ARRAYS if name in state}
        memory = self.memory_of(net)
        memory.iterations, memory.scale, memory.length = (state[name] for name in ("iterations", "scale", "length"))
        memory.direction, memory.gradient = arrays.get("direction"), arrays.get("gradient")
        memory.steps, memory.changes = list(arrays.get("steps", ())), list(arrays.get("changes", ()))

    def check_state(self, net: Any, state: Any) -> dict[str, Array]:
        """Raise ValueError where `set_state` would."""
        flat = getattr(net, "flat_parameters", net)
        for name in _ARRAYS:
            array = np.asarray(state.get(name, flat))
            if array.shape[-1:] != flat.shape or array.dtype != flat.dtype:
                raise ValueError(f"{name} is {array.shape} {array.dtype}, the network has {flat.shape} {flat.dtype}")
        made = super().check_state(net, state)
        check.integer("iterations", state.get("iterations"), 0)
        for name in ("scale", "length"):
            check.real(name, state.get(name))
        return made


class _Descent:
    """The iterations of one call. The memory is written at the end, so that a call that fails leaves it as it was."""

    def __init__(
        self, rule: LBFGS, memory: _Memory, w: Array, gradient: Callable[[], tuple[float, Array]]
    ) -> None:
        self.rule, self.memory, self.w, self.gradient = rule, memory, w, gradient
        self.steps, self.changes = list(memory.steps), list(memory.changes)
        self.iterations, self.scale = memory.iterations, memory.scale
        self.direction, self.length, self.last = memory.direction, memory.length, memory.gradient
        self.evaluations = 1

    def run(self) -> float:
        first, g = self.gradient()
        loss = first
        if np.abs(g).max(initial=0) <= self.rule.tolerance_grad:
            return first
        for i in range(self.rule.max_iter):
            d, length, slope = self._aim(g)
            if slope > -self.rule.tolerance_change:
                break
            before = loss
            loss, g, length, evaluations = self._go(d, length, slope, loss, g, last=i == self.rule.max_iter - 1)
            self.length = length
            self.evaluations += evaluations
            if self.evaluations >= self.rule.max_eval or np.abs(g).max(initial=0) <= self.rule.tolerance_grad:
                break
            change = self.rule.tolerance_change
            if np.abs(length * d).max(initial=0) <= change or abs(loss - before) < change:
                break
        self._remember()
        return first

    def _aim(self, g: Array) -> tuple[Array, float, float]:
        """Give the direction, the length to begin with, and the slope; the pair of the last iteration is kept."""
        self.iterations += 1
        if self.iterations == 1:
            d, length = -g, min(1.0, 1.0 / float(np.abs(g).sum())) * self.rule.lr
        else:
            self._keep_pair(g)
            d, length = self._towards(g), self.rule.lr
        self.direction, self.length, self.last = d, length, g
        return d, length, float(g @ d)

    def _keep_pair(self, g: Array) -> None:
        assert self.direction is not None and self.last is not None
        y, s = g - self.last, self.direction * self.length
        if (curvature := float(y @ s)) <= _CURVED:
            return
        if len(self.steps) == self.rule.history_size:
            del self.steps[0], self.changes[0]
        self.steps.append(s)
        self.changes.append(y)
        self.scale = curvature / float(y @ y)

    def _towards(self, g: Array) -> Array:
        """Give -H g by the two loops of the pairs: forth from the newest, and back."""
        d = -g
        pairs = [(s, y, 1.0 / float(y @ s)) for s, y in zip(self.steps, self.changes, strict=True)]
        shares = []
        for s, y, rho in reversed(pairs):
            shares.append(rho * float(s @ d))
            d -= shares[-1] * y
        d *= self.scale
        for (s, y, rho), share in zip(pairs, reversed(shares), strict=True):
            d += (share - rho * float(y @ d)) * s
        return d

    def _go(
        self, d: Array, length: float, slope: float, loss: float, g: Array, *, last: bool
    ) -> tuple[float, Array, float, int]:
        """Move; give loss and gradient there, the length, and the gradients that it took."""
        start = self.w.copy()
        if self.rule.line_search_fn is None:
            self.w[...] = start + length * d
            # Nobody asks any more what is behind the last iteration.
            return (loss, g, length, 0) if last else (*self.gradient(), length, 1)

        def evaluate(so_far: float) -> tuple[float, Array]:
            self.w[...] = start + so_far * d
            return self.gradient()

        search = _LineSearch(evaluate, d, loss, g, slope, self.rule.max_eval - self.evaluations)
        point = search.run(length, self.rule.tolerance_change)
        self.w[...] = start + point.length * d
        return point.loss, point.gradient, point.length, search.evaluations

    def _remember(self) -> None:
        memory = self.memory
        memory.iterations, memory.scale, memory.length = self.iterations, self.scale, self.length
        memory.steps, memory.changes = self.steps, self.changes
        memory.direction, memory.gradient = self.direction, self.last


class _Point(Record):
    """A place along the direction: loss, gradient, and the slope there."""

    length: float
    loss: float
    gradient: Array
    slope: float


class _LineSearch:
    """A length that satisfies the strong Wolfe conditions: first a bracket around one, then cubics within it."""

    def __init__(self, evaluate: Evaluate, d: Array, loss: float, g: Array, slope: float, most: int) -> None:
        self.evaluate, self.d, self.most = evaluate, d, most
        self.start = _Point(0.0, loss, g, slope)
        self.evaluations = self.rounds = 0

    def at(self, length: float) -> _Point:
        loss, g = self.evaluate(length)
        self.evaluations += 1
        return _Point(length, loss, g, float(g @ self.d))

    def falls(self, point: _Point) -> bool:
        return not point.loss > self.start.loss + _FALL * point.length * self.start.slope

    def is_flat(self, point: _Point) -> bool:
        return abs(point.slope) <= -_FLAT * self.start.slope

    def run(self, length: float, tolerance: float) -> _Point:
        bracket = self._bracket(length)
        return bracket[0] if len(bracket) == 1 else self._narrow(bracket, tolerance)

    def _bracket(self, length: float) -> list[_Point]:
        """Give a point that satisfies both conditions, or two with one between them."""
        before, point = self.start, self.at(length)
        while self.rounds < self.most:
            if not self.falls(point) or (self.rounds > 1 and point.loss >= before.loss):
                return [before, point]
            if self.is_flat(point):
                return [point]
            if point.slope >= 0:
                return [before, point]
            ends = point.length + 0.01 * (point.length - before.length), 10 * point.length
            before, point = point, self.at(_cubic(before, point, ends))
            self.rounds += 1
        return [self.start, point]

    def _narrow(self, bracket: list[_Point], tolerance: float) -> _Point:
        """Give a point that satisfies both conditions, or the lower end where the bracket cannot be made smaller."""
        low, high = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
        widest, stuck = float(np.abs(self.d).max(initial=0)), False
        while self.rounds < self.most:
            left, right = sorted(point.length for point in bracket)
            if (right - left) * widest < tolerance:
                break
            length, stuck = _away_from_the_ends(_cubic(bracket[0], bracket[1], (left, right)), left, right, stuck)
            point = self.at(length)
            self.rounds += 1
            if not self.falls(point) or point.loss >= bracket[low].loss:
                bracket[high] = point
                low, high = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
                continue
            if self.is_flat(point):
                return point
            if point.slope * (bracket[high].length - bracket[low].length) >= 0:
                bracket[high] = bracket[low]
            bracket[low] = point
        return bracket[low]


def _cubic(a: _Point, b: _Point, ends: tuple[float, float]) -> float:
    """Give the minimum of the cubic through both points with their slopes, held between the ends."""
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.length - b.length) if a.length != b.length else np.nan
    square = d1**2 - a.slope * b.slope
    if not square >= 0:
        return (ends[0] + ends[1]) / 2
    if a.length > b.length:
        a, b = b, a
    d2 = float(np.sqrt(square))
    below = b.slope - a.slope + 2 * d2
    if below == 0:
        return (ends[0] + ends[1]) / 2
    place = b.length - (b.length - a.length) * ((b.slope + d2 - d1) / below)
    return min(max(place, ends[0]), ends[1])


def _away_from_the_ends(length: float, left: float, right: float, stuck: bool) -> tuple[float, bool]:
    """Give the length, moved a tenth into the bracket where twice it was too near an end of it, and whether it was."""
    room = 0.1 * (right - left)
    if min(right - length, length - left) >= room:
        return length, False
    if not (stuck or length >= right or length <= left):
        return length, True
    return (right - room if right - length < length - left else left + room), False


class LBFGSB(Optimizer):
    """scipy's L-BFGS-B, the solver that scikit-learn's ``solver="lbfgs"`` uses: for whole data sets in one call.

    Parameters
    ----------
    max_iter, max_fun : int
        Iterations and gradients in a call, at least 1.
    tolerance_grad : float
        It ends where no element of the gradient is larger.
    tolerance_change : float
        It ends where the loss falls by a smaller part of itself.
    history_size : int
        Pairs that are kept, at least 1.

    Raises
    ------
    ImportError
        scipy is not installed: ``pip install "fastbp[scipy]"``.

    Notes
    -----
    The solver works in float64 and begins anew with each call. Ctrl-C in a call leaves the parameters as they were.

    References
    ----------
    R. H. Byrd, P. Lu, J. Nocedal and C. Zhu, A limited memory algorithm for bound constrained optimization, SIAM J.
    Sci. Comput. 16, 1995.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> net = fastbp.MLP([1, 8, 1], hidden="tanh", loss="mse", dtype="float64", seed=0)
    >>> before = net.train_step(x, x**2, fastbp.LBFGSB(max_iter=50))    # doctest: +SKIP
    """

    makes_whole_steps: ClassVar[bool] = True
    wants_all_rows: ClassVar[bool] = True

    def __init__(
        self,
        max_iter: int = 200,
        max_fun: int = 15000,
        tolerance_grad: float = 1e-5,
        tolerance_change: float = 2.2e-9,
        history_size: int = 10,
    ) -> None:
        if importlib.util.find_spec("scipy") is None:
            raise ImportError('LBFGSB needs scipy: pip install "fastbp[scipy]"')
        self.max_iter, self.max_fun = check.integer("max_iter", max_iter), check.integer("max_fun", max_fun)
        self.tolerance_grad = check.real("tolerance_grad", tolerance_grad, at_least=0)
        self.tolerance_change = check.real("tolerance_change", tolerance_change, at_least=0)
        self.history_size = check.integer("history_size", history_size)

    def step(self, net: Steppable, x: Any, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
        """Minimise the loss; give the one before."""
        from scipy.optimize import minimize

        w = net.flat_parameters
        before, losses = w.copy(), []

        def evaluate(values: Array) -> tuple[float, Array]:
            w[...] = values
            loss, grads = net.value_and_grad(x, t, sample_weight=sample_weight)
            losses.append(loss)
            return loss, grads.flat.astype(np.float64)

        options: dict[str, Any] = {"maxiter": self.max_iter, "maxfun": self.max_fun, "maxcor": self.history_size}
        options.update(gtol=self.tolerance_grad, ftol=self.tolerance_change)
        try:
            found = minimize(evaluate, before.astype(np.float64), jac=True, method="L-BFGS-B", options=options)
        except BaseException:
            w[...] = before
            raise
        w[...] = found.x
        self.state_for(net).step += 1
        return float(losses[0])
