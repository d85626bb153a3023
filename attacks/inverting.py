"""Inverting gradients: cosine distance and total variation, by Adam on the signs, inside the box of the data."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attacks.known_case import image_case
from attacks.matching import Matching
from attacks.objectives import cosine
from attacks.optimise import Recipe, flat_colours, match
from attacks.registry import Case, Needs, attack
from attacks.view import Budget, NotApplicable, Reconstruction

BETA1, BETA2 = 0.9, 0.999
DECAY, MILESTONES = 0.1, (3 / 8, 5 / 8, 7 / 8)


class SignedAdam:
    """Adam on the gradient's sign for K problems, clamped to [0, 1] in the first ``boxed`` columns.

    The rate falls tenfold after 3/8, 5/8 and 7/8 of ``iterations`` (Geiping et al. 2020, appendix; their code).
    """

    def __init__(self, starts: Tensor, iterations: int, boxed: int, rate: float = 0.1) -> None:
        self.iterations, self.boxed, self.rate = iterations, boxed, rate
        self.points = self._clamp(starts.clone())
        self.mean, self.square = torch.zeros_like(starts), torch.zeros_like(starts)
        self.steps = torch.zeros(len(starts), dtype=torch.long, device=starts.device)
        self.broken = torch.zeros(len(starts), dtype=torch.bool, device=starts.device)

    @property
    def stuck(self) -> Tensor:
        """Rows that cannot go on: those that met a non-finite number."""
        return self.broken

    def tell(self, values: Tensor, gradients: Tensor) -> None:
        """Take the values (K,) and gradients (K, D) at ``points``; a row with a non-finite answer stops there."""
        self.broken |= ~(values.isfinite() & gradients.isfinite().all(1))
        self.steps += 1
        sign = gradients.sign()
        self.mean = BETA1 * self.mean + (1 - BETA1) * sign
        self.square = BETA2 * self.square + (1 - BETA2) * sign.square()
        step = self.steps[:, None]
        mean, square = self.mean / (1 - BETA1**step), self.square / (1 - BETA2**step)
        fallen = sum((step > math.ceil(part * self.iterations)).to(mean) for part in MILESTONES)
        self.points = self._clamp(self.points - self.rate * DECAY**fallen * mean / (square.sqrt() + 1e-8))

    def restart(self, rows: Tensor, starts: Tensor) -> None:
        """Begin anew in ``rows`` from ``starts``."""
        self.points[rows] = self._clamp(starts)
        for state in (self.mean, self.square, self.steps, self.broken):
            state[rows] = 0

    def keep(self, rows: Tensor) -> None:
        """Drop every row but ``rows``."""
        for name in ("points", "mean", "square", "steps", "broken"):
            setattr(self, name, getattr(self, name)[rows])

    def _clamp(self, points: Tensor) -> Tensor:
        return torch.cat([points[:, : self.boxed].clamp(0, 1), points[:, self.boxed :]], 1)


RECIPE = Recipe(
    matching=Matching(cosine, tv=0.01),
    minimiser=SignedAdam,
    iterations=1000,
    restarts=2,
    scale=False,
    width=32,
    start=flat_colours,
)


@attack(
    "inverting_gradients",
    paper="Geiping, Bauermeister, Dröge, Moeller, NeurIPS 2020, eq. 4",
    claim="the inputs behind one gradient, or one delta of unknown learning rate, by its direction",
    needs=Needs(rung="L5", knowledge=("batch_size",)),
    sanity=lambda: image_case(nn.ReLU(), Budget(iterations=400)),
)
def solve(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
    """Labels first (granted, by the sign rule, or as estimated counts); then signed Adam.

    It starts from noise, for several images from flat colours.
    """
    return match(cases, RECIPE, budget)
