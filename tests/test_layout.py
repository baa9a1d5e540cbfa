"""The layers of the package: no import of a higher one, no circle; old paths work; no file is too long."""

from __future__ import annotations

import ast
import graphlib
import importlib
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastbp
from fastbp import _moved
from fastbp._core import gradients
from fastbp._moved import MOVED
from fastbp.network._network import RENAMED

PACKAGE = Path(fastbp.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# From the lowest up: a module imports from its own layer and from lower ones.
LAYERS = (
    ("_version", "_frozen", "_assign", "_missing", "_names", "_renamed", "_warnings"),
    ("_kernels",),  # the compiled half: what is compiled in each is ordered by its cimports
    ("_runtime",),
    ("_ops",),
    ("_engine",),
    ("_validate",),
    ("_config",),
    ("reference",),
    ("random", "runtime"),
    ("initializers",),
    ("functional",),
    ("units",),
    ("losses",),
    ("optim",),
    ("_core",),
    ("derivatives", "io"),
    ("network",),
    ("dropin", "models", "training"),
    ("_moved",),
    ("",),  # fastbp/__init__.py
    ("autograd", "distributed", "jax", "sklearn", "torch", "demo", "cli", "__main__"),
)
LAYER_OF = {package: i for i, packages in enumerate(LAYERS) for package in packages}


def module_of(path: Path) -> str:
    """Of fastbp/units/base.py "units.base", of a package its name."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


MODULES = {module_of(path): path for path in FILES}


def imported(path: Path) -> Iterator[str]:
    """The package's modules that a file imports, anywhere in it: in functions and for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "fastbp":
                known = [".".join(parts[1:end]) for end in range(len(parts), 0, -1)]
                found = next(module for module in known if module in MODULES)
                is_compiled = found == "" and len(parts) > 1 and not is_of_the_package_itself(parts[1])
                if not is_compiled:
                    yield found


def is_of_the_package_itself(name: str) -> bool:
    """Whether a name is the package's own: otherwise it is a compiled module, which is below all of these."""
    return not any(PACKAGE.glob(f"{name}.*.so")) and not any(PACKAGE.glob(f"{name}.*.pyd"))


def package_of(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_of_a_higher_layer_fail(module: str) -> None:
    mine = LAYER_OF[package_of(module)]
    for other in imported(MODULES[module]):
        assert LAYER_OF[package_of(other)] <= mine, (
            f"{module or 'fastbp'} imports {other or 'fastbp'}, which is above it"
        )


def test_circular_imports_fail() -> None:
    graph = {module: {other for other in imported(path) if other != module} for module, path in MODULES.items()}
    for package in [module for module, path in MODULES.items() if path.name == "__init__.py" and module]:
        for module in MODULES:
            if module.startswith(f"{package}."):
                graph[module].discard(package)  # a module of a package may name another one of it
    graphlib.TopologicalSorter(graph).prepare()


def test_top_level_is_small_and_no_file_too_long() -> None:
    ground = [module for module, path in MODULES.items() if "." not in module and path.stem != "__init__"]
    assert len(ground) <= 20
    for path in FILES:
        if path.name != "made.py":
            assert len(path.read_text().splitlines()) <= 1000, path


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_old_paths_are_the_same_modules(old: str, new: str) -> None:
    assert importlib.import_module(f"fastbp.{old}") is importlib.import_module(f"fastbp.{new}")


@pytest.mark.parametrize(("old", "module", "new"), [(old, *names) for old, names in _moved.RENAMED.items()])
def test_old_names_in_pickles_are_the_same_functions(old: str, module: str, new: str) -> None:
    made = importlib.import_module(f"fastbp.{module}")
    assert getattr(made, old) is getattr(made, new)


def test_old_paths_can_be_imported_first() -> None:
    code = "import fastbp.data, fastbp; assert fastbp.data.class_weights and fastbp.optimizers.SGD is fastbp.SGD"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


OLD_NAMES = [
    *(("Network", name) for name in RENAMED),
    *(("Gradients", name) for name in gradients.RENAMED),
    *(("RuleLoss", name) for name in ("compiled", "fitted")),
]


@pytest.mark.parametrize(("owner", "name"), OLD_NAMES)
def test_old_names_warn(owner: str, name: str) -> None:
    net = fastbp.MLP([2, 1], loss="mse", seed=0)
    made = {"Network": net, "Gradients": net.gradients, "RuleLoss": net.loss}[owner]
    with pytest.warns(DeprecationWarning, match=f"{owner}.{name} is private now"):
        getattr(made, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert name not in dir(made) and "weights" in dir(net)
