"""Stable-Baselines3's PPO on CartPole, with its policy in the engine and without: steps a second, and mean returns.

``python -m bench.torch_ppo --python torch=DIR/bin/python``. That interpreter needs fastbp, torch, stable-baselines3 and
gymnasium. Each training is a process of its own, and those with and without take turns, seed by seed. "policy" is
`fastbp.torch.accelerate(model.policy)`, "policy and optimizer" also that of ``model.policy.optimizer``. The policy is
PPO's own, 64-64 twice; after its first update from the same seed the parameters must agree to 1e-5 with PyTorch's.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import warnings
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from bench import machine
from bench.compare import Process, parse_pythons, worker_environment
from bench.tables import align

WAYS = ("torch", "policy", "policy and optimizer")
SEEDS = range(5)
STEPS = 30_720  # 15 collections of 2,048
AGREES = 1e-5
LAST = 50  # episodes


def train(way: str, seed: int, steps: int, threads: int) -> dict[str, Any]:
    """Train; answer the steps a second, the mean return of the last episodes, and the parameters after one update."""
    warnings.simplefilter("ignore")
    torch, baselines = importlib.import_module("torch"), importlib.import_module("stable_baselines3")
    bridge = importlib.import_module("fastbp.torch")
    torch.set_num_threads(threads)
    model = baselines.PPO("MlpPolicy", "CartPole-v1", seed=seed, device="cpu", stats_window_size=LAST)
    if way != "torch":
        bridge.accelerate(model.policy)
    if way == "policy and optimizer":
        bridge.accelerate(model.policy.optimizer)
    begin = time.perf_counter()
    model.learn(model.n_steps)
    first = time.perf_counter() - begin
    updated = [float(v) for p in model.policy.parameters() for v in p.detach().flatten()]
    begin = time.perf_counter()
    model.learn(max(steps - model.n_steps, model.n_steps), reset_num_timesteps=False)
    seconds = time.perf_counter() - begin
    made = model.num_timesteps - model.n_steps
    mean = fmean(episode["r"] for episode in model.ep_info_buffer)
    return {"rate": made / seconds, "first": model.n_steps / first, "return": mean, "updated": updated}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.torch_ppo", description="PPO of Stable-Baselines3 on CartPole, with fastbp and without."
    )
    parser.add_argument("--threads", type=int, default=1, help="of every way (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one seed and few steps, to see that it runs")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training (default: %(default)s)")
    parser.add_argument("--python", action="append", default=[], metavar="torch=PATH", help="an interpreter")
    given = parser.parse_args(arguments)
    given.python = parse_pythons(given.python).get("torch", sys.executable)
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and print; 1 where a first update differs."""
    given = parse(arguments)
    print(f"{machine.describe_machine()['processor']}, load average {machine.load_average()}, threads: {given.threads}")
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    furthest = 0.0
    os.environ["PYTHONWARNINGS"] = "ignore"
    for seed in SEEDS[:1] if given.quick else SEEDS:
        for way in WAYS:
            case = {"way": way, "seed": seed, "steps": 4096 if given.quick else given.steps, "threads": given.threads}
            with Process(given.python, worker_environment("torch", given.threads)) as process:
                found[way].append(process.ask("once", module="torch_ppo", function="train", case=case))
            one, other = found["torch"][-1]["updated"], found[way][-1]["updated"]
            furthest = max([furthest, *(abs(a - b) for a, b in zip(one, other, strict=True))])
            answer = found[way][-1]
            print(f"seed {seed}, {way}: {answer['rate']:.0f} steps a second, return {answer['return']:.1f}", flush=True)
    rows = [["way", "steps a second: best", "median", "ratio of medians", "mean returns by seed", "their mean"]]
    usual = median(answer["rate"] for answer in found["torch"])
    for way, answers in found.items():
        rates, returns = [a["rate"] for a in answers], [a["return"] for a in answers]
        shown = " ".join(f"{value:.0f}" for value in returns)
        figures = [f"{max(rates):.0f}", f"{median(rates):.0f}", f"{median(rates) / usual:.2f}"]
        rows.append([way, *figures, shown, f"{fmean(returns):.0f}"])
    print(f"\n{align(rows)}\n\nafter the first update the parameters differ by at most {furthest:.1e} ({AGREES:.0e})")
    return 0 if furthest <= AGREES else 1


if __name__ == "__main__":
    sys.exit(main())
