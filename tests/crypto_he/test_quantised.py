"""BFV sums of quantised updates are exact, and the encoding never lets them wrap."""

import numpy as np
import pytest

from crypto.he.contexts import generate_keys, open_secret
from crypto.he.errors import ParameterError, ValueRangeError
from crypto.he.presets import PRESETS
from crypto.he.quantised import dequantised_mean, encoding_for, quantise
from crypto.he.seeded import encrypt_seeded
from crypto.he.vectors import add, decrypt, encrypt

ROUNDING = [bytes([client]) * 32 for client in range(100)]


def test_mean_of_a_full_cohort(bfv):
    """100 clients: the sum equals the sum of the quantised values in every coordinate."""
    updates = np.random.default_rng(0).uniform(-1, 1, (100, 4100)).astype(np.float32)
    encoding = encoding_for(bfv.public, 4100, clip=1.0)
    assert encoding.bits == 13
    levels = [quantise(encoding, u, 1, r) for u, r in zip(updates, ROUNDING, strict=True)]
    forms = (lambda v: encrypt(bfv.public, v), lambda v: encrypt_seeded(bfv, v))
    total = add(bfv.public, [forms[i % 2](v) for i, v in enumerate(levels)])
    values = decrypt(bfv, total)
    assert (values == np.sum(levels, axis=0)).all()
    mean = dequantised_mean(encoding, values, total.terms)
    assert np.abs(mean - updates.astype(np.float64).mean(0)).max() < encoding.step
    exact = np.mean(levels, axis=0) * encoding.step - encoding.clip
    assert np.abs(mean - exact).max() < 1e-12


def test_weights_travel_inside():
    context = open_secret(generate_keys(PRESETS["bfv"], 10).secret)
    updates = np.random.default_rng(1).uniform(-0.5, 0.5, (10, 50)).astype(np.float32)
    weights = list(range(1, 11))
    encoding = encoding_for(context.public, 50, clip=0.5, max_weight=10)
    sent = [encrypt(context.public, quantise(encoding, *u)) for u in zip(updates, weights, ROUNDING, strict=False)]
    total = add(context.public, sent)
    mean = dequantised_mean(encoding, decrypt(context, total), total.terms)
    assert np.abs(mean - np.average(updates.astype(np.float64), axis=0, weights=weights)).max() < encoding.step


@pytest.mark.parametrize("extreme", [-1.0, 1.0])
def test_the_ends_of_the_clip_do_not_wrap(bfv, extreme):
    encoding = encoding_for(bfv.public, 2, clip=1.0)
    one = encrypt(bfv.public, quantise(encoding, np.full(2, extreme, np.float32), 1, ROUNDING[0]))
    total = add(bfv.public, [one] * 100)
    assert dequantised_mean(encoding, decrypt(bfv, total), 100) == pytest.approx(extreme)


@pytest.mark.parametrize(
    "asked", [{"bits": 14}, {"bits": 0}, {"bits": 13, "max_weight": 2}, {"max_weight": 0}, {"max_weight": 20_000}]
)
def test_too_many_bits(bfv, asked):
    with pytest.raises(ParameterError):
        encoding_for(bfv.public, 3, clip=1.0, **asked)


@pytest.mark.parametrize("clip", [0.0, -1.0, np.inf, np.nan])
def test_clip(bfv, clip):
    with pytest.raises(ParameterError):
        encoding_for(bfv.public, 3, clip=clip)


def test_ckks_takes_no_integers(ckks):
    with pytest.raises(ParameterError, match="bfv"):
        encoding_for(ckks.public, 3, clip=1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1.0001, -7.0])
def test_values_outside_the_clip(bfv, bad):
    encoding = encoding_for(bfv.public, 2, clip=1.0)
    with pytest.raises(ValueRangeError):
        quantise(encoding, np.array([0, bad], np.float32), 1, ROUNDING[0])


def test_a_sum_that_its_terms_cannot_reach(bfv):
    encoding = encoding_for(bfv.public, 1, clip=1.0)
    with pytest.raises(ValueRangeError, match="sum"):
        dequantised_mean(encoding, np.array([3 * encoding.levels]), 2)


def test_no_mean_of_nothing():
    context = open_secret(generate_keys(PRESETS["bfv"], 10).secret)
    encoding = encoding_for(context.public, 2, clip=1.0, max_weight=5)
    with pytest.raises(ValueRangeError, match="weights"):
        dequantised_mean(encoding, np.zeros(3, np.int64), 1)
