"""Each loss of the table with its gradient, into a given array."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

import fastbp
from bench.elementwise import SCORES, draw, targets
from fastbp.reference import LOSSES


class Losses:
    """One call of the function, in float32."""

    param_names: ClassVar = ["loss"]
    params: ClassVar = list(LOSSES)

    def setup(self, name: str) -> None:
        """Make outputs and targets; a commit without the loss is left out."""
        if name not in LOSSES:
            raise NotImplementedError(name)
        self.loss = getattr(fastbp, name)
        self.z, self.t = draw(*SCORES), targets(LOSSES[name].targets)
        self.out = np.empty_like(self.z)

    def time_value_and_grad(self, name: str) -> None:
        self.loss(self.z, self.t, out=self.out)
