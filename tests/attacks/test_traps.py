import copy

import pytest
import torch
from torch import nn

from attacks import Knowledge, NotApplicable, Observation, reconstruct
from attacks.metrics import match, psnr
from attacks.surgery import plant_traps
from attacks.surgery.traps import expected_share
from tests.attacks.conftest import gradient, mlp

UNIT = (0.0, 1.0)


def trial(digits, seed, batch, by, rows=1000):
    """The share of a batch above 30 dB, the share the surgery announced, and that of the untouched model."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(digits[0]), generator=generator)
    x, y = digits[0][order[:batch]], digits[1][order[:batch]]
    know = Knowledge((64,), 10, batch_size=batch, value_range=UNIT, public=digits[0][order[batch:]])
    model = mlp(seed, rows)
    planted = plant_traps(model, know, batch=batch, generator=generator, by=by)
    shares = []
    for name, sent in (("trap_weights", planted.model), ("analytic", model)):
        know = Knowledge((64,), 10, batch_size=batch, value_range=UNIT, planted=planted.planted)
        claim = reconstruct(name, Observation(sent, gradient(sent, x, y), "gradient"), know)
        assert len(claim.inputs) <= batch
        assigned = match(claim.inputs, x)
        held = assigned >= 0
        shares.append(float((psnr(claim.inputs[assigned[held]], x[held], UNIT) > 30).sum()) / batch)
    announced = float(planted.notes[0].split("%")[0]) / 100
    return shares[0], announced, shares[1]


@pytest.mark.parametrize("by", ["scale", "bias"])
def test_traps_hold_most_of_a_batch_and_the_surgery_foretells_it(digits, by):
    found = torch.tensor([trial(digits, seed, 20, by) for seed in range(4)]).mean(0)
    assert found[0] >= 0.8
    assert (found[0] - found[1]).abs() < 0.1


def test_traps_beat_the_honest_model_on_a_larger_batch_and_biases_beat_the_scale(digits):
    by_scale, _, honest = trial(digits, 0, 100, "scale")
    by_bias, _, _ = trial(digits, 0, 100, "bias")
    assert honest + 0.05 < by_scale < by_bias - 0.1


def test_a_model_without_a_dense_input_layer_gets_traps_in_front():
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    before = copy.deepcopy(model.state_dict())
    public, x = torch.rand((300, 1, 8, 8), generator=generator), torch.rand((6, 1, 8, 8), generator=generator)
    know = Knowledge((1, 8, 8), 5, batch_size=6, value_range=UNIT, public=public)
    planted = plant_traps(model, know, batch=6, generator=generator, rows=200)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    know = Knowledge((1, 8, 8), 5, batch_size=6, value_range=UNIT, planted=planted.planted)
    update = gradient(planted.model, x, torch.arange(6) % 5)
    claim = reconstruct("trap_weights", Observation(planted.model, update, "gradient"), know)
    assert (torch.cdist(x.flatten(1), claim.inputs.flatten(1)).min(1).values < 1e-2).sum() >= 5


def test_the_expected_share_is_that_of_drawn_batches():
    generator = torch.Generator().manual_seed(1)
    active = torch.rand((400, 60), generator=generator) < 0.08
    owned = []
    for _ in range(300):
        batch = active[torch.randperm(400, generator=generator)[:10]]
        owned.append(float((batch[:, batch.sum(0) == 1].any(1)).double().mean()))
    assert expected_share(active, 10) == pytest.approx(sum(owned) / len(owned), abs=0.03)


def test_what_is_missing_is_named(digits):
    model = mlp(0)
    update = gradient(model, digits[0][:1], digits[1][:1])
    know = Knowledge((64,), 10, planted={"kind": "imprint", "layer": "1"})
    with pytest.raises(NotApplicable, match=r"trap weights \(planted: imprint\)"):
        reconstruct("trap_weights", Observation(model, update, "gradient"), know)
    with pytest.raises(ValueError, match=r"knowledge\.public"):
        plant_traps(model, know, batch=2, generator=torch.Generator())
