"""The examples of one class out of a batch or a sum, or one of them: the planted output layer lets no others answer."""

import copy
import dataclasses

import torch
from torch import nn

from attacks.alone import read_alone
from attacks.labels import mean_gradient_factor
from attacks.losses import LOSSES
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.surgery.fishing import plant_feature_fishing, plant_fishing
from attacks.surgery.planted import Planted
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction

_WHERE = {"fishing": "(the update holds none)", "feature_fishing": "below the cut (none answers there)"}
"""By what was planted, which examples of the target class answer."""
_HOPELESS = 1e9
"""Taken off the target's logit, it leaves its softmax zero whatever the input."""


def caught(case: Case, kind: str = "fishing") -> Case:
    """The case of those that answered: their part of the update, how many they are, and their labels.

    The slope of the target's bias is minus their share of all examples; without the batch size, or the learning rate
    of a delta, the number stays unknown. Raises NotApplicable where nothing of this ``kind`` was planted, its part of
    the update is not in the view, or no example of the class answered.
    """
    obs, know = case.observation, case.knowledge
    planted = know.planted or {}
    if planted.get("kind") != kind:
        raise NotApplicable(f"an output layer that fishes (planted: {planted.get('kind')})", "L9")
    alone = {name: obs.update[name] for name in planted["silent"] if name in obs.update}
    bias, target = f"{planted['layer']}.bias", planted["target_class"]
    if not alone or bias not in obs.update:
        raise NotApplicable(f"the update of {bias} and of a parameter before it", "L9")
    slope, factor = float(obs.update[bias][target]), mean_gradient_factor(obs, know)
    # Above the cut of a feature lie the other classes: those that answer there lift the slope.
    if slope == 0 or (slope > 0) == (obs.kind == "gradient"):
        raise NotApplicable(f"an example of class {target} {_WHERE[kind]}", "L9")
    count = labels = None
    if know.batch_size is not None and factor is not None:
        count = max(1, round(-slope * factor * know.batch_size))
        labels = torch.full((count,), target)
    facts = dataclasses.replace(know, batch_size=count, labels=labels, planted=None)
    # All examples were averaged over, and the rest are silent: scaled so, this is the mean over the class alone.
    scale = 1.0 if count is None or know.batch_size is None else know.batch_size / count * obs.scale
    update = {name: scale * tensor for name, tensor in alone.items()}
    model = copy.deepcopy(obs.model)
    with torch.no_grad():
        # Whoever answered did so in full. A search that starts on the cut's silent side would find no slope there.
        model.get_parameter(bias)[target] -= _HOPELESS
    return Case((Observation(model, update, obs.kind, round=obs.round),), facts, case.generator)


def _dozen() -> tuple[nn.Module, Knowledge, torch.Tensor, torch.Tensor]:
    """A model, twelve examples, their classes, and 200 public examples of the same four clusters."""
    draw = torch.Generator().manual_seed(6)
    model = nn.Sequential(nn.Linear(15, 24), nn.ReLU(), nn.Linear(24, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    centres = torch.rand((4, 15), generator=draw)
    labels = torch.arange(212) % 4
    inputs = 0.8 * centres[labels] + 0.2 * torch.rand((212, 15), generator=draw)
    know = Knowledge((15,), 4, batch_size=12, value_range=(0.0, 1.0), public=inputs[12:], public_labels=labels[12:])
    return model, know, inputs[:12], labels[:12]


def _won_on(sent: Planted, know: Knowledge, truth: torch.Tensor, labels: torch.Tensor, wanted: int) -> Sanity:
    """The case of a batch on a crafted model, won by whoever rebuilds the one ``wanted``."""
    loss = LOSSES["cross_entropy"](sent.model(truth), labels)
    names = [name for name, _ in sent.model.named_parameters()]
    update = dict(zip(names, torch.autograd.grad(loss, list(sent.model.parameters())), strict=True))

    def won(claim: Reconstruction) -> bool:
        return claim.inputs is not None and bool((claim.inputs[0] - truth[wanted]).square().mean() < 1e-8)

    know = dataclasses.replace(know, planted=sent.planted)
    return Sanity(Observation(sent.model, update, "gradient"), know, Budget(), won)


def _only_one_of_its_class() -> Sanity:
    """One example of the target class in a batch of twelve."""
    model, know, truth, labels = _dozen()
    labels[2], labels[6] = 0, 3
    return _won_on(plant_fishing(model, know, target_class=2), know, truth, labels, wanted=10)


def _least_like_its_class() -> Sanity:
    """Three of the target class in a batch of twelve, of which one lies towards another class."""
    model, know, truth, labels = _dozen()
    truth[10] = 0.7 * truth[10] + 0.3 * truth[8]
    return _won_on(plant_feature_fishing(model, know, target_class=2, among=50), know, truth, labels, wanted=10)


@attack(
    "class_fishing",
    paper="Wen et al., ICML 2022, Fishing for User Data in Large-Batch Federated Learning, section 3.1",
    claim="the examples of one chosen class, from a batch or a sum of any size",
    needs=Needs(rung="L9", knowledge=("planted",), sums=True),
    cost="closed form",
    stopped_by="clients that check the model they were sent, or noise",
    sanity=_only_one_of_its_class,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction | NotApplicable:
    """The class's part of the update, then read."""
    return read_alone(caught(case, "fishing"), budget)


@attack(
    "feature_fishing",
    paper="Wen et al., ICML 2022, Fishing for User Data in Large-Batch Federated Learning, section 3.2",
    claim="one of several examples of a chosen class, from a batch or a sum of any size, in about .39 of the tries",
    needs=Needs(rung="L9", knowledge=("planted",), sums=True),
    cost="closed form",
    stopped_by="clients that check the model they were sent, noise, or classes that no feature tells apart",
    sanity=_least_like_its_class,
)
@one_by_one
def solve_feature(case: Case, budget: Budget) -> Reconstruction | NotApplicable:
    """The part of the update beyond the cut, then read; several may lie there, or the one nearest to it answer."""
    return read_alone(caught(case, "feature_fishing"), budget)
