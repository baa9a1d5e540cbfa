"""Networks of fastbp from modules of PyTorch, and back, bit for bit."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from fastbp import losses
from fastbp._core.graph import flatten, walk
from fastbp.io import _torch_layout, saving
from fastbp.io._torch_layout import Rename
from fastbp.losses import Loss
from fastbp.network import Network
from fastbp.torch._losses import fitted
from fastbp.torch._modules import Untaken, module_of, unit_of
from fastbp.units import Embedding, Flatten, Linear, Sequential, Unit
from fastbp.units.base import Shape

__all__ = ["from_module", "load_state_dict", "state_dict", "to_module"]

DTYPES = {torch.float32: "float32", torch.float64: "float64"}


# ---- to fastbp -------------------------------------------------------------------------------------------------------


def from_module(
    module: nn.Module,
    *,
    loss: str | Loss | nn.Module | None = None,
    input_shape: Sequence[int] | None = None,
    seed: int | None = None,
) -> Network:
    """Make a network that computes what a module does, with copies of its parameters and running statistics.

    Parameters
    ----------
    module : torch.nn.Sequential
        Of modules that fastbp has units for, `torch.nn.Sequential` among them; or a single one.
    loss : str, Loss or torch.nn.Module, optional
        The network's loss: its name, a loss of fastbp's, or one of PyTorch's that fastbp has; `train` says which.
        None: "mse", which predicts the outputs as they are.
    input_shape : sequence of int, optional
        Of a sample, where the module reads images or sequences: (channels, height, width) or (channels, width).
    seed : int, optional
        Of the network's chance in training.

    Returns
    -------
    Network
        Of the module's dtype and mode. A `torch.nn.Linear` without a bias has one of zeros that is frozen; parameters
        with ``requires_grad=False`` are frozen.

    Raises
    ------
    TypeError
        It is no module; or its parameters are neither float32 nor float64.
    ValueError
        A module in it has no unit that computes the same. The message names its path and the reason.

    Examples
    --------
    >>> import fastbp.torch, torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    >>> net = fastbp.torch.from_module(model, loss="softmax_nll")
    >>> net
    Network(Linear(4, 3), Tanh(), Linear(3, 2), loss=SoftmaxNLL(), dtype='float32')
    >>> bool(torch.equal(torch.tensor(net.weights[0]).T, model[0].weight))
    True
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    shape = None if input_shape is None else tuple(input_shape)
    dtype = _dtype_of(module)
    inner = list(module.named_children()) if isinstance(module, nn.Sequential) else [("", module)]
    if isinstance(module, nn.Sequential):
        _check_sequential(module, "the module")
    units = _units(inner, "", shape)
    ours = losses.MSE() if loss is None else fitted(loss, flatten(units, shape)[-1].n_out).loss
    net = Network(*units, loss=ours, input_shape=input_shape, dtype=dtype, seed=seed)
    _freeze(net, module)  # first: a bias of zeros that is frozen is one that the module need not have
    take_values(net, module)
    return net if module.training else net.eval()


def _dtype_of(module: nn.Module) -> str:
    dtypes = {values.dtype for values in module.parameters()} or {torch.get_default_dtype()}
    if len(dtypes) > 1 or not dtypes <= DTYPES.keys():
        came = ", ".join(sorted(map(str, dtypes)))
        raise TypeError(
            f"the module's parameters are {came}, expected float32 or float64 alone: module.float() converts"
        )
    return DTYPES[dtypes.pop()]


def _units(named: Sequence[tuple[str, nn.Module]], prefix: str, shape: Shape | None) -> list[Unit]:
    """Return the units of modules that run one after another; an error names the path of the one that cannot be."""
    made: list[Unit] = []
    for i, (name, module) in enumerate(named):
        path = f"{prefix}{name}"
        unit = _unit(module, path, shape)
        if isinstance(unit, Embedding) and not isinstance(named[i + 1][1] if i + 1 < len(named) else None, nn.Flatten):
            raise _cannot(path, module, "gives a matrix for each sample: put a torch.nn.Flatten() behind it")
        try:
            shape = unit.output_shape(shape)
        except ValueError as error:
            raise _cannot(path, module, str(error)) from None
        made.append(unit)
    return made


