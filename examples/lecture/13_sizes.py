"""Sizes to think of: AlexNet, VGG-16 and GPT-2, their parameters, memory and the time of one step on this machine.

A convolution has  outputs (inputs size^2 + 1)  parameters, a linear unit  outputs (inputs + 1). A transformer block of
width d has 12 d^2 + 13 d: four matrices d x d of attention, d x 4d and 4d x d behind it, biases and two norms.
A gradient costs about three times the multiply-adds of a forward pass. AlexNet's step is measured (with --all VGG-16's,
too, which takes 1.6 GB). The others are rough estimates: their multiply-adds at AlexNet's rate, for one image or token,
and without what attention multiplies between tokens.
"""

import itertools
import sys
import time

import numpy as np
from gallery import BLUE, GREEN, ORANGE, panels, picture_path, save

import fastbp

ALEXNET = [(3, 96, 11), (96, 256, 5), (256, 384, 3), (384, 384, 3), (384, 256, 3)]  # inputs, outputs, size of a window
VGG16 = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512), *[(512, 512)] * 5]
HEADS = {"AlexNet": (9216, 4096, 4096, 1000), "VGG-16": (25088, 4096, 4096, 1000)}


def count(convolutions, widths):
    """Return the parameters of convolutions and of the linear units behind them, by the formulas."""
    linear = sum(after * (before + 1) for before, after in itertools.pairwise(widths))
    return linear + sum(outputs * (inputs * size**2 + 1) for inputs, outputs, size in convolutions)


def gpt2(d=1600, blocks=48, tokens=50_257, places=1024):
    """Return the parameters of GPT-2: tables of tokens and places, blocks, and the last norm."""
    return (tokens + places) * d + blocks * (12 * d**2 + 13 * d) + 2 * d


def step(net):
    """Return the seconds of the fastest of three steps with one image."""
    side = net.input_shape[-1]
    x = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        loss = net.train_step(x, np.array([3]), fastbp.SGD(lr=1e-4))
        seconds.append(time.perf_counter() - begun)
    assert np.isfinite(loss)
    return min(seconds)


def main():
    measured = {"AlexNet": fastbp.models.alexnet}
    if "--all" in sys.argv:
        sys.argv.remove("--all")
        measured["VGG-16"] = fastbp.models.vgg16
    path = picture_path(__file__, __doc__)
    sizes = {
        "AlexNet": count(ALEXNET, HEADS["AlexNet"]),
        "VGG-16": count([(*pair, 3) for pair in VGG16], HEADS["VGG-16"]),
        "GPT-2": gpt2(),
    }
    assert sizes == {"AlexNet": 62_378_344, "VGG-16": 138_357_544, "GPT-2": 1_557_611_200}

    seconds, work = {}, {"VGG-16": 46_324_088_832, "GPT-2": 3 * (gpt2() - 1024 * 1600)}  # GPT-2: for each token
    for name, make in measured.items():
        net = make(dropout=0.0, seed=0)
        assert net.n_parameters == sizes[name]
        work[name] = net.summary().gradient_multiply_adds
        seconds[name] = step(net)
        del net
    assert "VGG-16" not in measured or work["VGG-16"] == 46_324_088_832
    rate = work["AlexNet"] / seconds["AlexNet"]

    print("             parameters   float32   + gradient and Adam   multiply-adds   one step")
    for name, n in sizes.items():
        how = "measured" if name in seconds else "estimated"
        seconds.setdefault(name, work[name] / rate)
        row = f"{n:13,}  {4e-9 * n:5.2f} GB  {16e-9 * n:16.1f} GB  {work[name] / 1e9:11.1f} G"
        print(f"{name:10}{row}  {seconds[name]:8.2f} s ({how})")
    print(f"one image, or one token; AlexNet's rate is {rate / 1e9:.1f} billion multiply-adds a second")

    figure, axes = panels(3, 12)
    values = ([n / 1e6 for n in sizes.values()], [16e-9 * n for n in sizes.values()], [seconds[name] for name in sizes])
    titles = "parameters in millions", "GB: weights, gradient, Adam's moments", "seconds a step of one image or token"
    for ax, bars, title, colour in zip(axes, values, titles, (BLUE, GREEN, ORANGE), strict=True):
        drawn = ax.bar(list(sizes), bars, color=colour)
        ax.bar_label(drawn, [f"{value:,.0f}" if value > 100 else f"{value:.3g}" for value in bars])
        ax.set(yscale="log", title=title, ylim=(min(bars) / 2, max(bars) * 3))
    save(figure, path)


main()
