"""A search that matched the gradient and missed the picture is told as ill-conditioned, never as not broken."""

import torch
from torch import nn

from attacks import Knowledge, Observation, Reconstruction
from attacks.conditioning import doubt
from tests.attacks.conftest import gradient

KNOW = Knowledge((64,), 3, batch_size=1, value_range=(0.0, 1.0))


def seen(blind):
    """A model that does not look at its first ``blind`` features, the example, and its gradient past that layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 30, bias=False), nn.Tanh(), nn.Linear(30, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(64))
        model[0].weight[:, :blind] = 0
    x, y = torch.rand((1, 64), generator=torch.Generator().manual_seed(1)), torch.tensor([1])
    update = gradient(model, x, y)
    update.pop("0.weight")
    return Observation(model, update, "gradient"), x, y


def test_a_match_that_leaves_half_of_the_input_open_is_doubted_without_the_truth():
    obs, x, y = seen(blind=32)
    claim = torch.cat([1 - x[:, :32], x[:, 32:]], 1)  # the same gradient, another input
    assert doubt(obs, KNOW, Reconstruction(claim, y, torch.zeros(1))).startswith("not recovered, ill-conditioned")


def test_a_match_that_pins_the_input_down_and_a_far_miss_are_not_doubted():
    obs, x, y = seen(blind=0)
    assert doubt(obs, KNOW, Reconstruction(x, y, torch.zeros(1))) == ""
    obs, x, y = seen(blind=32)
    assert doubt(obs, KNOW, Reconstruction(1 - x, y, torch.zeros(1))) == ""


def test_what_has_no_jacobian_is_not_doubted():
    obs, x, _ = seen(blind=0)
    assert doubt(obs, KNOW, Reconstruction(x, None, torch.zeros(1))) == ""
    assert doubt(obs, KNOW, Reconstruction(x.repeat(2, 1), torch.tensor([1, 1]), torch.zeros(1))) == ""
