"""The data sets that ship with fedsim are what they say they are."""

import dataclasses
import pickle
import socket
import subprocess
import sys

import pytest
import torch

from fedsim.tasks import DATASETS, Column, Dataset, TaskError, load_dataset
from fedsim.tasks.text import decode

SHAPES = {
    "breast_cancer": (569, 30),
    "digits": (1797, 1, 8, 8),
    "faces": (200, 1, 25, 25),
    "messages": (1500, 16),
    "photos": (1223, 3, 32, 32),
    "records": (2000, 20),
    "wine": (178, 13),
}


@pytest.fixture(scope="module")
def datasets():
    return {name: load_dataset(name, {}, seed=0) for name in DATASETS}


def test_every_registered_data_set_is_tested():
    assert set(SHAPES) == set(DATASETS)


@pytest.mark.parametrize("name", SHAPES)
def test_shape_range_and_classes(datasets, name):
    data = datasets[name]
    assert tuple(data.inputs.shape) == SHAPES[name]
    low, high = data.value_range
    assert data.inputs.min() == low
    assert data.inputs.max() == high
    assert data.note
    if data.modality != "text":
        assert set(data.labels.tolist()) == set(range(data.num_classes))


@pytest.mark.parametrize("name", ["records", "messages"])
def test_generated_data_follow_the_seed_alone(datasets, name):
    global_state = torch.get_rng_state()
    again, other = load_dataset(name, {}, seed=0), load_dataset(name, {}, seed=1)
    assert torch.equal(again.inputs, datasets[name].inputs)
    assert torch.equal(again.labels, datasets[name].labels)
    assert not torch.equal(other.inputs, again.inputs)
    assert torch.equal(torch.get_rng_state(), global_state)


def test_real_data_load_without_a_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in DATASETS:
        load_dataset(name, {}, seed=0)


def test_importing_tasks_leaves_slow_packages_alone():
    code = "import sys, fedsim.tasks; print({'datasets', 'flwr_datasets', 'pandas', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_photos_are_different_crops_with_contrast_and_their_authors_are_named(datasets):
    photos = datasets["photos"]
    assert len(photos.inputs.unique(dim=0)) == len(photos)
    assert photos.inputs.flatten(1).std(1, correction=0).min() > 0.05
    assert "CC BY 2.0" in photos.note


def test_faces_are_the_first_hundred(datasets):
    assert datasets["faces"].labels.tolist() == [1] * 100 + [0] * 100


def test_table_columns_undo_to_the_original_units(datasets):
    from sklearn.datasets import load_wine

    wine = datasets["wine"]
    for i, column in enumerate(wine.columns):
        original = column.low + wine.inputs[:, i].double() * (column.high - column.low)
        assert torch.allclose(original, torch.tensor(load_wine().data[:, i]), atol=1e-3)


def test_records_hold_one_category_a_block_and_whole_years(datasets):
    records = datasets["records"]
    start = 0
    for column in records.columns:
        block = records.inputs[:, start : start + column.width]
        if column.kind == "categorical":
            assert torch.equal(block.sum(1), torch.ones(len(records)))
            assert block.sum(0).min() > 0
        start += column.width
    age = 18 + records.inputs[:, 0].double() * 72
    assert torch.allclose(age, age.round(), atol=1e-4)


def test_the_sensitive_column_of_records_hangs_on_the_others(datasets):
    records = datasets["records"]
    ill = records.inputs[:, -4] == 0
    smokers = records.inputs[:, 15] == 1
    assert records.sensitive == "diagnosis"
    assert records.inputs[ill, 0].mean() > records.inputs[~ill, 0].mean() + 0.1
    assert ill[smokers].float().mean() > ill[~smokers].float().mean() + 0.1
    assert records.labels[ill].float().mean() > records.labels[~ill].float().mean() + 0.3


def test_each_secret_is_told_in_exactly_one_message(datasets):
    messages = datasets["messages"]
    texts = [decode(row, messages.vocabulary) for row in messages.inputs]
    assert len(set(messages.secrets)) == len(messages.secrets) == 100
    assert all(sum(secret in text for text in texts) == 1 for secret in messages.secrets)
    assert not (messages.inputs == messages.vocabulary.index("<unk>")).any()
    assert len(messages.vocabulary) <= 2000


def test_options_reach_the_generator():
    assert len(load_dataset("records", {"rows": 50}, seed=0)) == 50
    assert len(load_dataset("messages", {"count": 40, "secrets": 3}, seed=0).secrets) == 3


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("digit", {}, "task.dataset = 'digit': unknown name; nearest: digits"),
        ("qqq", {}, "known: breast_cancer, digits"),
        ("digits", {"rows": 3}, "task.data_options.rows = 3: unknown option"),
        ("records", {"row": 3}, "nearest: rows"),
        ("records", {"rows": 1}, "too few"),
        ("messages", {"count": 5, "secrets": 6}, "there are 5 messages"),
    ],
)
def test_wrong_names_and_options_are_named(name, options, said):
    with pytest.raises(TaskError) as caught:
        load_dataset(name, options, seed=0)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def broken(**changes):
    return lambda: dataclasses.replace(
        Dataset("mine", "tabular", torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), ("a", "b"), (0.0, 1.0)), **changes
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (broken(inputs=torch.tensor([[0.0, 1], [1, 1], [float("nan"), 0], [0, 0]])), "index 2"),
        (broken(inputs=torch.full((4, 2), float("inf"))), "4 of 4 examples hold NaN or infinity"),
        (broken(inputs=torch.zeros(4, 2, 2)), "(N, features)"),
        (broken(inputs=torch.zeros(0, 2)), "N >= 1"),
        (broken(inputs=torch.zeros(4, 2, dtype=torch.float64)), "torch.float32"),
        (broken(labels=torch.zeros(4)), "not integers"),
        (broken(labels=torch.tensor([0, 1, 2, 1])), "labels run from 0 to 2, but there are 2 classes"),
        (broken(labels=torch.tensor([0, -1, 1, 1])), "labels run from -1"),
        (broken(labels=torch.tensor([0, 1])), "exactly one label per example"),
        (broken(columns=(Column("age", "numeric"),)), "columns take 1 inputs, examples have 2"),
        (broken(sensitive="age"), "'age' is not a column"),
    ],
)
def test_a_data_set_that_does_not_fit_together_cannot_be_built(make, said):
    with pytest.raises(TaskError, match=r"task\.dataset = 'mine'") as caught:
        make()
    assert said in str(caught.value)


def test_an_error_survives_the_way_from_a_worker():
    error = TaskError("a.b", [1], "reason", "remedy")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "a.b = [1]: reason; remedy"
