import copy
import dataclasses

import pytest
import torch
from torch import nn

from attacks import Budget, Knowledge, NotApplicable, Observation, reconstruct
from attacks.fishing import caught
from attacks.metrics import match, psnr
from attacks.registry import Case
from attacks.surgery import plant_feature_fishing, plant_fishing
from attacks.view import generator
from tests.attacks.conftest import delta, gradient, mlp, pick

UNIT = (0.0, 1.0)


def catch(digits, seed, batch, wanted, hidden=256):
    """A batch with ``wanted`` examples of class 3, the crafted model and what the server knows."""
    x, y, _ = pick(digits, seed, 800)
    threes, others = (y == 3).nonzero()[:wanted, 0], (y != 3).nonzero()[: batch - wanted, 0]
    chosen = torch.cat([threes, others])
    model = mlp(seed, hidden)
    know = Knowledge((64,), 10, batch_size=batch, value_range=UNIT)
    sent = plant_fishing(model, know, 3)
    return x[chosen], y[chosen], model, sent.model, dataclasses.replace(know, planted=sent.planted)


@pytest.mark.parametrize("kind", ["gradient", "delta"])
@pytest.mark.parametrize("batch", [16, 200])
def test_the_only_example_of_a_class_comes_out_of_a_batch_of_any_size(digits, kind, batch):
    x, y, _, sent, know = catch(digits, 0, batch, wanted=1)
    update = gradient(sent, x, y) if kind == "gradient" else delta(sent, x, y, 0.1, 1)
    know = know if kind == "gradient" else dataclasses.replace(know, learning_rate=0.1)
    claim = reconstruct("class_fishing", Observation(sent, update, kind), know)
    assert psnr(claim.inputs, x[:1], UNIT) >= 80


def test_an_honest_model_hides_that_example_in_a_batch_of_that_size(digits):
    x, y, model, _, know = catch(digits, 0, 200, wanted=1)
    claim = reconstruct("analytic", Observation(model, gradient(model, x, y), "gradient"), know)
    assert not (psnr(claim.inputs, x[:1].expand_as(claim.inputs), UNIT) > 30).any()


def test_a_few_examples_of_the_class_are_told_apart_and_counted(digits):
    x, y, _, sent, know = catch(digits, 1, 64, wanted=3, hidden=512)
    obs = Observation(sent, gradient(sent, x, y), "gradient")
    alone = caught(Case((obs,), know, generator(0)))
    assert alone.knowledge.labels.tolist() == [3, 3, 3]
    own = gradient(sent, x[:3], y[:3])
    for name, tensor in alone.observation.update.items():
        torch.testing.assert_close(tensor, own[name], atol=1e-6, rtol=1e-3)
    claim = reconstruct("class_fishing", obs, know)
    assert len(claim.inputs) == 3
    assert (psnr(claim.inputs[match(claim.inputs, x[:3])], x[:3], UNIT) > 30).all()


def test_the_sum_over_clients_is_fished_like_one_batch(digits):
    x, y, _, sent, know = catch(digits, 2, 80, wanted=1)
    parts = [gradient(sent, x[i : i + 20], y[i : i + 20]) for i in range(0, 80, 20)]
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    claim = reconstruct("class_fishing", Observation(sent, total, "gradient", contributors=4), know)
    assert len(claim.inputs) == 1
    assert psnr(claim.inputs, x[:1], UNIT) >= 80


