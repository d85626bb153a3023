"""GradInversion: gradient matching with BatchNorm statistics as a prior, in two rungs (Yin et al. 2021).

Published figures grant the private batch's own statistics; without them the prior is far weaker (Huang et al. 2021).
So each is an attack of its own: one on what the server has anyhow, one on what it must be granted or must solve from
buffers that travel beside the update.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from attacks.known_case import ERROR
from attacks.losses import LOSSES
from attacks.matching import Matching
from attacks.norms import batch_statistics, running_statistics
from attacks.objectives import cosine
from attacks.optimise import Recipe, flat_colours, match
from attacks.refining import match_and_refine
from attacks.registry import Case, Needs, Sanity, attack
from attacks.signed_adam import SignedAdam
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction

_WEIGHTS = 0.01, 1.0
"""Of statistics that are not the batch's own, and of those that are; chosen on other photographs."""
RUNNING, BATCH = (
    Recipe(
        matching=Matching(cosine, tv=0.01, norm=weight, statistics=statistics),
        minimiser=SignedAdam,
        iterations=1000,
        restarts=2,
        scale=False,
        width=32,
        start=flat_colours,
    )
    for weight, statistics in zip(_WEIGHTS, (lambda obs, know: running_statistics(obs), batch_statistics), strict=True)
)
"""GradInversion's terms in the one engine; its consistency between restarts is not built."""


def _sanity() -> Sanity:
    """An 8x8 blob at a normalised one-layer net in evaluation mode, with the buffers of one step in the view."""
    draw = torch.Generator().manual_seed(5)
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4)
        )
    with torch.no_grad():
        for index in (0, 4):
            for parameter in model[index].parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    line = torch.linspace(-1, 1, 8)
    truth = torch.exp(-2 * ((line[:, None] - 0.3) ** 2 + (line + 0.2) ** 2))[None, None]
    local = copy.deepcopy(model).train()
    local(truth)
    model.eval()
    names = [name for name, _ in model.named_parameters()]
    loss = LOSSES["cross_entropy"](model(truth), torch.tensor([2]))
    update = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    buffers = {name: buffer.clone() for name, buffer in local.named_buffers()}

    def won(claim: Reconstruction) -> bool:
        return claim.inputs is not None and float((claim.inputs - truth).square().mean()) < ERROR

    know = Knowledge((1, 8, 8), 4, batch_size=1, value_range=(0.0, 1.0))
    return Sanity(Observation(model, update, "gradient", buffers=buffers), know, Budget(iterations=300), won)


@attack(
    "gradinversion",
    paper="Yin et al., CVPR 2021, See through Gradients, equation 10, with the statistics of the model that was sent",
    claim="the inputs behind one gradient of a model with BatchNorm, near the running statistics that it came with",
    needs=Needs(rung="L5", knowledge=("batch_size",)),
    cost="seconds",
    stopped_by="secure aggregation, noise, or a model without BatchNorm",
    sanity=_sanity,
)
def solve(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
    """Inverting gradients plus the prior; for a model without BatchNorm it is not applicable."""
    return _where_normed(cases, RUNNING, budget)


@attack(
    "gradinversion_batch_stats",
    paper="Yin et al., CVPR 2021, See through Gradients, equation 10, with the private batch's own statistics",
    claim="the inputs behind one gradient of a model with BatchNorm, near the statistics of the private batch",
    needs=Needs(rung="L6", knowledge=("batch_size",)),
    cost="seconds",
    stopped_by="statistics that stay with the client or are summed, secure aggregation, or noise",
    sanity=_sanity,
)
def solve_with_batch_statistics(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
    """The same, with statistics that are granted, or solved from the buffers beside an update of one step."""
    return _where_normed(cases, BATCH, budget)


def _where_normed(cases: Sequence[Case], recipe: Recipe, budget: Budget) -> list[Reconstruction | NotApplicable]:
    normed = [bool(running_statistics(case.observation)) for case in cases]
    # Running statistics are none that the batch has: their distance, which never falls, would hide the gradient's.
    search = match_and_refine if recipe is BATCH else match
    solved = iter(search([case for case, fits in zip(cases, normed, strict=True) if fits], recipe, budget))
    lacking = NotApplicable("a model with BatchNorm statistics", "L6" if recipe is BATCH else "L5")
    return [next(solved) if fits else lacking for fits in normed]
