"""Records by gradient matching: categories as shares, the vote of the restarts, and what it cannot do without."""

import pytest
import torch
from torch import nn

from attacks import Budget, Knowledge, NotApplicable, Observation, reconstruct
from attacks.columns import Column, blocks_of, decided, relaxed
from attacks.tableak import _sanity
from tests.attacks.conftest import gradient

COLUMNS = (Column("a", "numeric"), Column("b", "categorical", ("x", "y", "z")), Column("c", "numeric"))


def test_blocks_are_where_the_categories_stand():
    assert blocks_of(COLUMNS) == ((1, 4),)
    assert blocks_of(COLUMNS[:1]) == ()


def test_relaxed_blocks_are_shares_and_numbers_stay_as_they_are():
    unit = torch.rand((5, 2, 5), generator=torch.Generator().manual_seed(0))
    shown = relaxed(unit, blocks_of(COLUMNS))
    assert torch.equal(shown[..., [0, 4]], unit[..., [0, 4]])
    assert torch.allclose(shown[..., 1:4].sum(-1), torch.ones(5, 2))
    assert torch.equal(shown[..., 1:4].argmax(-1), unit[..., 1:4].argmax(-1))


def test_decided_blocks_are_all_but_one_hot():
    unit = torch.rand((4, 5), generator=torch.Generator().manual_seed(0))
    shown = relaxed(decided(unit, blocks_of(COLUMNS)), blocks_of(COLUMNS))
    assert (shown[:, 1:4].max(1).values > 0.9999).all()


def test_the_records_of_a_small_batch_are_rebuilt():
    case = _sanity()
    claim = reconstruct("tableak", case.observation, case.knowledge, budget=case.budget)
    assert case.won(claim)
    assert claim.inputs.shape == (2, 7)


def test_the_claim_is_no_worse_than_its_best_restart_decided():
    case = _sanity()
    one = reconstruct("tableak", case.observation, case.knowledge, budget=Budget(iterations=200, restarts=1))
    many = reconstruct("tableak", case.observation, case.knowledge, budget=Budget(iterations=200, restarts=4))
    assert many.objective.item() <= one.objective.item() + 1e-6


def test_without_the_schema_it_is_not_applicable():
    case = _sanity()
    with pytest.raises(NotApplicable, match="columns"):
        reconstruct("tableak", case.observation, Knowledge((7,), 2, batch_size=4))


def test_what_a_row_gives_away_is_read_and_the_rest_is_searched():
    """Two of four records are alone at some neuron; the others share all of theirs."""
    draw = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
    records = torch.tensor([[0.9, 1, 0, 0, 0.1], [0.2, 0, 1, 0, 0.8], [0.5, 0, 0, 1, 0.4], [0.1, 0, 0, 1, 0.9]])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
        model[0].weight[:3] = torch.eye(5)[1:4] + 0.1 * model[0].weight[:3]
        model[0].bias[:3] = torch.tensor([-0.5, -0.5, 0.1])
        model[0].bias[3:] = 3.0
    labels = torch.tensor([0, 1, 1, 0])
    know = Knowledge((5,), 2, batch_size=4, labels=labels, value_range=(0.0, 1.0), columns=COLUMNS)
    obs = Observation(model, gradient(model, records, labels), "gradient")
    claim = reconstruct("tableak", obs, know, budget=Budget(iterations=50, restarts=2))
    assert claim.inputs.shape == (4, 5)
    error = (records[:, None] - claim.inputs).abs().amax(2).amin(1)
    assert (error[:2] < 1e-3).all()
    assert claim.labels.sort().values.tolist() == [0, 0, 1, 1]
    assert claim.iterations
