"""The examples of one class out of a batch or a sum: the planted output layer lets no other class answer."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from attacks import analytic, inverting
from attacks.labels import mean_gradient_factor
from attacks.losses import LOSSES
from attacks.optimise import match
from attacks.registry import Case, Needs, Sanity, attack
from attacks.surgery.fishing import plant_fishing
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction


def caught(case: Case) -> Case:
    """The case of the target class alone: its part of the update, how many examples it has, and their labels.

    The target's logit is hopeless, so the slope of its bias is minus its share of all examples; without the batch size,
    or the learning rate of a delta, the number stays unknown. Raises NotApplicable where nothing was planted, its part
    of the update is not in the view, or no example of the class is there.
    """
    obs, know = case.observation, case.knowledge
    planted = know.planted or {}
    if planted.get("kind") != "fishing":
        raise NotApplicable(f"an output layer that fishes (planted: {planted.get('kind')})", "L9")
    alone = {name: obs.update[name] for name in planted["silent"] if name in obs.update}
    bias, target = f"{planted['layer']}.bias", planted["target_class"]
    if not alone or bias not in obs.update:
        raise NotApplicable(f"the update of {bias} and of a parameter before it", "L9")
    slope, factor = float(obs.update[bias][target]), mean_gradient_factor(obs, know)
    if slope == 0:
        raise NotApplicable(f"an example of class {target} (the update holds none)", "L9")
    count = labels = None
    if know.batch_size is not None and factor is not None:
        count = max(1, round(-slope * factor * know.batch_size))
        labels = torch.full((count,), target)
    facts = dataclasses.replace(know, batch_size=count, labels=labels, planted=None)
    # All examples were averaged over, and the rest are silent: scaled so, this is the mean over the class alone.
    scale = 1.0 if count is None or know.batch_size is None else know.batch_size / count * obs.scale
    update = {name: scale * tensor for name, tensor in alone.items()}
    return Case((Observation(obs.model, update, obs.kind, round=obs.round),), facts, case.generator)


def _sanity() -> Sanity:
    """One example of the target class in a batch of twelve."""
    draw = torch.Generator().manual_seed(6)
    model = nn.Sequential(nn.Linear(15, 24), nn.ReLU(), nn.Linear(24, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    know = Knowledge((15,), 4, batch_size=12, value_range=(0.0, 1.0))
    surgery = plant_fishing(model, know, target_class=2)
    truth = torch.rand((12, 15), generator=draw)
    labels = torch.tensor([0, 1, 3] * 4)
    labels[5] = 2
    loss = LOSSES["cross_entropy"](surgery.model(truth), labels)
    names = [name for name, _ in surgery.model.named_parameters()]
    update = dict(zip(names, torch.autograd.grad(loss, list(surgery.model.parameters())), strict=True))

    def won(claim: Reconstruction) -> bool:
        return claim.inputs is not None and bool((claim.inputs[0] - truth[5]).square().mean() < 1e-8)

    know = dataclasses.replace(know, planted=surgery.planted)
    return Sanity(Observation(surgery.model, update, "gradient"), know, Budget(), won)


@attack(
    "class_fishing",
    paper="Wen et al., ICML 2022, Fishing for User Data in Large-Batch Federated Learning, section 3.1",
    claim="the examples of one chosen class, from a batch or a sum of any size",
    needs=Needs(rung="L9", knowledge=("planted",), sums=True),
    cost="closed form",
    stopped_by="clients that check the model they were sent, or noise",
    sanity=_sanity,
)
def solve(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
    """The class's part of the update, then in closed form; by gradient matching where there is no closed form."""
    answers: list[Reconstruction | NotApplicable] = []
    for case in cases:
        try:
            alone = caught(case)
        except NotApplicable as lacking:
            answers.append(lacking)
            continue
        found = analytic.solve([alone], budget)[0]
        if isinstance(found, NotApplicable) and alone.knowledge.batch_size is not None:
            found = match([alone], inverting.RECIPE, budget)[0]
        answers.append(found)
    return answers
