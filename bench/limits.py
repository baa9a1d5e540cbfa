"""What the machine can do at most, measured: multiply-adds on registers alone, and bytes to and from memory.

Both with as many threads as the run has, all at once. A maximum is looked for, so the best of several rounds counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

BUFFER = 384 << 20  # bytes: far more than any cache, and a third of it still is
ROUNDS = 5  # of each sweep, about 10 ms each
ARITHMETIC_ROUNDS = 40
ARITHMETIC_SECONDS = 0.003
BOTH_WAYS = ("update", "copy", "triad")  # the sweeps that read and write


@dataclass(frozen=True, slots=True)
class Limits:
    """Operations a second, and bytes a second of each sweep, of one dtype and number of threads."""

    dtype: str
    threads: int
    flops: float
    sweeps: Mapping[str, float]

    @property
    def bandwidth(self) -> float:
        """The best of the sweeps that read and write, as a gradient does: the strictest limit that was reached."""
        return max(self.sweeps[name] for name in BOTH_WAYS)

    def seconds(self, flops: float, n_bytes: float) -> float:
        """The time that no program can beat whose bytes come from memory: arithmetic and memory at work at once."""
        return max(flops / self.flops, n_bytes / self.bandwidth)

    def attainable(self, intensity: float) -> float:
        """Operations a second at so many operations a byte: the roof of the roofline picture."""
        return min(self.flops, intensity * self.bandwidth)

    def best_with(self, other: Self) -> Limits:
        """Of two measurements of the same, what was reached in either."""
        sweeps = {name: max(rate, other.sweeps[name]) for name, rate in self.sweeps.items()}
        return Limits(self.dtype, self.threads, max(self.flops, other.flops), sweeps)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        sweeps = ", ".join(f"{name} {rate / 1e9:.1f}" for name, rate in self.sweeps.items())
        return f"{self.dtype}, threads: {self.threads}: {self.flops / 1e9:.0f} GFLOP/s; GB/s: {sweeps}"


def measure(dtype: str, threads: int, *, n_bytes: int = BUFFER, rounds: int = ROUNDS) -> Limits:
    """Measure them in this process; a process of its own is better, see `Worker.limits`."""
    from bench import probe  # not every worker's interpreter has fastbp

    steps = 1000
    while probe.arithmetic(dtype, threads, steps)[1] < ARITHMETIC_SECONDS:
        steps *= 2
    flops = max(probe.arithmetic(dtype, threads, steps)[0] for _ in range(ARITHMETIC_ROUNDS))
    buffer = np.zeros(n_bytes, np.uint8)
    buffer.fill(1)  # pages of zeros that were never written are one page
    sweeps = {name: max(probe.sweep(name, dtype, threads, buffer)[0] for _ in range(rounds)) for name in probe.SWEEPS}
    return Limits(dtype, threads, flops, sweeps)
