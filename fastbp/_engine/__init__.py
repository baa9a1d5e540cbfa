"""The compiled engine: gradients, updates and predictions of a graph of units, each in one call without the GIL."""

from fastbp._engine.engine import CallLock, Engine
from fastbp._engine.parameters import Parts, Table, Update, optimizer_update, square_sums, updates
from fastbp._ops.csr import SparseRows, count_entries

__all__ = [
    "CallLock",
    "Engine",
    "Parts",
    "SparseRows",
    "Table",
    "Update",
    "count_entries",
    "optimizer_update",
    "square_sums",
    "updates",
]
