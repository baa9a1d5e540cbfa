"""Names that are not known: which known one is meant."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["likely", "unknown"]

# What other libraries call it. Compared without case, hyphens, underscores and the word loss at the end.
ELSEWHERE = {
    "swish": "silu",
    "hswish": "hard_swish",
    "logistic": "sigmoid",
    "linear": "identity",
    "none": "identity",
    "geluapproximate": "gelu_tanh",
    "gelunew": "gelu_tanh",
    "crossentropy": "softmax_nll",
    "categoricalcrossentropy": "softmax_nll",
    "sparsecategoricalcrossentropy": "softmax_nll",
    "log": "softmax_nll",
    "nll": "softmax_nll",
    "bce": "sigmoid_nll",
    "bcewithlogits": "sigmoid_nll",
    "binarycrossentropy": "sigmoid_nll",
    "binarycrossentropywithlogits": "sigmoid_nll",
    "l2": "mse",
    "squarederror": "mse",
    "meansquarederror": "mse",
    "l1": "mae",
    "absoluteerror": "mae",
    "meanabsoluteerror": "mae",
    "smoothl1": "huber",
    "pinball": "quantile",
    "poisson": "poisson_nll",
    "gaussian": "gaussian_nll",
    "kl": "kl_div",
    "kld": "kl_div",
    "kldivergence": "kl_div",
    "xavier": "glorot_uniform",
    "glorot": "glorot_uniform",
    "kaiming": "he_uniform",
    "he": "he_uniform",
    "lecun": "lecun_normal",
    "zero": "zeros",
    "acc": "accuracy",
    "rocauc": "auc",
    "r2score": "r2",
    "learningrate": "lr",
    "eta": "lr",
    "epsilon": "eps",
    "negativeslope": "slope",
    "l2penalty": "weight_decay",
    "labelsmoothingfactor": "label_smoothing",
    "ignorelabel": "ignore_index",
    "add": "sum",
    "cat": "concat",
    "concatenate": "concat",
}


def unknown(what: str, name: object, known: Collection[str], of: str = "") -> str:
    """Return the message about a name (of something) that is none of the known ones, with the one probably meant."""
    meant = likely(name, known)
    hint = ": known are" if meant is None else f", did you mean {meant!r}? Known are"
    return f"unknown {what} {name!r}{of}{hint} {', '.join(map(repr, known)) or 'none'}"


def likely(name: object, known: Collection[str]) -> str | None:
    """Return the known name that another one probably means: another spelling, another library's, or a close one."""
    if not isinstance(name, str):
        return None
    import difflib  # three milliseconds, for messages alone

    plain = {_plain(other): other for other in known}
    asked = _plain(name)
    for spelling in (asked, asked.removesuffix("loss")):
        for candidate in (spelling, _plain(ELSEWHERE.get(spelling, ""))):
            if candidate and candidate in plain:
                return plain[candidate]
    close = difflib.get_close_matches(asked, plain, 1, 0.75)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
