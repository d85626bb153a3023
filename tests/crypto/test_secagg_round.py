"""The protocol end to end: the exact sum of the survivors, or no sum."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import SecAggError, TooFewClients
from crypto.secagg import STAGES, simulate_round
from crypto.secagg.round import largest, make_terms, rounding_seed

SEED = 5


def make_updates(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def ideal_words(updates, survivors, *, bits=16, weights=None, seed=SEED, clip=None):
    """What a trusted party would add up: the encoded vectors of the survivors, in their word."""
    terms = make_terms(updates, None, 2, bits, clip, weights, np.random.default_rng(0).bytes)
    total = np.zeros(terms.encoding.length, terms.encoding.word)
    for i in survivors:
        total += terms.encoding.encode(updates[i], weights[i] if weights else 1, rounding_seed(seed, 0, i))
    return total


def survivors_of(n, dropped):
    early = {c for stage in ("advertise", "shares", "masked") for c in dropped.get(stage, ())}
    return tuple(sorted(set(range(n)) - early))


def must_open(n, threshold, dropped, profile):
    """On the complete graph a threshold must remain at every stage that the profile has."""
    last = set(range(n)) - {c for stage, who in dropped.items() if stage != "consistency" for c in who}
    if profile == "paper":
        last -= set(dropped.get("consistency", ()))
    return len(last) >= threshold


def every_dropout(n, stages):
    """Every way in which n clients can each stay or leave at one of ``stages``."""
    for leaving in itertools.product((None, *stages), repeat=n):
        yield {stage: [c for c in range(n) if leaving[c] == stage] for stage in stages}


@pytest.mark.parametrize("profile", ["semi_honest", "paper"])
@pytest.mark.parametrize(("n", "threshold"), [(3, 2), (3, 3), (4, 3)])
def test_every_subset_of_dropouts_gives_the_exact_sum_or_none(n, threshold, profile):
    check_every_dropout(n, threshold, profile)


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["semi_honest", "paper"])
@pytest.mark.parametrize("threshold", [3, 4])
def test_every_subset_of_dropouts_of_five(threshold, profile):
    check_every_dropout(5, threshold, profile)


def check_every_dropout(n, threshold, profile):
    updates = make_updates(n, 3)
    stages = STAGES if profile == "paper" else [stage for stage in STAGES if stage != "consistency"]
    opened = 0
    for dropped in every_dropout(n, stages):
        survivors = survivors_of(n, dropped)
        if len(survivors) < 3 or not must_open(n, threshold, dropped, profile):
            with pytest.raises(SecAggError):
                simulate_round(updates, threshold=threshold, dropped=dropped, profile=profile, seed=SEED)
            continue
        result = simulate_round(updates, threshold=threshold, dropped=dropped, profile=profile, seed=SEED)
        assert result.survivors == survivors
        np.testing.assert_array_equal(result.words, ideal_words(updates, survivors))
        opened += 1
    assert opened


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_random_rounds_open_the_exact_weighted_sum(data):
    n = data.draw(st.integers(4, 12), label="n")
    degree = data.draw(st.sampled_from([None, *range(4, n - 1, 2)]), label="degree")
    holders = n if degree is None else degree + 1
    threshold = data.draw(st.integers(holders // 2 + 1, holders), label="threshold")
    d = data.draw(st.integers(1, 40), label="d")
    bits = data.draw(st.integers(1, 24), label="bits")
    weights = data.draw(st.none() | st.lists(st.integers(0, 5000), min_size=n, max_size=n), label="weights")
    leaving = data.draw(st.lists(st.sampled_from([None] * 8 + list(STAGES)), min_size=n, max_size=n), label="leaving")
    profile = data.draw(st.sampled_from(["paper", "semi_honest"]), label="profile")
    dropped = {stage: [c for c in range(n) if leaving[c] == stage] for stage in STAGES}
    updates = make_updates(n, d, seed=n)
    options = {"bits": bits, "weights": weights}
    try:
        result = simulate_round(
            updates, neighbours=degree, threshold=threshold, dropped=dropped, profile=profile, seed=SEED, **options
        )
    except SecAggError:
        assert any(leaving)
        return
    assert result.survivors == survivors_of(n, dropped)
    np.testing.assert_array_equal(result.words, ideal_words(updates, result.survivors, **options))
    scale = np.array(weights if weights else [1] * n)[list(result.survivors)]
    assert result.weight == scale.sum()
    step = 2 * largest(updates) / ((1 << bits) - 1)
    exact = (updates[list(result.survivors)].astype(np.float64) * scale[:, None]).sum(0)
    assert np.abs(result.sum - exact).max() <= step * scale.sum() * (1 + 1e-9) + 1e-9


def test_the_sum_does_not_depend_on_who_is_neighbour_of_whom():
    updates = make_updates(20, 50)
    complete = simulate_round(updates, threshold=11, seed=SEED)
    ring = simulate_round(updates, neighbours=6, threshold=4, seed=SEED)
    np.testing.assert_array_equal(complete.words, ring.words)


def test_upload_is_four_bytes_a_parameter_and_a_fixed_rest():
    small, large = (simulate_round(make_updates(5, d), threshold=3).bytes_up for d in (1000, 3000))
    assert (large - small) == 5 * 2000 * 4


def test_a_sum_that_needs_it_travels_in_64_bits():
    weights = [1 << 20] * 4
    result = simulate_round(make_updates(4, 10), threshold=3, weights=weights, seed=SEED)
    assert result.words.dtype == np.uint64
    np.testing.assert_array_equal(result.words, ideal_words(make_updates(4, 10), range(4), weights=weights))


def test_too_many_dropouts_end_the_round_naming_the_stage():
    with pytest.raises(TooFewClients) as caught:
        simulate_round(make_updates(5, 4), threshold=4, dropped={"masked": [0, 1]})
    assert caught.value.stage == "masked"
    assert caught.value.client is None


def test_an_early_dropout_costs_nobody_else_the_round():
    result = simulate_round(make_updates(6, 4), threshold=4, dropped={"advertise": [2], "shares": [4]}, seed=SEED)
    assert result.survivors == (0, 1, 3, 5)
