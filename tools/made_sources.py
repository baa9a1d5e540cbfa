"""The Python sources that follow from the tables of `fastbp.reference`: functions and classes with their docstrings.

`write_tables.py` runs this. A function of a table is then as plain to editors, type checkers and readers as one written
by hand, and importing the package computes nothing. The results in the examples are those of the numpy reference
implementations.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
import types
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

PACKAGE = Path(__file__).resolve().parents[1] / "fastbp"

if __name__ == "__main__":  # the tables without the package: it imports what is written here, and may not fit them
    bare = sys.modules["fastbp"] = types.ModuleType("fastbp")
    bare.__path__ = [str(PACKAGE)]

from fastbp.reference import (  # noqa: E402
    ACTIVATIONS,
    LOSSES,
    OPTIMIZERS,
    Activation,
    LossRule,
    OptimizerRule,
    Option,
)

HEAD = '''"""{what}

Written by `tools/write_tables.py` from the tables of `fastbp.reference`: do not edit it by hand.
"""

# ruff: noqa: E501, RUF022
'''


# ---- functions of activations ----------------------------------------------------------------------------------------

FUNCTIONS = (
    HEAD.format(what="The functions of the tables: activations, their derivatives, and losses.")
    + """
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from fastbp import _ops
from fastbp._validate import FloatArray, Reduction
from fastbp.functional import _calls
from fastbp.functional._calls import PLAIN_LOSSES
from fastbp.reference import LOSSES

{names}
{functions}"""
)

ACTIVATION_DOC = """Apply the activation {name} to each element.

{formula}

Parameters
----------
z : array_like of float32 or float64, any shape
    Any strides.
{options}out : ndarray of z's dtype and shape, optional
    Where the result goes. Any strides; it may be z itself, and otherwise shares no memory with it.

Returns
-------
y : ndarray of z's dtype and shape
    ``out``, or a fresh array in C order.

Raises
------
TypeError
    z is complex, of float16, of objects, of integers or byte-swapped, or ``out`` has not its dtype{no_number}.
ValueError
    ``out`` has another shape, is read-only or overlaps z{out_of_range}.

References
----------
{source}.

Examples
--------
>>> import fastbp, numpy as np
>>> fastbp.{name}(np.array([-1.0, 0.0, 2.0])).round(4)
{result}
"""

ACTIVATION_BACKWARD_DOC = """Compute the gradient at the input of the activation {name}.

dz = dy * dy/dz, where {formula} and {derivative}

Parameters
----------
dy : array_like of float32 or float64, any shape
    The gradient at the activation's output. Any strides.
{saved} : array_like of dy's shape
    The activation's {needs}. Any strides.
{options}out : ndarray of the result's dtype and dy's shape, optional
    Where the result goes. Any strides; it may be dy or {saved} itself, and otherwise shares no memory with them.

Returns
-------
dz : ndarray of dy's shape
    ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

Raises
------
TypeError
    An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
    dtype{no_number}.
ValueError
    The shapes differ, or ``out`` has another shape, is read-only or overlaps an input{out_of_range}.

References
----------
{source}.

Examples
--------
>>> import fastbp, numpy as np
>>> {saved} = {value}
>>> fastbp.{name}_backward(np.ones(3), {saved}).round(4)
{result}
"""

ACTIVATION = """
{index} = _ops.activation_index("{name}")


def {name}(z: ArrayLike, *, {keywords}out: FloatArray | None = None) -> FloatArray:
{doc}
{checks}    done = _ops.try_activation({index}, z, out{values})
    return _calls.activation({index}, z, out{values}) if done is None else done


def {name}_backward(dy: ArrayLike, {saved}: ArrayLike, *, {keywords}out: FloatArray | None = None) -> FloatArray:
{backward_doc}
{checks}    done = _ops.try_activation_backward({index}, dy, {saved}, out{values})
    return _calls.activation_backward({index}, dy, "{saved}", {saved}, out{values}) if done is None else done
"""

OPTION_CHECK = """\
    if type({name}) is not float or not {at_least!r} <= {name} <= {at_most!r}:
        {name} = _calls.option_of("{activation}", "{name}", {name})
