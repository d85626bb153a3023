import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from attacks import metrics

UNIT = (0.0, 1.0)


def images(count, shape, seed=0):
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), claims=st.integers(1, 5), targets=st.integers(1, 5))
def test_match_is_the_cheapest_assignment(seed, claims, targets):
    a, b = images(claims, (3,), seed), images(targets, (3,), seed + 1)
    assigned = metrics.match(a, b)
    pairs = [(t, int(c)) for t, c in enumerate(assigned) if c >= 0]
    assert len(pairs) == min(claims, targets)
    assert len({c for _, c in pairs}) == len(pairs)
    cost = torch.cdist(b.double(), a.double())
    if claims >= targets:
        options = ([(t, c) for t, c in enumerate(p)] for p in itertools.permutations(range(claims), targets))
    else:
        options = ([(t, c) for c, t in enumerate(p)] for p in itertools.permutations(range(targets), claims))
    best = min(sum(float(cost[t, c]) for t, c in option) for option in options)
    assert sum(float(cost[t, c]) for t, c in pairs) == pytest.approx(best)


def test_match_undoes_a_shuffle_and_leaves_broken_claims_last():
    truth = images(6, (3, 8, 8))
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    assert torch.equal(order[metrics.match(truth[order], truth)], torch.arange(6))
    claims = torch.cat([torch.full((1, 3, 8, 8), torch.nan), truth[:5]])
    assigned = metrics.match(claims, truth)
    assert assigned[:5].tolist() == [1, 2, 3, 4, 5]
    assert assigned[5] == 0
    assert metrics.match(torch.full((2, 3), torch.inf), images(2, (3,))).sort().values.tolist() == [0, 1]


def test_a_wild_claim_cannot_drive_an_exact_one_from_its_target():
    truth = torch.tensor([[0.0], [1.0]])
    claims = torch.tensor([[0.0], [-30.0]])  # by squared error: 30^2 + 1 < 31^2
    assert metrics.match(claims, truth).tolist() == [0, 1]


def test_match_of_tokens_counts_positions():
    truth = torch.tensor([[1, 2, 3], [7, 8, 9]])
    assert metrics.match(torch.tensor([[7, 8, 1000], [1, 2, 4]]), truth).tolist() == [1, 0]


def test_mse_and_psnr_agree_with_scikit_image():
    a, b = images(4, (3, 8, 8), 1), images(4, (3, 8, 8), 2)
    for i, figure in enumerate(metrics.psnr(a, b, UNIT)):
        expected = peak_signal_noise_ratio(b[i].double().numpy(), a[i].double().numpy(), data_range=1.0)
        assert float(figure) == pytest.approx(expected)
    assert torch.allclose(metrics.mse(a, b), (a - b).double().square().mean((1, 2, 3)))


def test_psnr_is_uncapped_and_free_of_the_data_s_units():
    a, b = images(3, (3, 8, 8), 1), images(3, (3, 8, 8), 2)
    scaled = metrics.psnr(255 * a - 3, 255 * b - 3, (-3, 252))
    assert torch.allclose(scaled, metrics.psnr(a, b, UNIT), atol=1e-3)
    low, high = torch.tensor([0.0, -1.0, -2.0]), torch.tensor([1.0, 3.0, 5.0])
    width, offset = (high - low).reshape(3, 1, 1), low.reshape(3, 1, 1)
    channels = metrics.psnr(a * width + offset, b * width + offset, (low, high))
    assert torch.allclose(channels, metrics.psnr(a, b, UNIT), atol=1e-3)
    exact = metrics.psnr(a, a, UNIT)
    assert torch.isinf(exact).all()
    assert (metrics.cap(exact) == metrics.PSNR_CAP).all()
    assert metrics.psnr(b + 10, b, UNIT)[0] == pytest.approx(-20, abs=1e-3)


def test_clamp_moves_out_of_range_values_to_the_bound_alone():
    claims = torch.tensor([[-1.0, 0.5, 9.0]])
    assert metrics.clamp(claims, UNIT).tolist() == [[0.0, 0.5, 1.0]]
    assert metrics.clamp(claims, ((-2.0, 0.0, 0.0), (1.0, 0.25, 10.0))).tolist() == [[-1.0, 0.25, 9.0]]


@pytest.mark.parametrize("value_range", [(1.0, 0.0), ((0.0, 0.0), (1.0, 1.0))])
def test_a_range_that_does_not_fit_is_refused(value_range):
    with pytest.raises(ValueError, match="value_range"):
        metrics.psnr(images(1, (3,)), images(1, (3,)), value_range)


