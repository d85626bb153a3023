"""What cannot be true is refused with the field, the value and a remedy; what one victim lacks is its own answer."""

import math

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
)
from attacks import registry as module
from attacks.batch import Batch
from attacks.known_case import image_case, text_case
from attacks.matching import Matching, prepare
from attacks.objectives import euclidean
from attacks.registry import Case, Needs, attack
from tests.attacks.conftest import gradient, mlp, pick

TOLD = {"paper": "none", "claim": "nothing", "cost": "closed form", "stopped_by": "everything"}
SPENT = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"batch_size": 0}, "batch_size = 0: must be at least 1; leave it out where it is unknown"),
        ({"local_batch_size": -3}, "local_batch_size = -3: must be at least 1"),
        ({"loss": "mse"}, "loss = 'mse': the losses that attacks know are cross_entropy"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0: must be positive"),
        ({"learning_rate": math.nan}, "learning_rate = nan: must be positive"),
        ({"value_range": (1.0, 1.0)}, "value_range = .*: low must lie below high"),
        ({"labels": torch.tensor([9])}, "labels from 9 to 9: with num_classes = 4 they lie between 0 and 3"),
        ({"public": torch.rand(5, 64)}, r"public of shape \(5, 64\): must be .* \('N', 1, 8, 8\); reshape it"),
        (
            {"public": torch.rand(5, 1, 8, 8), "public_labels": torch.zeros(4, dtype=torch.long)},
            "public_labels: 4 for 5 public examples; give one each",
        ),
    ],
)
def test_knowledge_that_cannot_be_true_is_refused(facts, told):
    with pytest.raises(ValueError, match=f"knowledge: {told}"):
        Knowledge((1, 8, 8), 4, **facts)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match=r"(?s)num_classes = 0.*batch_size = -1.*input_shape = \(\).*loss = 'mse'"):
        Knowledge((), 0, batch_size=-1, loss="mse")


@pytest.mark.parametrize("name", ["iterations", "restarts", "seconds"])
def test_a_budget_that_is_no_number_is_refused(name):
    with pytest.raises(ValueError, match=rf"budget\.{name} = nan: must be positive"):
        Budget(**{name: math.nan})


def test_an_update_of_other_things_than_numbers_to_differentiate_is_refused(digits):
    x, y, _ = pick(digits, 0)
    update = gradient(mlp(0), x, y)
    odd = {**update, "1.bias": update["1.bias"].numpy(), "3.bias": update["3.bias"].long()}
    with pytest.raises(
        ValueError, match=r"update holds 1\.bias \(numpy\.ndarray\), 3\.bias \(torch\.int64\).*as_tensor"
    ):
        Observation(mlp(0), odd, "gradient")


@pytest.mark.parametrize("name", ["analytic", "label_counts", "ilrg", "peeling", "inverting_gradients", "dlg"])
def test_another_number_of_classes_than_the_models_is_refused(digits, name):
    x, y, _ = pick(digits, 0)
    seen = Observation(mlp(0), gradient(mlp(0), x, y), "gradient")
    with pytest.raises(ValueError, match="num_classes = 7: the model's output for . examples is of shape"):
        reconstruct(name, seen, Knowledge((64,), 7, batch_size=1), budget=Budget(iterations=1))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return {"logits": self.out(x)}


@pytest.mark.parametrize("name", ["analytic", "label_counts", "idlg", "dlg"])
def test_a_model_that_puts_out_a_dict_is_not_applicable(name):
    model = Named()
    seen = Observation(model, {n: torch.ones_like(p) for n, p in model.named_parameters()}, "gradient")
    with pytest.raises(NotApplicable, match=r"puts out one tensor \(this one gives a dict\)"):
        reconstruct(name, seen, Knowledge((4,), 3, batch_size=1))


def test_a_victim_whose_training_diverged_leaves_the_others_their_answers(digits):
    x, y, _ = pick(digits, 0)
    fine, know = gradient(mlp(0), x, y), Knowledge((64,), 10, batch_size=1)
    broken = {**fine, "1.bias": fine["1.bias"] * math.nan}
    victims = [(Observation(mlp(0), update, "gradient"), know, 0) for update in (broken, fine)]
    lost, found = reconstruct_many("analytic", victims)
    assert isinstance(lost, NotApplicable)
    assert "the client's training diverged" in str(lost)
    assert isinstance(found, Reconstruction)


@pytest.mark.parametrize("error", [RuntimeError(SPENT), MemoryError(), RuntimeError("std::bad_alloc")])
def test_memory_that_runs_out_names_the_attack_and_a_remedy(monkeypatch, error):
    monkeypatch.setattr(module, "_ATTACKS", {})

    @attack("large", **TOLD, needs=Needs("L7"))
    def large(cases, budget):
        raise error

    seen = Observation(nn.Linear(2, 3), {}, "gradient")
    with pytest.raises(MemoryError, match="memory ran out in large.*shows no protection; give the process more memory"):
        reconstruct("large", seen, Knowledge((2,), 3))


def test_a_batch_that_memory_cannot_take_does_not_blame_vmap(monkeypatch):
    sanity = image_case(nn.Sigmoid(), Budget())
    case = Case((sanity.observation,), sanity.knowledge, torch.Generator())
    matching = Matching(euclidean)
    victim = prepare(case, sanity.observation.update, torch.tensor([0]), matching)
    bind = Batch.bind

    def short(self, owners, **how):
        if len(owners) > 1 and not self.loops:
            raise RuntimeError(SPENT)
        return bind(self, owners, **how)

    monkeypatch.setattr(Batch, "bind", short)
    assert Batch([victim], matching).notes == ("one candidate at a time: memory does not suffice for two",)


@pytest.mark.parametrize("name", ["absolute_matching", "idlg", "label_counts"])
def test_a_loss_of_tokens_is_named_as_what_is_in_the_way(name):
    seen, know, _ = text_case()
    with pytest.raises(NotApplicable, match="one label per example .*one per token"):
        reconstruct(name, seen, know)
