"""The builds of the kernels: each instruction set is right, one is chosen, and the process is left as it was."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from processes import output, run

import fastbp
from fastbp._runtime import dispatch
from fastbp.reference import ACTIVATIONS

ROOT = Path(__file__).resolve().parents[1]
ALL = ("baseline", "avx2", "avx512", "neon")
LANES = {"baseline": (4, 2), "avx2": (8, 4), "avx512": (16, 8), "neon": (4, 2)}  # of float32, of float64


# ---- the choice ------------------------------------------------------------------------------------------------------


def test_the_best_instruction_set_is_chosen() -> None:
    assert dispatch.choose(None) == dispatch.choose("") == dispatch.supported()[0]
    assert output("import fastbp; print(fastbp.config()['isa'])", FASTBP_ISA="") == dispatch.supported()[0]


@pytest.mark.parametrize("isa", dispatch.supported())
def test_FASTBP_ISA_forces_an_instruction_set(isa: str) -> None:
    """And no build beside it is loaded: its start-up code may be what the processor lacks."""
    code = """
        import sys, fastbp
        from fastbp._runtime import dispatch
        table = dispatch.describe()
        lanes = table["lanes"]
        print(fastbp.config()["isa"], table["isa"], lanes["float32"], lanes["float64"])
        print(*sorted(name for name in sys.modules if name.startswith("fastbp._kernels.")))
    """
    float_lanes, double_lanes = LANES[isa]
    assert output(code, FASTBP_ISA=isa).splitlines() == [
        f"{isa} {isa} {float_lanes} {double_lanes}",
        f"fastbp._kernels.{isa}_double fastbp._kernels.{isa}_float",
    ]


@pytest.mark.parametrize("value", ["sse9", "AVX2", "avx2 ", "native"])
def test_an_unknown_instruction_set_lists_the_known_ones(value: str) -> None:
    with pytest.raises(ImportError, match=f"FASTBP_ISA must be one of {', '.join(ALL)}, got {value!r}"):
        dispatch.choose(value)


@pytest.mark.parametrize("isa", sorted({*ALL} - {*dispatch.supported()}))
def test_an_unsupported_instruction_set_lists_the_supported_ones(isa: str) -> None:
    has = ", ".join(dispatch.supported())
    with pytest.raises(ImportError, match=rf"FASTBP_ISA is '{isa}', which this .* does not have; it has {has}"):
        dispatch.choose(isa)


@pytest.mark.parametrize("isa", ["sse9", "avx2" if "neon" in dispatch.supported() else "neon"])
def test_an_invalid_FASTBP_ISA_is_an_import_error(isa: str) -> None:
    done = run("import fastbp", FASTBP_ISA=isa)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("ImportError: FASTBP_ISA ")


def test_supported_agrees_with_the_system() -> None:
    """`supported` asks the processor; the system lists what it found as well."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        pytest.skip("no /proc/cpuinfo here")
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE)
    if flags is None or "baseline" not in dispatch.ISAS:
        pytest.skip("/proc/cpuinfo says nothing that is known here")
    has = set(flags[1].split())
    avx2 = {"avx2", "fma", "bmi1", "bmi2"} <= has
    avx512 = avx2 and {"avx512f", "avx512vl", "avx512bw", "avx512dq", "avx512cd"} <= has
    expected = [name for name, there in [("avx512", avx512), ("avx2", avx2), ("baseline", True)] if there]
    assert list(dispatch.supported()) == expected


# ---- every build is right --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", dispatch.supported())
def test_kernels_and_gradients(isa: str) -> None:
    """A small set, by the bounds of test_functional; `make test-isas` runs everything under each."""
    code = """
        import numpy as np, fastbp
        from fastbp import reference
        from fastbp.reference import ACTIVATIONS, LOSSES
        from helpers import DTYPES, assert_bound, composed, eps, product_bound, wide
        rng = np.random.default_rng(0)
        for dtype in DTYPES:
            for m, k, n in [(1, 1, 1), (3, 50, 7), (37, 300, 65), (130, 70, 200)]:
                a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype).T
                bias = rng.standard_normal(n).astype(dtype)
                a_, b_, bias_ = wide(a), wide(b), wide(bias)
                assert_bound(fastbp.matmul(a, b), a_ @ b_, product_bound(a_, b_, dtype))
                assert_bound(fastbp.linear(a, b, bias), a_ @ b_ + bias_, product_bound(a_, b_, dtype, bias_))
            z = (10 * rng.standard_normal((19, 33))).astype(dtype)
            dy = rng.standard_normal(z.shape).astype(dtype)
            for rule in ACTIVATIONS.values():
                y = getattr(fastbp, rule.name)(z)
                assert_bound(y, rule.forward(wide(z)), composed(rule.forward(wide(z)), z, dtype))
                kept = y if rule.needs == "output" else z
                exact = rule.backward(wide(dy), wide(kept))
                got = getattr(fastbp, rule.name + "_backward")(dy, kept)
                assert_bound(got, exact, 4 * eps(dtype) * np.abs(dy))
            for name in ("softmax", "log_softmax"):
                exact = getattr(reference, name)(wide(z))
                assert_bound(getattr(fastbp, name)(z), exact, composed(exact, z, dtype))
            for loss in ("softmax_nll", "mse", "sigmoid_nll"):
                net = fastbp.MLP([9, 14, 11, 5], hidden="tanh", loss=loss, dtype=dtype, seed=1)
                x = rng.standard_normal((21, 9)).astype(dtype)
                t = rng.integers(0, 5, 21) if loss == "softmax_nll" else rng.random((21, 5)).astype(dtype)
                fastbp.check_gradients(net, x, t, raise_on_fail=True)
        print(fastbp.config()["isa"])
    """
    assert output(code, FASTBP_ISA=isa) == isa


