import dataclasses
import functools

import pytest
import torch
from torch import nn

from attacks import Budget, Knowledge, NotApplicable, Observation, reconstruct
from attacks.batch import Batch
from attacks.fedavg import RECIPE, _orders
from attacks.inverting import RECIPE as NAIVE
from attacks.losses import LOSSES
from attacks.matching import local_steps, prepare
from attacks.metrics import match, psnr
from attacks.registry import Case
from attacks.view import generator

UNIT = (0.0, 1.0)


def small(seed=0, size=8, classes=4):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * size * size, classes)
        )


def blobs(count, seed=0, size=8):
    draw = torch.Generator().manual_seed(seed)
    line = torch.linspace(-1, 1, size)
    at = 1.2 * torch.rand((count, 2, 1), generator=draw) - 0.6
    across, down = (torch.exp(-2 * (line - at[:, axis]) ** 2) for axis in (0, 1))
    return (down[:, :, None] * across[:, None, :])[:, None]


def train(model, x, y, rate, steps):
    """The delta of plain SGD over the given (from, up to) batches."""
    local = {name: p.detach().clone() for name, p in model.named_parameters()}
    for begin, end in steps:
        at = {name: weight.requires_grad_() for name, weight in local.items()}
        value = LOSSES["cross_entropy"](torch.func.functional_call(model, at, (x[begin:end],)), y[begin:end])
        slopes = torch.autograd.grad(value, list(at.values()))
        local = {n: (w - rate * g).detach() for (n, w), g in zip(at.items(), slopes, strict=True)}
    return {name: local[name] - p.detach() for name, p in model.named_parameters()}


def know(y, rate=0.1, **facts):
    return Knowledge((1, 8, 8), 4, batch_size=len(y), labels=y, value_range=UNIT, learning_rate=rate, **facts)


@pytest.mark.parametrize(
    ("facts", "steps"),
    [
        ({}, ((0, 6),)),
        ({"local_batch_size": 2}, ((0, 2), (2, 4), (4, 6))),
        ({"local_batch_size": 4}, ((0, 4), (4, 6))),
        ({"local_batch_size": 4, "local_epochs": 2}, ((0, 4), (4, 6), (0, 4), (4, 6))),
        ({"local_batch_size": 3, "local_steps": 3}, ((0, 3), (3, 6), (0, 3))),
        ({"local_steps": 2}, ((0, 6), (0, 6))),
        ({"local_batch_size": 9}, ((0, 6),)),
    ],
)
def test_the_schedule_follows_what_is_known_of_the_client(facts, steps):
    assert local_steps(Knowledge((1, 8, 8), 4, batch_size=6, **facts)) == steps


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("per_step", [1, 2])
def test_at_the_truth_the_simulated_update_is_the_client_s_own_and_the_naive_one_is_not(epochs, per_step):
    model, x, y = small(), blobs(4), torch.tensor([0, 3, 1, 2])
    facts = know(y, local_batch_size=per_step, local_epochs=epochs)
    update = train(model, x, y, 0.1, local_steps(facts))
    case = Case((Observation(model, update, "delta"),), facts, generator(0))
    at_truth = {}
    for name, recipe in (("simulated", RECIPE), ("naive", NAIVE)):
        matching = dataclasses.replace(recipe.matching, tv=0.0, dtype=torch.float64)
        victim = prepare(case, {n: -t for n, t in update.items()}, y, matching)
        at_truth[name] = float(Batch([victim], matching).bind([0])(x.double().flatten()[None])[0])
    assert at_truth["simulated"] < 1e-6
    assert at_truth["naive"] > 1e-3


def test_simulating_the_steps_beats_reading_them_as_one_gradient_and_finds_the_order_of_the_labels():
    model, x, y = small(3), blobs(3, seed=3), torch.tensor([2, 0, 1])
    facts = know(y.sort().values, rate=0.2, local_batch_size=1)
    update = train(model, x, y, 0.2, local_steps(facts))
    budget = Budget(iterations=300, restarts=2)
    means, claims = {}, {}
    for name in ("fedavg_inversion", "inverting_gradients"):
        claims[name] = reconstruct(name, Observation(model, update, "delta"), facts, seed=1, budget=budget)
        found = claims[name].inputs
        means[name] = float(psnr(found[match(found, x)], x, UNIT).mean())
    assert claims["fedavg_inversion"].labels.tolist() == y.tolist()
    assert means["fedavg_inversion"] > means["inverting_gradients"] + 3


def test_orders_differ_between_steps_and_not_within_one():
    draw = functools.partial(_orders, generator=generator(0))
    assert {tuple(o.tolist()) for o in draw(torch.tensor([0, 1]), 1)} == {(0, 1), (1, 0)}
    assert [o.tolist() for o in draw(torch.tensor([2, 1, 2]), 3)] == [[1, 2, 2]]
    assert len(list(draw(torch.tensor([0, 0, 1, 1]), 2))) == 3
    assert len(list(draw(torch.arange(6), 1))) == 24


def test_what_is_missing_is_named_with_its_rung():
    model, x, y = small(), blobs(2), torch.tensor([0, 1])
    update = train(model, x, y, 0.1, ((0, 1), (1, 2)))
    obs = Observation(model, update, "delta")
    facts = know(y, local_batch_size=1)
    for lacking in ("learning_rate", "batch_size"):
        with pytest.raises(NotApplicable, match=rf"needs {lacking} \(rung L5\)"):
            reconstruct("fedavg_inversion", obs, dataclasses.replace(facts, **{lacking: None}))
    with pytest.raises(NotApplicable, match="the view holds a gradient"):
        reconstruct("fedavg_inversion", Observation(model, update, "gradient"), facts)
