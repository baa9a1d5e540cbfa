"""The comparison: every rival in a process of its own, rounds going around them. ``python -m bench.compare --help``.

For each shape: the float64 reference is computed and saved by a process that then ends; the rivals are started; each
compares its gradient with the reference, and finds out how many gradients last long enough to be timed; then the rounds
go around the rivals, one at a time, while the others are blocked reading their pipe. Minimum and median of the rounds
are quoted. A rival that disagrees or fails is reported, is not timed, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from bench import machine, roofline
from bench.limits import Limits
from bench.rivals import DTYPES, HIDDEN, RIVALS, SHAPES, Shape
from bench.tables import align, format_seconds

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
QUICK_PARAMETERS = 1_000_000  # --quick leaves out the shapes that have more
BASE = "fastbp"  # what the others are divided by


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for."""

    shapes: list[Shape]
    rivals: list[str]
    threads: int
    dtype: str
    activation: str
    rounds: int
    seconds: float
    seed: int
    pythons: Mapping[str, str] = field(default_factory=dict)
    quick: bool = False

    def python(self, rival: str) -> str:
        """Return the interpreter for a rival: --python names either the rival or the package that it needs."""
        return self.pythons.get(rival) or self.pythons.get(RIVALS[rival].package) or sys.executable

    @property
    def problem(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "activation": self.activation, "seed": self.seed}

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"shapes": [shape.name for shape in self.shapes]}


# ---- processes -------------------------------------------------------------------------------------------------------


class WorkerError(RuntimeError):
    """A worker answered with an error, or ended without an answer."""


