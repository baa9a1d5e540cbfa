"""The compiled modules: one build of the kernels for each instruction set and dtype, and the engine above them.

FASTBP_DEBUG=1 builds with checks: bounds, None and initialisation in Cython, pointer ranges in the kernels,
assertions in C. FASTBP_COVERAGE=1 builds modules that count how often each line runs (tools/covered.py).
"""

import os
import platform
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = Path("src_pyx") / "fastbp"
BUILD = Path("build")
DEBUG = os.environ.get("FASTBP_DEBUG", "0") not in ("", "0")
COVERAGE = os.environ.get("FASTBP_COVERAGE", "0") not in ("", "0")

# -fno-math-errno -fno-trapping-math: neither changes a result nor the processor's state; both let loops be vectorised.
# -ffp-contract=off: a fused multiply-add stands only where the source says so.
FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-Wall", "-Wextra"]
# What Cython itself generates: parameters that a signature demands, helpers that a module does not use.
FLAGS += ["-Wno-unused-parameter", "-Wno-unused-function"]
# Python's own flags have -g on most systems, which doubles the time that a build takes.
FLAGS += ["-g", "-UNDEBUG"] if DEBUG else ["-g0"]
LINK_FLAGS = ["--coverage"] if COVERAGE else []
if COVERAGE:
    FLAGS += ["-O1", "--coverage", "-fprofile-update=atomic"]  # atomic: several threads count

# name: (bytes of a vector, what the compiler may use)
X86 = {
    "baseline": (16, ["-march=x86-64", "-mtune=generic"]),
    "avx2": (32, ["-march=x86-64-v3", "-mtune=haswell"]),
    "avx512": (64, ["-march=x86-64-v4", "-mtune=skylake-avx512", "-mprefer-vector-width=512"]),
}
ARM = {"neon": (16, [])}
INSTRUCTION_SETS = X86 if platform.machine().lower() in ("x86_64", "amd64") else ARM

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "cdivision": True,
    "embedsignature": True,
    "freethreading_compatible": True,
}


def macros(**more: str) -> list[tuple[str, str | None]]:
    debug: list[tuple[str, str | None]] = [("FASTBP_DEBUG", "1")] if DEBUG else []
    return [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), *more.items(), *debug]


def kernel_source(isa: str, dtype: str) -> str:
    """Write the source of one build of the kernels, unless it is there, and return its path."""
    path = BUILD / "kernels" / f"_kernels_{isa}_{dtype}.pyx"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = 'include "fastbp/_kernels.pxi"\n'
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return str(path)


def kernel_modules() -> list[Extension]:
    """The kernels, compiled once for each instruction set and dtype from one source."""
    return [
        Extension(
            f"fastbp._kernels_{isa}_{dtype}",
            [kernel_source(isa, dtype)],
            define_macros=macros(FASTBP_REAL=dtype, FASTBP_VEC_BYTES=str(width), FASTBP_ISA_NAME=isa),
            extra_compile_args=FLAGS + flags,
            extra_link_args=LINK_FLAGS,
            depends=[str(path) for pattern in ("*.pxi", "*.pxd") for path in SOURCES.glob(pattern)],
        )
        for isa, (width, flags) in INSTRUCTION_SETS.items()
        for dtype in ("float", "double")
    ]


def engine_modules() -> list[Extension]:
    """What is the same on every processor."""
    names = ["_team", "_dispatch", "_product", "_update", "_csr", "_unit", "_loss", "_chain", "_rows", "_predict"]
    names += ["_random", "_ops", "_engine", "_probe", "_fast_path"]
    return [
        Extension(
            f"fastbp.{name}",
            [str(SOURCES / f"{name}.pyx")],
            define_macros=macros(),
            include_dirs=[np.get_include()],
            extra_compile_args=[*FLAGS, "-pthread"],
            extra_link_args=[*LINK_FLAGS, "-pthread"],
        )
        for name in names + (["_planted"] if DEBUG else [])
    ]


class ParallelBuild(build_ext):
    """As many compilers at once as there are processors."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()


# Guarded, since Cython's parallel processes import this file anew where they are not forked.
if __name__ == "__main__":
    setup(
        ext_modules=cythonize(
            kernel_modules() + engine_modules(),
            include_path=["src_pyx"],
            build_dir=str(BUILD / ("cython-debug" if DEBUG else "cython-coverage" if COVERAGE else "cython")),
            compiler_directives=DIRECTIVES,
            nthreads=os.cpu_count() or 1,
        ),
        cmdclass={"build_ext": ParallelBuild},
    )
