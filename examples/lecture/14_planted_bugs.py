"""The gradient checker finds planted bugs, and says where and why.

Each entry w of every array is moved by h: (J(w + h) - J(w - h)) / 2h needs the forward pass alone, so a bug of the
backward pass cannot hide in it. Where one factor explains the whole difference, the report names its usual cause.
"""

import numpy as np
from gallery import GREEN, VERMILION, panels, picture_path, save

import fastbp

N = 8


class Linear(fastbp.Unit):
    """y = x w + b by hand, and a bug of choice in its backward pass."""

    def __init__(self, n_in, n_out, bug=""):
        self.n_in, self.n_out, self.bug = n_in, n_out, bug

    def outputs_for(self, n_in):
        return self.n_out

    def parameter_shapes(self):
        return {"weight": (self.n_in, self.n_out), "bias": (self.n_out,)}

    def initialize(self, rng, parameters):
        parameters["weight"][...] = rng.normal(np.empty((self.n_in, self.n_out)))

    def forward(self, x):
        self.x = x
        return x @ self.parameters["weight"] + self.parameters["bias"]

    def backward(self, dy):
        w, dw, db = self.parameters["weight"], self.gradients["weight"], self.gradients["bias"]
        dw[...] = self.x.T @ dy
        db[...] = dy.sum(axis=0)  # dy of the mean loss has the 1 / N in it already
        if self.bug == "sum instead of mean":
            db *= N
        if self.bug == "mean once too often":
            dw /= N
        if self.bug == "wrong sign":
            dw *= -1
        if self.bug == "transposed":
            dw[...] = dw.T.copy()
        if self.bug == "forgotten":
            db[...] = 0
        return dy @ (w if self.bug == "dx = dY W" else w.T)


BUGS = {  # where, and what the report says
    "": ([], ""),
    "sum instead of mean": (["2.bias"], "8 times too large: summed over the batch (8 rows) instead of averaged?"),
    "mean once too often": (["2.weight"], "8 times too small: divided by the batch (8 rows) once too often?"),
    "wrong sign": (["2.weight"], "of the wrong sign"),
    "transposed": (["2.weight"], "transposed"),
    "forgotten": (["2.bias"], "all zero: is it ever written?"),
    "dx = dY W": (["0.weight", "0.bias", "input"], "look at backward of unit 2"),
}


def main():
    path = picture_path(__file__, __doc__)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((N, 4)), rng.integers(0, 3, N)
    errors = {}
    for bug, (places, words) in BUGS.items():
        units = fastbp.Linear(4, 3), fastbp.Sigmoid(), Linear(3, 3, bug)
        net = fastbp.Network(*units, loss="softmax_nll", dtype="float64", seed=0)
        report = fastbp.check_gradients(net, x, t)
        print(f"---- {bug or 'no bug'}\n{report}\n")
        assert [row.name for row in report.rows if not row.ok] == places
        assert words in str(report)
        errors[bug or "no bug"] = [max(row.norm_error, 1e-12) for row in report.rows]
        names, allowed = [row.name for row in report.rows], max(row.tolerance for row in report.rows)

    figure, (ax,) = panels(1, 9, 4.5)
    table = np.log10(list(errors.values()))
    ax.imshow(table > np.log10(allowed), cmap="Greys", vmin=0, vmax=6, aspect="auto")
    for (i, j), value in np.ndenumerate(table):
        wrong = value > np.log10(allowed)
        text = f"{10**value:.0e} {'wrong' if wrong else 'right'}"
        ax.text(j, i, text, ha="center", va="center", color=VERMILION if wrong else GREEN)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(errors)), errors)
    ax.set(xlabel="array", title="relative difference from central differences")
    save(figure, path)


main()
