import copy
import dataclasses

import pytest
import torch
from torch import nn

from attacks import Budget, Knowledge, NotApplicable, Observation, reconstruct
from attacks.inconsistency import target_update
from attacks.metrics import psnr
from attacks.surgery import plant_silence
from tests.attacks.conftest import delta, gradient, mlp, pick

UNIT = (0.0, 1.0)
KNOW = Knowledge((64,), 10, batch_size=1, value_range=UNIT)


def summed(digits, model, muted, clients, update_of):
    """The sum over clients of one digit each, of whom only the first got the true model."""
    x, y, _ = pick(digits, clients, clients)
    parts = [update_of(muted if i else model, x[i : i + 1], y[i : i + 1]) for i in range(clients)]
    return x, y, {name: sum(part[name] for part in parts) for name in parts[0]}


@pytest.mark.parametrize("clients", [2, 10, 50, 100])
@pytest.mark.parametrize("kind", ["gradient", "delta"])
def test_the_target_comes_exactly_out_of_the_sum_whatever_the_number_of_clients(digits, clients, kind):
    model = mlp(clients)
    muted = plant_silence(model, KNOW)
    update_of = gradient if kind == "gradient" else lambda m, x, y: delta(m, x, y, 0.1, 5)
    x, y, total = summed(digits, model, muted.model, clients, update_of)
    know = dataclasses.replace(KNOW, planted=muted.planted)
    claim = reconstruct("model_inconsistency", Observation(model, total, kind, contributors=clients), know)
    assert psnr(claim.inputs, x[:1], UNIT) >= 100
    assert claim.labels.tolist() == y[:1].tolist()


def test_the_same_sum_of_honest_models_gives_nothing(digits):
    model = mlp(1)
    x, _, total = summed(digits, model, model, 50, gradient)
    know = dataclasses.replace(KNOW, planted=plant_silence(model, KNOW).planted)
    claim = reconstruct("model_inconsistency", Observation(model, total, "gradient", contributors=50), know)
    assert psnr(claim.inputs, x[:1], UNIT) < 20


def small(*layers):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(*(layer() for layer in layers))


MODELS = {
    "relu": lambda: mlp(0),
    "sigmoid": lambda: small(lambda: nn.Linear(64, 32), nn.Sigmoid, lambda: nn.Linear(32, 10)),
    "gelu": lambda: small(lambda: nn.Linear(64, 32), nn.GELU, lambda: nn.Linear(32, 10)),
    "convolution": lambda: small(
        lambda: nn.Unflatten(1, (1, 8, 8)),
        lambda: nn.Conv2d(1, 6, 3),
        nn.ReLU,
        lambda: nn.Conv2d(6, 6, 3),
        nn.ReLU,
        nn.Flatten,
        lambda: nn.Linear(96, 10),
    ),
    "norm": lambda: small(
        lambda: nn.Linear(64, 32, bias=False), lambda: nn.BatchNorm1d(32), nn.ReLU, lambda: nn.Linear(32, 10)
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_all_but_the_last_bias_falls_silent_on_data_never_probed(digits, name):
    model = MODELS[name]()
    before = copy.deepcopy(model.state_dict())
    muted = plant_silence(model, KNOW, target=3)
    assert muted.planted["target"] == 3
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    update = gradient(muted.model, digits[0][:50], digits[1][:50])
    assert {n for n, t in update.items() if t.any()} == {list(update)[-1]}
    assert set(muted.planted["silent"]) == set(list(update)[:-1])


def test_without_a_closed_form_the_target_is_matched(digits):
    model = MODELS["convolution"]()
    muted = plant_silence(model, KNOW)
    _, _, total = summed(digits, model, muted.model, 5, gradient)
    know = dataclasses.replace(KNOW, planted=muted.planted)
    obs = Observation(model, total, "gradient", contributors=5)
    alone = target_update(obs, know)
    x, y, _ = pick(digits, 5, 5)
    own = gradient(model, x[:1], y[:1])
    assert alone.contributors == 1
    assert set(alone.update) == set(muted.planted["silent"])
    assert all(torch.equal(alone.update[name], own[name]) for name in alone.update)
    budget = Budget(iterations=50, restarts=1)
    claim = reconstruct("model_inconsistency", obs, know, budget=budget)
    direct = reconstruct("inverting_gradients", Observation(model, alone.update, "gradient"), KNOW, budget=budget)
    assert torch.equal(claim.inputs, direct.inputs)
    assert claim.labels.tolist() == y[:1].tolist()


def test_what_is_missing_is_named(digits):
    model = mlp(0)
    update = gradient(model, digits[0][:1], digits[1][:1])
    know = dataclasses.replace(KNOW, planted={"kind": "imprint", "layer": "1"})
    with pytest.raises(NotApplicable, match=r"silence the other clients \(planted: imprint\)"):
        reconstruct("model_inconsistency", Observation(model, update, "gradient", contributors=2), know)
    muted = plant_silence(model, KNOW)
    lone = Observation(model, {"3.bias": update["3.bias"]}, "gradient")
    know = dataclasses.replace(KNOW, planted=muted.planted)
    with pytest.raises(NotApplicable, match="other clients are silent"):
        target_update(lone, know)


def test_a_model_that_cannot_be_silenced_is_refused():
    with pytest.raises(ValueError, match="silences the rest"):
        plant_silence(nn.Linear(64, 10), KNOW)
