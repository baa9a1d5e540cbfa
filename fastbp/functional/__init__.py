"""The kernels, function by function: numpy arrays in, numpy arrays out.

`products` has the matrix products and softmax, `units` the units with parameters or random numbers, `made` the
activations and losses, which are written from the tables of `fastbp.reference`.
"""

from fastbp.functional import made, products, units
from fastbp.functional.made import *  # noqa: F403
from fastbp.functional.products import *  # noqa: F403
from fastbp.functional.units import *  # noqa: F403

__all__ = [*made.__all__, *products.__all__, *units.__all__]

for _name in __all__:
    globals()[_name].__module__ = __name__  # the path that pickle stores and that help shows
del _name
