import dataclasses

import pytest
import torch

from attacks import Observation, reconstruct
from tests.attacks.conftest import gradient
from tests.attacks.pictures import attack, photo
from tests.attacks.test_idlg import KNOW, inputs, small


@pytest.mark.slow
def test_rebuilds_nine_of_ten_photographs_with_their_labels():
    _, decibels, right = attack("dlg", [photo("lenet", seed) for seed in range(10)])
    assert sum(figure >= 30 and label for figure, label in zip(decibels, right, strict=True)) >= 9


@pytest.mark.parametrize("label", range(4))
def test_the_labels_are_those_it_optimised(label):
    model, x = small(seed=label), inputs(seed=label)
    obs = Observation(model, gradient(model, x, torch.tensor([label])), "gradient")
    for seed in range(3):  # whatever labels the start drew
        claim = reconstruct("dlg", obs, KNOW, seed=seed)
        assert claim.labels.tolist() == [label]
        torch.testing.assert_close(claim.inputs, x, atol=1e-2, rtol=0)


def test_granted_labels_are_not_looked_at():
    model, x = small(), inputs()
    obs = Observation(model, gradient(model, x, torch.tensor([1])), "gradient")
    wrong = dataclasses.replace(KNOW, labels=torch.tensor([3]))
    assert reconstruct("dlg", obs, wrong).labels.tolist() == [1]


def test_without_a_value_range_nothing_is_clipped():
    model, x = small(), 4 * inputs() - 2
    obs = Observation(model, gradient(model, x, torch.tensor([1])), "gradient")
    claim = reconstruct("dlg", obs, dataclasses.replace(KNOW, value_range=None))
    torch.testing.assert_close(claim.inputs, x, atol=5e-2, rtol=0)
