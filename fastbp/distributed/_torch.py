"""Ranks that are processes of torch.distributed."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

__all__ = ["torch"]

Array = NDArray[Any]


class TorchHandle:
    """A sum that torch.distributed computes."""

    def __init__(self, work: Any) -> None:
        self._work, self._is_over = work, False

    def test(self) -> bool:
        """Return whether the sum is there: torch's own threads compute it."""
        if not self._is_over and self._work.is_completed():
            self.wait()
        return self._is_over

    def wait(self) -> None:
        """Wait for it."""
        if not self._is_over:
            self._work.wait()
            self._is_over = True


class TorchCommunicator:
    """One of the processes of a group of torch.distributed."""

    def __init__(self, group: Any) -> None:
        import torch
        import torch.distributed as dist

        self._torch, self._dist, self._group = torch, dist, group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def allreduce(self, buffer: Array) -> None:
        """Replace a buffer by the sum over all ranks."""
        self.start_allreduce(buffer).wait()

    def start_allreduce(self, buffer: Array) -> TorchHandle:
        """Begin to replace a buffer by the sum over all ranks."""
        tensor = self._torch.from_numpy(buffer)  # the same memory
        return TorchHandle(self._dist.all_reduce(tensor, group=self._group, async_op=True))

    def broadcast(self, buffer: Array, root: int) -> None:
        """Replace a buffer by that of one rank."""
        if len(buffer) == 0:
            return
        tensor = self._torch.from_numpy(buffer)
        self._dist.broadcast(tensor, group=self._group, group_src=root)

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.size}, over torch.distributed>"


def torch(group: Any = None) -> TorchCommunicator:
    """Return the communicator of the processes of torch.distributed, which a program has initialised.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup, optional
        With the backend gloo; None: the default group.

    Returns
    -------
    Communicator
        Sums are in place, in the memory of numpy's arrays.

    Raises
    ------
    ImportError
        torch is not installed: ``pip install "fastbp[torch]"``.
    RuntimeError
        ``torch.distributed.init_process_group("gloo")`` was not called.
    ValueError
        The group's backend is no gloo, which alone works in the processor's memory.

    References
    ----------
    S. Li et al., "PyTorch distributed: experiences on accelerating data parallel training", VLDB 2020.

    Examples
    --------
    >>> import torch.distributed                                  # doctest: +SKIP
    >>> torch.distributed.init_process_group("gloo")              # doctest: +SKIP
    >>> comm = fastbp.distributed.torch()                         # doctest: +SKIP
    """
    try:
        import torch.distributed as dist
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'fastbp.distributed.torch needs torch: pip install "fastbp[torch]"', name=error.name
        ) from None
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError('call torch.distributed.init_process_group("gloo") before fastbp.distributed.torch()')
    backend = dist.get_backend(group)
    if "gloo" not in str(backend):
        raise ValueError(f"the group's backend is {backend!r}, expected gloo: it alone works in the processor's memory")
    return TorchCommunicator(group)
