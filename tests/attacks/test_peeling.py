"""Whole batches read off a dense layer by taking away what was read."""

import dataclasses

import pytest
import torch
from torch import nn

from attacks import Budget, Knowledge, NotApplicable, Observation, reconstruct
from tests.attacks.conftest import delta, gradient, mlp, noised, pick


def read(model, x, y, digits_update=None, **known):
    update = gradient(model, x, y) if digits_update is None else digits_update
    know = Knowledge((64,), 10, batch_size=len(x), **known)
    return reconstruct("peeling", Observation(model, update, "gradient"), know)


def right(claim, truth):
    """How many of the true examples were claimed, and how many claims are none of them."""
    error = (truth[:, None] - claim.inputs).abs().amax(2)
    return int((error.amin(1) < 1e-3).sum()), int((error.amin(0) >= 1e-3).sum())


@pytest.mark.parametrize("seed", range(5))
def test_sixteen_digits_where_lone_rows_give_half(digits, seed):
    x, y, _ = pick(digits, seed, 16)
    model = mlp(seed)
    claim = read(model, x, y, value_range=(0.0, 1.0))
    assert right(claim, x) == (16, 0)
    order = (x[:, None] - claim.inputs).abs().amax(2).argmin(1)
    assert claim.labels[order].equal(y)
    alone = reconstruct("analytic", Observation(model, gradient(model, x, y), "gradient"), Knowledge((64,), 10, 16))
    assert right(alone, x)[0] < 16


def test_more_examples_than_the_rank_of_their_pixels(digits):
    x, y, _ = pick(digits, 7, 64)
    assert torch.linalg.matrix_rank(x) < 64
    assert right(read(mlp(7, hidden=1024), x, y, value_range=(0.0, 1.0)), x)[0] >= 60


def test_a_trained_model_that_leaves_no_neuron_to_one_digit(digits):
    """At a model that knows its digits most neurons are active on all of a batch."""
    x, y, generator = pick(digits, 1, 8)
    model = mlp(1)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        batch = torch.randint(len(digits[0]), (64,), generator=generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(digits[0][batch]), digits[1][batch]).backward()
        optimiser.step()
    assert not ((model[1](x) > 0).sum(0) == 1).any()
    assert right(read(model, x, y, value_range=(0.0, 1.0)), x) == (8, 0)


def test_a_deep_model_and_no_range(digits):
    x, y, _ = pick(digits, 2, 8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        layers = (nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10))
        model = nn.Sequential(*layers)
    assert right(read(model, x, y), x) == (8, 0)


def test_one_step_of_a_known_rate(digits):
    x, y, _ = pick(digits, 3, 4)
    model = mlp(3)
    seen = Observation(model, delta(model, x, y, 0.1, 1), "delta")
    know = Knowledge((64,), 10, batch_size=4, value_range=(0.0, 1.0), learning_rate=0.1, local_steps=1)
    assert right(reconstruct("peeling", seen, know), x)[1] == 0
    with pytest.raises(NotApplicable, match="learning_rate"):
        reconstruct("peeling", seen, dataclasses.replace(know, learning_rate=None))
    with pytest.raises(NotApplicable, match="one local step"):
        reconstruct("peeling", seen, dataclasses.replace(know, local_steps=3))


def test_a_sum_of_clients(digits):
    x, y, _ = pick(digits, 4, 12)
    model = mlp(4)
    parts = [gradient(model, x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)]
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    seen = Observation(model, total, "gradient", contributors=3)
    assert right(reconstruct("peeling", seen, Knowledge((64,), 10, 12, value_range=(0.0, 1.0))), x) == (12, 0)


def test_nothing_is_claimed_from_noise(digits):
    x, y, generator = pick(digits, 5, 8)
    model = mlp(5)
    claim = read(model, x, y, noised(gradient(model, x, y), 1e-4, generator), value_range=(0.0, 1.0))
    assert len(claim.inputs) == 0


def test_an_update_of_zeros_and_no_time(digits):
    x, y, _ = pick(digits, 6, 3)
    model = mlp(6)
    nothing = {name: torch.zeros_like(slope) for name, slope in gradient(model, x, y).items()}
    assert len(read(model, x, y, nothing).inputs) == 0
    seen, know = Observation(model, gradient(model, x, y), "gradient"), Knowledge((64,), 10, batch_size=3)
    assert len(reconstruct("peeling", seen, know, budget=Budget(seconds=1e-9)).inputs) == 0