def _unit(module: nn.Module, path: str, shape: Shape | None) -> Unit:
    if isinstance(module, nn.Sequential):
        _check_sequential(module, path)
        return Sequential(*_units(list(module.named_children()), f"{path}.", shape))
    try:
        return unit_of(module, shape)
    except ValueError as error:
        raise _cannot(path, module, str(error)) from None


def _check_sequential(module: nn.Sequential, path: str) -> None:
    if type(module).forward is not nn.Sequential.forward:
        raise _cannot(path, module, "is a subclass of Sequential with a forward of its own")
    if not len(module):
        raise _cannot(path, module, "is empty")


def _cannot(path: str, module: nn.Module, reason: str) -> ValueError:
    shown = repr(module).splitlines()[0]
    return ValueError(f"module {path!r}, {shown}, cannot be taken: it {reason}" if path else f"{shown} {reason}")


def take_values(net: Network, module: nn.Module) -> None:
    """Copy the module's values into the network, whatever its children are called."""
    places = places_of(module)
    ours = {entry.name: entry.as_theirs for entry in _torch_layout.entries(net)}
    for name, values in module.state_dict().items():
        if places[name] in ours:
            torch.from_numpy(ours[places[name]]).copy_(values)  # which transposes several times as fast as numpy
        else:
            net.steps = int(values)


def bring_back(net: Network, module: nn.Module) -> None:
    """Copy the network's values into the module."""
    places = places_of(module)
    ours = {entry.name: entry.as_theirs for entry in _torch_layout.entries(net)}
    with torch.no_grad():
        for name, values in module.state_dict(keep_vars=True).items():
            found = ours.get(places[name])
            values.copy_(torch.from_numpy(found)) if found is not None else values.fill_(net.steps)


def _freeze(net: Network, module: nn.Module) -> None:
    """Freeze what the module has not, or does not train."""
    names, places = names_of(net), places_of(module)
    trained = {names[places[name]] for name, values in module.named_parameters() if values.requires_grad}
    frozen = [name for name in net.parameters if name not in trained]
    if frozen:
        net.freeze(*frozen)


def names_of(net: Network) -> dict[str, str]:
    """Return the network's names of its parameters by PyTorch's."""
    return {f"{path}.{_torch_layout.theirs(name)}": f"{path}.{name}" for path, name in map(_split, net.parameters)}


def turned_in(net: Network) -> frozenset[str]:
    """Return the names of the weights that PyTorch has transposed."""
    return frozenset(f"{path}.weight" for path, unit in walk(net.units) if isinstance(unit, Linear))


def places_of(module: nn.Module) -> dict[str, str]:
    """Return the names in a network's state dict by those in the module's: its children may be called anything."""
    numbered = _numbered(module)
    return {name: f"{numbered[path]}.{last}" for name in module.state_dict() for path, last in (_split(name),)}


def _split(name: str) -> tuple[str, str]:
    path, _, last = name.rpartition(".")
    return path, last


def _numbered(module: nn.Module) -> dict[str, str]:
    """Return the places of modules in a network by their paths in the module: children may have names."""
    if not isinstance(module, nn.Sequential):
        return {"": "0"}
    made: dict[str, str] = {}
    _number(module, "", "", made)
    return made


def _number(module: nn.Sequential, path: str, place: str, made: dict[str, str]) -> None:
    for i, (name, inner) in enumerate(module._modules.items()):
        made[f"{path}{name}"] = f"{place}{i}"
        if isinstance(inner, nn.Sequential):
            _number(inner, f"{path}{name}.", f"{place}{i}.", made)


# ---- to PyTorch ------------------------------------------------------------------------------------------------------


