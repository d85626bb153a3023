"""What a curious server reads off a sum while secure aggregation does its job; ``pytest -m slow -s`` prints it."""

import functools
import statistics

import numpy as np
import pytest
import torch

from attacks import Reconstruction, reconstruct
from attacks.metrics import bootstrap_interval, label_accuracy, psnr
from attacks.prior import nearest_public, proportional_labels
from tests.attacks.conftest import gradient
from tests.attacks.test_sratta import rounds
from tests.known_results.ground import (
    UNIT,
    Budget,
    Knowledge,
    Observation,
    build_model,
    draw,
    load_dataset,
    matched,
    row,
    summed,
)


def aggregate(data, model, seed, clients, each=1):
    """Private images and labels, a fifth of the rest as public data, and the sum of the clients' gradients."""
    x, y, rest, generator = draw(data, seed, clients * each)
    public = rest[: len(data) // 5]
    net = build_model(model[0], data, model[1], seed)
    total = summed([gradient(net, *part) for part in zip(x.split(each), y.split(each), strict=True)])
    return x, y, public, Observation(net, total, "gradient", contributors=clients), generator


def guesses(x, public):
    """Decibels (B,) of the better of two guesses without an update: the mean, and the nearest public image."""
    return torch.stack(
        [psnr(guess, x, UNIT) for guess in (public.mean(0).expand_as(x), nearest_public(x, public))]
    ).amax(0)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("clients", "each", "width"), [(2, 4, 256), (8, 4, 256), (10, 10, 1024)])
def test_cocktail_party_on_sums_of_photographs(clients, each, width):
    data = load_dataset("photos", {}, 0)
    means, shares, guessed, disaggregated = [], [], [], []
    for seed in range(5):
        x, _, public, obs, _ = aggregate(data, ("mlp", {"hidden": [width]}), seed, clients, each)
        know = Knowledge(data.input_shape, data.num_classes, batch_size=len(x), value_range=UNIT)
        found = matched(reconstruct("cocktail_party", obs, know, seed=seed, budget=Budget(restarts=1)), x)
        means.append(float(found.clamp_max(60).mean()))
        shares.append(float((found > 20).double().mean()))
        guessed.append(float(guesses(x, public).mean()))
        disaggregated.append(float((matched(reconstruct("analytic", obs, know), x) > 20).double().mean()))
    what = f"sum of {clients} clients x {each} photos, width {width}"
    row(f"{what}, cocktail party (mean dB, capped at 60)", means, "over the best guess; by 5 dB for 8 images")
    row(f"{what}, best guess without an update (mean dB)", guessed, "-")
    row(f"{what}, cocktail party: share above 20 dB", shares, "-")
    row(f"{what}, analytic: share above 20 dB", disaggregated, "-")
    margin = 5 if clients * each <= 8 else 0
    assert statistics.median(means) >= statistics.median(guessed) + margin


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sratta_over_ten_rounds():
    data = load_dataset("digits", {}, 0)
    shares, precision, traced, right = [], [], 0, 0
    for seed in range(5):
        x, y, _, generator = draw(data, seed, 50)
        model = build_model("mlp", data, {"hidden": [1024]}, seed)
        seen = list(rounds(model, x, y, clients=5, batch=2, rate=0.5, count=10, draw=generator))
        claim = reconstruct("sratta", seen, Knowledge(data.input_shape, 10, value_range=UNIT))
        error, owner = torch.cdist(claim.inputs.flatten(1), x.flatten(1)).min(1)
        shares.append(len(owner[error < 1e-2].unique()) / len(x))
        precision.append(float((error < 1e-2).double().mean()))
        client = owner // 10
        for group in claim.groups[claim.groups >= 0].unique():
            members = client[claim.groups == group]
            traced += len(members) - 1
            right += int((members == members.mode().values).sum()) - 1
    row("sratta, 5 clients x 10 digits, 10 rounds, width 1024: share recovered exactly", shares, ">= .4")
    row("sratta: share of its claims that are samples", precision, ">= .9")
    row(f"sratta: {traced} links between samples, of one client", [right / traced], ">= .9")
    assert statistics.median(shares) >= 0.4
    assert statistics.median(precision) >= 0.9
    assert right >= 0.9 * traced


HONEST = {
    "mlp": ({"hidden": [128]}, ("analytic", "cocktail_party", "sratta")),
    "convnet": ({}, ("inverting_gradients",)),
}
ALONE = "of 100 digits a few wake some neuron of a first dense layer alone: honest sums give those away exactly"


@functools.cache
def honest(name):
    """Per attack, over 3 seeds: each image's gain over its best guess (dB), and how many of 100 were rebuilt."""
    options, battery = HONEST[name]
    data = load_dataset("digits", {}, 0)
    found = {attack: ([], []) for attack in battery}
    for seed in range(3):
        x, y, public, obs, _ = aggregate(data, (name, options), seed, 100)
        know = Knowledge(data.input_shape, 10, batch_size=100, labels=y.sort().values, value_range=UNIT)
        floor = guesses(x, public)
        for attack, (gains, rebuilt) in found.items():
            decibels = matched(reconstruct(attack, obs, know, seed=seed, budget=Budget(iterations=60, restarts=1)), x)
            gains += (decibels.clamp_min(-20) - floor).tolist()
            rebuilt.append(int(((decibels >= 20) & (decibels >= floor + 3)).sum()))
    return found


@pytest.mark.parametrize("name", list(HONEST))
@pytest.mark.timeout(300)
def test_the_median_image_of_an_honest_hundred_is_no_better_than_its_best_guess(name):
    for attack, (gains, rebuilt) in honest(name).items():
        low, high = bootstrap_interval(gains, np.random.default_rng(0))
        row(f"honest aggregate of 100, {name}, {attack}: median gain (dB)", [statistics.median(gains)], "<= interval")
        what = f"honest aggregate of 100, {name}, {attack}: images rebuilt; gain in [{low:.1f}, {high:.1f}] dB"
        row(what, rebuilt, "0")
        assert low <= 0


@pytest.mark.parametrize("name", [pytest.param("mlp", marks=pytest.mark.xfail(reason=ALONE, strict=True)), "convnet"])
@pytest.mark.timeout(300)
def test_an_honest_hundred_gives_no_single_image_away(name):
    assert not any(count for _, rebuilt in honest(name).values() for count in rebuilt)


def test_the_honest_aggregate_gives_its_label_counts_away():
    data = load_dataset("digits", {}, 0)
    figures, guessed = [], []
    for seed in range(5):
        _, y, public, obs, _ = aggregate(data, ("mlp", {"hidden": [128]}), seed, 100)
        know = Knowledge(data.input_shape, 10, batch_size=100, public=public)
        claim = reconstruct("label_counts", obs, know)
        assert isinstance(claim, Reconstruction)
        figures.append(label_accuracy(claim.labels, y))
        guessed.append(label_accuracy(proportional_labels(data.labels, 100), y))
    row("honest aggregate of 100: class counts of the sum", figures, "the sum's own, of nobody in particular")
    row("the same, guessed from the population", guessed, "-")
    assert statistics.median(figures) > statistics.median(guessed)
