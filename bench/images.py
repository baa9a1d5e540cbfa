"""Networks that read images: one whole gradient, by each rival in a process of its own, in turn. ``--help``.

``python -m bench.images`` compares the networks of `image_networks`: forward, loss and backward to all parameters; for
CS231n's network also to the images, as its exercise asks. Before anything is timed each rival's loss and gradients are
compared with numpy's in float64. The limit is max(operations / peak, bytes / bandwidth) of `ImageNetwork.flops` and
`.bytes_moved`, with what the machine reached in the same run (`limits`); algorithms that save multiplications, such as
Winograd's, may go below it.

``python -m bench.images --memory`` measures what fastbp holds beside inputs, outputs, parameters and gradients.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from bench import image_memory, machine
from bench.compare import (
    BASE,
    RESULTS,
    Process,
    add_rivals,
    best_limits,
    go_around,
    measure_limits,
    recording_failure,
    take_rivals,
    worker_environment,
)
from bench.contest import describe, make_parser
from bench.image_memory import MEMORY_BAR
from bench.image_networks import NETWORKS, ImageNetwork
from bench.image_reference import save_reference
from bench.image_rivals import IMAGE_RIVALS, Loaded
from bench.limits import Limits
from bench.rivals import RIVALS
from bench.tables import align, format_seconds

__all__ = ["load", "main", "save_reference", "scratch"]  # the first and the last two for `worker.py`

load, scratch = Loaded, image_memory.scratch
TORCH = ("torch", "torch_compile")
QUICK = "cs231n@2,simple@2,lenet5@1"


# ---- measuring -------------------------------------------------------------------------------------------------------


def takes_part(rival: str, network: ImageNetwork) -> bool:
    """Say whether a rival is measured at a network: numpy only where a course builds it."""
    return rival != "numpy" or network.courses


def measure(network: ImageNetwork, given: argparse.Namespace) -> dict[str, Any]:
    """Run every rival at one network and return what the JSON file says of it."""
    check_memory(network, given)
    entries: dict[str, dict[str, Any]] = {name: {} for name in given.chosen if takes_part(name, network)}
    case: dict[str, Any] = {"network": network.name, "dtype": given.dtype, "seed": given.seed}
    with contextlib.ExitStack() as stack:
        case_with_reference = case | {"threads": given.threads, "reference": reference_of(case, given, stack)}
        running: dict[str, Process] = {}
        for name, entry in entries.items():
            process = stack.enter_context(Process(python_of(name, given), worker_environment(name, given.threads)))
            with recording_failure(name, entry):
                seconds = 0.002 if given.quick else 0.02
                entry |= process.ask("load", module="images", rival=name, seconds=seconds, case=case_with_reference)
                entry["rounds"] = []
                running[name] = process
        go_around(running, entries, given.rounds)
    figures = {"n_parameters": network.n_parameters, "flops": network.flops}
    return {"name": network.name, **figures, "load_average": machine.load_average(), "rivals": entries}


def reference_of(case: Mapping[str, Any], given: argparse.Namespace, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Have a process compute the float64 gradient, and give its memory back; return what rivals are checked with."""
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-reference-"))
    with Process(sys.executable, worker_environment("numpy", given.threads)) as process:
        answer = process.ask("once", module="images", function="save_reference", case={**case, "directory": directory})
    return {key: answer[key] for key in ("loss", "tolerances", "directory")}


def python_of(rival: str, given: argparse.Namespace) -> str:
    """Return the interpreter for a rival: --python names either the rival or the package that it needs."""
    found: str = given.pythons.get(rival) or given.pythons.get(RIVALS[rival].package) or sys.executable
    return found


def check_memory(network: ImageNetwork, given: argparse.Namespace) -> None:
    """Raise SystemExit unless memory holds parameters, gradients and what lies between the layers for each rival."""
    itemsize = np.dtype(given.dtype).itemsize
    between = network.batch * sum(prod(layer.behind(before)) for layer, before in network.walk())
    needed = len(given.chosen) * (itemsize * (2.1 * network.n_parameters + 2 * between) + 2e8)
    available = machine.available_memory()
    if available is not None and needed > available:
        raise SystemExit(
            f"{network.name}: {len(given.chosen)} rivals need about {needed / 1e9:.1f} GB, available are "
            f"{available / 1e9:.1f} GB: give fewer of them with --rivals, or a smaller batch with --networks"
        )


# ---- reporting -------------------------------------------------------------------------------------------------------


def table_of_times(entries: Sequence[Mapping[str, Any]], rivals: Sequence[str]) -> list[list[str]]:
    """Return rows of networks and columns of rivals: minimum and median."""
    rows = [["minimum, median", *rivals]]
    for entry in entries:
        row = [entry["name"]]
        for name in rivals:
            found = entry["rivals"].get(name)
            if found is None:
                row.append("-")
            elif "minimum" not in found:
                row.append("FAILED")
            else:
                row.append(", ".join(format_seconds(found[key]) for key in ("minimum", "median")))
        rows.append(row)
    return rows


def table_of_ratios(entries: Sequence[Mapping[str, Any]], limits: Limits | None) -> list[list[str]]:
    """Return for each network the ratios of minima, the limit and what it follows from, and the memory."""
    rows = [["minima", "numpy / fastbp", "torch / fastbp", "limit", "by", "fastbp / limit", "fastbp MB", "torch MB"]]
    for entry in entries:
        found = entry["rivals"]
        minima = {name: rival["minimum"] for name, rival in found.items() if "minimum" in rival}
        if BASE not in minima:
            continue
        row = [entry["name"], _ratio(minima, "numpy")]
        best = min((name for name in TORCH if name in minima), key=minima.__getitem__, default=None)
        row.append("-" if best is None else f"{_ratio(minima, best)} ({_variant(best, found[best])})")
        rows.append([*row, *_limit_cells(entry["name"], minima[BASE], limits), *_memory_cells(found)])
    return rows


