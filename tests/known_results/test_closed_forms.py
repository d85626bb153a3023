"""Closed forms beside what was published, or what guessing gives. ``pytest -m slow -s`` prints the table."""

import statistics

import pytest

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
