"""What a network's outputs are called: the classes that `predict` returns, and what its maker notes beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp.losses import Loss, n_classes

__all__ = ["checked_classes", "checked_metadata"]


def checked_classes(classes: ArrayLike | None, loss: Loss, n_out: int | None) -> NDArray[Any] | None:
    """Return the labels of a network's classes in an array of their own that is not written any more, or raise."""
    if classes is None:
        return None
    given = np.asarray(classes, dtype=None if hasattr(classes, "dtype") else object)
    strings = given.dtype == object and all(isinstance(label, str) for label in given.ravel())
    values = np.array(given.tolist(), str if strings else None) if given.dtype == object else given.copy()
    mixed = given.dtype == object and values.dtype.kind == "U" and not strings
    if values.ndim != 1 or values.dtype.kind not in "biufU" or mixed:
        raise TypeError(f"classes must be a sequence of numbers, of bools or of strings, got {classes!r}")
    if len(np.unique(values)) < len(values):
        cure = "classes, t = np.unique(labels, return_inverse=True) finds each once, and the targets"
        raise ValueError(f"classes has a label twice, got {classes!r}: {cure}")
    expected = None if n_out is None else n_classes(loss, n_out)
    if expected is None:
        raise ValueError(
            f"classes are for networks that predict one of several classes, not for {n_out} outputs of {loss!r}"
        )
    if len(values) != expected:
        raise ValueError(f"classes has {len(values)} labels, expected {expected} for {n_out} outputs of {loss!r}")
    values.flags.writeable = False
    return values


def checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of what a file can keep of a dict: strings, numbers, bools, None, and lists and dicts of them."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise TypeError(f'metadata must be a dict such as {{"author": "..."}}, got {metadata!r}')
    given = dict(metadata)
    try:
        kept: dict[str, Any] = json.loads(json.dumps(given, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"metadata must be strings, numbers, lists and dicts, which JSON can keep: {error}") from None
    if kept != given:
        raise TypeError(
            f"metadata would come back from a file as {kept!r}, got {given!r}: give strings for keys, and lists"
        )
    return kept
