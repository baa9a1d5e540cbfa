"""What a build with FASTBP_DEBUG=1 adds: the kernels' ranges are checked, and a planted overrun ends the process."""

from __future__ import annotations

import importlib.util
import signal

import numpy as np
import pytest
from processes import output, run

import fastbp

DEBUG = fastbp.config()["debug"]
with_checks = pytest.mark.skipif(not DEBUG, reason="this build has no checks: make test-debug")

# What is planted, and what the check calls the place.
PLANTED = {
    "pack_a": "pack",
    "pack_b": "pack",
    "tile: a": "tile: a",
    "tile: b": "tile: b",
    "store": "store",
    "slab": "slab",
}
PLANTED |= {f"sparse: {place}": f"sparse: {place}" for place in ("column", "column to transpose", "entry", "row")}
PLANTED |= {place: place for place in ("windows", "sums by places")}
PLANTED["sparse: column of a block"] = "sparse: column of a block"
PLANTED |= {"in place: a": "tile: a", "in place: b": "tile: b", "in place: store": "store"}
PLANTED |= {place: place for form in ("dots", "stream") for place in (f"{form}: a", f"{form}: b", f"{form}: store")}


def script(kind: str, itemsize: int, missing: int) -> str:
    return f"from fastbp._kernels import planted; planted.overrun({kind!r}, {itemsize}, {missing}); print('survived')"


def test_only_a_build_with_checks_has_the_planted_overruns() -> None:
    assert (importlib.util.find_spec("fastbp._kernels.planted") is not None) == DEBUG


@with_checks
@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_overrun_aborts(kind: str, itemsize: int) -> None:
    """One element is enough. The memory is there, so nothing but the check can notice."""
    done = run(script(kind, itemsize, missing=1))
    assert done.returncode == -signal.SIGABRT
    assert f"fastbp: {PLANTED[kind]}: pointer outside its range" in done.stderr
    assert "survived" not in done.stdout


@with_checks
@pytest.mark.parametrize("itemsize", [4, 8])
def test_without_the_overrun_nothing_aborts(itemsize: int) -> None:
    for kind in PLANTED:
        assert output(script(kind, itemsize, missing=0)) == "survived"


@with_checks
def test_an_unknown_kind_lists_the_known_ones() -> None:
    from fastbp._kernels import planted

    with pytest.raises(ValueError, match=r"kind must be pack_a, pack_b, store, one of .*, got 'nothing'"):
        planted.overrun("nothing", 4, 0)


@with_checks
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_checked_kernels_pass_a_training(dtype: type, rng: np.random.Generator) -> None:
    """Every sign and order of the distances: a check that is wrong would end this process."""
    shapes = [(1, 1, 1), (2, 3, 1), (13, 7, 33), (30, 300, 65), (200, 130, 70), (40, 0, 40), (3, 90, 300)]
    for m, k, n in shapes:
        base_a, base_b = rng.standard_normal((2 * m, 2 * k)), rng.standard_normal((2 * k, 2 * n))
        for a in (base_a[:m, :k], base_a[::-2, ::-2], base_a[::-1][:m, ::2], np.asfortranarray(base_a)[::2, :k]):
            for b in (base_b[:k, :n], base_b[::-2, ::-2], base_b[:k, ::-1][:, :n], np.asfortranarray(base_b)[:k, ::2]):
                x, w = a.astype(dtype, order="K"), b.astype(dtype, order="K")
                x, w = np.flip(np.flip(x).copy()), np.flip(np.flip(w).copy())
                for out in (np.empty((m, n), dtype), np.empty((n, m), dtype).T, np.empty((m, n), dtype)[::-1, ::-1]):
                    fastbp.matmul(x, w, out=out)
                    fastbp.matmul(a.astype(dtype), b.astype(dtype), out=out)
                    np.testing.assert_allclose(out, a @ b, atol=1e-2 if dtype == np.float32 else 1e-10)
