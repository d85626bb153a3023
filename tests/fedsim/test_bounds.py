"""The exact bounds: published values, each other's inverses, and an independent estimate of the sampled one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim import bounds
from fedsim.privacy import epsilons


@pytest.mark.parametrize(
    ("mu", "epsilon", "rate", "advantage", "rebuilt"),
    [(0.5, 1.99, 0.034, 0.197, 0.217), (1.0, 4.38, 0.092, 0.383, 0.389), (2.0, 10.0, 0.372, 0.683, 0.764)],
)
def test_published_values(mu, epsilon, rate, advantage, rebuilt):
    assert bounds.epsilon_of(mu, 1e-5) == pytest.approx(epsilon, rel=5e-3)
    assert bounds.most_true_positives(mu, 0.01) == pytest.approx(rate, rel=5e-3)
    assert bounds.most_advantage(mu) == pytest.approx(advantage, rel=5e-3)
    assert bounds.most_reconstruction(mu, 0.1) == pytest.approx(rebuilt, rel=5e-3)


@settings(deadline=None, max_examples=60)
@given(st.floats(0.02, 30.0), st.sampled_from([1e-2, 1e-5, 1e-8]))
def test_mu_and_epsilon_are_each_others_inverse(mu, delta):
    epsilon = bounds.epsilon_of(mu, delta)
    assert bounds.mu_for(epsilon, delta) == pytest.approx(mu, rel=1e-6) or epsilon == 0


@pytest.mark.parametrize(("z", "releases"), [(1.0, 1), (4.0, 10), (0.1, 1), (20.0, 3)])
def test_the_closed_form_agrees_with_the_accountant(z, releases):
    accounted, _ = epsilons(z, releases, 1e-5)
    assert bounds.epsilon_of(bounds.mu_of(z, releases), 1e-5) == pytest.approx(accounted, rel=2e-3)


def test_the_ends_of_the_scale():
    assert bounds.mu_of(0.0) == math.inf
    assert bounds.mu_of(0.0, 0) == 0
    assert bounds.epsilon_of(math.inf, 1e-5) == math.inf
    assert bounds.epsilon_of(0.0, 1e-5) == 0
    assert bounds.most_true_positives(0.0, 0.01) == pytest.approx(0.01)
    assert bounds.most_true_positives(math.inf, 0.01) == bounds.most_advantage(math.inf) == 1
    assert bounds.most_area(0.0) == 0.5


def test_unsampled_steps_compose_to_one_gaussian():
    priors = [0.001, 0.1, 0.5]
    exact = [bounds.most_reconstruction(1.0, prior) for prior in priors]
    assert bounds.most_reconstruction_sampled(4.0, 1.0, 16, priors) == pytest.approx(exact, rel=1e-3)


def test_sampling_agrees_with_the_estimate_of_the_paper():
    sampling, steps, draws, generator = 0.05, 20, 100_000, np.random.default_rng(3)
    loss = np.zeros(draws)
    for _ in range(steps):
        loss += np.log1p(sampling * (np.exp(generator.normal(size=draws) - 0.5) - 1))
    falling = np.exp(np.sort(loss)[::-1])
    for prior in (0.01, 0.1, 0.5):
        estimate = falling[: int(prior * draws)].sum() / draws
        bound = bounds.most_reconstruction_sampled(1.0, sampling, steps, [prior])[0]
        assert bound == pytest.approx(estimate, rel=0.02)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: bounds.mu_of(-1.0), "noise_multiplier = -1.0"),
        (lambda: bounds.epsilon_of(1.0, 0.0), "delta = 0.0"),
        (lambda: bounds.epsilon_of(-1.0, 1e-5), "mu = -1.0"),
        (lambda: bounds.most_true_positives(1.0, 1.5), "fpr = 1.5"),
        (lambda: bounds.most_reconstruction_sampled(0.0, 0.1, 1, [0.1]), "need noise"),
    ],
)
def test_nonsense_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
