"""Which lines do the tests reach? Line coverage of the Python files and of the compiled sources, in a build of its own.

Python's lines come from the `coverage` package. Cython's own line tracing takes the GIL at every line: it cannot follow
the loops that run without it, in several threads. So the compiler counts (setup.py with FASTBP_COVERAGE=1: gcc's
--coverage, with atomic counters), and gcov says how often each line of the generated C ran. Cython writes above each
piece of C which line of which .pyx, .pxi or .pxd it was made from; these comments lead back. Its option emit_linenums,
#line directives, would be simpler. But a directive holds until the next one, so that what Cython generates without a
source (wrappers, helpers, the module's start) is counted for the lines that follow in the source, whatever they are.
C that stands in a `cdef extern` block is not measured, and what the compiler drops as having no effect has no count.

The suite runs with the best instruction set, and what `--other-isa` selects with each other one. A line of a kernel is
covered if it is in one of them (and in one dtype); the JSON file has the lines of each instruction set, too. Some tests
of time and memory fail in such a build, which does not matter.

    python tools/covered.py --output before.json
    python tools/covered.py --tests ../other/tests --other-isa "-m kernel" --output after.json --compare before.json
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from copies import KERNEL_TESTS, ROOT, SOURCES, build, environment, instruction_sets, take_tests

COPY = ROOT / "build" / "coverage"
SETTINGS = f"""\
[run]
parallel = true
source = fastbp
data_file = {COPY}/.coverage
patch = subprocess, _exit
disable_warnings = no-data-collected, module-not-measured, couldnt-parse
"""
BEST = ("tests --ignore-glob=tests/test_sklearn_*", "tests/test_sklearn_*.py")
COMMENT = re.compile(r'\s*/\* "(.+)":(\d+)$')


@dataclass
class File:
    """The lines of one file that can run, by number, and those that did."""

    lines: list[int]
    covered: list[int]
    text: dict[int, str]  # of each line that can run
    by_isa: dict[str, list[int]] = field(default_factory=dict)  # of a kernel

    @property
    def missing(self) -> list[int]:
        return sorted(set(self.lines) - set(self.covered))


# --- runs


def run_tests(arguments: Sequence[str], isa: str) -> None:
    arguments = [name for argument in arguments for name in (expanded(argument) if "*" in argument else [argument])]
    command = [sys.executable, "-m", "coverage", "run", "--rcfile=.coveragerc", "-m", "pytest", "-q"]
    command += ["-p", "no:cacheprovider", "--no-header", "-r", "N", "--tb=no", *arguments]
    print(f"FASTBP_ISA={isa} pytest {shlex.join(arguments)}", flush=True)
    settings = environment(COPY, isa, PYTHONHASHSEED="0")
    said = subprocess.run(command, cwd=COPY, env=settings, check=False, stdout=subprocess.PIPE, text=True).stdout
    print(f"FASTBP_ISA={isa}: {''.join(said.splitlines()[-1:])}", flush=True)


def expanded(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(COPY)) for path in COPY.glob(pattern)) or [pattern]


def forget() -> None:
    """Begin at 0."""
    for path in [*COPY.rglob("*.gcda"), *COPY.glob(".coverage.*"), COPY / ".coverage"]:
        path.unlink(missing_ok=True)


# --- what they covered


def text_of(path: Path, lines: Iterable[int]) -> dict[int, str]:
    source = path.read_text().splitlines()
    return {line: source[line - 1].strip() for line in lines if line <= len(source)}


def python_files() -> dict[str, File]:
    coverage = [sys.executable, "-m", "coverage"]
    settings = "--rcfile=.coveragerc"
    if list(COPY.glob(".coverage.*")):  # of each process; none, if they were combined before
        subprocess.run([*coverage, "combine", settings, "-q"], cwd=COPY, check=True)
    subprocess.run([*coverage, "json", settings, "-q", "-i", "-o", "coverage.json"], cwd=COPY, check=True)
    files = {}
    for name, found in json.loads((COPY / "coverage.json").read_text())["files"].items():
        lines = sorted({*found["executed_lines"], *found["missing_lines"]})
        files[name] = File(lines, sorted(found["executed_lines"]), text_of(COPY / name, lines))
    return files


def source_lines(generated: Path) -> list[tuple[str, int] | None]:
    """For each line of generated C, from 1 on: the file and the line that it was made from."""
    found: list[tuple[str, int] | None] = [None]
    now = None
    for line in generated.read_text().splitlines():
        comment = COMMENT.match(line)
        if comment:
            name = f"{SOURCES}/{Path(comment[1]).name}"
            now = (name, int(comment[2])) if (COPY / name).exists() else None  # not numpy's
        elif line.startswith("}") or "/* function exit code */" in line:
            now = None
        found.append(now)
    return found


def counts(data: Path) -> dict[tuple[str, int], int]:
    """How often each line of a module's sources ran: that of its generated line which ran most."""
    command = ["gcov", "--json-format", "--stdout", str(data)]
    said = json.loads(subprocess.run(command, cwd=COPY, check=True, capture_output=True, text=True).stdout)
    most: dict[tuple[str, int], int] = {}
    for file in said["files"]:
        if Path(file["file"]).stem != data.stem:
            continue
        made_from = source_lines(COPY / file["file"])
        for line in file["lines"]:
            place = made_from[line["line_number"]] if line["line_number"] < len(made_from) else None
            if place:
                most[place] = max(most.get(place, 0), line["count"])
    return most


