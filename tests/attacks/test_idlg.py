import dataclasses

import pytest
import torch
from torch import nn

from attacks import Budget, Knowledge, NotApplicable, Observation, reconstruct
from attacks.metrics import label_accuracy
from tests.attacks.conftest import delta, gradient
from tests.attacks.pictures import attack, photo


def small(seed=0, classes=4):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(512, classes))


def inputs(count=1, seed=1):
    return torch.rand((count, 1, 8, 8), generator=torch.Generator().manual_seed(seed))


KNOW = Knowledge(input_shape=(1, 8, 8), num_classes=4, batch_size=1, value_range=(0.0, 1.0))


def test_rebuilds_a_photograph_behind_a_lenet_gradient():
    _, decibels, right = attack("idlg", [photo("lenet", 0)])
    assert min(decibels) >= 30
    assert all(right)


@pytest.mark.slow
def test_rebuilds_nine_of_ten_photographs_and_every_label():
    _, decibels, right = attack("idlg", [photo("lenet", seed) for seed in range(10)])
    assert sum(figure >= 30 for figure in decibels) >= 9
    assert all(right)


def test_a_batch_is_rebuilt_with_the_labels_that_were_granted():
    model, x, y = small(), inputs(2), torch.tensor([3, 1])
    know = dataclasses.replace(KNOW, batch_size=2, labels=y)
    claim = reconstruct("idlg", Observation(model, gradient(model, x, y), "gradient"), know)
    assert torch.equal(claim.labels, y)
    torch.testing.assert_close(claim.inputs, x, atol=1e-2, rtol=0)


def test_a_batch_without_labels_takes_their_estimated_counts():
    model, x, y = small(), inputs(3), torch.tensor([3, 1, 1])
    know = dataclasses.replace(KNOW, batch_size=3)
    budget = Budget(iterations=5, restarts=1)
    claim = reconstruct("idlg", Observation(model, gradient(model, x, y), "gradient"), know, budget=budget)
    assert claim.inputs.shape == x.shape
    assert float(label_accuracy(claim.labels, y)) == 1.0


def test_a_delta_of_known_learning_rate_gives_the_image_and_of_unknown_rate_nothing():
    model, x, y = small(), inputs(), torch.tensor([2])
    obs = Observation(model, delta(model, x, y, 0.1, 1), "delta")
    claim = reconstruct("idlg", obs, dataclasses.replace(KNOW, learning_rate=0.1))
    torch.testing.assert_close(claim.inputs, x, atol=1e-2, rtol=0)
    with pytest.raises(NotApplicable, match="learning_rate") as lacking:
        reconstruct("idlg", obs, KNOW)
    assert lacking.value.rung == "L5"


def test_data_units_and_their_box_may_be_anything():
    model, y = small(), torch.tensor([0])
    low, high = torch.tensor([-3.0]), torch.tensor([5.0])
    x = inputs() * 8 - 3
    know = dataclasses.replace(KNOW, value_range=(low, high))
    claim = reconstruct("idlg", Observation(model, gradient(model, x, y), "gradient"), know)
    assert claim.inputs.min() >= -3
    assert claim.inputs.max() <= 5
    torch.testing.assert_close(claim.inputs, x, atol=5e-2, rtol=0)


def test_a_model_without_a_dense_output_has_no_label_to_read():
    pooled = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    obs = Observation(pooled, gradient(pooled, inputs(), torch.tensor([2])), "gradient")
    with pytest.raises(NotApplicable, match="labels") as lacking:
        reconstruct("idlg", obs, KNOW)
    assert lacking.value.rung == "L6"
