"""A module of PyTorch on handwritten digits: as it is; with its chain in the engine; and by whole steps of the engine.

The three begin alike, see the same batches, and end with nearly the same numbers.
"""

import copy
import time

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastbp.torch

EPOCHS = 15


def train_in_a_loop(model, loader, loss, optimizer):
    """Train by PyTorch's autograd and optimizer."""
    for _ in range(EPOCHS):
        for x, t in loader:
            optimizer.zero_grad()
            loss(model(x), t).backward()
            optimizer.step()


def main():
    torch.set_num_threads(1)  # so small a network has no work for two
    torch.manual_seed(0)
    x, t = load_digits(return_X_y=True)
    x, t = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(t)
    loader = DataLoader(TensorDataset(x[:1400], t[:1400]), batch_size=32, shuffle=True)
    plain = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))
    accelerated, trained = fastbp.torch.accelerate(copy.deepcopy(plain)), copy.deepcopy(plain)
    loss, accuracies = nn.CrossEntropyLoss(), []
    for name, model in (("PyTorch", plain), ("accelerated", accelerated), ("whole steps", trained)):
        torch.manual_seed(1)
        optimizer, began = torch.optim.Adam(model.parameters()), time.perf_counter()
        if model is trained:
            fastbp.torch.train(model, loader, loss, optimizer, epochs=EPOCHS)
        else:
            train_in_a_loop(model, loader, loss, optimizer)
        seconds = time.perf_counter() - began
        with torch.no_grad():
            accuracies.append((model(x[1400:]).argmax(dim=1) == t[1400:]).float().mean().item())
        print(f"{name:12} {seconds:6.2f} s, accuracy {100 * accuracies[-1]:.1f} %")
    assert min(accuracies) > 0.85 and max(accuracies) - min(accuracies) < 0.05


main()
