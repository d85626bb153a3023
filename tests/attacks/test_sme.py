import pytest
import torch

from attacks import Budget, Knowledge, NotApplicable, Observation, available, reconstruct
from attacks.matching import local_steps
from attacks.metrics import psnr
from tests.attacks.conftest import gradient, mlp, pick
from tests.attacks.test_fedavg import train


def test_wins_its_sanity_case():
    sanity = available()["surrogate_model"].sanity()
    assert sanity.won(reconstruct("surrogate_model", sanity.observation, sanity.knowledge, budget=sanity.budget))


def test_takes_the_point_on_the_way_where_the_gradient_fits_and_leaves_the_model_alone(digits):
    x, y, _ = pick(digits, 1)
    model = mlp(1)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    know = Knowledge((64,), 10, batch_size=1, value_range=(0.0, 1.0), learning_rate=0.5, local_steps=6)
    obs = Observation(model, train(model, x, y, 0.5, local_steps(know)), "delta")
    claim = reconstruct("surrogate_model", obs, know, budget=Budget(iterations=150, restarts=1))
    assert "of the way" in claim.notes[-1]
    assert float(psnr(claim.inputs, x, (0.0, 1.0))) > 15
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_is_for_deltas(digits):
    x, y, _ = pick(digits, 1)
    model = mlp(1)
    with pytest.raises(NotApplicable, match="delta"):
        reconstruct("surrogate_model", Observation(model, gradient(model, x, y), "gradient"), Knowledge((64,), 10, 1))
