"""Networks of the literature, with random weights: LeNet-5, AlexNet, VGG-16 and residual networks for small images.

Each is a `Network` of the package's own units, in the order in which its source computes them.

Examples
--------
>>> import fastbp
>>> fastbp.models.lenet5(seed=0).output_shape
(10,)
"""

from __future__ import annotations

from typing import Any

from fastbp import _validate as check
from fastbp.losses import Loss
from fastbp.network import Network
from fastbp.units import (
    AvgPool2d,
    BatchNorm2d,
    Branches,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    Tanh,
    Unit,
)

__all__ = ["alexnet", "lenet5", "resnet18", "resnet20", "vgg16"]


def lenet5(
    *, classes: int = 10, loss: str | Loss = "softmax_nll", dtype: Any = "float32", seed: int | None = None
) -> Network:
    """Return LeNet-5 for images of shape (1, 28, 28): two convolutions with pooling, and three linear units.

    The first convolution pads by 2, as if the image had 32 x 32 pixels; all channels of the second read all of the
    first, and the last layer is linear, as is usual today. 61,706 parameters.

    Parameters
    ----------
    classes : int, optional
        Outputs.
    loss : str or Loss, optional
        As for `Network`.
    dtype : {"float32", "float64"}, optional
        As for `Network`.
    seed : int, optional
        As for `Network`.

    Returns
    -------
    Network
        With random weights.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
    Proceedings of the IEEE 86, 1998.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> net = fastbp.models.lenet5(seed=0)
    >>> net.n_parameters, net.predict_proba(np.zeros((2, 1, 28, 28), np.float32)).shape
    (61706, (2, 10))
    """
    return Network(
        Conv2d(1, 6, 5, padding=2), Tanh(), AvgPool2d(2),
        Conv2d(6, 16, 5), Tanh(), AvgPool2d(2),
        Flatten(), Linear(400, 120), Tanh(), Linear(120, 84), Tanh(), Linear(84, check.integer("classes", classes)),
        loss=loss, input_shape=(1, 28, 28), dtype=dtype, seed=seed,
    )  # fmt: skip


def alexnet(
    *,
    classes: int = 1000,
    dropout: float = 0.5,
    loss: str | Loss = "softmax_nll",
    dtype: Any = "float32",
    seed: int | None = None,
) -> Network:
    """Return AlexNet for images of shape (3, 227, 227): five convolutions and three linear units, in one tower.

    The source cuts some convolutions in two groups, one for each of two GPUs; here every channel reads all of those
    before it: 62,378,344 parameters with 1,000 classes.

    Parameters
    ----------
    classes : int, optional
        Outputs.
    dropout : float, optional
        The probability with which an output of the first two linear units is dropped in training; 0: no such units.
    loss : str or Loss, optional
        As for `Network`.
    dtype : {"float32", "float64"}, optional
        As for `Network`.
    seed : int, optional
        As for `Network`.

    Returns
    -------
    Network
        With random weights.

    References
    ----------
    A. Krizhevsky, I. Sutskever and G. E. Hinton, "ImageNet classification with deep convolutional neural networks",
    NIPS 2012.

    Examples
    --------
    >>> import fastbp
    >>> net = fastbp.models.alexnet(classes=10, seed=0)     # 62,378,344 with 1,000 classes
    >>> net.n_parameters
    58322314
    """
    return Network(
        Conv2d(3, 96, 11, stride=4), ReLU(), LocalResponseNorm(5, alpha=5e-4, k=2.0), MaxPool2d(3, stride=2),
        Conv2d(96, 256, 5, padding=2), ReLU(), LocalResponseNorm(5, alpha=5e-4, k=2.0), MaxPool2d(3, stride=2),
        Conv2d(256, 384, 3, padding=1), ReLU(),
        Conv2d(384, 384, 3, padding=1), ReLU(),
        Conv2d(384, 256, 3, padding=1), ReLU(), MaxPool2d(3, stride=2),
        Flatten(), *_head(9216, classes, dropout),
        loss=loss, input_shape=(3, 227, 227), dtype=dtype, seed=seed,
    )  # fmt: skip


# Channels of VGG-16's 3 x 3 convolutions; behind each group the maximum of 2 x 2 is taken.
VGG16 = (64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)