class Process:
    """A running worker.py and the two pipes to it."""

    def __init__(self, python: str, environment: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [python, str(HERE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=dict(environment),
            text=True,
            start_new_session=True,  # Ctrl-C is for the harness, which then ends its workers
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):  # it has ended: the empty answer below says so
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise WorkerError(f"ended with status {self._process.wait()}:\n{self._log.read()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()


def worker_environment(rival: str, threads: int) -> dict[str, str]:
    """Return the environment with every thread count pinned, and no wish for kernels of OpenBLAS but `hold_to`'s."""
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_CORETYPE"}
    environment |= {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL", "FASTBP")}
    held, own = machine.HELD_TO.get(machine.held_to() or "", {}), RIVALS[rival].environment(threads)
    both = {name: f"{held[name]} {own[name]}" for name in held.keys() & own.keys() if name == "XLA_FLAGS"}
    return environment | held | dict(own) | both


def is_installed(rival: str, python: str) -> bool:
    """Say whether a rival's package can be found by an interpreter, without importing it."""
    package = RIVALS[rival].package
    if package == "mkl":  # a library without a Python module
        code = "import importlib.metadata as m, sys; sys.exit(not list(m.distributions(name='mkl')))"
    else:
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code], check=False, cwd=HERE.parent).returncode == 0


# ---- measuring -------------------------------------------------------------------------------------------------------


def measure_shape(shape: Shape, settings: Settings) -> dict[str, Any]:
    """Run every rival at one shape and return what the JSON file says of it."""
    check_memory(shape, settings)
    result: dict[str, Any] = {
        "name": shape.name,
        "sizes": shape.sizes,
        "batch": shape.batch,
        "n_parameters": shape.n_parameters,
        "flops": shape.flops,
        "load_average_before": machine.load_average(),
        "rivals": {name: {} for name in settings.rivals},
    }
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-reference-"))
        reference = save_reference(shape, settings, directory)
        result["tolerances"] = reference["tolerances"]
        running: dict[str, Process] = {}
        for name, entry in result["rivals"].items():
            python = settings.python(name)
            process = stack.enter_context(Process(python, worker_environment(name, settings.threads)))
            with recording_failure(name, entry):
                entry |= start(process, name, shape, settings, {"directory": directory, **reference})
                running[name] = process
        go_around(running, result["rivals"], settings.rounds)
    result["load_average_after"] = machine.load_average()
    return result


def check_memory(shape: Shape, settings: Settings) -> None:
    """Raise SystemExit unless memory holds parameters and gradients of all rivals together, and temporaries of one."""
    parameters = shape.n_parameters * (4 if settings.dtype == "float32" else 8)
    needed = len(settings.rivals) * (2.1 * parameters + 2e8) + parameters
    available = machine.available_memory()
    if available is not None and needed > available:
        raise SystemExit(
            f"{shape.name}: {len(settings.rivals)} rivals need about {needed / 1e9:.1f} GB, available are "
            f"{available / 1e9:.1f} GB: give fewer of them with --rivals"
        )


def save_reference(shape: Shape, settings: Settings, directory: str) -> dict[str, Any]:
    """Have a process compute the float64 gradient, and give its memory back; return the loss and the tolerances."""
    with Process(sys.executable, worker_environment("numpy", settings.threads)) as process:
        arguments = {"directory": directory, "sizes": shape.sizes, "batch": shape.batch, **settings.problem}
        answer = process.ask("save_reference", **arguments)
    return {key: answer[key] for key in ("loss", "tolerances")}


def start(
    process: Process, name: str, shape: Shape, settings: Settings, reference: Mapping[str, Any]
) -> dict[str, Any]:
    """Prepare a rival, compare its gradient, and find how many of them to time."""
    arguments = {"sizes": shape.sizes, "batch": shape.batch, "threads": settings.threads, **settings.problem}
    entry = process.ask("prepare", rival=name, **arguments)
    entry |= process.ask("check", **reference)
    entry |= process.ask("calibrate", seconds=settings.seconds)
    return entry | {"rounds": []}


def go_around(running: dict[str, Process], entries: dict[str, dict[str, Any]], rounds: int) -> None:
    """Time the rivals one after another, round after round, and add minimum and median."""
    for _ in range(rounds):
        for name in list(running):
            with recording_failure(name, entries[name]):
                answer = running[name].ask("time", repeats=entries[name]["repeats"])
                entries[name]["rounds"].append(answer["seconds"])
                entries[name] |= {key: answer[key] for key in ("busy_processors", "peak_bytes", "quiet")}
            if "failure" in entries[name]:
                del running[name]
    for name in running:
        times = entries[name]["rounds"]
        entries[name] |= {"minimum": min(times), "median": statistics.median(times)}


@contextlib.contextmanager
def recording_failure(name: str, entry: dict[str, Any]) -> Iterator[None]:
    """Write a worker's error into its entry, and to stderr, instead of ending the run."""
    try:
        yield
    except WorkerError as error:
        entry["failure"] = str(error)
        print(f"{name} FAILED: {error}", file=sys.stderr)


def measure_limits(threads: int, dtype: str, python: str, *, quick: bool = False) -> list[dict[str, Any]]:
    """Return what the machine can do with one thread and with so many; [] where fastbp is not installed."""
    if not is_installed(BASE, python):
        return []
    with Process(python, worker_environment(BASE, threads)) as process:
        answer = process.ask("limits", threads=sorted({1, threads}), dtype=dtype, quick=quick)
        found: list[dict[str, Any]] = answer["limits"]
        return found


def best_limits(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, of two measurements of the same limits, what was reached in either."""
    pairs = zip(before, after, strict=True)
    return [Limits(**one).best_with(Limits(**other)).as_json() for one, other in pairs]


# ---- reporting -------------------------------------------------------------------------------------------------------


def base_of(rivals: Sequence[str]) -> str:
    """Return the rival that the others are divided by."""
    return BASE if BASE in rivals else rivals[0]


def format_table(shapes: Sequence[Mapping[str, Any]], rivals: Sequence[str], statistic: str) -> str:
    """Return rows of shapes and columns of rivals: the time, and how many times the base's it is."""
    base = base_of(rivals)
    rows = [[f"{statistic} a gradient", *rivals]]
    for shape in shapes:
        unit = shape["rivals"][base].get(statistic)
        row = [shape["name"]]
        for name in rivals:
            value = shape["rivals"][name].get(statistic)
            ratio = f" {value / unit:5.2f}x" if value and unit and name != base else ""
            row.append(format_seconds(value) + ratio if value else "FAILED")
        rows.append(row)
    return align(rows)


def summarise(shapes: Sequence[Mapping[str, Any]]) -> str:
    """Return, for each shape, the three ratios of minima that the project sets itself bars on."""
    rows = [["ratios of the minima", "numpy / fastbp", "fastbp / bare products", "best whole rival / fastbp"]]
    for shape in shapes:
        minima = {name: entry["minimum"] for name, entry in shape["rivals"].items() if "minimum" in entry}
        mine = minima.pop(BASE, None)
        if mine is None:
            continue
        products = {name: seconds for name, seconds in minima.items() if not RIVALS[name].whole}
        whole = {name: seconds for name, seconds in minima.items() if RIVALS[name].whole}
        row = [shape["name"], f"{minima['numpy'] / mine:.2f}" if "numpy" in minima else "-"]
        for group, inverted in ((products, True), (whole, False)):
            best = min(group, key=group.__getitem__, default=None)
            row.append(
                "-" if best is None else f"{mine / group[best] if inverted else group[best] / mine:.2f} ({best})"
            )
        rows.append(row)
    return align(rows)


def describe(report: Mapping[str, Any]) -> str:
    """Return what the figures hold for: machine, settings, and each rival's versions and kernels."""
    settings, computer = report["settings"], report["machine"]
    lines = [
        f"{computer['processor']}, {computer['processors']} processors, {computer['system']}",
        f"{settings['dtype']}, {settings['activation']}, threads: {settings['threads']}, "
        f"rounds: {settings['rounds']}, load average before: {report['load_average']}"
        + (f", held to {report['held_to']}" if report.get("held_to") else ""),
    ]
    for name, entry in report["shapes"][0]["rivals"].items():
        versions = ", ".join(f"{package} {version}" for package, version in entry.get("versions", {}).items())
        kernels = {library["architecture"] for library in entry.get("blas") or () if library["architecture"]}
        disagreement = max(shape["rivals"][name].get("disagreement", float("nan")) for shape in report["shapes"])
        blas = f"; BLAS kernels: {'/'.join(sorted(kernels))}" if kernels else ""
        lines.append(f"  {name}: {versions}{blas}; differs from float64 by at most {disagreement:.1e}")
    return "\n".join(lines)


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Save a picture: a group of bars for each shape, logarithmic, each bar labelled with its ratio to the base's."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    settings, shapes = report["settings"], report["shapes"]
    rivals, base = settings["rivals"], base_of(settings["rivals"])
    width = 0.86 / len(rivals)
    figure, axes = pyplot.subplots(figsize=(max(7.0, 0.2 * len(rivals) * len(shapes) + 2), 6), layout="constrained")
    axes.margins(x=0.01)
    for i, name in enumerate(rivals):
        for j, shape in enumerate(shapes):
            seconds, unit = (shape["rivals"][rival].get("minimum") for rival in (name, base))
            if seconds is None:
                continue
            x = j + (i - (len(rivals) - 1) / 2) * width
            axes.bar(x, seconds * 1e3, width, color=f"C{i}")
            label = format_seconds(seconds) if name == base else f"{seconds / unit:.3g}×" if unit else ""
            axes.annotate(
                label, (x, seconds * 1e3), (0, 3), textcoords="offset points", rotation=90, ha="center", fontsize=7
            )
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 2)  # room for the labels
    axes.set_xticks(range(len(shapes)), [_wrapped(shape["name"]) for shape in shapes], fontsize=8)
    axes.set_ylabel("time of one gradient [ms]")
    axes.set_title(
        f"One whole gradient: {settings['dtype']}, {settings['activation']}, threads: {settings['threads']}, "
        f"minimum of rounds: {settings['rounds']}\n{report['machine']['processor']}; ×: as many times {base}'s time",
        fontsize=10,
    )
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=f"C{i}") for i in range(len(rivals))]
    labels = [name if RIVALS[name].whole else f"{name} (no whole gradient)" for name in rivals]
    columns = min(len(rivals), int(figure.get_figwidth() / 2.1))  # the longest entry takes as many inches
    figure.legend(handles, labels, ncols=columns, fontsize=8, loc="outside lower center")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def draw_pictures(report: Mapping[str, Any], path: Path) -> None:
    """Save the bars, and beside them the roofline where the limits are known."""
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture: matplotlib is not installed")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(report, path)
    print(f"picture: {path}")
    if report["limits"]:
        roof = path.with_stem(f"{path.stem}-roofline")
        roofline.draw(report, roof)
        print(f"picture: {roof}")


