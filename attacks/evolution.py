"""Gradient-free search on many targets at once: separable CMA-ES (Ros and Hansen 2008), ranks alone."""

import math

import torch
from torch import Tensor


class Evolution:
    """One search a target from ``start`` (T, d): ``ask`` for candidates, ``tell`` their values (lower is better).

    Only the order of the values matters, so that rounded ones serve as far as they differ.
    """

    def __init__(self, start: Tensor, step: float, generator: torch.Generator) -> None:
        targets, dimension = start.shape
        self.population = 4 + int(3 * math.log(dimension))
        parents = self.population // 2
        weights = math.log((self.population + 1) / 2) - torch.arange(1, parents + 1, dtype=start.dtype).log()
        self.weights = weights / weights.sum()
        effective = float(1 / self.weights.square().sum())
        self.step_rate = (effective + 2) / (dimension + effective + 5)
        self.damping = 1 + self.step_rate + 2 * max(0.0, math.sqrt((effective - 1) / (dimension + 1)) - 1)
        self.path_rate = (4 + effective / dimension) / (dimension + 4 + 2 * effective / dimension)
        # The separable form learns d variances in place of d^2, and may do so (d + 2) / 3 times as fast.
        faster = (dimension + 2) / 3
        self.rank_one = faster * 2 / ((dimension + 1.3) ** 2 + effective)
        most = 2 * (effective - 2 + 1 / effective) / ((dimension + 2) ** 2 + effective)
        self.rank_many = min(1 - self.rank_one, faster * most)
        self.effective, self.expected = effective, math.sqrt(dimension) * (1 - 1 / (4 * dimension))
        self.mean, self.variance = start.clone(), torch.ones_like(start)
        self.step = torch.full((targets, 1), step, dtype=start.dtype)
        self.step_path, self.path = torch.zeros_like(start), torch.zeros_like(start)
        self.generator = generator

    def ask(self) -> Tensor:
        """Candidates (T, population, d)."""
        targets, dimension = self.mean.shape
        drawn = torch.randn((targets, self.population, dimension), generator=self.generator, dtype=self.mean.dtype)
        self.moves = drawn * self.variance.sqrt()[:, None]
        return self.mean[:, None] + self.step[:, None] * self.moves

    def tell(self, values: Tensor) -> None:
        """Move each search by the values (T, population) of the candidates last asked for."""
        order = values.argsort(dim=1, stable=True)[:, : len(self.weights)]
        chosen = self.moves.gather(1, order[..., None].expand(-1, -1, self.moves.shape[2]))
        move = (self.weights[:, None] * chosen).sum(1)
        self.mean = self.mean + self.step * move
        kept = 1 - self.step_rate
        self.step_path = kept * self.step_path + math.sqrt((1 - kept**2) * self.effective) * move / self.variance.sqrt()
        length = self.step_path.norm(dim=1, keepdim=True)
        kept = 1 - self.path_rate
        moving = (length < (1.4 + 2 / (move.shape[1] + 1)) * self.expected * math.sqrt(2)).to(move.dtype)
        self.path = kept * self.path + moving * math.sqrt((1 - kept**2) * self.effective) * move
        spread = (self.weights[:, None] * chosen.square()).sum(1)
        remaining = 1 - self.rank_one - self.rank_many
        self.variance = remaining * self.variance + self.rank_one * self.path.square() + self.rank_many * spread
        self.step = self.step * torch.exp((self.step_rate / self.damping) * (length / self.expected - 1)).clamp_max(2)
