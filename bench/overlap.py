"""A time line of one step on several ranks, which ``python -m bench.distributed --timeline PATH`` records and draws.

It shows when each layer's backward pass ran, and when each piece of the gradient was sent, was back, and was used.

Nothing is added to the engine: a communicator that notes when it is called stands before the real one. The engine
begins the sum of a piece when the backward pass has gone through the layer whose gradient ends it, calls `test` between
two tasks, and updates a piece between two waits; so these times are those of its own work. A note takes about a
microsecond. All ranks read the same clock (`time.perf_counter`, on one machine).
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.rivals import Array, Shape

Span = tuple[float, float]

# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = {
    "forward": "#56B4E9",
    "backward": "#0072B2",
    "update": "#009E73",
    "start": "#000000",
    "test": "#CC79A7",
    "wait": "#E69F00",
    "on its way": "#D55E00",
}
HATCHES = {"wait": "///", "update": "..."}
DPI = 150


# ---- recording -------------------------------------------------------------------------------------------------------


class Recorder:
    """A communicator that notes when it is called and when it returns, and passes everything on to another one."""

    def __init__(self, comm: Any) -> None:
        self._comm, self.rank, self.size = comm, comm.rank, comm.size
        self.begin()

    def begin(self) -> None:
        """Forget what was noted; a step begins."""
        self.calls: list[list[Any]] = []  # each: what, number of the sum (-1: none), begin, end, whether it is back
        self.n_started = 0
        self.begun = time.perf_counter()

    def end(self) -> dict[str, Any]:
        """Return what was noted of a step that has ended."""
        return {"begin": self.begun, "end": time.perf_counter(), "calls": self.calls}

    def noted(self, what: str, number: int, function: Any, *arguments: Any) -> Any:
        """Call a function and note when."""
        begin = time.perf_counter()
        made = function(*arguments)
        self.calls.append([what, number, begin, time.perf_counter(), made is True or what == "wait"])
        return made

    def allreduce(self, buffer: Array) -> None:
        """Replace a buffer by the sum over all ranks."""
        self.noted("meet", -1, self._comm.allreduce, buffer)

    def start_allreduce(self, buffer: Array) -> RecordedHandle:
        """Begin to replace a buffer by the sum over all ranks."""
        number, self.n_started = self.n_started, self.n_started + 1
        return RecordedHandle(self, number, self.noted("start", number, self._comm.start_allreduce, buffer))

    def broadcast(self, buffer: Array, root: int) -> None:
        """Replace a buffer by that of one rank."""
        self._comm.broadcast(buffer, root)


class RecordedHandle:
    """A sum whose calls are noted."""

    def __init__(self, recorder: Recorder, number: int, handle: Any) -> None:
        self._recorder, self._number, self._handle = recorder, number, handle

    def test(self) -> bool:
        """Return whether the sum is there."""
        return bool(self._recorder.noted("test", self._number, self._handle.test))

    def wait(self) -> None:
        """Wait for it."""
        self._recorder.noted("wait", self._number, self._handle.wait)


# ---- what is in it ---------------------------------------------------------------------------------------------------


def quickest(shape: Shape, ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the step whose slowest rank was the quickest, as the JSON file has it: times from its begin on."""
    steps = list(zip(*(rank["steps"] for rank in ranks), strict=True))
    best = min(steps, key=lambda step: max(rank["end"] for rank in step) - min(rank["begin"] for rank in step))
    origin = min(rank["begin"] for rank in best)
    return {
        "format": 1,
        "name": shape.name,
        "pieces": ranks[0]["pieces"],
        "ranks": [spans_of(rank, ranks[0]["pieces"], origin) for rank in best],
    }


def spans_of(step: Mapping[str, Any], pieces: Sequence[Sequence[int]], origin: float) -> dict[str, Any]:
    """Return when a rank did what, in seconds from the origin on.

    The sum of number 0 is that of the loss, and begins at the end of the forward pass; number 1 + i is that of piece i.
    """
    calls = [
        (what, number, round(a - origin, 7), round(b - origin, 7), back) for what, number, a, b, back in step["calls"]
    ]
    met = max((b for what, _, _, b, _ in calls if what == "meet"), default=step["begin"] - origin)
    starts = {number: (a, b) for what, number, a, b, _ in calls if what == "start"}
    back = {number: b for what, number, _, b, is_back in reversed(calls) if is_back}
    waits = [(number, a, b) for what, number, a, b, _ in calls if what == "wait"]
    begins = [a for _, a, _ in waits[1:]] + [step["end"] - origin]
    backward, before = [], starts[0][1]
    for i, (_, _, unit) in enumerate(pieces):
        if i == 0 or unit != pieces[i - 1][2]:
            backward.append({"unit": unit, "span": (before, starts[1 + i][0])})
        before = starts[1 + i][1]
    return {
        "begin": step["begin"] - origin,
        "end": step["end"] - origin,
        "meet": [(a, b) for what, _, a, b, _ in calls if what == "meet"],
        "forward": (met, starts[0][0]),
        "backward": backward,
        "start": [starts[number] for number in sorted(starts)],
        "test": [(a, b) for what, _, a, b, _ in calls if what == "test"],
        "wait": [(a, b) for _, a, b in waits],
        "on its way": [(starts[1 + i][0], back[1 + i]) for i in range(len(pieces))],
        "update": [(b, a) for (number, _, b), a in zip(waits, begins, strict=True) if number > 0],
    }


def seconds_in(spans: Sequence[Span]) -> float:
    """Return the length of all spans together."""
    return sum(end - begin for begin, end in spans)


