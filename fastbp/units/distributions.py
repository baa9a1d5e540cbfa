"""Softmax and its logarithm as units, over each row."""

from __future__ import annotations

from typing import Any, ClassVar

from fastbp import _validate as check
from fastbp import functional, reference
from fastbp._validate import FloatArray
from fastbp.units.base import Unit
from fastbp.units.tangents import AnalyticTangent


class SoftmaxTangent(AnalyticTangent):
    """By the reference of softmax."""

    def reference(self, x: Any, *parameters: Any) -> Any:
        """Compute y."""
        return reference.softmax(x)

    def reference_backward(self, dy: Any, x: Any, *parameters: Any) -> tuple[Any, ...]:
        """Compute dx."""
        return (reference.softmax_backward(dy, reference.softmax(x)),)


class LogSoftmaxTangent(AnalyticTangent):
    """By the reference of log_softmax."""

    def reference(self, x: Any, *parameters: Any) -> Any:
        """Compute y."""
        return reference.log_softmax(x)

    def reference_backward(self, dy: Any, x: Any, *parameters: Any) -> tuple[Any, ...]:
        """Compute dx."""
        return (reference.log_softmax_backward(dy, reference.log_softmax(x)),)


class Softmax(Unit):
    """Softmax unit: each row becomes probabilities.

    y_k = exp(x_k) / sum_j exp(x_j);  backward:  dx = y * (dy - sum(dy * y))

    Raises
    ------
    TypeError, ValueError
        As `fastbp.softmax` and `fastbp.softmax_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy. As the last unit before `SoftmaxNLL` it would be one
    softmax too many: that loss takes logits.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.4.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Softmax()
    >>> unit.forward(np.log([[1.0, 3.0]]))
    array([[0.25, 0.75]])
    >>> unit.backward(np.array([[1.0, 0.0]]))
    array([[ 0.1875, -0.1875]])
    """

    tangent_rule: ClassVar[type | None] = SoftmaxTangent
    kind: ClassVar[str | None] = "softmax"
    _takes_images: ClassVar[bool] = False

    def outputs_for(self, n_in: int | None) -> int | None:
        """Return the number of outputs: as many as inputs."""
        return n_in

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the probabilities of each row, a fresh array, and keep a reference to them."""
        self._saved = y = functional.softmax(check.matrix("x", x))
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Return the gradient at x, a fresh array."""
        return functional.softmax_backward(dy, self._saved_by_forward())


class LogSoftmax(Unit):
    """Log-softmax unit: each row becomes the logarithms of probabilities.

    y_k = x_k - ln sum_j exp(x_j);  backward:  dx = dy - exp(y) * sum(dy)

    Raises
    ------
    TypeError, ValueError
        As `fastbp.log_softmax` and `fastbp.log_softmax_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.4.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.LogSoftmax()
    >>> unit.forward(np.array([[0.0, 0.0]])).round(4)
    array([[-0.6931, -0.6931]])
    >>> unit.backward(np.array([[1.0, 0.0]]))
    array([[ 0.5, -0.5]])
    """

    tangent_rule: ClassVar[type | None] = LogSoftmaxTangent
    kind: ClassVar[str | None] = "log_softmax"
    _takes_images: ClassVar[bool] = False

    def outputs_for(self, n_in: int | None) -> int | None:
        """Return the number of outputs: as many as inputs."""
        return n_in

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the log-probabilities of each row, a fresh array, and keep a reference to them."""
        self._saved = y = functional.log_softmax(check.matrix("x", x))
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Return the gradient at x, a fresh array."""
        return functional.log_softmax_backward(dy, self._saved_by_forward())
