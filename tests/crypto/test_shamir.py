"""Shamir shares: any threshold rebuilds, one fewer says nothing, and nonsense is refused."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import InfeasibleParameters
from crypto.shamir import _EXACT_TERMS, LIMBS, PRIME, SHARE_BYTES, combine, share


def secrets_of(m, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (m, 32), dtype=np.uint8)


def test_the_field_is_a_prime_above_a_limb():
    assert PRIME > 1 << 20
    assert all(PRIME % factor for factor in range(2, int(PRIME**0.5) + 1))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.data())
def test_any_threshold_of_the_shares_rebuilds_every_secret(holders, data):
    threshold = data.draw(st.integers(1, holders))
    m = data.draw(st.integers(1, 4))
    secrets = secrets_of(m, holders)
    shares = share(secrets, holders, threshold, os.urandom)
    assert shares.shape == (m, holders, SHARE_BYTES)
    chosen = np.array([data.draw(st.permutations(range(holders)))[:threshold] for _ in range(m)])
    np.testing.assert_array_equal(combine(chosen, np.take_along_axis(shares, chosen[..., None], axis=1)), secrets)


@pytest.mark.parametrize("edge", [0x00, 0xFF])
def test_zero_and_all_ones_survive(edge):
    secrets = np.full((1, 32), edge, np.uint8)
    shares = share(secrets, 9, 5, os.urandom)
    np.testing.assert_array_equal(combine(np.arange(4, 9)[None], shares[:, 4:]), secrets)


def test_thresholds_beyond_the_exact_terms_of_one_product_are_summed_in_parts(monkeypatch):
    monkeypatch.setattr("crypto.shamir._EXACT_TERMS", 4)
    secrets = secrets_of(2)
    shares = share(secrets, 15, 11, os.urandom)
    chosen = np.tile(np.arange(4, 15), (2, 1))
    np.testing.assert_array_equal(combine(chosen, shares[:, 4:]), secrets)


def test_exact_terms_are_exact():
    assert _EXACT_TERMS * (PRIME - 1) ** 2 < 1 << 53


def test_one_share_fewer_fits_every_secret_equally_well():
    """With t - 1 shares fixed, each value of the missing share gives a secret of its own: all stay possible."""
    shares = share(secrets_of(1), 5, 3, os.urandom)[:, :3].copy()
    rebuilt = set()
    for guess in range(50):
        shares[0, 2, 0] = guess
        try:
            rebuilt.add(combine(np.array([[0, 1, 2]]), shares).tobytes())
        except ValueError:  # one of the seven field elements that are no limb
            continue
    assert len(rebuilt) > 40
    assert len({secret[3:] for secret in rebuilt}) == 1


def test_single_shares_of_two_secrets_look_alike():
    """A share below the threshold is uniform over the field, whatever the secret."""
    limbs = []
    for secret in (np.zeros((4000, 32), np.uint8), np.full((4000, 32), 255, np.uint8)):
        padded = np.zeros((4000, LIMBS, 4), np.uint8)
        padded[..., :3] = share(secret, 3, 2, os.urandom)[:, 1].reshape(4000, LIMBS, 3)
        limbs.append(padded.view("<u4")[..., 0].ravel())
    for values in limbs:
        counts, _ = np.histogram(values, 32, (0, PRIME))
        expected = values.size / 32
        assert ((counts - expected) ** 2 / expected).sum() < 80  # chi-squared, 31 degrees: p = 3e-6


def test_wrong_shares_do_not_pass_for_a_secret():
    shares = share(secrets_of(1), 5, 3, os.urandom)
    with pytest.raises(ValueError, match="twice"):
        combine(np.array([[1, 1, 2]]), shares[:, [1, 1, 2]])
    with pytest.raises(ValueError, match="outside the field"):
        combine(np.array([[0, 1, 2]]), np.full((1, 3, SHARE_BYTES), 255, np.uint8))


@pytest.mark.parametrize(("holders", "threshold"), [(3, 4), (3, 0), (PRIME, 2)])
def test_impossible_thresholds_are_refused(holders, threshold):
    with pytest.raises(InfeasibleParameters, match="threshold"):
        share(secrets_of(1), holders, threshold, os.urandom)