def to_module(net: Network) -> nn.Sequential:
    """Make a `torch.nn.Sequential` that computes what a network does, with copies of its parameters and statistics.

    Parameters
    ----------
    net : Network
        Of units that PyTorch has modules for. Its loss, penalties and optimizers stay behind.

    Returns
    -------
    torch.nn.Sequential
        Of the network's dtype and mode, on the CPU. Frozen parameters have ``requires_grad=False``; a `Linear` whose
        bias is zero and frozen becomes one without bias.

    Raises
    ------
    ValueError
        A unit has no module that computes the same. The message names its place and the reason.
    TypeError
        It is no network.

    Examples
    --------
    >>> import fastbp, fastbp.torch
    >>> fastbp.torch.to_module(fastbp.MLP([4, 3, 2], seed=0))
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
      (2): Linear(in_features=3, out_features=2, bias=True)
    )
    """
    if not isinstance(net, Network):
        raise TypeError(f"net must be a fastbp.Network, got {type(net).__name__}")
    module = _sequential(net, net.units, "")
    module.to(torch.float32 if net.dtype == np.float32 else torch.float64)
    module.load_state_dict(state_dict(net))
    frozen = {f"{path}.{_torch_layout.theirs(name)}" for path, name in map(_split, net.frozen)}
    for name, values in module.named_parameters():
        values.requires_grad_(name not in frozen)
    return module.train(net.training)


def _sequential(net: Network, units: Sequence[Unit], prefix: str) -> nn.Sequential:
    made = []
    for i, unit in enumerate(units):
        path = f"{prefix}{i}"
        if isinstance(unit, Sequential):
            made.append(_sequential(net, unit.units, f"{path}."))
            continue
        try:
            module = module_of(unit)
        except Untaken as error:
            raise ValueError(f"unit {path} cannot become a module: {error}") from None
        if isinstance(unit, Embedding) and not isinstance(units[i + 1] if i + 1 < len(units) else None, Flatten):
            raise ValueError(f"unit {path} cannot become a module: put a fastbp.Flatten() behind {unit!r}")
        if isinstance(module, nn.Linear) and _has_no_bias(net, f"{path}.bias"):
            module.register_parameter("bias", None)
        made.append(module)
    return nn.Sequential(*made)


def _has_no_bias(net: Network, name: str) -> bool:
    return name in net.frozen and not net.parameters[name].any()


# ---- state dicts -----------------------------------------------------------------------------------------------------


def state_dict(net: Network) -> OrderedDict[str, Any]:
    """Return a network's parameters and running statistics as PyTorch's ``state_dict`` has them.

    Parameters
    ----------
    net : Network
        Any network.

    Returns
    -------
    OrderedDict of str to tensor
        Copies: ``"0.weight"`` of a linear unit is (out, in). A `torch.nn.Sequential` of the same modules loads it.

    Examples
    --------
    >>> import fastbp, fastbp.torch
    >>> state = fastbp.torch.state_dict(fastbp.MLP([4, 3], seed=0))
    >>> {name: tuple(values.shape) for name, values in state.items()}
    {'0.weight': (3, 4), '0.bias': (3,)}
    """
    return OrderedDict((name, torch.from_numpy(values)) for name, values in _torch_layout.arrays_of(net).items())


def load_state_dict(
    net: Network, state: Mapping[str, Any] | str | os.PathLike[str], *, rename: Rename | None = None
) -> Network:
    """Write a state dict of PyTorch into a network, bit for bit.

    Parameters
    ----------
    net : Network
        Any network.
    state : mapping of str to tensor, or path
        What ``module.state_dict()`` returned; or a ``.safetensors`` file that holds such.
    rename : dict of str to str, or callable, optional
        From the names in the state to the network's: a function of a name; or a dict of names, or of their beginnings
        up to a dot: ``{"fc1": "0", "fc2": "2"}``.

    Returns
    -------
    Network
        The network itself.

    Raises
    ------
    ValueError
        A name is missing or unknown, a shape differs, or the file is damaged. Nothing has been written then.
    TypeError
        A dtype differs from the network's.
    OSError, ImportError
        The file cannot be read; safetensors is not installed.

    Examples
    --------
    >>> import fastbp, fastbp.torch
    >>> from torch import nn
    >>> net = fastbp.MLP([4, 3], seed=0)
    >>> state = {f"fc.{name}": values for name, values in nn.Linear(4, 3).state_dict().items()}
    >>> fastbp.torch.load_state_dict(net, state, rename={"fc": "0"}) is net
    True
    """
    if isinstance(state, Mapping):
        arrays = {name: values.detach().cpu().numpy() for name, values in state.items()}
    else:
        arrays = saving.read_arrays(state)
    _torch_layout.read_into(net, arrays, rename)
    return net
