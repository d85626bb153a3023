"""The chosen coordinates are the most sensitive ones, exactly as many as asked, and the rest stays as it was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crypto.he.errors import SelectionError
from crypto.he.selective import combine, label_sensitivity, magnitude_sensitivity, select
from crypto.he.vectors import decrypt, encrypt

SCORES = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1e6, width=32))


@given(SCORES, st.floats(0, 1))
def test_the_most_sensitive_are_encrypted(scores, fraction):
    chosen = select(scores, fraction)
    assert sorted([*chosen.encrypted, *chosen.clear]) == list(range(len(scores)))
    assert fraction * len(scores) <= len(chosen.encrypted) + 1e-9 < fraction * len(scores) + 1 + 1e-8
    if len(chosen.encrypted) and len(chosen.clear):
        assert scores[chosen.encrypted].min() >= scores[chosen.clear].max()
    assert (np.diff(chosen.encrypted) > 0).all()


@given(SCORES, st.floats(0, 1))
def test_split_and_join(scores, fraction):
    chosen = select(scores, fraction)
    vector = np.arange(len(scores)) + 0.5
    assert (chosen.join(*chosen.split(vector)) == vector).all()


def test_ends():
    scores = [3.0, 1.0, 2.0]
    assert select(scores, 0).encrypted.tolist() == []
    assert select(scores, 1).clear.tolist() == []
    assert select(scores, 0.01).encrypted.tolist() == [0]


@pytest.mark.parametrize(("fraction", "size", "count"), [(0.07, 100, 7), (0.1, 30, 3), (0.29, 100, 29), (1 / 3, 3, 1)])
def test_the_fraction_as_written(fraction, size, count):
    """0.07 * 100 is 7.000000000000001 in floating point: still seven coordinates."""
    assert len(select(np.ones(size), fraction).encrypted) == count


def test_ties_go_to_the_lowest_index():
    assert select([1, 2, 2, 2, 0], 0.4).encrypted.tolist() == [1, 2]
    assert select(np.arange(1000) % 2, 0.1).encrypted.tolist() == list(range(1, 200, 2))


@pytest.mark.parametrize("fraction", [-0.01, 1.01, np.nan, np.inf])
def test_fraction_outside(fraction):
    with pytest.raises(SelectionError, match="fraction"):
        select([1.0], fraction)


@pytest.mark.parametrize("bad", [[], [[1.0]], [np.nan], [np.inf], [-1.0]])
def test_bad_sensitivity(bad):
    with pytest.raises(SelectionError):
        select(bad, 0.5)


def test_measures():
    """Known answers: the mean of |J| over examples."""
    assert label_sensitivity([[1, -2], [-3, 0]]).tolist() == [2, 1]
    assert magnitude_sensitivity([[0.5, -4.0]]).tolist() == [0.5, 4.0]
    for bad in ([], [1.0], [[np.nan]]):
        with pytest.raises(SelectionError):
            label_sensitivity(bad)


def test_combining_clients():
    assert combine([[1, 0], [0, 4]], [3, 1]).tolist() == [0.75, 1.0]
    bad = [([], []), ([[1], [1, 2]], [1, 1]), ([[1]], [1, 2]), ([[1]], [0]), ([[1]], [-1]), ([[1]], [np.nan])]
    for maps, weights in bad:
        with pytest.raises(SelectionError):
            combine(maps, weights)


def test_other_shapes():
    chosen = select([1.0, 2.0], 0.5)
    with pytest.raises(SelectionError):
        chosen.split(np.ones(3))
    with pytest.raises(SelectionError):
        chosen.join(np.ones(2), np.ones(1))


def test_a_partly_encrypted_update(ckks):
    vector = np.random.default_rng(0).normal(size=500)
    chosen = select(magnitude_sensitivity(vector[None]), 0.1)
    secret, clear = chosen.split(vector)
    sent = encrypt(ckks.public, secret)
    assert sent.length == 50
    assert not set(np.round(clear, 12)) & set(np.round(secret, 12))
    assert np.abs(chosen.join(decrypt(ckks, sent), clear) - vector).max() < 1e-6


def test_what_stands_behind_is_encrypted_with_any_of_the_others():
    assert select([3.0, 1.0, 2.0], 0.3).followed_by(2).encrypted.tolist() == [0, 3, 4]
    assert select([3.0, 1.0], 0.0).followed_by(1).clear.tolist() == [0, 1, 2]
    assert select([3.0, 1.0], 1.0).followed_by(0).size == 2
