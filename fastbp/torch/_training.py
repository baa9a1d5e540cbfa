"""`train`: whole steps in the engine, forward, loss, backward and update, for a module of PyTorch.

A. The module's values go into a network once, and come back after each epoch, also when an exception ends it.
B. The batches are the loader's. Of a plain `DataLoader` over a `TensorDataset` only the indices are asked for, in the
   same order from the same random numbers: it would take longer to collect the rows one by one than to train on them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, TensorDataset, default_collate

from fastbp import _validate as check
from fastbp.losses import Loss
from fastbp.network import Network
from fastbp.optim import Optimizer
from fastbp.torch import _converting
from fastbp.torch._optimizers import Counterpart
from fastbp.torch._passes import within_limit

__all__ = ["train"]


def train(
    module: nn.Module,
    loader: Iterable[Any],
    loss: Any,
    optimizer: torch.optim.Optimizer | Optimizer,
    *,
    epochs: int = 1,
) -> list[float]:
    """Train a module of PyTorch by whole steps in fastbp's engine.

    Parameters
    ----------
    module : torch.nn.Sequential
        As for `from_module`. Its mode counts: call ``module.train()`` before.
    loader : iterable of (x, t)
        Batches of inputs and targets, tensors on the CPU: a `torch.utils.data.DataLoader`, or a list. It is iterated
        once an epoch.
    loss : torch.nn.Module, function, str or Loss
        PyTorch's `CrossEntropyLoss`, `MSELoss`, `L1Loss`, `HuberLoss`, `SmoothL1Loss`, `BCEWithLogitsLoss` or
        `PoissonNLLLoss`, with ``reduction`` "mean" or "sum"; functions such as ``torch.nn.functional.mse_loss``; or a
        loss of fastbp's, whose mean is over the rows.
    optimizer : torch.optim.Optimizer or Optimizer
        PyTorch's SGD, Adam, AdamW, RMSprop or Adagrad over parameters of the module, with groups; its state is taken
        over and brought back, so that either may go on. Or an optimizer of fastbp's.
    epochs : int
        How often the loader is iterated.

    Returns
    -------
    list of float
        The mean of the batches' losses before their steps, weighted by their rows, of each epoch.

    Raises
    ------
    TypeError, ValueError
        The module, the loss or the optimizer is none that fastbp has, or a batch does not fit. The message says what.
    FloatingPointError
        A loss is not finite. The module and PyTorch's optimizer are as they were before that epoch.

    Notes
    -----
    Parameters that are not in the optimizer, or have ``requires_grad=False``, stay as they are. The module's parameters
    are those of the training after each epoch, not within it; their ``grad`` is not touched. Dropout draws fastbp's
    random numbers, from a seed that PyTorch's generator gives. Hooks, schedulers within an epoch and gradient
    accumulation need a loop of your own, with `accelerate`.

    Examples
    --------
    >>> import torch, fastbp.torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
    >>> batches = [(torch.ones(8, 4), torch.zeros(8, dtype=torch.int64))]
    >>> optimizer = torch.optim.Adam(model.parameters())
    >>> losses = fastbp.torch.train(model, batches, nn.CrossEntropyLoss(), optimizer, epochs=3)
    >>> losses[0] > losses[2]
    True
    """
    epochs = check.integer("epochs", epochs, 0)
    run: Run | None = None
    made: list[float] = []
    for _ in range(epochs):
        total, rows = 0.0, 0
        try:
            for x, t in _batches(loader):
                if run is None:
                    run = Run(module, loss, optimizer, x)
                total += run.step(x, t) * len(x)
                rows += len(x)
        except FloatingPointError:
            NETWORKS.pop(module, None)  # its parameters are no numbers any more
            raise
        except BaseException:
            if run is not None:
                run.bring_back()
            raise
        if run is not None:
            run.bring_back()
        if not rows:
            raise ValueError("loader gives no batch")
        made.append(total / rows)
    return made


# ---- batches ---------------------------------------------------------------------------------------------------------


def _batches(loader: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Iterate over the batches as arrays."""
    if _is_plain(loader):
        yield from _plain_batches(loader)
        return
    for batch in loader:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            came = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
            raise TypeError(f"loader must give pairs (x, t), got {came}")
        yield _array("x", batch[0]), _array("t", batch[1])


def _array(name: str, values: Any) -> Any:
    if not isinstance(values, torch.Tensor):
        return values
    if not values.is_cpu:
        raise ValueError(f"{name} is on {values.device}, expected the CPU: write {name}.cpu()")
    return values.detach().numpy()


