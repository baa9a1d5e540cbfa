"""What is shipped. `make test-package` builds it and installs it somewhere else; here the lists alone are looked at."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "setup.py").exists():
    pytest.skip("the tests run without the sources", allow_module_level=True)
pytest.importorskip("setuptools", minversion="77")  # as pyproject.toml demands

SHIPPED = (
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Makefile",
)
COPIED = (*SHIPPED, "changes", "fastbp", "src_pyx", "tests", "bench", "examples", "docs", "tools")


def sources(*patterns: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, with what a build leaves behind beside them."""
    tree = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__", "results", ".*")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=ignored)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, tree / name)
    (tree / "build" / "cython" / "src_pyx" / "fastbp").mkdir(parents=True)
    (tree / "build" / "cython" / "src_pyx" / "fastbp" / "_team.c").write_text("/* left by a build */\n")
    (tree / "src_pyx" / "fastbp" / "_team.c").write_text("/* left by a build */\n")
    (tree / "fastbp" / "_left.so").write_text("left by a build\n")
    return tree


# setup.py is run for its metadata alone: this cythonize translates nothing and gives the modules as they are. The wheel
# holds what build_py copies, beside the compiled modules.
LIST = """
import json, sys, types
cython, build = types.ModuleType("Cython"), types.ModuleType("Cython.Build")
cython.Build, build.cythonize = build, lambda modules, **options: modules
sys.modules["Cython"], sys.modules["Cython.Build"] = cython, build
import setuptools
from distutils.core import run_setup
distribution = run_setup("setup.py", ["--quiet", "egg_info"], stop_after="commandline")
distribution.run_commands()
copied = distribution.get_command_obj("build_py")
copied.ensure_finalized()
copied.run()
sdist = distribution.get_command_obj("egg_info").filelist.files
print(json.dumps([sorted(set(sdist)), [copied.build_lib, *copied.get_outputs(include_bytecode=False)]]))
"""


@pytest.fixture(scope="module")
def listed(tree: Path) -> Any:
    """The names of the files that the source distribution and the wheel would hold."""
    command = [sys.executable, "-W", "ignore", "-c", LIST]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def sdist(listed: Any) -> set[str]:
    return set(listed[0])


@pytest.fixture(scope="module")
def wheel(listed: Any) -> set[str]:
    """Without the compiled modules."""
    root, *names = listed[1]
    return {str(Path(name).relative_to(root)) for name in names}


def test_the_sdist_holds_every_source(sdist: set[str]) -> None:
    wanted = sources(*(f"src_pyx/**/*.{end}" for end in ("pyx", "pxd", "pxi")))
    wanted |= sources(*(f"fastbp/**/*.{end}" for end in ("py", "pyi", "pxd", "pxi")), "fastbp/py.typed")
    wanted |= sources("tests/**/*.py", "tests/data/**/*", "changes/*.md", *SHIPPED)
    wanted |= sources("bench/**/*.py", "bench/**/*.pxi", "bench/asv/asv.conf.json")
    wanted |= sources("examples/*.py", "docs/*.md", "tools/*")
    assert len([name for name in wanted if name.startswith("src_pyx")]) > 20
    assert {f"fastbp/{name}/__init__.py" for name in ("reference", "sklearn", "units")} < wanted
    assert wanted - sdist == set()


def test_the_wheel_holds_every_module_and_no_source_of_a_compiled_one(wheel: set[str]) -> None:
    wanted = sources("fastbp/**/*.py", "fastbp/**/*.pyi", "fastbp/py.typed")
    assert {f"fastbp/{name}/__init__.py" for name in ("reference", "sklearn", "units")} < wanted
    assert wheel == wanted


def test_the_sdist_holds_nothing_that_was_built(sdist: set[str]) -> None:
    built = {
        name for name in sdist if name.endswith((".c", ".so", ".pyc", ".o")) or name.startswith(("build/", "dist/"))
    }
    assert built == set()


def test_every_compiled_module_has_its_types() -> None:
    """Except those that Python code does not call: the layer of products."""
    modules = {name.removeprefix("src_pyx/").removesuffix(".pyx") for name in sources("src_pyx/**/*.pyx")}
    assert modules - {name.removesuffix(".pyi") for name in sources("fastbp/**/*.pyi")} <= {
        "fastbp/_engine/batch",
        "fastbp/_engine/blocks",
        "fastbp/_engine/graph",
        "fastbp/_engine/kinds",
        "fastbp/_engine/passes",
        "fastbp/_engine/predict",
        "fastbp/_engine/steps",
        "fastbp/_kernels/planted",
        "fastbp/_ops/channels",
        "fastbp/_ops/convolution",
        "fastbp/_ops/forms",
        "fastbp/_ops/pooling",
        "fastbp/_ops/product",
        "fastbp/_ops/unit",
        "fastbp/_ops/update",
    }


STRICT = ROOT / "src_pyx" / "fastbp" / "_kernels" / "strict.pxd"


@pytest.mark.parametrize("flags", ["-ffast-math", "-ffinite-math-only", "-Ofast", "-O3 -ffp-contract=off"])
def test_flags_that_change_arithmetic_are_refused(flags: str) -> None:
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    if shutil.which(compiler[0]) is None:
        pytest.skip("there is no C compiler")
    block = ast.literal_eval(re.search(r'(?s)from \*:\s+(""".*?""")', STRICT.read_text()).group(1))  # type: ignore[union-attr]
    command = [*compiler, *flags.split(), "-fsyntax-only", "-x", "c", "-"]
    done = subprocess.run(command, input=f"{block}\nint x;\n", capture_output=True, text=True, timeout=100)
    assert ("remove the flag from CFLAGS" in done.stderr) == (done.returncode != 0) == (flags[:3] in ("-ff", "-Of"))


def test_every_compiled_module_refuses_them() -> None:
    modules = [*(ROOT / "src_pyx").rglob("*.pyx"), STRICT.with_name("all.pxi")]
    for module in modules:
        seen, left = set(), [module]
        while left:
            seen.add(path := left.pop())
            text = path.read_text()
            cimported = {
                f"{name.replace('.', '/')}.pxd" for name in re.findall(r"^from (fastbp\.\S+) cimport", text, re.M)
            }
            own = [path.with_suffix(".pxd")] if path.suffix == ".pyx" else []
            left += {one for one in (*own, *(ROOT / "src_pyx" / name for name in cimported)) if one.exists()} - seen
        assert STRICT in seen, module


def test_the_metadata() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    metadata, build = project["project"], project["build-system"]
    assert [name.split(">")[0] for name in metadata["dependencies"]] == ["numpy"]
    assert {"demo", "bench", "test", "docs", "save", "dev"} <= metadata["optional-dependencies"].keys()
    assert metadata["requires-python"] == ">=3.11"
    pythons = [
        c.rsplit(" ", 1)[1] for c in metadata["classifiers"] if c.startswith("Programming Language :: Python :: 3.")
    ]
    assert pythons == ["3.11", "3.12", "3.13", "3.14"]
    assert {name.split(">")[0] for name in build["requires"]} == {"setuptools", "Cython", "numpy"}
    data = project["tool"]["setuptools"]["package-data"]["fastbp"]
    assert {"py.typed", "*.pyi", "*/*.pyi"} == {*data}


def test_sources_that_are_not_compiled_say_so(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "fastbp", tmp_path / "fastbp", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    run = subprocess.run([sys.executable, "-c", "import fastbp"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    assert "No module named 'fastbp._engine.array_update'" in run.stderr
    assert "fastbp is not compiled in this directory" in run.stderr and "pip install -e ." in run.stderr
