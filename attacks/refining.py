"""Matching in two parts: a search under smoothing, then its claim refined while the smoothing falls away.

The smoothing that a search needs to find the picture then holds the picture off the truth. How far it may fall depends
on the update: without noise all the way, under noise until the candidate would follow the noise.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.lbfgs import LBFGS
from attacks.matching import Matching
from attacks.objectives import total_variation
from attacks.optimise import Recipe, match
from attacks.ranges import bounds
from attacks.registry import Case
from attacks.signed_adam import SignedAdam
from attacks.view import Budget, NotApplicable, Reconstruction

LEAST = 300
"""Iterations that a search gets before any are kept for refining."""
LEVELS = (0.1, 0.01, 1e-3, 1e-4, 0.0)
"""Parts of the recipe's total variation."""
FALL = 0.7
"""A level must lower the distance to this part of what it was; what falls more slowly is noise being followed."""
STEPS, RATE = 150, 0.01
"""Steps of L-BFGS in a level for one example, and the rate at which signed Adam begins one, a tenth of a search's.
Several examples are far worse conditioned together: steps grow with the square of how many, up to the budget's."""


@dataclass(frozen=True)
class _Stand:
    """How far one case is: its claim, the distance of that claim's gradient, without smoothing, and if it still gains.

    ``claim.iterations`` counts the steps of levels that did not gain, too.
    """

    place: int
    case: Case
    claim: Reconstruction
    distance: float
    gains: bool = True


def match_and_refine(
    cases: Sequence[Case], recipe: Recipe, budget: Budget, search: float = 1.0
) -> list[Reconstruction | NotApplicable]:
    """``match`` with the part ``search`` of the iterations; then ``refine``, of each case's best restart.

    That has the iterations that the search left to all restarts, at least those of one. Time is shared likewise.
    """
    iterations, restarts = budget.iterations or recipe.iterations, budget.restarts or recipe.restarts
    searched = min(iterations, max(LEAST, round(search * iterations)))
    left = max(iterations, (iterations - searched) * restarts)
    part = searched * restarts / (searched * restarts + left)
    now, later = (budget.seconds and share * budget.seconds for share in (part, 1 - part))
    claims = match(cases, recipe, dataclasses.replace(budget, iterations=searched, seconds=now))
    return refine(cases, claims, recipe, dataclasses.replace(budget, iterations=left, seconds=later))


def refine(
    cases: Sequence[Case], claims: Sequence[Reconstruction | NotApplicable], recipe: Recipe, budget: Budget
) -> list[Reconstruction | NotApplicable]:
    """Each case's claim, taken on under ever less total variation.

    A level goes down by L-BFGS in float64, which is for smooth models, and where that does not bring the gradient much
    nearer by signed Adam, for which the levels share ``budget.iterations``. The claim is that of the last level before
    the first that neither brings nearer.
    """
    refined = list(claims)
    stands = [
        _stand(place, cases[place], claim, recipe.matching)
        for place, claim in enumerate(claims)
        if isinstance(claim, Reconstruction) and claim.converged
    ]
    seconds = budget.seconds and budget.seconds / len(LEVELS) / 2  # for each of the two ways down
    # Compiling takes longer than a level.
    level = dataclasses.replace(budget, restarts=1, seconds=seconds, compile=False)
    for part in LEVELS:
        lower = dataclasses.replace(recipe, matching=dataclasses.replace(recipe.matching, tv=part * recipe.matching.tv))
        stands = _lowered(stands, lower, level)
        for stand in stands:
            refined[stand.place] = stand.claim
        stands = [stand for stand in stands if stand.gains]
    return refined


def _lowered(stands: list[_Stand], recipe: Recipe, level: Budget) -> list[_Stand]:
    """The cases as this level leaves them."""
    matching = dataclasses.replace(recipe.matching, dtype=torch.float64)
    smooth = dataclasses.replace(recipe, matching=matching, minimiser=_lbfgs, stalls=True)
    kinked = dataclasses.replace(recipe, minimiser=functools.partial(SignedAdam, rate=RATE))
    examples = max((stand.case.knowledge.batch_size or 1 for stand in stands), default=1)
    iterations = level.iterations or recipe.iterations
    few = dataclasses.replace(level, iterations=min(STEPS * examples**2, iterations))
    share = dataclasses.replace(level, iterations=math.ceil(iterations / len(LEVELS)))
    first = _descended(stands, smooth, few)
    second = _descended([stand for stand in first if not stand.gains], kinked, share)
    return [stand for stand in first if stand.gains] + second


def _lbfgs(starts: Tensor, iterations: int, boxed: int) -> LBFGS:
    return LBFGS(starts)


def _descended(stands: Sequence[_Stand], recipe: Recipe, level: Budget) -> list[_Stand]:
    """Each case after one descent from its claim where that brings it nearer by enough, else as it was."""
    if not stands:
        return []
    begin = [stand.claim.inputs for stand in stands if stand.claim.inputs is not None]
    found = match([_labelled(stand) for stand in stands], recipe, level, begin)
    return [_nearer(stand, claim, recipe.matching) for stand, claim in zip(stands, found, strict=True)]


def _nearer(stand: _Stand, claim: Reconstruction | NotApplicable, matching: Matching) -> _Stand:
    assert isinstance(claim, Reconstruction)  # as the search's was
    before = stand.claim
    spent = before.iterations + claim.iterations
    after = _stand(stand.place, stand.case, claim, matching) if claim.converged else stand
    if after.distance <= FALL * stand.distance:
        notes = tuple(dict.fromkeys((*before.notes, *claim.notes)))
        claim = dataclasses.replace(claim, diverged=before.diverged, iterations=spent, notes=notes)
        return dataclasses.replace(after, claim=claim)
    return dataclasses.replace(stand, claim=dataclasses.replace(before, iterations=spent), gains=False)


def _stand(place: int, case: Case, claim: Reconstruction, matching: Matching) -> _Stand:
    assert claim.inputs is not None  # it converged
    rough = 0.0
    if claim.inputs.ndim == 4:
        low, high = bounds(case.knowledge.value_range or (0.0, 1.0), case.knowledge.input_shape)
        low, high = low.to(claim.inputs), high.to(claim.inputs)
        rough = float(total_variation((claim.inputs - low) / (high - low)))
    return _Stand(place, case, claim, claim.objective.item() - matching.tv * rough)


def _labelled(stand: _Stand) -> Case:
    """The case with the labels that its claim was found with."""
    know = dataclasses.replace(stand.case.knowledge, labels=stand.claim.labels)
    return dataclasses.replace(stand.case, knowledge=know)
