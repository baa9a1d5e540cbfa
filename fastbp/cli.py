"""The command line: ``python -m fastbp info | demo | bench | train | predict | accelerate``, also as ``fastbp``.

A. Results go to the standard output: aligned text, or with ``--json`` one JSON document. Progress, notes and errors go
   to the standard error stream.
B. An error is one line. It names the argument or the column, what was expected and what came.
C. Exit codes: see `EXIT_CODES`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np

import fastbp
from fastbp import runtime
from fastbp.io._tables import READABLE, WRITABLE, Column, Table, json_text, read_table, save_columns, write_columns
from fastbp.io._terminal import Style, aligned, is_terminal, printable

__all__ = ["main"]

EXIT_CODES = """exit codes:
  0    done
  1    the work could not be done: a damaged file, a missing package, a check or a training that failed
  2    the command line is wrong: an unknown option, a file or a column that is not there
  130  interrupted (Ctrl-C)"""


class ArgumentError(ValueError):
    """An argument names something that is not there, or does not go with another one."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What stands behind the program's name; by default ``sys.argv[1:]``.

    Returns
    -------
    int
        The exit code: 0 if all went well, 1 if the work could not be done, 2 if an argument names something that is not
        there, 130 after Ctrl-C. Arguments that cannot be parsed end the program with 2, as argparse does.

    Examples
    --------
    >>> from fastbp.cli import main
    >>> main(["info"])  # doctest: +ELLIPSIS
    version...
    0
    """
    options = make_parser().parse_args(arguments)
    command: Command = options.command
    return command(options)


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = Parser(
        prog="fastbp",
        description="Neural networks on the CPU: train one on a table, and see what is fast on this machine.",
        epilog=EXAMPLES["fastbp"] + "\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastbp {fastbp.__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    def add(name: str, summary: str, command: Command) -> argparse.ArgumentParser:
        form = argparse.RawDescriptionHelpFormatter
        made = commands.add_parser(
            name, help=summary, description=summary, epilog=EXAMPLES.get(name), formatter_class=form
        )
        made.set_defaults(command=command, prog=made.prog)
        return made

    info = add("info", "show what is in use, and what will be fast here and why", run_info)
    add_json(info)

    demo = add("demo", "learn real digits, check the gradient, time a large one, draw a picture", run_demo)
    demo.add_argument("--picture", default="./fastbp-demo.png", metavar="PATH", help="where (default: %(default)s)")
    demo.add_argument("--quick", action="store_true", help="fewer epochs, smaller networks, a lower bar; for tests")

    bench = add("bench", "time value_and_grad and plain numpy side by side at a few shapes", run_bench)
    bench.add_argument("--quick", action="store_true", help="the small shapes only and few rounds; for tests")
    add_json(bench)

    add_train(add("train", "train a network that predicts one column of a table", run_train))
    add_predict(add("predict", "predict with a model that `fastbp train` wrote", run_predict))

    accelerate = add("accelerate", "run a script whose gradients fastbp computes", run_accelerate)
    accelerate.add_argument("script", help="a Python file")
    accelerate.add_argument("arguments", nargs=argparse.REMAINDER, help="the script's own arguments")
    return parser


EXAMPLES = {
    "fastbp": """examples:
  fastbp info
  fastbp train iris.csv --target species
  fastbp predict iris-model.npz new.csv --output predictions.csv
""",
    "info": """examples:
  fastbp info
  FASTBP_NUM_THREADS=1 fastbp info --json
""",
    "bench": """examples:
  fastbp bench
  fastbp bench --quick --json
""",
    "train": """examples:
  fastbp train iris.csv --target species
  fastbp train houses.csv --target price --ignore id --categorical zip --hidden 128,64
  fastbp train arrays.npz --target y --task regression --model model.safetensors --json

A column of numbers is standardised; a column of words becomes one input for each word (one-hot). An empty field, NA,
NaN, null or ? is a missing value. A fifth of the rows is kept for validation: training stops when their loss has not
improved for a while, and the best network is kept. For the score on other rows run `fastbp predict MODEL DATA`, where
DATA has the target.
""",
    "predict": """examples:
  fastbp predict iris-model.npz new.csv
  fastbp predict iris-model.npz new.csv --probabilities --output predictions.csv
  fastbp predict iris-model.npz new.csv --json

