"""`accelerate` on single functions: norms with any cache, embeddings, and the losses of CS231n."""
# The programs draw legacy random numbers.
# The programs draw legacy random numbers.
# ruff: noqa: NPY002

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from helpers import seeded
from programs import BOUNDS, always_faster, run, text_of  # noqa: F401  a fixture
from test_accelerate_lists import same

import fastbp

Space = dict[str, Any]
DTYPES = ("float32", "float64")


def course(*edits: tuple[str, str]) -> Space:
    """Return the names of the program as its own namespace, edited."""
    text = text_of("cs231n")
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    return run(text)


def swapped(report: Any) -> set[str]:
    return {entry.what for entry in report.entries if entry.swapped}


STEMS = ("batchnorm", "layernorm", "spatial_batchnorm")
OF_STEM = {stem: {f"{stem}_forward", f"{stem}_backward"} for stem in STEMS}


def steps(space: Space, stem: str, dtype: str, rows: int = 120, columns: int = 100) -> Any:
    """Return what both passes give and leave, at first, later, with other constants, and not in training."""
    rng, found = seeded(rows), []
    shape = (rows, columns, 2, 3) if stem.startswith("spatial") else (rows, columns)
    param: dict[str, Any] = {"mode": "train"}
    for k, more in enumerate(({}, {}, {"eps": 1e-2, "momentum": 0.5}, {"mode": "test"})):
        param.update(more)
        x = ((1 + k) * rng.standard_normal(shape) + k).astype(dtype)
        gamma, beta = (rng.standard_normal(columns).astype(dtype) for _ in range(2))
        out, cache = space[f"{stem}_forward"](x, gamma, beta, param)
        found.append([out, list(cache or ()), dict(param)])
        if cache is not None:
            found += [space[name](np.cos(out), cache) for name in space if name.startswith(f"{stem}_backward")]
    return found


