"""Units: a forward and a backward pass that share what the one must remember for the other.

A. `Unit` is the protocol, for the package's own units and for users'. A unit works alone, in a `Network`, and where the
   network's engine runs the package's own units without calling them, the answer is that of these methods.
B. Parameters lie in dicts of arrays that are filled and never rebound: in a network they are views into its flat
   vector, alone they are the unit's own, made at their first use.
C. The classes of the activations are those of the table `fastbp.reference.ACTIVATIONS`, in `made.py`.
D. A unit that the engine can run says so: its `kind` is a name of the compiled tables, `engine_options` what the kernel
   reads, and `outputs_for` how many outputs follow from how many inputs. A subclass that computes something else has
   no kind.
E. Samples have shapes: `output_shape` follows them. Units that read images derive from `ImageUnit`, and say by
   `geometry` how their windows lie; all others see the numbers that images are.
"""

from fastbp import _config
from fastbp.units import made
from fastbp.units.base import Unit
from fastbp.units.channels import BatchNorm1d, BatchNorm2d, Dropout1d, Dropout2d, LocalResponseNorm
from fastbp.units.composites import Branches, Residual, Sequential
from fastbp.units.dense import Linear
from fastbp.units.distributions import LogSoftmax, Softmax
from fastbp.units.dropout import Dropout
from fastbp.units.embedding import Embedding
from fastbp.units.images import (
    AvgPool1d,
    AvgPool2d,
    Conv1d,
    Conv2d,
    GlobalAvgPool1d,
    GlobalAvgPool2d,
    MaxPool1d,
    MaxPool2d,
)
from fastbp.units.made import *  # noqa: F403
from fastbp.units.norms import BatchNorm, LayerNorm, RMSNorm
from fastbp.units.prelu import PReLU
from fastbp.units.shapes import Flatten

__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "Branches",
    "Conv1d",
    "Conv2d",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Embedding",
    "Flatten",
    "GlobalAvgPool1d",
    "GlobalAvgPool2d",
    "LayerNorm",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "MaxPool1d",
    "MaxPool2d",
    "PReLU",
    "RMSNorm",
    "Residual",
    "Sequential",
    "Softmax",
    "Unit",
]
__all__ += made.__all__

_config.publish(globals(), __all__)
