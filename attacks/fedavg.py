"""Inverting a FedAvg update by simulating the client: the candidate makes the same local steps."""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from attacks.losses import LOSSES
from attacks.matching import Matching, local_steps
from attacks.objectives import absolute
from attacks.optimise import Recipe, flat_colours, labels_of, match
from attacks.refining import refine
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.signed_adam import SignedAdam
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction

RECIPE = Recipe(
    matching=Matching(absolute, tv=0.6, simulate=True),
    minimiser=SignedAdam,
    iterations=500,
    restarts=8,
    scale=False,
    width=32,
    start=flat_colours,
)
AS_ONE = dataclasses.replace(RECIPE, matching=dataclasses.replace(RECIPE.matching, simulate=False))
"""The steps read as one gradient: a start to tell orders from, and one more for the search; cheap."""
ORDERS, TRIAL, LEAST = 24, 0.3, 120
"""Orders of the labels over the local steps that are tried, and the part of the iterations that each gets, at least
LEAST. On photographs held out, shorter trials, and trials from noise, more often took a wrong order for the best."""

PARTS = 5
"""The steps read as one, all trials, the searches from noise and from there, and refining: each has as many seconds."""


def _sanity() -> Sanity:
    """Two steps on an 8x8 grey blob each, of different classes, at a one-layer convolutional net."""
    draw = torch.Generator().manual_seed(5)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    line = torch.linspace(-1, 1, 8)
    images = torch.stack(
        [torch.exp(-2 * ((line[:, None] - a) ** 2 + (line - b) ** 2))[None] for a, b in ((0.3, -0.2), (-0.6, 0.5))]
    )
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    for image, label in zip(images, (3, 1), strict=True):
        at = {name: weight.requires_grad_() for name, weight in weights.items()}
        loss = LOSSES["cross_entropy"](torch.func.functional_call(model, at, (image[None],)), torch.tensor([label]))
        slopes = torch.autograd.grad(loss, list(at.values()))
        weights = {n: (w - 0.05 * g).detach() for (n, w), g in zip(at.items(), slopes, strict=True)}
    update = {name: weights[name] - p.detach() for name, p in model.named_parameters()}
    know = Knowledge(
        (1, 8, 8),
        4,
        batch_size=2,
        labels=torch.tensor([1, 3]),
        value_range=(0.0, 1.0),
        learning_rate=0.05,
        local_batch_size=1,
    )

    def won(claim: Reconstruction) -> bool:
        if claim.inputs is None:
            return False
        distance = torch.cdist(images.flatten(1), claim.inputs.flatten(1)).square() / 64
        return bool((distance.min(1).values < 1e-2).all())

    return Sanity(Observation(model, update, "delta"), know, Budget(iterations=300, restarts=1), won)


@attack(
    "fedavg_inversion",
    paper="Dimitrov, Balunovic, Konstantinov, Vechev, TMLR 2022, Data Leakage in Federated Averaging, section 4",
    claim="the inputs behind several local steps on different examples, by making these steps with the candidates",
    needs=Needs(rung="L5", knowledge=("batch_size", "learning_rate"), kinds=("delta",)),
    cost="minutes",
    stopped_by="secure aggregation, noise, or more local steps than it can simulate",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction | NotApplicable:
    """Labels first, then the steps read as one; from there short searches tell in which order the steps met the labels.

    A long search from noise, and one from the steps read as one, then find the inputs, and the better claim is refined.
    Later epochs are taken to repeat the order of the first.
    """
    labels = labels_of(case)
    orders = list(_orders(labels, case.knowledge.local_batch_size or len(labels), case.generator))
    state = case.generator.get_state()
    rest = dataclasses.replace(budget, seconds=budget.seconds and budget.seconds / PARTS)
    begins = _read_as_one(_ordered(case, labels, state), orders, rest)
    best = 0
    if len(orders) > 1:
        full = budget.iterations or RECIPE.iterations
        seconds = rest.seconds and rest.seconds / len(orders)
        trial = Budget(min(full, max(LEAST, round(TRIAL * full))), 1, seconds)
        found = match([_ordered(case, order, state) for order in orders], RECIPE, trial, begins)
        scores = [c.objective.item() if isinstance(c, Reconstruction) else torch.inf for c in found]
        best = scores.index(min(scores))
    chosen = _ordered(case, orders[best], state)
    claims = [match([chosen], RECIPE, rest)[0]]
    if begins is not None:
        claims += match([chosen], RECIPE, dataclasses.replace(rest, restarts=1), [begins[best]])
    done = [claim for claim in claims if isinstance(claim, Reconstruction) and claim.converged]
    nearest = min(done, key=lambda claim: claim.objective.item(), default=claims[0])
    return refine([chosen], [nearest], RECIPE, rest)[0]


def _read_as_one(case: Case, orders: Sequence[Tensor], budget: Budget) -> list[Tensor] | None:
    """The inputs that several steps look like when they are read as one, in each of the orders of their labels."""
    if len(local_steps(case.knowledge)) == 1:
        return None
    claim = match([case], AS_ONE, budget)[0]
    if not isinstance(claim, Reconstruction) or claim.inputs is None or case.knowledge.labels is None:
        return None
    begins = [torch.empty_like(claim.inputs) for _ in orders]
    for begin, order in zip(begins, orders, strict=True):
        begin[order.argsort(stable=True)] = claim.inputs[case.knowledge.labels.argsort(stable=True)]
    return begins


def _ordered(case: Case, labels: Tensor, state: Tensor) -> Case:
    """The case with its labels in this order, and a generator of its own that draws the same starts for each order."""
    generator = torch.Generator()
    generator.set_state(state)
    return Case(case.observations, dataclasses.replace(case.knowledge, labels=labels), generator)


def _orders(labels: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Distinct ways (at most ORDERS) to spread the labels over local batches of ``size``; order within one is free."""
    seen: set[tuple[tuple[int, ...], ...]] = set()
    for _ in range(20 * ORDERS):
        order = labels[torch.randperm(len(labels), generator=generator).to(labels.device)]
        parts = [part.sort().values for part in order.split(size)]
        key = tuple(tuple(part.tolist()) for part in parts)
        if key not in seen:
            seen.add(key)
            yield torch.cat(parts)
        if len(seen) == ORDERS:
            return
