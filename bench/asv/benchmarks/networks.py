"""Gradients, training steps and predictions of whole networks, at the comparison's shapes."""

from __future__ import annotations

from typing import ClassVar

import fastbp
from bench.machine import processors
from bench.rivals import SHAPES, FastBP, Shape
from bench.steps import RATE

LARGEST = 20_000_000  # parameters: beyond it a network takes longer to make than to measure


class Networks:
    """One call of each method; the batch is the shape's."""

    param_names: ClassVar = ["shape"]
    params: ClassVar = [shape.name for shape in SHAPES if shape.n_parameters <= LARGEST]

    def setup(self, name: str) -> None:
        """Make the network and its batch."""
        shape, rival = Shape.parse(name), FastBP()
        rival.prepare(shape.sizes, shape.batch, threads=processors())
        self.net, self.x, self.t = rival.net, rival.x, rival.t
        self.optimizer = fastbp.SGD(lr=RATE)

    def time_value_and_grad(self, name: str) -> None:
        self.net.value_and_grad(self.x, self.t)

    def time_train_step(self, name: str) -> None:
        self.net.train_step(self.x, self.t, self.optimizer)

    def time_predict(self, name: str) -> None:
        self.net.predict(self.x)
