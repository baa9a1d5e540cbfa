"""One rank's network and optimizer, on all ranks."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from fastbp import _validate as check
from fastbp._core.ranks import Communicator, Ranks
from fastbp.network import Network
from fastbp.optim import Optimizer, check_optimizer

__all__ = ["broadcast"]


def broadcast(net: Network, optimizer: Optimizer | None = None, *, comm: Communicator, root: int = 0) -> None:
    """Make a network, and an optimizer with its state, those of one rank.

    Parameters
    ----------
    net : Network
        Of the same units on every rank. Its parameters, the units' state, seed, steps and mode become the root's.
    optimizer : Optimizer, optional
        Of the same class on every rank. What it keeps for the network, and its numbers, become the root's.
    comm : Communicator
        Of all ranks that call this.
    root : int
        The rank whose network all get.

    Raises
    ------
    RankError
        The networks or the optimizers differ in more than their numbers. Nothing has been changed.

    Examples
    --------
    >>> import fastbp, fastbp.distributed
    >>> def first_bias(comm):
    ...     net = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=comm.rank)
    ...     net.biases[0][...] = comm.rank + 0.5
    ...     fastbp.distributed.broadcast(net, comm=comm)
    ...     return net.biases[0].item()
    >>> fastbp.distributed.run_in_threads(3, first_bias)
    [0.5, 0.5, 0.5]
    """
    ranks = Ranks(comm)
    with ranks.deferral:
        with ranks.together():
            if not isinstance(net, Network):
                raise TypeError(f"net must be a fastbp.Network, got {net!r} ({type(net).__name__})")
            net._check_owner()
            net._check_parameters_writable()
            if optimizer is not None:
                check_optimizer(optimizer)
            root = check.integer("root", root, 0, ranks.size - 1)
        shapes = {name: values.shape for name, values in [*net.parameters.items(), *net.state.items()]}
        text = f"{shapes} {net.dtype} {type(optimizer).__name__} {root}"
        ranks.check_same("network, optimizer or root", [zlib.crc32(text.encode())])
        ranks.comm.broadcast(net.flat_parameters, root)
        for values in net.state.values():
            ranks.comm.broadcast(values.reshape(-1), root)
        net.seed, net.steps, training = ranks.sent((net.seed, net.steps, net.training), root)
        net._set_training(training)
        if optimizer is not None:
            _send_state(ranks, net, optimizer, root)


def _send_state(ranks: Ranks, net: Network, optimizer: Optimizer, root: int) -> None:
    with ranks.together():
        state: dict[str, Any] = dict(optimizer.get_state(net)) if ranks.rank == root else {}
    arrays = {name: values for name, values in state.items() if isinstance(values, np.ndarray)}
    plain = {name: values for name, values in state.items() if name not in arrays}
    likes, plain = ranks.sent(({name: (v.shape, v.dtype) for name, v in arrays.items()}, plain), root)
    for name, (shape, dtype) in likes.items():
        values = arrays[name] if ranks.rank == root else np.empty(shape, dtype)
        flat = np.ascontiguousarray(values).reshape(-1)
        ranks.comm.broadcast(flat, root)
        arrays[name] = flat.reshape(shape)
    with ranks.together():
        if ranks.rank != root:
            optimizer.set_state(net, {**plain, **arrays})
