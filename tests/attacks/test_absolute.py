"""Matching by absolute differences, beside matching by the cosine, at nets with kinks."""

import dataclasses

import torch

from attacks import Budget, Observation, reconstruct
from attacks.metrics import match, psnr
from tests.attacks.conftest import gradient
from tests.attacks.test_fedavg import UNIT, blobs, know, small

BUDGET = Budget(iterations=200, restarts=2)


def rebuilt(name):
    """Mean PSNR of batches of two over three untrained ReLU nets."""
    found = []
    for seed in range(3):
        model, x, y = small(seed), blobs(2, seed), torch.tensor([seed % 4, 3])
        facts = dataclasses.replace(know(y), learning_rate=None)
        claim = reconstruct(
            name, Observation(model, gradient(model, x, y), "gradient"), facts, seed=seed, budget=BUDGET
        )
        found.append(float(psnr(claim.inputs[match(claim.inputs, x)], x, UNIT).mean()))
    return sum(found) / len(found)


def test_it_rebuilds_more_than_the_cosine_does():
    assert rebuilt("absolute_matching") > rebuilt("inverting_gradients") + 1


def test_the_learning_rate_need_not_be_known():
    model, x, y = small(), blobs(1), torch.tensor([2])
    facts = dataclasses.replace(know(y), learning_rate=None)
    update = gradient(model, x, y)
    step = {name: -0.37 * slope for name, slope in update.items()}
    one, other = (
        reconstruct("absolute_matching", Observation(model, update, kind), facts, budget=BUDGET)
        for update, kind in ((update, "gradient"), (step, "delta"))
    )
    assert float(psnr(one.inputs, x, UNIT)) > 30
    assert float(psnr(other.inputs, x, UNIT)) > 30
