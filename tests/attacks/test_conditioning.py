import pytest
import torch
from torch import nn

from attacks import Knowledge, Observation, Reconstruction
from attacks.conditioning import conditioning
from tests.attacks.conftest import gradient

WIDTH = 640
KNOW = Knowledge((WIDTH,), 3, batch_size=1, value_range=(0.0, 1.0))


def judged(blind, mismatch, batch=1):
    """The conditioning of a model that does not look at its first ``blind`` features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(WIDTH, 30, bias=False), nn.Tanh(), nn.Linear(30, 3))
    draw = torch.Generator().manual_seed(1)
    x, y = torch.rand((batch, WIDTH), generator=draw), torch.arange(batch) % 3
    model.insert(0, nn.Linear(WIDTH, WIDTH, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(WIDTH))
        model[0].weight[:, :blind] = 0
    update = gradient(model, x, y)
    update.pop("0.weight")  # a frozen layer, which would show what it reads
    know = Knowledge((WIDTH,), 3, batch_size=batch, value_range=(0.0, 1.0))
    claim = Reconstruction(x, y, torch.zeros(1))
    return conditioning(Observation(model, update, "gradient"), know, claim, mismatch)


@pytest.mark.parametrize("blind", [0, 64, 320])
def test_features_that_the_gradient_does_not_show_are_open_however_well_it_is_matched(blind):
    found = judged(blind, 1e-6)
    assert found.undetermined == pytest.approx(blind / WIDTH, abs=0.1)
    assert found.ill == (blind > 160)
    assert (found.undetermined == 0) == (blind == 0)
    assert found.smallest <= found.largest
    assert ("ill-conditioned" in found.says) == found.ill


def test_a_coarser_match_leaves_more_open():
    shares = [judged(0, mismatch).undetermined for mismatch in (1e-6, 0.3, 3.0, 1e3)]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == pytest.approx(1)


def test_the_claim_s_own_mismatch_is_the_default():
    assert judged(0, None).mismatch < 1e-6


def test_a_claim_without_inputs_has_no_jacobian():
    model = nn.Linear(WIDTH, 3)
    obs = Observation(model, {n: torch.zeros_like(p) for n, p in model.named_parameters()}, "gradient")
    with pytest.raises(ValueError, match="lacks them"):
        conditioning(obs, KNOW, Reconstruction(None, None, torch.zeros(1)))