On a terminal the predictions are an aligned table, otherwise comma-separated text. If DATA has the target, the score is
printed to the standard error stream.
""",
}


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """The options of commands that read a table."""
    parser.add_argument("--delimiter", type=one_character, metavar="CHARACTER", help="of a text file (default: found)")
    parser.add_argument(
        "--no-header", action="store_true", help="the first line has no names: columns are column_1, column_2, ..."
    )


def add_train(parser: argparse.ArgumentParser) -> None:
    """The arguments of `fastbp train`."""
    parser.add_argument("data", help=f"a table: {', '.join(READABLE)} (.gz too; .parquet needs pandas)")
    parser.add_argument("--target", required=True, metavar="COLUMN", help="the column to predict")
    parser.add_argument("--task", choices=("classification", "regression"), help="(default: by the target's values)")
    parser.add_argument("--ignore", nargs="+", default=[], metavar="COLUMN", help="columns that are not read")
    parser.add_argument(
        "--categorical", nargs="+", default=[], metavar="COLUMN", help="columns of numbers that stand for categories"
    )
    parser.add_argument(
        "--hidden", type=sizes, default=(64, 64), metavar="N,N,...", help="units of each hidden layer (default: 64,64)"
    )
    parser.add_argument("--epochs", type=at_least(1), metavar="N", help="at most (default: 500)")
    parser.add_argument(
        "--patience", type=at_least(1), default=20, metavar="N", help="epochs without improvement (default: 20)"
    )
    parser.add_argument(
        "--validation", type=share, default=0.2, metavar="SHARE", help="of the rows; 0: none (default: 0.2)"
    )
    parser.add_argument("--lr", type=above_zero, default=0.003, metavar="RATE", help="of AdamW (default: 0.003)")
    parser.add_argument("--batch-size", type=at_least(1), metavar="N", help="rows (default: by the table's size)")
    parser.add_argument("--max-seconds", type=above_zero, metavar="S", help="stop the training after so long")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="(default: 0)")
    parser.add_argument("--threads", type=threads, metavar="N", help="(default: see fastbp info)")
    parser.add_argument("--model", metavar="PATH", help=".npz or .safetensors (default: DATA-model.npz)")
    picture = parser.add_mutually_exclusive_group()
    picture.add_argument("--picture", metavar="PATH", help="of the training (default: beside the model, .png)")
    picture.add_argument("--no-picture", action="store_true", help="draw none")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_reading(parser)
    add_json(parser)


def add_predict(parser: argparse.ArgumentParser) -> None:
    """The arguments of `fastbp predict`."""
    parser.add_argument("model", help="a file that `fastbp train` wrote")
    parser.add_argument("data", help="a table with the columns that the model reads")
    parser.add_argument("--output", metavar="PATH", help=f"where: {', '.join(WRITABLE)} (default: standard output)")
    parser.add_argument("--probabilities", action="store_true", help="of each class, too")
    add_reading(parser)
    add_json(parser)


# values of options


def at_least(least: int) -> Callable[[str], int]:
    """Return what reads a whole number, for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number >= {least}, got {text!r}")
        return int(text)

    return read


def real(text: str) -> float:
    """Return a number, or NaN for what is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def above_zero(text: str) -> float:
    """Return a finite number above 0."""
    if not 0 < (value := real(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def threads(text: str) -> int:
    """Return a number of threads."""
    if not text.isdecimal() or not 1 <= int(text) <= runtime.MAX_THREADS:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {runtime.MAX_THREADS}, got {text!r}")
    return int(text)


def share(text: str) -> float:
    """Return a number in [0, 1)."""
    if not 0 <= (value := real(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a share of the rows, from 0 to below 1, got {text!r}")
    return value


def sizes(text: str) -> tuple[int, ...]:
    """Return sizes of layers: "64,32" is (64, 32), and "0" or "" is a linear model."""
    if text.strip() in ("", "0"):
        return ()
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise argparse.ArgumentTypeError(f"expected whole numbers such as 64,64 (0: a linear model), got {text!r}")
    return tuple(map(int, words))


def one_character(text: str) -> str:
    """Return a delimiter."""
    text = "\t" if text == "\\t" else text
    if len(text) != 1 or text in '"\r\n':
        raise argparse.ArgumentTypeError(f"expected one character, or \\t for a tab, got {text!r}")
    return text


# errors


class Command(Protocol):
    """What runs with the options of a command line, and returns the exit code."""

    def __call__(self, options: argparse.Namespace) -> int: ...


def in_one_line(command: Command) -> Command:
    """Return the command with its errors of data, files and packages as one line and an exit code."""

    def run(options: argparse.Namespace) -> int:
        try:
            return command(options)
        except BrokenPipeError:  # the reader of the output, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            return failed(options, "interrupted", 130)
        except (ArgumentError, FileNotFoundError) as error:
            return failed(options, describe_error(error), 2)
        except (ValueError, OSError, ImportError, FloatingPointError, MemoryError) as error:
            return failed(options, describe_error(error), 1)

    return run


def failed(options: argparse.Namespace, message: str, code: int) -> int:
    """Print an error, and return its exit code."""
    line = printable(" ".join(message.split()))
    print(f"{options.prog}: {Style(sys.stderr)('red', 'error:')} {line}", file=sys.stderr)
    return code


def describe_error(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


@contextmanager
def notes() -> Iterator[None]:
    """Print warnings of the package in the block as notes of one line."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", fastbp.FastbpWarning)
        yield
    for warning in found:
        note(str(warning.message))


