"""Records from a gradient: categories as shares that sum to one, and the restarts of the search as an ensemble.

Records that a first dense layer gives away exactly are taken from there, and the search is for the others.
"""

import dataclasses
import time
from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from attacks.columns import Column, decided, relaxed
from attacks.labels import mean_gradient_factor
from attacks.losses import LOSSES
from attacks.matching import Matching, Victim
from attacks.objectives import cosine
from attacks.optimise import Recipe, match
from attacks.peeling import read_batch
from attacks.probe import sandbox
from attacks.registry import Case, Needs, Sanity, attack
from attacks.signed_adam import SignedAdam
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction


def pooled(victim: Victim, points: Tensor, values: Tensor) -> Tensor:
    """The ensemble's record by record vote, and each restart's own, all decided on one category per column.

    Records are matched to those of the best restart, within a label; a number is the median, a category that of the
    largest mean share (Vero et al. 2023, section 4.2).
    """
    unit = points.unflatten(-1, victim.shape)
    shares = relaxed(unit, victim.blocks)
    anchor = shares[values.argmin()]
    strangers = (victim.labels[:, None] != victim.labels).to(shares) * 1e6
    orders = [linear_sum_assignment((torch.cdist(anchor, own) + strangers).cpu().numpy())[1] for own in shares]
    matched = torch.stack([own[torch.as_tensor(order)] for own, order in zip(shares, orders, strict=True)])
    vote = matched.median(0).values
    for begin, end in victim.blocks:
        vote[:, begin:end] = matched[..., begin:end].mean(0)
    return decided(torch.cat([vote[None], unit]), victim.blocks).flatten(1)


RECIPE = Recipe(
    matching=Matching(cosine, relax=True),
    minimiser=SignedAdam,
    iterations=1500,
    restarts=30,
    scale=False,
    width=32,
    pool=pooled,
)


def _sanity() -> Sanity:
    """Two records of two numbers and two categories at a small dense model that has no bias to read them by."""
    columns = (
        Column("a", "numeric"),
        Column("b", "categorical", ("x", "y", "z")),
        Column("c", "numeric"),
        Column("d", "categorical", ("u", "v")),
    )
    draw = torch.Generator().manual_seed(5)
    model = nn.Sequential(nn.Linear(7, 128, bias=False), nn.ReLU(), nn.Linear(128, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    numbers = torch.rand((2, 2), generator=draw)
    one_hot = [nn.functional.one_hot(torch.randint(k, (2,), generator=draw), k).float() for k in (3, 2)]
    records = torch.cat([numbers[:, :1], one_hot[0], numbers[:, 1:], one_hot[1]], 1)
    labels = torch.tensor([0, 1])
    slopes = torch.autograd.grad(LOSSES["cross_entropy"](model(records), labels), list(model.parameters()))
    update = {name: slope for (name, _), slope in zip(model.named_parameters(), slopes, strict=True)}
    know = Knowledge((7,), 2, batch_size=2, labels=labels, value_range=(0.0, 1.0), columns=columns)

    def won(claim: Reconstruction) -> bool:
        if claim.inputs is None:
            return False
        return bool((torch.cdist(records, claim.inputs).min(1).values < 0.1).all())

    return Sanity(Observation(model, update, "gradient"), know, Budget(iterations=400, restarts=4), won)


@attack(
    "tableak",
    paper="Vero, Balunović, Dimitrov, Vechev, ICML 2023, TabLeak: tabular data leakage in federated learning",
    claim="the records behind one gradient, categories included",
    needs=Needs(rung="L5", knowledge=("batch_size", "columns")),
    cost="seconds",
    stopped_by="sums over some hundred records, or noise",
    sanity=_sanity,
)
def solve(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
    """What can be read is; for the rest labels, gradient matching from many starts, and one claim pooled from all."""
    read = [_read(case, budget) for case in cases]
    searched = [i for i, claim in enumerate(read) if claim is None or _open(cases[i], claim)]
    found = dict(zip(searched, match([_without(cases[i], read[i]) for i in searched], RECIPE, budget), strict=True))
    return [found[i] if claim is None else _joined(claim, found.get(i)) for i, claim in enumerate(read)]


def _open(case: Case, claim: Reconstruction) -> int:
    """How many examples the claim leaves."""
    assert case.knowledge.batch_size is not None
    assert claim.labels is not None
    return case.knowledge.batch_size - len(claim.labels)


def _read(case: Case, budget: Budget) -> Reconstruction | None:
    """The records that vouch for themselves, with their labels; None where there are none, or granted labels differ."""
    try:
        claim = read_batch(case.observation, case.knowledge, time.monotonic() + (budget.seconds or torch.inf))
    except NotApplicable:
        return None
    assert claim.labels is not None
    left = _labels_left(case.knowledge, claim.labels)
    return None if not len(claim.labels) or (left is not None and (left < 0).any()) else claim


def _labels_left(know: Knowledge, read: Tensor) -> Tensor | None:
    """How many of each class (classes,) are granted beside those read; None where labels are not granted."""
    if know.labels is None:
        return None
    return torch.bincount(know.labels.cpu(), minlength=know.num_classes) - torch.bincount(
        read, minlength=know.num_classes
    )


def _without(case: Case, claim: Reconstruction | None) -> Case:
    """The same client with what was read taken out of its gradient, its batch and its labels."""
    if claim is None:
        return case
    obs, know = case.observation, case.knowledge
    assert claim.inputs is not None
    assert claim.labels is not None
    factor, left = mean_gradient_factor(obs, know), _open(case, claim)
    assert factor is not None
    with sandbox(obs.model) as twin:
        inputs, labels = claim.inputs.double(), claim.labels.to(claim.inputs.device)
        loss = LOSSES[know.loss](twin.double()(inputs), labels) * len(labels)
        own = torch.autograd.grad(loss, [twin.get_parameter(n) for n in obs.update], materialize_grads=True)
    total = {name: slope * factor * (left + len(labels)) for name, slope in obs.update.items()}
    mean = {n: ((t - s) / left).to(obs.update[n]) for (n, t), s in zip(total.items(), own, strict=True)}
    counts = _labels_left(know, claim.labels)
    rest = None if counts is None else torch.arange(know.num_classes).repeat_interleave(counts)
    return Case(
        (Observation(obs.model, mean, "gradient", round=obs.round, client=obs.client),),
        dataclasses.replace(know, batch_size=left, labels=rest),
        case.generator,
    )


def _joined(read: Reconstruction, found: Reconstruction | NotApplicable | None) -> Reconstruction:
    """What was read, and what the search found beside it: its objective is the claim's."""
    if found is None or isinstance(found, NotApplicable) or found.inputs is None:
        why = () if found is None else (f"the others: {found if isinstance(found, NotApplicable) else 'diverged'}",)
        return dataclasses.replace(read, objective=read.objective.max().reshape(1), notes=(*read.notes, *why))
    assert read.inputs is not None
    assert read.labels is not None
    assert found.labels is not None
    return dataclasses.replace(
        found,
        inputs=torch.cat([read.inputs, found.inputs]),
        labels=torch.cat([read.labels, found.labels.cpu()]),
        notes=(*read.notes, *found.notes),
    )