def _ratio(minima: Mapping[str, float], name: str) -> str:
    return f"{minima[name] / minima[BASE]:.2f}" if name in minima else "-"


def _variant(name: str, entry: Mapping[str, Any]) -> str:
    kind = "compiled" if name == "torch_compile" else "eager"
    return f"{kind}, NHWC" if entry.get("layout") == "channels_last" else kind


def _limit_cells(name: str, seconds: float, limits: Limits | None) -> list[str]:
    if limits is None:
        return ["-"] * 3
    network = ImageNetwork.parse(name)
    n_bytes = network.bytes_moved(np.dtype(limits.dtype).itemsize)
    limit = limits.seconds(network.flops, n_bytes)
    by = "flops" if network.flops / limits.flops == limit else "bytes"
    return [format_seconds(limit), by, f"{seconds / limit:.2f}"]


def _memory_cells(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    cells = []
    for name in (BASE, "torch"):
        n_bytes = found.get(name, {}).get("memory_bytes")
        cells.append("-" if n_bytes is None else f"{n_bytes / 1e6:.0f}")
    return cells


def describe_rivals(entries: Sequence[Mapping[str, Any]], rivals: Sequence[str]) -> str:
    """Return each rival's versions, and by how much its gradients differed at most."""
    lines = []
    for name in rivals:
        found = [entry["rivals"][name] for entry in entries if "disagreement" in entry["rivals"].get(name, {})]
        if found:
            versions = ", ".join(f"{package} {version}" for package, version in found[0]["versions"].items())
            worst = max(entry["disagreement"] for entry in found)
            lines.append(f"  {name}: {versions}; gradients agree with float64 to {worst:.1e} of their norm")
    return "\n".join(lines)


# ---- command line ----------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for; rivals and networks are checked."""
    parser = make_parser("images", "Gradients of networks that read images.", threads=2, rounds=5)
    add_rivals(parser, [name for name in IMAGE_RIVALS if name != BASE])
    add = parser.add_argument
    add("--networks", "--shapes", help=f"comma-separated, as name or name@batch (default: {NETWORKS})")
    add("--seed", type=int, default=0)
    add("--json", type=Path, default=RESULTS / "images.json", metavar="PATH", help="default: %(default)s")
    add("--memory", action="store_true", help="what fastbp holds beside inputs, outputs, parameters and gradients")
    given = parser.parse_args(arguments)
    take_rivals(parser, given)
    if unknown := [name for name in given.chosen if name not in IMAGE_RIVALS]:
        parser.error(f"{unknown[0]} is no rival at images: known are {', '.join(IMAGE_RIVALS)}")
    names = given.networks or (QUICK if given.quick else NETWORKS)
    try:
        given.networks = list(map(ImageNetwork.parse, names.split(",")))
    except ValueError as error:
        parser.error(str(error))
    if given.rounds < 1 or given.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    return given


def compare(given: argparse.Namespace) -> int:
    """Compare the rivals, print, save; return the exit status."""
    report: dict[str, Any] = {"format": 1, "machine": machine.describe_machine(), "held_to": machine.held_to()}
    report |= {"load_average": machine.load_average(), "threads": given.threads, "dtype": given.dtype, "networks": []}
    entries: list[dict[str, Any]] = report["networks"]
    given.json.parent.mkdir(parents=True, exist_ok=True)
    find_limits = partial(measure_limits, given.threads, given.dtype, python_of(BASE, given), quick=given.quick)
    report["limits"] = find_limits()
    for network in given.networks:
        print(f"{network.name} ...", flush=True)
        entries.append(measure(network, given))
        report["limits"] = best_limits(report["limits"], find_limits())  # as in the comparison: the best of the run
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    limits = next((Limits(**entry) for entry in report["limits"] if entry["threads"] == given.threads), None)
    print("\n" + describe_rivals(entries, given.chosen))
    print("\n" + align(table_of_times(entries, given.chosen)))
    print("\n" + align(table_of_ratios(entries, limits)))
    print(f"\nlimits of the machine: {limits}\njson: {given.json}")
    return int(any("failure" in rival for entry in entries for rival in entry["rivals"].values()))


def measure_memory(given: argparse.Namespace) -> int:
    """Print what fastbp holds beside what it cannot do without; return 1 where that is more than the bar."""
    rows, worst = [["fastbp", "needed MB", "beside it MB"]], 0
    for case in image_memory.cases(quick=given.quick):
        with Process(python_of(BASE, given), worker_environment(BASE, given.threads)) as process:
            arguments = {**case, "dtype": given.dtype}
            found = process.ask("once", module="images", function="scratch", case=arguments)
        worst = max(worst, found["scratch"])
        title = image_memory.title_of(**case)
        rows.append([title, f"{found['needed'] / 1e6:.1f}", f"{found['scratch'] / 1e6:.1f}"])
    print(f"\n{align(rows)}\nbar: less than {MEMORY_BAR / 1e6:.0f} MB at every batch")
    return int(worst >= MEMORY_BAR)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = parse(arguments)
    print(describe(given))
    return measure_memory(given) if given.memory else compare(given)


if __name__ == "__main__":
    sys.exit(main())
