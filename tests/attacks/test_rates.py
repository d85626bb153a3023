"""Figures of membership: against hand counts, the textbook's intervals, and what the numbers cannot carry."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from attacks.rates import TooFew, TruePositives, advantage, auc, rates, true_positives


def normal(seed, count, shift=0.0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_area_and_advantage_by_hand():
    members, others = torch.tensor([3.0, 2.0, 1.0]), torch.tensor([2.0, 0.0])
    assert auc(members, others).value == pytest.approx((1 + 1 + 0.5 + 1 + 0 + 1) / 6)
    assert advantage(members, others) == pytest.approx(0.5)


def test_rate_by_hand_counts_strictly_above_the_threshold():
    others = torch.arange(1000.0)
    members = torch.tensor([990.0, 989.0, 991.0, 995.0, 999.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    found = true_positives(members, others, 0.01)
    assert found.rate.value == pytest.approx(0.4)
    assert found.false.value == pytest.approx(0.01)
    assert (found.rate.low, found.rate.high) == pytest.approx((0.1216, 0.7376), abs=1e-4)


def test_area_of_two_normals_lies_in_its_interval_about_as_often_as_it_says():
    truth, inside = norm.cdf(0.5 / 2**0.5), 0
    for seed in range(200):
        figure = auc(normal(2 * seed, 60, 0.5), normal(2 * seed + 1, 90))
        inside += figure.low <= truth <= figure.high
    assert 180 <= inside <= 199


@pytest.mark.parametrize(("high", "low", "value"), [(1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.5)])
def test_an_area_at_the_edge_still_has_an_interval(high, low, value):
    figure = auc(torch.full((20,), high), torch.full((20,), low))
    assert figure.value == value
    assert 0.1 < figure.high - figure.low < 0.5 or value == 0.5
    assert figure.low <= figure.value <= figure.high


def test_a_rate_that_the_numbers_cannot_support_is_refused_by_type():
    with pytest.raises(TooFew, match="too few non-members: 999, .*0.01 false positives needs at least 1000"):
        true_positives(normal(0, 50), normal(1, 999), 0.01)
    with pytest.raises(TooFew, match="too few members: 9"):
        true_positives(normal(0, 9), normal(1, 1000), 0.01)
    summary = rates(normal(0, 50, 1.0), normal(1, 1500))
    assert isinstance(summary.tpr[0.001], TooFew)
    assert summary.tpr[0.001].needed == 10000
    assert isinstance(summary.tpr[0.01], TruePositives)
    with pytest.raises(TooFew):
        rates(normal(0, 0), normal(1, 5))


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        rates(torch.tensor([1.0, float("nan")]), normal(0, 5))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.1, 5.0), st.floats(-3.0, 3.0))
def test_no_figure_depends_on_the_scale_of_the_scores(seed, scale, shift):
    members, others = normal(seed, 40, 0.3), normal(seed + 1, 120)
    assert rates(members * scale + shift, others * scale + shift, [0.1]) == rates(members, others, [0.1])


def test_ties_never_pass_more_non_members_than_asked():
    found = true_positives(torch.ones(20), torch.ones(200), 0.1)
    assert found.false.value == 0
    assert found.rate.value == 0
