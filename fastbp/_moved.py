"""Modules that have moved: their old paths go on working, for `import` and in pickles.

Each old path, below ``fastbp``, is the module itself under another name. One more is one more line.
"""

from __future__ import annotations

import importlib
import sys

__all__ = ["MOVED", "keep_paths"]

MOVED = {
    "averages": "optim.averages",
    "callbacks": "training.callbacks",
    "checkpoint": "training.checkpoint",
    "data": "training.data",
    "functional_units": "functional.units",
    "gradcheck": "derivatives.gradcheck",
    "history": "training.history",
    "lbfgs": "optim.lbfgs",
    "metrics": "training.metrics",
    "optimizers": "optim",
    "optimizers.base": "optim.base",
    "optimizers.made": "optim.made",
    "per_sample": "derivatives.per_sample",
    "progress": "training.progress",
    "reference.chance": "reference.masks",
    "reference.learned": "reference.parametric",
    "reference.lookup": "reference.embeddings",
    "saving": "io.saving",
    "schedules": "optim.schedules",
    "second_order": "derivatives.second_order",
    "summary": "network.summary",
    "units.chance": "units.dropout",
    "units.learned": "units.prelu",
    "units.lookup": "units.embedding",
    "_architecture": "io._describe",  # in pickles of networks
}

# Functions that older pickles name: old name, module and new name.
RENAMED = {"revive": ("io._describe", "from_state")}


def keep_paths() -> None:
    """Make each moved module known by its old path, too."""
    for old, new in MOVED.items():
        module = importlib.import_module(f"fastbp.{new}")
        sys.modules[f"fastbp.{old}"] = module
        parent, _, name = f"fastbp.{old}".rpartition(".")
        setattr(sys.modules[parent], name, module)
    for old, (module_name, new) in RENAMED.items():
        module = importlib.import_module(f"fastbp.{module_name}")
        setattr(module, old, getattr(module, new))
