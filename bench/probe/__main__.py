"""Build the probe's modules into the folder that is the argument: `bench.probe.build` runs this."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

from bench import probe
from fastbp._runtime import dispatch


def extensions(folder: Path) -> list[Extension]:
    package = probe.settings()
    width, flags = package.INSTRUCTION_SETS[dispatch.isa]
    found = []
    for real in probe.REALS.values():
        name = f"probe_{dispatch.isa}_{real}"
        source = folder / f"{name}.pyx"
        source.write_text('include "bench/probe/probe.pxi"\n')
        found.append(
            Extension(
                name,
                [str(source)],
                define_macros=package.macros(FASTBP_REAL=real, FASTBP_VEC_BYTES=str(width)),
                include_dirs=[np.get_include()],
                extra_compile_args=[*package.FLAGS, *flags, "-pthread"],
                extra_link_args=["-pthread"],
            )
        )
    modules: list[Extension] = cythonize(
        found, include_path=[".", "src_pyx"], compiler_directives=package.DIRECTIVES, force=True
    )
    return modules


folder = Path(sys.argv[1])
setup(
    name="fastbp-probe",
    ext_modules=extensions(folder),
    packages=[],
    py_modules=[],
    script_args=["-q", "build_ext", "--build-lib", str(folder), "--build-temp", str(folder)],
)
