"""Inverting gradients: cosine distance and total variation, by Adam on the signs."""

import dataclasses
from collections.abc import Sequence

from torch import nn

from attacks.known_case import image_case
from attacks.matching import Matching
from attacks.objectives import cosine
from attacks.optimise import Recipe, flat_colours
from attacks.refining import match_and_refine
from attacks.registry import Case, Needs, attack
from attacks.signed_adam import SignedAdam
from attacks.view import Budget, NotApplicable, Reconstruction

RECIPE = Recipe(
    matching=Matching(cosine, tv=0.03),
    minimiser=SignedAdam,
    iterations=1000,
    restarts=2,
    scale=False,
    width=32,
    start=flat_colours,
)


LONE = dataclasses.replace(RECIPE, matching=Matching(cosine, tv=0.02))
"""For one image, with which no other mixes: less smoothing (on photographs held out a smooth net asks for more, a
rectifying one for still less)."""
LONE_SEARCH = 0.4
"""The part of the iterations that its search needs; where images mix, the search is what decides, and has them all."""


@attack(
    "inverting_gradients",
    paper="Geiping, Bauermeister, Dröge, Moeller, NeurIPS 2020, eq. 4",
    claim="the inputs behind one gradient, one delta of unknown learning rate, or a sum of few, by its direction",
    needs=Needs(rung="L5", knowledge=("batch_size",), sums=True),
    cost="seconds",
    stopped_by="sums over several clients, noise of a few hundredths of the gradient, or large batches",
    sanity=lambda: image_case(nn.ReLU(), Budget(iterations=400)),
)
def solve(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
    """Labels first (granted, by the sign rule, or as estimated counts); then signed Adam, and refining of its claim.

    It starts from noise, for several images from flat colours.
    """
    answers: dict[int, Reconstruction | NotApplicable] = {}
    for recipe, lone, search in ((LONE, True, LONE_SEARCH), (RECIPE, False, 1.0)):
        own = [place for place, case in enumerate(cases) if (case.knowledge.batch_size == 1) == lone]
        found = match_and_refine([cases[place] for place in own], recipe, budget, search)
        answers.update(zip(own, found, strict=True))
    return [answers[place] for place in range(len(cases))]
