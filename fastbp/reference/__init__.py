"""The numpy twin of every compiled kernel: same name, same arguments, formulas as on the blackboard.

A. Every kernel of `fastbp.functional` has its twin here, and the compiled one must agree with it. So a twin is written
   to be read and to be right at the ends of the range (±inf, logits of ±1e30, NaN), not to be fast.
B. A twin computes in the dtype that it is given. The tests give it a wider one (float64 for a float32 kernel, long
   double for a float64 one), so that the twin's own rounding does not count.
C. Two tables, `ACTIVATIONS` and `LOSSES`, say what there is. Public functions, unit and loss classes, tests and
   benchmarks are made from them: one more activation or loss is one more entry with its two functions.
D. One file a family.
E. Only light checks: whoever wants errors that explain themselves calls `fastbp.functional`.
"""

from fastbp.reference.activations import (
    ACTIVATIONS,
    Activation,
    identity,
    identity_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    tanh,
    tanh_backward,
)
from fastbp.reference.distributions import log_softmax, log_softmax_backward, softmax, softmax_backward
from fastbp.reference.losses import (
    LOSSES,
    LossRule,
    gaussian_nll,
    hinge,
    huber,
    kl_div,
    mae,
    mse,
    poisson_nll,
    quantile,
    sigmoid_nll,
    softmax_nll,
    squared_hinge,
)
from fastbp.reference.optimizers import adam_step, sgd_step
from fastbp.reference.products import linear, linear_backward, matmul, matmul_backward

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "Activation",
    "LossRule",
    "adam_step",
    "gaussian_nll",
    "hinge",
    "huber",
    "identity",
    "identity_backward",
    "kl_div",
    "linear",
    "linear_backward",
    "log_softmax",
    "log_softmax_backward",
    "mae",
    "matmul",
    "matmul_backward",
    "mse",
    "poisson_nll",
    "quantile",
    "relu",
    "relu_backward",
    "sgd_step",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_nll",
    "softmax",
    "softmax_backward",
    "softmax_nll",
    "squared_hinge",
    "tanh",
    "tanh_backward",
]
