"""PyTorch's modules and the units that compute the same: one `Rule` a module, in both directions.

A. A rule makes a unit from a module and the shape of a sample, if that is known; where no unit computes the same it
   raises `Untaken`, whose message says why. The module's class must be PyTorch's own: a subclass may do anything.
B. `settings` are the attributes that the unit was made from: who keeps a unit for a module looks at them again.
C. A unit becomes a module by the first rule that knows its class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from fastbp import units
from fastbp.units import Unit
from fastbp.units.base import Shape

__all__ = ["RULES", "Rule", "Untaken", "module_of", "rule_of", "unit_of"]


class Untaken(ValueError):
    """The engine has no unit that computes what a module does; the message says why."""


class Rule(NamedTuple):
    """A module and the unit that computes the same.

    Attributes
    ----------
    module
        PyTorch's class.
    unit
        The unit of a module, for samples of a shape that may not be known.
    settings
        The module's attributes that the unit follows from.
    units
        The classes of units that become this module, and how.
    back
        The module of a unit.
    each_row
        Whether each vector along the last axis is computed alone, so that any axes may come before it.
    """

    module: type[nn.Module]
    unit: Callable[[Any, Shape | None], Unit]
    settings: tuple[str, ...] = ()
    units: tuple[type[Unit], ...] = ()
    back: Callable[[Any], nn.Module] | None = None
    each_row: bool = False


def refuse(reason: str) -> Any:
    """Raise `Untaken`."""
    raise Untaken(reason)


def hold(module: nn.Module, **wanted: Any) -> None:
    """Raise `Untaken` unless the module's attributes have the values that the unit's rule is for."""
    for name, value in wanted.items():
        if (given := getattr(module, name)) != value:
            refuse(f"has {name}={given!r}; the engine has {name}={value!r} alone")


def one(sizes: Any) -> int:
    """Return the only size of an axis that PyTorch has as a number or as a tuple of one."""
    return int(sizes[0] if isinstance(sizes, tuple) else sizes)


def rows(shape: Shape | None) -> bool:
    """Return whether samples are rows of numbers, or may be."""
    return shape is None or len(shape) == 1


# ---- linear units and what learns ------------------------------------------------------------------------------------


def linear(module: nn.Linear, shape: Shape | None) -> Unit:
    return units.Linear(module.in_features, module.out_features)


def linear_back(unit: units.Linear) -> nn.Module:
    return nn.Linear(unit.n_in, unit.n_out)


def convolution(cls: type[Unit]) -> Callable[[Any, Shape | None], Unit]:
    def make(module: Any, shape: Shape | None) -> Unit:
        hold(module, padding_mode="zeros")
        options = {name: getattr(module, name) for name in ("stride", "padding", "dilation", "groups")}
        bias = module.bias is not None
        return cls(module.in_channels, module.out_channels, module.kernel_size, bias=bias, **options)  # type: ignore[call-arg]

    return make


def symmetric(unit: Any) -> Any:
    """Return the padding as PyTorch takes it."""
    padding = unit.padding
    if isinstance(padding, int | str):
        return padding
    sizes = [size if isinstance(size, int) else size[0] for size in padding]
    if any(not isinstance(size, int) and size[0] != size[1] for size in padding):
        refuse(f"{unit!r} pads the two ends of an axis differently, which no module of torch does")
    return tuple(sizes)


def convolution_back(cls: type[nn.Module]) -> Callable[[Any], nn.Module]:
    def make(unit: Any) -> nn.Module:
        options = {name: getattr(unit, name) for name in ("stride", "dilation", "groups")}
        bias = "bias" in unit.parameter_shapes()
        return cls(unit.in_channels, unit.out_channels, unit.size, padding=symmetric(unit), bias=bias, **options)

    return make


def batch_norm(module: Any, shape: Shape | None) -> Unit:
    hold(module, affine=True, track_running_stats=True)
    if module.momentum is None:
        refuse("has momentum=None, a cumulative average; the engine has a number alone")
    if isinstance(module, nn.BatchNorm2d):
        return units.BatchNorm2d(module.num_features, module.eps, module.momentum)
    cls = units.BatchNorm if rows(shape) else units.BatchNorm1d
    return cls(module.num_features, module.eps, module.momentum)


def batch_norm_back(cls: type[nn.Module]) -> Callable[[Any], nn.Module]:
    return lambda unit: cls(unit.n, eps=unit.eps, momentum=unit.momentum)


def single_axis(module: Any) -> int:
    if len(module.normalized_shape) != 1:
        refuse(f"normalises over {module.normalized_shape}; the engine normalises the last axis alone")
    return int(module.normalized_shape[0])


def layer_norm(module: nn.LayerNorm, shape: Shape | None) -> Unit:
    if module.elementwise_affine and module.bias is None:
        refuse("has a weight and no bias; the engine has both or none")
    return units.LayerNorm(single_axis(module), module.eps, module.elementwise_affine)


def rms_norm(module: nn.RMSNorm, shape: Shape | None) -> Unit:
    hold(module, elementwise_affine=True)
    return units.RMSNorm(single_axis(module), module.eps)


def embedding(module: nn.Embedding, shape: Shape | None) -> Unit:
    hold(module, padding_idx=None, max_norm=None, scale_grad_by_freq=False, sparse=False)
    return units.Embedding(module.num_embeddings, module.embedding_dim)


def embedding_back(unit: units.Embedding) -> nn.Module:
    if unit.columns is not None:
        refuse(f"{unit!r} passes some columns as they are, which no module of torch does")
    return nn.Embedding(unit.n_codes, unit.width)


# ---- images ----------------------------------------------------------------------------------------------------------


def max_pool(cls: type[Unit]) -> Callable[[Any, Shape | None], Unit]:
    def make(module: Any, shape: Shape | None) -> Unit:
        hold(module, ceil_mode=False, return_indices=False)
        if module.dilation not in (1, (1,), (1, 1)):
            refuse(f"has dilation={module.dilation!r}; the engine has dilation=1 alone")
        return cls(module.kernel_size, stride=module.stride, padding=module.padding)  # type: ignore[call-arg]

    return make


def avg_pool(cls: type[Unit]) -> Callable[[Any, Shape | None], Unit]:
    def make(module: Any, shape: Shape | None) -> Unit:
        hold(module, ceil_mode=False)
        if getattr(module, "divisor_override", None) is not None:
            refuse("has divisor_override, which the engine has not")
        counted = module.count_include_pad
        return cls(module.kernel_size, stride=module.stride, padding=module.padding, count_include_pad=counted)  # type: ignore[call-arg]

    return make


def pool_back(cls: type[nn.Module], *more: str) -> Callable[[Any], nn.Module]:
    def make(unit: Any) -> nn.Module:
        options = {name: getattr(unit, name) for name in more}
        return cls(unit.size, stride=unit.stride, padding=_no_string(unit), **options)

    return make


def _no_string(unit: Any) -> Any:
    padding = symmetric(unit)
    if padding == "same":
        refuse(f'{unit!r} has padding="same", which no pooling of torch has: give numbers')
    return 0 if padding == "valid" else padding


def adaptive(cls: type[Unit], dims: int) -> Callable[[Any, Shape | None], Unit]:
    def make(module: Any, shape: Shape | None) -> Unit:
        if module.output_size not in (1, (1,), (1,) * dims):
            refuse(f"has output_size={module.output_size!r}; the engine has output_size=1 alone")
        if getattr(module, "return_indices", False):
            refuse("returns indices, which the engine does not")
        if shape is None or len(shape) != dims + 1:
            refuse("reads images whose size is not known here: pass input_shape=")
        assert shape is not None
        return cls(shape[1:])  # type: ignore[call-arg]

    return make


def global_back(pool: type[nn.Module]) -> Callable[[Any], nn.Module]:
    return lambda unit: nn.Sequential(pool(1), nn.Flatten())


# ---- shapes, chance, distributions -----------------------------------------------------------------------------------


def flatten(module: nn.Flatten, shape: Shape | None) -> Unit:
    hold(module, start_dim=1, end_dim=-1)
    return units.Flatten()


def dropout(cls: type[Unit]) -> Callable[[Any, Shape | None], Unit]:
    return lambda module, shape: cls(module.p)  # type: ignore[call-arg]


def distribution(cls: type[Unit]) -> Callable[[Any, Shape | None], Unit]:
    def make(module: Any, shape: Shape | None) -> Unit:
        if module.dim not in (-1, 1):
            refuse(f"has dim={module.dim!r}; the engine has the last axis alone: write dim=-1")
        return cls()

    return make


# ---- activations -----------------------------------------------------------------------------------------------------


def plain(cls: type[Unit], **wanted: Any) -> Callable[[Any, Shape | None], Unit]:
    def make(module: Any, shape: Shape | None) -> Unit:
        hold(module, **wanted)
        return cls()

    return make


def optioned(cls: type[Unit], attribute: str) -> Callable[[Any, Shape | None], Unit]:
    return lambda module, shape: cls(getattr(module, attribute))  # type: ignore[call-arg]


def activation(cls: type[nn.Module], unit: type[Unit], attribute: str = "", option: str = "", **wanted: Any) -> Rule:
    """Return the rule of an activation with no option, or with one."""
    if attribute:
        back = lambda made: cls(**{attribute: getattr(made, option)})  # noqa: E731
        return Rule(cls, optioned(unit, attribute), (attribute,), (unit,), back, True)
    return Rule(cls, plain(unit, **wanted), tuple(wanted), (unit,), lambda made: cls(**wanted), True)


def gelu(module: nn.GELU, shape: Shape | None) -> Unit:
    return units.GELU() if module.approximate == "none" else units.GELUTanh()


def softplus(module: nn.Softplus, shape: Shape | None) -> Unit:
    if module.threshold < 20:
        refuse(f"has threshold={module.threshold!r}; the engine has none, which is the same from 20 on")
    return units.Softplus(module.beta)


def prelu(module: nn.PReLU, shape: Shape | None) -> Unit:
    return units.PReLU(module.num_parameters, float(module.init))


CONV = ("stride", "padding", "dilation", "groups", "padding_mode", "kernel_size")
POOL = ("kernel_size", "stride", "padding", "ceil_mode")
MAX_POOL = (*POOL, "dilation", "return_indices")
AVG_POOL = (*POOL, "count_include_pad")
NORM = ("eps", "momentum", "affine", "track_running_stats")

RULES: dict[type[nn.Module], Rule] = {
    rule.module: rule
    for rule in (
        Rule(nn.Linear, linear, (), (units.Linear,), linear_back, True),
        Rule(nn.Conv1d, convolution(units.Conv1d), CONV, (units.Conv1d,), convolution_back(nn.Conv1d)),
        Rule(nn.Conv2d, convolution(units.Conv2d), CONV, (units.Conv2d,), convolution_back(nn.Conv2d)),
        Rule(nn.BatchNorm1d, batch_norm, NORM, (units.BatchNorm, units.BatchNorm1d), batch_norm_back(nn.BatchNorm1d)),
        Rule(nn.BatchNorm2d, batch_norm, NORM, (units.BatchNorm2d,), batch_norm_back(nn.BatchNorm2d)),
        Rule(
            nn.LayerNorm,
            layer_norm,
            ("normalized_shape", "eps", "elementwise_affine"),
            (units.LayerNorm,),
            lambda unit: nn.LayerNorm(unit.n, unit.eps, unit.affine),
            True,
        ),
        Rule(
            nn.RMSNorm,
            rms_norm,
            ("normalized_shape", "eps", "elementwise_affine"),
            (units.RMSNorm,),
            lambda unit: nn.RMSNorm(unit.n, unit.eps),
            True,
        ),
        Rule(nn.Embedding, embedding, (), (units.Embedding,), embedding_back),
        Rule(nn.MaxPool1d, max_pool(units.MaxPool1d), MAX_POOL, (units.MaxPool1d,), pool_back(nn.MaxPool1d)),
        Rule(nn.MaxPool2d, max_pool(units.MaxPool2d), MAX_POOL, (units.MaxPool2d,), pool_back(nn.MaxPool2d)),
        Rule(
            nn.AvgPool1d,
            avg_pool(units.AvgPool1d),
            AVG_POOL,
            (units.AvgPool1d,),
            pool_back(nn.AvgPool1d, "count_include_pad"),
        ),
        Rule(
            nn.AvgPool2d,
            avg_pool(units.AvgPool2d),
            (*AVG_POOL, "divisor_override"),
            (units.AvgPool2d,),
            pool_back(nn.AvgPool2d, "count_include_pad"),
        ),
        Rule(
            nn.AdaptiveAvgPool1d,
            adaptive(units.AvgPool1d, 1),
            ("output_size",),
            (units.GlobalAvgPool1d,),
            global_back(nn.AdaptiveAvgPool1d),
        ),
        Rule(
            nn.AdaptiveAvgPool2d,
            adaptive(units.AvgPool2d, 2),
            ("output_size",),
            (units.GlobalAvgPool2d,),
            global_back(nn.AdaptiveAvgPool2d),
        ),
        Rule(nn.AdaptiveMaxPool1d, adaptive(units.MaxPool1d, 1), ("output_size", "return_indices")),
        Rule(nn.AdaptiveMaxPool2d, adaptive(units.MaxPool2d, 2), ("output_size", "return_indices")),
        Rule(
            nn.LocalResponseNorm,
            lambda module, shape: units.LocalResponseNorm(
                module.size, alpha=module.alpha, beta=module.beta, k=module.k
            ),
            ("size", "alpha", "beta", "k"),
            (units.LocalResponseNorm,),
            lambda unit: nn.LocalResponseNorm(unit.size, unit.alpha, unit.beta, unit.k),
        ),
        Rule(nn.Dropout, dropout(units.Dropout), ("p",), (units.Dropout,), lambda unit: nn.Dropout(unit.p)),
        Rule(nn.Dropout1d, dropout(units.Dropout1d), ("p",), (units.Dropout1d,), lambda unit: nn.Dropout1d(unit.p)),
        Rule(nn.Dropout2d, dropout(units.Dropout2d), ("p",), (units.Dropout2d,), lambda unit: nn.Dropout2d(unit.p)),
        Rule(nn.Flatten, flatten, ("start_dim", "end_dim"), (units.Flatten,), lambda unit: nn.Flatten()),
        Rule(
            nn.Softmax, distribution(units.Softmax), ("dim",), (units.Softmax,), lambda unit: nn.Softmax(dim=-1), True
        ),
        Rule(
            nn.LogSoftmax,
            distribution(units.LogSoftmax),
            ("dim",),
            (units.LogSoftmax,),
            lambda unit: nn.LogSoftmax(dim=-1),
            True,
        ),
        activation(nn.Identity, units.Identity),
        activation(nn.Sigmoid, units.Sigmoid),
        activation(nn.LogSigmoid, units.LogSigmoid),
        activation(nn.Tanh, units.Tanh),
        activation(nn.ReLU, units.ReLU),
        activation(nn.LeakyReLU, units.LeakyReLU, "negative_slope", "slope"),
        activation(nn.ELU, units.ELU, "alpha", "alpha"),
        activation(nn.SELU, units.SELU),
        activation(nn.CELU, units.CELU, "alpha", "alpha"),
        Rule(nn.GELU, gelu, ("approximate",), (units.GELU,), lambda unit: nn.GELU(), True),
        activation(nn.SiLU, units.SiLU),
        activation(nn.Mish, units.Mish),
        Rule(nn.Softplus, softplus, ("beta", "threshold"), (units.Softplus,), lambda u: nn.Softplus(u.beta), True),
        activation(nn.Softsign, units.Softsign),
        activation(nn.Hardsigmoid, units.HardSigmoid),
        activation(nn.Hardtanh, units.HardTanh, min_val=-1.0, max_val=1.0),
        activation(nn.ReLU6, units.ReLU6),
        activation(nn.Hardswish, units.HardSwish),
        Rule(nn.PReLU, prelu, (), (units.PReLU,), lambda unit: nn.PReLU(unit.n, unit.init)),
    )
}

BACK: dict[type[Unit], Callable[[Any], nn.Module]] = {
    cls: rule.back for rule in RULES.values() if rule.back is not None for cls in rule.units
} | {units.GELUTanh: lambda unit: nn.GELU(approximate="tanh")}


def rule_of(module: nn.Module) -> Rule:
    """Return the rule of a module, or raise `Untaken`.

    Parameters
    ----------
    module : nn.Module
        Any module.

    Returns
    -------
    Rule
        That of its class.
    """
    rule = RULES.get(type(module))
    if rule is None:
        base = next((cls.__name__ for cls in type(module).__mro__[1:] if cls in RULES), None)
        refuse(f"is a subclass of {base}, which may compute anything" if base else "has no unit that computes the same")
    assert rule is not None
    return rule


def unit_of(module: nn.Module, shape: Shape | None) -> Unit:
    """Return a unit that computes what a module does, for samples of a shape, or raise `Untaken`.

    Parameters
    ----------
    module : nn.Module
        Any module.
    shape : tuple of int, optional
        Of a sample at its input; None where it is not known.

    Returns
    -------
    Unit
        In no network, with initial parameters.
    """
    rule = rule_of(module)
    _check_own(module)
    return rule.unit(module, shape)


def _check_own(module: nn.Module) -> None:
    """Raise `Untaken` where a module computes something else than its class says."""
    if "forward" in vars(module):
        refuse("has a forward of its own")
    if (names := hooks_of(module)) != "":
        refuse(f"has {names}, which would not be called")


def hooks_of(module: nn.Module) -> str:
    """Return the names of the kinds of hooks that a module has."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return " and ".join(kind[1:].replace("_", " ") for kind in kinds if getattr(module, kind, None))


def module_of(unit: Unit) -> nn.Module:
    """Return a module that computes what a unit does, with initial parameters, or raise `Untaken`.

    Parameters
    ----------
    unit : Unit
        Any unit.

    Returns
    -------
    nn.Module
        With parameters that PyTorch draws.
    """
    make = BACK.get(type(unit))
    if make is None:
        refuse(f"{unit!r} has no module of torch that computes the same")
    assert make is not None
    with torch.random.fork_rng(devices=[]):  # whose initial values are overwritten
        return make(unit)
