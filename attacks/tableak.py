"""Records from a gradient: categories as shares that sum to one, and the restarts of the search as an ensemble."""

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from attacks.columns import Column, decided, relaxed
from attacks.inverting import SignedAdam
from attacks.losses import LOSSES
from attacks.matching import Matching, Victim
from attacks.objectives import cosine
from attacks.optimise import Recipe, match
from attacks.registry import Case, Needs, Sanity, attack
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
    """Two records of two numbers and two categories at a small dense model."""
    columns = (
        Column("a", "numeric"),
        Column("b", "categorical", ("x", "y", "z")),
        Column("c", "numeric"),
        Column("d", "categorical", ("u", "v")),
    )
    draw = torch.Generator().manual_seed(5)
    model = nn.Sequential(nn.Linear(7, 128), nn.ReLU(), nn.Linear(128, 2))
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
    """Labels first; then gradient matching from many starts, and one claim pooled from all of them."""
    return match(cases, RECIPE, budget)
