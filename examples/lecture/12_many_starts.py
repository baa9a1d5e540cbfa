"""Stochastic gradient descent from several starts: one minimum for a convex loss, several for a network.

Each step follows the gradient of one sample, w <- w - eta dJ_n/dw, with an eta that shrinks; the mean of these is the
gradient of J. Exclusive or of two inputs is learned by two hidden units, but not from every start: some ends are minima
as well (no gradient, no negative eigenvalue of the Hessian) with a larger J.
"""

import numpy as np
from gallery import BLUE, GREEN, GREY, ORANGE, VERMILION, panels, picture_path, save

import fastbp

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
T = np.array([[0.0], [1.0], [1.0], [0.0]])
STEPS, STARTS = 40_000, 10


def descend(net, start):
    """Train by single samples from a start of its own; return the mean loss of each 1,000 steps."""
    net.flat_parameters[...] = 2 * np.random.default_rng(start).standard_normal(net.n_parameters)
    optimizer = fastbp.SGD(lr=fastbp.schedules.Cosine(0.3, STEPS))
    rows = np.tile(X, (250, 1)), np.tile(T, (250, 1))
    epochs = {"epochs": STEPS // 1000, "batch_size": 1, "seed": start}
    return fastbp.train(net, *rows, optimizer=optimizer, progress=False, **epochs).loss


def main():
    path = picture_path(__file__, __doc__)
    convex, courses = [], []
    for start in range(STARTS):
        linear = fastbp.MLP([2, 1], loss="sigmoid_nll", l2=1e-3, dtype="float64")
        descend(linear, start)
        convex.append(linear.loss_value(X, T))
        net = fastbp.MLP([2, 2, 1], hidden="tanh", loss="sigmoid_nll", l2=1e-3, dtype="float64")
        courses.append((net, descend(net, start)))

    print(f"logistic regression from {STARTS} starts: J from {min(convex):.6f} to {max(convex):.6f}")
    assert max(convex) - min(convex) < 1e-3
    minima = {}
    for net, _ in courses:
        loss, grads = net.value_and_grad(X, T)
        slope, lowest = np.linalg.norm(grads.flat), np.linalg.eigvalsh(net.hessian(X, T)).min()
        print(f"two hidden units: J = {loss:.4f}, |gradient| {slope:.0e}, smallest eigenvalue {lowest:8.1e}")
        if slope < 5e-3 and lowest > 5e-4:
            minima.setdefault(round(loss, 1), net)
    print(f"minima: {', '.join(f'J = {net.loss_value(X, T):.4f}' for _, net in sorted(minima.items()))}")
    assert len(minima) >= 2 and max(minima) > 3 * min(minima)

    figure, axes = panels(3, 12)
    for net, course in courses:
        end = round(net.loss_value(X, T), 1)
        kinds = {min(minima): (BLUE, "-", "the lower minimum"), max(minima): (VERMILION, "--", "the higher minimum")}
        colour, style, label = kinds.get(end, (GREY, ":", "on a plateau"))
        axes[0].plot(1000 * np.arange(1, len(course) + 1), course, color=colour, linestyle=style, label=label)
    labels = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    axes[0].legend(labels.values(), labels.keys(), loc="upper right")
    axes[0].set(xlabel="step", ylabel="mean J of 1,000 steps", title=f"{STARTS} starts", ylim=(0, 1))
    ticks = np.linspace(-0.5, 1.5, 101)
    plane = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    for ax, end in zip(axes[1:], (min(minima), max(minima)), strict=True):
        p = minima[end].predict_proba(plane).reshape(101, 101)
        shown = ax.contourf(ticks, ticks, p, np.linspace(0, 1, 11), cmap="cividis")
        ax.scatter(*X[T[:, 0] == 0].T, color=ORANGE, edgecolors="white", marker="o", s=80, label="t = 0")
        ax.scatter(*X[T[:, 0] == 1].T, color=GREEN, edgecolors="white", marker="^", s=80, label="t = 1")
        ax.set(xlabel="x1", ylabel="x2", title=f"P(1 | x) where J = {minima[end].loss_value(X, T):.2f}")
    axes[1].legend(loc="upper left")
    figure.colorbar(shown, ax=axes[2])
    save(figure, path)


main()
