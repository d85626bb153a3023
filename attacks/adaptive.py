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
from attacks.refining import match_and_refine
from attacks.registry import Case, Needs, Sanity, attack
from attacks.view import Budget, NotApplicable, Observation, Reconstruction

_NOTHING = 1e-6
"""What is smaller than this share of the largest value was dropped: encryption's error makes zeros inexact."""
_SPARSE = 0.5
"""An update with more zeros than this share may have been made sparse; dead units alone make as many."""
_ABRUPT = 0.2
"""What is left after the small was dropped begins at this part of its own median or more; untouched gradients of small
models begin at .16 of it or less, of others at a few hundredths."""


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
    if len(sizes) < (1 - _SPARSE) * len(values) and _dropped(update, sizes):
        return f"{len(sizes) / len(values):.0%} of the coordinates kept", kept_cosine
    return "nothing that the direction does not survive", cosine


def _dropped(update: Mapping[str, Tensor], sizes: Tensor) -> bool:
    """Whether zeros come from a defence: they lie scattered, or the ``sizes`` (n,) of what is left begin abruptly.

    A unit that no example activates leaves a whole row zero, and a whole column in the layer above. Of one example the
    gradient is a product, of which the largest part has whole rows and columns zero as well, but nothing small in it.
    """
    if len(sizes) < (1 - _SPARSE) * sum(_alive(tensor) for tensor in update.values()):
        return True
    return len(sizes) > 0 and bool(sizes.kthvalue(1 + len(sizes) // 100).values > _ABRUPT * sizes.median())


def _alive(tensor: Tensor) -> int:
    """How many coordinates lie in a row and a column (of a convolution: channels) that are not zero as a whole.

    In a vector each number is a row.
    """
    if tensor.ndim < 2:
        return int(tensor.count_nonzero())
    rows, columns = (tensor.transpose(0, axis).flatten(1).any(1) for axis in (0, 1))
    return int(rows.sum() * columns.sum()) * tensor[0, 0].numel()


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
        if not any(bool(tensor.any()) for tensor in case.observation.update.values()):
            answers.append(NotApplicable("an update that is not zero", "L4"))
            continue
        seen = dataclasses.replace(case.observation, update=legible(case.observation.update))
        defence, distance = shown(seen.update)
        recipe = dataclasses.replace(RECIPE, matching=dataclasses.replace(RECIPE.matching, distance=distance))
        # Whole regions have the right signs: there the smoothing that refining takes away is what chooses.
        search = match if distance is wrong_signs else match_and_refine
        claim = search([dataclasses.replace(case, observations=(seen,))], recipe, budget)[0]
        if isinstance(claim, Reconstruction):
            claim = dataclasses.replace(claim, notes=(*claim.notes, f"the update shows {defence}"))
        answers.append(claim)
    return answers
