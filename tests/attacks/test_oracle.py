import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attacks import ACCESS, AccessDenied, Oracle, QueryBudgetExceeded, UnknownCaller
from attacks.controls import LabelOnly, Noise, Rounding, Temperature, TopK, perturbed

FEATURES, CLASSES = 4, 5


@pytest.fixture(scope="module")
def model():
    layer = nn.Linear(FEATURES, CLASSES)
    with torch.no_grad():
        layer.weight.copy_(torch.randn((CLASSES, FEATURES), generator=torch.Generator().manual_seed(0)))
        layer.bias.zero_()
    return nn.Sequential(nn.Dropout(0.5), layer).train()


@pytest.fixture(scope="module")
def inputs():
    return torch.rand((6, FEATURES), generator=torch.Generator().manual_seed(1))


def oracle(model, **options):
    return Oracle(model, num_classes=CLASSES, **options)


def test_answers_in_evaluation_mode_and_leaves_the_model_in_the_mode_it_had(model, inputs):
    asked = oracle(model)
    assert torch.equal(asked.confidences(inputs), model[1](inputs).softmax(1))
    assert torch.equal(asked.labels(inputs), model[1](inputs).argmax(1))
    assert model.training


@pytest.mark.parametrize("access", ACCESS)
def test_every_level_tells_the_same_labels_and_only_white_box_the_weights(model, inputs, access):
    asked = oracle(model, access=access)
    assert torch.equal(asked.labels(inputs), model[1](inputs).argmax(1))
    if access == "white_box":
        assert torch.equal(asked.model[1].weight, model[1].weight)
    else:
        with pytest.raises(AccessDenied, match="weights are not answered"):
            _ = asked.model


def test_coarser_levels_tell_less_of_the_confidences(model, inputs):
    full = oracle(model).confidences(inputs)
    top = oracle(model, access="top_k", top=2).confidences(inputs)
    assert torch.equal((top > 0).sum(1), torch.full((6,), 2))
    assert torch.equal(top[top > 0], full[top > 0])
    assert torch.equal(oracle(model, access="rounded", decimals=1).confidences(inputs), full.round(decimals=1))
    with pytest.raises(AccessDenied, match="confidences are not answered at access level 'label_only'"):
        oracle(model, access="label_only").confidences(inputs)


def test_queries_past_the_budget_are_refused_whole_and_counted(model, inputs):
    asked = oracle(model, budget=10)
    asked.confidences(inputs)
    with pytest.raises(QueryBudgetExceeded, match="6 queries asked, 4 of 10 left"):
        asked.labels(inputs)
    assert (asked.queries, asked.refused, asked.left) == (6, 6, 4)
    asked.labels(inputs[:4])
    assert (asked.queries, asked.left) == (10, 0)


def test_what_is_denied_costs_nothing(model, inputs):
    asked = oracle(model, access="label_only", budget=6)
    with pytest.raises(AccessDenied):
        asked.confidences(inputs)
    assert asked.queries == 0


def test_errors_survive_a_process_boundary():
    for error in (AccessDenied("weights", "rounded"), QueryBudgetExceeded(6, 4, 10), UnknownCaller("key-7")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_misuse_is_refused_by_name(model):
    with pytest.raises(ValueError, match="access = 'gray_box': unknown level; allowed: white_box"):
        oracle(model, access="gray_box")
    with pytest.raises(ValueError, match="budget = -1"):
        oracle(model, budget=-1)
    with pytest.raises(
        ValueError, match="noise.std = -0.1: must not be negative, and finite; .*; temperature.value = 0: must be"
    ):
        oracle(model, controls=[Noise(-0.1), Temperature(0)])
    with pytest.raises(ValueError, match="output controls have no hold"):
        oracle(model, access="white_box", controls=[Rounding()])
    with pytest.raises(ValueError, match="needs the model itself"):
        oracle(lambda x: x, access="white_box")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"access": "top_k", "top": 0}, "top = 0: must be 1 or more; else use label_only"),
        ({"access": "rounded", "decimals": 0}, "decimals = 0: must be 1 or more; else use label_only"),
        ({"access": "rounded", "decimals": -1}, "decimals = -1: must be 1 or more"),
        ({"access": "rounded", "top": 2}, "top = 2: has no hold at access = 'rounded'; .* access = 'top_k'"),
        ({"decimals": 2}, "decimals = 2: has no hold at access = 'confidences'; .* access = 'rounded'"),
        ({"access": "white_box", "budget": 2}, "budget = 2: has no hold on who has the weights"),
        ({"controls": [Noise(math.inf)]}, "noise.std = inf: must not be negative, and finite"),
        ({"controls": [Noise(math.nan)]}, "noise.std = nan"),
        ({"controls": [Temperature(math.inf)]}, "temperature.value = inf: must be positive and finite"),
    ],
)
def test_settings_that_have_no_hold_or_leave_no_answer_are_refused(model, options, told):
    with pytest.raises(ValueError, match=told):
        oracle(model, **options)