"""


def activation_source(rule: Activation) -> str:
    """Return the functions of an activation."""
    checks = (
        OPTION_CHECK.format(
            activation=rule.name, name=name, at_least=float(option.at_least), at_most=float(option.at_most)
        )
        for name, option in rule.options.items()
    )
    return ACTIVATION.format(
        name=rule.name,
        index=f"_{rule.name.upper()}",
        saved=_saved(rule),
        keywords="".join(f"{name}: float = {option.default!r}, " for name, option in rule.options.items()),
        values="".join(f", {name}" for name in rule.options),
        checks="".join(checks),
        doc=docstring(activation_doc(rule)),
        backward_doc=docstring(activation_backward_doc(rule)),
    )


def activation_doc(rule: Activation) -> str:
    """Return the docstring of an activation's function."""
    return ACTIVATION_DOC.format(
        name=rule.name,
        formula=rule.formula,
        source=rule.source,
        result=repr(rule.forward(np.array([-1.0, 0.0, 2.0])).round(4)),
        **_option_docs(rule),
    )


def activation_backward_doc(rule: Activation) -> str:
    """Return the docstring of the function of an activation's derivative."""
    value = np.array([-1.0, 0.0, 2.0])
    if rule.needs == "output":
        value = rule.forward(value).round(4)
    return ACTIVATION_BACKWARD_DOC.format(
        name=rule.name,
        formula=rule.formula,
        derivative=rule.derivative,
        source=rule.source,
        needs=rule.needs,
        saved=_saved(rule),
        value=f"np.{value!r}",
        result=repr(rule.backward(np.ones(3), value).round(4)),
        **_option_docs(rule),
    )


def _saved(rule: Activation) -> str:
    """Return the name of what the derivative reads."""
    return "y" if rule.needs == "output" else "z"


def _option_docs(rule: Activation) -> dict[str, str]:
    names = " or ".join(rule.options)
    return {
        "options": _describe_options(rule.options),
        "no_number": f", or {names} is no number" if names else "",
        "out_of_range": f", or {names} is out of its range" if names else "",
    }


def _describe_options(options: Mapping[str, Option]) -> str:
    return "".join(
        f"{name} : float, {option.at_least:g} to {option.at_most:g}\n    {option.meaning}\n"
        for name, option in options.items()
    )


# ---- functions of losses ---------------------------------------------------------------------------------------------

LOSS_DOC = """Compute {what}, and its gradient.

{formula};  {gradient}

Parameters
----------
{first} : array_like of float32 or float64, shape (N, K)
    The outputs. Any strides. Of more than two dimensions, (..., K), the leading ones are rows: they stand for N.
t : {targets}
sample_weight : array_like, shape (N,), optional
    A factor for the loss of each row, finite and not negative. A list takes the result's dtype.
reduction : {{"mean", "sum", "none"}}
    "mean" divides the sum of the rows' losses by N (not by N K), or by the sum of sample_weight. "none" gives the
    loss of each row, and the gradient of their sum. A row's loss is the sum over its columns.
{options}out : ndarray of the result's dtype, shape (N, K), optional
    Where the gradient goes. Any strides; no memory shared with an argument.

Returns
-------
loss : float, or ndarray of shape (N,) for "none"
    Summed in float64.
d{first} : ndarray, shape (N, K)
    ``out``, or a fresh array in C order: float64 where {first}, t or sample_weight is, otherwise float32.

Raises
------
TypeError
    An argument is complex, of float16, of objects or byte-swapped, none has floats, labels are no integers, ``out`` has
    not the result's dtype, or an option is unknown or of the wrong kind.
ValueError
    The reduction is unknown, a shape does not fit, a target or an option is outside of what it may be, a weight is
    negative or not finite, the mean is over nothing (N = 0, or weights that sum to 0), or ``out`` has another shape, is
    read-only or shares memory.

Notes
-----
{notes}

References
----------
{source}.

Examples
--------
>>> import fastbp, numpy as np
>>> {first}, t = np.array([[0.5, 2.0], [1.0, -1.0]]), np.array({t})
>>> loss, d{first} = fastbp.{name}({first}, t)
>>> round(loss, 4)
{value}
>>> d{first}.round(4)
{slope}
"""

