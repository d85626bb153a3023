"""Model inversion by labels alone: away from the boundary, towards the middle of the class's own region."""

import math
import time

import torch
from torch import Tensor

from attacks.generative import Prior, leading
from attacks.inference import Claim, InferenceNeeds, Targets, inference
from attacks.inversion import blob_case, search_space
from attacks.inversion_confidences import DIRECTIONS, draws
from attacks.oracle import Oracle
from attacks.view import Budget, Knowledge

ITERATIONS = 150
POOLS = 8
"""Most pools of draws that are asked about until every wanted class was answered."""
SPHERE = 32
"""Points asked about around each code."""
STEP = 0.5
"""Length of a move, in radii."""
RADIUS, WIDEN = 0.5, 1.3
"""First radius, in standard deviations of the prior, and its growth once the whole sphere is inside the region."""
FARTHEST = 1.5
"""Norm of a code, in that of a typical draw: beyond it the prior has nothing to say."""


@inference(
    "model_inversion_labels",
    paper="Kahla, Chen, Just and Jia, CVPR 2022 (BREP-MI), algorithm 1",
    claim="an input that stands for each class, from the labels that the model answers",
    needs=InferenceNeeds(rung="L1", source="oracle", access="label_only", targets=("labels",)),
    cost="seconds",
    stopped_by="a limit on questions",
    sanity=blob_case("label_only", Budget(iterations=60)),
)
def labels_alone(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """``scores`` are the radii reached, zero for a class that no draw from the prior was labelled with."""
    assert targets.labels is not None  # checked by the registry
    before, wanted = source.queries, targets.labels
    deadline = time.monotonic() + (budget.seconds or math.inf)
    prior = leading(search_space(knowledge), DIRECTIONS)
    codes, found = _starts(source, prior, wanted, generator)
    notes = [f"no draw from the prior was labelled {label}" for label in wanted[~found].unique().tolist()]
    best, reached = codes.clone(), torch.zeros(len(wanted))
    radius = torch.full((len(wanted),), RADIUS)
    last = codes.clone()
    for step in range(budget.iterations or ITERATIONS):
        live = found.nonzero()[:, 0]
        if source.left is not None and source.left < len(live) * SPHERE:
            notes.append(f"the query budget ended the search after {step} steps")
            break
        if not len(live) or time.monotonic() > deadline:
            break
        around = torch.randn((len(live), SPHERE, prior.dimension), generator=generator)
        around = around / around.norm(dim=2, keepdim=True)
        around[:, 0] = 0  # the code itself
        points = codes[live, None] + radius[live, None, None] * around
        answered = source.labels(prior.decode(points.flatten(0, 1))).unflatten(0, points.shape[:2])
        outside = answered != wanted[live, None]
        whole, strayed = live[~outside.any(1)], live[outside[:, 0]]
        best[whole], reached[whole] = codes[whole], radius[whole]
        radius[whole] *= WIDEN
        # Away from the mean direction of the points that left the region (eq. 3); back where the code itself left it.
        away = -(outside[..., None] * around).sum(1)
        away = away / away.norm(dim=1, keepdim=True).clamp_min(1e-12)
        moved = _kept(codes[live] + STEP * radius[live, None] * away)
        codes[strayed] = last[strayed]
        radius[strayed] /= WIDEN
        steady = ~outside[:, 0]
        last[live[steady]] = codes[live[steady]]
        codes[live[steady]] = moved[steady]
    return Claim(scores=reached, queries=source.queries - before, inputs=prior.decode(best), notes=tuple(notes))


def _starts(source: Oracle, prior: Prior, wanted: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A draw that was labelled as wanted for each target, another for each target of a class; whether there is one."""
    codes, found = torch.zeros((len(wanted), prior.dimension)), torch.zeros(len(wanted), dtype=torch.bool)
    pool, answered = codes[:0], wanted[:0]
    for _ in range(POOLS):
        more = draws(source.left, prior.dimension, generator)
        pool, answered = torch.cat([pool, more]), torch.cat([answered, source.labels(prior.decode(more))])
        if torch.isin(wanted, answered).all() or source.left == 0:
            break
    for label in wanted.unique():
        right, mine = (answered == label).nonzero()[:, 0], (wanted == label).nonzero()[:, 0]
        if len(right):
            right = right[torch.randperm(len(right), generator=generator)]
            codes[mine] = pool[right.repeat(-(-len(mine) // len(right)))[: len(mine)]]
            found[mine] = True
    return codes, found


def _kept(codes: Tensor) -> Tensor:
    """The codes, those beyond the farthest norm moved back to it."""
    farthest = FARTHEST * math.sqrt(codes.shape[1])
    return codes * (farthest / codes.norm(dim=1, keepdim=True).clamp_min(farthest))
