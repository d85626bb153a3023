"""Improved deep leakage: the label in closed form, then the input by L-BFGS on the gradient's distance."""

from collections.abc import Sequence

import torch
from torch import nn

from attacks.known_case import image_case
from attacks.lbfgs import LBFGS
from attacks.matching import Matching
from attacks.objectives import euclidean
from attacks.optimise import Recipe, match
from attacks.registry import Case, Needs, attack
from attacks.view import Budget, NotApplicable, Reconstruction

RECIPE = Recipe(
    matching=Matching(euclidean, dtype=torch.float64),
    minimiser=lambda starts, iterations, boxed: LBFGS(starts),
    iterations=6000,
    restarts=4,
    tolerance=1e-9,
    stalls=True,
)


@attack(
    "idlg",
    paper="Zhao, Mopuri, Bilen 2020, iDLG: Improved Deep Leakage from Gradients",
    claim="the inputs behind a gradient of a small smooth model, with the label by the sign rule",
    needs=Needs(rung="L5", knowledge=("batch_size",), of_deltas=("learning_rate",)),
    cost="seconds",
    stopped_by="secure aggregation, noise of a hundredth of the gradient, larger batches, or activations with kinks",
    sanity=lambda: image_case(nn.Sigmoid(), Budget(iterations=400)),
)
def solve(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
    """Labels first (granted, by the sign rule, or as estimated counts); then L-BFGS from uniform starts."""
    return match(cases, RECIPE, budget)
