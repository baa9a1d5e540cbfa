"""Multi-layer perceptrons, by their sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from fastbp import _validate as check
from fastbp import initializers, losses, units
from fastbp._assign import fixed
from fastbp.losses import Loss, RuleLoss
from fastbp.network._network import Network
from fastbp.reference import ACTIVATIONS, UNITS
from fastbp.units import Linear, Unit

__all__ = ["HIDDEN_UNITS", "MLP"]

# What a hidden layer may have by its name alone, beside the activations.
HIDDEN_UNITS = ("prelu", "softmax", "log_softmax")


class MLP(Network):
    """A multi-layer perceptron: linear units with an activation between each two.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden units of each layer, outputs. Two sizes make a linear model.
    hidden : str, Unit, or sequence of these
        The activation after every hidden layer, or one for each: a name such as "relu", or a unit such as
        ``fastbp.LeakyReLU(slope=0.1)``, of which every layer gets its own.
    loss : str or Loss
        The name of a loss, with its defaults: "softmax_nll", "sigmoid_nll", "mse", "huber", ...; or a `Loss`.
    dtype : {"float32", "float64"}
        Of parameters, inputs and gradients.
    init : str, optional
        How the weights begin, a name that `fastbp.initializers` knows; None: the usual one for the activation that
        follows.
    seed : int, optional
        Of the initial weights; None: another one each time.
    l1, l2 : float
        Penalties on the weights, as `Network`'s.
    classes : array_like, optional
        The labels that `predict` returns, as `Network`'s.
    metadata : dict of str to object, optional
        Notes of your own, as `Network`'s.

    Raises
    ------
    TypeError, ValueError
        Fewer than two sizes, a size that is no positive integer, or an unknown name.

    Examples
    --------
    >>> import fastbp
    >>> net = fastbp.MLP([784, 256, 10], hidden="sigmoid", seed=0)
    >>> net.n_parameters
    203530
    >>> fastbp.MLP([3, 1], loss="sigmoid_nll")      # logistic regression
    MLP([3, 1], hidden='relu', loss='sigmoid_nll', dtype='float32')
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        hidden: str | Unit | Sequence[str | Unit] = "relu",
        loss: str | Loss = "softmax_nll",
        dtype: DTypeLike = "float32",
        init: str | None = None,
        seed: int | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        classes: ArrayLike | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        made = _hidden_units(hidden)
        loss = losses.checked_loss(loss)
        # Names before sizes: what the chain's own checks would say too late.
        if init is not None:
            initializers.lookup(init)
        check.float_dtype("dtype", dtype)
        vars(self).update(sizes=_check_sizes(sizes), hidden=hidden, init=init)
        layers = len(self.sizes) - 2
        if not isinstance(made, Unit) and len(made) != layers:
            raise ValueError(f"hidden has {len(made)} entries, expected {layers}: one for each hidden layer")
        chain: list[Unit] = []
        for i, (n_in, n_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            chain.append(Linear(n_in, n_out, init=init))
            if i < layers:
                chain.append(made.fresh() if isinstance(made, Unit) else made[i].fresh())
        super().__init__(*chain, loss=loss, dtype=dtype, seed=seed, l1=l1, l2=l2, classes=classes, metadata=metadata)

    @fixed
    def sizes(self) -> tuple[int, ...]:
        """The numbers of inputs, of each hidden layer's units, and of outputs."""
        sizes: tuple[int, ...] = vars(self)["sizes"]
        return sizes

    @fixed
    def hidden(self) -> str | Unit | Sequence[str | Unit]:
        """The activation of the hidden layers, as given."""
        hidden: str | Unit | Sequence[str | Unit] = vars(self)["hidden"]
        return hidden

    @fixed
    def init(self) -> str | None:
        """How the weights began, as given."""
        init: str | None = vars(self)["init"]
        return init

    @classmethod
    def _least_numbers(cls, values: Mapping[str, Any]) -> int:
        wanted, sizes = super()._least_numbers(values), values.get("sizes")
        if isinstance(sizes, list) and all(type(size) is int and size > 0 for size in sizes):
            wanted += sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))
        return wanted

    def __repr__(self) -> str:
        loss = repr(self.loss)
        if isinstance(self.loss, RuleLoss):
            rule = self.loss.rule
            if type(self.loss) is getattr(losses, rule.unit, None) and loss == f"{rule.unit}()":
                loss = repr(rule.name)
        return f"MLP({list(self.sizes)}, hidden={self.hidden!r}, loss={loss}, dtype={self.dtype.name!r})"


def _hidden_units(hidden: Any) -> Unit | list[Unit]:
    """Return the unit that every hidden layer gets a fresh one of, or one for each."""
    if isinstance(hidden, str | Unit):
        return _hidden_unit("hidden", hidden)
    if not isinstance(hidden, Sequence):
        raise TypeError(f"hidden must be a name, a unit, or a sequence of these, got {hidden!r}")
    return [_hidden_unit(f"hidden[{i}]", entry) for i, entry in enumerate(hidden)]


def _hidden_unit(name: str, entry: Any) -> Unit:
    if isinstance(entry, Unit):
        return entry
    known = {rule: ACTIVATIONS[rule].unit for rule in ACTIVATIONS} | {rule: UNITS[rule].unit for rule in HIDDEN_UNITS}
    made: Unit = getattr(units, known[check.choice(name, entry, known)])()
    return made


def _check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if isinstance(sizes, str | bytes) or not hasattr(sizes, "__iter__"):
        raise TypeError(f"sizes must be a sequence of integers, got {sizes!r}")
    checked = tuple(check.integer(f"sizes[{i}]", size) for i, size in enumerate(sizes))
    if len(checked) < 2:
        raise ValueError(f"sizes must have at least two entries, inputs and outputs, got {list(checked)}")
    return checked
