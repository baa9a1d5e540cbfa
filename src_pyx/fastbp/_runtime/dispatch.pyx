"""Which build of the kernels this process uses: chosen once, at import.

A build must not even be imported where the processor lacks its instructions: its module's own start-up code is compiled with
them. So the processor is asked first, here, in code for the baseline.
"""
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.string cimport strcmp

import importlib
import os
import platform

from fastbp._kernels.table cimport Activation, Kernels, Loss, UnitKind, UpdateRule

cdef extern from * nogil:
    """
    #if defined(__x86_64__)
    #  define fastbp_has_avx2() (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") \\
                                 && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
    #  define fastbp_has_avx512() (fastbp_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") \\
                                   && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") \\
                                   && __builtin_cpu_supports("avx512cd"))
    #  define FASTBP_X86 1
    #  define FASTBP_ARM 0
    #else
    #  define fastbp_has_avx2() 0
    #  define fastbp_has_avx512() 0
    #  define FASTBP_X86 0
    #  define FASTBP_ARM 1
    #endif
    #if defined(__clang__)
    #  define FASTBP_COMPILER "clang " __clang_version__
    #else
    #  define FASTBP_COMPILER "gcc " __VERSION__
    #endif
    #ifdef FASTBP_DEBUG
    #  define FASTBP_CHECKED 1
    #else
    #  define FASTBP_CHECKED 0
    #endif
    """
    bint fastbp_has_avx2()
    bint fastbp_has_avx512()
    bint FASTBP_X86
    bint FASTBP_ARM
    bint FASTBP_CHECKED
    const char* FASTBP_COMPILER

# Best first.
ISAS = ("avx512", "avx2", "baseline") if FASTBP_X86 else ("neon",)
compiler = FASTBP_COMPILER.decode().strip()
checked = bool(FASTBP_CHECKED)

cdef const Kernels* of_float = NULL
cdef const Kernels* of_double = NULL
_tables = []    # the modules own what the pointers point to


cdef const Kernels* kernels_for(Py_ssize_t itemsize) noexcept nogil:
    return of_float if itemsize == sizeof(float) else of_double


cdef int place_of(str name, const void* table, int n, size_t entry_bytes) except -1:
    """The number of the entry with this name: each of the kernels' tables has entries that begin with theirs."""
    cdef bytes wanted = name.encode()
    cdef int i
    for i in range(n):
        if strcmp((<const char* const*> (<const char*> table + i * entry_bytes))[0], wanted) == 0:
            return i
    raise KeyError(name)


cdef const Activation* find_activation(const Kernels* kernels, str name) except NULL:
    return &kernels.activations[place_of(name, kernels.activations, kernels.n_activations, sizeof(Activation))]


cdef const UpdateRule* find_update(const Kernels* kernels, str name) except NULL:
    return &kernels.updates[place_of(name, kernels.updates, kernels.n_updates, sizeof(UpdateRule))]


cdef const UnitKind* find_unit(const Kernels* kernels, str name) except NULL:
    return &kernels.units[place_of(name, kernels.units, kernels.n_units, sizeof(UnitKind))]


cdef int find_loss(const Kernels* kernels, str name) except -1:
    """Its number, which is the same in the tables of both dtypes."""
    return place_of(name, kernels.losses, kernels.n_losses, sizeof(Loss))


def supported():
    """The instruction sets that this processor has a build for, best first."""
    has = {"avx512": bool(fastbp_has_avx512()), "avx2": bool(fastbp_has_avx2()), "baseline": True, "neon": True}
    return tuple(isa for isa in ISAS if has[isa])


def choose(requested):
    """The instruction set to use: the one requested by FASTBP_ISA, or the best."""
    if requested is None or requested == "":
        return supported()[0]
    if requested not in ("baseline", "avx2", "avx512", "neon"):
        raise ImportError(f"FASTBP_ISA must be one of baseline, avx2, avx512, neon, got {requested!r}")
    if requested not in supported():
        raise ImportError(f"FASTBP_ISA is {requested!r}, which this {platform.machine()} processor does not have; "
                          f"it has {', '.join(supported())}")
    return requested


def _install(str name):
    global of_float, of_double
    floats = importlib.import_module(f"fastbp._kernels.{name}_float")
    doubles = importlib.import_module(f"fastbp._kernels.{name}_double")
    of_float = <const Kernels*> PyCapsule_GetPointer(floats.table, "fastbp.kernels")
    of_double = <const Kernels*> PyCapsule_GetPointer(doubles.table, "fastbp.kernels")
    _tables[:] = [floats, doubles]


isa = choose(os.environ.get("FASTBP_ISA"))
_install(isa)


def describe():
    """What is in use: for fastbp.config() and for the tests of the tables."""
    return {"isa": of_float.isa.decode(), "lanes": {"float32": of_float.lanes, "float64": of_double.lanes},
            "micro_kernel": {"float32": (of_float.mr, of_float.nr), "float64": (of_double.mr, of_double.nr)}}


def activation_names():
    """(name, needs) of each activation the kernels know, in the table's order."""
    return [(of_float.activations[i].name.decode(), "input" if of_float.activations[i].needs_input else "output")
            for i in range(of_float.n_activations)]


def unit_names():
    """The units of the kernels' table, in its order."""
    return [of_float.units[i].name.decode() for i in range(of_float.n_units)]
