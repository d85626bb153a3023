"""Gradient matching by absolute differences, which neither kinks nor some noise mislead as they do squares."""

import dataclasses
from collections.abc import Sequence

from torch import nn

from attacks import inverting
from attacks.known_case import image_case
from attacks.matching import Matching
from attacks.objectives import absolute
from attacks.refining import match_and_refine
from attacks.registry import Case, Needs, attack
from attacks.view import Budget, NotApplicable, Reconstruction

RECIPE = dataclasses.replace(inverting.RECIPE, matching=Matching(absolute, tv=0.6))


@attack(
    "absolute_matching",
    paper="Deng et al., EMNLP 2021 (TAG), eq. 5, its absolute part, in the search of Geiping et al., NeurIPS 2020",
    claim="the inputs behind one gradient, one delta of unknown learning rate, or a sum of few, also under some noise",
    needs=Needs(rung="L5", knowledge=("batch_size",), sums=True),
    cost="seconds",
    stopped_by="sums over several clients, noise of the size of the gradient, or large batches",
    sanity=lambda: image_case(nn.ReLU(), Budget(iterations=400)),
)
def solve(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
    """As ``inverting_gradients`` but for the distance; weaker than that on very smooth pictures under noise."""
    return match_and_refine(cases, RECIPE, budget)
