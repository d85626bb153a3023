"""The decryptor in a process of its own: opens what it should, and every refusal arrives with its type."""

import gc

import numpy as np
import pytest

from crypto.he.contexts import carries_secret_key, open_public
from crypto.he.decryptor import Decryptor
from crypto.he.errors import (
    CohortTooSmallError,
    CorruptMessageError,
    ForeignCiphertextError,
    HEError,
    KeyPolicyError,
    ParameterError,
)
from crypto.he.presets import PRESETS
from crypto.he.vectors import add, encrypt
from tests.crypto_he.conftest import keys_for


@pytest.fixture(params=["ckks", "bfv"])
def decryptor(request):
    return Decryptor(PRESETS[request.param], cohort=5, minimum_cohort=3)


def sum_of(decryptor, count, values=(1, 0, 3)):
    public = open_public(decryptor.public)
    vector = np.array(values, np.int64 if public.parameters.scheme == "bfv" else np.float64)
    return add(public, [encrypt(public, vector)] * count).to_bytes()


def test_it_opens_a_sum_a_round_and_counts_what_it_costs(decryptor):
    assert not carries_secret_key(decryptor.public)
    for round, count in ((1, 3), (2, 5)):
        opened = decryptor.open(sum_of(decryptor, count), round)
        assert np.abs(opened - np.array([1, 0, 3]) * count).max() <= 1e-6  # what CKKS may be off by; BFV is exact
    assert decryptor.cpu_seconds > 0
    assert decryptor.bytes_out == [24, 24]


def test_refusals_come_typed_and_it_goes_on(decryptor):
    total = sum_of(decryptor, 3)
    other = open_public(keys_for(open_public(decryptor.public).parameters.scheme).public)
    foreign = add(other, [encrypt(other, np.ones(3, np.int64))] * 3).to_bytes()
    for message, error in (
        (sum_of(decryptor, 2), CohortTooSmallError),
        (total[:-1], CorruptMessageError),
        (b"", CorruptMessageError),
        (foreign, ForeignCiphertextError),
    ):
        with pytest.raises(error):
            decryptor.open(message, 1)
    decryptor.open(total, 1)
    with pytest.raises(KeyPolicyError, match="round 1 has been answered"):
        decryptor.open(total, 1)
    assert len(decryptor.bytes_in) == 1


@pytest.mark.parametrize(("cohort", "minimum", "error"), [(0, 2, ParameterError), (5, 6, KeyPolicyError)])
def test_what_it_cannot_be_is_refused_at_once(cohort, minimum, error):
    with pytest.raises(error):
        Decryptor(PRESETS["ckks"], cohort, minimum)


def test_its_process_ends_with_it_and_a_dead_one_is_named(decryptor):
    process = decryptor._process
    process.kill()
    with pytest.raises(HEError, match="its process has ended"):
        decryptor.open(sum_of(decryptor, 3), 1)
    other = Decryptor(PRESETS["ckks"], cohort=5, minimum_cohort=3)._process
    gc.collect()
    assert other.returncode == 0