def test_without_a_closed_form_the_class_is_matched(digits):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)
        )
    before = copy.deepcopy(model.state_dict())
    x, y, _, _, know = catch(digits, 3, 30, wanted=1)
    planted = plant_fishing(model, know, 3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    know = dataclasses.replace(know, planted=planted.planted)
    obs = Observation(planted.model, gradient(planted.model, x, y), "gradient")
    claim = reconstruct("class_fishing", obs, know, budget=Budget(iterations=20, restarts=1))
    assert claim.labels.tolist() == [3]
    assert claim.inputs.shape == (1, 64)


def test_what_is_missing_is_named(digits):
    x, y, model, sent, know = catch(digits, 4, 10, wanted=0)
    with pytest.raises(NotApplicable, match="an example of class 3"):
        reconstruct("class_fishing", Observation(sent, gradient(sent, x, y), "gradient"), know)
    other = dataclasses.replace(know, planted={"kind": "traps"})
    with pytest.raises(NotApplicable, match=r"fishes \(planted: traps\)"):
        reconstruct("class_fishing", Observation(model, gradient(model, x, y), "gradient"), other)
    with pytest.raises(ValueError, match="target_class = 10"):
        plant_fishing(model, know, 10)
    with pytest.raises(ValueError, match="dense output layer"):
        plant_fishing(nn.Sequential(nn.Linear(64, 10), nn.Softmax(1)), know, 1)


def one_of_several(digits, seed, wanted, others, **options):
    """A batch with ``wanted`` threes among ``others``, a smooth model that fishes by a feature, its gradient."""
    x, y, _ = pick(digits, seed, len(digits[0]))
    threes, rest = (y == 3).nonzero().flatten(), (y != 3).nonzero().flatten()
    chosen, public = torch.cat([threes[:wanted], rest[:others]]), torch.cat([threes[wanted:], rest[others:]])
    model = mlp(seed, 128)
    model[2] = nn.Tanh()
    know = Knowledge((64,), 10, batch_size=wanted + others, value_range=UNIT)
    granted = dataclasses.replace(know, public=x[public], public_labels=y[public])
    sent = plant_feature_fishing(model, granted, 3, among=wanted, **options)
    know = dataclasses.replace(know, planted=sent.planted)
    return x[chosen], y[chosen], model, sent, know


def test_one_of_eight_of_a_class_is_isolated_about_as_often_as_theory_says(digits):
    alone, by_class = [], []
    for seed in range(30):
        x, y, model, sent, know = one_of_several(digits, seed, wanted=8, others=24)
        try:
            claim = reconstruct(
                "feature_fishing", Observation(sent.model, gradient(sent.model, x, y), "gradient"), know
            )
        except NotApplicable:
            alone.append(False)
        else:
            alone.append(len(claim.inputs) == 1 and bool((psnr(claim.inputs.expand(8, -1), x[:8], UNIT) > 30).any()))
        plain = plant_fishing(model, know, 3)
        obs = Observation(plain.model, gradient(plain.model, x, y), "gradient")
        claim = reconstruct("class_fishing", obs, dataclasses.replace(know, planted=plain.planted))
        by_class.append(bool((psnr(claim.inputs[match(claim.inputs, x[:8])], x[:8], UNIT) > 30).any()))
    assert sum(alone) / 30 >= 0.39 - 0.18  # two standard deviations below theory
    assert not any(by_class)


def test_the_least_three_like_of_the_threes_is_the_one_that_answers_in_a_batch_or_a_sum(digits):
    x, y, _, sent, know = one_of_several(digits, 0, wanted=8, others=24)
    scores = sent.model(x)[:, 3].detach()
    lowest = scores[:8].argsort()
    cut = scores[lowest[:2]].mean() - float(torch.tensor(9.0).log())  # between the lowest and the next
    with torch.no_grad():
        sent.model[3].bias[3] -= cut
        x, y = x[:9], y[:9]
        x[8], y[8] = x[lowest[0]], 4  # of another class, and below the cut
    assert (sent.model(x)[lowest[1:], 3] > 3).all()
    know = dataclasses.replace(know, batch_size=9)
    single = reconstruct("feature_fishing", Observation(sent.model, gradient(sent.model, x, y), "gradient"), know)
    parts = [gradient(sent.model, x[i : i + 3], y[i : i + 3]) for i in range(0, 9, 3)]
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    summed = reconstruct("feature_fishing", Observation(sent.model, total, "gradient", contributors=3), know)
    for claim in (single, summed):
        assert claim.labels.tolist() == [3]
        assert psnr(claim.inputs, x[lowest[:1]], UNIT) > 40


def test_where_others_answer_or_none_does_no_example_is_claimed(digits):
    x, y, _, sent, know = one_of_several(digits, 1, wanted=8, others=24)
    obs = Observation(sent.model, gradient(sent.model, x[:8], y[:8] * 0 + 5), "gradient")
    with pytest.raises(NotApplicable, match="below the cut"):
        reconstruct("feature_fishing", obs, know)
    with pytest.raises(NotApplicable, match=r"fishes \(planted: feature_fishing\)"):
        reconstruct("class_fishing", obs, know)


def test_a_feature_that_public_data_cannot_set_is_refused(digits):
    model, know = mlp(0), Knowledge((64,), 10, public=digits[0], public_labels=digits[1])
    with pytest.raises(ValueError, match="public_labels: the feature and its cut"):
        plant_feature_fishing(model, dataclasses.replace(know, public_labels=None), 3, among=8)
    scarce = dataclasses.replace(know, public=digits[0][:4], public_labels=digits[1][:4])
    with pytest.raises(ValueError, match="target_class = 3: the cut takes two public examples"):
        plant_feature_fishing(model, scarce, 3, among=8)
    with pytest.raises(ValueError, match="target_class = 12"):
        plant_feature_fishing(model, know, 12, among=8)
