"""Closed forms beside what was published, or what guessing gives. ``pytest -m slow -s`` prints the table."""

import statistics

import pytest
import torch
from torch import nn

from attacks import reconstruct
from attacks.metrics import label_accuracy, psnr
from attacks.prior import proportional_labels
from tests.attacks.conftest import gradient
from tests.attacks.test_ilrg import skewed
from tests.known_results.ground import UNIT, Knowledge, Observation, build_model, draw, load_dataset, row


@pytest.mark.parametrize(("dim", "least"), [(32, 20), (64, 40), (128, 60)])
def test_april_rebuilds_photographs_as_far_as_the_rank_goes(dim, least):
    data = load_dataset("photos", {}, 0)
    figures = []
    for seed in range(5):
        x, y, _, _ = draw(data, seed, 1)
        model = build_model("vit", data, {"dim": dim}, seed)
        know = Knowledge(data.input_shape, data.num_classes, batch_size=1, value_range=UNIT)
        claim = reconstruct("april", Observation(model, gradient(model, x, y), "gradient"), know)
        figures.append(float(psnr(claim.inputs, x, UNIT)))
    row(f"april, 64 patches, width {dim}, batch 1", figures, "published: 23.9 dB (vit_small, ImageNet)")
    assert statistics.median(figures) >= least


def test_label_counts_of_a_batch_of_three_classes():
    data = load_dataset("digits", {}, 0)
    inputs = data.inputs.flatten(1), data.labels
    figures, guessed = [], []
    for seed in range(10):
        x, y, public, labels = skewed(inputs, seed)
        model = build_model("mlp", data, {}, seed)
        know = Knowledge((64,), 10, batch_size=64, public=public, public_labels=labels)
        claim = reconstruct("ilrg", Observation(model, gradient(model, x, y), "gradient"), know)
        figures.append(label_accuracy(claim.labels, y))
        guessed.append(label_accuracy(proportional_labels(labels, 64), y))
    row("ilrg, batch 64 of 3 classes, untrained", figures, ">= .96 (published, untrained)")
    row("the same, guessed from public labels", guessed, "-")
    assert statistics.fmean(figures) >= 0.96


def cnn6(classes, seed):
    """The network of the R-GAP paper: six convolutions and a dense layer, no biases, LeakyReLU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers, before = [], 3
        for channels, kernel, stride, padding in (
            (12, 4, 2, 2), (36, 3, 2, 1), (64, 3, 1, 1), (64, 3, 1, 1), (64, 3, 2, 1), (128, 3, 1, 1)
        ):  # fmt: skip
            layers += [nn.Conv2d(before, channels, kernel, stride, padding, bias=False), nn.LeakyReLU(0.2)]
            before = channels
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(3200, classes, bias=False))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("network", "least", "published"), [
    pytest.param("CNN6", 49, "published: 49.0 dB (CIFAR-10)", marks=pytest.mark.slow),
    ("lenet", 49, "-"),
])  # fmt: skip
def test_a_chain_walked_back_layer_by_layer(network, least, published):
    data = load_dataset("photos", {}, 0)
    figures = []
    for seed in range(3 if network == "CNN6" else 5):
        x, y, _, _ = draw(data, seed, 1)
        model = cnn6(data.num_classes, seed) if network == "CNN6" else build_model(network, data, {}, seed)
        know = Knowledge(data.input_shape, data.num_classes, batch_size=1, value_range=UNIT)
        claim = reconstruct("rgap", Observation(model, gradient(model, x, y), "gradient"), know)
        figures.append(float(psnr(claim.inputs, x, UNIT)))
    row(f"rgap, {network}, batch 1", figures, published)
    assert statistics.median(figures) >= least
