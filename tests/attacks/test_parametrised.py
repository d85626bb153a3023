"""Layers whose weight is made anew at each call: attacks that read it say so, and the others go on."""

import pytest
import torch
from torch import nn

from attacks import Budget, Knowledge, NotApplicable, Observation, reconstruct
from attacks.embeddings import words_read
from attacks.probe import input_layer, output_layer
from attacks.surgery.fishing import plant_fishing
from tests.attacks.conftest import gradient, mlp, pick

BUDGET = Budget(iterations=3, restarts=1)


def parametrised(index):
    model = mlp(0)
    model[index] = nn.utils.parametrizations.weight_norm(model[index])
    return model


def observed(digits, index, **facts):
    x, y, _ = pick(digits, 0)
    model = parametrised(index)
    know = Knowledge((64,), 10, batch_size=1, value_range=(0.0, 1.0), **facts)
    return x, y, Observation(model, gradient(model, x, y), "gradient"), know


@pytest.mark.parametrize("name", ["analytic", "cocktail_party", "peeling", "sratta"])
def test_an_attack_that_reads_the_first_layer_names_it(digits, name):
    _, _, seen, know = observed(digits, 1)
    with pytest.raises(NotApplicable, match=r"a plain weight in 1 \(it is parametrised\)"):
        reconstruct(name, seen, know)


@pytest.mark.parametrize("name", ["dlg", "idlg", "inverting_gradients", "absolute_matching", "adaptive"])
@pytest.mark.parametrize("index", [1, 3])
def test_gradient_matching_goes_on(digits, name, index):
    _, _, seen, know = observed(digits, index)
    assert reconstruct(name, seen, know, budget=BUDGET).inputs.shape == (1, 64)


def test_a_plain_bias_still_tells_the_label_and_a_plain_first_layer_the_input(digits):
    x, y, seen, know = observed(digits, 3)
    for name in ("analytic", "label_counts", "peeling"):
        claim = reconstruct(name, seen, know)
        assert claim.labels.tolist() == y.tolist()
    assert torch.allclose(reconstruct("analytic", seen, know).inputs, x, atol=1e-5)
    with pytest.raises(NotApplicable, match=r"a plain weight in 3 \(it is parametrised\)"):
        reconstruct("ilrg", seen, know)


def test_the_parametrised_layer_is_found_and_nothing_is_planted_in_it():
    know = Knowledge((64,), 10)
    assert output_layer(parametrised(3), know).parametrised == ("weight",)
    assert output_layer(mlp(0), know).parametrised == ()
    assert input_layer(parametrised(3), know)[0].parametrised == ()
    with pytest.raises(ValueError, match="fishing writes to 3, which is parametrised"):
        plant_fishing(parametrised(3), know, 2)


def test_a_parametrised_embedding_is_no_embedding_to_read():
    table = nn.utils.parametrizations.weight_norm(nn.Embedding(9, 4))
    model = nn.Sequential(table, nn.Linear(4, 9))
    know = Knowledge((5,), 9, loss="next_token")
    with pytest.raises(NotApplicable, match="the update of an embedding"):
        words_read(Observation(model, {}, "gradient"), know)
