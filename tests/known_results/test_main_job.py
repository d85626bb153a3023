"""The first attacks beside the published or closed-form figures; ``pytest -m slow tests/known_results -s`` prints the
table of docs/figures.md."""

import statistics

import pytest
import torch

from attacks import Knowledge, Observation, reconstruct
from attacks.metrics import label_accuracy, mse
from tests.attacks.conftest import delta, gradient, mlp, noised
from tests.attacks.pictures import attack, photo
from tests.attacks.test_inverting import baseline
from tests.known_results.ground import draw, load_dataset, matched, row

MEAN_IMAGE_DB = 11.35


def digits(seed, count=1):
    inputs, labels, public, generator = draw(load_dataset("digits", {}, 0), seed, count)
    return inputs.flatten(1), labels, public.flatten(1), generator


def test_analytic_from_a_gradient():
    decibels, right = [], 0
    for seed in range(200):
        x, y, _, _ = digits(seed)
        model = mlp(seed)
        claim = reconstruct("analytic", Observation(model, gradient(model, x, y), "gradient"), Knowledge((64,), 10, 1))
        decibels.append(-10 * float(torch.log10(mse(claim.inputs, x).clamp_min(1e-32))))
        right += claim.labels.tolist() == y.tolist()
    row("analytic, batch 1, 200 seeds, digits MLP: least PSNR", [min(decibels)], ">= 100 dB, labels 100 %")
    assert min(decibels) >= 100
    assert right == 200


@pytest.mark.parametrize("steps", [1, 5, 20])
@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_analytic_from_a_delta_of_unknown_rate(steps, rate):
    decibels = []
    for seed in range(20):
        x, y, _, _ = digits(seed)
        model = mlp(seed)
        observed = Observation(model, delta(model, x, y, rate, steps), "delta")
        decibels += matched(reconstruct("analytic", observed, Knowledge((64,), 10, 1)), x).tolist()
    row(f"analytic, delta of {steps} steps at rate {rate}: least of 20 seeds", [min(decibels)], ">= 90 dB")
    assert min(decibels) >= 90


def test_analytic_under_client_noise():
    medians = {}
    for z in (1e-3, 1e-2, 0.05, 0.1):
        decibels = []
        for seed in range(50):
            x, y, _, generator = digits(seed)
            model = mlp(seed)
            observed = Observation(model, noised(gradient(model, x, y), z, generator), "gradient")
            decibels += matched(reconstruct("analytic", observed, Knowledge((64,), 10, 1)), x).tolist()
        medians[z] = statistics.median(decibels)
        row(f"analytic under client noise, z = {z:g}, 50 seeds", decibels, "42, 14, 7 dB at 1e-3, 1e-2, 1e-1")
    assert medians[1e-3] > medians[1e-2] > medians[0.05] > medians[0.1]
    assert medians[1e-3] >= 39
    assert medians[1e-2] >= 11
    assert medians[0.1] >= 4
    assert medians[0.05] < MEAN_IMAGE_DB


@pytest.mark.parametrize("trained", [False, True])
def test_label_counts(trained):
    shares = []
    for seed in range(20):
        x, y, public, _ = digits(seed, 64)
        model = mlp(seed)
        if trained:
            _train(model, seed)
        know = Knowledge((64,), 10, batch_size=64, public=public[:200])
        claim = reconstruct("label_counts", Observation(model, gradient(model, x, y), "gradient"), know, seed=seed)
        shares.append(label_accuracy(claim.labels, y))
    row(f"label counts, batch 64, {'trained' if trained else 'untrained'}", shares, "-" if trained else ">= .95")
    assert trained or statistics.fmean(shares) >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["idlg", "dlg"])
def test_deep_leakage_from_a_sigmoid_lenet(name):
    _, decibels, right = attack(name, [photo("lenet", seed) for seed in range(10)])
    row(f"{name}, LeNet, 10 photos, default restarts", decibels, ">= 30 dB on >= 9, label right")
    recovered = [figure >= 30 and (label or name == "idlg") for figure, label in zip(decibels, right, strict=True)]
    assert sum(recovered) >= 9
    assert name == "dlg" or all(right)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_inverting_gradients_of_an_untrained_convnet():
    victims = [photo("convnet", seed) for seed in range(10)]
    _, decibels, _ = attack("inverting_gradients", victims)
    guesses = list(map(baseline, victims))
    row("inverting gradients, ConvNet, 10 photos, default budget", decibels, ">= 28 dB")
    row("best guess without an update, the same photos", guesses, "10 dB below")
    assert statistics.median(decibels) >= 28
    assert statistics.median(decibels) >= 10 + statistics.median(guesses)


def _train(model, seed):
    data = load_dataset("digits", {}, 0)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(1000 + seed)
    for _ in range(300):
        batch = torch.randperm(len(data), generator=generator)[:64]
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(data.inputs[batch].flatten(1)), data.labels[batch]).backward()
        optimiser.step()
