"""What `train` returns: the course of the training, epoch by epoch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["History"]


@dataclass(slots=True, repr=False)
class History:
    """The course of a training, with an entry for each epoch in each list.

    Attributes
    ----------
    loss : list of float
        Mean loss over the samples of the epoch, each seen with the parameters of its own step. Where training stopped
        within an epoch, the last entry is of its samples until then, and `unfinished` says so.
    val_loss : list of float
        Loss on the validation data after the epoch; empty where there were none.
    metrics : dict of str to list of float
        Whatever else was measured in every epoch, by name.
    seconds : list of float
        Duration of each epoch (not the time since the start).
    stopped : str or None
        Why training ended before its last epoch; None where it did not.
    best_epoch : int or None
        The epoch, from 1, with the lowest ``val_loss`` (without validation data: the lowest loss), or what
        `EarlyStopping` found the best: ``val_loss[best_epoch - 1]`` is its loss. None where no step was made.
    steps : int
        How many steps were made, those of an unfinished epoch included.
    unfinished : bool
        Whether the last entry of each list belongs to an epoch that was not finished.

    Examples
    --------
    >>> from fastbp import History
    >>> history = History(loss=[0.9, 0.4], val_loss=[0.8, 0.5], seconds=[0.25, 0.25])
    >>> len(history)
    2
    >>> history
    History(epochs=2, loss=0.4, val_loss=0.5, seconds=0.5)
    """

    loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    stopped: str | None = None
    best_epoch: int | None = None
    steps: int = 0
    unfinished: bool = False

    @property
    def epochs(self) -> int:
        """How many epochs were finished."""
        return len(self.loss) - self.unfinished

    @classmethod
    def _from_fields(cls, fields: Mapping[str, Any]) -> History:
        """Return the history that a file or a pickle has; an older one counted `best_epoch` from 0."""
        history = cls(**fields)
        if "unfinished" not in fields and history.best_epoch is not None:
            history.best_epoch += 1
        return history

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._from_fields, ({name: getattr(self, name) for name in self.__slots__},)

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        # Of pickles from before there was a `__reduce__`.
        made = self._from_fields(state[1])
        for name in self.__slots__:
            setattr(self, name, getattr(made, name))

    def __len__(self) -> int:
        return self.epochs

    def __bool__(self) -> bool:
        return True  # else the history of no epoch would be false, and `if history:` would mean something else

    def __repr__(self) -> str:
        shown = [f"epochs={self.epochs}"]
        last = {"loss": self.loss, "val_loss": self.val_loss, **self.metrics}
        shown += [f"{name}={values[-1]:.6g}" for name, values in last.items() if values]
        if self.seconds:
            shown.append(f"seconds={sum(self.seconds):.3g}")
        if self.best_epoch is not None and self.best_epoch != len(self.loss):
            shown.append(f"best_epoch={self.best_epoch}")
        if self.stopped is not None:
            shown.append(f"stopped={self.stopped!r}")
        return f"History({', '.join(shown)})"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the curves of losses and metrics with matplotlib, and mark the best epoch.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure's where there is none.

        Returns
        -------
        ax : matplotlib Axes
            With a labelled line for ``loss`` and one for ``val_loss``, if there is any, over the epochs 1, 2, ..., and
            a vertical line at ``best_epoch``, unless it is the last one. Metrics are dashed lines on axes of their own
            that share the epochs, with the scale at the right.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        if importlib.util.find_spec("matplotlib") is None:
            raise ImportError('plotting needs matplotlib: pip install "fastbp[demo]"')
        from matplotlib.ticker import MaxNLocator

        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots()
        losses = {"training loss": self.loss, "validation loss": self.val_loss}
        _draw_lines(ax, losses, first=0, style="-")
        if self.best_epoch is not None and self.best_epoch < len(self.loss):
            ax.axvline(self.best_epoch, color="0.5", linestyle=":", label=f"best epoch: {self.best_epoch}")
        ax.set_xlabel("epoch")
        ax.set_ylabel("loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = ax.get_legend_handles_labels()
        if any(self.metrics.values()):
            beside = ax.twinx()
            _draw_lines(beside, self.metrics, first=len(losses), style="--")
            beside.set_ylabel(next(iter(self.metrics)) if len(self.metrics) == 1 else "metrics")
            more, names = beside.get_legend_handles_labels()
            handles, labels = handles + more, labels + names
            # The losses' axes come to the front, so that no curve crosses the legend.
            ax.set_zorder(beside.get_zorder() + 1)
            ax.patch.set_visible(False)
        if handles:
            ax.legend(handles, labels)
        return ax


def _draw_lines(ax: Axes, curves: Mapping[str, list[float]], first: int, style: str) -> None:
    """Draw curves over the epochs, in the colours of matplotlib's cycle from the first given."""
    for i, (label, values) in enumerate(curves.items(), first):
        if values:
            # A line of a single point is invisible.
            marker = "o" if len(values) == 1 else None
            ax.plot(range(1, len(values) + 1), values, style, color=f"C{i % 10}", marker=marker, label=label)
