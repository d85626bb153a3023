"""What no attack can exceed under a Gaussian mechanism: closed forms in mu, its sensitivity over its noise.

Releases at mu_1 ... mu_T compose to the root of their squares' sum (Dong, Roth and Su 2022); ``math.inf`` is no noise.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

EPSILONS = np.linspace(-20.0, 60.0, 8001)
"""Where the dual of the sampled bound is looked for; a coarser grid would make it looser, never wrong."""


def mu_of(noise_multiplier: float, releases: int = 1) -> float:
    """The mu of ``releases`` unsampled releases, each noised by ``noise_multiplier`` sensitivities."""
    if noise_multiplier < 0 or releases < 0:
        raise ValueError(f"noise_multiplier = {noise_multiplier}, releases = {releases}: must not be negative")
    if releases == 0:
        return 0.0
    return math.sqrt(releases) / noise_multiplier if noise_multiplier else math.inf


def mu_of_membership(noise_multiplier: float, releases: int, unit: str) -> float:
    """The mu between one record and its absence, where noise protects that record, or the whole ``unit`` around it.

    A record left out of a client that is protected whole moves its clipped update by twice the clip norm at most.
    """
    return mu_of(noise_multiplier, releases) * (1 if unit == "example" else 2)


def delta_of(mu: float, epsilon: float) -> float:
    """The least delta at ``epsilon`` of a mu-Gaussian mechanism (Balle and Wang 2018)."""
    if mu == 0:
        return 0.0
    if math.isinf(mu):
        return 1.0
    above = norm.cdf(mu / 2 - epsilon / mu)
    return float(max(0.0, above - math.exp(min(700.0, epsilon + norm.logcdf(-mu / 2 - epsilon / mu)))))


def epsilon_of(mu: float, delta: float) -> float:
    """The least epsilon at ``delta`` of a mu-Gaussian mechanism; inf without noise, 0 where delta alone covers mu."""
    if not 0 < delta < 1:
        raise ValueError(f"delta = {delta}: must be between 0 and 1")
    if mu < 0:
        raise ValueError(f"mu = {mu}: must not be negative")
    if math.isinf(mu) or delta_of(mu, 0.0) <= delta:
        return math.inf if math.isinf(mu) else 0.0
    high = mu * (mu / 2 + float(norm.isf(delta / 2))) + 1
    return float(brentq(lambda epsilon: delta_of(mu, epsilon) - delta, 0.0, high, xtol=1e-10))


def mu_for(epsilon: float, delta: float) -> float:
    """The largest mu that still gives (epsilon, delta): the inverse of ``epsilon_of``."""
    if epsilon < 0:
        raise ValueError(f"epsilon = {epsilon}: must not be negative")
    high = 1.0
    while delta_of(high, epsilon) < delta:
        high *= 2
    return float(brentq(lambda mu: delta_of(mu, epsilon) - delta, 0.0, high, xtol=1e-12))


def most_true_positives(mu: float, fpr: float) -> float:
    """The highest true-positive rate that any membership attack has at ``fpr`` (Dong, Roth and Su 2022)."""
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr = {fpr}: must be a share")
    if math.isinf(mu):
        return 1.0
    return float(norm.cdf(norm.ppf(fpr) + mu))


def most_advantage(mu: float) -> float:
    """The largest true minus false positive rate of any membership attack."""
    return 1.0 if math.isinf(mu) else float(2 * norm.cdf(mu / 2) - 1)


def most_area(mu: float) -> float:
    """The largest area under the curve of any membership attack."""
    return 1.0 if math.isinf(mu) else float(norm.cdf(mu / math.sqrt(2)))


def most_reconstruction(mu: float, prior: float) -> float:
    """The highest chance to rebuild a record within an error that a guess meets with chance ``prior``.

    Reconstruction robustness of the Gaussian mechanism (Hayes et al. 2023, theorem 2; Kaissis et al. 2023).
    """
    return most_true_positives(mu, prior)


def most_reconstruction_sampled(
    noise_multiplier: float, sampling: float, steps: int, priors: Sequence[float]
) -> list[float]:
    """The same for DP-SGD whose batches take each record with chance ``sampling``, for each of ``priors``.

    Hayes et al. 2023 estimate the blow-up of N(0, s^2) to the mixture by drawing from both; here it is the dual of the
    hockey-stick divergence, the least delta(epsilon) + e^epsilon * prior, from a privacy loss distribution rounded
    upwards: an upper bound without sampling error, over adding and removing. Raises ValueError for what cannot be.
    """
    if not 0 < sampling <= 1 or steps < 1 or noise_multiplier <= 0:
        raise ValueError(
            f"noise_multiplier = {noise_multiplier}, sampling = {sampling}, steps = {steps}: "
            "need noise, a share of at most 1 and at least one step"
        )
    from dp_accounting.pld import privacy_loss_distribution as pld  # here, since it takes a second

    one = pld.from_gaussian_mechanism(noise_multiplier, sampling_prob=sampling, value_discretization_interval=1e-3)
    deltas = np.asarray(one.self_compose(steps).get_delta_for_epsilon(EPSILONS))
    return [float(min(1.0, (deltas + np.exp(EPSILONS) * prior).min())) for prior in priors]
