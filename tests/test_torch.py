"""Activations, values and gradients, against torch.nn.functional: where torch can be imported.

Torch is no dependency. Where torch's own formula gives NaN or loses digits, that is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, eps, follow_advice, some_options

import fastbp
from fastbp import _validate as check
from fastbp.reference import ACTIVATIONS, Activation

torch = pytest.importorskip("torch", exc_type=ImportError)
F = torch.nn.functional

pytestmark = pytest.mark.bridge

# Ours by name, torch's function, and what its keywords are called there.
THEIRS: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
    "identity": (lambda z: z * 1, {}),
    "sigmoid": (torch.sigmoid, {}),
    "log_sigmoid": (F.logsigmoid, {}),
    "tanh": (torch.tanh, {}),
    "relu": (F.relu, {}),
    "leaky_relu": (F.leaky_relu, {"slope": "negative_slope"}),
    "elu": (F.elu, {"alpha": "alpha"}),
    "selu": (F.selu, {}),
    "celu": (F.celu, {"alpha": "alpha"}),
    "gelu": (F.gelu, {}),
    "gelu_tanh": (lambda z: F.gelu(z, approximate="tanh"), {}),
    "silu": (F.silu, {}),
    "mish": (F.mish, {}),
    "softplus": (F.softplus, {"beta": "beta"}),
    "softsign": (F.softsign, {}),
    "hard_sigmoid": (F.hardsigmoid, {}),
    "hard_tanh": (F.hardtanh, {}),
    "relu6": (F.relu6, {}),
    "hard_swish": (F.hardswish, {}),
}
NOT_TORCHS: set[str] = set()  # activations that torch has not
# Torch takes 1 / alpha and 1 / 6 in float32 for float64's derivatives too.
SINGLE_INSIDE = ("celu", "hard_sigmoid")
SHAPES = ((), (0,), (7,), (33, 17), (2, 3, 65))

BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)
BY_RULE = pytest.mark.parametrize(
    "rule", [rule for rule in ACTIVATIONS.values() if rule.name not in NOT_TORCHS], ids=lambda r: r.name
)


def test_every_activation_is_compared_or_excluded() -> None:
    assert [name for name in ACTIVATIONS if name not in NOT_TORCHS] == list(THEIRS)
    assert NOT_TORCHS <= set(ACTIVATIONS)


@BY_RULE
def test_defaults_are_torchs(rule: Activation) -> None:
    z = np.linspace(-5, 5, 101)
    function, names = THEIRS[rule.name]
    given = {names[name]: option.default for name, option in rule.options.items()}
    np.testing.assert_array_equal(function(torch.tensor(z)), function(torch.tensor(z), **given))


def theirs(rule: Activation, z: np.ndarray, dy: np.ndarray, options: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    function, names = THEIRS[rule.name]
    at = torch.tensor(z, requires_grad=True)
    y = function(at, **{names[name]: value for name, value in options.items()})
    y.backward(torch.tensor(dy))
    return y.detach().numpy(), at.grad.numpy()


def ours(rule: Activation, z: np.ndarray, dy: np.ndarray, options: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    y = getattr(fastbp, rule.name)(z, **options)
    saved = y if rule.needs == "output" else z
    return y, getattr(fastbp, f"{rule.name}_backward")(dy, saved, **options)


def compare(rule: Activation, z: np.ndarray, dy: np.ndarray, options: dict[str, float]) -> None:
    """Ours is within 4 ulp or 2e-7 max(1, |z|) (4e-16), theirs a few ulp of terms of the size of z: twice that.

    Where torch has 0 times inf or inf / inf, ours is the limit.
    """
    rate = eps(z.dtype)
    (y, dz), (their_y, their_dz) = ours(rule, z, dy, options), theirs(rule, z, dy, options)
    assert (y.dtype, y.shape) == (their_y.dtype, their_y.shape)
    magnitude = np.where(np.isfinite(z), np.maximum(1, np.abs(z)), 1).astype(np.float64)
    size = max([1.0, *options.values()])  # alpha is the size of elu's terms
    single = eps(np.float32) if rule.name in SINGLE_INSIDE else 0
    # torch takes softplus for z from where beta z is 20
    threshold = math.exp(-20) if rule.name == "softplus" else 0
    with np.errstate(invalid="ignore"):
        assert_near(y, their_y, 8 * rate * size * magnitude + threshold / options.get("beta", 1.0), z)
        assert_near(dz, their_dz, (8 * rate * size * magnitude + threshold + single) * np.abs(dy), z)


def assert_near(got: np.ndarray, want: np.ndarray, bound: np.ndarray, z: np.ndarray) -> None:
    fine = np.where(np.isnan(want), np.isnan(got) == np.isnan(z), (got == want) | (np.abs(got - want) <= bound))
    assert fine.all(), f"at {z[~fine][:3]}: {got[~fine][:3]}, theirs {want[~fine][:3]}"


@BY_DTYPE
@BY_RULE
def test_random_shapes_and_options(rule: Activation, dtype: Any, rng: np.random.Generator) -> None:
    for options in some_options(rule):
        for shape in SHAPES:
            for width in (0.01, 1, 10, 100):
                z, dy = (np.asarray(a) for a in rng.normal(0, 1, (2, *shape)).astype(dtype))
                z = np.asarray(z * width, dtype)
                apart = np.all([np.abs(z - kink) > 16 * eps(dtype) for kink in rule.kinks], axis=0)
                compare(rule, np.where(apart, z, np.asarray(0.5, dtype)), dy, options)


@BY_DTYPE
@BY_RULE
def test_extreme_values(rule: Activation, dtype: Any) -> None:
    values = [0.0, 1e-40, 1e-30, 1e-8, 15.0, 20.0, 88.0, 104.0, 800.0, 1e10, 1e30, math.inf]
    z = np.array([sign * value for value in values for sign in (1, -1)], dtype)
    compare(rule, z, np.ones_like(z), {})
    assert np.isnan(ours(rule, np.array([math.nan], dtype), np.ones(1, dtype), {})[0])


@BY_DTYPE
@BY_RULE
def test_derivatives_at_the_kinks(rule: Activation, dtype: Any) -> None:
    z = np.array(rule.kinks or (0.0,), dtype)
    compare(rule, z, np.ones_like(z), {})


@BY_RULE
def test_second_derivatives(rule: Activation, rng: np.random.Generator) -> None:
    """dy f''(z) u, by differentiating theirs twice."""
    z, dy, u = rng.normal(0, 2, (3, 500))
    for options in some_options(rule):
        function, names = THEIRS[rule.name]
        at = torch.tensor(z, requires_grad=True)
        y = function(at, **{names[name]: value for name, value in options.items()})
        (slope,) = torch.autograd.grad(y.sum(), at, create_graph=True)
        want = np.zeros_like(z)
        if slope.requires_grad and rule.name != "hard_sigmoid":  # whose second derivative torch does not have
            (second,) = torch.autograd.grad((slope * torch.tensor(dy * u)).sum(), at, allow_unused=True)
            want = want if second is None else second.numpy()
        saved = rule.forward(z, **options) if rule.needs == "output" else z
        rtol = 1e-6 if rule.name in SINGLE_INSIDE else 1e-9
        np.testing.assert_allclose(rule.second(dy, saved, u, **options), want, rtol=rtol, atol=1e-12)


# ---- tensors as arguments --------------------------------------------------------------------------------------------


def test_tensors_are_read_where_they_lie(rng: np.random.Generator) -> None:
    x, w = torch.tensor(rng.normal(size=(4, 3))), torch.tensor(rng.normal(size=(3, 2)))
    assert np.shares_memory(check.plain("x", x), x.numpy())
    np.testing.assert_array_equal(fastbp.linear(x, w), fastbp.linear(x.numpy(), w.numpy()))
    assert fastbp.linear(x.float(), w).dtype == np.float64
    t = torch.tensor([0, 1, 1, 0])
    net = fastbp.MLP([3, 5, 2], dtype="float64", seed=0)
    assert net.value_and_grad(x, t)[0] == net.value_and_grad(x.numpy(), t.numpy())[0]


def test_the_advice_about_tensors_works() -> None:
    for call, tensors in (
        ("fastbp.sigmoid(z)", {"z": torch.ones(3, requires_grad=True)}),
        ("fastbp.sigmoid(z)", {"z": torch.ones(3, dtype=torch.float16)}),
        ("fastbp.sigmoid(z)", {"z": torch.ones(3, dtype=torch.int64)}),
        ("net.predict(x)", {"x": torch.ones((4, 3), dtype=torch.float64)}),
        ("net.predict(x)", {"x": torch.ones((4, 3), requires_grad=True)}),
        ("net.value_and_grad(x, t)", {"x": torch.ones((4, 3)), "t": torch.zeros((4, 1), dtype=torch.int64)}),
    ):
        follow_advice(call, {"fastbp": fastbp, "np": np, "net": fastbp.MLP([3, 2], seed=0), **tensors})
    with pytest.raises(TypeError, match=r"z must be a numpy array, got Tensor: .*BFloat16"):
        fastbp.sigmoid(torch.ones(3, dtype=torch.bfloat16))
