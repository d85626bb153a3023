"""Matching in two parts: a search under smoothing, then its claim refined while the smoothing falls away.

The smoothing that a search needs to find the picture then holds the picture off the truth. How far it may fall depends
on the update: without noise all the way, under noise until the candidate would follow the noise.
"""

import dataclasses
import functools
import math
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.batch import LEGIBLE
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

    That has the iterations that the search left to all restarts, at least those of one. Time is shared likewise; what
    the search does not use of it goes to refining.
    """
    iterations, restarts = budget.iterations or recipe.iterations, budget.restarts or recipe.restarts
    searched = min(iterations, max(LEAST, round(search * iterations)))
    left = max(iterations, (iterations - searched) * restarts)
    part = searched * restarts / (searched * restarts + left)
    began = time.monotonic()
    now = budget.seconds and part * budget.seconds
    claims = match(cases, recipe, dataclasses.replace(budget, iterations=searched, seconds=now))
    spent = (time.monotonic() - began) / max(1, len(cases))
    later = budget.seconds and max(budget.seconds - spent, (1 - part) * budget.seconds)
    return refine(cases, claims, recipe, dataclasses.replace(budget, iterations=left, seconds=later))


def refine(
    cases: Sequence[Case], claims: Sequence[Reconstruction | NotApplicable], recipe: Recipe, budget: Budget
) -> list[Reconstruction | NotApplicable]:
    """Each case's claim, taken on under ever less total variation; ``budget.seconds`` are per case.

    A level goes down by L-BFGS in float64, which is for smooth models, and where that does not bring the gradient much
    nearer by signed Adam, for which the levels share ``budget.iterations``. The claim is that of the last level before
    the first that neither brings nearer. Where a model does not take what this asks of it, the search's claim stands.
    """
    refined = list(claims)
    by_size: dict[int, list[_Stand]] = {}
    for place, claim in enumerate(claims):
        if isinstance(claim, Reconstruction) and claim.converged:
            size = cases[place].knowledge.batch_size or 1
            by_size.setdefault(size, []).append(_stand(place, cases[place], claim, recipe.matching))
    for size, stands in by_size.items():
        deadline = time.monotonic() + (budget.seconds or math.inf) * len(stands)
        for part in LEVELS:
            matching = dataclasses.replace(recipe.matching, tv=part * recipe.matching.tv)
            stands = _lowered(stands, size, dataclasses.replace(recipe, matching=matching), budget, deadline)
            for stand in stands:
                refined[stand.place] = stand.claim
            stands = [stand for stand in stands if stand.gains]
    return refined


def _lowered(stands: list[_Stand], size: int, recipe: Recipe, budget: Budget, deadline: float) -> list[_Stand]:
    """The cases, of ``size`` examples each, as this level leaves them."""
    matching = dataclasses.replace(recipe.matching, dtype=torch.float64)
    smooth = dataclasses.replace(recipe, matching=matching, minimiser=_lbfgs, stalls=True)
    kinked = dataclasses.replace(recipe, minimiser=functools.partial(SignedAdam, rate=RATE))
    iterations = budget.iterations or recipe.iterations
    few, share = min(STEPS * size**2, iterations), math.ceil(iterations / len(LEVELS))
    first = _descended(stands, smooth, dataclasses.replace(budget, iterations=few), deadline)
    failed = [stand for stand in first if not stand.gains]
    second = _descended(failed, kinked, dataclasses.replace(budget, iterations=share), deadline)
    return [stand for stand in first if stand.gains] + second


def _lbfgs(starts: Tensor, iterations: int, boxed: int) -> LBFGS:
    return LBFGS(starts)


def _descended(stands: list[_Stand], recipe: Recipe, budget: Budget, deadline: float) -> list[_Stand]:
    """Each case after one descent from its claim where that brings it nearer by enough, else as it was."""
    left = deadline - time.monotonic()
    if not stands or left <= 0:
        return [dataclasses.replace(stand, gains=False) for stand in stands]
    begin = [stand.claim.inputs for stand in stands if stand.claim.inputs is not None]
    # Compiling takes longer than a level.
    seconds = left / len(stands) if math.isfinite(left) else None
    level = dataclasses.replace(budget, restarts=1, seconds=seconds, compile=False)
    try:
        found = match([_labelled(stand) for stand in stands], recipe, level, begin)
    except (RuntimeError, TypeError, ValueError, AssertionError, MemoryError) as error:
        if len(stands) > 1:  # one's failure is not the others'
            return [after for stand in stands for after in _descended([stand], recipe, budget, deadline)]
        told = textwrap.shorten(f"not refined in {recipe.matching.dtype or 'its own type'}: {error}", LEGIBLE)
        claim = dataclasses.replace(stands[0].claim, notes=(*stands[0].claim.notes, told))
        return [dataclasses.replace(stands[0], claim=claim, gains=False)]
    return [_nearer(stand, claim, recipe.matching) for stand, claim in zip(stands, found, strict=True)]


def _nearer(stand: _Stand, claim: Reconstruction | NotApplicable, matching: Matching) -> _Stand:
    if isinstance(claim, NotApplicable):
        return dataclasses.replace(stand, gains=False)
    before = stand.claim
    spent = before.iterations + claim.iterations
    if claim.converged:
        after = _stand(stand.place, stand.case, claim, matching)
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
