"""Write what follows from the tables of the package: docs/catalogue.md, the sources of `made_sources.py`, and the stub.

The stub is `fastbp/__init__.pyi`: each public name with the module that defines it, since editors and type checkers do
not follow several `import *` one after another.

Run it from anywhere after a change of a table:

    python tools/write_tables.py

A test fails where a file is not what this writes.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

if __name__ == "__main__":  # first of all: the package imports what this writes
    subprocess.run([sys.executable, Path(__file__).with_name("made_sources.py")], check=True)

import fastbp
from fastbp._moved import MOVED
from fastbp.initializers import INITIALIZERS
from fastbp.network._mlp import HIDDEN_UNITS
from fastbp.optim import averages, schedules
from fastbp.reference import ACTIVATIONS, LOSSES, OPTIMIZERS, UNITS
from fastbp.training.metrics import METRICS
from fastbp.units.base import Parameter
from fastbp.units.images import ImageUnit

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "catalogue.md"
STUB = ROOT / "fastbp" / "__init__.pyi"
STUB_HEAD = """\
# Written by `tools/write_tables.py`: do not edit it by hand.
# ruff: noqa: I001, RUF022
"""

TARGETS = {  # by the kind that a LossRule names
    "labels": "labels (n,), or a row of K shares each",
    "probabilities": "0 to 1 in each column",
    "values": "values",
    "counts": "counts, not negative",
    "signs": "labels (n,), or a row of 0 and 1 (or -1 and 1) each",
}
PREDICTIONS = {  # by the link that it names
    "softmax": "the most probable class",
    "sigmoid": "0 or 1 in each column",
    "identity": "the outputs",
    "means": "the means",
    "exp": "the rates",
    "margin": "the class with the largest output",
}

PAGE_TEXT = """# Catalogue

Every part that runs in compiled code, in float32 and float64. This page is written by `tools/write_tables.py` from the
tables of the package: do not edit it by hand. [numerics.md](numerics.md) has each formula as it is computed; the
docstrings have the arguments, errors and sources.

## Activations

Each is a function `fastbp.name(z)`, its `fastbp.name_backward(dy, y)` (where backward reads the input: `(dy, z)`), a
unit, and a name for `MLP(hidden=...)`. The last column says how the weights before it begin, unless `init=` says
otherwise.

{activations}

## Other units

Those with a name are functions too, `fastbp.name` and `fastbp.name_backward`. `dtype=` and `seed=`, where a class has
them, are for units that are used alone: in a network the network's count. {hidden} may stand in `hidden=`.

{units}

[composition.md](composition.md) puts them together.

## Units of images

Samples are images of shape (channels, height, width), or sequences of shape (channels, width) where the name ends with
`1d`; `Network(..., input_shape=)` says which. Those with a function have its `_backward`, too; functions take
`layout="NHWC"` and `"NWC"` as well. The unit `LocalResponseNorm` reads images alone.

{image_units}

[images.md](images.md) puts them together; `Sequential`, `Residual` and `Branches` hold them, too.

## Models

Networks of the literature, with random weights. All take `classes=`, `loss=`, `dtype=` and `seed=`. The parameters are
those with as many classes as the default.

{models}

## Losses

Each is a function `fastbp.name(y, t)`, which gives the loss and its gradient, a class, and a name for `loss=`. All
take `sample_weight=` and `reduction="mean"`, `"sum"` or `"none"`. K is the number of outputs.

{losses}

`LossSum([(0.7, fastbp.MSE()), (0.3, fastbp.MAE())])` is a weighted sum of losses of the same outputs.

## Optimizers

Keywords, defaults and updates are those of PyTorch's optimizer of the same name (Lion's are its paper's). Each of
them takes `groups=`, `clip_value=` and `clip_norm=` too: see [training.md](training.md).

{optimizers}

Beside the table, since they compute gradients of their own:

{solvers}

## Schedules

For `lr=` of the optimizers in the first table. All are in `fastbp.schedules`. A schedule is a function of the step, 1
at the first one; any other function of it will do.

{schedules}