def covered(spans: Sequence[Span]) -> float:
    """Return how long at least one of the spans lasts."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def without(spans: Sequence[Span], taken: Sequence[Span]) -> list[Span]:
    """Return what is left of some spans where others are taken out of them."""
    made = []
    for begin, end in spans:
        for first, last in sorted(taken):
            if last <= begin or first >= end:
                continue
            if first > begin:
                made.append((begin, first))
            begin = max(begin, last)
        if begin < end:
            made.append((begin, end))
    return made


def in_calls(rank: Mapping[str, Any]) -> list[Span]:
    """Return when a rank was in a call of the communicator: it computes nothing then."""
    return [*rank["meet"], *rank["start"], *rank["test"], *rank["wait"]]


def hidden_part(rank: Mapping[str, Any]) -> float:
    """Return the part of the time with a piece on its way in which the rank was not in a call of the communicator."""
    on_its_way = covered(rank["on its way"])
    return covered(without(rank["on its way"], in_calls(rank))) / on_its_way if on_its_way else 0.0


def describe(record: Mapping[str, Any]) -> str:
    """Return the sums of the times of each rank."""
    lines = [f"{record['name']}, {len(record['pieces'])} pieces"]
    for number, rank in enumerate(record["ranks"]):
        calls = in_calls(rank)
        parts = {
            "step": rank["end"] - rank["begin"],
            "forward": seconds_in([rank["forward"]]),
            "backward": seconds_in(without([entry["span"] for entry in rank["backward"]], calls)),
            "update": seconds_in(without(rank["update"], calls)),
            "a piece on its way": covered(rank["on its way"]),
            "starting": seconds_in(rank["start"]),
            "testing": seconds_in(rank["test"]),
            "waiting": seconds_in(rank["wait"]),
        }
        text = ", ".join(f"{name} {seconds * 1e3:.1f}" for name, seconds in parts.items())
        lines.append(f"rank {number} [ms]: {text}; {len(rank['test'])} tests; {hidden_part(rank):.0%} hidden")
    return "\n".join(lines)


# ---- drawing ---------------------------------------------------------------------------------------------------------


def layer_names(record: Mapping[str, Any]) -> dict[int, str]:
    """Return what the engine's units are called: of a perceptron every other one is an activation."""
    sizes = Shape.parse(record["name"]).layers
    return {2 * i: f"{n_in}-{n_out}" for i, (n_in, n_out) in enumerate(sizes)}


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Save the picture: for each rank what it computes, its calls, and below them every piece."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    ranks, n_pieces = record["ranks"], len(record["pieces"])
    figure, panels = pyplot.subplots(
        len(ranks), 1, sharex=True, squeeze=False, figsize=(11, 1.6 + len(ranks) * (1.2 + 0.2 * n_pieces)),
        layout="constrained",
    )  # fmt: skip
    for number, (axes, rank) in enumerate(zip(panels[:, 0], ranks, strict=True)):
        _draw_rank(axes, rank, layer_names(record))
        part = f"computes for {hidden_part(rank):.0%} of the time with a piece on its way"
        axes.set_title(f"rank {number} {part}", fontsize=9)
    panels[-1, 0].set_xlim(left=0)
    panels[-1, 0].set_xlabel("time since the begin of the step [ms]")
    figure.suptitle(f"One SGD step of {record['name']} on {len(ranks)} ranks, one thread each", fontsize=11)
    names = {
        "start": "start of a sum",
        "test": "test: sums go on",
        "wait": "wait for a sum",
        "on its way": "piece on its way",
    }
    handles = [
        pyplot.Rectangle(
            (0, 0), 1, 1, facecolor=colour, hatch=HATCHES.get(name), edgecolor="white", label=names.get(name, name)
        )
        for name, colour in COLOURS.items()
    ]
    figure.legend(handles=handles, ncols=len(handles), fontsize=8, loc="outside lower center")
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)


def _draw_rank(axes: Any, rank: Mapping[str, Any], names: Mapping[int, str]) -> None:
    def bars(kind: str, spans: Sequence[Span], row: float, height: float = 0.8) -> None:
        milliseconds = [(1e3 * begin, 1e3 * (end - begin)) for begin, end in spans]
        axes.broken_barh(
            milliseconds, (row - height / 2, height), facecolor=COLOURS[kind], hatch=HATCHES.get(kind),
            edgecolor="white", linewidth=0.3,
        )  # fmt: skip

    def write(text: str, span: Span) -> None:
        paper = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
        axes.text(5e2 * sum(span), 0, text, ha="center", va="center", fontsize=7, bbox=paper)

    bars("forward", [rank["forward"]], 0)
    write("forward", rank["forward"])
    calls = in_calls(rank)
    bars("backward", without([entry["span"] for entry in rank["backward"]], calls), 0)
    widest = rank["end"] - rank["begin"]
    for entry in rank["backward"]:
        if seconds_in([entry["span"]]) > 0.06 * widest:
            write(f"backward\n{names.get(entry['unit'], entry['unit'])}", entry["span"])
    bars("update", without(rank["update"], calls), 0)
    bars("wait", [*rank["meet"], *rank["wait"]], 1)
    bars("test", rank["test"], 1)
    for begin, _ in rank["start"]:
        axes.plot([1e3 * begin] * 2, [0.6, 1.4], color=COLOURS["start"], linewidth=1)
    for i, span in enumerate(rank["on its way"]):
        bars("on its way", [span], 2 + i, 0.6)
    rows = 2 + len(rank["on its way"])
    axes.set_yticks(range(rows), ["computing", "calls", *(f"piece {i}" for i in range(rows - 2))], fontsize=7)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)