TARGETS = {
    "labels": "array_like, shape (N,) or (N, K)\n"
    "    Integers: labels from 0 to K - 1; or a row of shares for each sample. A share of 0 adds 0 to the loss,\n"
    "    whatever its output is.",
    "probabilities": "array_like, shape (N, K), or (N,) where K = 1\n    In [0, 1].",
    "values": "array_like, shape (N, K), or (N,) where K = 1\n    The targets. Never broadcast.",
    "counts": "array_like, shape (N, K), or (N,) where K = 1\n    Finite and at least 0.",
    "signs": "array_like, shape (N, K), or (N,) where K = 1, or labels, shape (N,), where K > 1\n"
    "    1 for a yes, 0 or -1 for a no; or labels from 0 to K - 1, integers, each a yes in its own column and a no in\n"
    "    all others.",
}

LOSS = """
{plain} = PLAIN_LOSSES["{name}"]


def {name}(
    {first}: ArrayLike,
    t: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
{keywords}    out: FloatArray | None = None,
) -> tuple[Any, FloatArray]:
{doc}
{attempt}
    return _calls.loss(LOSSES["{name}"], "{first}", {first}, t, sample_weight, reduction, out{values})
"""

ATTEMPT = """\
    done = _ops.try_loss({plain}, {first}, t, sample_weight, reduction, out)
    if done is not None:
        return done"""


def loss_source(rule: LossRule) -> str:
    """Return the function of a loss; its first argument bears the name that the reference implementation's has."""
    first = next(iter(inspect.signature(rule.reference).parameters))
    plain = f"_{rule.name.upper()}"
    attempt = ATTEMPT.format(plain=plain, first=first)
    if rule.options:  # the fast path knows the defaults alone
        defaults = " and ".join(_is_default(name, option.default) for name, option in rule.options.items())
        attempt = f"    if {defaults}:\n{textwrap.indent(attempt, '    ')}"
    return LOSS.format(
        name=rule.name,
        plain=plain,
        first=first,
        keywords="".join(f"    {declared},\n" for declared in _loss_options(rule)),
        values="".join(f", {name}={name}" for name in rule.options),
        attempt=attempt,
        doc=docstring(loss_doc(rule, first)),
    )


def _is_default(name: str, default: object) -> str:
    """Return the condition under which an option has its default, whatever else it may be."""
    if default is None or isinstance(default, bool):
        return f"{name} is {default!r}"
    return f"type({name}) is {type(default).__name__} and {name} == {default!r}"


def _loss_options(rule: LossRule) -> list[str]:
    """Return the options as a signature has them, with the types of the reference implementation."""
    parameters = inspect.signature(rule.reference).parameters
    return [f"{n}: {parameters[n].annotation} = {option.default!r}" for n, option in rule.options.items()]


def loss_doc(rule: LossRule, first: str) -> str:
    """Return the docstring of a loss's function."""
    t = [1, 0] if rule.targets == "labels" else [[0, 1], [1, 0]]
    value, slope = rule.reference(np.array([[0.5, 2.0], [1.0, -1.0]]), np.array(t))
    return LOSS_DOC.format(
        t=t,
        name=rule.name,
        first=first,
        what=rule.what,
        formula=rule.formula,
        gradient=rule.gradient,
        targets=TARGETS[rule.targets],
        options=_describe_loss_options(rule),
        notes=_folded(rule.notes),
        source=rule.source,
        value=round(float(value), 4),
        slope=repr(slope.round(4)),
    )


def _describe_loss_options(rule: LossRule) -> str:
    return "".join(
        f"{name} : {option.kind}{', optional' if option.default is None else f', default {option.default!r}'}\n"
        f"{_folded(option.meaning, '    ')}\n"
        for name, option in rule.options.items()
    )


def _folded(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 112, initial_indent=indent, subsequent_indent=indent, break_long_words=False)


