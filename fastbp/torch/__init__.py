"""PyTorch's modules on fastbp's engine, and networks of the one as those of the other.

`accelerate` lets the engine compute what it can of a module in place; `train` makes whole steps in it; `from_module`,
`to_module`, `state_dict` and `load_state_dict` convert, bit for bit. It is imported when asked for, by ``import
fastbp.torch``: fastbp itself does not import PyTorch.
"""

try:
    import torch as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("fastbp.torch needs PyTorch: pip install torch", name=error.name) from None

from fastbp.torch._accelerating import accelerate, chains, restore
from fastbp.torch._converting import from_module, load_state_dict, state_dict, to_module
from fastbp.torch._training import train

__all__ = ["accelerate", "chains", "from_module", "load_state_dict", "restore", "state_dict", "to_module", "train"]
