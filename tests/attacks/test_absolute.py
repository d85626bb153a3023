"""Matching by absolute differences, beside matching by the cosine, at nets with kinks."""

import dataclasses
import statistics

import torch

from attacks import Budget, Observation, reconstruct
from attacks.metrics import psnr
from tests.attacks.conftest import gradient
from tests.attacks.pictures import attack, photo
from tests.attacks.test_fedavg import UNIT, blobs, know, small

BUDGET = Budget(iterations=200, restarts=2)


def test_at_a_net_with_kinks_it_rebuilds_more_of_a_photograph_than_the_cosine_does():
    victims = [photo("convnet", seed) for seed in range(3)]
    ours, theirs = (
        attack(name, victims, Budget(iterations=300, restarts=1))[1]
        for name in ("absolute_matching", "inverting_gradients")
    )
    assert statistics.median(ours) > statistics.median(theirs) + 1


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
