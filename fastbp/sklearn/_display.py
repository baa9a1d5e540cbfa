"""Loss curves in the style of scikit-learn's displays."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LossCurveDisplay"]


class LossCurveDisplay:
    """The course of a fit, epoch by epoch: training loss, and loss and score on the validation data.

    It is recommended to make one by `from_estimator`. All parameters are kept as attributes.

    Parameters
    ----------
    loss_curve : sequence of float
        Training loss of each epoch: the estimator's ``loss_curve_``.
    validation_loss_curve : sequence of float, optional
        Loss on the validation data after each epoch: ``validation_loss_curve_``.
    validation_scores : sequence of float, optional
        Score on the validation data after each epoch: ``validation_scores_``. It has an axis of its own on the right.
    estimator_name : str, optional
        Stands in the legend beside what a line shows.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the losses.
    score_ax_ : matplotlib Axes or None
        With the scores; None where there are none.
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        In the order of the parameters, those that there are.

    References
    ----------
    scikit-learn, "Developing with the Plotting API", https://scikit-learn.org/stable/developers/plotting.html.

    Examples
    --------
    >>> from fastbp.sklearn import LossCurveDisplay
    >>> display = LossCurveDisplay(loss_curve=[0.9, 0.5, 0.4], validation_scores=[0.6, 0.8, 0.7]).plot()
    >>> [line.get_label() for line in display.lines_]
    ['training loss', 'validation score']
    >>> display.figure_.savefig("loss.png")
    """

    ax_: Axes
    score_ax_: Axes | None
    figure_: Any
    lines_: list[Any]

    def __init__(
        self,
        *,
        loss_curve: Sequence[float],
        validation_loss_curve: Sequence[float] | None = None,
        validation_scores: Sequence[float] | None = None,
        estimator_name: str | None = None,
    ) -> None:
        self.loss_curve = loss_curve
        self.validation_loss_curve = validation_loss_curve
        self.validation_scores = validation_scores
        self.estimator_name = estimator_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        ax: Axes | None = None,
        name: str | None = None,
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the curves of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            Fitted by a stochastic solver; scikit-learn's own will do. Of a pipeline the last step counts.
        ax : matplotlib Axes, optional
            Where to draw; a new figure's where there is none.
        name : str, optional
            For the legend; by default the name of the estimator's class.
        line_kw : dict, optional
            Keywords for each line.

        Returns
        -------
        display : LossCurveDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If it has no ``loss_curve_``: lbfgs keeps none.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from fastbp.sklearn import LossCurveDisplay, MLPClassifier
        >>> model = MLPClassifier(early_stopping=True, random_state=0).fit(*load_iris(return_X_y=True))
        >>> display = LossCurveDisplay.from_estimator(model)
        >>> [line.get_label() for line in display.lines_]
        ['MLPClassifier: training loss', 'MLPClassifier: validation score']
        """
        _check_matplotlib()
        check_is_fitted(estimator)
        final = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
        if not hasattr(final, "loss_curve_"):
            solver = getattr(final, "solver", None)
            cause = f" (solver={solver!r}: only the stochastic solvers keep one)" if solver == "lbfgs" else ""
            cause = " (its estimators_ have one each)" if hasattr(final, "estimators_") else cause
            raise ValueError(f"estimator must have a loss_curve_, but this {type(final).__name__} has none{cause}")
        curves = {curve: getattr(final, f"{curve}_", None) for curve in ("validation_loss_curve", "validation_scores")}
        made = cls(loss_curve=final.loss_curve_, **curves, estimator_name=name or type(final).__name__)
        return made.plot(ax, line_kw=line_kw)

    def plot(
        self, ax: Axes | None = None, *, name: str | None = None, line_kw: Mapping[str, Any] | None = None
    ) -> Self:
        """Draw the curves over the epochs 1, 2, ...

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure's where there is none.
        name : str, optional
            For the legend, instead of ``estimator_name``.
        line_kw : dict, optional
            Keywords for each line.

        Returns
        -------
        display : LossCurveDisplay
            Itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        _check_matplotlib()
        from matplotlib import pyplot
        from matplotlib.ticker import MaxNLocator

        self.ax_ = ax = pyplot.subplots()[1] if ax is None else ax
        self.figure_ = ax.figure
        self.score_ax_ = ax.twinx() if _any(self.validation_scores) else None
        name = self.estimator_name if name is None else name
        self.lines_ = []
        for i, (target, what, values) in enumerate(self._curves()):
            if _any(values):
                look = self._look(i, len(values), name, what) | dict(line_kw or {})
                self.lines_ += target.plot(range(1, len(values) + 1), values, **look)
        ax.set(xlabel="epoch", ylabel="loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if self.score_ax_ is not None:
            self.score_ax_.set_ylabel("score")
        ax.legend(handles=self.lines_)
        return self

    def _curves(self) -> list[tuple[Any, str, Any]]:
        return [
            (self.ax_, "training loss", self.loss_curve),
            (self.ax_, "validation loss", self.validation_loss_curve),
            (self.score_ax_, "validation score", self.validation_scores),
        ]

    @staticmethod
    def _look(i: int, n: int, name: str | None, what: str) -> dict[str, Any]:
        return {
            "label": what if name is None else f"{name}: {what}",
            "color": f"C{i}",  # the second axis would begin with the first's colours again
            "marker": "o" if n == 1 else None,  # a line of a single point is invisible
        }


def _any(values: Sequence[float] | None) -> bool:
    return values is not None and len(values) > 0


def _check_matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError('LossCurveDisplay needs matplotlib: pip install "fastbp[demo]"')
