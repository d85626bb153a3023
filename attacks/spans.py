"""The span of a layer's inputs, read from its weight gradient, and whether a vector lies in it, as far as noise tells.

The gradient of ``x -> W x`` sums outer products of output slopes and inputs: each of its rows mixes the inputs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import beta
from torch import Tensor

STRAY = 1e-3
"""Chance at which a random direction may lie as near to the span as what is taken for an input."""
CLEAR = 3.0
"""A direction stands out of the noise from so many times the noise floor on."""


@dataclass(frozen=True)
class Span:
    """What is left of the inputs' span above the noise: ``directions`` (rank, d) with their ``strengths`` (rank,).

    ``floor`` is the noise's own strength, ``room`` the dimension that inputs of this layer can fill at most.
    """

    directions: Tensor
    strengths: Tensor
    floor: float
    room: int

    @property
    def rank(self) -> int:
        """How many independent inputs stand out of the noise."""
        return len(self.strengths)

    @property
    def cap(self) -> float:
        """The largest squared distance of a unit vector from the span that chance leaves to a stranger rarely."""
        if not 0 < self.rank < self.room:
            return 0.0
        return float(beta.ppf(STRAY, (self.room - self.rank) / 2, self.rank / 2))

    def holds(self, vectors: Tensor, slack: float = 1.0) -> tuple[Tensor, Tensor]:
        """Which of ``vectors`` (..., d) lie in the span, and how far each is outside it, in units of its tolerance.

        Noise of strength e moves an input of coordinates c along directions of strength s out of the span by
        e |c / s|: that, times ``slack``, is each vector's own tolerance (first-order perturbation of singular
        subspaces, Wedin 1972). It never exceeds the distance that strangers have.
        """
        unit = vectors.to(self.directions) / vectors.to(self.directions).norm(dim=-1, keepdim=True)
        along = unit @ self.directions.T
        outside = (unit - along @ self.directions).square().sum(-1)
        tolerance = self.floor**2 * (along / self.strengths).square().sum(-1)
        tolerance = tolerance.clamp_min(torch.finfo(vectors.dtype).eps ** 2 * unit.shape[-1])
        excess = outside / tolerance
        return (excess <= slack**2) & (outside <= self.cap), excess.sqrt()


def span_of(gradients: Sequence[Tensor], room: int, expected: int | None) -> Span:
    """The span that layers with a common input of size d share, from their weight gradients (outputs, d).

    Each is brought to the same size first: what one of them shows faintly another may show well. The noise floor is
    the strength of the directions that can hold no input, those beyond ``room`` and beyond the ``expected`` number of
    inputs; where there is none, what rounding to the gradients' own type may leave.
    """
    eps = max(torch.finfo(g.dtype).eps for g in gradients)
    stacked = torch.cat([g.double() / g.double().norm() for g in gradients if g.any()])
    _, strengths, directions = torch.linalg.svd(stacked, full_matrices=False)
    most = min(len(strengths), room if expected is None else min(room, expected))
    size = math.sqrt(max(stacked.shape))
    rounding = (2 * eps + 4 * size * torch.finfo(torch.float64).eps) * float(strengths[0])
    if most < len(strengths):
        floor = max(rounding, float(strengths[most]))
    else:
        floor = rounding * size
    rank = int((strengths[:most] > CLEAR * floor).sum())
    return Span(directions[:rank], strengths[:rank], floor, room)


def dimension(vectors: Tensor) -> int:
    """The dimension that vectors (N, d) fill, to the rounding of their type."""
    flat = vectors.double()
    spread = torch.linalg.eigvalsh(flat.T @ flat).clamp_min(0).sqrt()
    return int((spread > torch.finfo(vectors.dtype).eps * math.sqrt(vectors.shape[-1]) * 10 * spread[-1]).sum())
