"""Record pickles and files of today's package, for tests/test_old_files.py: they must load in every later one.

    python tools/record_pickles.py tests/data/saved-0.1.0

Run it once for a release, and never again for the same: what counts is that the files are old.
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fastbp
from fastbp.optim import schedules
from fastbp.reference import LOSSES
from fastbp.sklearn import MLPClassifier, MLPRegressor
from fastbp.training import metrics

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 6))
T = RNG.standard_normal((12, 3))


def networks() -> Iterator[tuple[str, fastbp.Network]]:
    yield "mlp", fastbp.MLP([6, 5, 3], hidden="gelu", loss="softmax_nll", dtype="float64", seed=1)
    branches = [fastbp.Linear(8, 2), fastbp.Sequential(fastbp.RMSNorm(8), fastbp.Linear(8, 1))]
    units = (
        fastbp.Linear(6, 8),
        fastbp.BatchNorm(8),
        fastbp.PReLU(8),
        fastbp.Dropout(0.25),
        fastbp.Residual(fastbp.Sequential(fastbp.Linear(8, 8), fastbp.LayerNorm(8), fastbp.SiLU())),
        fastbp.Branches(branches, merge="concat"),
    )
    net = fastbp.Network(*units, loss=fastbp.Huber(delta=2.0), dtype="float64", seed=3, l2=0.01)
    net.train_step(X, T, fastbp.SGD(lr=0.1))
    yield "units", net
    yield "lookup", fastbp.Network(fastbp.Embedding(9, 4), fastbp.Flatten(), fastbp.Linear(8, 3), loss="mse", seed=2)


def optimizers() -> Iterator[tuple[str, fastbp.Optimizer]]:
    for name in ("SGD", "Adam", "AdamW", "Nadam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "Lion"):
        optimizer = getattr(fastbp, name)(lr=0.5)
        yield name, optimizer
    yield "scheduled", fastbp.SGD(lr=schedules.WarmUp(schedules.Cosine(0.1, steps=50), steps=5), momentum=0.9)
    yield "LBFGSB", fastbp.LBFGSB(max_iter=5)


def others() -> Iterator[tuple[str, Any]]:
    for rule in LOSSES.values():
        yield f"loss {rule.name}", fastbp.Network(fastbp.Linear(2, 2), loss=rule.name, seed=0).loss
    yield "loss sum", fastbp.LossSum([(1.0, fastbp.MSE()), (2.0, fastbp.MAE())])
    yield "schedule one cycle", schedules.OneCycle(0.1, steps=20)
    yield "schedule plateau", schedules.ReduceOnPlateau(0.1)
    yield "ema", fastbp.EMA(0.9)
    yield "early stopping", fastbp.EarlyStopping(patience=3)
    yield "metric", fastbp.Metric("accuracy", metrics.accuracy)
    yield (
        "history",
        fastbp.train(
            fastbp.MLP([6, 3], loss="mse", dtype="float64", seed=0),
            X,
            T,
            optimizer=fastbp.SGD(lr=0.1),
            epochs=2,
            progress=False,
        ),
    )
    net = fastbp.MLP([6, 3], loss="mse", dtype="float64", seed=0)
    yield "gradients", net.value_and_grad(X, T)[1].copy()


def estimators() -> Iterator[tuple[str, Any]]:
    settings: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 3, "random_state": 0}
    yield "classifier", MLPClassifier(**settings).fit(X, np.arange(12) % 3)
    yield "regressor", MLPRegressor(**settings, solver="sgd").fit(X, T)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True)
    expected: dict[str, Any] = {
        "x": X.tolist(),
        "t": T.tolist(),
        "outputs": {},
        "texts": {},
        "steps": {},
        "predictions": {},
    }
    for name, net in networks():
        x = np.arange(24).reshape(12, 2) % 9 if name == "lookup" else X
        net.eval()
        (folder / f"network-{name}.pkl").write_bytes(pickle.dumps(net, protocol=4))
        net.save(folder / f"network-{name}.npz")
        expected["outputs"][name] = {"x": x.tolist(), "y": net.forward(x).tolist()}
    for name, optimizer in optimizers():
        w = X[0].copy()
        if isinstance(optimizer, fastbp.LBFGSB):
            expected["texts"][f"optimizer {name}"] = repr(optimizer)
        else:
            for row in X[1:4]:
                optimizer.update(w, row)
        (folder / f"optimizer-{name}.pkl").write_bytes(pickle.dumps(optimizer, protocol=4))
        expected["steps"][name] = repr(optimizer)
    for name, made in others():
        (folder / f"{name.replace(' ', '-')}.pkl").write_bytes(pickle.dumps(made, protocol=4))
        expected["texts"][name] = repr(made)
    for name, estimator in estimators():
        (folder / f"estimator-{name}.pkl").write_bytes(pickle.dumps(estimator, protocol=4))
        expected["predictions"][name] = estimator.predict(X).tolist()
    net, optimizer = fastbp.MLP([6, 4, 3], loss="mse", dtype="float64", seed=5), fastbp.Adam(lr=0.01)
    for _ in range(3):
        net.train_step(X, T, optimizer)
    fastbp.save_checkpoint(folder / "run.checkpoint", net, optimizer)
    expected["next_loss"] = net.train_step(X, T, optimizer)
    expected["after"] = net.flat_parameters.tolist()
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main()
