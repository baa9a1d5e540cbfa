"""Names that users of other libraries look for, and what there is in their place."""

from __future__ import annotations

from typing import Any, NoReturn

TRANSPOSED = (
    "transposed convolutions are not part of fastbp: the product with the transposed matrix is dx of conv2d_backward, "
    "and a unit of your own can call it (docs/images.md)"
)
UPSAMPLED = (
    "upsampling is not part of fastbp: np.repeat(np.repeat(x, 2, 2), 2, 3) doubles images, in a unit of your own"
)


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
