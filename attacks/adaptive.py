"""Gradient matching against a defence that the update itself shows: compare only what the defence let through.

A defence counts for what it holds against an attacker that knows of it (Tramèr et al. 2020). Signs alone are compared
by sign, what top-k dropped is not compared, and the cosine does not see a clipped norm or even quantisation.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from attacks.inverting import RECIPE
from attacks.known_case import image_case
from attacks.objectives import Distance, cosine, kept_cosine, wrong_signs
from attacks.optimise import match
from attacks.registry import Case, Needs, Sanity, attack
from attacks.view import Budget, NotApplicable, Observation, Reconstruction

_NOTHING = 1e-6
"""What is smaller than this share of the largest value was dropped: encryption's error makes zeros inexact."""
_SPARSE = 0.5
"""An update with more exact zeros than this share was made sparse; dead units alone rarely make so many."""


def legible(update: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The update with zeros for what is next to nothing."""
    largest = max(float(tensor.detach().abs().max()) for tensor in update.values())
    return {name: torch.where(tensor.abs() > _NOTHING * largest, tensor, 0.0) for name, tensor in update.items()}


def shown(update: Mapping[str, Tensor]) -> tuple[str, Distance]:
    """The defence that the values give away, in words, and the distance to use against it."""
    values = torch.cat([tensor.detach().flatten() for tensor in update.values()])
    sizes = values[values != 0].abs()
    if len(sizes) > 1 and float(sizes.max() - sizes.min()) <= 1e-5 * float(sizes.max()):
        return "signs alone", wrong_signs
    if len(sizes) < (1 - _SPARSE) * len(values):
        return f"{len(sizes) / len(values):.0%} of the coordinates kept", kept_cosine
    return "nothing that the direction does not survive", cosine


def _sanity() -> Sanity:
    """A blob behind the largest fifth of its gradient."""
    case = image_case(nn.ReLU(), Budget(iterations=400, restarts=2))
    seen = case.observation
    sizes = torch.cat([slope.abs().flatten() for slope in seen.update.values()])
    least = sizes.quantile(0.8)
    kept = {name: torch.where(slope.abs() > least, slope, 0.0) for name, slope in seen.update.items()}
    return dataclasses.replace(case, observation=Observation(seen.model, kept, "gradient"))


@attack(
    "adaptive",
    paper="Geiping et al., NeurIPS 2020, eq. 4, with objectives after the defence (Tramèr et al., NeurIPS 2020)",
    claim="the inputs behind one update that was reduced to signs or to its largest coordinates, clipped or quantised",
    needs=Needs(rung="L5", knowledge=("batch_size",), sums=True),
    cost="seconds",
    stopped_by="secure aggregation, or noise of a few hundredths of the gradient; compression alone does not",
    sanity=_sanity,
)
def solve(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
    """Inverting gradients with the objective that suits each update; the notes say which defence it took it for."""
    answers: list[Reconstruction | NotApplicable] = []
    for case in cases:
        seen = dataclasses.replace(case.observation, update=legible(case.observation.update))
        defence, distance = shown(seen.update)
        recipe = dataclasses.replace(RECIPE, matching=dataclasses.replace(RECIPE.matching, distance=distance))
        claim = match([dataclasses.replace(case, observations=(seen,))], recipe, budget)[0]
        if isinstance(claim, Reconstruction):
            claim = dataclasses.replace(claim, notes=(*claim.notes, f"the update shows {defence}"))
        answers.append(claim)
    return answers