def _is_plain(loader: Any) -> bool:
    """Return whether a loader's batches are rows of whole tensors, by indices."""
    return (
        type(loader) is DataLoader
        and type(loader.dataset) is TensorDataset
        and len(loader.dataset.tensors) == 2
        and all(values.is_cpu for values in loader.dataset.tensors)
        and type(loader.batch_sampler) is BatchSampler
        and loader.num_workers == 0
        and loader.collate_fn is default_collate
        and not loader.pin_memory
    )


def _plain_batches(loader: Any) -> Iterator[tuple[Any, Any]]:
    x, t = (_array("x", values) for values in loader.dataset.tensors)
    # DataLoader's iterator draws the seed of its workers first, also where it has none.
    torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
    for indices in loader.batch_sampler:
        rows = np.array(indices)
        yield x[rows], t[rows]


# ---- the network behind a module -------------------------------------------------------------------------------------

NETWORKS: weakref.WeakKeyDictionary[nn.Module, tuple[Any, Network]] = weakref.WeakKeyDictionary()


class Run:
    """A training: the network that has the module's values, and the optimizer.

    Parameters
    ----------
    module, loss, optimizer
        As for `train`.
    x : ndarray
        The first batch's inputs: it has the shape of the samples.
    """

    def __init__(self, module: nn.Module, loss: Any, optimizer: Any, x: Any) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
        self.module = module
        self.net, self.reduction = _network(module, loss, tuple(np.shape(x)[1:]))
        places, names = _converting.places_of(module), _converting.names_of(self.net)
        named = {names[places[name]]: p for name, p in module.named_parameters()}
        self.counterpart: Counterpart | None = None
        self._freeze(named, optimizer)
        self.optimizer = optimizer
        if isinstance(optimizer, torch.optim.Optimizer):
            self.counterpart = Counterpart(optimizer, named, _converting.turned_in(self.net))
            self.counterpart.read(self.net)
            self.optimizer = self.counterpart.ours
        elif not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be torch's or fastbp's, got {type(optimizer).__name__}")

    def _freeze(self, named: dict[str, Any], optimizer: Any) -> None:
        """Keep what is not trained: without ``requires_grad``, or in no group of PyTorch's optimizer."""
        kept = {name for name, p in named.items() if not p.requires_grad}
        if isinstance(optimizer, torch.optim.Optimizer):
            has = {id(p) for group in optimizer.param_groups for p in group["params"]}
            kept |= {name for name, p in named.items() if id(p) not in has}
        kept |= {name for name in self.net.parameters if name not in named}
        if set(self.net.frozen) != kept:
            self.net.unfreeze()
            if kept:
                self.net.freeze(*kept)

    def step(self, x: Any, t: Any) -> float:
        """Make one step; return the loss before it."""
        loss: float = within_limit(self._step, x, t)
        if loss - loss != 0:  # of a loss that is not finite
            raise FloatingPointError(f"the loss is {loss}: a smaller learning rate, or scaled inputs")
        return loss

    def _step(self, x: Any, t: Any) -> float:
        return self.net.train_step(x, t, self.optimizer, reduction=self.reduction)

    def bring_back(self) -> None:
        """Write the network's values into the module, and the optimizer's state into PyTorch's."""
        _converting.bring_back(self.net, self.module)
        if self.counterpart is not None:
            self.counterpart.write(self.net)


def _network(module: nn.Module, loss: Any, shape: tuple[int, ...]) -> tuple[Network, str]:
    """Return a network with the module's values; the one that it had before, where that still computes the same."""
    input_shape = shape if len(shape) > 1 else None
    key = (repr(module), input_shape, _key(loss), [(p.shape, p.dtype) for p in module.parameters()])
    if (known := NETWORKS.get(module)) is not None and known[0] == key:
        net = known[1]
        net._set_training(module.training)
        _converting.take_values(net, module)
        return net, _reduction(loss)
    net = _converting.from_module(module, loss=loss, input_shape=input_shape, seed=_seed(module))
    NETWORKS[module] = key, net
    return net, _reduction(loss)


def _key(loss: Any) -> Any:
    """Return what a loss is known again by; one with weights, which may be changed in place, is always another one."""
    if isinstance(loss, nn.Module) and any(isinstance(value, torch.Tensor) for value in loss._buffers.values()):
        return object()
    return (id(loss), repr(loss)) if isinstance(loss, Loss | nn.Module) else loss


def _reduction(loss: Any) -> str:
    return getattr(loss, "reduction", "mean") if isinstance(loss, nn.Module) else "mean"


def _seed(module: nn.Module) -> int | None:
    """Return a seed that PyTorch's generator gives, where the module draws random numbers."""
    chance = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)
    if not any(isinstance(inner, chance) for inner in module.modules()):
        return 0
    return int(torch.randint(0, 2**62, ()).item())
