"""Every lie takes the victim's update out of the profile it fits, and no update out of `paper`."""

import numpy as np
import pytest

from crypto.secagg.lies import LIES, attempt
from crypto.secagg.profiles import PROFILES

N, D, BITS = 7, 40, 16
THRESHOLDS = {"complete": (None, 4), "ring": (4, 3)}
WEAK = [(name, profile) for name, kind in sorted(LIES.items()) for profile in kind.breaks]


def updates_of(name):
    rounds = np.random.default_rng(3).uniform(-1, 1, (LIES[name].rounds, N, D)).astype(np.float32)
    return list(rounds)


def target_of(name, rounds, exposed):
    return rounds[0][list(exposed)].sum(0, dtype=np.float64)


@pytest.mark.parametrize("graph", THRESHOLDS)
@pytest.mark.parametrize(("name", "profile"), WEAK)
def test_a_lie_takes_the_update_from_its_weak_profile(name, profile, graph):
    neighbours, threshold = THRESHOLDS[graph]
    rounds = updates_of(name)
    outcome = attempt(name, *rounds, profile=PROFILES[profile], threshold=threshold, neighbours=neighbours, victim=2)
    assert outcome.stopped is None
    assert 2 in outcome.exposed
    assert len(outcome.exposed) <= N // 2
    steps = N if LIES[name].muted_model else 2 * len(outcome.exposed)
    tolerance = steps * 2 * max(np.abs(r).max() for r in rounds) / ((1 << BITS) - 1)
    assert np.abs(outcome.loot - target_of(name, rounds, outcome.exposed)).max() <= tolerance


@pytest.mark.parametrize("graph", THRESHOLDS)
@pytest.mark.parametrize("name", [name for name, kind in sorted(LIES.items()) if kind.refused])
def test_paper_stops_a_lie_and_names_the_error(name, graph):
    neighbours, threshold = THRESHOLDS[graph]
    outcome = attempt(
        name, *updates_of(name), profile=PROFILES["paper"], threshold=threshold, neighbours=neighbours, victim=2
    )
    assert outcome.loot is None
    assert type(outcome.stopped) is LIES[name].refused
    assert outcome.stopped.client in range(N)


def test_a_lie_says_what_it_claims_and_how_many_rounds_it_takes():
    assert all(kind.claim and kind.breaks for kind in LIES.values())
    with pytest.raises(ValueError, match="2 rounds"):
        attempt("mask_reuse", *updates_of("sybils"), profile=PROFILES["paper"], threshold=4)


def test_a_ring_of_colluders_needs_no_more_of_them_than_neighbours():
    outcome = attempt(
        "sybil_ring", *updates_of("sybils"), profile=PROFILES["paper"], threshold=3, neighbours=4, victim=6
    )
    assert outcome.exposed == (6,)
    assert LIES["sybil_ring"].refused is None