def test_the_compiled_activations_are_the_registrys() -> None:
    assert dispatch.activation_names() == [(rule.name, rule.needs) for rule in ACTIVATIONS.values()]


def test_every_build_is_there() -> None:
    """Also those that this processor cannot run: the package is to be moved."""
    for isa in dispatch.ISAS:
        for dtype in ("float", "double"):
            assert importlib.util.find_spec(f"fastbp._kernels.{isa}_{dtype}") is not None


# ---- the floating-point environment ----------------------------------------------------------------------------------


def test_denormals_stay() -> None:
    """No flush-to-zero: not by loading us, not by calling us, in no thread."""
    code = """
        import threading
        import numpy as np
        tiny = np.float32(2.0**-135)
        def denormals():
            x = np.full(100, tiny)
            return bool((x * np.float32(0.5) > 0).all() and (x + x == np.float32(2.0**-134)).all())
        seen = [denormals()]
        import fastbp
        seen.append(denormals())
        fastbp.set_num_threads(4)
        # Products and sums that are denormal and exact, in tiles that all threads take.
        a = np.full((600, 64), np.float32(2.0**-70))
        for _ in range(50):
            seen.append(bool((fastbp.matmul(a, a.T) == np.float32(2.0**-134)).all()))
        z = np.full((400, 1000), tiny)
        seen.append(bool((fastbp.tanh(z) == tiny).all()))
        seen.append(bool((fastbp.relu(z) == tiny).all()))
        net = fastbp.MLP([64, 300, 10], seed=0)
        x = np.ones((500, 64), np.float32)
        fastbp.train(net, x, np.zeros(500, int), optimizer=fastbp.Adam(lr=0.1), epochs=2, progress=False)
        seen.append(denormals())
        thread = threading.Thread(target=lambda: seen.append(denormals()))
        thread.start()
        thread.join()
        print(set(seen), fastbp._runtime.team.started() > 0)
    """
    assert output(code) == "{True} True"


def test_the_build_asks_for_nothing_unsafe() -> None:
    setup = ROOT / "setup.py"
    if not setup.exists():
        pytest.skip("the tests run without the sources")
    text = setup.read_text(encoding="utf-8")
    assert "-ffp-contract=off" in text
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for flag in ("fast-math", "-Ofast", "unsafe-math", "associative-math", "finite-math", "=native", "daz-ftz"):
        assert flag not in code


# ---- the machine code ------------------------------------------------------------------------------------------------


@dataclass
class Instruction:
    """One line of objdump's, AT&T's order: what is written comes last."""

    address: int
    name: str
    operands: str

    @property
    def target(self) -> int | None:
        """Where a jump goes."""
        found = re.match(r"([0-9a-f]+) <", self.operands) if self.name.startswith("j") else None
        return int(found[1], 16) if found else None

    @property
    def written(self) -> str:
        return re.split(r",(?![^(]*\))", self.operands)[-1]

    @property
    def accumulates(self) -> bool:
        """c += a * b, c being what is written."""
        return re.fullmatch(r"vfmadd231p[sd]", self.name) is not None

    @property
    def stores_a_vector(self) -> bool:
        return self.name.startswith("vmov") and "(" in self.written

    @property
    def reads_the_stack(self) -> bool:
        return self.name.startswith("v") and "(%rsp" in self.operands


