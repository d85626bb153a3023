import dataclasses

import pytest
import torch
from torch import nn

from attacks import Knowledge, NotApplicable, Observation, available, reconstruct
from attacks.losses import LOSSES
from attacks.matching import local_steps
from attacks.metrics import label_accuracy
from attacks.optimise import labels_of
from attacks.registry import Case
from tests.attacks.conftest import gradient, mlp
from tests.attacks.test_fedavg import train


def skewed(digits, seed, count=64, classes=3):
    """A batch of few classes, and disjoint public data of all of them."""
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(digits[0]), generator=draw)
    public, pool = order[:300], order[300:]
    held = torch.isin(digits[1][pool], torch.randperm(10, generator=draw)[:classes]).nonzero()[:, 0]
    chosen = pool[held[torch.randperm(len(held), generator=draw)[:count]]]
    return digits[0][chosen], digits[1][chosen], digits[0][public], digits[1][public]


def accuracy(digits, name, *, seeds=4, epochs=0, trained=0, labelled=True):
    total = 0.0
    for seed in range(seeds):
        x, y, public, public_labels = skewed(digits, seed)
        model = mlp(seed)
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        draw = torch.Generator().manual_seed(1000 + seed)
        for _ in range(trained):
            batch = torch.randint(len(public), (64,), generator=draw)
            optimiser.zero_grad()
            LOSSES["cross_entropy"](model(public[batch]), public_labels[batch]).backward()
            optimiser.step()
        facts = {"learning_rate": 0.1, "local_batch_size": 8, "local_epochs": epochs} if epochs else {}
        know = Knowledge(
            (64,), 10, batch_size=64, public=public, public_labels=public_labels if labelled else None, **facts
        )
        update = train(model, x, y, 0.1, local_steps(know)) if epochs else gradient(model, x, y)
        obs = Observation(model, update, "delta" if epochs else "gradient")
        total += label_accuracy(reconstruct(name, obs, know).labels, y) / seeds
    return total


def test_wins_its_sanity_case():
    sanity = available()["ilrg"].sanity()
    assert sanity.won(reconstruct("ilrg", sanity.observation, sanity.knowledge))


def test_counts_repeats_before_training(digits):
    assert accuracy(digits, "ilrg") >= 0.95
    assert accuracy(digits, "ilrg", labelled=False) >= 0.9


def test_beats_mean_residuals_over_several_epochs_and_at_a_trained_model(digits):
    assert accuracy(digits, "ilrg", epochs=5) >= accuracy(digits, "label_counts", epochs=5) + 0.1
    assert accuracy(digits, "ilrg", trained=100) >= accuracy(digits, "label_counts", trained=100) + 0.1


def test_is_the_same_for_the_same_seed_and_leaves_the_model_alone(digits):
    x, y, public, labels = skewed(digits, 7)
    model = mlp(7)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    know = Knowledge((64,), 10, batch_size=64, public=public, public_labels=labels, learning_rate=0.1, local_steps=4)
    obs = Observation(model, gradient(model, x, y), "delta")
    assert torch.equal(*(reconstruct("ilrg", obs, know, seed=3).labels for _ in "12"))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_what_it_cannot_read_is_not_applicable(digits):
    x, y, _, _ = skewed(digits, 0, count=4)
    model = mlp(0)
    obs = Observation(model, gradient(model, x, y), "delta")
    with pytest.raises(NotApplicable, match="learning_rate"):
        reconstruct("ilrg", obs, Knowledge((64,), 10, batch_size=4))
    with pytest.raises(NotApplicable, match="batch_size"):
        reconstruct("ilrg", obs, Knowledge((64,), 10))
    headless = nn.Sequential(nn.Linear(64, 10), nn.LogSoftmax(1))
    with pytest.raises(NotApplicable, match="output layer"):
        reconstruct("ilrg", Observation(headless, gradient(headless, x, y), "gradient"), Knowledge((64,), 10, 4))
    zero = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    assert not reconstruct("ilrg", Observation(model, zero, "gradient"), Knowledge((64,), 10, 4)).converged


def test_gradient_matching_takes_these_labels_where_public_ones_are_granted(digits):
    x, y, public, labels = skewed(digits, 3)
    model = mlp(3)
    know = Knowledge((64,), 10, 64, public=public, public_labels=labels, learning_rate=0.1, local_steps=40)
    obs = Observation(model, train(model, x, y, 0.1, local_steps(know)), "delta")

    def with_seed(know):
        return Case((obs,), know, torch.Generator().manual_seed(0))

    assert labels_of(with_seed(know)).equal(reconstruct("ilrg", obs, know, seed=0).labels)
    unlabelled = dataclasses.replace(know, public_labels=None)
    assert label_accuracy(labels_of(with_seed(know)), y) >= label_accuracy(labels_of(with_seed(unlabelled)), y)
