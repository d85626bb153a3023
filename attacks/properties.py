"""Property inference: does the batch behind an update hold records with a property that the task is not about?"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from attacks import known_members
from attacks.candidates import downhill
from attacks.inference import Claim, InferenceNeeds, Targets, inference
from attacks.losses import LOSSES
from attacks.matching import local_steps
from attacks.view import Budget, Knowledge, Observation

_PAIRS = 150
"""Simulated updates with the property, and as many without, for each observed model."""
_SHRINKAGE = (1e1, 1e2, 1e3, 1e4, 1e5, 1e6)
"""Ridge penalties, of which leaving one simulated update out picks one."""
_WIDEST = 20_000
"""Numbers of an update that the meta-classifier reads at most, drawn at random."""


@inference(
    "property_inference",
    paper="Melis et al. 2019 (Exploiting unintended feature leakage in collaborative learning)",
    claim="whether records with a given property are behind an update",
    needs=InferenceNeeds(
        "L5",
        "updates",
        knowledge=("batch_size", "public", "public_labels"),
        targets=("holds",),
        sums=True,
        of_deltas=("learning_rate",),
    ),
    cost="minutes",
    stopped_by="sums over many clients, or client-level noise",
    sanity=known_members.with_property,
)
def property_inference(
    source: Sequence[Observation], knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """Margins (observations,) of a linear meta-classifier, trained anew on simulated updates of each sent model.

    ``budget.iterations`` updates (150 without) of random public batches with one to all records of the property, as
    many with none. Only directions are read, so that clipping does not matter. Raises ValueError where the public
    data hold the property nowhere or everywhere.
    """
    assert targets.holds is not None
    holds = targets.holds.bool().cpu()
    assert knowledge.public is not None
    if holds.shape != (len(knowledge.public),):
        raise ValueError(
            f"targets.holds: of shape {tuple(holds.shape)}; mark each of the {len(knowledge.public)} public records"
        )
    if holds.all() or not holds.any():
        raise ValueError("targets.holds: the property is constant in the public data, so nothing tells it apart")
    return Claim(torch.stack([_margin(o, knowledge, holds, generator, budget.iterations or _PAIRS) for o in source]))


def _margin(obs: Observation, know: Knowledge, holds: Tensor, generator: torch.Generator, pairs: int) -> Tensor:
    from sklearn.linear_model import RidgeClassifierCV  # together they take a second to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names, seen = downhill(obs)
    read = torch.randperm(len(seen), generator=generator)[:_WIDEST]
    size, rows = know.batch_size or 1, []
    having, lacking = holds.nonzero()[:, 0], (~holds).nonzero()[:, 0]
    for number in range(2 * pairs):
        count = int(torch.randint(1, size + 1, (), generator=generator)) if number < pairs else 0
        chosen = torch.cat([_draw(having, count, generator), _draw(lacking, size - count, generator)])
        rows.append(_features(_simulated(obs, know, names, chosen[torch.randperm(size, generator=generator)]), read))
    told = torch.arange(2 * pairs) < pairs
    classifier = make_pipeline(StandardScaler(), RidgeClassifierCV(_SHRINKAGE))
    classifier.fit(torch.stack(rows).double().numpy(), told.numpy())
    return torch.tensor(classifier.decision_function(_features(seen, read)[None].double().numpy())[0])


def _draw(among: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """So many records at random; each at most once where there are enough."""
    if count <= len(among):
        return among[torch.randperm(len(among), generator=generator)[:count]]
    return among[torch.randint(len(among), (count,), generator=generator)]


def _features(row: Tensor, read: Tensor) -> Tensor:
    """The numbers read, of a row scaled to norm 1, and their sizes: a property often shows in those alone, since the
    sign of a gradient is the labels' doing."""
    chosen = row.detach().cpu()[read]
    chosen = chosen / chosen.norm().clamp_min(1e-30)
    return torch.cat([chosen, chosen.abs()])


def _simulated(obs: Observation, know: Knowledge, names: Sequence[str], chosen: Tensor) -> Tensor:
    """What a client with these public records would have sent, along ``names``, pointing as a gradient does."""
    assert know.public is not None
    assert know.public_labels is not None
    model = copy.deepcopy(obs.model).eval()
    weights = dict(model.named_parameters())
    moved = [weights[name] for name in names]
    start = [p.detach().clone() for p in moved]
    inputs, labels = know.public[chosen].to(moved[0].device), know.public_labels[chosen].to(moved[0].device)
    steps = local_steps(know) if obs.kind == "delta" else ((0, len(chosen)),)
    for begin, end in steps:
        loss = LOSSES[know.loss](model(inputs[begin:end]), labels[begin:end])
        slopes = torch.autograd.grad(loss, moved, materialize_grads=True)
        if obs.kind == "gradient":
            return torch.cat([slope.flatten() for slope in slopes])
        with torch.no_grad():
            for parameter, slope in zip(moved, slopes, strict=True):
                parameter.sub_((know.learning_rate or 0.0) * slope)
    return torch.cat([(before - after.detach()).flatten() for before, after in zip(start, moved, strict=True)])
