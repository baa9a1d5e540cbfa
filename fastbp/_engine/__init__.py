"""The compiled engine: gradients, updates and predictions of a graph of units, each in one call without the GIL."""

try:
    from fastbp._engine.array_update import ArrayUpdate
except ModuleNotFoundError as error:  # the first compiled module that `import fastbp` needs
    error.add_note(
        "fastbp is not compiled in this directory: is it the clone? Start Python elsewhere, where it finds the "
        "installed package, or write pip install -e . (docs/install.md)"
    )
    raise
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
