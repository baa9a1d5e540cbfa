"""Training: the loop over epochs and batches, its data, metrics, callbacks, history and progress."""

from fastbp.training._loop import train
from fastbp.training.callbacks import BatchInfo, Callback, EarlyStopping, StopTraining
from fastbp.training.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from fastbp.training.history import History
from fastbp.training.many import fit_many
from fastbp.training.metrics import Metric

__all__ = [
    "BatchInfo",
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "EarlyStopping",
    "History",
    "Metric",
    "StopTraining",
    "fit_many",
    "load_checkpoint",
    "save_checkpoint",
    "train",
]
