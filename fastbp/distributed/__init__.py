"""Training on several processes, of one machine or of many: the answer is that of one process with all rows.

`mpi` gives a communicator over MPI, for networks, `fastbp.train` and (under `using`) the scikit-learn estimators;
`torch` one over `torch.distributed`, `run_in_threads` one of threads in one process, for tests. Anything that has the
methods of `Communicator` serves as well. `train_dask` trains on the workers of a dask cluster.

Examples
--------
>>> import fastbp, fastbp.distributed, numpy as np
>>> x, t = np.linspace(-1, 1, 8)[:, None], np.linspace(-1, 1, 8)[:, None] ** 2
>>> def train(comm):
...     net = fastbp.MLP([1, 8, 1], hidden="tanh", loss="mse", dtype="float64", seed=0)
...     fastbp.train(net, x, t, optimizer=fastbp.Adam(), epochs=3, batch_size=4, comm=comm)
...     return net.loss_value(x, t)
>>> alone, (first, second) = train(None), fastbp.distributed.run_in_threads(2, train)
>>> first == second, round(abs(first - alone), 12)
(True, 0.0)
"""

from fastbp._core.ranks import Communicator, Handle, RankError, using
from fastbp.distributed._broadcast import broadcast
from fastbp.distributed._dask import train_dask
from fastbp.distributed._mpi import mpi
from fastbp.distributed._threads import run_in_threads
from fastbp.distributed._torch import torch

__all__ = ["Communicator", "Handle", "RankError", "broadcast", "mpi", "run_in_threads", "torch", "train_dask", "using"]
