"""Deep leakage from gradients: the inputs and soft labels together, by L-BFGS on the distance of the gradients."""

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
    matching=Matching(euclidean, joint=True, dtype=torch.float64),
    minimiser=lambda starts, iterations, boxed: LBFGS(starts),
    iterations=6000,
    restarts=4,
    tolerance=1e-9,
    stalls=True,
)


@attack(
    "dlg",
    paper="Zhu, Liu, Han, NeurIPS 2019, Deep Leakage from Gradients, algorithm 1",
    claim="the inputs and the labels behind a gradient of a small smooth model",
    needs=Needs(rung="L5", knowledge=("batch_size",), of_deltas=("learning_rate",)),
    cost="seconds",
    stopped_by="secure aggregation, noise of a hundredth of the gradient, larger batches, or activations with kinks",
    sanity=lambda: image_case(nn.Sigmoid(), Budget(iterations=400)),
)
def solve(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
    """The labels claimed are the optimised ones."""
    return match(cases, RECIPE, budget)