def note(text: str) -> None:
    print(f"{Style(sys.stderr)('yellow', 'note:')} {printable(text)}", file=sys.stderr)


# info


@in_one_line
def run_info(options: argparse.Namespace) -> int:
    """Print `fastbp.config()`, the machine, and what follows for the speed."""
    machine = describe_machine()
    advice = list(advise(fastbp.config(), machine))
    if options.json:
        lines = [{"good": good, "text": text} for good, text in advice]
        print(json_text({"config": fastbp.config(), "machine": machine, "advice": lines}))
        return 0
    style = Style(sys.stdout)
    rows = list(flatten({**fastbp.config(), **machine}))
    for (name, _), line in zip(rows, aligned(rows), strict=True):
        print(style("bold", line[: len(name)]) + line[len(name) :])
    print("\n" + style("bold", "what is fast here, and why"))
    for good, text in advice:
        print(f"  {style('green', '+') if good else style('yellow', '-')} {text}")
    return 0


#: What a launcher tells each process: how many there are, and which one it is.
LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    ("WORLD_SIZE", "RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


def describe_ranks(environment: Mapping[str, str]) -> str:
    """Return how many ranks a launcher (mpiexec, srun, torchrun) has started; MPI is not initialised for that."""
    for size, rank in LAUNCHERS:
        if environment.get(size, "").isdecimal() and environment.get(rank, "").isdecimal():
            return f"{environment[size]} (this is rank {environment[rank]})"
    installed = importlib.util.find_spec("mpi4py") is not None
    return "1" if installed else '1 (for more: pip install "fastbp[mpi]")'


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and texts of a nested mapping: {"a": {"b": (1, 2)}} gives ("a.b", "1, 2")."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple | set | frozenset):
            yield prefix + name, ", ".join(str(item) for item in value)
        elif name in BYTES or prefix == "cache.":
            yield prefix + name, describe_bytes(value)
        else:
            yield prefix + name, str(value)


BYTES = ("memory", "memory_limit")


def describe_bytes(n: int | None) -> str:
    """1536 as "1.5 KiB"."""
    if n is None:
        return "None"
    size, unit = float(n), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"


def describe_machine() -> dict[str, Any]:
    """Return what the system says of itself, and the limits of a container; None where it does not tell."""
    return {
        "processor": first_value("/proc/cpuinfo", "model name") or platform.processor() or None,
        "processors": runtime._affinity(),
        "processors_limit": runtime._cgroup_quota(),
        "threads_from": threads_from(),
        "cache": caches(),
        "memory": kilobytes(first_value("/proc/meminfo", "MemTotal")),
        "memory_limit": runtime._memory_limit(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "ranks": describe_ranks(os.environ),
    }


def first_value(path: str, name: str) -> str | None:
    """The value in the first line "name : value" of a file of the system."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in found if key.strip() == name), None)


def kilobytes(text: str | None) -> int | None:
    """The bytes of "16 kB"."""
    return None if text is None else 1024 * int(text.split()[0])


def threads_from() -> str:
    """What the number of threads was taken from."""
    if os.environ.get("FASTBP_NUM_THREADS", "").strip():
        return "FASTBP_NUM_THREADS"
    if os.environ.get("OMP_NUM_THREADS", "").strip():
        return "OMP_NUM_THREADS"
    quota = runtime._cgroup_quota()
    return "limit of the container" if quota is not None and quota < runtime._affinity() else "processors"


SYSTEM_CACHES = "/sys/devices/system/cpu/cpu0/cache"


def caches() -> dict[str, int]:
    """The bytes of the first processor's caches for data, by name: {"L1": ..., "L2": ..., "L3": ...}."""
    found: dict[str, int] = {}
    for folder in sorted(Path(SYSTEM_CACHES).glob("index*")):
        try:
            kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction" and size[:-1].isdecimal() and size[-1] in "KM":
            found[f"L{level}"] = int(size[:-1]) << (20 if size[-1] == "M" else 10)
    return dict(sorted(found.items()))


LANES = {"avx512": 16, "avx2": 8, "neon": 4, "baseline": 4}


def advise(config: Mapping[str, Any], machine: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """What follows from the machine: whether it is good for the speed, and why."""
    isa, best, threads = config["isa"], config["isa_supported"][0], config["threads"]
    if isa != best:
        yield False, f"FASTBP_ISA={isa} holds the kernels back: this processor has {best}"
    fused = "" if isa == "baseline" else ", with fused multiply-add"
    yield (
        isa != "baseline",
        f"{isa}: an instruction computes {LANES[isa]} numbers of float32, half as many of float64{fused}",
    )
    if config["debug"]:
        yield False, "a build with checks (FASTBP_DEBUG=1): every kernel is several times slower"
    yield from _advise_threads(threads, machine)
    yield from _advise_memory(machine)


def _advise_threads(threads: int, machine: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    allowed = machine["processors"]
    if machine["processors_limit"] is not None:
        allowed = min(allowed, machine["processors_limit"])
    source = machine["threads_from"]
    if threads > allowed:
        yield (
            False,
            f"{threads} threads by {source}, but {allowed:g} processors: they take turns; set FASTBP_NUM_THREADS",
        )
    elif threads + 1 <= allowed:
        yield False, f"{threads} of {allowed:g} processors in use, by {source}"
    elif threads == 1:
        yield True, "one thread: small networks need no more, large products take as long as one processor needs"
    else:
        yield True, f"{threads} threads share large products; small networks run side by side with fastbp.fit_many"
    load = machine["load"]
    if load is not None and load > machine["processors"]:
        yield False, f"the machine is busy (load {load:g} on {machine['processors']} processors): times will vary"


def _advise_memory(machine: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    levels = machine["cache"]
    for level in ("L2", max(levels, default="")):
        if level in levels and (level != "L2" or len(levels) > 2):
            count = rounded(levels[level] // 8)  # a parameter and its gradient, 4 bytes each
            yield True, f"up to {count} parameters and their gradients (float32) stay in the {level} cache"
    if levels:
        yield (
            False,
            f"beyond the {max(levels)} cache the memory's bandwidth limits small batches: larger ones read less",
        )
    limits = [n for n in (machine["memory"], machine["memory_limit"]) if n is not None]
    if limits:
        count = rounded(min(limits) // 16)
        what = "the container's limit" if machine["memory_limit"] == min(limits) else "the memory"
        size = describe_bytes(min(limits))
        yield True, f"Adam takes 16 bytes for each parameter: {what} of {size} has room for {count} parameters"


def rounded(n: int) -> str:
    """131072 as "130 thousand"."""
    for unit, name in ((10**9, " billion"), (10**6, " million"), (10**3, " thousand")):
        if n >= unit:
            return f"{float(f'{n / unit:.2g}'):g}{name}"
    return str(n)


# train


@in_one_line
def run_train(options: argparse.Namespace) -> int:
    """Train a network on a table, print a summary, and write the model and a picture."""
    from fastbp.training import _tabular

    model, picture = output_paths(options)
    table = read_table(
        options.data, delimiter=options.delimiter, header=not options.no_header, text=options.categorical
    )
    check_columns(options, table)
    with ExitStack() as stack:
        if options.threads is not None:
            stack.enter_context(fastbp.threads(options.threads))
        stack.enter_context(notes())
        fitted = _tabular.fit(table, options.target, options.ignore, fit_options(options))
    _tabular.save(fitted, model)
    if picture is not None:
        draw_training(fitted, picture)
    report = training_report(options, table, fitted, model, picture)
    if options.json:
        print(json_text(report))
    else:
        print_training(report, _tabular.describe_columns(fitted.encoding, fitted.left_out))
    return 0


def fit_options(options: argparse.Namespace) -> Any:
    from fastbp.training._tabular import Options

    names = ("task", "hidden", "epochs", "patience", "validation", "lr", "batch_size", "seed", "max_seconds")
    if options.quiet:
        progress: str | bool = False
    else:
        progress = True if is_terminal(sys.stderr) else "auto"
    return Options(**{name: getattr(options, name) for name in names}, progress=progress)


def output_paths(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """Return where model and picture go; raise, before any work, for what cannot be written."""
    data = Path(options.data)
    name = data.stem if data.suffix.lower() != ".gz" else Path(data.stem).stem
    model = Path(options.model) if options.model else data.with_name(f"{name}-model.npz")
    if model.suffix.lower() not in (".npz", ".safetensors"):
        raise ArgumentError(f"--model: expected a name that ends in .npz or .safetensors, got {os.fspath(model)!r}")
    if model.suffix.lower() == ".safetensors" and importlib.util.find_spec("safetensors") is None:
        raise ImportError(
            '--model: .safetensors needs the package safetensors: pip install "fastbp[save]"; .npz needs none'
        )
    picture = None
    if not options.no_picture:
        picture = Path(options.picture) if options.picture else model.with_suffix(".png")
    if picture is not None and importlib.util.find_spec("matplotlib") is None:
        if options.picture:
            raise ImportError('--picture needs matplotlib: pip install "fastbp[demo]"')
        note('no picture: that needs matplotlib (pip install "fastbp[demo]")')
        picture = None
    for option, path in (("--model", model), ("--picture", picture)):
        if path is not None and not path.parent.is_dir():
            raise ArgumentError(f"{option}: there is no directory {os.fspath(path.parent)!r}")
        if path is not None and not os.access(path.parent, os.W_OK):
            raise ArgumentError(f"{option}: the directory {os.fspath(path.parent)!r} cannot be written into")
        if path is not None and path.exists() and data.exists() and path.samefile(data):
            raise ArgumentError(f"{option}: {os.fspath(path)!r} is the data")
    return model, picture


def check_columns(options: argparse.Namespace, table: Table) -> None:
    """Raise where an option names a column that is not there, or the target."""
    check_column("--target", options.target, table)
    for option, names in (("--ignore", options.ignore), ("--categorical", options.categorical)):
        for name in names:
            check_column(option, name, table)
    if options.target in options.ignore:
        raise ArgumentError(f"--ignore: {options.target!r} is the target, expected another column")


def check_column(option: str, name: str, table: Table) -> None:
    from fastbp.io._columns import listed

    if name in table.columns:
        return
    near = get_close_matches(name, table.columns, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    columns = listed(table.columns)
    raise ArgumentError(f"{option}: expected a column of {table.path} ({columns}), got {name!r}{meant}")


def training_report(
    options: argparse.Namespace, table: Table, fitted: Any, model: Path, picture: Path | None
) -> dict[str, Any]:
    """Return all there is to say about a training, as data."""
    history, target, net = fitted.history, fitted.encoding.target, fitted.net
    held = options.validation > 0
    return {
        "data": options.data,
        "rows": table.rows,
        "rows_without_target": fitted.without_target,
        "rows_for_training": fitted.training_rows,
        "rows_for_validation": len(fitted.truth) if held else 0,
        "target": target.name,
        "task": target.task,
        "why": fitted.reason,
        "classes": list(target.classes) or None,
        "inputs": fitted.encoding.width,
        "left_out": fitted.left_out,
        "sizes": list(net.sizes),
        "parameters": net.n_parameters,
        "batch_size": fitted.batch_size,
        "epochs": history.epochs,
        "best_epoch": history.best_epoch,
        "seconds": sum(history.seconds),
        "stopped": history.stopped,
        "scored_on": "validation rows" if held else "training rows",
        "scores": fitted.scores,
        "baseline": fitted.baseline,
        "by_class": by_class(fitted) if target.classes else None,
        "model": os.fspath(model),
        "picture": None if picture is None else os.fspath(picture),
    }


def by_class(fitted: Any) -> list[dict[str, Any]]:
    """Return the rows, recall and precision of each class."""
    rows = []
    for label in fitted.encoding.target.classes:
        true, said = fitted.truth == label, fitted.predicted == label
        right = int((true & said).sum())
        recall = right / int(true.sum()) if true.any() else None
        precision = right / int(said.sum()) if said.any() else None
        rows.append({"class": label, "rows": int(true.sum()), "recall": recall, "precision": precision})
    return rows


def print_training(report: Mapping[str, Any], columns: str) -> None:
    """Print the summary of a training."""
    style = Style(sys.stdout)
    gone = f", {report['rows_without_target']} without a target left out" if report["rows_without_target"] else ""
    used = f"{report['rows_for_training']} for training, {report['rows_for_validation']} for validation"
    classes = f" into {len(report['classes'])} classes" if report["classes"] else ""
    stopped = f" ({report['stopped']})" if report["stopped"] else ""
    best = f"; best epoch: {report['best_epoch']}" if report["rows_for_validation"] else ""
    rows = [
        ("data", f"{report['data']}: {report['rows']} rows{gone}; {used}"),
        ("target", f"{report['target']}: {report['task']}{classes} ({report['why']})"),
        ("columns", columns),
        ("network", f"{'-'.join(map(str, report['sizes']))}, relu; {report['parameters']} parameters"),
        ("training", f"{report['epochs']} epochs in {report['seconds']:.3g} s{stopped}{best}"),
        ("result", describe_scores(report)),
        ("model", report["model"]),
        ("picture", report["picture"] or "none"),
    ]
    for (name, _), line in zip(rows, aligned(rows), strict=True):
        rest = line[len(name) :]
        print(style("bold", name) + (style("green", rest) if name == "result" else rest))
    if report["by_class"] and len(report["by_class"]) <= 20:
        print_classes(report["by_class"], style)


def describe_scores(report: Mapping[str, Any]) -> str:
    scores, baseline = report["scores"], report["baseline"]
    if "accuracy" in scores:
        text = f"accuracy {percent(scores['accuracy'])} on {report['scored_on']}"
        return f"{text} (the most frequent class alone: {percent(baseline['accuracy'])})"
    text = f"R² {scores['r2']:.3f}, mean absolute error {scores['mae']:.4g} on {report['scored_on']}"
    return f"{text} (the mean alone: {baseline['mae']:.4g})"


def print_classes(found: Sequence[Mapping[str, Any]], style: Style) -> None:
    table = [("class", "rows", "recall", "precision")]
    table += [(row["class"], str(row["rows"]), percent(row["recall"]), percent(row["precision"])) for row in found]
    head, *lines = aligned(table, "lrrr")
    print("\n" + style("bold", head))
    print("\n".join(lines))


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def draw_training(fitted: Any, path: Path) -> None:
    """Draw the curves of a training, and the predictions beside the truth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    fitted.history.plot(left)
    left.set_title("training")
    target = fitted.encoding.target
    held = "validation" if fitted.history.val_loss else "training"
    if target.classes:
        draw_confusion(right, fitted)
        right.set_title(f"{held} rows, accuracy {percent(fitted.scores['accuracy'])}")
    else:
        right.plot(fitted.truth, fitted.predicted, ".", markersize=4, alpha=0.6)
        ends = [float(fitted.truth.min()), float(fitted.truth.max())]
        right.plot(ends, ends, color="0.5", linestyle="--", label="equal")
        right.set(xlabel=f"{target.name}, true", ylabel=f"{target.name}, predicted")
        right.set_title(f"{held} rows, R² {fitted.scores['r2']:.3f}")
        right.legend()
    figure.savefig(path, dpi=120)


def draw_confusion(axes: Any, fitted: Any) -> None:
    """Draw how many rows of each class were predicted as which."""
    target = fitted.encoding.target
    true, said = target.encode(fitted.truth), target.encode(fitted.predicted)
    n = len(target.classes)
    counts = np.bincount(n * true + said, minlength=n * n).reshape(n, n)
    axes.imshow(counts, cmap="Blues")
    axes.set(xlabel="predicted", ylabel="true")
    if n <= 20:
        names = [printable(label) for label in target.classes]
        axes.set_xticks(range(n), names, rotation=45 if n > 5 else 0, ha="right" if n > 5 else "center")
        axes.set_yticks(range(n), names)
        for i, j in np.ndindex(n, n):
            if counts[i, j]:
                colour = "white" if counts[i, j] > counts.max() / 2 else "black"
                axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour)


# predict


@in_one_line
def run_predict(options: argparse.Namespace) -> int:
    """Print or write the predictions of a model for a table."""
    from fastbp.training import _tabular

    if options.output and Path(options.output).suffix.lower() not in WRITABLE:
        expected = f"a name that ends in one of {', '.join(WRITABLE)}"
        raise ArgumentError(f"--output: expected {expected}, got {options.output!r}")
    net, encoding = _tabular.load(options.model)
    target = encoding.target
    if options.probabilities and not target.classes:
        raise ArgumentError(f"--probabilities: expected a model of classes, got one of values ({target.name!r})")
    text = [*encoding.categories, *([target.name] if target.classes and isinstance(target.classes[0], str) else [])]
    table = read_table(options.data, delimiter=options.delimiter, header=not options.no_header, text=text)
    predicted, probabilities = _tabular.predict(net, encoding, table)
    columns: dict[str, Column] = {target.name: predicted}
    if options.probabilities and probabilities is not None:
        columns |= {f"P({label})": probabilities[:, k] for k, label in enumerate(target.classes)}
    truth = _tabular.truth_of(encoding, table)
    scores = None if truth is None else _tabular.scores(encoding, truth, predicted)
    if options.output:
        save_columns(options.output, columns)
    if options.json:
        values = None if options.output else columns
        print(
            json_text(
                {
                    "target": target.name,
                    "rows": table.rows,
                    "predictions": values,
                    "scores": scores,
                    "output": options.output,
                }
            )
        )
        return 0
    if not options.output:
        print_predictions(columns)
    if scores is not None:
        print("scores: " + ", ".join(f"{name} {value:.4g}" for name, value in scores.items()), file=sys.stderr)
    return 0


def print_predictions(columns: Mapping[str, Column]) -> None:
    """Print an aligned table to a terminal, comma-separated text to anything else."""
    if not is_terminal(sys.stdout):
        write_columns(sys.stdout, columns)
        sys.stdout.flush()
        return
    texts = [[describe_cell(value) for value in column.tolist()] for column in columns.values()]
    numbers = [str(row) for row in range(1, len(texts[0]) + 1)]
    head, *lines = aligned([("row", *columns), *zip(numbers, *texts, strict=True)], "r" + "r" * len(columns))
    print(Style(sys.stdout)("bold", head))
    print("\n".join(lines), flush=True)


def describe_cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# demo


def run_demo(options: argparse.Namespace) -> int:
    """Run the demonstration."""
    from fastbp import demo

    try:
        return demo.run(options.picture, quick=options.quick)
    except (demo.MissingExtraError, FileNotFoundError) as error:
        print(f"fastbp: {error}", file=sys.stderr)
        return 1


# accelerate


def run_accelerate(options: argparse.Namespace) -> int:
    """Run a script, accelerated, and print the report; its exceptions and its exit code are its own."""
    from fastbp.dropin._script import run_script

    if not Path(options.script).is_file():
        print(f"fastbp: there is no file {options.script!r}", file=sys.stderr)
        return 2
    run_script(options.script, options.arguments)
    return 0


# bench


@dataclass(frozen=True)
class Shape:
    """One network and its batch."""

    sizes: tuple[int, ...]
    batch: int

    @property
    def name(self) -> str:
        return f"{'-'.join(str(size) for size in self.sizes)} at {self.batch}"


SHAPES = (
    Shape((4, 64, 64, 2), 1),
    Shape((4, 64, 64, 2), 32),
    Shape((64, 100, 10), 200),
    Shape((784, 256, 10), 128),
    Shape((784, 2500, 2000, 1500, 1000, 500, 10), 100),
    Shape((768, 3072, 768), 1024),
)
QUICK_SHAPES = SHAPES[:3]

#: Many calls are timed at once, so that the clock's own 50 ns do not count.
SECONDS_PER_SAMPLE = 0.02

#: numpy's BLAS threads go on spinning for some 30 ms after their last product. Nothing is timed during that.
QUIET_SECONDS = 0.05


@in_one_line
def run_bench(options: argparse.Namespace) -> int:
    """Time one gradient of each shape with fastbp and with plain numpy, and print a table."""
    shapes, rounds = (QUICK_SHAPES, 3) if options.quick else (SHAPES, 9)
    with equal_threads() as threads:
        if options.json:
            found = [table_data(shape, *time_shape(shape, rounds)) for shape in shapes]
            print(json_text({"config": fastbp.config(), "threads": threads, "rounds": rounds, "shapes": found}))
            return 0
        print("One gradient (value_and_grad) of relu networks with softmax-NLL, float32, in microseconds.")
        print(f"fastbp {fastbp.config()['version']}, numpy {np.__version__}, {threads}, {platform.machine()}.")
        print(f"{rounds} rounds that alternate between the two; ratio: numpy's minimum / fastbp's minimum.\n")
        style = Style(sys.stdout)
        print(style("bold", f"{'':<42}{'fastbp':>20}{'plain numpy':>22}"))
        print(style("bold", f"{'network':<42}{'min':>10}{'median':>10}{'min':>12}{'median':>10}{'ratio':>9}"))
        for shape in shapes:
            print(table_row(shape, *time_shape(shape, rounds)), flush=True)
    return 0


def table_data(shape: Shape, ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """What the line of the table says, as data: seconds."""
    rivals = {
        name: {"min": min(seconds), "median": statistics.median(seconds)}
        for name, seconds in (("fastbp", ours), ("numpy", theirs))
    }
    return {"sizes": list(shape.sizes), "batch": shape.batch, **rivals, "ratio": min(theirs) / min(ours)}


def table_row(shape: Shape, ours: Sequence[float], theirs: Sequence[float]) -> str:
    """One line of the table from the seconds of both."""
    columns = f"{1e6 * min(ours):>10.1f}{1e6 * statistics.median(ours):>10.1f}"
    columns += f"{1e6 * min(theirs):>12.1f}{1e6 * statistics.median(theirs):>10.1f}"
    return f"{shape.name:<42}{columns}{min(theirs) / min(ours):>9.2f}"


@contextmanager
def equal_threads() -> Iterator[str]:
    """Return numpy's BLAS as many threads as fastbp has, where threadpoolctl is there to do it; says what it did."""
    threads = fastbp.get_num_threads()
    if importlib.util.find_spec("threadpoolctl") is None:
        yield f"threads: {threads} for fastbp, numpy's own choice for numpy (threadpoolctl is not installed)"
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads, user_api="blas"):
        yield f"threads: {threads} for each"


def time_shape(shape: Shape, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of one call, a value for each round, of fastbp and of numpy; their results are compared first."""
    from fastbp.demo import Gradient, allowed_differences, largest_share, numpy_value_and_grad

    net = fastbp.MLP(shape.sizes, hidden="relu", loss="softmax_nll", dtype="float32", seed=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((shape.batch, shape.sizes[0]), dtype=np.float32)
    t = rng.integers(shape.sizes[-1], size=shape.batch)

    def ours() -> object:
        return net.value_and_grad(x, t)

    def theirs() -> Gradient:
        return numpy_value_and_grad(x, t, net.weights, net.biases, hidden="relu")

    loss, gradients = net.value_and_grad(x, t)
    allowed = allowed_differences(x, t, net.weights, net.biases)
    share = largest_share((loss, list(gradients.weights), list(gradients.biases)), theirs(), allowed)
    if not share <= 1:
        raise RuntimeError(f"{shape.name}: the gradients differ by {share:.2f} times what rounding allows")
    seconds: tuple[list[float], list[float]] = ([], [])
    calls = [calls_per_sample(ours), calls_per_sample(theirs)]
    for _ in range(rounds):
        for call, count, record in zip((ours, theirs), calls, seconds, strict=True):
            time.sleep(QUIET_SECONDS)
            record.append(seconds_of(call, count) / count)
    return seconds


def calls_per_sample(call: Callable[[], object]) -> int:
    """How many calls fill one sample."""
    count = 1
    while (seconds := seconds_of(call, count)) < SECONDS_PER_SAMPLE / 4:
        count *= 4
    return max(1, round(count * SECONDS_PER_SAMPLE / seconds))


def seconds_of(call: Callable[[], object], count: int) -> float:
    """Seconds that ``count`` calls take."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start