def functions() -> str:
    """Return the functions of the activations and of the losses."""
    losses = list(LOSSES.values())
    names = [name for rule in ACTIVATIONS.values() for name in (rule.name, f"{rule.name}_backward")]
    sources = [activation_source(rule) for rule in ACTIVATIONS.values()] + [loss_source(rule) for rule in losses]
    return FUNCTIONS.format(names=public([*names, *(rule.name for rule in losses)]), functions=joined(sources))


# ---- units -----------------------------------------------------------------------------------------------------------

UNITS = (
    HEAD.format(what="The units of the activations, a class for each.")
    + """
from fastbp._config import constructor
from fastbp.reference import ACTIVATIONS
from fastbp.units.elementwise import ActivationUnit

{names}
{classes}"""
)

UNIT_DOC = """Unit of the activation {name}.

{formula};  backward:  dx = dy * dy/dx, where {derivative}

{options}Raises
------
TypeError, ValueError
    As `fastbp.{name}` and `fastbp.{name}_backward` do.
RuntimeError
    ``backward`` is called before ``forward``.

Notes
-----
``forward`` keeps a reference to its {needs}, not a copy.

References
----------
{source}.

Examples
--------
>>> import fastbp, numpy as np
>>> unit = fastbp.{unit}()
>>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
{y}
>>> unit.backward(np.ones((1, 3))).round(4)
{dx}
"""

UNIT = """

class {unit}(ActivationUnit):
{doc}

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["{name}"]
    kind = "{name}"
    _options = {defaults!r}

    @constructor(ActivationUnit)
    def __init__(self, /{keywords}) -> None: ...
{properties}"""

UNIT_OPTION = '''
    @property
    def {name}(self) -> float:
        """The option {name}."""
        return self._options[{place}]
'''


def unit_source(rule: Activation) -> str:
    """Return the class of an activation's unit."""
    return UNIT.format(
        name=rule.name,
        unit=rule.unit,
        doc=docstring(unit_doc(rule)),
        defaults=tuple(option.default for option in rule.options.values()),
        keywords="".join(f", {name}: float = {option.default!r}" for name, option in rule.options.items()),
        properties="".join(UNIT_OPTION.format(name=name, place=i) for i, name in enumerate(rule.options)),
    )


def unit_doc(rule: Activation) -> str:
    """Return the docstring of an activation's unit."""
    x = np.array([[-1.0, 0.0, 2.0]])
    y = rule.forward(x)
    dx = rule.backward(np.ones((1, 3)), y if rule.needs == "output" else x)
    return UNIT_DOC.format(
        name=rule.name,
        unit=rule.unit,
        needs=rule.needs,
        source=rule.source,
        formula=_of_x(rule.formula),
        derivative=_of_x(rule.derivative),
        options=f"Parameters\n----------\n{_describe_options(rule.options)}\n" if rule.options else "",
        y=repr(y.round(4)),
        dx=repr(dx.round(4)),
    )


def _of_x(formula: str) -> str:
    return re.sub(r"\bz\b", "x", formula).replace("dz", "dx")


def units() -> str:
    """Return the classes of the activations' units."""
    return UNITS.format(
        names=public(rule.unit for rule in ACTIVATIONS.values()),
        classes=joined(unit_source(rule) for rule in ACTIVATIONS.values()),
    )


# ---- classes of losses -----------------------------------------------------------------------------------------------

LOSS_CLASSES = (
    HEAD.format(what="The losses of the table, a class for each.")
    + """# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from fastbp._config import constructor
from fastbp.losses.base import RuleLoss
from fastbp.reference import LOSSES

{names}
{classes}"""
)

LOSS_CLASS_DOC = """{summary}.

{formula};  backward:  {gradient}

{parameters}Raises
------
TypeError, ValueError
    As `fastbp.{name}` does; for the options, when the loss is made or meets a network.
RuntimeError
    ``backward`` is called before ``forward``.

References
----------
{source}.

Examples
--------
>>> import fastbp, numpy as np
>>> y, t = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
>>> loss = fastbp.{unit}()
>>> round(loss.forward(y, t), 4)
{value}
>>> loss.backward().round(4)
{dy}
"""

