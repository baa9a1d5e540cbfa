"""fastbp: the gradients of neural networks on the CPU, fast.

Kernels on numpy arrays (`linear`, `softmax_nll`, ...), networks (`MLP`, `Network`), training (`train`, `SGD`, `Adam`),
and a checker of gradients (`check_gradients`). The performance-critical parts are typed Cython, chosen at import for
the processor.
"""

from fastbp import _moved, derivatives, dropin, functional, losses, models, network, optim, training, units
from fastbp._missing import ConvTranspose1d, ConvTranspose2d, Upsample, conv_transpose1d, conv_transpose2d  # noqa: F401
from fastbp._version import __version__
from fastbp._warnings import FastbpWarning
from fastbp.derivatives import *  # noqa: F403
from fastbp.dropin import *  # noqa: F403
from fastbp.functional import *  # noqa: F403
from fastbp.losses import *  # noqa: F403
from fastbp.network import *  # noqa: F403
from fastbp.optim import *  # noqa: F403
from fastbp.optim import schedules
from fastbp.runtime import config, get_num_threads, set_num_threads, threads
from fastbp.training import *  # noqa: F403
from fastbp.units import *  # noqa: F403

__all__ = ["FastbpWarning", "__version__", "config", "get_num_threads", "models", "schedules"]
__all__ += ["set_num_threads", "threads"]
__all__ += derivatives.__all__
__all__ += dropin.__all__
__all__ += functional.__all__
__all__ += losses.__all__
__all__ += network.__all__
__all__ += optim.__all__
__all__ += training.__all__
__all__ += units.__all__

_moved.keep_paths()