def _wrapped(name: str) -> str:
    """Break a long shape name into lines that fit under a group of bars."""
    sizes, _, batch = name.partition("@")
    lines = textwrap.wrap(sizes.replace("-", "- "), 16)  # wrap breaks at the blanks, which then go
    return "\n".join(line.replace("- ", "-") for line in lines) + f"\nbatch {batch}"


# ---- command line ----------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None = None) -> tuple[Settings, Path, Path]:
    """Return what was asked for, and where the JSON file and the picture go."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description="Compare fastbp with its rivals.")
    add = parser.add_argument
    add("--shapes", help=f"comma-separated, any sizes@batch; default: {', '.join(shape.name for shape in SHAPES)}")
    add("--rivals", help=f"comma-separated, of {', '.join(RIVALS)}; default: all that are installed")
    add("--threads", type=int, default=min(2, machine.processors()), help="for every rival (default: %(default)s)")
    add("--dtype", choices=DTYPES, default="float32")
    add("--activation", choices=HIDDEN, default="sigmoid")
    add("--rounds", type=int, help="default: 9, with --quick 3")
    add("--seed", type=int, default=0)
    add("--python", action="append", default=[], metavar="NAME=PATH", help="interpreter for a rival or its package")
    add("--json", type=Path, default=RESULTS / "compare.json", metavar="PATH", help="default: %(default)s")
    add("--picture", type=Path, default=RESULTS / "compare.png", metavar="PATH", help="default: %(default)s")
    add("--quick", action="store_true", help="few, short rounds; small shapes unless --shapes says which")
    add_isa(parser)
    given = parser.parse_args(arguments)
    try:
        shapes = [Shape.parse(text) for text in given.shapes.split(",")] if given.shapes else list(SHAPES)
        pythons = parse_pythons(given.python)
        rivals = choose_rivals(given.rivals, pythons)
    except ValueError as error:
        parser.error(str(error))
    if given.quick and not given.shapes:
        shapes = [shape for shape in shapes if shape.n_parameters <= QUICK_PARAMETERS]
    rounds = (3 if given.quick else 9) if given.rounds is None else given.rounds
    if rounds < 1 or given.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    seconds = 0.002 if given.quick else 0.02
    settings = Settings(
        shapes, rivals, given.threads, given.dtype, given.activation, rounds, seconds, given.seed, pythons, given.quick
    )
    return settings, given.json, given.picture


class _HoldTo(argparse.Action):
    """Hold the processes that follow to an instruction set as soon as it is read."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        machine.hold_to(values)
        setattr(namespace, self.dest, values)