CACHES = {  # what a forward pass keeps, and how the backward pass reads it
    "as it is": (),
    "inverse": (
        ("cache = (x_hat, gamma, std)", "cache = (1 / std, gamma, x_hat)"),
        ("x_hat, gamma, std = cache", "inverse, gamma, x_hat = cache; std = 1 / inverse"),
    ),
    "inputs and moments": (
        ("cache = (x_hat, gamma, std)", "cache = (x, x_hat, gamma, beta, std**2 - eps, std, eps, 'train', None)"),
        ("x_hat, gamma, std = cache", "_, x_hat, gamma, _, _, std, _, _, _ = cache"),
    ),
    "centred": (
        ("cache = (x_hat, gamma, std)", "cache = (x_hat * std, std * std, gamma)"),
        ("x_hat, gamma, std = cache", "c, v, gamma = cache; std = np.sqrt(v); x_hat = c / std"),
    ),
    "inputs alone": (
        ("cache = (x_hat, gamma, std)", "cache = (x, mu, std**2 - eps, eps, gamma, x.shape[0])"),
        ("x_hat, gamma, std = cache",
         "x, mu, v, eps, gamma, _ = cache; std = np.sqrt(v + eps); x_hat = (x - mu) / std"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("stem", STEMS)
def test_norms_compute_the_same_with_any_cache(stem: str, kind: str, dtype: str) -> None:
    space, plain = course(*CACHES[kind]), course(*CACHES[kind])
    report = fastbp.accelerate(space)
    assert swapped(report) >= OF_STEM[stem], str(report)
    same(steps(space, stem, dtype), steps(plain, stem, dtype), **BOUNDS[dtype])
    same(steps(space, stem, dtype, 3, 2), steps(plain, stem, dtype, 3, 2), **BOUNDS[dtype])
    report.undo()


LEFT = {
    "a list": (("cache = (x_hat, gamma, std)", "cache = [x_hat, gamma, std]"),),
    "more than a norm has": (
        ("cache = (x_hat, gamma, std)", "cache = (x_hat, gamma, std, x_hat**3)"),
        ("x_hat, gamma, std = cache", "x_hat, gamma, std, _ = cache"),
    ),
    "no gamma": (("cache = (x_hat, gamma, std)", "cache = (x_hat, 1 * gamma, std)"),),
}


@pytest.mark.parametrize("kind", LEFT)
def test_norms_with_other_caches_are_left_alone(kind: str) -> None:
    space = course(*LEFT[kind])
    report = fastbp.accelerate(space)
    assert not {name for name in swapped(report) if "norm" in name}, str(report)
    why = next(entry.why for entry in report.entries if entry.what == "batchnorm_forward")
    assert why.startswith("its cache")
    report.undo()


def test_a_forward_pass_that_is_defined_once_more_may_keep_something_else() -> None:
    """As in a cell that was run again: what the engine would read is 0 now, and the original reads something else."""
    reads = ("x_hat, gamma, std = cache", "c, _, gamma, std = cache; x_hat = c / std")
    space = course(("cache = (x_hat, gamma, std)", "cache = (x_hat * std, x_hat, gamma, std)"), reads)
    other = course(("cache = (x_hat, gamma, std)", "cache = (x_hat * std, 0 * x_hat, gamma, std)"), reads)
    report = fastbp.accelerate(space)
    assert "batchnorm_backward" in swapped(report), str(report)
    x, ones = seeded(3).standard_normal((100, 110)), np.ones(110)
    found = []
    for forward, of in ((space["batchnorm_forward"], space), (other["batchnorm_forward"], other)):
        space["batchnorm_forward"] = forward
        out, cache = forward(x, ones, ones, {"mode": "train"})
        found.append([one["batchnorm_backward"](np.cos(out), cache) for one in (space, of)])
    same(found[0], found[1], **BOUNDS["float64"])
    assert np.abs(found[1][0][1]).max() > 0
    report.undo()


def test_running_moments_are_new_arrays_and_others_stay() -> None:
    space = course()
    report = fastbp.accelerate(space)
    x, ones = seeded(1).standard_normal((100, 120)), np.ones(120)
    param = {"mode": "train", "running_mean": np.zeros(120), "running_var": np.ones(120)}
    before = param["running_mean"], param["running_var"]
    space["batchnorm_forward"](x, ones, ones, param)
    assert param["running_mean"] is not before[0] and not before[0].any() and (before[1] == 1).all()
    report.undo()


def test_a_wrong_mode_raises_the_programs_own_exception() -> None:
    space = course()
    report = fastbp.accelerate(space)
    x, ones = np.ones((200, 100)), np.ones(100)
    with pytest.raises(ValueError, match="Invalid forward batchnorm mode"):
        space["batchnorm_forward"](x, ones, ones, {"mode": "other"})
    with pytest.raises(KeyError):
        space["batchnorm_forward"](x, ones, ones, {})
    assert np.isnan(space["batchnorm_forward"](x * np.nan, ones, ones, {"mode": "train"})[0]).all()
    report.undo()


# ---- embeddings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_word_embeddings_have_the_same_gradient(dtype: str) -> None:
    space, plain = course(), course()
    report = fastbp.accelerate(space)
    assert "word_embedding_backward" in swapped(report), str(report)
    rng = seeded(5)
    W = rng.standard_normal((90, 64)).astype(dtype)
    for shape in ((20, 30), (3, 2), (500,), (4, 5, 30)):
        x = rng.integers(-90, 90, shape)
        found = []
        for of in (space, plain):
            out, cache = of["word_embedding_forward"](x, W)
            found.append((out, of["word_embedding_backward"](np.sin(out), cache)))
        same(*found, **BOUNDS[dtype])
    with pytest.raises(IndexError):
        space["word_embedding_backward"](np.zeros((20, 30, 64), dtype), (np.full((20, 30), 90), W))
    report.undo()


@pytest.mark.parametrize("kept", ["(x, W.shape)", "(W.shape, x)", "(W, x, None)"])
def test_word_embeddings_with_other_caches(kept: str) -> None:
    read = kept.replace("None", "_").replace("W.shape", "shape")
    zeros = "np.zeros(shape)" if "shape" in kept else "np.zeros_like(W)"
    edits = ("cache = (x, W)\n", f"cache = {kept}\n"), ("x, W = cache\n", f"{read} = cache\n")
    space = course(*edits, ("dW = np.zeros_like(W)\n", f"dW = {zeros}\n"))
    report = fastbp.accelerate(space)
    entry = report.choice("word_embedding_backward")
    # Of a shape alone there is no dtype: zeros are float64 there, whatever the gradient is.
    assert entry is not None and entry.swapped == ("shape" not in kept), str(report)
    report.undo()


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_embedding_writes_into_its_own_array(dtype: str) -> None:
    book = run(text_of("dlfs2"))
    rng = seeded(6)
    W = rng.standard_normal((70, 50)).astype(dtype)
    layer, other = book["Embedding"](W), book["Embedding"](W)
    (dW,) = layer.grads
    report = fastbp.accelerate(layer)
    for k, rows in enumerate((300, 7, 120)):
        idx = rng.integers(-70, 70, rows)
        dout = rng.standard_normal((rows, 50)).astype(dtype)
        for one in (layer, other):
            one.forward(idx)
            assert one.backward(dout) is None
        assert layer.grads[0] is dW and len(layer.grads) == 1
        same(layer.grads, other.grads, **BOUNDS[dtype])
        if k == 0:
            assert swapped(report) == {f"Embedding.backward, 70-50 {dtype}"}, str(report)
    report.undo()


def test_layers_that_are_made_in_each_step_leave_nothing_behind() -> None:
    book = run(text_of("dlfs2"))
    report = fastbp.accelerate(book["Embedding"])
    W, idx = np.zeros((70, 50)), np.arange(70).repeat(3)
    for _ in range(20):
        layer = book["Embedding"](W)
        layer.forward(idx)
        layer.backward(np.ones((210, 50)))
        assert (layer.grads[0] == 3).all()
    assert len(report.entries) == 1 and len(report._patches._undo) < 10
    report.undo()
    assert not hasattr(book["Embedding"].backward, "__wrapped__")


@pytest.mark.parametrize(
    ("old", "new", "is_swapped"),
    [
        ("dW[...] = 0\n        np.add.at(dW, self.idx, dout)",
         "dW[...] = 0\n        for i, word in enumerate(self.idx):\n            dW[word] += dout[i]", True),
        ("np.add.at(dW, self.idx, dout)", "dW[self.idx] = dout", False),
        ("np.add.at(dW, self.idx, dout)", "np.add.at(dW, self.idx, 0.5 * dout)", False),
        ("dW[...] = 0\n        np.add.at", "np.add.at", False),
        ("(dW, self.idx, dout)\n        return None", "(dW, self.idx, dout)\n        return dout", False),
    ],
)  # fmt: skip
def test_edited_embeddings(old: str, new: str, is_swapped: bool) -> None:
    text = text_of("dlfs2")
    assert old in text
    book, plain = run(text.replace(old, new)), run(text.replace(old, new))
    layers = [of["Embedding"](np.zeros((70, 50))) for of in (book, plain)]
    report = fastbp.accelerate(layers[0])
    rng = seeded(8)
    for _ in range(2):
        idx, dout = rng.integers(0, 70, 200), rng.standard_normal((200, 50))
        results = []
        for layer in layers:
            layer.forward(idx)
            results.append((layer.backward(dout), layer.grads[0].copy()))
        same(*results, **BOUNDS["float64"])
    assert [entry.swapped for entry in report.entries] == [is_swapped], str(report)
    report.undo()


# ---- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ["svm_loss", "softmax_loss"])
def test_losses_are_the_same(loss: str, dtype: str) -> None:
    space, plain = course(), course()
    report = fastbp.accelerate(space)
    assert loss in swapped(report), str(report)
    rng = seeded(7)
    for rows, columns, scale in ((9, 4, 1.0), (100, 10, 30.0), (1, 3, 1e-3), (5, 1, 1.0)):
        x, y = (scale * rng.standard_normal((rows, columns))).astype(dtype), rng.integers(-columns, columns, rows)
        same(space[loss](x, y), plain[loss](x, y), **BOUNDS[dtype])
        same(space[loss](np.round(x), y), plain[loss](np.round(x), y), **BOUNDS[dtype])
    with pytest.raises(IndexError):
        space[loss](x, y + 9)
    report.undo()


def test_a_network_whose_functions_are_swapped_too() -> None:
    space, plain = course(), course()
    report = fastbp.accelerate(space)
    rng, found = seeded(9), []
    x, y = rng.standard_normal((100, 40)), rng.integers(0, 4, 100)
    for of in (space, plain):
        np.random.seed(3)
        net = of["FullyConnectedNet"]([120, 110], 40, 4, normalization="batchnorm", weight_scale=0.2, dtype=np.float64)
        found.append([(net.loss(x + k, y), net.loss(x), copy.deepcopy(net.bn_params)) for k in range(3)])
    same(*found, **BOUNDS["float64"])
    assert {"batchnorm_forward", "FullyConnectedNet.loss, 40-120-110-4 batchnorm float64"} <= swapped(report), str(
        report
    )
    report.undo()
