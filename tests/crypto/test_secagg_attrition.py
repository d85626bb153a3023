"""The rules about drop-outs alone say what the whole protocol does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.entropy import FixedEntropy
from crypto.errors import SecAggError, TooFewClients
from crypto.secagg import PROFILES, STAGES, Client, Server, enrol, run_round
from crypto.secagg.attrition import survivors
from crypto.secagg.round import make_terms


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_sum_opens_exactly_where_the_rules_say_so(data):
    n = data.draw(st.integers(3, 12), label="n")
    degree = data.draw(st.sampled_from([n - 1, *range(2, n - 1, 2)]), label="degree")
    threshold = data.draw(st.integers(min(3, n - 1) if degree == n - 1 else 3, degree + 1), label="threshold")
    profile = PROFILES[data.draw(st.sampled_from(sorted(PROFILES)), label="profile")]
    leaving = data.draw(st.lists(st.sampled_from([None] * 6 + list(STAGES)), min_size=n, max_size=n), label="leaving")
    leaves_at = {client: stage for client, stage in enumerate(leaving) if stage}
    updates = np.zeros((n, 2), np.float32)
    terms = make_terms(updates, degree, threshold, 16, 1.0, None, FixedEntropy(b"terms"))
    if profile.policy and profile.policy.problems(terms):
        return
    server = Server(terms, profile, ring=FixedEntropy(b"ring"))
    clients = [Client(i, profile, identity) for i, identity in enumerate(enrol(n, FixedEntropy(b"clients")))]
    dropped = {stage: [c for c, left in leaves_at.items() if left == stage] for stage in STAGES}
    try:
        opened = frozenset(run_round(server, clients, updates, dropped=dropped).survivors)
    except SecAggError:
        opened = None
    try:
        assert survivors(terms, profile, leaves_at, FixedEntropy(b"ring")) == opened
    except SecAggError:
        assert opened is None


@pytest.mark.parametrize("profile", sorted(PROFILES))
@pytest.mark.parametrize("stage", STAGES[:3])
def test_nobody_left_is_no_sum(profile, stage):
    terms = make_terms(np.zeros((3, 2), np.float32), 2, 2, 16, 1.0, None, FixedEntropy(b"terms"))
    with pytest.raises(TooFewClients, match=stage):
        survivors(terms, PROFILES[profile], dict.fromkeys(range(3), stage), FixedEntropy(b"ring"))


def test_a_single_mask_still_needs_somebody_to_sign_the_survivor_set():
    terms = make_terms(np.zeros((3, 2), np.float32), 2, 2, 16, 1.0, None, FixedEntropy(b"terms"))
    with pytest.raises(TooFewClients, match="consistency"):
        survivors(terms, PROFILES["single_mask"], dict.fromkeys(range(3), "consistency"), FixedEntropy(b"ring"))
