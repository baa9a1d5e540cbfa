"""Record what torch's optimizers do, as ``tests/data/torch_optimizers.json``.

Run it where torch is installed, from the top of the repository:

    python tools/record_torch_optimizers.py

The problem has 8 parameters and the gradient ``matrix @ w + push[t]`` at step t, in float64. The matrix (symmetric,
positive) and the pushes (a sine pattern) are rounded to six decimals and written into the file, so that a test which
replays it has the same numbers whatever their sine. The parameters are recorded after steps 1, 2, 10 and 50.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

SIZE, STEPS, RECORDED = 8, 50, (1, 2, 10, 50)
TARGET = Path(__file__).parents[1] / "tests" / "data" / "torch_optimizers.json"

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.03, "momentum": 0.5, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.02, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.03, "momentum": 0.7, "dampening": 0.4, "weight_decay": 0.01}),
    ("SGD", {}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05}),
    ("Adam", {"lr": 0.05, "betas": [0.8, 0.95]}),
    ("Adam", {"lr": 0.05, "betas": [0.0, 0.5]}),
    ("Adam", {"lr": 0.05, "eps": 0.1}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.02, "betas": [0.7, 0.9], "eps": 1e-3, "weight_decay": 0.05}),
    ("Adam", {"lr": 0.05, "betas": [0.8, 0.9], "amsgrad": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.05, "betas": [0.8, 0.9], "weight_decay": 0.2, "amsgrad": True}),
    ("NAdam", {}),
    ("NAdam", {"lr": 0.03, "betas": [0.8, 0.95], "weight_decay": 0.1, "momentum_decay": 0.02}),
    ("NAdam", {"lr": 0.03, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {}),
    ("RAdam", {"lr": 0.05, "betas": [0.8, 0.9], "eps": 1e-3, "weight_decay": 0.1}),
    ("RAdam", {"lr": 0.05, "betas": [0.5, 0.5], "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.8, "eps": 1e-3, "weight_decay": 0.05, "momentum": 0.6}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "momentum": 0.5, "centered": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.2, "lr_decay": 0.1, "weight_decay": 0.05, "initial_accumulator_value": 0.3, "eps": 1e-3}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.7, "eps": 1e-3, "weight_decay": 0.05}),
]


def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, matrix and pushes, each a decimal number of six places."""
    i = np.arange(SIZE)
    start = np.round(2 * np.cos(1.3 * i), 6)
    matrix = np.round(np.diag(0.5 + 0.25 * i) + 0.2 * np.cos(i[:, None] + i), 6)
    pushes = np.round(0.5 * np.sin(0.7 * i + 0.9 * np.arange(1, STEPS + 1)[:, None]), 6)
    return start, matrix, pushes


def record(rule: str, options: dict[str, Any]) -> dict[str, Any]:
    """Fifty steps of one optimizer."""
    start, matrix, pushes = problem()
    w = torch.nn.Parameter(torch.tensor(start))
    optimizer = getattr(torch.optim, rule)([w], **options)
    values = {}
    for step, push in enumerate(pushes, start=1):
        w.grad = torch.tensor(matrix @ w.detach().numpy() + push)
        optimizer.step()
        if step in RECORDED:
            values[str(step)] = w.detach().tolist()
    return {"rule": rule, "options": options, "values": values}


def main() -> None:
    start, matrix, pushes = problem()
    torch.set_num_threads(1)
    recorded = {
        "made_by": f"tools/record_torch_optimizers.py with torch {torch.__version__}",
        "start": start.tolist(),
        "matrix": matrix.tolist(),
        "pushes": pushes.tolist(),
        "cases": [record(rule, options) for rule, options in CASES],
    }
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    # One line a list of numbers, so that a difference between two versions can be read.
    text = json.dumps(recorded, indent=1)
    TARGET.write_text(_numbers_on_one_line(text) + "\n")
    print(f"written: {TARGET}")


def _numbers_on_one_line(text: str) -> str:
    lines: list[str] = []
    for line in text.splitlines():
        word = line.strip()
        inner = word.rstrip("],").lstrip("-").replace(".", "").replace("e-", "").isdigit()
        if lines and (inner or (word in ("]", "],") and lines[-1][-1].isdigit())):
            lines[-1] += (" " if lines[-1].endswith(",") else "") + word
        else:
            lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
