import copy
import dataclasses

import pytest
import torch
from torch import nn

from attacks import Knowledge, NotApplicable, Observation, reconstruct
from attacks.gradinversion import _sanity
from attacks.norms import batch_statistics, running_statistics, strangeness, watch
from tests.attacks.conftest import gradient, mlp


def normed(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def observed(seed=0, count=5, steps=1):
    """The model as sent, the update's observation with the buffers after training, and the batch."""
    x = torch.rand((count, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    sent = normed(seed)
    local = copy.deepcopy(sent)
    for _ in range(steps):
        local(x)
    update = gradient(copy.deepcopy(sent), x, torch.arange(count) % 3)
    return Observation(sent, update, "gradient", buffers=dict(local.named_buffers())), x


def test_buffers_after_one_step_give_the_batch_statistics_away():
    obs, x = observed()
    found = batch_statistics(obs, Knowledge((1, 8, 8), 3))
    read = obs.model[0](x).transpose(0, 1).flatten(1)
    assert torch.allclose(found["1.running_mean"], read.mean(1), atol=1e-5)
    assert torch.allclose(found["1.running_var"], read.var(1), atol=1e-4)


def test_strangeness_is_zero_for_the_batch_itself_and_not_for_another():
    obs, x = observed()
    model = copy.deepcopy(obs.model)
    seen = watch(model)
    statistics = batch_statistics(obs, Knowledge((1, 8, 8), 3))
    model(x)
    assert float(strangeness(seen, statistics)) < 1e-6
    model(1 - x)
    assert float(strangeness(seen, statistics)) > 1e-2
    assert torch.equal(running_statistics(obs)["1.running_mean"], torch.zeros(4))


def test_several_steps_or_no_buffers_are_not_applicable():
    know = Knowledge((1, 8, 8), 3, batch_size=5)
    several, _ = observed(steps=2)
    with pytest.raises(NotApplicable, match="exactly one local step"):
        reconstruct("gradinversion_batch_stats", several, know)
    bare = Observation(several.model, several.update, "gradient")
    with pytest.raises(NotApplicable, match="buffers after training"):
        reconstruct("gradinversion_batch_stats", bare, know)


@pytest.mark.parametrize("name", ["gradinversion", "gradinversion_batch_stats"])
def test_a_model_without_normalisation_is_not_applicable(name):
    x, y = torch.zeros(1, 64), torch.tensor([3])
    obs = Observation(mlp(0), gradient(mlp(0), x, y), "gradient")
    with pytest.raises(NotApplicable, match="BatchNorm"):
        reconstruct(name, obs, Knowledge((64,), 10, batch_size=1))


def test_wins_with_granted_statistics_too():
    case = _sanity()
    statistics = batch_statistics(case.observation, case.knowledge)
    obs = Observation(case.observation.model, case.observation.update, "gradient")
    know = dataclasses.replace(case.knowledge, batch_stats=statistics)
    assert case.won(reconstruct("gradinversion_batch_stats", obs, know, budget=case.budget))
