"""A search's claim refined under falling smoothing: how near it comes, and that it does not follow noise."""

import dataclasses

import pytest
import torch
from torch import nn

from attacks import Budget, Knowledge, NotApplicable, Observation, reconstruct, reconstruct_many
from attacks.inverting import LONE
from attacks.metrics import psnr
from attacks.optimise import match
from attacks.refining import LEVELS, match_and_refine, refine
from attacks.registry import Case
from attacks.view import generator
from tests.attacks.conftest import gradient
from tests.attacks.pictures import photo
from tests.attacks.test_first_order import Coarse

UNIT = (0.0, 1.0)
BUDGET = Budget(iterations=300, restarts=1)


def case_of(victim, noise=0.0):
    """The victim as a case, its gradient under Gaussian noise of ``noise`` times the gradient's norm."""
    update, draw = victim.obs.update, torch.Generator().manual_seed(victim.seed)
    size = torch.cat([slope.flatten() for slope in update.values()]).square().mean().sqrt()
    noisy = {name: slope + noise * size * torch.randn(slope.shape, generator=draw) for name, slope in update.items()}
    return Case((dataclasses.replace(victim.obs, update=noisy),), victim.know, generator(victim.seed))


def decibels(claim, victim):
    return float(psnr(claim.inputs, victim.image, UNIT))


def searched_and_refined(victims, noise=0.0):
    cases = [case_of(victim, noise) for victim in victims]
    before = match(cases, LONE, BUDGET)
    return before, refine(cases, before, LONE, dataclasses.replace(BUDGET, iterations=1000))


def test_at_a_smooth_net_it_goes_far_beyond_what_smoothing_lets_a_search_find():
    victims = [photo("lenet", seed) for seed in range(3)]
    for victim, before, after in zip(victims, *searched_and_refined(victims), strict=True):
        assert decibels(after, victim) > max(35, decibels(before, victim) + 15)
        assert after.objective.item() < before.objective.item() / 100
        assert after.iterations > before.iterations


@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_under_noise_it_does_not_lose_what_the_search_found(noise):
    victims = [photo("lenet", seed) for seed in range(3)]
    for victim, before, after in zip(victims, *searched_and_refined(victims, noise), strict=True):
        assert decibels(after, victim) > decibels(before, victim) - 1


def test_a_level_that_gains_nothing_leaves_the_claim_and_counts_its_steps():
    victim = photo("lenet", 0)
    (before,), (after,) = searched_and_refined([victim], noise=1.0)
    torch.testing.assert_close(after.inputs, before.inputs)
    assert after.objective.item() == before.objective.item()
    assert after.iterations > before.iterations


def test_what_the_search_cannot_take_is_passed_on():
    lacking = NotApplicable("an update that is not zero", "L4")
    victim = photo("lenet", 0)
    assert refine([case_of(victim)], [lacking], LONE, BUDGET) == [lacking]


def test_a_short_budget_keeps_search_and_levels_short():
    claim = match_and_refine([case_of(photo("lenet", 0))], LONE, Budget(iterations=10, restarts=2))[0]
    assert claim.iterations <= 2 * 10 + len(LEVELS) * (10 + 2)


def test_a_model_that_takes_single_precision_alone_is_matched_in_it():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), Coarse(), nn.Flatten(), nn.Linear(512, 4))
    x, y = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(0)), torch.tensor([1])
    know = Knowledge((1, 8, 8), 4, batch_size=1, value_range=UNIT)
    claim = reconstruct(
        "inverting_gradients", Observation(model, gradient(model, x, y), "gradient"), know, budget=BUDGET
    )
    assert float(psnr(claim.inputs, x, UNIT)) > 25
    assert any("takes no torch.float64" in note for note in claim.notes)


class Refusing(nn.Module):
    """A tanh that takes single precision alone, and says so in no way that the engine expects."""

    def forward(self, x):
        if x.dtype != torch.float32:
            raise TypeError("float32 alone")
        return x.tanh()


def small_case(activation, count=1, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), activation, nn.Flatten(), nn.Linear(512, 4))
    x = torch.rand((count, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    y = torch.arange(count) % 4
    know = Knowledge((1, 8, 8), 4, batch_size=count, labels=y, value_range=UNIT)
    return Observation(model, gradient(model, x, y), "gradient"), know, seed


def test_a_model_that_refuses_to_be_refined_keeps_what_the_search_found_and_spoils_no_other():
    cases = [small_case(Refusing()), small_case(nn.Tanh())]
    short = Budget(iterations=40, restarts=1)
    refused, other = reconstruct_many("inverting_gradients", cases, budget=short)
    assert refused.converged
    assert any("not refined" in note and "float32 alone" in note for note in refused.notes)
    alone = reconstruct("inverting_gradients", *cases[1][:2], budget=short)
    assert not any("not refined" in note for note in other.notes)
    torch.testing.assert_close(other.inputs, alone.inputs, atol=1e-3, rtol=0)


def test_how_far_a_case_is_refined_does_not_hang_on_larger_ones_beside_it():
    short = Budget(iterations=40, restarts=1)
    one, larger = small_case(nn.Tanh()), small_case(nn.Sigmoid(), count=3)
    alone = reconstruct("absolute_matching", *one[:2], budget=short)
    beside = reconstruct_many("absolute_matching", [one, larger], budget=short)[0]
    assert beside.iterations == alone.iterations
    torch.testing.assert_close(beside.inputs, alone.inputs)
