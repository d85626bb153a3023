"""The decrypted sum is the sum: within the stated error for CKKS, exactly for BFV; and nothing overflows unseen."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.he import seeded
from crypto.he.contexts import generate_keys, open_secret
from crypto.he.errors import (
    ForeignCiphertextError,
    HEError,
    IncompatibleCiphertextsError,
    ParameterError,
    ValueRangeError,
)
from crypto.he.presets import BFV, CKKS, PRESETS
from crypto.he.seeded import check_forms_agree, encrypt_seeded
from crypto.he.vectors import add, decrypt, encrypt, mean
from tests.crypto_he.conftest import keys_for


def sample(context, length, seed=0):
    """Values over the whole range that one client may encrypt, both ends included."""
    generator, limit = np.random.default_rng(seed), context.public.packing.limit
    if context.public.parameters.scheme == "bfv":
        values = generator.integers(0, limit + 1, length)
        values[:2] = 0, limit
        return values
    values = generator.uniform(-1, 1, length)
    values[:2] = -limit, limit
    return values


def test_sum_of_both_forms(secret):
    """Lengths around what a ciphertext holds: chunks are cut, and their padding is dropped."""
    capacity = secret.public.parameters.capacity
    for length in (2, capacity - 1, capacity, capacity + 1):
        a, b, c = (sample(secret, length, seed) for seed in range(3))
        parts = [encrypt(secret.public, a), encrypt_seeded(secret, b), encrypt(secret.public, c)]
        total = add(secret.public, [add(secret.public, parts[:2]), parts[2]])
        values = decrypt(secret, total)
        assert values.shape == (length,)
        assert total.terms == 3
        # Values near the limit are beyond float32; float64 keeps 1e-16 of them.
        allowed = secret.public.parameters.sum_error(3) + 1e-14 * secret.public.packing.limit
        assert np.abs(values - (a + b + c)).max() <= allowed


def test_mean_of_a_full_cohort(ckks):
    """100 clients, the bar of 1e-6 and the parameters' own stated error."""
    vectors = np.random.default_rng(1).normal(size=(100, 5000))
    total = add(
        ckks.public, [encrypt_seeded(ckks, v) if i % 2 else encrypt(ckks.public, v) for i, v in enumerate(vectors)]
    )
    error = np.abs(mean(ckks, total) - vectors.mean(0)).max()
    assert error <= PRESETS["ckks"].sum_error(100) / 100 < 1e-6


def test_full_cohort_at_the_limit_does_not_wrap(secret):
    """All clients at the ends of the range, in whole ciphertexts and any pattern of signs: the worst sums decrypt."""
    limit, cohort = secret.public.packing.limit, secret.public.cohort
    capacity = secret.public.parameters.capacity
    lowest = 0 if secret.public.parameters.scheme == "bfv" else -limit
    signs = np.random.default_rng(3).integers(0, 2, capacity)
    for vector in (np.full(capacity, limit), np.where(signs, limit, lowest)):
        total = add(secret.public, [encrypt(secret.public, vector)] * cohort)
        assert np.abs(decrypt(secret, total) - vector * cohort).max() <= 1e-9 * limit * cohort


def test_weighted_mean(ckks):
    """Clients scale by their weight; the sum of the weights divides what was decrypted."""
    vectors, weights = np.random.default_rng(2).normal(size=(10, 300)), np.arange(1, 11)
    total = add(ckks.public, [encrypt(ckks.public, w * v) for w, v in zip(weights, vectors, strict=True)])
    expected = np.average(vectors, axis=0, weights=weights)
    assert np.abs(mean(ckks, total, weights.sum()) - expected).max() <= PRESETS["ckks"].sum_error(10) / weights.sum()
    for weight in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueRangeError):
            mean(ckks, total, weight)


def test_forms_agree(secret):
    difference = check_forms_agree(secret, sample(secret, 700)[2:])
    assert difference <= secret.public.parameters.sum_error(2)


def test_forms_that_disagree(ckks, monkeypatch):
    monkeypatch.setattr(seeded, "encrypt_seeded", lambda context, values: encrypt_seeded(context, values + 1e-6))
    with pytest.raises(HEError, match="apart"):
        check_forms_agree(ckks, np.ones(3))


def test_bytes_per_value(ckks):
    vector = np.zeros(ckks.public.parameters.capacity * 2)
    full, seeded = encrypt(ckks.public, vector), encrypt_seeded(ckks, vector)
    assert len(full.to_bytes()) / len(vector) == pytest.approx(16.05, abs=0.05)
    assert len(seeded.to_bytes()) / len(vector) == pytest.approx(8.05, abs=0.05)
    assert (full.form, seeded.form) == ("full", "seeded")