def compiled_files(isas: Sequence[str]) -> dict[str, File]:
    lines: dict[str, set[int]] = defaultdict(set)
    covered: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for data in sorted(COPY.rglob("*.gcda")):
        kernel = re.fullmatch(r"([a-z0-9]+)_(float|double)", data.stem)
        if kernel and kernel[1] not in isas:
            continue
        for (file, line), count in counts(data).items():
            lines[file].add(line)
            if count:
                covered[file][kernel[1] if kernel else ""].add(line)
    files = {}
    for file in sorted(lines):
        by_isa = {isa: sorted(found) for isa, found in covered[file].items()}
        every = sorted(set().union(*covered[file].values()))
        files[file] = File(sorted(lines[file]), every, text_of(COPY / file, lines[file]), by_isa)
    return files


# --- reports


def ranges(lines: Sequence[int]) -> str:
    """1-3 5 8-9"""
    parts: list[list[int]] = []
    for line in lines:
        if parts and line == parts[-1][-1] + 1:
            parts[-1].append(line)
        else:
            parts.append([line])
    return " ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)


def table(files: dict[str, File]) -> str:
    rows = [f"{'file':44} {'lines':>6} {'covered':>8}  missing"]
    for name, file in sorted(files.items()):
        rows.append(f"{name:44} {len(file.lines):6} {len(file.covered):8}  {ranges(file.missing)}".rstrip())
    for kind, suffixes in (("Python", (".py",)), ("compiled", (".pyx", ".pxi", ".pxd"))):
        chosen = [file for name, file in files.items() if name.endswith(suffixes)]
        lines, covered = sum(len(file.lines) for file in chosen), sum(len(file.covered) for file in chosen)
        rows.append(f"{kind:44} {lines:6} {covered:8}  {100 * covered / max(lines, 1):.2f} %")
    return "\n".join(rows)


def lost(before: File, now: File) -> list[str]:
    """The lines that were covered and no longer are. Where the file has changed, a line is known by its text."""
    if before.text == now.text:
        return [f"{line}: {now.text[line]}" for line in sorted(set(before.covered) & set(now.missing))]
    was, still = (Counter(file.text.get(line, "") for line in file.covered) for file in (before, now))
    return [f"{line}: {now.text[line]}" for line in now.missing if still[now.text[line]] < was[now.text[line]]]


def comparison(before: dict[str, File], now: dict[str, File]) -> list[str]:
    """One line for each that is lost, in a file that is still there; of a kernel, also in one instruction set alone."""
    found = []
    for name in sorted(before.keys() & now.keys()):
        found += [f"{name}:{line}" for line in lost(before[name], now[name])]
    return found


def read(path: Path) -> dict[str, File]:
    files = {name: File(**content) for name, content in json.loads(path.read_text()).items()}
    for file in files.values():
        file.text = {int(line): text for line, text in file.text.items()}
    return files


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=Path, default=ROOT / "tests", metavar="DIR", help="the tests of another tree")
    parser.add_argument("--best", nargs="+", default=BEST, metavar="ARGS", help="pytest's arguments, one run for each")
    parser.add_argument("--other-isa", default=KERNEL_TESTS, metavar="ARGS", help="of pytest, with each other set")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--report", action="store_true", help="run nothing: report what ran before")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the sets of lines are written, as JSON")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="list the lines that this file has covered alone")
    options = parser.parse_args(given)
    build(COPY, {"FASTBP_COVERAGE": "1"})
    isas = instruction_sets(COPY)
    if not options.report:
        take_tests(COPY, options.tests)
        (COPY / ".coveragerc").write_text(SETTINGS)
        runs = [(arguments, isas[0]) for arguments in options.best] + [(options.other_isa, isa) for isa in isas[1:]]
        forget()
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda run: run_tests(shlex.split(run[0]), run[1]), runs))
    files = {**python_files(), **compiled_files(isas)}
    print(table(files))
    if options.output:
        options.output.write_text(json.dumps({name: asdict(file) for name, file in files.items()}))
    found = comparison(read(options.compare), files) if options.compare else []
    print("\n".join(["", f"{len(found)} lines lost", *found]) if options.compare else "", end="\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
