"""Files: networks, and a training that is to go on."""

from fastbp.io.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from fastbp.io.saving import load

__all__ = ["Checkpoint", "CheckpointError", "load", "load_checkpoint", "save_checkpoint"]
