"""Damaged, foreign or mislabelled bytes are refused by type, before anything is added or decrypted."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.he import frame
from crypto.he.contexts import generate_keys, open_public, open_secret
from crypto.he.errors import CorruptMessageError, ForeignCiphertextError, HEError, ValueRangeError
from crypto.he.presets import BFV, PRESETS
from crypto.he.seeded import encrypt_seeded
from crypto.he.vectors import add, decrypt, encrypt
from crypto.he.wire import KIND, Ciphertext
from tests.crypto_he.conftest import keys_for

SMALL = BFV(2048, (27, 27), 12289)
"""A small ring: messages of a few kilobytes, for tests that damage many of them."""


@pytest.fixture(scope="module")
def small():
    return open_secret(generate_keys(SMALL, 10).secret)


@pytest.fixture(scope="module")
def message(small):
    return encrypt(small.public, np.arange(20)).to_bytes()


def test_round_trip(secret):
    values = np.arange(7)
    for made in (encrypt(secret.public, values), encrypt_seeded(secret, values)):
        data = made.to_bytes()
        read = Ciphertext.from_bytes(data, secret.public)
        assert read == made
        assert np.abs(decrypt(secret, read) - values).max() < 1e-6


def test_a_sum_crosses_the_wire(ckks):
    one = encrypt(ckks.public, np.ones(3))
    total = Ciphertext.from_bytes(add(ckks.public, [one, one]).to_bytes(), ckks.public)
    assert total.terms == 2
    assert np.allclose(decrypt(ckks, total), 2)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 2**20))
def test_truncation(small, message, cut):
    with pytest.raises(CorruptMessageError):
        Ciphertext.from_bytes(message[: cut % len(message)], small.public)


@settings(max_examples=150, deadline=None)
@given(where=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_any_flipped_bit(small, message, where, bit):
    damaged = bytearray(message)
    damaged[where % len(message)] ^= 1 << bit
    with pytest.raises(CorruptMessageError):
        Ciphertext.from_bytes(bytes(damaged), small.public)


@pytest.mark.parametrize("data", [b"", b"FSHE", b"\0" * 100, b"FSHE" + b"\xff" * 200, b"x" * 4096])
def test_other_bytes(small, data):
    for read in (lambda: Ciphertext.from_bytes(data, small.public), lambda: open_public(data)):
        with pytest.raises(CorruptMessageError):
            read()


def test_trailing_bytes(small, message):
    with pytest.raises(CorruptMessageError):
        Ciphertext.from_bytes(message + b"\0", small.public)


def test_another_version(small, message):
    body = bytearray(message[:-32])
    body[4] = 2
    with pytest.raises(CorruptMessageError, match="version 2"):
        Ciphertext.from_bytes(bytes(body) + hashlib.sha256(body).digest(), small.public)


def test_a_context_is_no_ciphertext(small):
    with pytest.raises(CorruptMessageError, match="holds public"):
        Ciphertext.from_bytes(keys_for("ckks").public, small.public)


def test_another_context(small, ckks):
    for context in (open_secret(generate_keys(SMALL, 10).secret), ckks):
        data = encrypt(context.public, np.arange(3)).to_bytes()
        with pytest.raises(ForeignCiphertextError):
            Ciphertext.from_bytes(data, small.public)


def forged(message, small, parts=None, **header):
    """``message`` with other fields and a valid digest: what a sender who lies can make."""
    found, chunks = frame.unpack(message, KIND)
    return frame.pack(KIND, {**found, **header}, chunks if parts is None else parts)


@pytest.mark.parametrize(
    "header",
    [{"terms": 0}, {"terms": -1}, {"terms": True}, {"terms": 1.5}, {"length": 0}, {"length": 2049}, {"length": "20"},
     {"length": 10**400}, {"form": "other"}, {"form": []}, {"context": 1}, {"more": 1}],
)  # fmt: skip
def test_forged_header(small, message, header):
    with pytest.raises(CorruptMessageError):
        Ciphertext.from_bytes(forged(message, small, **header), small.public)


def test_more_terms_than_the_range_allows(small, message):
    with pytest.raises(ValueRangeError, match="11"):
        Ciphertext.from_bytes(forged(message, small, terms=11), small.public)


def test_forged_lengths(small, message):
    """Lengths that a valid digest covers still have to add up."""
    header = json.dumps({"context": small.public.digest, "form": "full", "length": 1, "terms": 1}).encode()
    for count, lengths in ((2**31, b""), (1, (2**63).to_bytes(8, "little")), (1, (5).to_bytes(8, "little"))):
        body = frame._PREFIX.pack(b"FSHE", 1, KIND.ljust(8).encode(), len(header), count) + header + lengths
        with pytest.raises(CorruptMessageError, match="add up"):
            frame.unpack(body + hashlib.sha256(body).digest(), KIND)


@pytest.mark.parametrize("header", [b"[]", b"{", b"\xff", b"[" * 100_000, b""])
def test_unreadable_header(header):
    body = frame._PREFIX.pack(b"FSHE", 1, KIND.ljust(8).encode(), len(header), 0) + header
    with pytest.raises(CorruptMessageError, match="header"):
        frame.unpack(body + hashlib.sha256(body).digest(), KIND)


def test_forged_chunk(small, message):
    """A chunk that SEAL would have to parse: refused, whatever it holds, before the result of a sum exists."""
    chunk = bytes(frame.unpack(message, KIND)[1][0])
    good = Ciphertext.from_bytes(message, small.public)
    coefficient_too_large = chunk[:200] + b"\xff" * 64 + chunk[264:]
    for bad in (b"", chunk[:-1], chunk + b"\0", b"\0" * 16, bytes(len(chunk)), coefficient_too_large):
        ciphertext = Ciphertext.from_bytes(forged(message, small, parts=[bad]), small.public)
        with pytest.raises(HEError):
            add(small.public, [good, ciphertext])
        with pytest.raises(HEError):
            decrypt(small, ciphertext)


def test_chunk_of_other_parameters(small):
    """Relabelled as this context's: SEAL knows the parameters it was made under."""
    other = encrypt(open_secret(generate_keys(BFV(2048, (27, 26), 12289), 10).secret).public, np.arange(20))
    relabelled = Ciphertext(small.public.digest, "full", 20, 1, other.chunks)
    with pytest.raises(CorruptMessageError):
        decrypt(small, relabelled)
    with pytest.raises(CorruptMessageError):
        add(small.public, [relabelled, relabelled])


def test_the_count_is_only_claimed(ckks):
    """What the trusted decryptor cannot see: a server may present one client's ciphertext as a sum of many."""
    victim = encrypt(ckks.public, np.array([1.5, -2.0]))
    lie = Ciphertext.from_bytes(forged(victim.to_bytes(), ckks, terms=50), ckks.public)
    assert np.allclose(decrypt(ckks, lie), [1.5, -2.0])


def test_nothing_of_the_values_is_in_the_header(ckks):
    """Two updates of one length differ on the wire only in what is encrypted."""
    headers = [frame.unpack(encrypt(ckks.public, v).to_bytes(), KIND)[0] for v in (np.zeros(9), np.full(9, 100.0))]
    assert headers[0] == headers[1]


def test_presets_are_distinct_contexts():
    digests = {open_public(keys_for(name).public).digest for name in PRESETS}
    assert len(digests) == len(PRESETS)