def add_isa(parser: argparse.ArgumentParser) -> None:
    """Add --isa; until it is read, new processes are held to nothing."""
    machine.hold_to(None)
    parser.add_argument("--isa", choices=machine.HELD_TO, action=_HoldTo, help="hold every rival to these instructions")


def add_rivals(parser: argparse.ArgumentParser, default: Sequence[str] = ()) -> None:
    """Add --rivals and --python of a benchmark of fastbp: `default` are those beside it, where installed; none: all."""
    words = ", ".join(default) or "those of the comparison"
    parser.add_argument("--rivals", help=f"comma-separated, beside {BASE} (default: {words})")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="interpreter for a rival")
    parser.set_defaults(usual=default)


def take_rivals(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Check them: `given.pythons` and `given.chosen`, of which fastbp is the first."""
    try:
        given.pythons = parse_pythons(given.python)
        installed = choose_rivals(given.rivals, given.pythons)
    except ValueError as error:
        parser.error(str(error))
    wanted = installed if given.rivals or not given.usual else [name for name in given.usual if name in installed]
    given.chosen = [BASE, *(name for name in wanted if name != BASE)]


def parse_pythons(texts: Sequence[str]) -> dict[str, str]:
    """Read the --python options."""
    known = sorted({*RIVALS, *(rival.package for rival in RIVALS.values())})
    pythons = {}
    for text in texts:
        name, _, path = text.partition("=")
        if name not in known or not path:
            raise ValueError(f"--python {text!r}: expected NAME=PATH with NAME one of {', '.join(known)}")
        pythons[name] = path
    return pythons


def choose_rivals(text: str | None, pythons: Mapping[str, str]) -> list[str]:
    """Return the rivals asked for; without a wish all, but of the optional ones only what is installed."""
    names = text.split(",") if text is not None else [n for n in RIVALS if RIVALS[n].isa in (None, machine.held_to())]
    if unknown := [name for name in names if name not in RIVALS]:
        raise ValueError(f"unknown rival {unknown[0]!r}: known are {', '.join(RIVALS)}")
    missing = []
    for name in names:
        python = pythons.get(name) or pythons.get(RIVALS[name].package) or sys.executable
        if not is_installed(name, python):
            missing.append(name)
    if needed := [name for name in missing if text is not None or not RIVALS[name].optional]:
        packages = ", ".join(f"{name} (package {RIVALS[name].package})" for name in needed)
        raise ValueError(f"not installed: {packages}")
    if missing:
        print(f"not installed, so left out: {', '.join(missing)}")
    return [name for name in names if name not in missing]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, save; return the exit status."""
    settings, json_path, picture_path = parse(arguments)
    report: dict[str, Any] = {
        "format": 1,
        "machine": machine.describe_machine(),
        "load_average": machine.load_average(),
        "held_to": machine.held_to(),
        "settings": settings.as_json(),
        "shapes": [],
    }
    json_path.parent.mkdir(parents=True, exist_ok=True)
    find_limits = partial(measure_limits, settings.threads, settings.dtype, settings.python(BASE), quick=settings.quick)
    report["limits"] = find_limits()
    for shape in settings.shapes:
        print(f"{shape.name} ...", flush=True)
        report["shapes"].append(measure_shape(shape, settings))
        # Virtual processors may share a core for a while: the best of the whole run is the limit.
        report["limits"] = best_limits(report["limits"], find_limits())
        json_path.write_text(json.dumps(report, indent=1) + "\n")  # after each, so that an interrupted run leaves some
    print("\n" + describe(report))
    for statistic in ("minimum", "median"):
        print("\n" + format_table(report["shapes"], settings.rivals, statistic))
    print("\n" + summarise(report["shapes"]))
    if report["limits"]:
        print(f"\n{roofline.format_limits(report)}\n\n{align(roofline.table(report))}")
    print(f"\njson: {json_path}")
    draw_pictures(report, picture_path)
    failed = any("failure" in entry for shape in report["shapes"] for entry in shape["rivals"].values())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
