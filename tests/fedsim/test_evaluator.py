import dataclasses

import pytest
import torch
from torch import nn

from fedsim.attribute import attribute_targets
from fedsim.evaluator import feature_distance, inversion_figures, train_evaluator
from fedsim.tasks import TaskError, load_dataset

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", {}, 0)


@pytest.fixture(scope="module")
def judge(digits):
    return train_evaluator(digits, torch.arange(600), torch.arange(600, 1797), seed=3)


def test_judges_examples_that_it_was_not_trained_on(digits, judge):
    assert judge.accuracy > 0.9
    assert judge.judged(digits.inputs[900:1000], digits.labels[900:1000]).double().mean() > 0.85


def test_is_the_same_for_the_same_seed_and_leaves_the_global_generator_alone(digits, judge):
    state = torch.random.get_rng_state()
    again = train_evaluator(digits, torch.arange(600), torch.arange(600, 1797), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(judge.model.parameters(), again.model.parameters(), strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_real_example_is_as_near_as_real_ones_are_and_noise_is_far(digits, judge):
    pool, classes = digits.inputs[900:], digits.labels[900:]
    real = feature_distance(judge, digits.inputs[600:700], digits.labels[600:700], pool, classes).median()
    noise = torch.rand((100, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    far = feature_distance(judge, noise, digits.labels[600:700], pool, classes).median()
    assert 0.7 < real < 1.5
    assert far > 2


def test_an_input_that_convinces_the_attacked_model_alone_is_not_judged_right(digits, judge):
    liar = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        liar[1].weight.zero_()
        liar[1].bias.copy_(torch.eye(10)[4] * 9)
    blank = torch.zeros(10, 1, 8, 8)
    figures = inversion_figures(
        judge, liar, blank, torch.full((10,), 4), private=(digits.inputs, digits.labels), public=digits.inputs[:50]
    )
    assert figures["convinced"] == 1
    assert figures["judged"] <= 0.1
    assert figures["baseline"]["chance"] == 0.1
    assert set(figures["baseline"]) == {"chance", "public_pick", "public_pick_feature_distance"}


def test_refuses_text_and_a_training_set_without_a_class(digits):
    with pytest.raises(TaskError, match="no evaluator for text"):
        train_evaluator(load_dataset("messages", {}, 0), torch.arange(10), torch.arange(10, 20), 0)
    ones = (digits.labels == 1).nonzero()[:, 0]
    with pytest.raises(TaskError, match="no example of 0, 2, 3, 4, 5, 6, 7, 8, 9 to train a judge on"):
        train_evaluator(digits, ones, ones, 0)


def test_the_sensitive_column_is_hidden_and_its_truth_kept_apart():
    plain = load_dataset("breast_cancer", {}, 0)
    table = load_dataset("breast_cancer", {"sensitive": "mean texture"}, 0)
    assert table.sensitive == "mean texture"
    assert table.input_shape == (31,)
    targets, truth = attribute_targets(table, torch.arange(100))
    assert targets.column == (1, 2)
    assert targets.inputs[:, [1, 2]].isnan().all()
    assert not targets.inputs[:, [0, *range(3, 31)]].isnan().any()
    column = plain.inputs[:, 1]
    assert torch.equal(truth, (column[:100] > column.median()).long())
    assert abs(float(table.inputs[:, 2].mean()) - 0.5) < 0.01


def test_an_absent_numeric_or_constant_sensitive_column_is_refused_by_name():
    with pytest.raises(TaskError, match="wine has no such column; name one of alcohol"):
        load_dataset("wine", {"sensitive": "age"}, 0)
    with pytest.raises(TaskError, match="declares no sensitive column"):
        attribute_targets(load_dataset("wine", {}, 0), torch.arange(3))
    wine = load_dataset("wine", {"sensitive": "alcohol"}, 0)
    high = wine.inputs[:, 1] == 1
    constant = dataclasses.replace(wine, inputs=wine.inputs[high], labels=wine.labels[high])
    with pytest.raises(TaskError, match="the same in all records"):
        attribute_targets(constant, torch.arange(3))
    numeric = dataclasses.replace(wine, sensitive="ash")
    with pytest.raises(TaskError, match="give it as a category"):
        attribute_targets(numeric, torch.arange(3))
