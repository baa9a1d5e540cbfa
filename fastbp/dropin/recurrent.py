"""Recurrent layers of any book: they are known by name, so that a report says that they are left alone."""

from __future__ import annotations

from typing import Any

from fastbp.dropin._interface import Functions, Interface

__all__ = ["INTERFACES", "RecurrentLayers"]

WHY = "recurrent: left alone"
CELLS = ("RNN", "LSTM", "GRU")
CLASSES = {f"{before}{cell}{behind}" for cell in CELLS for before in ("", "Time", "Bi") for behind in ("", "Cell")}
FUNCTIONS = [
    f"{cell}_{part}{way}"
    for cell in ("rnn", "lstm", "gru")
    for part in ("", "step_")
    for way in ("forward", "backward")
]


class RecurrentLayers(Interface):
    """RNN, LSTM and GRU, also over time, with methods `forward` and `backward`."""

    name = "recurrent layers"
    methods = ("forward", "backward")
    refuses = WHY

    def looks_for(self) -> str:
        return f"{', '.join(CELLS)}, which are left alone"

    def knows_class(self, cls: type) -> bool:
        return cls.__name__ in CLASSES and all(callable(getattr(cls, name, None)) for name in self.methods)

    def knows(self, thing: Any) -> bool:
        return True


class _RecurrentFunction(Functions):
    """One of rnn_step_forward, lstm_backward and the like."""

    name = "recurrent layers"
    refuses = WHY

    def __init__(self, function: str) -> None:
        self.methods = (function,)  # type: ignore[misc]

    def looks_for(self) -> str:
        return RecurrentLayers().looks_for()


INTERFACES: list[Interface] = [RecurrentLayers(), *map(_RecurrentFunction, FUNCTIONS)]
