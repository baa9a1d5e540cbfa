"""Drawn networks: every value and gradient against the engine's, and pictures in which nothing overlaps."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import fastbp
from fastbp import _engine
from fastbp.network._placing import place

SVG = "{http://www.w3.org/2000/svg}"


class Twice(fastbp.Unit):
    """A unit of a user's own."""

    def forward(self, x):
        return 2 * x

    def backward(self, dy):
        return 2 * dy


def block(n):
    return fastbp.Sequential(fastbp.Linear(n, n + 2), fastbp.Tanh(), fastbp.Linear(n + 2, n))


def make(*units, **options):
    return fastbp.Network(*units, dtype="float64", seed=3, **options)


def rows(n, n_in, classes):
    rng = np.random.default_rng(7)
    return rng.standard_normal((n, n_in)), rng.integers(0, classes, n)


NETS = {
    "chain": lambda: make(fastbp.Linear(4, 5), fastbp.Sigmoid(), fastbp.Linear(5, 3), loss="softmax_nll"),
    "residual": lambda: make(fastbp.Linear(4, 3), fastbp.Residual(block(3)), fastbp.ReLU(), loss="softmax_nll"),
    "branches": lambda: make(
        fastbp.Branches([block(4), fastbp.Sigmoid(), fastbp.Residual(block(4))], merge="sum"),
        fastbp.Branches([block(4), fastbp.Sigmoid(), fastbp.Residual(block(4))], merge="mean"),
        fastbp.Branches([fastbp.Linear(4, 2), fastbp.Tanh()], merge="concat"),
        loss="softmax_nll",
    ),
    "nested": lambda: make(
        fastbp.Sequential(fastbp.Sequential(fastbp.LayerNorm(4), Twice()), block(4)), loss="softmax_nll"
    ),
    "dropout": lambda: make(fastbp.Linear(4, 6), fastbp.Dropout(0.5), fastbp.Linear(6, 3), loss="softmax_nll"),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_values_and_gradients_are_the_engines(name, reduction):
    net = NETS[name]().eval()
    x, t = rows(5, 4, 3)
    weight = np.linspace(0.5, 2, 5)
    drawing = fastbp.draw(net, x, t, sample_weight=weight, reduction=reduction)
    first, *units, loss = drawing.nodes
    value, grads = net.value_and_grad(x, t, sample_weight=weight, reduction=reduction)
    np.testing.assert_allclose(loss.value, value, rtol=1e-13)
    np.testing.assert_array_equal(first.value, x)
    np.testing.assert_allclose(units[-1].value, net.outputs(x), rtol=1e-13, atol=1e-15)
    by_name = {f"{node.name}.{key}": node.gradients[key] for node in units for key in node.gradients}
    assert set(by_name) == set(net.parameters)
    for key, gradient in by_name.items():
        np.testing.assert_allclose(gradient, grads[key], rtol=1e-11, atol=1e-15)
    share = weight.sum() if reduction == "sum" else 1
    np.testing.assert_allclose(
        first.gradient, share * net.input_gradient(x, t, sample_weight=weight), rtol=1e-11, atol=1e-15
    )


def test_the_gradient_at_a_hidden_node_is_that_of_differences():
    """Of the sum of branches: the gradient at a node that several read is the sum over its readers."""
    net = NETS["residual"]()
    x, t = rows(2, 4, 3)
    node = fastbp.draw(net, x, t).nodes[1]
    assert node.label == "Linear(4, 3)"
    rest = fastbp.Network(*(unit.fresh() for unit in net.units[1:]), loss="softmax_nll", dtype="float64")
    rest.flat_parameters[...] = net.flat_parameters[15:]
    for index in np.ndindex(2, 3):
        moved = []
        for h in (1e-6, -1e-6):
            y = node.value.copy()
            y[index] += h
            moved.append(rest.loss_value(y, t))
        np.testing.assert_allclose(node.gradient[index], (moved[0] - moved[1]) / 2e-6, atol=1e-8)


def test_images_are_drawn():
    net = fastbp.models.lenet5(seed=0)
    x = np.random.default_rng(0).random((2, 1, 28, 28), np.float32)
    drawing = fastbp.draw(net, x, np.array([3, 1]))
    _, grads = net.value_and_grad(x, np.array([3, 1]))
    np.testing.assert_allclose(drawing.nodes[0].gradient, net.input_gradient(x, np.array([3, 1])), rtol=1e-3, atol=1e-6)
    for node in drawing.nodes[1:-1]:
        assert node.value.shape == node.gradient.shape == (2, *node.shape)
        for key, gradient in node.gradients.items():
            wanted = grads[f"{node.name}.{key}"]
            np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_branches_of_images_are_drawn():
    """Norms by running statistics, and branches side by side along the channels."""
    branches = fastbp.Branches(
        [fastbp.Conv2d(2, 3, 3, padding=1), fastbp.MaxPool2d(3, stride=1, padding=1)], merge="concat"
    )
    block = fastbp.Residual(fastbp.Sequential(fastbp.BatchNorm2d(5), fastbp.ELU(), fastbp.Conv2d(5, 5, 1)))
    net = make(
        branches, block, fastbp.GlobalAvgPool2d(), fastbp.Linear(5, 3), loss="softmax_nll", input_shape=(2, 6, 5)
    )
    x, t = np.random.default_rng(1).standard_normal((4, 2, 6, 5)), np.array([0, 2, 1, 1])
    net.train_step(x, t, fastbp.SGD(lr=0.1))  # running statistics move
    net.eval()
    drawing = fastbp.draw(net, x, t)
    value, grads = net.value_and_grad(x, t)
    np.testing.assert_allclose(drawing.nodes[-1].value, value, rtol=1e-12)
    np.testing.assert_allclose(drawing.nodes[0].gradient, net.input_gradient(x, t), rtol=1e-10, atol=1e-14)
    assert [node.label for node in drawing.nodes if node.label in ("sum", "concat")] == ["concat", "sum"]
    for node in drawing.nodes[1:-1]:
        for key, gradient in node.gradients.items():
            np.testing.assert_allclose(gradient, grads[f"{node.name}.{key}"], rtol=1e-10, atol=1e-14)


def test_indices_have_no_gradient():
    net = make(fastbp.Embedding(5, 2), fastbp.Flatten(), fastbp.Linear(6, 3), loss="softmax_nll", input_shape=(3,))
    x = np.array([[0.0, 1, 2], [4, 4, 0]])
    drawing = fastbp.draw(net, x, np.array([0, 2]))
    assert drawing.nodes[0].gradient is None
    assert all(gradient.any() for gradient in drawing.nodes[1].gradients.values()) and drawing.nodes[1].gradients
    assert "dJ/dx" not in drawing.svg()


def test_frozen_parameters_have_a_gradient_of_zero():
    net = NETS["chain"]()
    net.freeze("0.weight")
    x, t = rows(5, 4, 3)
    node = fastbp.draw(net, x, t).nodes[1]
    assert not node.gradients["weight"].any() and node.gradients["bias"].any()


def test_the_network_is_not_changed():
    net = NETS["branches"]()
    x, t = rows(5, 4, 3)
    _, grads = net.value_and_grad(x, t)
    y = net.forward(x)
    before = [array.copy() for array in (net.flat_parameters, grads.flat, y)], net.steps, net.training
    fastbp.draw(net, x[:2], t[:2])
    for now, then in zip((net.flat_parameters, grads.flat, y), before[0], strict=True):
        np.testing.assert_array_equal(now, then)
    assert before[1:] == (net.steps, net.training)
    _, dy = fastbp.softmax_nll(y, t)
    net.backward(dy)  # what forward has left is there
    np.testing.assert_allclose(net.gradients.flat, before[0][1], rtol=1e-12, atol=1e-16)


# ---- what is drawn ---------------------------------------------------------------------------------------------------


def test_shapes_alone():
    drawing = fastbp.draw(fastbp.models.lenet5(seed=0))
    assert [node.shape for node in drawing.nodes[:4]] == [(1, 28, 28), (6, 28, 28), (6, 28, 28), (6, 14, 14)]
    assert all(node.value is None and node.gradient is None and not node.parameters for node in drawing.nodes)
    text = drawing.svg()
    assert "output (n, 6, 14, 14)" in text and "weight (400, 120): 48,000" in text and "dJ" not in text


def test_values_alone():
    net = NETS["chain"]()
    x, _ = rows(1, 4, 3)
    drawing = fastbp.draw(net, x)
    assert drawing.nodes[-1].value is None and all(node.gradient is None for node in drawing.nodes)
    assert drawing.nodes[1].parameters and not drawing.nodes[1].gradients
    assert "dJ" not in drawing.svg()


def texts(drawing):
    root = ElementTree.fromstring(drawing.svg())
    return [element.text for element in root.iter(f"{SVG}text")]


def test_the_numbers_of_a_small_network():
    """Worked by hand: y = 2 · 3 + 1 = 7, J = ½ (7 − 4)² = 4.5, dJ/dy = 3, dw = 9, db = 3, dx = 6."""
    net = make(fastbp.Linear(1, 1), loss="mse")
    net.flat_parameters[...] = 2, 1
    drawing = fastbp.draw(net, np.array([[3.0]]), np.array([[4.0]]))
    assert texts(drawing) == [
        *("input", "output (1, 1)", "x      3", "dJ/dx  6"),
        *("0 Linear(1, 1)", "output (1, 1)", "y      7", "dJ/dy  3"),
        *("weight (1, 1): 1", "       2", "dJ     9", "bias: 1", "       1", "dJ     3"),
        *("loss MSE()", "t      4", "J      4.5"),
    ]


def test_long_arrays_are_cut_and_have_their_norm():
    net = make(fastbp.Linear(4, 1), loss="mse")
    drawing = fastbp.draw(net, np.array([[3.0, 4, 0, 0]]), np.array([[4.0]]), numbers=2)
    assert "x      3 4 …  norm 5" in texts(drawing)


class Odd(Twice):
    def __repr__(self):
        return 'Odd(<a & "b">)'


def test_text_is_escaped():
    assert '0 Odd(<a & "b">)' in texts(fastbp.draw(make(Odd(), fastbp.Linear(2, 1), loss="mse")))


@pytest.mark.parametrize("name", NETS)
def test_boxes_do_not_overlap_and_no_line_crosses_one(name):
    x, t = rows(3, 4, 3)
    drawing = fastbp.draw(NETS[name](), x, t)
    root = ElementTree.fromstring(drawing.svg())
    paper, *found = root.iter(f"{SVG}rect")
    boxes = [tuple(float(box.get(key)) for key in ("x", "y", "width", "height")) for box in found]
    lines = [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in root.iter(f"{SVG}polyline")
    ]
    assert len(boxes) == len(drawing.nodes)
    assert len(lines) == sum(len(node.sources) for node in drawing.nodes)
    for (x1, y1, w1, h1), (x2, y2, w2, h2) in itertools.combinations(boxes, 2):
        assert x1 + w1 <= x2 or x2 + w2 <= x1 or y1 + h1 <= y2 or y2 + h2 <= y1
    for line in lines:
        for a, b in itertools.pairwise(line):
            for share in np.linspace(0, 1, 50):
                px, py = (1 - share) * a[0] + share * b[0], (1 - share) * a[1] + share * b[1]
                assert not any(x + 0.2 < px < x + w - 0.2 and y + 0.2 < py < y + h - 0.2 for x, y, w, h in boxes)
    left, top, width, height = (float(paper.get(key)) for key in ("x", "y", "width", "height"))
    for x, y, w, h in boxes:
        assert left <= x and top <= y and x + w <= left + width and y + h <= top + height


def test_places_of_a_chain_lie_below_each_other():
    places = place([(10, 4), (20, 6)], [(0, 1)])
    assert places.corners == [(5, 0), (0, 38)] and places.size == (20, 44)
    assert places.lines == [[(10, 4), (10, 4), (10, 38)]]


# ---- files -----------------------------------------------------------------------------------------------------------


def test_files(tmp_path):
    drawing = fastbp.draw(NETS["residual"]())
    drawing.save(tmp_path / "net.svg")
    assert (tmp_path / "net.svg").read_text(encoding="utf-8") == drawing._repr_svg_() + "\n"
    pytest.importorskip("matplotlib")
    drawing.save(str(tmp_path / "net.png"))
    assert (tmp_path / "net.png").read_bytes().startswith(b"\x89PNG")


def test_axes_of_ones_own_have_all_text():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    drawing = fastbp.draw(NETS["branches"](), *rows(3, 4, 3))
    ax = Figure(figsize=(4, 3)).add_subplot()
    assert drawing.plot(ax) is ax
    assert [text.get_text() for text in ax.texts] == texts(drawing)
    own = drawing.plot()
    assert own.texts[0].get_fontsize() > 3 * ax.texts[0].get_fontsize()


def test_without_matplotlib_the_error_names_the_cure(monkeypatch, tmp_path):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    drawing = fastbp.draw(NETS["chain"]())
    with pytest.raises(ImportError, match=r'pip install matplotlib, or save\("network.svg"\)'):
        drawing.save(tmp_path / "net.png")
    drawing.save(tmp_path / "network.svg")


# ---- refused ---------------------------------------------------------------------------------------------------------


def test_wrong_arguments_raise():
    net = NETS["chain"]()
    x, t = rows(5, 4, 3)
    with pytest.raises(TypeError, match=r"net must be a fastbp\.Network, got \[1\] \(list\)"):
        fastbp.draw([1])
    with pytest.raises(ValueError, match="t needs x"):
        fastbp.draw(net, t=t)
    with pytest.raises(ValueError, match="numbers must be"):
        fastbp.draw(net, x, t, numbers=0)
    with pytest.raises(ValueError, match="reduction"):
        fastbp.draw(net, x, t, reduction="none")
    with pytest.raises(TypeError, match=r"x\.astype"):
        fastbp.draw(net, x.astype(np.float32), t)
    with pytest.raises(ValueError, match="t"):
        fastbp.draw(net, x, t[:2])


def test_kernels_are_not_built_for_a_drawing_of_shapes(monkeypatch):
    net = NETS["chain"]()
    monkeypatch.setattr(_engine, "Engine", None)
    assert len(fastbp.draw(net).nodes) == 5
