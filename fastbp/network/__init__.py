"""Networks: a chain of units with a loss, their parameters in one flat array."""

from fastbp import _config
from fastbp._core.gradients import Gradients
from fastbp._core.gradients import _with_values as _with_values  # old pickles name it here
from fastbp.network._mlp import MLP
from fastbp.network._network import Network, from_onnx, load
from fastbp.network.drawing import Drawing, draw
from fastbp.network.summary import Summary

__all__ = ["MLP", "Drawing", "Gradients", "Network", "Summary", "draw", "from_onnx", "load"]

_config.publish(globals(), __all__)