def machine_code(module: str, functions: str = "") -> list[Instruction]:
    """The instructions of a module, or of the functions in whose name the expression is found."""
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("no objdump here")
    path = Path(fastbp.__file__).parent / f"{module.replace('.', '/')}{EXTENSION_SUFFIXES[0]}"
    command = [objdump, "-d", "--no-show-raw-insn", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    parts = re.split(r"^[0-9a-f]+ <(\S+)>:$", text, flags=re.MULTILINE)[1:]
    text = "".join(code for name, code in zip(parts[::2], parts[1::2], strict=True) if re.search(functions, name))
    found = re.findall(r"^\s+([0-9a-f]+):\t(\S+)[ \t]*([^\n]*)$", text, re.MULTILINE)
    return [Instruction(int(address, 16), name, operands.strip()) for address, name, operands in found]


def innermost_loops(code: list[Instruction]) -> Iterator[list[Instruction]]:
    """From the target of each jump backwards to the jump, where no other such loop lies within."""
    places = {instruction.address: i for i, instruction in enumerate(code)}
    jumps = [(j.target, end) for end, j in enumerate(code) if j.target in places]
    last_begin = -1
    for begin, end in [(places[target], end) for target, end in jumps if places[target] <= end]:
        if begin > last_begin:  # the loops that end before this one begin before it, too
            yield code[begin : end + 1]
        last_begin = max(last_begin, begin)


def accumulators(loop: list[Instruction], register: str) -> set[str]:
    """Registers that a loop only ever adds products to: a polynomial has none, the micro-kernel MR x NV."""
    added = {i.written for i in loop if i.accumulates and i.written.startswith(f"%{register}")}
    return added - {i.written for i in loop if not i.accumulates}


@pytest.mark.skipif("avx2" not in dispatch.ISAS, reason="reads x86 code")
@pytest.mark.skipif(fastbp.config()["debug"], reason="a build with checks need not be fast")
@pytest.mark.parametrize("dtype", ["float", "double"])
@pytest.mark.parametrize("isa, register, least", [("avx2", "ymm", 12), ("avx512", "zmm", 24)])
def test_the_micro_kernel_stays_in_registers(isa: str, register: str, least: int, dtype: str) -> None:
    """Look at the innermost loops with the most accumulators in a build: they must be the micro-kernel's over K.

    Each has all MR x NV accumulators in registers of the full width, three quarters of what there are, and a fused
    multiply-add for each of them (or several: unrolled). It stores no vector and reads none from the stack: the
    accumulators do not leave their registers.
    """
    loops = list(
        innermost_loops(machine_code(f"_kernels.{isa}_{dtype}", "float_(micro|windows)_|double_(micro|windows)_"))
    )
    counts = [len(accumulators(loop, register)) for loop in loops]
    assert max(counts) >= least
    for loop in [loop for loop, count in zip(loops, counts, strict=True) if count == max(counts)]:
        multiplications = sum(i.name.startswith("vfmadd") for i in loop)
        assert multiplications % max(counts) == 0
        assert not [i for i in loop if i.stores_a_vector or i.reads_the_stack]
        assert len(loop) < 2.5 * multiplications  # the loads, the broadcasts, and little else


def test_the_check_of_machine_code_detects_a_spill() -> None:
    """The judge judged: a loop that keeps an accumulator in memory."""
    lines = [
        (0x10, "vmovups", "(%rsi),%zmm1"),
        (0x18, "vmulps", "%zmm1,%zmm1,%zmm1"),
        (0x20, "vfmadd231ps", "(%rdi){1to16},%zmm1,%zmm2"),
        (0x28, "vfmadd231ps", "%zmm4,%zmm5,%zmm3"),
        (0x2C, "vmovups", "(%rdi),%zmm3"),
        (0x30, "vmovups", "%zmm2,0x40(%rsp,%rax,8)"),
        (0x40, "jne", "20 <micro+0x20>"),
        (0x50, "jne", "10 <micro+0x10>"),
        (0x60, "vmovups", "%zmm2,(%rdx)"),
    ]
    loops = list(innermost_loops([Instruction(*line) for line in lines]))
    assert [[i.address for i in loop] for loop in loops] == [[0x20, 0x28, 0x2C, 0x30, 0x40]]
    assert [i.stores_a_vector for i in loops[0]] == [False, False, False, True, False]
    assert [i.reads_the_stack for i in loops[0]] == [False, False, False, True, False]
    assert accumulators(loops[0], "zmm") == {"%zmm2"}


@pytest.mark.skipif("avx2" not in dispatch.ISAS, reason="reads x86 code")
@pytest.mark.skipif(fastbp.config()["debug"], reason="a build with checks need not be fast")
@pytest.mark.parametrize("dtype", ["float", "double"])
@pytest.mark.parametrize("isa, register, sums", [("avx2", "ymm", 12), ("avx512", "zmm", 24)])
def test_sums_by_places_stay_in_registers(isa: str, register: str, sums: int, dtype: str) -> None:
    """The loop over whole vectors of places: all sums in registers, and each vector of dy is loaded once."""
    loops = innermost_loops(machine_code(f"_kernels.{isa}_{dtype}", "sums_of_6"))
    found = [loop for loop in loops if len(accumulators(loop, register)) == sums]
    whole = [loop for loop in found if not any(i.stores_a_vector or i.reads_the_stack for i in loop)]
    assert whole
    loads = {12: 8, 24: 10}[sums]  # 6 of dy and 2 or 4 of the slab
    assert min(sum("(" in i.operands and i.name.startswith("v") for i in loop) for loop in whole) == loads