LOSS_CLASS = """

class {unit}(RuleLoss):
{doc}

    __module__ = "fastbp.losses"
    rule = LOSSES["{name}"]
    _options = rule.checked({{}})

    @constructor(RuleLoss)
    def __init__(self, /{keywords}) -> None: ...
{properties}"""

LOSS_OPTION = '''
    @property
    def {name}(self) -> {kind}:
        """{meaning}"""
        return self._options["{name}"]
'''


def loss_class_source(rule: LossRule) -> str:
    """Return the class of a loss."""
    types = inspect.signature(rule.reference).parameters
    properties = (
        LOSS_OPTION.format(name=name, kind=types[name].annotation, meaning=option.meaning)
        for name, option in rule.options.items()
    )
    return LOSS_CLASS.format(
        name=rule.name,
        unit=rule.unit,
        doc=docstring(loss_class_doc(rule)),
        keywords="".join(f", {declared}" for declared in _loss_options(rule)),
        properties="".join(properties),
    )


def loss_class_doc(rule: LossRule) -> str:
    """Return the docstring of a loss's class."""
    value, dy = rule.reference(np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]]))
    return LOSS_CLASS_DOC.format(
        name=rule.name,
        unit=rule.unit,
        summary=_summary(rule),
        parameters=f"Parameters\n----------\n{_describe_loss_options(rule)}\n" if rule.options else "",
        formula=rule.formula,
        gradient=rule.gradient,
        source=rule.source,
        value=round(float(value), 4),
        dy=repr(dy.round(4)),
    )


def _summary(rule: LossRule) -> str:
    if rule.model:
        return f"Negative log-likelihood of the targets, for this model of them: {rule.model}"
    return rule.what[0].upper() + rule.what[1:]


def loss_classes() -> str:
    """Return the classes of the losses."""
    return LOSS_CLASSES.format(
        names=public(rule.unit for rule in LOSSES.values()),
        classes=joined(loss_class_source(rule) for rule in LOSSES.values()),
    )


# ---- optimizers ------------------------------------------------------------------------------------------------------

OPTIMIZER_CLASSES = (
    HEAD.format(what="The optimizers of the table, a class for each.")
    + """# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastbp._config import constructor
from fastbp.optim._rates import Rate
from fastbp.optim.base import RuleOptimizer
from fastbp.reference import OPTIMIZERS

{names}
{classes}"""
)

OPTIMIZER_DOC = """{summary}

::

{formula}

Names, meanings and defaults are those of torch's optimizer of the name.{notes}

Parameters
----------
{parameters}
groups : sequence of dict, optional
    Hyper-parameters of some parameters: ``[{{"match": "*.bias", "lr": 0.01}}]``. The pattern is one of file names on
    the network's parameter names; the first that matches counts, and what it leaves out is as everywhere else.
clip_value : float, optional
    Each element of the gradient is held within [-clip_value, clip_value], above 0.
clip_norm : float, optional
    The whole gradient is multiplied by clip_norm / (‖gradient‖ + 1e-6) where that is below 1, above 0; after
    clip_value.

Raises
------
TypeError
    If an argument is of another kind, or there is no such hyper-parameter.
ValueError
    If one is out of range. Both also where an attribute is set later, which then keeps its value.

References
----------
{source}.

Examples
--------
>>> import numpy as np
>>> import fastbp
>>> optimizer = fastbp.{unit}(lr=0.1)
>>> w = np.array([1.0, -2.0])
>>> for _ in range(2):
...     optimizer.update(w, w.copy())  # the gradient of ½‖w‖²
>>> w.round(5)
{result}
>>> optimizer.lr = 0.05
>>> optimizer.state_for(w).step
2
"""

OPTIMIZER = """

class {unit}(RuleOptimizer):
{doc}

    __module__ = "fastbp.optimizers"
    rule = OPTIMIZERS["{name}"]
    kind = "{name}"
    state_names = {states}

    @constructor(RuleOptimizer)
    def __init__(
        self,
        /,
{keywords}        *,
        groups: Sequence[Mapping[str, Any]] | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None: ...
{properties}"""

