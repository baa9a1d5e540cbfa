"""Networks: a chain of units with a loss, their parameters in one flat array."""

from fastbp.network._network import MLP, Gradients, Network
from fastbp.network._network import _with_values as _with_values  # old pickles name it here
from fastbp.network.summary import Summary

__all__ = ["MLP", "Gradients", "Network", "Summary"]
