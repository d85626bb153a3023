"""Threshold CKKS: all parties decrypt together, fewer cannot; one clear error where openfhe is missing."""

import importlib
import sys

import numpy as np
import pytest

from crypto.he import threshold
from crypto.he.errors import (
    CorruptMessageError,
    ForeignCiphertextError,
    IncompatibleCiphertextsError,
    ParameterError,
    ThresholdUnavailableError,
    ValueRangeError,
)
from crypto.he.threshold import JointContext, Partial, join
from crypto.he.wire import Ciphertext


def importable():
    try:
        importlib.import_module("openfhe")
    except ImportError:
        return False
    return True


def test_missing_openfhe(monkeypatch):
    monkeypatch.setitem(sys.modules, "openfhe", None)
    for use in (lambda: join(0, None), lambda: JointContext(b"", 3, 10), threshold.openfhe):
        with pytest.raises(ThresholdUnavailableError, match="openfhe cannot be imported"):
            use()


@pytest.mark.parametrize(("party", "previous"), [(0, b"x"), (1, None)])
def test_joining_out_of_turn(party, previous):
    with pytest.raises(ParameterError, match="party"):
        join(party, previous)


@pytest.mark.parametrize(("parties", "cohort"), [(1, 10), (0, 10), (3, 0), (3, 257)])
def test_unsound_settings(parties, cohort):
    with pytest.raises(ParameterError):
        JointContext(b"", parties, cohort)


@pytest.fixture(scope="module")
def shares():
    if not importable():
        pytest.skip("openfhe's wheel does not import on this Python")
    made = [join(0, None)]
    for party in (1, 2):
        made.append(join(party, made[-1].public))
    return made


@pytest.fixture(scope="module")
def joint(shares):
    return JointContext(shares[-1].public, 3, 100)


def test_all_parties_decrypt_the_sum(joint, shares):
    vectors = np.random.default_rng(0).uniform(-2.5, 2.5, (10, 5000))
    sent = [Ciphertext.from_bytes(joint.encrypt(v).to_bytes(), joint) for v in vectors]
    total = joint.add(sent)
    assert total.terms == 10
    values = joint.fuse(total, [joint.partial(share, total) for share in reversed(shares)])
    assert np.abs(values - vectors.sum(0)).max() <= joint.sum_error() < 1e-6


def test_fewer_parties_do_not(joint, shares):
    one = joint.encrypt(np.ones(3))
    partials = [joint.partial(share, one) for share in shares]
    for some in (partials[:2], partials[1:], [*partials[:2], partials[1]], []):
        with pytest.raises(IncompatibleCiphertextsError, match="all 3"):
            joint.fuse(one, some)


def test_a_partial_of_another_sum(joint, shares):
    one, other = joint.encrypt(np.ones(3)), joint.encrypt(np.ones(3))
    partials = [joint.partial(share, one) for share in shares[:2]] + [joint.partial(shares[2], other)]
    with pytest.raises(ForeignCiphertextError):
        joint.fuse(one, partials)


def test_damage(joint, shares):
    one = joint.encrypt(np.ones(3))
    cut = Ciphertext(one.context, "full", 3, 1, (one.chunks[0][:1000],))
    with pytest.raises(CorruptMessageError):
        joint.partial(shares[0], cut)
    with pytest.raises(CorruptMessageError):
        join(1, shares[0].public[:100])
    good = [joint.partial(share, one) for share in shares]
    with pytest.raises(CorruptMessageError):
        joint.fuse(one, [*good[:2], Partial(2, good[2].of, (b"",))])


def test_range_and_context(joint, shares):
    with pytest.raises(ValueRangeError):
        joint.encrypt([2.57])
    with pytest.raises(ForeignCiphertextError):
        JointContext(shares[1].public, 3, 100).partial(shares[0], joint.encrypt([1.0]))


def test_no_secret_in_a_representation(shares):
    assert "\\x" not in repr(shares[0])
