"""What the server sees: masked vectors are uniform, and two inputs with the same sum cannot be told apart."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from crypto.secagg import messages, simulate_round
from crypto.secagg.evidence import uniformity
from crypto.secagg.residue import cohort_per_coordinate, difference_rounds

N, D = 4, 4000


def masked_view(updates, profile="paper"):
    """Client -> its masked words, as they crossed the wire."""
    view = {}

    def tap(stage, client, way, message):
        if (stage, way) == ("masked", "up"):
            view[client] = messages.Masked.decode(message, client=client, stage=stage).words.view("<u4")

    simulate_round(updates, threshold=3, clip=1.0, profile=profile, seed=0, tap=tap)
    return view


@pytest.mark.parametrize("profile", ["paper", "semi_honest", "single_mask"])
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_the_masked_vector_of_a_constant_is_uniform(profile, value):
    view = masked_view(np.full((N, D), value, np.float32), profile)
    assert set(view) == set(range(N))
    for words in view.values():
        assert uniformity(words) > 1e-6


def test_a_vector_without_masks_does_not_pass_for_uniform():
    assert uniformity(np.full(D, 1 << 15, np.uint32)) < 1e-12
    assert uniformity(np.random.default_rng(0).integers(0, 1 << 16, D).astype(np.uint32)) < 1e-12


def test_masked_vectors_show_no_bit_of_the_update():
    updates = np.random.default_rng(0).uniform(-1, 1, (N, D)).astype(np.float32)
    for client, words in masked_view(updates).items():
        assert abs(np.corrcoef(words, updates[client])[0, 1]) < 5 / np.sqrt(D)
        low_bits = words[:, None] >> np.arange(32) & 1
        assert np.abs(low_bits.mean(0) - 0.5).max() < 6 * 0.5 / np.sqrt(D)


def test_two_inputs_with_the_same_sum_look_alike():
    """One is a constant at every client, the other gives it all to one: every client's view has the same law."""
    spread = np.full((N, D), 0.25, np.float32)
    lumped = np.zeros((N, D), np.float32)
    lumped[0] = 1.0
    one, other = masked_view(spread), masked_view(lumped)
    for client in range(N):
        assert ks_2samp(one[client], other[client]).pvalue > 1e-6
        pair = (client + 1) % N
        assert ks_2samp(one[client] - one[pair], other[client] - other[pair]).pvalue > 1e-6


def test_all_of_the_view_but_its_sum_is_fresh_in_every_round():
    updates = np.full((N, D), 0.5, np.float32)
    one, other = masked_view(updates), masked_view(updates)
    for client in range(N):
        assert (one[client] == other[client]).mean() < 0.01
        assert uniformity(one[client] - other[client]) > 1e-6


def test_nothing_that_crosses_the_wire_holds_the_update_or_its_encoding():
    updates = np.random.default_rng(0).uniform(-1, 1, (N, 64)).astype(np.float32)
    wire = []
    simulate_round(updates, threshold=3, seed=0, tap=lambda *entry: wire.append(entry[-1]))
    carried = b"".join(wire)
    for row in updates:
        assert row.tobytes() not in carried
        for start in range(0, 64, 4):
            assert row[start : start + 4].tobytes() not in carried


def test_rounds_with_changing_participation_isolate_clients_by_differencing():
    updates = np.random.default_rng(0).standard_normal((4, 30))
    took_part = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], bool)
    found = difference_rounds(took_part @ updates, took_part)
    assert found.isolated.tolist() == [False, False, True, True]
    np.testing.assert_allclose(found.updates[2:], updates[2:], atol=1e-9)


def test_a_coordinate_that_one_client_touched_is_a_cohort_of_one():
    touched = np.array([[1, 1, 0, 0], [1, 0, 0, 1], [1, 0, 0, 0]], bool)
    assert cohort_per_coordinate(touched).tolist() == [3, 1, 0, 1]