def test_bfv_bytes(bfv):
    vector = np.zeros(4096 * 2, dtype=np.int64)
    assert len(encrypt(bfv.public, vector).to_bytes()) / len(vector) <= 22


def test_encryption_is_randomised(secret):
    vector = sample(secret, 10)
    for make in (lambda: encrypt(secret.public, vector), lambda: encrypt_seeded(secret, vector)):
        assert make().chunks != make().chunks


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300, 2.0**18 / 100 * 1.001, -(2.0**18) / 100 * 1.001])
def test_ckks_range(ckks, bad):
    for make in (lambda v: encrypt(ckks.public, v), lambda v: encrypt_seeded(ckks, v)):
        with pytest.raises(ValueRangeError, match="magnitude"):
            make(np.array([0.0, bad]))


@pytest.mark.parametrize("bad", [[-1], [10322], [2**40], [0.5], [np.nan], [True]])
def test_bfv_range(bfv, bad):
    with pytest.raises(ValueRangeError):
        encrypt(bfv.public, np.array(bad))


@pytest.mark.parametrize("shape", [(0,), (2, 2), ()])
def test_shape(ckks, shape):
    with pytest.raises(ValueRangeError, match="flat"):
        encrypt(ckks.public, np.zeros(shape))


def test_more_terms_than_the_cohort(ckks):
    one = encrypt(ckks.public, np.zeros(3))
    most = add(ckks.public, [one] * 100)
    with pytest.raises(ValueRangeError, match="101"):
        add(ckks.public, [most, one])


def test_any_memory_layout(ckks):
    values = np.arange(20.0).reshape(10, 2)[:, 1]
    assert np.allclose(decrypt(ckks, encrypt(ckks.public, values)), values)
    assert np.allclose(decrypt(ckks, encrypt(ckks.public, values.astype(np.float32)[::-1])), values[::-1])


def test_unlike_lengths_and_nothing(ckks):
    with pytest.raises(IncompatibleCiphertextsError):
        add(ckks.public, [encrypt(ckks.public, np.zeros(n)) for n in (3, 4)])
    with pytest.raises(IncompatibleCiphertextsError):
        add(ckks.public, [])


def test_another_key(ckks):
    """Same parameters, another key: SEAL would decrypt noise; here it is refused, also in a sum."""
    other = open_secret(generate_keys(PRESETS["ckks"], 100).secret)
    foreign = encrypt(other.public, np.ones(3))
    with pytest.raises(ForeignCiphertextError):
        decrypt(ckks, foreign)
    with pytest.raises(ForeignCiphertextError):
        add(ckks.public, [encrypt(ckks.public, np.ones(3)), foreign])


def test_another_key_behind_a_forged_name_is_never_garbage(secret):
    """Whoever forges a context's name gets random values out, of which next to all lie outside the range."""
    preset = secret.public.parameters
    other = open_secret(generate_keys(preset, 100).secret)
    ones = np.ones(3000, np.int64 if preset.scheme == "bfv" else np.float64)
    forged = replace(encrypt(other.public, ones), context=secret.public.digest)
    for ciphertext in (forged, add(secret.public, [encrypt(secret.public, ones), forged])):
        with pytest.raises(ValueRangeError, match="another key"):
            decrypt(secret, ciphertext)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(0, 10321), min_size=1, max_size=1), min_size=1, max_size=6))
def test_bfv_is_exact(columns):
    context = open_secret(keys_for("bfv").secret)
    total = add(context.public, [encrypt(context.public, np.array(c)) for c in columns])
    assert decrypt(context, total)[0] == sum(c[0] for c in columns)


@pytest.mark.parametrize(
    "unsound",
    [
        CKKS(8192, (60, 60, 60, 60), 40),  # 240 bits: above the 128-bit table's 218
        CKKS(8192, (60,), 40),
        CKKS(1000, (30, 30), 20),
        BFV(4096, (36, 36, 37), 1032192),  # not prime
        CKKS(8192, (99, 60), 40),
    ],
)
def test_unsound_parameters(unsound):
    with pytest.raises(ParameterError):
        generate_keys(unsound, 2)


@pytest.mark.parametrize("cohort", [0, -1, 2**19])
def test_cohort_outside_the_range(cohort):
    with pytest.raises(ParameterError, match="cohort"):
        generate_keys(PRESETS["ckks"], cohort)