@pytest.mark.parametrize(("side", "window"), [(3, 3), (8, 3), (12, 5), (16, 7), (32, 7)])
def test_ssim_is_scikit_image_s_with_a_window_that_fits(side, window):
    a, b = images(2, (3, side, side), 1), images(2, (3, side, side), 2)
    expected = [
        structural_similarity(x.double().numpy(), y.double().numpy(), win_size=window, data_range=1.0, channel_axis=0)
        for x, y in zip(a, b, strict=True)
    ]
    assert metrics.ssim(a, b, UNIT).tolist() == pytest.approx(expected)
    assert metrics.ssim(a, a, UNIT).tolist() == pytest.approx([1, 1])


def test_ssim_of_too_small_images_is_refused():
    with pytest.raises(ValueError, match="3x3"):
        metrics.ssim(images(1, (1, 2, 9)), images(1, (1, 2, 9)), UNIT)


def test_fraction_recovered_counts_missing_claims_as_not_recovered():
    figures = torch.tensor([19.9, 20.0, 35.0, torch.inf, -torch.inf, torch.nan])
    assert metrics.fraction_recovered(figures) == {20.0: 3 / 6, 30.0: 2 / 6, 40.0: 1 / 6}
    with pytest.raises(ValueError, match="no targets"):
        metrics.fraction_recovered(torch.empty(0))


def test_identified_takes_the_nearest_of_the_whole_pool():
    truth, others = images(3, (2, 4, 4), 1), images(50, (2, 4, 4), 2)
    near = truth + 0.01 * images(3, (2, 4, 4), 3)
    hits, size = metrics.identified(near, truth, others)
    assert hits.tolist() == [True] * 3
    assert size == 53
    hits, _ = metrics.identified(others[:3], truth, others)
    assert not hits.any()
    hits, _ = metrics.identified(near[[1, 0, 2]], truth, others)
    assert hits.tolist() == [False, False, True]
    hits, _ = metrics.identified(torch.full_like(truth, torch.nan), truth, others)
    assert not hits.any()
    duplicate, _ = metrics.identified(truth, truth, torch.cat([truth, others]))
    assert duplicate.all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_label_accuracy_is_the_multiset_overlap(claimed, labels):
    rest, both = list(labels), 0
    for label in claimed:
        if label in rest:
            rest.remove(label)
            both += 1
    figure = metrics.label_accuracy(torch.tensor(claimed, dtype=torch.long), torch.tensor(labels))
    assert figure == pytest.approx(both / len(labels))


def test_columns_are_right_within_tolerance_or_by_their_largest_entry():
    truth = torch.tensor([[0.5, 0.0, 1.0, 0.0, 7.0], [0.1, 1.0, 0.0, 0.0, 2.0]])
    claims = torch.tensor([[0.55, 0.2, 0.4, 0.3, 7.4], [0.3, 0.2, 0.1, 0.9, 2.0]])
    hits = metrics.column_hits(claims, truth, widths=(1, 3, 1), tolerances=(0.1, 0.0, 0.5))
    assert hits.tolist() == [[True, True, True], [False, False, True]]
    assert metrics.exact_match(hits).tolist() == [True, False]
    with pytest.raises(ValueError, match="do not fit 5 features"):
        metrics.column_hits(claims, truth, widths=(1, 3), tolerances=(0.1, 0.0))


def test_token_accuracy_is_by_position():
    truth = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert metrics.token_accuracy(torch.tensor([[1, 2, 4, 3], [5, 6, 7, 8]]), truth).tolist() == [0.5, 1.0]


def test_bootstrap_is_seeded_covers_and_takes_infinity():
    def interval(values, seed=0, **options):
        return metrics.bootstrap_interval(values, np.random.default_rng(seed), **options)

    values = np.random.default_rng(1).normal(10, 2, 40)
    assert interval(values) == interval(values)
    assert interval(values) != interval(values, seed=1)
    low, high = interval(values)
    assert low <= np.median(values) <= high
    assert interval([3.0]) == (3.0, 3.0)
    assert interval([5.0, np.inf, np.inf, np.inf]) == (5.0, np.inf)
    with pytest.raises(ValueError, match="at least one"):
        interval([])


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
    draw = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        low, high = metrics.bootstrap_interval(draw.normal(0, 1, 40), draw, statistic=np.mean, resamples=400)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99
