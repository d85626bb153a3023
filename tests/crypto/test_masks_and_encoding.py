"""Masks cancel and look uniform; encoding is unbiased, exact at its borders, and refuses what it cannot hold."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.encoding import Encoding
from crypto.masks import BLOCK_BYTES, add_masks


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
@pytest.mark.parametrize("length", [1, 7, BLOCK_BYTES // 4 + 3, BLOCK_BYTES // 2])
def test_a_mask_added_and_taken_off_leaves_no_trace(dtype, length):
    words = np.arange(length, dtype=dtype)
    keys = [os.urandom(32) for _ in range(3)]
    masked = words.copy()
    add_masks(masked, keys[:2], keys[2:])
    assert (masked != words).mean() > 0.9 or length == 1
    add_masks(masked, keys[2:], keys[:2])
    np.testing.assert_array_equal(masked, words)


def test_a_long_mask_continues_a_short_one():
    """Blocks are an implementation detail: the stream of a key is one stream."""
    key, long = os.urandom(32), np.zeros(BLOCK_BYTES, np.uint32)
    add_masks(long, [key])
    short = np.zeros(100, np.uint32)
    add_masks(short, [key])
    np.testing.assert_array_equal(long[:100], short)
    assert len(np.unique(long)) > 0.99 * len(long)


@pytest.mark.parametrize(("modulus_bits", "largest"), [(0, 0), (5, 31)])
def test_a_narrow_modulus_bounds_the_mask(modulus_bits, largest):
    words = np.zeros(1000, np.uint32)
    add_masks(words, [os.urandom(32)], modulus_bits=modulus_bits)
    assert words.max() == largest


def encoding_of(d, **changes):
    return Encoding(**{"dimension": d, "clip": 1.0, "bits": 16, "max_weight": 1, "modulus_bits": 32, **changes})


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 24),
    st.floats(2**-10, 2**10, width=32),
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30),
    st.integers(1, 9),
)
def test_a_value_comes_back_within_a_step(bits, clip, shape, weight):
    update = np.array(shape, np.float32) * np.float32(clip)
    encoding = encoding_of(len(update), bits=bits, clip=clip, max_weight=9, modulus_bits=64)
    total, total_weight = encoding.decode(encoding.encode(update, weight, os.urandom(32)), 1)
    assert total_weight == weight
    assert np.abs(total / weight - update).max() <= encoding.step * (1 + 1e-6)


@pytest.mark.parametrize("bits", [1, 16, 24])
def test_the_borders_of_the_clip_are_the_first_and_the_last_level(bits):
    encoding = encoding_of(2 * 5000, bits=bits, clip=0.1)
    update = np.repeat(np.array([-0.1, 0.1], np.float32), 5000)
    words = encoding.encode(np.nextafter(update, np.float32(0)), 1, os.urandom(32))
    assert words[:5000].max() <= 1
    assert words[5000:].min() >= encoding.levels - 1
    assert words.max() <= encoding.levels


def test_rounding_is_unbiased():
    """The mean of many roundings of one value is the value, within five standard errors."""
    n = 200_000
    for value in (0.1, -0.7, 1 / 3):
        encoding = encoding_of(n, bits=4)
        total, _ = encoding.decode(encoding.encode(np.full(n, value, np.float32), 1, os.urandom(32)), 1)
        assert abs(total.mean() - np.float32(value)) < 5 * encoding.step / 2 / np.sqrt(n)


def test_rounding_follows_its_seed_alone():
    update = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)
    one, same, other = (encoding_of(1000).encode(update, 1, seed) for seed in (b"1" * 32, b"1" * 32, b"2" * 32))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.0001, -1.0001])
@pytest.mark.parametrize("at", [0, 20_000])
def test_a_value_that_cannot_be_encoded_is_refused(bad, at):
    update = np.zeros(20_001, np.float32)
    update[at] = bad
    with pytest.raises(ValueError, match="NaN or infinity|outside the clip"):
        encoding_of(len(update)).encode(update, 1, bytes(32))


@pytest.mark.parametrize("weight", [-1, 6, 1.5])
def test_a_weight_out_of_range_is_refused(weight):
    with pytest.raises(ValueError, match="weight"):
        encoding_of(3, max_weight=5).encode(np.zeros(3, np.float32), weight, bytes(32))


def test_wrong_shapes_and_types_are_refused():
    with pytest.raises(ValueError, match="shape"):
        encoding_of(3).encode(np.zeros(4, np.float32), 1, bytes(32))
    with pytest.raises(ValueError, match="float32"):
        encoding_of(3).encode(np.zeros(3), 1, bytes(32))


def test_a_total_that_no_contributors_can_reach_is_refused():
    encoding = encoding_of(2)
    top = np.full(2, 3 * encoding.levels, np.uint32)
    assert encoding.decode(top, 3)[1] == 3
    with pytest.raises(ValueError, match="exceed"):
        encoding.decode(top + np.uint32(1), 3)