## Averages of the parameters

For `average=` of `train`.

{averages}

## Metrics

For `metrics=` and `train_metrics=` of `train`, and of `EarlyStopping`. Any function of targets and predictions will
do, too.

{metrics}

## How weights begin

For `init=` of `MLP`, `Linear`, `Conv2d` and `Conv1d`. A convolution has n_in = in / groups · window inputs and
n_out = out · window outputs.

{initializers}
"""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    cells = [heads, ["---"] * len(heads), *rows]
    lines = [[cell.replace("|", r"\|").replace("\n", "<br>") for cell in row] for row in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """Return each line as code."""
    aside = re.compile(r" {3,}(?!\()")  # what stands at a distance is a remark
    return "\n".join(f"`{' '.join(aside.sub('; ', line).split())}`" for line in text.splitlines())


def call(made: Callable[..., object], *, without: Sequence[str] = ("self", "dtype", "seed")) -> str:
    """Return a class with its arguments and their defaults."""
    shown = []
    for parameter in inspect.signature(made).parameters.values():
        if parameter.name in without:
            continue
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        shown.append(f"{star}{parameter.name}{default}")
    return code(f"{made.__name__}({', '.join(shown)})")


def first_line(made: object) -> str:
    """Return what a docstring begins with, in one line."""
    return " ".join(paragraph(made, 0).replace("``", "`").split())


def paragraph(made: object, i: int) -> str:
    """Return a paragraph of a docstring."""
    return (inspect.getdoc(made) or "").split("\n\n")[i]


def value_of(composite: object) -> str:
    """Return what a unit made of units computes: the second paragraph, as far as it is about the way up."""
    return " ".join(paragraph(composite, 1).split(";", maxsplit=1)[0].split())


def activations() -> str:
    """Return a row for each entry of ACTIVATIONS."""
    rows = [
        (code(r.name), call(getattr(fastbp, r.unit)), code(r.formula), code(r.derivative), r.needs, code(r.init))
        for r in ACTIVATIONS.values()
    ]
    return table(("name", "unit", "value", "derivative", "backward reads", "weights begin"), rows)


def units() -> str:
    """Return a row for `Linear`, for each entry of UNITS, and for each unit that is made of units."""
    rows = [(code("linear"), call(fastbp.Linear), code("y = x @ weight + bias"), code("weight, bias"))]
    for rule in UNITS.values():
        name = code(rule.name) if hasattr(fastbp, rule.name) else ""
        parameters = code(", ".join(rule.parameters))
        rows.append((name, call(getattr(fastbp, rule.unit)), code(rule.formula), parameters))
    for made in (fastbp.Sequential, fastbp.Residual, fastbp.Branches):
        rows.append(("", call(made), value_of(made), "those of its units"))
    return table(("name", "unit", "value", "parameters"), rows)


def function_of(made: type[ImageUnit]) -> str:
    """Return the function that computes what a unit of images does: of its own name, or one with a layout."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", made.__name__).lower()
    if hasattr(fastbp, name):
        return code(name)
    layout = getattr(made, "_layout", None)
    return code(f"{name[:-2]}(layout={layout!r})") if layout else ""


def parameters_of(made: type) -> list[str]:
    """Return the names of a class's parameters, as it declares them."""
    found = (name for base in reversed(made.__mro__) for name, v in vars(base).items() if isinstance(v, Parameter))
    return list(dict.fromkeys(found))


def image_units() -> str:
    """Return a row for each class of `fastbp.units` that reads images."""
    classes = (getattr(fastbp.units, name) for name in fastbp.units.__all__)
    rows = [
        (function_of(made), call(made), first_line(made), code(", ".join(parameters_of(made))))
        for made in classes
        if isinstance(made, type) and issubclass(made, ImageUnit)
    ]
    return table(("function", "unit", "what it computes", "parameters"), rows)


