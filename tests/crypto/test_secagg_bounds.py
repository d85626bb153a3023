"""Numbers at the edge of what a round can hold: the exact sum, or an error of its own."""

import numpy as np
import pytest

from crypto.errors import InfeasibleParameters, PolicyViolation, SecAggError
from crypto.secagg import PROFILES, simulate_round
from tests.crypto.test_secagg_misuse import UPDATES, terms_of


@pytest.mark.parametrize("weights", [[0, 1, 1, 1, 1], [0, 0, 1, 0, 1], [0] * 5, [1, 0, 2, 1, 0]])
@pytest.mark.parametrize("profile", ["paper", "server_chosen_parameters"])
def test_a_client_of_weight_zero_adds_nothing(weights, profile):
    result = simulate_round(UPDATES, threshold=4, clip=1.0, weights=weights, profile=profile)
    assert result.weight == sum(weights)
    wanted = (UPDATES.astype(np.float64) * np.array(weights)[:, None]).sum(0)
    assert np.abs(result.sum - wanted).max() <= sum(weights) * 2 / 65535


def test_a_weight_that_does_not_travel_must_be_one():
    encoding = terms_of().encoding
    with pytest.raises(ValueError, match="from 1 to 1"):
        encoding.encode(UPDATES[0], 0, bytes(32))


@pytest.mark.parametrize("profile", sorted(PROFILES))
@pytest.mark.parametrize(
    "fields",
    [
        {"clip": float("nan")},
        {"clip": float("inf")},
        {"clip": 1.2e308},
        {"clip": 1e-320},
        {"clip": 0.0},
        {"bits": 0},
        {"bits": -1},
        {"threshold": -1},
        {"threshold": 1 << 32},
        {"neighbours": -2},
    ],
    ids=str,
)
def test_no_profile_opens_a_sum_of_impossible_levels_or_counts(fields, profile):
    updates = np.zeros_like(UPDATES) if fields.get("clip") == 1e-320 else UPDATES
    with pytest.raises((SecAggError, InfeasibleParameters)):
        simulate_round(updates, **{"threshold": 4, "clip": 1.0, **fields}, profile=profile)


@pytest.mark.parametrize("updates", [UPDATES[:0], UPDATES[:1], UPDATES[:, :0]], ids=["nobody", "one", "no values"])
def test_a_round_of_nobody_or_about_nothing_is_below_the_policy(updates):
    with pytest.raises((PolicyViolation, InfeasibleParameters)):
        simulate_round(updates, threshold=1)
