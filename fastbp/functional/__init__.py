"""The kernels, function by function: arrays in, numpy arrays out.

Arguments are what numpy makes arrays of float32 or float64 of: arrays of any strides, lists, and the arrays and tensors
of other libraries in the processor's memory, read where they lie. Several dtypes are promoted: the result has float64
where one argument has, otherwise float32. Integers and bools beside floats take the floats' dtype (numpy makes float64
of int64 beside float32). What has another dtype than the result is copied. ``out`` must have the result's dtype.

`products` has the matrix products and softmax, `convolutions` and `pooling` have windows over images, `images` a norm
across channels and padding, `units` the units with parameters or random numbers, `made` the activations and losses,
written from the tables of `fastbp.reference`.
"""

from fastbp.functional import convolutions, images, made, pooling, products, units
from fastbp.functional.convolutions import *  # noqa: F403
from fastbp.functional.images import *  # noqa: F403
from fastbp.functional.made import *  # noqa: F403
from fastbp.functional.pooling import *  # noqa: F403
from fastbp.functional.products import *  # noqa: F403
from fastbp.functional.units import *  # noqa: F403

__all__ = [*convolutions.__all__, *images.__all__, *made.__all__, *pooling.__all__, *products.__all__, *units.__all__]

for _name in __all__:
    globals()[_name].__module__ = __name__  # the path that pickle stores and that help shows
del _name
