"""The product over all threads: what it takes of memory. (Its results: test_functional; its bits: test_team.)"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from processes import output

import fastbp

CALLS = (
    "fastbp.matmul(big.T, tall, out=tall_out)",
    "fastbp.matmul(wide, big.T, out=wide_out)",
    "fastbp.matmul(big.T[::-1], tall[::-1], out=tall_out)",
    "fastbp.matmul(wide, big.T, out=wide_out[:, ::-1])",
    "fastbp.linear_backward(tall, big.T, wide.T, out=(dx, tall_out, bias))",
    "fastbp.matmul(wide[:64], big.T, out=wide_out[:64])",  # few rows are multiplied by other kernels
    "fastbp.matmul(big.T, wide[:64].T, out=wide_out[:64].T)",
)


def test_a_transposed_operand_is_not_copied() -> None:
    """4096 x 4096 elements of float32 are 67 MB; packed panels may take 10 MB."""
    code = f"""
        import json, pathlib, re, resource
        import numpy as np, fastbp
        def peak():
            # In MB. Linux's ru_maxrss begins with what the process that started this one had; VmHWM does not.
            status = pathlib.Path("/proc/self/status")
            if status.exists():
                return int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]) * 1024 / 1e6
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        big, dx = np.ones((2, 4096, 4096), np.float32)
        tall, wide = np.ones((4096, 160), np.float32), np.ones((160, 4096), np.float32)
        tall_out, wide_out, bias = np.ones_like(tall), np.ones_like(wide), np.ones(160, np.float32)
        grown, start = {{}}, peak()
        for threads in (1, 2):
            fastbp.set_num_threads(threads)
            fastbp.matmul(tall[:200], wide[:, :200])
            for call in {CALLS!r}:
                before = peak()
                exec(call)
                grown[call + ", " + str(threads)] = peak() - before
        big.T.copy()
        grown["a copy"] = peak() - start
        print(json.dumps(grown))
    """
    grown = json.loads(output(code))
    assert grown.pop("a copy") > 60  # the measurement sees a copy where there is one
    assert len(grown) == 14 and {call: megabytes for call, megabytes in grown.items() if megabytes >= 10} == {}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(150, 301, 77, 11), (70, 33, 1000), (400, 20, 400, 3), (33, 2000)])
def test_a_plan_can_be_used_for_smaller_batches(sizes: tuple[int, ...], dtype: str, rng: np.random.Generator) -> None:
    """A smaller product may want more room than a larger one: its tiles are wider. (FASTBP_DEBUG=1 checks each.)"""
    x = rng.standard_normal((1000, sizes[0])).astype(dtype)
    t = rng.integers(0, sizes[-1], 1000)
    net = fastbp.MLP(sizes, dtype=dtype, seed=0)

    def gradients(net: Any, rows: int) -> tuple[np.ndarray, ...]:
        net.value_and_grad(x[:rows], t[:rows])
        flat = net.gradients.flat.copy()
        y = net.forward(x[:rows]).copy()
        return flat, y, net.backward(y).copy(), net.gradients.flat.copy()

    for planned in (203, 1000):
        for threads in (8, 1):
            with fastbp.threads(threads):
                net.value_and_grad(x[:planned], t[:planned])
                for rows in (1, 5, 11, 31, 64, 100, 129, 200):
                    fresh = fastbp.MLP(sizes, dtype=dtype, seed=0)
                    assert_same_bits(gradients(net, rows), gradients(fresh, rows))


def test_out_that_no_matrix_is_a_view_of_is_written(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(3, 4, 5)), rng.normal(size=5)
    for out in (np.full((4, 3), 7.0).T, np.full((3, 8), 7.0)[:, ::2], np.full((3, 4), 7.0)):
        assert fastbp.matmul(a, b, out=out) is out
        np.testing.assert_allclose(out, a @ b)