SETTING = '''
    @property
    def {name}(self) -> {kind}:
        """{meaning}"""
        return self._values["{name}"]

    @{name}.setter
    def {name}(self, value: {kind}) -> None:
        self._set("{name}", value)
'''

KINDS = {"rate": "Rate", "flag": "bool", "betas": "tuple[float, float]"}
KINDS_IN_DOC = {"rate": "float, Schedule or function", "flag": "bool", "betas": "pair of float"}


def optimizer_source(rule: OptimizerRule) -> str:
    """Return the class of an optimizer."""
    kinds = {hyper.name: KINDS.get(hyper.check, "float") for hyper in rule.hyper}
    quoted = [f'"{name}"' for name in rule.states]
    return OPTIMIZER.format(
        name=rule.name,
        unit=rule.unit,
        doc=docstring(optimizer_doc(rule)),
        states=f"({', '.join(quoted)}{',' if len(quoted) == 1 else ''})",
        keywords="".join(f"        {h.name}: {kinds[h.name]} = {h.default!r},\n" for h in rule.hyper),
        properties="".join(SETTING.format(name=h.name, kind=kinds[h.name], meaning=h.meaning) for h in rule.hyper),
    )


def optimizer_doc(rule: OptimizerRule) -> str:
    """Return the docstring of an optimizer."""
    parameters = [
        f"{hyper.name} : {KINDS_IN_DOC.get(hyper.check, 'float')}, default {hyper.default}\n    {hyper.meaning}"
        for hyper in rule.hyper
    ]
    return OPTIMIZER_DOC.format(
        summary=rule.summary,
        formula=textwrap.indent(rule.formula, "    ", lambda _: True),
        notes=f" {rule.notes}" if rule.notes else "",
        parameters="\n".join(parameters),
        source=rule.source,
        unit=rule.unit,
        result=repr(_after_two_steps(rule).round(5)),
    )


def _after_two_steps(rule: OptimizerRule) -> np.ndarray:
    """Compute what two steps of the reference implementation make of the example's parameters."""
    w = np.array([1.0, -2.0])
    values = {hyper.name: hyper.default for hyper in rule.hyper}
    states = [np.zeros(2) if name not in rule.used_if else None for name in rule.states]
    carried = {rule.carried[0]: rule.carried[1]} if rule.carried else {}
    for step in (1, 2):
        made = rule.step(w, w.copy(), *states, **{**values, "lr": 0.1, "step": step, **carried})
        carried = {name: value if made is None else made for name, value in carried.items()}
    return w


def optimizer_classes() -> str:
    """Return the classes of the optimizers."""
    return OPTIMIZER_CLASSES.format(
        names=public(rule.unit for rule in OPTIMIZERS.values()),
        classes=joined(optimizer_source(rule) for rule in OPTIMIZERS.values()),
    )


# ---- sources ---------------------------------------------------------------------------------------------------------


def docstring(text: str, indent: str = "    ") -> str:
    """Return a text as the docstring of a body."""
    if "\\" in text or '"""' in text:
        raise ValueError(f"a docstring with a backslash or with three quotes: {text}")
    first, *others = text.rstrip("\n").split("\n")
    lines = [f'{indent}"""{first}', *(f"{indent}{line}".rstrip() for line in others), f'{indent}"""']
    return "\n".join(lines)


def public(names: Iterable[str]) -> str:
    """Return the assignment of ``__all__``."""
    return "\n".join(["__all__ = [", *(f'    "{name}",' for name in names), "]"])


def joined(blocks: Iterable[str]) -> str:
    """Return blocks with two empty lines between them."""
    return "\n\n" + "\n\n\n".join(block.strip("\n") for block in blocks) + "\n"


def sources() -> dict[Path, str]:
    """Return each file and what stands in it."""
    return {
        PACKAGE / "functional" / "made.py": functions(),
        PACKAGE / "units" / "made.py": units(),
        PACKAGE / "losses" / "made.py": loss_classes(),
        PACKAGE / "optim" / "made.py": optimizer_classes(),
    }


if __name__ == "__main__":
    for file, source in sources().items():
        file.write_text(source, encoding="utf-8")
