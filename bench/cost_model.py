"""What a step on p ranks takes, from a network's latency and bandwidth: formulas, predictions, and a check.

A. A message of n bytes takes ``alpha + n / bandwidth``, and adding n bytes to n others ``n / adding``. Each rank sends
   and receives at once at the full rate, and no two messages share a link (a network without oversubscription).
B. The sums are those of MPI libraries: a ring, Rabenseifner's halving and doubling, recursive doubling, and a tree
   (a reduction, then a broadcast). The quickest one counts, as libraries choose by size.
C. A step: the forward pass; the backward pass from the last layer on, and a piece of the gradient leaves when the
   layers it belongs to have theirs (the engine's own rule for pieces). One sum is on its way at a time, and a piece
   that is back is updated when the backward pass is over. A network card moves the data; the processor has no part in
   it. Where ranks share processors and memory, nothing is hidden: ``overlaps=False``.
D. Weak scaling: each rank has as many rows as one rank alone. Its efficiency is the time of a step of one rank over
   that of p ranks. Neither slow ranks nor reading the data is in the model.

References: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations in MPICH",
International Journal of High Performance Computing Applications 19, 2005; P. Patarasuk, X. Yuan, "Bandwidth optimal
all-reduce algorithms for clusters of workstations", Journal of Parallel and Distributed Computing 69, 2009.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf, log2

import numpy as np

from bench.image_networks import ImageNetwork
from bench.rivals import Shape
from bench.tables import format_seconds

RANKS = (8, 16, 64, 256, 1024, 4096)
GIGABITS = (10, 100, 400)
ITEMSIZE = 4  # float32

# What a rank is assumed to be: a node of two processors with 64 cores in all.
NODE_FLOPS = 2e12  # operations a second that it sustains in the products of a step
NODE_MEMORY = 200e9  # bytes a second
EFFICIENCY_OF_LINK = 0.9  # of the nominal rate, after headers
LATENCY = {10: 20e-6, 100: 3e-6, 400: 2e-6}  # of a message: TCP over Ethernet, InfiniBand HDR, NDR
UPDATE_PASSES = 3  # of SGD: the gradient is read, the parameter read and written
ADD_PASSES = 3  # both are read, the sum is written


# ---- sums ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """What connects the ranks.

    Attributes
    ----------
    alpha
        Seconds until a message of no bytes is there.
    bandwidth
        Bytes a second of a long message, in each direction.
    adding
        Bytes a second of one operand that a rank adds.
    """

    alpha: float
    bandwidth: float
    adding: float = inf


def ring(p: int, n: float, link: Link) -> float:
    """Return 2 (p - 1) alpha + 2 (p - 1)/p n/bandwidth + (p - 1)/p n/adding."""
    share = (p - 1) / p * n
    return 2 * (p - 1) * link.alpha + 2 * share / link.bandwidth + share / link.adding


def recursive_doubling(p: int, n: float, link: Link) -> float:
    """Return log2 p (alpha + n/bandwidth + n/adding), and what ranks beyond a power of two add."""
    steps = int(log2(p))
    return steps * (link.alpha + n / link.bandwidth + n / link.adding) + _beyond_a_power_of_two(p, n, link)


def rabenseifner(p: int, n: float, link: Link) -> float:
    """Return the ring's terms of bandwidth with 2 log2 p alpha, and what ranks beyond a power of two add."""
    q = 2 ** int(log2(p))
    share = (q - 1) / q * n
    halving_and_doubling = 2 * log2(q) * link.alpha + 2 * share / link.bandwidth + share / link.adding
    return halving_and_doubling + _beyond_a_power_of_two(p, n, link)


def _beyond_a_power_of_two(p: int, n: float, link: Link) -> float:
    """Return the time in which the ranks beyond send theirs to others before, and get the sum afterwards."""
    return 0.0 if p & (p - 1) == 0 else 2 * (link.alpha + n / link.bandwidth) + n / link.adding


