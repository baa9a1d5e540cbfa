"""What a network is made of, as data, and networks from such data.

A. `describe` gives plain JSON: the network's class with its arguments (see `fastbp._config`), and its mode. Parameters
   are not in it.
B. `build` looks names up among the package's public classes and those that the caller hands over. Nothing is imported
   by a name that stands in a file, and nothing is called but these classes.
C. Data may come from anywhere. The units are made first, which takes no memory; what they then ask for is held against
   a limit before the network makes its arrays.
D. Copies and pickles do not go through JSON: `to_state` and `from_state` hand the units themselves over, with whatever
   attributes a user's own have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from fastbp import _config
from fastbp._core.core import NetworkCore
from fastbp._core.labels import checked_metadata
from fastbp._validate import FloatArray
from fastbp._warnings import told
from fastbp.losses import Loss
from fastbp.units import Unit

__all__ = ["arrays_of", "build", "check_described", "describe", "from_state", "maker", "to_state"]

N = TypeVar("N", bound=NetworkCore)

KINDS: dict[type, str] = {Unit: "unit", Loss: "loss", NetworkCore: "network"}


# ---- data ------------------------------------------------------------------------------------------------------------


def describe(net: NetworkCore, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a network without its parameters as plain JSON, with metadata beside its own.

    Raises
    ------
    TypeError, ValueError
        What some part was made with cannot be found out, or is no data.
    """
    return {
        "network": _config.describe(net),
        "training": net.training,
        "steps": net.steps,
        # Here rather than among the arguments: a subclass with a constructor of its own may not take it.
        "metadata": checked_metadata(net.metadata) | checked_metadata(metadata),
    }


def build(data: Any, *, own: Mapping[str, type] | None = None, limit: int | None = None) -> NetworkCore:
    """Make a network from what `describe` returned, or from data of another origin.

    Parameters
    ----------
    data : object
        Plain JSON.
    own : mapping of str to type, optional
        Units, losses and networks that are not the package's, by the name of the class.
    limit : int, optional
        How many parameters and elements of state it may have: what is there to fill them.

    Returns
    -------
    net : NetworkCore
        With initial parameters.

    Raises
    ------
    ValueError
        The data have another form, name a class that is not known, or ask for more than the limit.
    """
    if not isinstance(data, dict) or not {"network", "training", "steps"} <= data.keys():
        raise ValueError(f"the architecture {_config.shown(data)} has no entries 'network', 'training' and 'steps'")
    training, steps = data["training"], data["steps"]
    if type(training) is not bool or type(steps) is not int or not 0 <= steps < 2**63:
        message = f"training {_config.shown(training)} and steps {_config.shown(steps)}"
        raise ValueError(f"the architecture has {message}, expected true or false and a count")
    metadata = checked_metadata(data.get("metadata"))
    net = _Maker(own or {}, limit).network(data["network"])
    _set_mode(net, training, steps)
    net.metadata = metadata
    return net


def maker(own: Mapping[str, type]) -> Callable[[str, dict[str, Any]], Any]:
    """Return the function that makes units and losses by the names that files have for them, for `_config.decode`."""
    return _Maker(own, None).part


def check_described(net: NetworkCore, data: dict[str, Any]) -> None:
    """Raise unless the parts of a network can be made again from its description: before anything is written.

    Raises
    ------
    ValueError
        A part cannot be made from its config, comes back with other parameters, or shares its name with another class.
    """
    maker = _Maker(_own_classes(net), None)
    values = {name: _config.decode(value, maker.part) for name, value in data["network"]["config"].items()}
    made = [unit for value in values.values() for unit in _config.instances(value, Unit)]
    given = [unit for value in _config.settings(net).values() for unit in _config.instances(value, Unit)]
    for unit, other in zip(given, made, strict=True):
        if (unit.parameter_shapes(), unit.state_shapes()) != (other.parameter_shapes(), other.state_shapes()):
            message = f"{unit!r} made again from its config has parameters {other.parameter_shapes()}"
            raise ValueError(f"{message}, expected {unit.parameter_shapes()}: define {type(unit).__name__}.config()")


def _own_classes(net: NetworkCore) -> dict[str, type]:
    ours, found = set(_ours().values()), dict[str, type]()
    for cls in {type(made): None for made in _walk(net)}:
        if cls not in ours and found.setdefault(cls.__name__, cls) is not cls:
            raise ValueError(f"two classes of the network are named {cls.__name__!r}: a file tells them by their names")
    return found


def _walk(made: Any) -> Iterator[Any]:
    yield made
    try:
        values = list(_config.settings(made).values())
    except TypeError:
        return  # its own config() says what it is made of
    for part in _config.instances(values, (Unit, Loss)):
        yield from _walk(part)


