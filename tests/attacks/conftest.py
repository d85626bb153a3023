"""Ground for the attack tests: real digits, small models from a seed, and the updates that a client would send."""

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from attacks.losses import LOSSES

torch.set_num_threads(1)  # the models are tiny, and the workers share the processor


@pytest.fixture(scope="session")
def digits():
    """Images (1797, 64) in [0, 1] and labels."""
    bunch = load_digits()
    return torch.tensor(bunch.data / 16, dtype=torch.float32), torch.tensor(bunch.target)


def mlp(seed, hidden=128, features=64, classes=10):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def gradient(model, inputs, labels):
    loss = LOSSES["cross_entropy"](model(inputs), labels)
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))


def delta(model, inputs, labels, learning_rate, steps):
    local = copy.deepcopy(model)
    optimiser = torch.optim.SGD(local.parameters(), learning_rate)
    for _ in range(steps):
        optimiser.zero_grad()
        LOSSES["cross_entropy"](local(inputs), labels).backward()
        optimiser.step()
    return {n: (after - dict(model.named_parameters())[n]).detach() for n, after in local.named_parameters()}


def noised(update, z, generator):
    """The update rescaled to norm 1, with N(0, z^2) on every coordinate."""
    norm = torch.sqrt(sum(t.square().sum() for t in update.values()))
    return {n: t / norm + z * torch.randn(t.shape, generator=generator) for n, t in update.items()}


def pick(digits, seed, count=1):
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(digits[0]), generator=generator)[:count]
    return digits[0][chosen], digits[1][chosen], generator
