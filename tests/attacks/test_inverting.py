import statistics

import pytest
import torch
from torch import nn

from attacks import Budget, Knowledge, Observation, reconstruct
from attacks.metrics import psnr
from attacks.signed_adam import SignedAdam
from tests.attacks.conftest import delta, gradient
from tests.attacks.pictures import attack, photo
from tests.attacks.test_idlg import KNOW, inputs, small

UNIT = (0.0, 1.0)


def baseline(victim):
    """The better of two guesses without an update: the mean public image, and the public image nearest to the truth."""
    mean = psnr(victim.public.mean(0, keepdim=True), victim.image, UNIT)
    nearest = psnr(victim.public, victim.image.expand_as(victim.public), UNIT).max()
    return max(float(mean), float(nearest))


def test_a_short_search_already_shows_the_photographs():
    victims = [photo("convnet", seed) for seed in range(3)]
    _, decibels, right = attack("inverting_gradients", victims, Budget(iterations=300, restarts=1))
    assert statistics.median(decibels) >= 24
    assert all(right)


@pytest.mark.slow
def test_the_median_photograph_is_recovered_far_beyond_guessing():
    victims = [photo("convnet", seed) for seed in range(10)]
    _, decibels, right = attack("inverting_gradients", victims)
    assert statistics.median(decibels) >= 28
    assert statistics.median(decibels) >= 10 + statistics.median(map(baseline, victims))
    assert all(right)


def test_the_direction_of_a_delta_is_enough():
    model, x, y = small(), inputs(), torch.tensor([2])
    budget = Budget(iterations=150, restarts=1)
    by_gradient = reconstruct(
        "inverting_gradients", Observation(model, gradient(model, x, y), "gradient"), KNOW, budget=budget
    )
    by_delta = reconstruct(
        "inverting_gradients", Observation(model, delta(model, x, y, 0.05, 1), "delta"), KNOW, budget=budget
    )
    assert by_delta.labels.tolist() == [2]
    torch.testing.assert_close(by_delta.inputs, by_gradient.inputs, atol=0.05, rtol=0)


def test_records_without_neighbouring_pixels_have_no_variation_to_keep_small():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3))
    x, y = torch.tensor([[0.0, 1.0, 0.2, 0.9, 0.4, 0.6]]), torch.tensor([1])
    know = Knowledge(input_shape=(6,), num_classes=3, batch_size=1, value_range=UNIT)
    claim = reconstruct("inverting_gradients", Observation(model, gradient(model, x, y), "gradient"), know)
    torch.testing.assert_close(claim.inputs, x, atol=0.02, rtol=0)


def test_signed_adam_stays_in_its_box_and_lowers_its_rate_three_times():
    adam = SignedAdam(torch.full((1, 2), 0.5), iterations=80, boxed=1)
    moves = []
    for _ in range(80):
        before = adam.points
        adam.tell(torch.ones(1), torch.tensor([[-1.0, -1.0]]))
        moves.append(float((adam.points - before)[0, 1]))
    assert adam.points[0, 0] == 1.0
    wanted = [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4]
    assert [moves[step] for step in (0, 29, 30, 49, 50, 69, 70)] == pytest.approx(wanted, rel=1e-2)


def test_a_row_that_meets_a_number_that_is_not_finite_is_broken_and_the_other_goes_on():
    adam = SignedAdam(torch.zeros(2, 3), iterations=10, boxed=3)
    adam.tell(torch.tensor([float("nan"), 1.0]), -torch.ones(2, 3))
    assert adam.broken.tolist() == [True, False]
    assert adam.points[1].tolist() == pytest.approx([0.1] * 3, rel=1e-3)
