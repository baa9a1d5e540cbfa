"""A program in the style of Nielsen's second network: cross entropy, weight decay, and costs watched epoch by epoch."""
# ruff: noqa: NPY002

import random

import gallery
import nielsen2
import numpy as np
from train_nielsen import load_data

COSTS = ("CrossEntropyCost", "QuadraticCost")


def main(accelerate=False, quick=False, network="CrossEntropyCost"):
    """Train the network 64-30-10 of Nielsen's network2 on digits; --network names its cost."""
    random.seed(0)
    np.random.seed(0)
    training_data, evaluation_data = load_data()
    net = nielsen2.Network([64, 30, 10], cost=getattr(nielsen2, network))
    if accelerate:
        import fastbp

        fastbp.accelerate(net)
    epochs, eta = 3 if quick else 20, 0.5 if network == "CrossEntropyCost" else 3.0
    _, _, losses, _ = net.SGD(
        training_data,
        epochs,
        10,
        eta,
        lmbda=0.5,
        evaluation_data=evaluation_data,
        monitor_evaluation_accuracy=True,
        monitor_training_cost=True,
    )
    return [float(loss) for loss in losses]


if __name__ == "__main__":
    gallery.run(main, COSTS)
