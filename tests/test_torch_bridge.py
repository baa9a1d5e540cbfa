"""`fastbp.torch`: modules that the engine computes give PyTorch's values and gradients, and stay PyTorch's modules."""

from __future__ import annotations

import copy
import doctest
import importlib
import io
import itertools
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp

torch = pytest.importorskip("torch", exc_type=ImportError)
bridge = pytest.importorskip("fastbp.torch")
nn = torch.nn

from fastbp.torch._chains import Chain  # noqa: E402
from fastbp.torch._modules import RULES  # noqa: E402

pytestmark = [pytest.mark.bridge, pytest.mark.filterwarnings("ignore:Using padding=:UserWarning")]

DOUBLE, SINGLE = torch.float64, torch.float32
BY_DTYPE = pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=["float32", "float64"])


@pytest.fixture(autouse=True)
def _alike() -> Iterator[None]:
    """The same random numbers for each test; one thread of PyTorch's, which would wait for others on a busy machine."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def close(mine: Any, theirs: Any, terms: float = 64) -> None:
    """Equal to some roundings of the largest value."""
    assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
    bound = (
        terms * torch.finfo(theirs.dtype).eps * max(1.0, theirs.detach().abs().max().item() if theirs.numel() else 0)
    )
    torch.testing.assert_close(mine, theirs, rtol=0, atol=bound)


def mlp(*sizes: int, act: Callable[[], Any] = nn.Tanh, dtype: Any = DOUBLE) -> Any:
    parts: list[Any] = []
    for n_in, n_out in itertools.pairwise(sizes):
        parts += [nn.Linear(n_in, n_out), act()]
    return nn.Sequential(*parts[:-1]).to(dtype)


def pair(module: Any) -> tuple[Any, Any]:
    """Return an accelerated copy of a module, and the module."""
    mine = copy.deepcopy(module)
    assert bridge.accelerate(mine) is mine
    return mine, module


def gradients(module: Any, x: Any, dy: Any) -> tuple[Any, Any, list[Any]]:
    """Return output, gradient at the input, and gradients of the parameters."""
    x = x.detach().clone().requires_grad_()
    y = module(x)
    wanted = [x, *[p for p in module.parameters() if p.requires_grad]]
    found = torch.autograd.grad(y, wanted, dy)
    return y, found[0], list(found[1:])


def compare(mine: Any, theirs: Any, x: Any, terms: float = 64) -> None:
    """Compare values, gradients, and what training moves."""
    dy = torch.randn_like(theirs(x).detach())
    for module in (mine, theirs):  # the same number of passes each
        module.zero_grad()
    mine.load_state_dict(theirs.state_dict())
    y, dx, grads = gradients(mine, x, dy)
    their_y, their_dx, their_grads = gradients(theirs, x, dy)
    close(y, their_y, terms)
    close(dx, their_dx, terms)
    for a, b in zip(grads, their_grads, strict=True):
        close(a, b, terms * len(x))
    for (name, a), b in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
        close(a, b, terms) if a.is_floating_point() else torch.testing.assert_close(a, b, msg=name)


def is_ours(module: Any, x: Any) -> bool:
    """Whether the engine computes the output."""
    return "EngineFunction" in type(module(x.detach().requires_grad_()).grad_fn).__name__


# ---- every module that has a rule ------------------------------------------------------------------------------------

ROWS: list[Any] = [
    nn.Identity(), nn.Sigmoid(), nn.LogSigmoid(), nn.Tanh(), nn.ReLU(), nn.ReLU(inplace=True), nn.LeakyReLU(0.2),
    nn.ELU(0.7), nn.SELU(), nn.CELU(1.3), nn.GELU(), nn.GELU(approximate="tanh"), nn.SiLU(), nn.Mish(),
    nn.Softplus(2.0), nn.Softsign(), nn.Hardsigmoid(), nn.Hardtanh(), nn.ReLU6(), nn.Hardswish(), nn.PReLU(),
    nn.PReLU(7), nn.LayerNorm(7), nn.LayerNorm(7, elementwise_affine=False), nn.RMSNorm(7), nn.RMSNorm(7, eps=1e-3),
    nn.BatchNorm1d(7), nn.BatchNorm1d(7, eps=1e-3, momentum=0.4), nn.Flatten(),
    nn.Softmax(dim=-1), nn.LogSoftmax(dim=1), nn.Dropout(0.0), nn.Linear(7, 7), nn.Linear(7, 7, bias=False),
]  # fmt: skip
IMAGES: list[Any] = [
    nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)),
    nn.Conv2d(4, 6, 3, padding="same", dilation=2),
    nn.Conv2d(4, 6, 2, padding="same"), nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(4), nn.MaxPool2d(2),
    nn.MaxPool2d(3, stride=2, padding=1), nn.AvgPool2d(2),
    nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1), nn.LocalResponseNorm(3), nn.Dropout2d(0.0), nn.ReLU(),
]  # fmt: skip
SEQUENCES: list[Any] = [
    nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(4), nn.MaxPool1d(2), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1),
    nn.AdaptiveMaxPool1d(1),
    nn.Dropout1d(0.0),
]  # fmt: skip
INDICES = {nn.Embedding}  # see test_embedding


def test_every_rule_is_tested() -> None:
    assert {type(module) for module in (*ROWS, *IMAGES, *SEQUENCES)} | INDICES == set(RULES)


def whole(module: Any, dtype: Any) -> tuple[Any, Any]:
    """Return a network around a module, and an input for it."""
    module = copy.deepcopy(module)
    return nn.Sequential(nn.Linear(5, 7), module, nn.Linear(7, 3)).to(dtype), torch.randn(9, 5, dtype=dtype)


def around_images(module: Any, dtype: Any, dims: int) -> tuple[Any, Any]:
    conv = (nn.Conv1d, nn.Conv2d)[dims - 1]
    x = torch.randn(5, 2, *(9, 8)[:dims], dtype=dtype)
    parts = [conv(2, 4, 3, padding=1), copy.deepcopy(module), nn.Flatten()]
    n = nn.Sequential(*parts).to(dtype).eval()(x).shape[1]
    return nn.Sequential(*parts, nn.Linear(n, 3)).to(dtype).train(), x


CASES = [(module, 0) for module in ROWS] + [(module, 2) for module in IMAGES] + [(module, 1) for module in SEQUENCES]
EACH = pytest.mark.parametrize(("module", "dims"), CASES, ids=lambda value: str(value))


def case(module: Any, dims: int, dtype: Any) -> tuple[Any, Any]:
    return around_images(module, dtype, dims) if dims else whole(module, dtype)


@EACH
@BY_DTYPE
@pytest.mark.parametrize("training", [True, False])
def test_accelerated_modules_agree(module: Any, dims: int, dtype: Any, training: bool) -> None:
    theirs, x = case(module, dims, dtype)
    mine, theirs = pair(theirs.train(training))
    compare(mine, theirs, x, 256)
    is_rounded = isinstance(module, nn.Softplus | nn.CELU | nn.Hardsigmoid) and dtype is DOUBLE
    assert is_ours(mine, x) is not is_rounded
    with torch.no_grad():
        mine.load_state_dict(theirs.state_dict())
        close(mine(x), theirs(x), 256)


@EACH
@BY_DTYPE
def test_networks_of_modules_agree_and_come_back_bit_for_bit(module: Any, dims: int, dtype: Any) -> None:
    theirs, x = case(module, dims, dtype)
    theirs.eval()
    net = bridge.from_module(theirs, input_shape=x.shape[1:] if dims else None)
    close(torch.tensor(net.outputs(x.numpy())), theirs(x).detach(), 256)
    state = bridge.state_dict(net)
    assert list(state) == list(theirs.state_dict())
    for name, values in theirs.state_dict().items():
        assert torch.equal(state[name], values) and state[name].dtype == values.dtype, name
    if not isinstance(module, nn.AdaptiveMaxPool1d | nn.AdaptiveMaxPool2d):
        back = bridge.to_module(net)
        assert not back.training
        close(back(x), theirs(x))
        assert all(
            torch.equal(a, b) for a, b in zip(back.state_dict().values(), theirs.state_dict().values(), strict=True)
        )
    other = bridge.from_module(theirs, input_shape=x.shape[1:] if dims else None)
    other.flat_parameters = np.zeros(other.n_parameters, other.dtype)
    bridge.load_state_dict(other, theirs.state_dict())
    np.testing.assert_array_equal(other.flat_parameters, net.flat_parameters)


def test_embedding() -> None:
    theirs = nn.Sequential(nn.Embedding(11, 3), nn.Flatten(), nn.Linear(6, 2))
    net = bridge.from_module(theirs)
    indices = torch.randint(0, 11, (5, 2))
    close(torch.tensor(net.outputs(indices.numpy())), theirs(indices))
    assert torch.equal(bridge.to_module(net)(indices), theirs(indices))
    with pytest.raises(ValueError, match=r"module '0', Embedding\(11, 3\), cannot be taken: .*Flatten"):
        bridge.from_module(nn.Sequential(nn.Embedding(11, 3), nn.Linear(3, 2)))


# ---- conversions -----------------------------------------------------------------------------------------------------


def test_modules_that_cannot_be_taken_are_named() -> None:
    inner = nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 4))
    for module, message in (
        (nn.Sequential(nn.Linear(2, 3), inner), r"module '1\.1', LSTM\(4, 4\), cannot be taken: it has no unit"),
        (
            nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 2)),
            r"module '1', Linear\(.*\), cannot be taken: it takes 4 inputs",
        ),
        (nn.Sequential(nn.Hardtanh(0, 1)), "module '0', .*min_val"),
        (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True)), "module '0', .*ceil_mode=True"),
        (nn.Sequential(nn.Softplus(threshold=5)), "module '0', .*threshold"),
        (nn.Sequential(nn.BatchNorm1d(2, momentum=None)), "module '0', .*momentum=None"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1)), "module '0', .*input_shape"),
        (nn.Sequential(), "empty"),
    ):
        with pytest.raises(ValueError, match=message):
            bridge.from_module(module)

    class Mine(nn.Linear):
        pass

    with pytest.raises(ValueError, match="subclass of Linear"):
        bridge.from_module(nn.Sequential(Mine(2, 2)))
    hooked = nn.Sequential(nn.Linear(2, 2))
    hooked[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="forward hooks"):
        bridge.from_module(hooked)
    with pytest.raises(TypeError, match=r"torch\.bfloat16, expected float32 or float64"):
        bridge.from_module(mlp(2, 2).to(torch.bfloat16))
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got int"):
        bridge.from_module(3)


def test_units_that_cannot_become_modules_are_named() -> None:
    net = fastbp.Network(fastbp.Linear(2, 2), fastbp.Residual(fastbp.Linear(2, 2)), loss="mse")
    with pytest.raises(ValueError, match=r"unit 1 cannot become a module: Residual"):
        bridge.to_module(net)
    net = fastbp.Network(fastbp.Conv2d(1, 1, 2, padding=((0, 1), (0, 1))), loss="mse", input_shape=(1, 4, 4))
    with pytest.raises(ValueError, match=r"unit 0 cannot .* differently"):
        bridge.to_module(net)


def test_names_of_children_do_not_matter() -> None:
    from collections import OrderedDict

    inner = nn.Sequential(OrderedDict(norm=nn.LayerNorm(3), act=nn.ReLU()))
    module = nn.Sequential(OrderedDict(fc1=nn.Linear(4, 3), block=inner, fc2=nn.Linear(3, 2)))
    net = bridge.from_module(module)
    x = torch.randn(5, 4)
    close(torch.tensor(net.outputs(x.numpy())), module(x).detach())
    net.flat_parameters = np.zeros(net.n_parameters, np.float32)
    rename = {"fc1": "0", "block.norm": "1.0", "fc2": "2"}
    bridge.load_state_dict(net, module.state_dict(), rename=rename)
    close(torch.tensor(net.outputs(x.numpy())), module(x).detach())
    with pytest.raises(ValueError, match=r"it lacks '0\.weight'.*no 'fc1\.weight'.*rename="):
        bridge.load_state_dict(net, module.state_dict(), rename={"block.norm": "1.0", "fc2": "2"})
    with pytest.raises(ValueError, match="two arrays the name '0'"):
        bridge.load_state_dict(net, module.state_dict(), rename=lambda name: "0")


def test_what_does_not_fit_changes_nothing() -> None:
    net = fastbp.MLP([3, 2, 2], seed=0)
    before = net.flat_parameters.copy()
    good = bridge.state_dict(net)
    for state, error, message in (
        ({**good, "0.weight": torch.ones(3, 2)}, ValueError, r"0\.weight has shape \(3, 2\), expected \(2, 3\)"),
        ({name: values.double() for name, values in good.items()}, TypeError, "float64, but the network is float32"),
        ({**good, "3.weight": torch.ones(1)}, ValueError, "the network has no '3.weight'"),
    ):
        with pytest.raises(error, match=message):
            bridge.load_state_dict(net, state)
        np.testing.assert_array_equal(net.flat_parameters, before)


def test_frozen_parameters_and_counts_come_along() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))
    module[0].requires_grad_(False)
    module(torch.randn(6, 3)), module(torch.randn(6, 3))
    net = bridge.from_module(module)
    assert net.frozen == ("0.weight", "0.bias", "2.bias") and net.steps == 2
    back = bridge.to_module(net)
    assert [p.requires_grad for p in back.parameters()] == [p.requires_grad for p in module.parameters()]
    assert back[1].num_batches_tracked == 2 and back[2].bias is None


def test_files(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    net = bridge.from_module(module)
    net.save(tmp_path / "ours.safetensors", layout="torch")
    found = safetensors.load_file(tmp_path / "ours.safetensors")
    assert all(torch.equal(found[name], values) for name, values in module.state_dict().items())
    module.load_state_dict(found)
    with torch.no_grad():
        module[0].weight += 1.0
    safetensors.save_file(module.state_dict(), tmp_path / "theirs.safetensors")
    bridge.load_state_dict(net, tmp_path / "theirs.safetensors")
    np.testing.assert_array_equal(net.weights[0], module[0].weight.detach().numpy().T)
    for name, options, message in (
        ("a.npz", {}, "needs the suffix .safetensors"),
        ("a.safetensors", {"metadata": {"a": 1}}, "leave metadata out"),
        ("a.safetensors", {"layout": "numpy"}, "layout"),
    ):
        with pytest.raises(ValueError, match=message):
            net.save(tmp_path / name, **{"layout": "torch", **options})
    assert not list(tmp_path.glob("a.*"))
    with pytest.raises(ValueError, match=r"torch\.load"):
        bridge.load_state_dict(net, tmp_path / "theirs.pt")


# ---- accelerated modules are modules ---------------------------------------------------------------------------------


def test_derivatives_by_finite_differences() -> None:
    mine = bridge.accelerate(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 2)).double())
    x = torch.randn(5, 3, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(mine, x) and torch.autograd.gradgradcheck(mine, x)
    names, values = zip(*((name, p.detach().requires_grad_()) for name, p in mine.named_parameters()), strict=True)

    def of_parameters(*given: Any) -> Any:
        return torch.func.functional_call(mine, dict(zip(names, given, strict=True)), (x,))

    assert torch.autograd.gradcheck(of_parameters, values) and torch.autograd.gradgradcheck(of_parameters, values)


def test_the_gradient_of_a_gradients_norm() -> None:
    mine, theirs = pair(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).double())
    x = torch.randn(6, 3, dtype=DOUBLE)
    for module in (mine, theirs):
        at = x.clone().requires_grad_()
        (dx,) = torch.autograd.grad(module(at).sum(), at, create_graph=True)
        ((dx.norm(dim=1) - 1) ** 2).mean().backward()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        close(*[torch.zeros_like(b) if p.grad is None else p.grad for p in (a, b)], 1e3)
    for a, b in zip(mine.buffers(), theirs.buffers(), strict=True):
        close(a, b) if a.is_floating_point() else torch.testing.assert_close(a, b)


OPTIMIZERS: list[Any] = [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    lambda p: torch.optim.Adam(p),
    lambda p: torch.optim.Adam(p, fused=True),
    lambda p: torch.optim.AdamW(p, foreach=True),
    lambda p: torch.optim.LBFGS(p, max_iter=5, line_search_fn="strong_wolfe"),
]


@pytest.mark.parametrize("number", range(len(OPTIMIZERS)))
@BY_DTYPE
def test_training_with_torchs_optimizers(number: int, dtype: Any) -> None:
    if number == 4 and dtype is SINGLE:
        pytest.skip("the line search turns roundings of float32 into other steps")
    mine, theirs = pair(mlp(6, 9, 8, 3, dtype=dtype))
    x, t = torch.randn(32, 6, dtype=dtype), torch.randint(0, 3, (32,))
    for module in (mine, theirs):
        optimizer = OPTIMIZERS[number](module.parameters())
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        for _ in range(8):

            def closure(module: Any = module, optimizer: Any = optimizer) -> Any:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(module(x), t)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
                return loss

            optimizer.step(closure)
            schedule.step()
    assert is_ours(mine, x)
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        close(a, b, 1e4)


def test_gradients_accumulate_and_are_not_overwritten() -> None:
    mine, theirs = pair(mlp(4, 5, 6, 2))
    x = [torch.randn(7, 4, dtype=DOUBLE) for _ in range(3)]
    for module in (mine, theirs):
        for one in x:
            module(one).pow(2).sum().backward()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert a.grad.is_contiguous()
        close(a.grad, b.grad, 1e3)
    kept = [torch.autograd.grad(mine(one).sum(), list(mine.parameters())) for one in x]
    wanted = [torch.autograd.grad(theirs(one).sum(), list(theirs.parameters())) for one in x]
    views = [torch.autograd.grad(mine(one).sum(), list(mine.parameters()))[0].reshape(-1)[1:] for one in x]
    mine(x[0]).sum().backward()
    for got, want in zip(kept, wanted, strict=True):
        for a, b in zip(got, want, strict=True):
            close(a, b, 1e3)
    for view, want in zip(views, wanted, strict=True):
        close(view, want[0].reshape(-1)[1:], 1e3)


def test_gradients_are_kept_where_they_were_computed() -> None:
    mine = bridge.accelerate(mlp(4, 5, 2))
    x, places = torch.randn(7, 4, dtype=DOUBLE), []
    for _ in range(4):
        for p in mine.parameters():
            p.grad = None
        mine(x).sum().backward()
        places.append([p.grad.data_ptr() for p in mine.parameters()])
    assert places[1] == places[2] == places[3]  # nothing was copied, and the memory came back
    kept = mine[0].weight.grad
    before = kept.clone()
    mine.zero_grad()
    mine(2 * x).sum().backward()
    assert mine[0].weight.grad.data_ptr() != kept.data_ptr() and torch.equal(kept, before)


def test_gradients_that_hooks_keep_stay() -> None:
    mine, theirs = pair(mlp(4, 5, 2))
    x = torch.randn(7, 4, dtype=DOUBLE)
    kept: dict[int, list[Any]] = {0: [], 1: []}
    for i, module in enumerate((mine, theirs)):
        handle = module[0].weight.register_hook(kept[i].append)
        for factor in (1.0, 2.0, 3.0):
            (factor * module(x)).sum().backward()
        handle.remove()
    for a, b in zip(kept[0], kept[1], strict=True):
        close(a, b, 1e3)


@pytest.mark.parametrize("count", [2, 3, 8, 12])
def test_several_forwards_before_a_backward(count: int) -> None:
    mine, theirs = pair(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)).double())
    x = [torch.randn(6 + i % 3, 4, dtype=DOUBLE) for i in range(count)]
    for module in (mine, theirs):
        outputs = [module(one) for one in x]
        with torch.no_grad():
            module(x[0])
        sum((i + 1) * y.pow(2).sum() for i, y in enumerate(outputs)).backward()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        close(a.grad, b.grad, 1e4)
    for a, b in zip(mine.buffers(), theirs.buffers(), strict=True):
        close(a, b) if a.is_floating_point() else torch.testing.assert_close(a, b)


def test_going_back_twice() -> None:
    mine, theirs = pair(mlp(4, 5, 2))
    x = torch.randn(7, 4, dtype=DOUBLE)
    for module in (mine, theirs):
        loss = module(x).pow(2).sum()
        loss.backward(retain_graph=True)
        module(2 * x).sum().backward()
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        close(a.grad, b.grad, 1e3)


def test_parameters_changed_before_backward_raise() -> None:
    mine = bridge.accelerate(mlp(4, 5, 2))
    loss = mine(torch.randn(7, 4, dtype=DOUBLE)).sum()
    with torch.no_grad():
        mine[2].weight += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    x = torch.randn(7, 4, dtype=DOUBLE)
    loss = mine(x).sum()
    x += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


MOVES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda m: m[0].weight.data.mul_(2.0),
    "data": lambda m: setattr(m[0].weight, "data", m[0].weight.data * 2.0),
    "object": lambda m: setattr(m[2], "bias", nn.Parameter(torch.ones(2, dtype=m[2].bias.dtype))),
    "dtype": lambda m: m.float(),
    "state": lambda m: m.load_state_dict({name: 3 * values for name, values in m.state_dict().items()}),
    "assigned": lambda m: m.load_state_dict({n: 3 * v for n, v in m.state_dict().items()}, assign=True),
    "shared": lambda m: m.share_memory(),
    "vector": lambda m: nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(m.parameters()) * 2, m.parameters()
    ),
    "frozen": lambda m: m[0].requires_grad_(False),
    "all frozen": lambda m: m.requires_grad_(False),
    "transposed": lambda m: setattr(m[0].weight, "data", m[0].weight.data.t()),
    "not dense": lambda m: setattr(m[0].weight, "data", m[0].weight.data.t().contiguous().t()),
    "module": lambda m: m.__setitem__(1, nn.ReLU()),
    "longer": lambda m: m.append(nn.Tanh()),
    "slope": lambda m: setattr(m[1], "negative_slope", 0.5),
    "no bias": lambda m: setattr(m[0], "bias", None),
    "narrower": lambda m: (
        setattr(m[0].weight, "data", m[0].weight.data[:3]),
        setattr(m[0].bias, "data", m[0].bias.data[:3]),
        setattr(m[2].weight, "data", m[2].weight.data[:, :3].contiguous()),
    ),
}


@pytest.mark.parametrize("move", MOVES)
def test_parameters_and_modules_that_change_are_followed(move: str) -> None:
    mine, theirs = pair(mlp(4, 4, 2, act=lambda: nn.LeakyReLU(0.1)))
    x = torch.randn(7, 4, dtype=DOUBLE)
    compare(mine, theirs, x)
    for module in (mine, theirs):
        MOVES[move](module)
    x = x.to(theirs[0].weight.dtype)
    y, dx, grads = gradients(mine, x, torch.ones(7, 2, dtype=x.dtype))
    their_y, their_dx, their_grads = gradients(theirs, x, torch.ones(7, 2, dtype=x.dtype))
    for a, b in zip((y, dx, *grads), (their_y, their_dx, *their_grads), strict=True):
        close(a, b, 1e3)


def test_moments_that_move_are_followed() -> None:
    mine, theirs = pair(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double())
    x = torch.randn(6, 3, dtype=DOUBLE)
    compare(mine, theirs, x)
    for module in (mine, theirs):
        module[1].running_mean = torch.full((4,), 3.0, dtype=DOUBLE)
        module.eval()
    close(mine(x), theirs(x))
    for module in (mine, theirs):
        module.train()[1].eval()
        module[1].momentum = 0.5
    compare(mine, theirs, x)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        mine.train()(x[:1])


def test_hooks_are_called() -> None:
    mine = bridge.accelerate(mlp(4, 5, 6, 2))
    x = torch.randn(7, 4, dtype=DOUBLE)
    y = mine(x)
    seen: list[Any] = []
    handle = mine[2].register_forward_hook(lambda module, args, output: seen.append(output))
    assert not is_ours(mine, x) and len(seen) == 1
    handle.remove()
    assert is_ours(mine, x)
    whole = mine.register_full_backward_hook(lambda module, given, output: seen.append(given[0]))
    mine(x.clone().requires_grad_()).sum().backward()
    assert seen[-1].shape == x.shape
    whole.remove()
    close(mine(x), y)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert not is_ours(mine, x)
    handle.remove()


def test_copies_and_pickles() -> None:
    mine = bridge.accelerate(mlp(4, 5, 2))
    x = torch.randn(7, 4, dtype=DOUBLE)
    y = mine(x)
    file = io.BytesIO()
    torch.save(mine, file)
    file.seek(0)
    for made in (copy.deepcopy(mine), pickle.loads(pickle.dumps(mine)), torch.load(file, weights_only=False)):
        assert type(made) is nn.Sequential and repr(made) == repr(mine)
        assert is_ours(made, x) and torch.equal(made(x), y)
        with torch.no_grad():
            made[0].weight.zero_()
        assert not torch.equal(made(x), y) and torch.equal(mine(x), y)
        made(x).sum().backward()
        assert made[0].weight.grad is not None and mine[0].weight.grad is None


def test_undoing() -> None:
    module = nn.ModuleDict({"a": mlp(4, 5, 2), "b": nn.Sequential(mlp(4, 5, 2), nn.Tanh())})
    before = copy.deepcopy(module)
    x = torch.randn(7, 4, dtype=DOUBLE)
    bridge.accelerate(bridge.accelerate(module))
    assert is_ours(module["a"], x) and bridge.chains(module)["b.0.2"] == "in the engine"
    assert bridge.restore(module) is module
    assert not is_ours(module["a"], x) and not is_ours(module["b"], x) and not bridge.chains(module)
    assert vars(module["a"]).keys() == vars(before["a"]).keys()
    assert module.state_dict().keys() == before.state_dict().keys()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_what_stays_pytorchs() -> None:
    mine, theirs = pair(mlp(4, 5, 2, dtype=SINGLE))
    x = torch.randn(7, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mine(x).dtype == theirs(x).dtype == torch.bfloat16
    close(torch.func.vmap(mine)(x), theirs(x))
    parameters = dict(theirs.named_parameters())

    def loss(given: Any, module: Any) -> Any:
        return torch.func.functional_call(module, given, (x,)).sum()

    for a, b in zip(
        torch.func.grad(loss)(parameters, mine).values(),
        torch.func.grad(loss)(parameters, theirs).values(),
        strict=True,
    ):
        close(a, b, 1e3)
    jacobian = torch.func.jacrev(mine)(x[0])
    close(jacobian, torch.func.jacrev(theirs)(x[0]))
    _, tangent = torch.func.jvp(mine, (x,), (torch.ones_like(x),))
    close(tangent, torch.func.jvp(theirs, (x,), (torch.ones_like(x),))[1])
    compiled = torch.compile(mine, backend="eager")
    close(compiled(x), theirs(x))
    traced = torch.jit.trace(mine, (x,)) if sys.version_info < (3, 14) else mine
    close(traced(x), theirs(x))
    exported = torch.export.export(mine, (x,)).module()
    close(exported(x), theirs(x))
    half = copy.deepcopy(mine).to(torch.bfloat16)
    assert half(x.to(torch.bfloat16)).dtype == torch.bfloat16
    meta = copy.deepcopy(mine).to("meta")
    assert meta(x.to("meta")).device.type == "meta"
    with pytest.raises(RuntimeError):
        mine(x.double())
    with pytest.raises(RuntimeError):
        mine(x[:, :3])
    assert mine(x[:0]).shape == (0, 2)
    close(mine(x.to_sparse()), theirs(x))


def test_inputs_of_any_layout_and_number_of_axes() -> None:
    mine, theirs = pair(mlp(4, 5, 2))
    for x in (
        torch.randn(4, 7, dtype=DOUBLE).t(),
        torch.randn(14, 8, dtype=DOUBLE)[::2, ::2],
        torch.randn(1, 4, dtype=DOUBLE).expand(5, 4),
        torch.randn(2, 3, 4, dtype=DOUBLE),
        torch.randn(4, dtype=DOUBLE),
        torch.randn(1, 4, dtype=DOUBLE),
    ):
        compare(mine, theirs, x, 1e3)
    x = nn.Parameter(torch.randn(7, 4, dtype=DOUBLE))
    mine(x).sum().backward()
    close(x.grad, torch.autograd.grad(theirs(x).sum(), x)[0])
    images, their_images = pair(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1)).double()
    )
    for size in ((6, 6), (8, 7), (9, 9)):
        x = torch.randn(3, 2, *size, dtype=DOUBLE)
        compare(images, their_images, x, 1e3)
        compare(images, their_images, x.to(memory_format=torch.channels_last), 1e3)
    assert is_ours(images, x)


def test_the_layout_of_gradients_at_the_output_does_not_matter() -> None:
    mine, theirs = pair(mlp(4, 5, 3))
    x = torch.randn(6, 4, dtype=DOUBLE)
    for module in (mine, theirs):
        y = module(x)
        (y.t() @ torch.ones(6, 2, dtype=DOUBLE)).sum().backward(retain_graph=True)
        y.sum().backward()
        module(x)[:, 1].mean().backward()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        close(a.grad, b.grad, 1e3)


def test_outputs_are_the_callers() -> None:
    mine, theirs = pair(mlp(4, 5, 3))
    x = torch.randn(6, 4, dtype=DOUBLE)
    for module in (mine, theirs):
        y = module(x)
        y.add_(1.0)
        y.relu_()
        y.pow(2).sum().backward()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        close(a.grad, b.grad, 1e3)
    with torch.no_grad():
        first = mine(x)
        kept = first.clone()
        mine(2 * x)
    assert torch.equal(first, kept)


def test_chains_are_cut_where_the_engine_has_no_unit() -> None:
    class Twice(nn.Module):
        def forward(self, x: Any) -> Any:
            return 2 * x

    module = nn.Sequential(
        mlp(4, 5, 6), Twice(), mlp(6, 5, 6), nn.Dropout(0.5), mlp(6, 4, 2), nn.Linear(2, 2, dtype=DOUBLE)
    )
    mine, theirs = pair(module)
    told = bridge.chains(mine)
    assert told["0.0"] == told["2.2"] == told["5"] == "in the engine"
    assert "no unit" in told["1"] and "random" in told["3"]
    assert [type(part).__name__ for part in mine.forward.parts] == ["Chain", "Twice", "Chain", "Dropout", "Chain"]
    x = torch.randn(6, 4, dtype=DOUBLE)
    torch.manual_seed(7)
    y = mine(x)
    torch.manual_seed(7)
    close(y, theirs(x))
    compare(mine.eval(), theirs.eval(), x, 1e3)


def test_modules_without_a_chain_warn() -> None:
    with pytest.warns(
        fastbp.FastbpWarning, match="no part of the module was accelerated: there is no torch.nn.Sequential"
    ):
        bridge.accelerate(nn.Linear(2, 2))
    with pytest.warns(fastbp.FastbpWarning, match="0 has no unit"):
        bridge.accelerate(nn.Sequential(nn.LSTM(2, 2)))
    for function in (bridge.accelerate, bridge.restore, bridge.chains):
        with pytest.raises(TypeError, match=r"torch\.nn\.Module, got int"):
            function(3)


def test_inner_containers_with_hooks_are_called() -> None:
    mine, theirs = pair(nn.Sequential(mlp(4, 5, 4), mlp(4, 5, 2)))
    x = torch.randn(6, 4, dtype=DOUBLE)
    compare(mine, theirs, x)
    seen: list[int] = []
    handle = mine[0].register_forward_hook(lambda *_: seen.append(1))
    close(mine(x), theirs(x))
    parts = mine.forward.parts
    close(mine(x), theirs(x))
    assert len(seen) == 2 and mine.forward.parts is parts  # planned once
    handle.remove()
    compare(mine, theirs, x)
    assert len(mine.forward.parts) == 1


def test_modules_in_many_threads() -> None:
    mine, theirs = pair(mlp(8, 32, 32, 3))
    x = [torch.randn(40, 8, dtype=DOUBLE) for _ in range(8)]
    wanted = [gradients(theirs, one, torch.ones(40, 3, dtype=DOUBLE)) for one in x]
    wrong: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for _ in range(30):
                y, dx, grads = gradients(mine, x[i], torch.ones(40, 3, dtype=DOUBLE))
                for a, b in zip((y, dx, *grads), (*wanted[i][:2], *wanted[i][2]), strict=True):
                    close(a, b, 1e4)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_more_threads_than_pytorch_has() -> None:
    mine = bridge.accelerate(mlp(4, 5, 2))
    x = torch.randn(6, 4, dtype=DOUBLE)
    before, ours = torch.get_num_threads(), fastbp.get_num_threads()
    seen: list[int] = []
    chain = mine.forward._parts()[0]
    mine(x)
    (runner,) = next(iter(chain.kernels.values())).kernel.free
    engine = runner.engine

    class Watching:
        def forward(self, *given: Any) -> Any:
            seen.append(fastbp.get_num_threads())
            return engine.forward(*given)

    runner.engine = Watching()
    try:
        fastbp.set_num_threads(3)
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            with torch.no_grad():
                mine(x)
            assert fastbp.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
        fastbp.set_num_threads(ours)
    assert seen == [1, 2, 3]


def test_activation_checkpoints() -> None:
    from torch.utils.checkpoint import checkpoint

    mine, theirs = pair(nn.Sequential(mlp(4, 5, 6), mlp(6, 5, 2)))
    x = torch.randn(6, 4, dtype=DOUBLE, requires_grad=True)
    for module in (mine, theirs):
        checkpoint(module, x, use_reentrant=False).sum().backward()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        close(a.grad, b.grad, 1e3)


def test_memory_is_shared() -> None:
    mine = bridge.accelerate(mlp(4, 5, 2))
    before = [p.data_ptr() for p in mine.parameters()]
    x = torch.randn(6, 4, dtype=DOUBLE)
    y = mine(x)
    with torch.no_grad():
        mine[2].bias += 1.0
    close(mine(x), y + 1.0)
    assert [p.data_ptr() for p in mine.parameters()] == before
    assert isinstance(mine.forward.parts[0], Chain)


def test_importing_fastbp_imports_no_torch() -> None:
    code = "import sys, fastbp; assert 'torch' not in sys.modules; import fastbp.torch; assert fastbp.torch.train"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(fastbp.__file__).parents[1])


# ---- whole steps in the engine ---------------------------------------------------------------------------------------

STEPS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.SGD, {"lr": 0.05}),
    (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (torch.optim.Adam, {}),
    (torch.optim.Adam, {"amsgrad": True, "weight_decay": 0.1, "betas": (0.8, 0.9)}),
    (torch.optim.AdamW, {"weight_decay": 0.1}),
    (torch.optim.RMSprop, {"momentum": 0.5, "centered": True}),
    (torch.optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.2}),
]
LOSSES: list[Any] = [
    nn.CrossEntropyLoss(),
    nn.CrossEntropyLoss(label_smoothing=0.1),
    nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5], dtype=DOUBLE), reduction="sum"),
    nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5], dtype=DOUBLE), ignore_index=1),
    nn.functional.cross_entropy,
    nn.MSELoss(),
    nn.MSELoss(reduction="sum"),
    nn.functional.mse_loss,
    nn.L1Loss(),
    nn.HuberLoss(delta=0.3),
    nn.SmoothL1Loss(beta=0.3),
    nn.BCEWithLogitsLoss(),
    nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 0.5], dtype=DOUBLE)),
    nn.PoissonNLLLoss(),
]


def targets(loss: Any, rows: int) -> Any:
    name = getattr(loss, "__name__", type(loss).__name__).lower().replace("_", "")
    if "crossentropy" in name:
        return torch.randint(0, 3, (rows,))
    return torch.rand(rows, 3, dtype=DOUBLE)


def epoch(module: Any, loader: Any, loss: Any, optimizer: Any) -> float:
    total = rows = 0.0
    for x, t in loader:
        optimizer.zero_grad()
        value = loss(module(x), t)
        value.backward()
        optimizer.step()
        total, rows = total + value.item() * len(x), rows + len(x)
    return total / rows


def both_ways(loss: Any, make: Any, module: Any = None, terms: float = 1e5) -> tuple[Any, Any]:
    """Train by turns with PyTorch and in the engine, and with PyTorch alone."""
    theirs = mlp(4, 6, 3) if module is None else module
    mine = copy.deepcopy(theirs)
    data = torch.utils.data.TensorDataset(torch.randn(23, 4, dtype=DOUBLE), targets(loss, 23))
    loader = torch.utils.data.DataLoader(data, batch_size=5, shuffle=True)
    optimizers = [make(m.parameters()) for m in (mine, theirs)]
    for seed, ours in enumerate((True, False, True, True)):
        torch.manual_seed(seed)
        if ours:
            (got,) = bridge.train(mine, loader, loss, optimizers[0])
        else:
            got = epoch(mine, loader, loss, optimizers[0])
        torch.manual_seed(seed)
        want = epoch(theirs, loader, loss, optimizers[1])
        assert got == pytest.approx(want, rel=1e-9)
    for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
        close(a, b, terms) if a.is_floating_point() else torch.testing.assert_close(a, b)
    state, wanted = (optimizer.state_dict()["state"] for optimizer in optimizers)
    assert state.keys() == wanted.keys()
    for key in wanted:
        assert {k for k, v in state[key].items() if v is not None} == {
            k for k, v in wanted[key].items() if v is not None
        }
        for name, values in wanted[key].items():
            if values is not None:
                close(state[key][name], values, terms)
    return mine, theirs


@pytest.mark.parametrize(("cls", "options"), STEPS, ids=lambda value: getattr(value, "__name__", None))
def test_whole_steps_with_each_optimizer(cls: Any, options: Any) -> None:
    both_ways(nn.CrossEntropyLoss(), lambda p: cls(p, **options))


@pytest.mark.parametrize("number", range(len(LOSSES)))
def test_whole_steps_with_each_loss(number: int) -> None:
    both_ways(LOSSES[number], lambda p: torch.optim.SGD(p, lr=0.01))


def test_whole_steps_with_groups_schedules_and_frozen_parameters() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6, bias=False), nn.Tanh(), nn.Linear(6, 3)).double()
    module[0].bias.requires_grad_(False)

    made: list[Any] = []

    def groups(parameters: Any) -> Any:
        p = list(parameters)
        made.append(
            torch.optim.Adam([{"params": [p[0]], "lr": 0.1}, {"params": p[3:], "lr": 0.02, "weight_decay": 0.1}])
        )
        return made[-1]

    mine, theirs = both_ways(nn.CrossEntropyLoss(), groups, module)
    assert torch.equal(mine[2].weight, theirs[2].weight)  # in no group
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = torch.optim.lr_scheduler.ExponentialLR(made[0], 0.5)
        bridge.train(
            mine, [(torch.randn(5, 4, dtype=DOUBLE), torch.zeros(5, dtype=torch.int64))], nn.CrossEntropyLoss(), made[0]
        )
        schedule.step()


def test_whole_steps_of_images_with_norms() -> None:
    theirs = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    ).double()
    mine = copy.deepcopy(theirs)
    batches = [(torch.randn(6, 1, 8, 8, dtype=DOUBLE), torch.randint(0, 3, (6,))) for _ in range(4)]
    loss = nn.CrossEntropyLoss()
    bridge.train(mine, batches, loss, torch.optim.SGD(mine.parameters(), lr=0.1, momentum=0.9), epochs=2)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        epoch(theirs, batches, loss, optimizer)
    for (name, a), b in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
        close(a, b, 1e5) if a.is_floating_point() else torch.testing.assert_close(a, b, msg=name)


def test_batches_are_those_of_the_loader() -> None:
    data = torch.utils.data.TensorDataset(torch.arange(17.0)[:, None], torch.arange(17))
    for options in ({"shuffle": True}, {"shuffle": True, "drop_last": True}, {"generator": torch.Generator()}, {}):
        loader = torch.utils.data.DataLoader(data, batch_size=4, **options)
        from fastbp.torch._training import _batches, _is_plain

        assert _is_plain(loader)
        torch.manual_seed(3)
        wanted = [x.numpy() for x, _ in loader] + [torch.rand(1).numpy()]
        torch.manual_seed(3)
        got = [x for x, _ in _batches(loader)] + [torch.rand(1).numpy()]
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_fastbps_own_optimizers_and_losses_keep_their_state() -> None:
    module = mlp(4, 6, 3)
    net = bridge.from_module(module, loss="softmax_nll")
    x, t = torch.randn(20, 4, dtype=DOUBLE), torch.randint(0, 3, (20,))
    ours, theirs = fastbp.Lion(lr=0.01), fastbp.Lion(lr=0.01)
    for _ in range(3):
        bridge.train(module, [(x, t)], "softmax_nll", ours)
        net.train_step(x.numpy(), t.numpy(), theirs)
    for name, values in bridge.state_dict(net).items():
        assert torch.equal(module.state_dict()[name], values)


def test_dropout_is_reproducible() -> None:
    module = nn.Sequential(nn.Linear(4, 20), nn.Dropout(0.5), nn.Linear(20, 3)).double()
    batches = [(torch.randn(8, 4, dtype=DOUBLE), torch.randint(0, 3, (8,)))] * 3
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        one = copy.deepcopy(module)
        bridge.train(one, batches, nn.CrossEntropyLoss(), torch.optim.SGD(one.parameters(), lr=0.1))
        made.append(one[0].weight)
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_trainings_that_cannot_be_raise_and_change_nothing() -> None:
    module = mlp(4, 6, 3)
    before = copy.deepcopy(module.state_dict())
    good = [(torch.randn(5, 4, dtype=DOUBLE), torch.zeros(5, dtype=torch.int64))]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    entropy = nn.CrossEntropyLoss()
    stranger = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    for batches, loss, given, error, message in (
        (good, nn.CTCLoss(), optimizer, ValueError, "CTCLoss.*has torch's CrossEntropyLoss"),
        (good, 3, optimizer, TypeError, "no loss"),
        (good, nn.MSELoss(reduction="none"), optimizer, ValueError, "'none'"),
        (good, entropy, torch.optim.Rprop(module.parameters()), ValueError, "Rprop, expected one of SGD"),
        (good, entropy, torch.optim.SGD(module.parameters(), lr=0.1, maximize=True), ValueError, "maximize"),
        (good, entropy, stranger, ValueError, "none of the module's"),
        (good, entropy, "sgd", TypeError, "optimizer must be torch's or fastbp's"),
        ([], entropy, optimizer, ValueError, "no batch"),
        ([good[0][0]], entropy, optimizer, TypeError, r"pairs \(x, t\)"),
        ([(good[0][0].float(), good[0][1])], entropy, optimizer, TypeError, "float32"),
        ([(good[0][0], good[0][1] + 7)], entropy, optimizer, ValueError, "label"),
        ([(torch.full((5, 4), float("nan"), dtype=DOUBLE), good[0][1])], entropy, optimizer, FloatingPointError, "nan"),
    ):
        with pytest.raises(error, match=message):
            bridge.train(module, batches, loss, given)
        assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), before.values(), strict=True))
    assert not optimizer.state


# ---- optimizers in place ---------------------------------------------------------------------------------------------

ACCELERATED: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.Adam, {}),
    (torch.optim.Adam, {"amsgrad": True, "weight_decay": 0.1, "betas": (0.5, 0.9)}),
    (torch.optim.Adam, {"fused": True}),
    (torch.optim.AdamW, {"foreach": True}),
    (torch.optim.SGD, {"lr": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    (torch.optim.RMSprop, {"momentum": 0.9, "centered": True}),
    (torch.optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
]


def stepped(
    change: Callable[[int, Any, Any], None], cls: Any = torch.optim.Adam, options: dict[str, Any] | None = None
) -> tuple[Any, ...]:
    """Make steps with an accelerated optimizer and with PyTorch's, with changes between; return both of each."""
    torch.manual_seed(3)
    modules = pair(mlp(6, 9, 8, 3))
    optimizers = [cls(module.parameters(), **(options or {})) for module in modules]
    assert bridge.accelerate(optimizers[0]) is optimizers[0]
    batches = [(torch.randn(7, 6, dtype=DOUBLE), torch.randint(0, 3, (7,))) for _ in range(10)]
    for module, optimizer in zip(modules, optimizers, strict=True):
        for i, (x, t) in enumerate(batches):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x), t).backward()
            change(i, module, optimizer)
            optimizer.step()
    for a, b in zip(modules[0].parameters(), modules[1].parameters(), strict=True):
        close(a, b, 1e4)
    for a, b in zip(*(optimizer.state.values() for optimizer in optimizers), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            if isinstance(a[name], torch.Tensor):
                close(a[name].double(), b[name].double(), 1e4)
    return *modules, *optimizers


@pytest.mark.parametrize(("cls", "options"), ACCELERATED)
def test_accelerated_optimizers_make_torchs_steps(cls: Any, options: dict[str, Any]) -> None:
    def move_rate(i: int, _: Any, optimizer: Any) -> None:
        optimizer.param_groups[0]["lr"] *= 0.9

    *_, mine, _ = stepped(move_rate, cls, options)
    assert mine.step.plan is not None


def reload(i: int, module: Any, optimizer: Any) -> None:
    if i == 4:
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def drop_gradient(i: int, module: Any, optimizer: Any) -> None:
    if i in (0, 5):
        module[2].weight.grad = None  # its count of steps stays behind


def freeze_all(i: int, module: Any, optimizer: Any) -> None:
    if i == 5:
        optimizer.zero_grad()


def set_option(i: int, module: Any, optimizer: Any) -> None:
    optimizer.param_groups[0]["weight_decay"] = 0.1 * (i > 4)
    optimizer.param_groups[0]["maximize"] = i == 7


def move_parameter(i: int, module: Any, optimizer: Any) -> None:
    if i == 5:
        module[0].weight.data = module[0].weight.data.clone()


def replace_state(i: int, module: Any, optimizer: Any) -> None:
    if i == 5:
        entry = optimizer.state[module[0].weight]
        entry["exp_avg"] = torch.zeros_like(entry["exp_avg"])
    if i == 7:
        entry = optimizer.state[module[0].weight]
        entry["exp_avg_sq"].data = entry["exp_avg_sq"].data * 2
    if i == 8:
        for entry in optimizer.state.values():
            entry["step"].fill_(2)


def transpose_gradient(i: int, module: Any, optimizer: Any) -> None:
    module[0].weight.grad = module[0].weight.grad.t().contiguous().t()


def add_group(i: int, module: Any, optimizer: Any) -> None:
    if i == 3:
        last = optimizer.param_groups[0]["params"].pop()
        optimizer.add_param_group({"params": [last], "lr": 0.05, "betas": (0.8, 0.9)})


@pytest.mark.parametrize(
    "change",
    [reload, drop_gradient, freeze_all, set_option, move_parameter, replace_state, transpose_gradient, add_group],
)
def test_accelerated_optimizers_follow_changes(change: Any) -> None:
    stepped(change)


@pytest.mark.parametrize("first", [True, False])
def test_schedulers_and_hooks_of_accelerated_optimizers(first: bool) -> None:
    model = mlp(4, 5, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
    if first:
        bridge.accelerate(optimizer)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    if not first:
        bridge.accelerate(optimizer)
    seen = []
    for i in range(5):
        if i == 3:
            optimizer.register_step_post_hook(lambda *_: seen.append(True))
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters())
        model(torch.ones(3, 4, dtype=DOUBLE)).sum().backward()
        optimizer.step()
        schedule.step()
    assert len(seen) == 2 and optimizer.param_groups[0]["lr"] == 0.5**5
    assert float(optimizer.step(lambda: torch.tensor(3.0))) == 3.0
    optimizer.zero_grad(set_to_none=False)
    assert all(not p.grad.any() for p in model.parameters())


def test_accelerated_optimizers_are_seen_by_autograd_and_given_back() -> None:
    model = mlp(4, 5, 2)
    optimizer = bridge.accelerate(torch.optim.Adam(model.parameters()))
    x = torch.ones(3, 4, dtype=DOUBLE)
    for _ in range(3):
        model(x).sum().backward()
        optimizer.step()
    y = model(x).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()
    other = pickle.loads(pickle.dumps(optimizer))
    assert "step" not in vars(other) and len(other.state) == 4
    assert bridge.restore(optimizer) is optimizer
    assert not {"step", "zero_grad"} & vars(optimizer).keys()
    optimizer.step()
    assert all(float(entry["step"]) == 5 for entry in optimizer.state.values())
    with pytest.raises(ValueError, match="Rprop, expected one of SGD"):
        bridge.accelerate(torch.optim.Rprop(model.parameters()))


# ---- documentation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_accelerating", "_converting", "_training"])
def test_examples_in_docstrings_run(name: str) -> None:
    found = importlib.import_module(f"fastbp.torch.{name}")
    result = doctest.testmod(found, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted and not result.failed


def test_examples_in_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "docs" / "torch.md"
    flags = doctest.NORMALIZE_WHITESPACE
    result = doctest.testfile(str(page), module_relative=False, optionflags=flags, encoding="utf-8")
    assert result.attempted and not result.failed


def test_the_example_runs() -> None:
    root = Path(__file__).parents[1]
    script = [sys.executable, "-W", "error", str(root / "examples" / "torch_module.py")]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(script, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "accuracy" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("way", ["accelerate", "both", "train", "empty"])
def test_the_benchmarks_ways_agree(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    modules = importlib.import_module("bench.torch_modules")
    case = {"sizes": (5, 8, 6, 3), "batch": 4, "rows": 18}
    for ready in (False, True):
        modules.load(way, "epoch", 1, **case, ready=ready)()  # it raises where the parameters are not PyTorch's
    if way != "train":
        modules.load(way, "gradient", 1, **case, ready=True)()
    monkeypatch.setattr(modules, "AGREES", -1.0)
    if way != "empty":
        with pytest.raises(ArithmeticError, match="parameters are off"):
            modules.load(way, "epoch", 1, **case, ready=True)


# ---- Stable-Baselines3 -----------------------------------------------------------------------------------------------


def test_the_first_update_of_ppo_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    baselines = pytest.importorskip("stable_baselines3")
    pytest.importorskip("gymnasium")
    warnings.simplefilter("ignore")
    before = torch.get_num_threads()
    made = []
    for accelerated in (False, True):
        model = baselines.PPO("MlpPolicy", "CartPole-v1", n_steps=256, batch_size=64, n_epochs=4, seed=0, device="cpu")
        if accelerated:
            bridge.accelerate(model.policy)
            assert set(bridge.chains(model.policy).values()) == {"in the engine"}
        model.learn(256)
        made.append([p.detach().clone() for p in model.policy.parameters()])
    torch.set_num_threads(before)
    for a, b in zip(*made, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