class _Maker:
    """Makes what a file names."""

    def __init__(self, own: Mapping[str, type], limit: int | None) -> None:
        self.own, self.limit = own, limit

    def network(self, data: Any) -> NetworkCore:
        if not isinstance(data, dict) or data.keys() != {"class", "config"} or not isinstance(data["config"], dict):
            raise ValueError(f"{_config.shown(data)} is no network: expected its class and its config")
        cls = self.known(data["class"], (NetworkCore,))
        values = {name: _config.decode(value, self.part) for name, value in data["config"].items()}
        wanted: int = cls._least_numbers(values)  # type: ignore[attr-defined]
        if self.limit is not None and wanted > self.limit:
            raise ValueError(f"the architecture has {wanted} parameters, but there are only {self.limit} numbers")
        with told():  # when it was made first
            net: NetworkCore = self.made(cls, values)
        return net

    def part(self, name: str, values: dict[str, Any]) -> Any:
        return self.made(self.known(name, (Unit, Loss)), values)

    def known(self, name: Any, kinds: tuple[type, ...]) -> type:
        known = _ours() if isinstance(name, str) and name.startswith(_config.OURS) else self.own
        cls = known.get(name) if isinstance(name, str) else None
        if cls is not None and issubclass(cls, kinds):
            return cls
        what = " or ".join(KINDS[kind] for kind in kinds)
        if known is self.own and cls is None:
            raise ValueError(
                f"the {what} {_config.shown(name)} is not of this package{how_to_hand_over(name, self.own)}"
            )
        names = ", ".join(repr(other) for other, made in sorted(known.items()) if issubclass(made, kinds))
        raise ValueError(f"unknown {what} {_config.shown(name)}: known are {names}")

    def made(self, cls: type, values: dict[str, Any]) -> Any:
        try:
            return _config.call(cls, values)
        except Exception as error:  # a user's class may raise whatever it likes
            raise ValueError(f"{cls.__name__} cannot be made from {_config.shown(values)}: {error}") from error


def how_to_hand_over(name: Any, own: Iterable[str]) -> str:
    """Return what a message says of a class of a user's own, besides those that were handed over."""
    if not isinstance(name, str) or not name.isidentifier():
        return ""
    handed = ", ".join(f"{other!r}: {other}" for other in [*own, name])
    return f": hand its class over, load(path, units={{{handed}}})"


def _ours() -> dict[str, type]:
    """The package's own classes, by the names that files have for them."""
    return {
        f"{_config.OURS}{name}": made
        for name, made in _config.OURS_BY_NAME.items()
        if issubclass(made, tuple(KINDS)) and made not in (Unit, Loss)
    }


def arrays_of(net: NetworkCore, version: int) -> Iterator[tuple[str, FloatArray]]:
    """Return all that training has changed by its name in a file of this version.

    A linear unit's weight says how it lies, since other libraries have its transpose under the plain name.
    """
    if version == 1:
        yield from net.parameters.items()
    else:
        weights = set(map(id, net.weights))
        for name, values in net.parameters.items():
            yield f"parameters.{name}{'_in_out' if id(values) in weights else ''}", values
    for name, values in net.state.items():
        yield f"state.{name}", values


def _set_mode(net: NetworkCore, training: bool, steps: int) -> None:
    net.steps = steps
    if not training:
        net.eval()


# ---- copies ----------------------------------------------------------------------------------------------------------


def to_state(net: NetworkCore) -> tuple[Any, ...]:
    """Return what `from_state` makes an equal network from: everything that pickle can take."""
    keywords = [p.name for p in _config.parameters_of(NetworkCore) if p.kind is p.KEYWORD_ONLY]
    # A subclass keeps what it was made with, as attributes.
    beside = {p.name for p in _config.parameters_of(type(net))} - {*keywords}
    return (
        type(net),
        [unit.fresh() for unit in net.units],
        {name: getattr(net, name) for name in keywords},
        {name: value for name, value in vars(net).items() if name in beside},
        net.flat_parameters,
        net.state,
        net.training,
        net.steps,
        net.frozen,
    )


def from_state(
    cls: type[N],
    chain: list[Unit],
    keywords: dict[str, Any],
    beside: dict[str, Any],
    flat: FloatArray,
    state: dict[str, FloatArray],
    training: bool,
    steps: int,
    frozen: tuple[str, ...] = (),  # pickles of older releases have none
) -> N:
    """Make the network that `to_state` took apart; it has arrays of its own."""
    net = cls.__new__(cls)
    net.__dict__.update(beside)
    NetworkCore.__init__(net, *chain, **keywords)
    net.flat_parameters[...] = flat
    kept = net.state
    for name, values in state.items():
        kept[name][...] = values
    _set_mode(net, training, steps)
    if frozen:
        net._set_frozen(frozenset(frozen))
    return net
