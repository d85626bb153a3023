"""Updates of several rounds matched together: noise averages out, and what does not fit is said."""

import dataclasses

import pytest
import torch

from attacks import Budget, Knowledge, NotApplicable, Observation, reconstruct, reconstructions
from attacks.metrics import psnr
from tests.attacks.conftest import gradient
from tests.attacks.test_fedavg import UNIT, blobs, know, small

BUDGET = Budget(iterations=200, restarts=1)


def noisy(model, x, y, noise, seed, scale=1.0):
    update = gradient(model, x, y)
    size = (sum(t.square().sum() for t in update.values()) / sum(t.numel() for t in update.values())).sqrt()
    draw = torch.Generator().manual_seed(seed)
    return {n: scale * (t + noise * size * torch.randn(t.shape, generator=draw)) for n, t in update.items()}


def facts(y):
    return dataclasses.replace(know(y), learning_rate=None)


def test_it_wins_its_own_case():
    sanity = reconstructions()["matching_over_rounds"].sanity()
    assert sanity.won(reconstruct("matching_over_rounds", sanity.observation, sanity.knowledge, budget=sanity.budget))


def test_noise_averages_out_over_rounds_of_different_models_clips_and_kinds():
    x, y = blobs(1, seed=4), torch.tensor([2])
    rounds = []
    for seed in range(8):
        model, kind = small(seed), ("gradient", "delta")[seed % 2]
        scale = (0.5 + seed) * (-1 if kind == "delta" else 1)
        rounds.append(Observation(model, noisy(model, x, y, 1.0, seed, scale), kind, round=seed + 1))
    one, all_of_them = (
        float(psnr(reconstruct("matching_over_rounds", seen, facts(y), budget=BUDGET).inputs, x, UNIT))
        for seen in (rounds[-1:], rounds)
    )
    assert all_of_them > one + 5


def test_what_it_took_for_granted_is_in_the_notes():
    x, y, model = blobs(1), torch.tensor([2]), small()
    seen = [Observation(model, noisy(model, x, y, 0.1, seed), "gradient", round=seed) for seed in (1, 2)]
    claim = reconstruct("matching_over_rounds", seen, facts(y), budget=Budget(iterations=2, restarts=1))
    assert "2 rounds were taken to hold the same 1 examples" in claim.notes


def test_what_does_not_fit_is_named():
    x, y, model = blobs(1), torch.tensor([2]), small()
    still = Observation(model, {n: torch.zeros_like(p) for n, p in model.named_parameters()}, "gradient")
    with pytest.raises(NotApplicable, match="an update that is not zero"):
        reconstruct("matching_over_rounds", still, facts(y))
    with pytest.raises(NotApplicable, match="a loss of classes"):
        reconstruct(
            "matching_over_rounds",
            Observation(model, gradient(model, x, y), "gradient"),
            Knowledge((1, 8, 8), 4, batch_size=1, loss="next_token"),
        )