def vgg16(
    *,
    classes: int = 1000,
    dropout: float = 0.5,
    loss: str | Loss = "softmax_nll",
    dtype: Any = "float32",
    seed: int | None = None,
) -> Network:
    """Return VGG-16, the source's configuration D, for images of shape (3, 224, 224).

    Thirteen convolutions of 3 x 3 and three linear units: 138,357,544 parameters with 1,000 classes.

    Parameters
    ----------
    classes : int, optional
        Outputs.
    dropout : float, optional
        The probability with which an output of the first two linear units is dropped in training; 0: no such units.
    loss : str or Loss, optional
        As for `Network`.
    dtype : {"float32", "float64"}, optional
        As for `Network`.
    seed : int, optional
        As for `Network`.

    Returns
    -------
    Network
        With random weights.

    References
    ----------
    K. Simonyan and A. Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015.

    Examples
    --------
    >>> import fastbp
    >>> net = fastbp.models.vgg16(seed=0)       # a gigabyte, with its gradients  # doctest: +SKIP
    >>> net.n_parameters                        # doctest: +SKIP
    138357544
    """
    chain: list[Unit] = []
    before = 3
    for group in VGG16:
        for channels in group:
            chain += [Conv2d(before, channels, 3, padding=1), ReLU()]
            before = channels
        chain += [MaxPool2d(2)]
    chain += [Flatten(), *_head(7 * 7 * before, classes, dropout)]
    return Network(*chain, loss=loss, input_shape=(3, 224, 224), dtype=dtype, seed=seed)


def _head(n_in: int, classes: int, dropout: float) -> list[Unit]:
    """The linear units of AlexNet and VGG-16."""
    dropped: list[list[Unit]] = [[Dropout(dropout)] if dropout else [] for _ in range(2)]
    last = Linear(4096, check.integer("classes", classes))
    return [Linear(n_in, 4096), ReLU(), *dropped[0], Linear(4096, 4096), ReLU(), *dropped[1], last]


def resnet20(
    *, classes: int = 10, loss: str | Loss = "softmax_nll", dtype: Any = "float32", seed: int | None = None
) -> Network:
    """Return a residual network of 20 layers for images of shape (3, 32, 32), with batch norm.

    A convolution, three times three blocks of two convolutions with 16, 32 and 64 channels, the mean of each channel,
    and a linear unit. The way around a block that changes the shape is a convolution of 1 x 1 (the source's option B):
    272,474 parameters.

    Parameters
    ----------
    classes : int, optional
        Outputs.
    loss : str or Loss, optional
        As for `Network`.
    dtype : {"float32", "float64"}, optional
        As for `Network`.
    seed : int, optional
        As for `Network`.

    Returns
    -------
    Network
        With random weights.

    References
    ----------
    K. He, X. Zhang, S. Ren and J. Sun, "Deep residual learning for image recognition", CVPR 2016, section 4.2.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.models.resnet20(seed=0).n_parameters
    272474
    """
    return _residual((16, 32, 64), 3, classes, loss, dtype, seed)


def resnet18(
    *, classes: int = 10, loss: str | Loss = "softmax_nll", dtype: Any = "float32", seed: int | None = None
) -> Network:
    """Return the residual network of 18 layers for images of shape (3, 32, 32), with batch norm.

    The blocks are the source's (two each with 64, 128, 256 and 512 channels); as is usual for small images, a
    convolution of 3 x 3 stands in the place of that of 7 x 7 with its pooling: 11,173,962 parameters.

    Parameters
    ----------
    classes : int, optional
        Outputs.
    loss : str or Loss, optional
        As for `Network`.
    dtype : {"float32", "float64"}, optional
        As for `Network`.
    seed : int, optional
        As for `Network`.

    Returns
    -------
    Network
        With random weights.

    References
    ----------
    K. He, X. Zhang, S. Ren and J. Sun, "Deep residual learning for image recognition", CVPR 2016, table 1.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.models.resnet18(seed=0).n_parameters
    11173962
    """
    return _residual((64, 128, 256, 512), 2, classes, loss, dtype, seed)


def _residual(
    widths: tuple[int, ...], blocks: int, classes: int, loss: str | Loss, dtype: Any, seed: int | None
) -> Network:
    chain: list[Unit] = [*_convolution(3, widths[0], 3), ReLU()]
    before = widths[0]
    for stage, channels in enumerate(widths):
        for block in range(blocks):
            chain += [_block(before, channels, 2 if stage and not block else 1), ReLU()]
            before = channels
    chain += [GlobalAvgPool2d(), Linear(before, check.integer("classes", classes))]
    return Network(*chain, loss=loss, input_shape=(3, 32, 32), dtype=dtype, seed=seed)


def _convolution(before: int, channels: int, size: int, stride: int = 1) -> list[Unit]:
    """A convolution that keeps the size, but for its stride, with batch norm in the place of a bias."""
    return [Conv2d(before, channels, size, stride=stride, padding=size // 2, bias=False), BatchNorm2d(channels)]


def _block(before: int, channels: int, stride: int) -> Unit:
    body = Sequential(*_convolution(before, channels, 3, stride), ReLU(), *_convolution(channels, channels, 3))
    if before == channels and stride == 1:
        return Residual(body)
    return Branches([body, Sequential(*_convolution(before, channels, 1, stride))])