def models() -> str:
    """Return a row for each function of `fastbp.models`; its docstring tells how many parameters there are."""
    rows = []
    for name in fastbp.models.__all__:
        made = getattr(fastbp.models, name)
        count = re.search(r"([\d,]+)\s+parameters", inspect.getdoc(made) or "")
        assert count, f"the docstring of {name} does not tell the number of parameters"
        network = first_line(made).removeprefix("Return ")
        shown = call(made, without=("loss", "dtype", "seed"))
        rows.append((shown, network[0].upper() + network[1:], count[1]))
    return table(("function of `fastbp.models`", "network", "parameters"), rows)


def losses() -> str:
    """Return a row for each entry of LOSSES."""
    rows = [
        (code(r.name), call(getattr(fastbp, r.unit)), code(r.formula), TARGETS[r.targets], PREDICTIONS[r.link])
        for r in LOSSES.values()
    ]
    return table(("name", "class", "loss of a row", "targets", "`predict` gives"), rows)


def optimizers() -> str:
    """Return a row for each entry of OPTIMIZERS."""
    extras = ("self", "groups", "clip_value", "clip_norm")
    rows = [(call(getattr(fastbp, r.unit), without=extras), r.summary, code(r.formula)) for r in OPTIMIZERS.values()]
    return table(("class", "what it does", "update"), rows)


def described(made: Iterable[Callable[..., object]]) -> str:
    """Return a row for each class: how it is called, and what its docstring begins with."""
    return table(("class", "what it does"), [(call(one, without=("self",)), first_line(one)) for one in made])


def schedule_classes() -> list[type[schedules.Schedule]]:
    """Return the classes that the module exports, without their base."""
    return [getattr(schedules, name) for name in schedules.__all__ if name != "Schedule"]


def metrics() -> str:
    """Return a row for each entry of METRICS."""
    rows = [(code(m.name), m.of, "more" if m.mode == "max" else "less") for m in METRICS.values()]
    rows.append(("`top_5` (any number)", "outputs", "more"))
    return table(("name", "sees", "better is"), rows)


def initializers() -> str:
    """Return a row for each entry of INITIALIZERS."""
    rows = [
        (", ".join(code(name) for name in (rule.name, *rule.aliases)), code(rule.formula))
        for rule in INITIALIZERS.values()
    ]
    return table(("name", "weights"), rows)


def page() -> str:
    """Return the whole page."""
    return PAGE_TEXT.format(
        activations=activations(),
        units=units(),
        image_units=image_units(),
        models=models(),
        hidden=", ".join(code(name) for name in HIDDEN_UNITS),
        losses=losses(),
        optimizers=optimizers(),
        solvers=described([fastbp.LBFGSB]),
        schedules=described(schedule_classes()),
        averages=described([averages.EMA, averages.SWA]),
        metrics=metrics(),
        initializers=initializers(),
    )


def stub() -> str:
    """Return the package's stub."""
    names = [name for name in fastbp.__all__ if name != "__version__"]
    lines = {f"from {module_of(name)} import {name} as {name}" for name in names}
    lines.add("from fastbp._version import __version__ as __version__")
    renamed = []
    for old, new in MOVED.items():
        package, _, module = f"fastbp.{new}".rpartition(".")
        if old == module:
            lines.add(f"from {package} import {module} as {module}")
        elif "." not in old and not old.startswith("_"):
            lines.add(f"from {package} import {module} as _{old}")
            renamed.append(f"{old} = _{old}")
    exported = ["__all__ = [", *(f'    "{name}",' for name in sorted(fastbp.__all__)), "]"]
    return "\n".join([STUB_HEAD, *sorted(lines), "", *renamed, "", *exported, ""])


def module_of(name: str) -> str:
    """Return the module that defines a public name: the deepest of those that export it."""
    found = [
        module
        for module, content in sys.modules.items()
        if module.startswith("fastbp.")
        and not module.startswith("fastbp.reference")
        and name in getattr(content, "__all__", ())
        and content.__name__ == module
    ]
    package = "fastbp.optim" if name in vars(fastbp.optim) else "fastbp"  # of a module
    return max(found, key=lambda module: (module.count("."), module), default=package)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    STUB.write_text(stub(), encoding="utf-8")
