"""Build a copy of the tree with all faults of tools/faults.py in it, wake one at a time, and see whether a test fails.

Each fault stands in the copy behind a condition that is read once, when a compiled module is loaded, from FASTBP_FAULT:
`name`, `name:isa:dtype` or `name::dtype`, or several of these with commas between them. So one build serves all of
them, and with none awake it computes what the original does. A fault in a kernel counts once for each instruction set
and dtype, any other one once for each dtype: these are the variants.

1. For each variant pytest runs the tests that the fault's entry names, then those of the edges.
2. The variants that nothing has seen are woken together for one run of the whole suite: if it passes, all of them
   survive. The tests that fail then run with each variant alone.
3. The tests that saw a fault run once more with none awake: one that fails then has seen nothing.

With another instruction set than the best one it is what `--other-isa` selects of the suite, as in `make test`. The
exit status is 1 if a fault survives.

    python tools/mutants.py --list
    python tools/mutants.py --only erf-seam --variants one
    python tools/mutants.py --tests ../other/tests --other-isa "-m kernel" --output after.txt
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import copies
from copies import ROOT, SOURCES
from faults import FAULTS, Fault

COPY = ROOT / "build" / "mutants"
DTYPES = ("float", "double")
PYTEST = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header"]
EDGES = ["test_kernel_edges.py", "test_engine_edges.py"]  # corners that the own files leave out
INCLUDING = ["_kernels/all.pxi", "_engine/kinds.pyx"]  # the others with .pxi have their imports from these
FINISHED, FAILED, NO_TESTS = 0, 1, 5  # exit statuses of pytest

HEADER = """\
extern char *getenv(const char *);
static const char *const fastbp_faults[] = {%s};
enum { FASTBP_FAULTS = sizeof(fastbp_faults) / sizeof(fastbp_faults[0]), FASTBP_ANY = 1 };
static unsigned long fastbp_awake[FASTBP_FAULTS];  /* 0, FASTBP_ANY, or for elements of so many bytes */
#define FASTBP_QUOTED_(x) #x
#define FASTBP_QUOTED(x) FASTBP_QUOTED_(x)
static int fastbp_ends(const char *p) { return *p == 0 || *p == ':' || *p == ','; }
static int fastbp_field_is(const char *field, const char *name) {
    unsigned long n = __builtin_strlen(name);
    return __builtin_strncmp(field, name, n) == 0 && fastbp_ends(field + n);
}
static const char *fastbp_next_field(const char *field) {
    while (!fastbp_ends(field)) field++;
    return *field == ':' ? field + 1 : "";
}
static void fastbp_wake(const char *entry) {
    const char *isa = fastbp_next_field(entry), *dtype = fastbp_next_field(isa);
    unsigned long size = fastbp_field_is(dtype, "float") ? sizeof(float) : sizeof(double);
    if (fastbp_ends(dtype)) size = FASTBP_ANY;
#ifdef FASTBP_ISA_NAME
    if (!fastbp_ends(isa) && !fastbp_field_is(isa, FASTBP_QUOTED(FASTBP_ISA_NAME))) return;
    if (size != FASTBP_ANY && size != sizeof(FASTBP_REAL)) return;
#endif
    for (int i = 0; i < FASTBP_FAULTS; i++)
        if (fastbp_field_is(entry, fastbp_faults[i])) fastbp_awake[i] = size;
}
__attribute__((constructor)) static void fastbp_read_faults(void) {
    for (const char *entry = getenv("FASTBP_FAULT"); entry && *entry; entry += *entry != 0) {
        fastbp_wake(entry);
        while (*entry && *entry != ',') entry++;
    }
}
#define fastbp_fault(i) (fastbp_awake[i] != 0)
#define fastbp_fault_of(i, size) (fastbp_awake[i] == FASTBP_ANY || fastbp_awake[i] == (unsigned long)(size))
"""
DECLARATION = """\
cdef extern from * nogil:
    bint fault "fastbp_fault"(int i)
    bint fault_of "fastbp_fault_of"(int i, size_t itemsize)