def test_inputs_on_which_the_model_fails_cost_nothing(model, inputs):
    asked = oracle(model, budget=6)
    for wrong in (inputs[:, :2], inputs.long()):
        with pytest.raises(RuntimeError):
            asked.confidences(wrong)
    assert (asked.queries, asked.refused, asked.left) == (0, 0, 6)
    asked.confidences(inputs)
    assert (asked.queries, asked.left) == (6, 0)


def test_any_callable_to_confidences_serves_in_place_of_the_model(model, inputs):
    remote = oracle(oracle(model).confidences, access="rounded")
    assert torch.equal(remote.confidences(inputs), oracle(model, access="rounded").confidences(inputs))


def test_the_service_sees_its_own_confidences_and_no_refused_query(model, inputs):
    seen = []
    asked = oracle(model, access="label_only", budget=6, watch=lambda x, own: seen.append((x, own)))
    asked.labels(inputs)
    with pytest.raises(QueryBudgetExceeded):
        asked.labels(inputs)
    assert len(seen) == 1
    assert torch.equal(seen[0][0], inputs)
    assert torch.equal(seen[0][1], model[1](inputs).softmax(1).detach())


def test_controls_lower_the_access_level_to_what_they_leave(model):
    assert oracle(model, controls=[Temperature(2.0), Noise(0.1)]).access == "confidences"
    assert oracle(model, controls=[TopK(2), Rounding(1)]).access == "rounded"
    assert oracle(model, controls=[LabelOnly()]).access == "label_only"
    assert oracle(model, access="label_only", controls=[TopK(2)]).access == "label_only"


@given(st.integers(0, 2**31), st.permutations([Temperature(3.0), Noise(0.05), Rounding(2), TopK(3)]))
def test_controls_compose_in_order_and_are_the_same_for_the_same_generator(seed, controls):
    draw = torch.Generator().manual_seed(seed)
    given_ = torch.rand((8, CLASSES), generator=draw).softmax(1)
    once = perturbed(given_, controls, torch.Generator().manual_seed(seed))
    again = perturbed(given_, controls, torch.Generator().manual_seed(seed))
    assert torch.equal(once, again)
    assert once.min() >= 0
    generator, stepwise = torch.Generator().manual_seed(seed), given_
    for control in controls:
        stepwise = control.perturb(stepwise, generator)
    assert torch.equal(once, stepwise)


def test_temperature_keeps_the_order_and_ends_at_indifference(inputs):
    drawn = torch.rand((8, CLASSES), generator=torch.Generator().manual_seed(3)).softmax(1)
    none = torch.Generator()
    assert torch.allclose(Temperature(1.0).perturb(drawn, none), drawn)
    assert torch.equal(Temperature(5.0).perturb(drawn, none).argsort(1), drawn.argsort(1))
    assert torch.allclose(Temperature(1e6).perturb(drawn, none), torch.full_like(drawn, 1 / CLASSES), atol=1e-4)


def test_rounding_ties_do_not_change_the_label(model, inputs):
    asked = oracle(model, controls=[Temperature(1000.0), Rounding(1)])
    assert (asked.confidences(inputs) == 0.2).all()
    assert torch.equal(asked.labels(inputs), model[1](inputs).argmax(1))


def test_the_mean_over_repeated_queries_sees_through_fresh_noise(model, inputs):
    own = oracle(model).confidences(inputs)
    asked = oracle(model, controls=[Noise(0.02)], generator=torch.Generator().manual_seed(5))
    mean = torch.stack([asked.confidences(inputs) for _ in range(400)]).mean(0)
    assert (asked.confidences(inputs) - own).abs().max() > 0.01
    assert (mean - own).abs().max() < 0.01
