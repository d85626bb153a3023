"""Who gets the secret key, and what a decryptor refuses to open."""

import numpy as np
import pytest

from crypto.he.contexts import carries_secret_key, open_secret
from crypto.he.errors import CohortTooSmallError, ForeignCiphertextError, KeyPolicyError
from crypto.he.holders import DECRYPTION_LEAK, KEY_HOLDERS, TrustedDecryptor
from crypto.he.vectors import add, encrypt
from crypto.he.wire import Ciphertext
from tests.crypto_he.conftest import keys_for

PARTIES = ("clients", "decryptor", "server")


@pytest.mark.parametrize(
    ("name", "full", "seeded"),
    [
        ("clients_share_key", {"clients"}, {"clients"}),
        ("trusted_decryptor", {"decryptor"}, None),
        ("server_holds_key", {"server"}, {"clients", "server"}),
    ],
)
def test_who_gets_the_secret_key(name, full, seeded):
    holder, keys = KEY_HOLDERS[name], keys_for("ckks")

    def given_secret(**form):
        return {party for party in PARTIES if carries_secret_key(holder.context_for(party, keys, **form))}

    assert given_secret() == full == set(holder.holders())
    if seeded is None:
        with pytest.raises(KeyPolicyError, match="every client"):
            given_secret(seeded=True)
    else:
        assert given_secret(seeded=True) == seeded


def test_every_deployment_is_explained():
    assert all(holder.name == name and len(holder.says) > 50 for name, holder in KEY_HOLDERS.items())


def test_where_ckks_decryptions_leak_the_key():
    """Only where a party without the key has both the ciphertexts and their decryption; never with BFV."""
    warned = {(name, scheme): DECRYPTION_LEAK in holder.findings(scheme)
              for name, holder in KEY_HOLDERS.items() for scheme in ("ckks", "bfv")}  # fmt: skip
    assert {which for which, found in warned.items() if found} == {("trusted_decryptor", "ckks")}


def test_a_server_can_pass_one_client_off_as_many(ckks):
    """What the findings warn of: the same ciphertext added to itself meets any minimum, and reveals the update."""
    victim = encrypt(ckks.public, np.array([0.3, -0.7]))
    values = TrustedDecryptor(ckks, 10).open(add(ckks.public, [victim] * 10), round=1)
    assert np.allclose(values / 10, [0.3, -0.7])


def cohort_of(context, size):
    return add(context.public, [encrypt(context.public, np.full(4, 0.5))] * size)


def test_the_decryptor_opens_a_large_enough_sum(ckks):
    decryptor = TrustedDecryptor(ckks, 3)
    assert np.allclose(decryptor.open(cohort_of(ckks, 3), round=1), 1.5)
    assert np.allclose(decryptor.open(cohort_of(ckks, 5), round=2), 2.5)


@pytest.mark.parametrize("size", [1, 2])
def test_the_decryptor_refuses_a_small_sum(ckks, size):
    decryptor = TrustedDecryptor(ckks, 3)
    with pytest.raises(CohortTooSmallError, match="at least 3"):
        decryptor.open(cohort_of(ckks, size), round=1)
    assert np.allclose(decryptor.open(cohort_of(ckks, 4), round=1), 2.0)


def test_the_decryptor_answers_a_round_once(ckks):
    """The difference of two sums of one round would be a single update."""
    decryptor = TrustedDecryptor(ckks, 2)
    decryptor.open(cohort_of(ckks, 3), round=5)
    for late in (5, 4):
        with pytest.raises(KeyPolicyError, match="round 5 has been answered"):
            decryptor.open(cohort_of(ckks, 2), round=late)


def test_a_foreign_sum_leaves_the_round_open(ckks):
    decryptor = TrustedDecryptor(ckks, 2)
    total = cohort_of(ckks, 2)
    with pytest.raises(ForeignCiphertextError):
        decryptor.open(Ciphertext("0" * 64, "full", 4, 2, total.chunks), round=1)
    decryptor.open(total, round=1)


@pytest.mark.parametrize("minimum", [-1, 0, 1, 101])
def test_unsound_minimum(minimum):
    with pytest.raises(KeyPolicyError, match="minimum_cohort"):
        TrustedDecryptor(open_secret(keys_for("ckks").secret), minimum)