"""
CIMPORT = "from fastbp._fault cimport fault, fault_of\n"


# --- the copy


def patched(source: str, fault: Fault, number: int) -> str:
    """The source with one fault in it; its text must occur exactly once."""
    if source.count(fault.text) != 1:
        count = source.count(fault.text)
        raise ValueError(f"{fault.name}: its text occurs {count} times in {fault.file}, expected once")
    if not re.search(r"\bFAULT\b", fault.faulty):
        raise ValueError(f"{fault.name}: FAULT does not occur in what replaces its text")
    condition = f"fault({number})" if fault.is_kernel else f"fault_of({number}, {fault.itemsize})"
    return source.replace(fault.text, re.sub(r"\bFAULT\b", condition, fault.faulty))


def patched_sources(directory: Path) -> dict[str, str]:
    """The text of each file of that directory with faults in it, and of those that let it know them."""
    texts = {name: (directory / name).read_text() for name in {*INCLUDING, *(fault.file for fault in FAULTS)}}
    for number, fault in enumerate(FAULTS):
        texts[fault.file] = patched(texts[fault.file], fault, number)
    for name, text in texts.items():
        if name in INCLUDING or not name.endswith(".pxi"):
            texts[name] = re.sub(r"^(?=(from|cimport) )", CIMPORT, text, count=1, flags=re.MULTILINE)
    return {**texts, "_fault.pxd": DECLARATION}


def plant(place: Path) -> None:
    """Put all faults into a copy of the tree."""
    for name, text in patched_sources(place / SOURCES).items():
        (place / SOURCES / name).write_text(text)
    (place / "fault.h").write_text(HEADER % ", ".join(f'"{fault.name}"' for fault in FAULTS))


def build() -> None:
    faults = [(fault.name, fault.file, fault.text, fault.faulty, fault.itemsize) for fault in FAULTS]
    copies.build(COPY, {"CFLAGS": f"-include {COPY / 'fault.h'}"}, repr((faults, HEADER)), plant)


# --- variants


@dataclass(frozen=True)
class Variant:
    fault: Fault
    dtype: str
    isa: str  # of the run, and of the fault if it is in a kernel

    @property
    def setting(self) -> str:
        return f"{self.fault.name}:{self.isa if self.fault.is_kernel else ''}:{self.dtype}"

    @property
    def name(self) -> str:
        return f"{self.isa if self.fault.is_kernel else 'engine'} {'float32' if self.dtype == 'float' else 'float64'}"


@dataclass(frozen=True)
class Result:
    variant: Variant
    seen_by: str  # the test's node id; "" for none
    seconds: float
    how: str = ""


def variants(faults: Sequence[Fault], every: bool, isas: Sequence[str]) -> Iterator[Variant]:
    for fault in faults:
        of_fault = [Variant(fault, dtype, isa) for isa in isas[: 2 if fault.is_kernel else 1] for dtype in DTYPES]
        yield from of_fault if every else of_fault[:1]


# --- runs


def pytest(arguments: Sequence[str], isa: str, setting: str | None) -> tuple[int, list[str], str]:
    """The exit status, the tests that failed, and all that it said."""
    fault = {"FASTBP_FAULT": setting} if setting else {}
    run = subprocess.run(
        [*PYTEST, *arguments],
        cwd=COPY,
        env=copies.environment(COPY, isa, **fault),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    failed = re.findall(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", run.stdout, flags=re.MULTILINE)
    if run.returncode < 0:  # a signal: faulthandler wrote where
        failed = ["::".join(at) for at in re.findall(r'(tests/\w+\.py)", line \d+ in (test_\w+)', run.stdout)]
    return run.returncode, failed, run.stdout


def selected(files: Sequence[str], variant: Variant, best: str, others: Sequence[str]) -> list[str]:
    """Those of the test files that are there; with another instruction set, what it runs of them."""
    paths = [f"tests/{file}" for file in files if (COPY / "tests" / file).exists()]
    if variant.isa == best:
        return paths
    wanted = [argument for argument in others if argument.startswith("tests/")]
    rest = [argument for argument in others if not argument.startswith("tests/")]
    paths = [path for path in paths if not wanted or path in wanted]
    return paths and [*paths, *rest]


def first_look(variant: Variant, best: str, others: Sequence[str], ignored: Sequence[str]) -> Result:
    begin = time.monotonic()
    words = ["-k", variant.fault.words] if variant.fault.words else []
    own, edges = (selected(files, variant, best, others) for files in (variant.fault.test_files, EDGES))
    result = Result(variant, "", 0)
    for arguments in ([*own, *words] if own else [], edges):
        if arguments and not result.seen_by:
            result = seen(variant, [*arguments, *ignored], begin)
    return result


def seen(variant: Variant, arguments: Sequence[str], begin: float) -> Result:
    status, failed, said = pytest(arguments, variant.isa, variant.setting)
    seconds = time.monotonic() - begin
    if status in (FINISHED, NO_TESTS):
        return Result(variant, "", seconds)
    if status > FAILED:
        raise RuntimeError(f"pytest {shlex.join(arguments)} ended with {status}:\n{said}")
    how = "" if status == FAILED else f" (signal {-status})"
    return Result(variant, failed[-1] if failed else "?", seconds, how)


def look_together(unseen: Sequence[Variant], arguments: Sequence[str]) -> list[Result]:
    """Variants of one instruction set of the run: the whole suite with all of them, then each with what failed."""
    begin = time.monotonic()
    together = ",".join(variant.setting for variant in unseen)
    status, failed, said = pytest([*arguments, "--maxfail=500"], unseen[0].isa, together)
    if status > FAILED:
        raise RuntimeError(f"pytest {shlex.join(arguments)} ended with {status}:\n{said}")
    if status < 0:  # killed by a signal: what would have followed is not known
        return [seen(variant, arguments, time.monotonic()) for variant in unseen]
    if failed:
        anyway = set(pytest([*failed, "--maxfail=500"], unseen[0].isa, None)[1])
        failed = [test for test in failed if test not in anyway]
    if not failed:
        return [Result(variant, "", time.monotonic() - begin) for variant in unseen]
    return [seen(variant, failed, time.monotonic()) for variant in unseen]


def line(result: Result) -> str:
    return f"{result.variant.fault.name:28} {result.variant.name:17} {result.seconds:6.1f} s  "


def failing_anyway(results: Sequence[Result]) -> set[tuple[str, str]]:
    """(isa, test) of those that saw a fault and fail without one."""
    failing = set()
    for isa in sorted({result.variant.isa for result in results}):
        tests = sorted({result.seen_by for result in results if result.variant.isa == isa and "::" in result.seen_by})
        if tests:
            _, failed, _ = pytest([*tests, "--maxfail=1000"], isa, None)
            failing |= {(isa, test) for test in failed}
    return failing


def report(results: Sequence[Result], failing: set[tuple[str, str]]) -> tuple[str, int]:
    """The table, and how many survive."""
    lines, survivors = [], 0
    for result in results:
        variant = result.variant
        seen_by = f"{result.seen_by}{result.how}"
        if not result.seen_by or (variant.isa, result.seen_by) in failing:
            seen_by = f"SURVIVES ({result.seen_by} fails without it)" if result.seen_by else "SURVIVES"
            survivors += 1
        lines.append(f"{line(result)}{seen_by}")
    faults = len({result.variant.fault for result in results})
    lines.append(f"{faults} faults in {len(results)} variants: {len(results) - survivors} seen, {survivors} survive")
    return "\n".join(lines), survivors


def arguments_of(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="list the faults")
    parser.add_argument("--build", action="store_true", help="build the copy, and run nothing")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="faults or families")
    parser.add_argument("--variants", choices=["all", "one"], default="all")
    parser.add_argument("--quick", action="store_true", help="never the whole suite")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests", metavar="DIR", help="the tests of another tree")
    parser.add_argument("--other-isa", default=copies.KERNEL_TESTS, metavar="ARGS", help="of pytest, with another set")
    parser.add_argument("--deselect", nargs="*", default=[], metavar="TEST", help="tests that fail without a fault")
    parser.add_argument("--jobs", type=int, default=1, help="variants at a time")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the table is written, too")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments_of(given)
    faults = [fault for fault in FAULTS if not options.only or {fault.name, fault.family} & set(options.only)]
    if options.list or not faults:
        print("\n".join(f"{fault.name:28} {fault.family:20} {fault.file}" for fault in faults or FAULTS))
        return 0 if faults else 2
    build()
    if options.build:
        return 0
    copies.take_tests(COPY, options.tests)
    others = shlex.split(options.other_isa)
    isas = copies.instruction_sets(COPY)
    ignored = [f"--deselect={test}" for test in options.deselect]

    def run(variant: Variant) -> Result:
        result = first_look(variant, isas[0], others, ignored)
        print(f"{line(result)}{result.seen_by or 'nothing'}{result.how}", flush=True)
        return result

    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(run, variants(faults, options.variants == "all", isas)))
    for isa in [] if options.quick else isas:
        unseen = [result.variant for result in results if not result.seen_by and result.variant.isa == isa]
        if unseen:
            whole = ["tests"] if isa == isas[0] else others
            again = {result.variant: result for result in look_together(unseen, [*whole, *ignored])}
            results = [again.get(result.variant, result) for result in results]
    table, survivors = report(results, failing_anyway(results))
    print(table)
    if options.output:
        options.output.write_text(f"{table}\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main())
