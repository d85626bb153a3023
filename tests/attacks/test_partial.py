"""A model whose parameters are partly hidden: the same outputs, and the gradient of the known coordinates alone."""

import pytest
import torch
from torch import nn

from attacks import Knowledge, NotApplicable, Observation, Update, View, reconstruct
from attacks.partial import without_hidden


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Sigmoid(), nn.Linear(6, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    inputs, labels = torch.rand(1, 3, 2, 2, generator=generator), torch.tensor([2])
    loss = nn.functional.cross_entropy(model(inputs), labels)
    gradients = dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss, model.parameters()), strict=True))
    hidden = {name: g.clone() for name, g in gradients.items()}
    hidden["1.weight"][torch.rand(6, 12, generator=generator) < 0.3] = torch.nan
    hidden["3.weight"][:] = torch.nan
    return model, inputs, labels, hidden


def test_outputs_and_known_gradients_are_the_models_own(case):
    model, inputs, labels, hidden = case
    wrapped, update = without_hidden(model, hidden)
    assert torch.equal(wrapped(inputs), model(inputs))
    own = dict(wrapped.named_parameters())
    assert set(update) == {"known_0", "inner.1.bias", "inner.3.bias"}
    loss = nn.functional.cross_entropy(wrapped(inputs), labels)
    found = torch.autograd.grad(loss, [own[name] for name in update])
    for name, gradient in zip(update, found, strict=True):
        assert torch.allclose(gradient, update[name], atol=1e-7)
    assert len(update["known_0"]) == int((~hidden["1.weight"].isnan()).sum()) < 72


def test_a_view_gives_attacks_the_known_part_and_they_run_on_it(case):
    model, inputs, labels, hidden = case
    update = Update(1, 0, "gradient", "b", hidden, partial=True)
    view = View("server", model, {"b": model.state_dict()}, (), (update,))
    (observation,) = view.observations()
    know = Knowledge((3, 2, 2), 4, batch_size=1, labels=labels, value_range=(0.0, 1.0))
    claim = reconstruct("dlg", observation, know)
    assert float((claim.inputs - inputs).abs().max()) < 0.05
    with pytest.raises(NotApplicable, match="the update of inner.1.weight"):
        reconstruct("analytic", observation, know)


def test_without_anything_hidden_marked_a_nan_stays_an_error(case):
    model, _, labels, hidden = case
    know = Knowledge((3, 2, 2), 4, batch_size=1, labels=labels)
    with pytest.raises(ValueError, match="non-finite"):
        reconstruct("analytic", Observation(model, hidden, "gradient"), know)
