"""How sure is a prediction? Predicted variances, quantiles, and an ensemble, in one picture.

    python examples/uncertainty.py uncertainty.png

The data are noisy at the right and quiet at the left, and there are none in the middle. Variances and quantiles learn
the noise of the data; what an ensemble disagrees about is where it has seen nothing.
"""

import sys

import numpy as np
from matplotlib.figure import Figure

import fastbp

rng = np.random.default_rng(0)
x = rng.choice([-1, 1], 1500) * rng.uniform(0.25, 1, 1500)
t = np.sin(3 * x) + np.where(x > 0, 0.35, 0.1) * rng.standard_normal(1500)
x, t = x[:, None].astype(np.float32), t[:, None].astype(np.float32)
ticks = np.linspace(-1.6, 1.6, 200, dtype=np.float32)[:, None]
options = {"epochs": 150, "batch_size": 100}

# (a) Two outputs for each value: its mean, and the logarithm of its variance.
noisy = fastbp.MLP([1, 32, 2], hidden="tanh", loss=fastbp.GaussianNLL(predict_variance=True), seed=0)
# (b) Three outputs, a quantile each.
quantiles = fastbp.MLP([1, 32, 3], hidden="tanh", loss=fastbp.Quantile([0.05, 0.5, 0.95]), seed=0)
# (c) Eight networks that differ in their seeds. All of them are trained side by side.
nets = [fastbp.MLP([1, 64, 64, 1], loss="mse", seed=i) for i in range(8)]
fastbp.fit_many([(net, x, t, fastbp.Adam(lr=0.01)) for net in (noisy, quantiles, *nets)], **options)

mean, log_variance = noisy.outputs(ticks).T
deviation = np.exp(0.5 * log_variance)
members = np.array([net.predict(ticks) for net in nets])
bands = {
    "predicted variance: ± 1.645 deviations": (mean - 1.645 * deviation, mean, mean + 1.645 * deviation),
    "quantiles 0.05, 0.5, 0.95": quantiles.predict(ticks).T,
    "ensemble of 8: ± 1.645 deviations": members.mean(0) + 1.645 * np.outer([-1, 0, 1], members.std(0)),
}
inside = (np.abs(t[:, 0] - noisy.predict(x)) < 1.645 * np.exp(0.5 * noisy.outputs(x)[:, 1])).mean()
print(f"{100 * inside:.0f} % of the rows lie within the first band, which is made for 90 %")
assert 0.85 < inside < 0.95

figure = Figure(figsize=(11, 3.6), layout="constrained", dpi=110)
for ax, (title, band) in zip(figure.subplots(1, 3, sharey=True), bands.items(), strict=True):
    ax.scatter(x, t, s=3, c="#666666", alpha=0.4, label="data")
    ax.fill_between(ticks[:, 0], band[0], band[2], color="#56B4E9", alpha=0.5, label="band")
    ax.plot(ticks, band[1], color="#D55E00", label="middle")
    ax.set(title=title, xlabel="x", ylim=(-2.9, 2.2))
    ax.legend(loc="lower right")
figure.axes[0].set_ylabel("t")
figure.savefig(sys.argv[1] if sys.argv[1:] else "uncertainty.png")