def tree(p: int, n: float, link: Link) -> float:
    """Return 2 log2 p (alpha + n/bandwidth) + log2 p n/adding, log2 p rounded up: a reduction, then a broadcast."""
    return ceil(log2(p)) * (2 * (link.alpha + n / link.bandwidth) + n / link.adding)


SUMS: dict[str, Callable[[int, float, Link], float]] = {
    "ring": ring,
    "Rabenseifner": rabenseifner,
    "recursive doubling": recursive_doubling,
    "tree": tree,
}


def quickest(p: int, n: float, link: Link) -> tuple[float, str]:
    """Return the time of the quickest sum, and its name."""
    return min((sum_of(p, n, link), name) for name, sum_of in SUMS.items())


# ---- a step ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stage:
    """A layer, or several: the bytes of its gradient, and the operations of the forward pass of all rows."""

    n_bytes: int
    flops: float


@dataclass(frozen=True, slots=True)
class Workload:
    """A network and the rows of each rank, from the first layer to the last."""

    name: str
    rows: str
    stages: tuple[Stage, ...]

    @property
    def n_parameters(self) -> int:
        return sum(stage.n_bytes for stage in self.stages) // ITEMSIZE


def cut_in_pieces(stages: Sequence[Stage], overlaps: bool) -> Iterator[tuple[int, int]]:
    """Yield the bytes of each piece, and the number of the stage that completes it, in the order of leaving."""
    sharing = importlib.import_module("fastbp._core.sharing")
    waiting, size, later = 0, sharing.FIRST_BYTES, sharing.PIECE_BYTES if overlaps else sharing.CACHED_BYTES
    for i in range(len(stages) - 1, -1, -1):
        waiting += stages[i].n_bytes
        if waiting >= size or (i == 0 and waiting):
            count = max(1, round(waiting / later))
            yield from ((waiting // count, i) for _ in range(count))
            waiting, size = 0, later


def step_seconds(
    stages: Sequence[Stage], p: int, link: Link, flops: float, memory: float, *, overlaps: bool = True
) -> float:
    """Return the time of one step.

    Parameters
    ----------
    stages : sequence of Stage
        The network, with the rows of one rank.
    p : int
        How many ranks.
    link : Link
        What connects them.
    flops, memory : float
        Operations a second of a rank, and bytes a second of its memory.
    overlaps : bool
        Whether sums are on their way while a rank computes.
    """
    forward = sum(stage.flops for stage in stages) / flops
    ready, now = [0.0] * len(stages), forward
    for i in range(len(stages) - 1, -1, -1):
        now += 2 * stages[i].flops / flops
        ready[i] = now
    computed = back = updated = now
    if p > 1 and overlaps:
        back = forward + quickest(p, 3 * 8, link)[0]  # the loss
    for n_bytes, stage in cut_in_pieces(stages, overlaps):
        if p > 1:
            back = max(back, ready[stage] if overlaps else computed) + quickest(p, n_bytes, link)[0]
        updated = max(updated, back) + UPDATE_PASSES * n_bytes / memory
    return updated


# ---- networks --------------------------------------------------------------------------------------------------------


def images(name: str, rows: int) -> Workload:
    """Return a network of `image_networks.py`, with so many images on each rank."""
    network = ImageNetwork.parse(name)
    stages = []
    for layer, shape in network.walk():
        n_parameters = sum(int(np.prod(sizes)) for sizes in layer.parameter_shapes(shape))
        stages.append(Stage(ITEMSIZE * n_parameters, 2.0 * rows * layer.multiply_adds(shape)))
    return Workload(name, f"{rows} images", tuple(stages))


def gpt2(name: str, width: int, depth: int, sequences: int) -> Workload:
    """Return GPT-2: contexts of 1,024 tokens, a vocabulary of 50,257, whose table is also the last layer's."""
    tokens, words = 1024, 50_257
    in_block = 12 * width**2 + 13 * width  # four products with biases, two norms
    block = Stage(ITEMSIZE * in_block, 2.0 * sequences * tokens * (12 * width**2 + 2 * tokens * width))
    tables = Stage(
        ITEMSIZE * (words + tokens) * width, 0.0
    )  # complete when the backward pass has come to the first layer
    last = Stage(ITEMSIZE * 2 * width, 2.0 * sequences * tokens * words * width)
    return Workload(name, f"{sequences} x {tokens} tokens", (tables, *[block] * depth, last))


def perceptron(shape: Shape, rows: float) -> tuple[Stage, ...]:
    """Return the stages of one of the comparison's networks, with so many rows."""
    return tuple(Stage(ITEMSIZE * (i * o + o), 2 * rows * i * o) for i, o in shape.layers)


def workloads() -> list[Workload]:
    """Return what is predicted."""
    return [
        images("alexnet", 128),
        images("vgg16", 32),
        gpt2("GPT-2 small", 768, 12, 4),
        gpt2("GPT-2 XL", 1600, 48, 1),
    ]


# ---- predictions -----------------------------------------------------------------------------------------------------


def link_of(gigabits: int) -> Link:
    """Return the assumed link of so many Gbit/s."""
    return Link(LATENCY[gigabits], EFFICIENCY_OF_LINK * gigabits * 1e9 / 8, NODE_MEMORY / ADD_PASSES)


def assumptions() -> str:
    """Return what the predictions rest on."""
    latencies = ", ".join(f"{seconds * 1e6:g} µs at {rate} Gbit/s" for rate, seconds in LATENCY.items())
    return (
        f"a rank: {NODE_FLOPS / 1e12:g} TFLOP/s sustained, {NODE_MEMORY / 1e9:g} GB/s of memory; SGD in float32\n"
        f"links: {EFFICIENCY_OF_LINK:.0%} of their rate; latency {latencies}\n"
        "sums by the quickest of ring, Rabenseifner, recursive doubling and tree, in pieces, beside the backward pass"
    )


def predictions(workload: Workload) -> list[list[str]]:
    """Return rows of ranks, and for each link the time of a step and the efficiency of weak scaling."""
    alone = step_seconds(workload.stages, 1, link_of(GIGABITS[0]), NODE_FLOPS, NODE_MEMORY)
    title = f"{workload.name}, {workload.n_parameters:,} parameters, {workload.rows} a rank"
    rows = [[title, *(f"{rate} Gbit/s" for rate in GIGABITS)], ["1 rank", *[format_seconds(alone)] * len(GIGABITS)]]
    for p in RANKS:
        cells = [f"{p} ranks"]
        for rate in GIGABITS:
            seconds = step_seconds(workload.stages, p, link_of(rate), NODE_FLOPS, NODE_MEMORY)
            cells.append(f"{format_seconds(seconds)} {alone / seconds:4.0%}")
        rows.append(cells)
    return rows


# ---- what is measured here -------------------------------------------------------------------------------------------


def fit_link(sizes: Sequence[int], seconds: Sequence[float], adding: float) -> Link:
    """Return the link whose messages of these sizes take these times: least squares of the relative errors."""
    n, t = np.asarray(sizes, np.float64), np.asarray(seconds, np.float64)
    system = np.stack([1 / t, n / t], axis=1)
    (alpha, per_byte), *_ = np.linalg.lstsq(system, np.ones(len(n)), rcond=None)
    return Link(max(float(alpha), 0.0), 1 / max(float(per_byte), 1e-15), adding)


def predicted_step(shape: Shape, p: int, alone: float, link: Link, memory: float, processors: int) -> float:
    """Return what a step on p ranks of this machine should take, from that of one rank.

    The arithmetic of one rank is taken from its own step. Ranks share the processors, which also move the data: nothing
    is hidden, and where there are more ranks than processors, each goes slower by as much.
    """
    stages = perceptron(shape, shape.batch)
    update = UPDATE_PASSES * sum(stage.n_bytes for stage in stages) / memory
    flops = 3 * sum(stage.flops for stage in stages) / max(alone - update, 0.1 * alone)
    slower = max(1.0, p / processors)
    shared = Link(link.alpha * slower, link.bandwidth / slower, link.adding / slower)
    own = perceptron(shape, shape.batch / p)
    return step_seconds(own, p, shared, flops / slower, memory / slower, overlaps=False)
