"""The compiled engine: gradients, updates and predictions of a graph of units, each in one call without the GIL."""

from fastbp._engine.array_update import ArrayUpdate
from fastbp._engine.engine import Engine
from fastbp._engine.exchange import Pieces
from fastbp._engine.parameters import Parts, Table, Update, optimizer_update, square_sums, updates
from fastbp._ops.csr import SparseRows, count_entries
from fastbp._runtime.lock import CallLock

__all__ = [
    "ArrayUpdate",
    "CallLock",
    "Engine",
    "Parts",
    "Pieces",
    "SparseRows",
    "Table",
    "Update",
    "count_entries",
    "optimizer_update",
    "square_sums",
    "updates",
]
