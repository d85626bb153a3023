import copy

import pytest
import torch

from attacks import Knowledge
from attacks.detect import digest, disagreement, examine
from attacks.surgery import plant_feature_fishing, plant_imprint, plant_silence, plant_traps
from tests.attacks.conftest import mlp, pick

KNOW = Knowledge((64,), 10, batch_size=16, value_range=(0.0, 1.0))


def crafted(digits, name):
    x, y, generator = pick(digits, 0, 400)
    know = Knowledge((64,), 10, public=x)
    labelled = Knowledge((64,), 10, public=x, public_labels=y)
    model = mlp(1, 256)
    makers = {
        "imprint": lambda: plant_imprint(model, x, bins=128, generator=generator, num_classes=10),
        "hats": lambda: plant_imprint(model, x, bins=128, generator=generator, num_classes=10, hats=True),
        "traps": lambda: plant_traps(model, know, batch=16, generator=generator),
        "traps by bias": lambda: plant_traps(model, know, batch=16, generator=generator, by="bias"),
        "silence": lambda: plant_silence(model, know),
        "one of a class": lambda: plant_feature_fishing(model, labelled, 3, among=8),
    }
    return makers[name]().model


def suspicious(received, trusted, digits, seed=7, batch=16):
    x, y, _ = pick(digits, seed, batch)
    return {finding.signal for finding in examine(received, trusted, x, y) if finding.suspicious}


@pytest.mark.parametrize(
    ("name", "signals"),
    [
        ("imprint", {"architecture", "parallel_rows"}),
        ("hats", {"architecture", "parallel_rows", "dead_rows", "scarce_rows"}),
        ("traps", {"scarce_rows"}),
        ("traps by bias", {"scarce_rows"}),
        ("silence", {"dead_rows", "scarce_rows"}),
        ("one of a class", {"gradient_snr"}),
    ],
)
def test_every_crafted_model_shows(digits, name, signals):
    received = crafted(digits, name)
    before = copy.deepcopy(received.state_dict())
    assert suspicious(received, mlp(2, 256), digits) >= signals
    assert all(torch.equal(tensor, before[key]) for key, tensor in received.state_dict().items())
    assert all(p.grad is None for p in received.parameters())


@pytest.mark.parametrize("batch", [4, 16, 48])
def test_an_honest_model_raises_no_alarm(digits, batch):
    for seed in range(6):
        assert not suspicious(mlp(seed, 128), mlp(seed + 100, 128), digits, seed, batch)


def test_one_example_that_drowns_the_others_is_a_signal(digits):
    model = mlp(0)
    x, _, _ = pick(digits, 0, 6)
    x = torch.cat([x, 100 * x[:1]])
    wrong = model(x).argmin(1)
    found = {f.signal: f for f in examine(model, model, x, wrong)}
    assert found["gradient_snr"].value > 5
    assert not found["gradient_snr"].suspicious  # the trusted model shows it on the same data
    assert "trusted" in found["gradient_snr"].says


def test_model_hashes_tell_who_was_sent_something_else():
    model, other = mlp(0), mlp(0)
    with torch.no_grad():
        other[1].weight[3, 5] += 1e-7
    assert digest(model) == digest(copy.deepcopy(model))
    assert digest(model) != digest(other)
    honest = disagreement({client: digest(model) for client in range(4)})
    assert not honest.suspicious
    sent = {client: digest(plant_silence(model, KNOW).model if client else model) for client in range(4)}
    finding = disagreement(sent)
    assert finding.suspicious
    assert finding.where == "0"
    assert finding.value == 0.25


def test_a_single_example_cannot_be_compared(digits):
    with pytest.raises(ValueError, match="at least two"):
        examine(mlp(0), mlp(1), digits[0][:1], digits[1][:1])
