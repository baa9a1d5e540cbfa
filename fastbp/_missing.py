"""Names that users of other libraries look for, and what there is in their place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

TRANSPOSED = (
    "transposed convolutions are not part of fastbp: the product with the transposed matrix is dx of conv2d_backward, "
    "and a unit of your own can call it (docs/images.md)"
)
UPSAMPLED = (
    "upsampling is not part of fastbp: np.repeat(np.repeat(x, 2, 2), 2, 3) doubles images, in a unit of your own"
)


# Classes and functions of Keras and PyTorch that have another name here. What other names there are in the place of
# losses' and activations' is known to `_names`.
ELSEWHERE = {
    "Activation": "fastbp.Tanh(), fastbp.ReLU(), ...",
    "AveragePooling2D": "fastbp.AvgPool2d(2)",
    "BCELoss": "fastbp.SigmoidNLL(), which applies the sigmoid itself",
    "BCEWithLogitsLoss": "fastbp.SigmoidNLL()",
    "BatchNormalization": "fastbp.BatchNorm(n)",
    "Conv2D": "fastbp.Conv2d(in_channels, out_channels, 3)",
    "CrossEntropyLoss": "fastbp.SoftmaxNLL(), which applies the softmax itself",
    "Dense": "fastbp.Linear(n_in, n_out)",
    "L1Loss": "fastbp.MAE()",
    "LayerNormalization": "fastbp.LayerNorm(n)",
    "MLPClassifier": "fastbp.sklearn.MLPClassifier after import fastbp.sklearn",
    "MLPRegressor": "fastbp.sklearn.MLPRegressor after import fastbp.sklearn",
    "MSELoss": "fastbp.MSE(), which has a factor ½",
    "MaxPooling2D": "fastbp.MaxPool2d(2)",
    "Model": "fastbp.Network(*units, loss=...)",
    "Module": "fastbp.Unit to derive from, fastbp.Network(*units, loss=...) to train",
    "NLLLoss": "fastbp.SoftmaxNLL(), which applies the softmax itself",
    "fit": "fastbp.train(net, x, t, optimizer=fastbp.Adam())",
}


# Modules that `import fastbp` leaves alone, since they import other libraries or are seldom needed
APART = ("autograd", "cli", "demo", "distributed", "jax", "sklearn", "torch")


def refuse(name: str, known: Iterable[str]) -> NoReturn:
    """Raise for a name that the package does not have, and say which of the known names stands in its place."""
    alike = [other for other in tuple(known) if other.lower() == name.lower()]
    instead = ""
    if name in ELSEWHERE:
        instead = f": there is {ELSEWHERE[name]} (docs/coming_from.md)"
    elif name in APART:
        instead = f": write import fastbp.{name}"
    elif alike:
        instead = f": there is fastbp.{' and fastbp.'.join(sorted(alike))}"
    raise AttributeError(f"module 'fastbp' has no attribute {name!r}{instead}")


class Missing:
    """What raises when it is called, and says what to do instead."""

    def __init__(self, name: str, instead: str) -> None:
        self.__doc__ = f"Not there: {instead}."
        self._name, self._instead = name, instead

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"fastbp.{self._name}: {self._instead}")

    def __repr__(self) -> str:
        return f"<fastbp.{self._name}: not there>"


conv_transpose1d = Missing("conv_transpose1d", TRANSPOSED)
conv_transpose2d = Missing("conv_transpose2d", TRANSPOSED)
ConvTranspose1d = Missing("ConvTranspose1d", TRANSPOSED)
ConvTranspose2d = Missing("ConvTranspose2d", TRANSPOSED)
Upsample = Missing("Upsample", UPSAMPLED)
