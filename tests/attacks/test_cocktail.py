import pytest
import torch
from torch import nn

from attacks import Budget, Knowledge, NotApplicable, Observation, available, reconstruct
from attacks.cocktail import blocks
from attacks.metrics import match, psnr
from tests.attacks.conftest import gradient, mlp


def summed(model, x, y, clients):
    parts = [gradient(model, *part) for part in zip(x.chunk(clients), y.chunk(clients), strict=True)]
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def case(seed, count=8, clients=4, bias=True):
    draw = torch.Generator().manual_seed(seed)
    model = mlp(seed, hidden=64, features=256)
    if not bias:
        model[1].bias = None
    x, y = blocks(count, 16, draw), torch.randint(10, (count,), generator=draw)
    obs = Observation(model, summed(model, x, y, clients), "gradient", contributors=clients)
    return obs, Knowledge((1, 16, 16), 10, batch_size=count, value_range=(0.0, 1.0)), x


def decibels(claim, x):
    return psnr(claim.inputs[match(claim.inputs, x)], x, (0.0, 1.0))


def test_wins_its_sanity_case():
    sanity = available()["cocktail_party"].sanity()
    assert sanity.won(reconstruct("cocktail_party", sanity.observation, sanity.knowledge, budget=sanity.budget))


def test_takes_a_sum_over_four_clients_apart():
    shares = []
    for seed in range(4):
        obs, know, x = case(seed)
        shares.append(float((decibels(reconstruct("cocktail_party", obs, know), x) > 20).double().mean()))
    assert sum(shares) / len(shares) >= 0.7


def test_without_a_batch_size_it_claims_as_many_as_the_rank():
    obs, _know, x = case(1)
    claim = reconstruct("cocktail_party", obs, Knowledge((1, 16, 16), 10))
    assert len(claim.inputs) == len(x)
    assert "rank 8" in claim.notes[0]


def test_more_examples_than_the_rank_are_said_to_be_beyond_it():
    obs, know, _x = case(2, count=100, clients=1)
    claim = reconstruct("cocktail_party", obs, know, budget=Budget(restarts=1, iterations=5))
    assert len(claim.inputs) <= 64
    assert "no linear unmixing gives all" in claim.notes[1]


def test_without_a_bias_the_value_range_tells_sign_and_scale():
    obs, know, x = case(1, bias=False)
    claim = reconstruct("cocktail_party", obs, know)
    assert (claim.inputs >= 0).all()
    assert (decibels(claim, x) > 12).double().mean() >= 0.5
    with pytest.raises(NotApplicable, match="value_range"):
        reconstruct("cocktail_party", obs, Knowledge((1, 16, 16), 10, batch_size=8))


def test_needs_a_dense_layer_that_reads_the_input():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 14 * 14, 10))
    x, y = torch.zeros(2, 1, 16, 16), torch.tensor([1, 2])
    with pytest.raises(NotApplicable, match="reads the input itself"):
        reconstruct(
            "cocktail_party", Observation(model, gradient(model, x, y), "gradient"), Knowledge((1, 16, 16), 10, 2)
        )


def test_a_zero_update_is_divergence():
    obs, know, _ = case(3)
    zero = {name: torch.zeros_like(t) for name, t in obs.update.items()}
    assert not reconstruct("cocktail_party", Observation(obs.model, zero, "gradient"), know).converged


def test_is_the_same_for_the_same_seed():
    obs, know, _ = case(4, count=4)
    assert torch.equal(
        *(reconstruct("cocktail_party", obs, know, seed=5, budget=Budget(restarts=1)).inputs for _ in "12")
    )
