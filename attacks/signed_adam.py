"""Adam on the signs of the gradient, inside the box of the data."""

import math

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.999
DECAY, MILESTONES = 0.1, (3 / 8, 5 / 8, 7 / 8)


class SignedAdam:
    """Adam on the gradient's sign for K problems, clamped to [0, 1] in the first ``boxed`` columns.

    The rate falls tenfold after 3/8, 5/8 and 7/8 of ``iterations`` (Geiping et al. 2020, appendix; their code).
    """

    def __init__(self, starts: Tensor, iterations: int, boxed: int, rate: float = 0.1) -> None:
        self.boxed = boxed
        self.points = self._clamp(starts.clone())
        self.mean, self.square = torch.zeros_like(starts), torch.zeros_like(starts)
        self.steps = torch.zeros(len(starts), dtype=torch.long, device=starts.device)
        self.broken = torch.zeros(len(starts), dtype=torch.bool, device=starts.device)
        taken = torch.arange(1, iterations + 1, dtype=torch.float64)
        falls = torch.stack([taken > math.ceil(part * iterations) for part in MILESTONES]).sum(0)
        # Over steps: the rate over the mean's bias, and the square's bias.
        self.rates = (rate * DECAY**falls / (1 - BETA1**taken))[:, None].to(starts)
        self.biases = (1 - BETA2**taken)[:, None].to(starts)

    @property
    def stuck(self) -> Tensor:
        """Rows that cannot go on: those that met a non-finite number."""
        return self.broken

    def tell(self, values: Tensor, gradients: Tensor) -> None:
        """Take the values (K,) and gradients (K, D) at ``points``; a row with a non-finite answer stops there."""
        self.broken |= ~(values + gradients.sum(1)).isfinite()
        sign = gradients.sign()
        self.mean.lerp_(sign, 1 - BETA1)
        self.square.lerp_(sign.square(), 1 - BETA2)
        at = self.steps.clamp(max=len(self.rates) - 1)  # a row that is done idles on beside the others
        scale = (self.square / self.biases[at]).sqrt_().add_(1e-8)
        self.points = self._clamp(self.points - self.rates[at] * self.mean / scale)
        self.steps = self.steps + 1

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
        if self.boxed == points.shape[1]:
            return points.clamp(0, 1)
        return torch.cat([points[:, : self.boxed].clamp(0, 1), points[:, self.boxed :]], 1)
