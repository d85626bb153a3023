import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from attacks import (
    Budget,
    Knowledge,
    NotApplicable,
    Observation,
    Reconstruction,
    reconstruct,
    reconstruct_many,
    reconstructions,
)
from attacks import registry as module
from attacks.registry import COSTS, Needs, attack
from tests.attacks.conftest import gradient, mlp, pick


def cases():
    return [pytest.param(name, entry, id=name) for name, entry in reconstructions().items() if entry.sanity is not None]


def _global_generators():
    legacy = np.random.get_state()[1].tolist()  # noqa: NPY002  it is watched, not used
    return torch.get_rng_state().tolist(), legacy, random.getstate()


def test_the_attacks_of_this_package_are_registered_with_what_they_need():
    assert {"prior", "analytic", "label_counts"} <= set(reconstructions())
    for name, entry in reconstructions().items():
        assert entry.name == name
        assert entry.paper
        assert entry.claim
        assert entry.stopped_by
        assert entry.cost in COSTS
        assert entry.needs.rung.startswith("L")
        assert entry.sanity is not None


@pytest.mark.parametrize(("name", "entry"), cases())
def test_every_attack_wins_its_own_small_case_and_leaves_everything_as_it_was(name, entry):
    case = entry.sanity()
    model = case.observation.model
    state, training = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    hooks = sum(len(m._forward_hooks) for m in model.modules())
    before = _global_generators()
    claim = reconstruct(name, case.observation, case.knowledge, seed=1, budget=case.budget)
    assert case.won(claim)
    assert _global_generators() == before
    assert [m.training for m in model.modules()] == training
    assert sum(len(m._forward_hooks) for m in model.modules()) == hooks
    assert all(p.grad is None for p in model.parameters())
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[key])


@pytest.mark.parametrize(("name", "entry"), cases())
def test_every_attack_gives_the_same_claim_for_the_same_seed(name, entry):
    case = entry.sanity()
    budget = Budget(iterations=min(case.budget.iterations or 20, 20), restarts=case.budget.restarts)
    first, second = (reconstruct(name, case.observation, case.knowledge, seed=5, budget=budget) for _ in range(2))
    assert torch.equal(first.objective, second.objective)
    for a, b in ((first.inputs, second.inputs), (first.labels, second.labels)):
        assert a is b is None or torch.equal(a, b)


def test_an_unknown_name_comes_with_the_nearest(digits):
    with pytest.raises(KeyError, match=r"'analytik' is unknown; nearest: \['analytic'"):
        reconstruct("analytik", (), Knowledge((64,), 10))


def test_what_a_case_lacks_is_an_answer_of_its_own(digits):
    know = Knowledge((64,), 10, public=digits[0][:9])
    answers = reconstruct_many("prior", [((), Knowledge((64,), 10), 0), ((), know, 0)])
    assert isinstance(answers[0], NotApplicable)
    assert (answers[0].missing, answers[0].rung) == ("public", "L0")
    assert isinstance(answers[1], Reconstruction)
    with pytest.raises(NotApplicable, match=r"needs public \(rung L0\)"):
        reconstruct("prior", (), Knowledge((64,), 10))
    with pytest.raises(NotApplicable, match="an update that the adversary can read"):
        reconstruct("analytic", (), Knowledge((64,), 10))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_non_finite_update_is_refused_by_name(digits, bad):
    model = mlp(0)
    x, y, _ = pick(digits, 0)
    update = gradient(model, x, y)
    update["3.bias"][2] = bad
    with pytest.raises(ValueError, match=r"non-finite values in \['3\.bias'\]"):
        reconstruct("analytic", Observation(model, update, "gradient"), Knowledge((64,), 10, batch_size=1))


def test_an_update_that_does_not_fit_the_model_is_refused():
    with pytest.raises(ValueError, match=r"unknown names \['w'\], wrong shapes \['bias'\]"):
        Observation(nn.Linear(2, 3), {"w": torch.zeros(1), "bias": torch.zeros(2)}, "gradient")
    with pytest.raises(ValueError, match="kind = 'grad'"):
        Observation(nn.Linear(2, 3), {}, "grad")
    with pytest.raises(ValueError, match=r"budget\.restarts = 0"):
        Budget(restarts=0)


def test_kinds_and_sums_that_an_attack_does_not_take_are_not_applicable(monkeypatch):
    monkeypatch.setattr(module, "_ATTACKS", {})

    told = {"paper": "none", "claim": "nothing", "cost": "closed form", "stopped_by": "everything"}

    @attack("narrow", **told, needs=Needs("L7", kinds=("gradient",)))
    def narrow(cases, budget):
        return [Reconstruction(None, None, torch.zeros(1)) for _ in cases]

    model, know = nn.Linear(2, 3), Knowledge((2,), 3)
    with pytest.raises(NotApplicable, match="the view holds a delta"):
        reconstruct("narrow", Observation(model, {}, "delta"), know)
    with pytest.raises(NotApplicable, match="a sum over 4"):
        reconstruct("narrow", Observation(model, {}, "gradient", contributors=4), know)
    with pytest.raises(ValueError, match="registered twice"):
        attack("narrow", **told, needs=Needs("L7"))(narrow)
