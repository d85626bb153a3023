"""How much privacy a mechanism is seen to lose, from random directions put into it: an estimate and a lower bound.

The directions are spread over all coordinates, so that one that was not put in is all but orthogonal to what came out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binom, norm
from torch import Tensor

from fedsim.bounds import epsilon_of
from fedsim.seeds import torch_generator

ONE_SHOT = 0.999
"""One-sided confidence of the one-shot estimate's lower end: the claim may be exact, and must then seldom be denied."""
ONE_RUN = 0.95
"""Of the one-run bound, which is far below the truth for every mechanism but the worst."""
SHARES = (1.0, 0.4, 0.1)
"""Shares of the trials that are guessed on in the one-run bound; its error is divided among them."""
_BLOCK = 100


@dataclass(frozen=True)
class Canaries:
    """``count`` random unit vectors of ``dimension``, drawn again from the seed whenever they are looked at."""

    count: int
    dimension: int
    seed: int

    def __post_init__(self) -> None:
        if self.count < 1 or self.dimension < 2:
            raise ValueError(f"count = {self.count}, dimension = {self.dimension}: need a canary, and two dimensions")

    def __iter__(self) -> Iterator[Tensor]:
        """Blocks (at most 100, dimension) of float32 rows of norm 1."""
        for start in range(0, self.count, _BLOCK):
            generator = torch_generator(self.seed, "canaries", start)
            rows = torch.randn(min(_BLOCK, self.count - start), self.dimension, generator=generator)
            yield rows / rows.norm(dim=1, keepdim=True)

    def total(self) -> Tensor:
        """The sum of all canaries (dimension,), float64."""
        return torch.stack([block.double().sum(0) for block in self]).sum(0)

    def alignments(self, releases: Tensor) -> Tensor:
        """How far each canary points into each of ``releases`` (R, dimension): (count, R), float64.

        The cosine times the root of the dimension. For a canary that had no part in the release it is N(0, 1) all but
        exactly, whatever the release is (Andrew et al. 2023, proposition 3.1).
        """
        # Float32 is exact enough for a statistic of unit spread, and halves the time.
        pointing = (releases.double() / releases.double().norm(dim=1, keepdim=True)).float().T
        return torch.cat([block @ pointing for block in self]).double() * math.sqrt(self.dimension)


@dataclass(frozen=True)
class Estimate:
    """Epsilon at ``delta`` as measured; ``low`` holds with ``confidence``, ``ceiling`` is the most that it can be.

    ``mu`` is how many noise widths the canaries stand out by; None where the method does not tell.
    """

    method: str
    epsilon: float
    low: float
    ceiling: float
    delta: float
    trials: int
    confidence: float
    mu: float | None = None


def one_shot(alignments: Tensor, dimension: int, delta: float) -> Estimate:
    """Epsilon from the alignments (k,) of canaries that all took part: their mean is mu of a Gaussian mechanism.

    Andrew et al. 2023, algorithm 1, with the null's spread at its known 1 instead of fitted, since fitting inflates
    small epsilons. An estimate for canaries, which may be worse off than any real contribution, or better; ``low`` is
    its own sampling error alone. An alignment is at most the root of the dimension.
    """
    mu = float(alignments.mean())
    below = mu - float(norm.ppf(ONE_SHOT)) / math.sqrt(len(alignments))
    return Estimate(
        method="one-shot canaries (Andrew et al. 2023)",
        epsilon=epsilon_of(max(0.0, mu), delta),
        low=epsilon_of(max(0.0, below), delta),
        ceiling=epsilon_of(math.sqrt(dimension), delta),
        delta=delta,
        trials=len(alignments),
        confidence=ONE_SHOT,
        mu=mu,
    )


def one_run(scores: Tensor, included: Tensor, delta: float) -> Estimate:
    """A lower bound on epsilon from trials (m,) that a fair coin each ``included`` or left out, and their scores.

    Steinke et al. 2023, theorem 5.2: the highest scores are guessed to be in, the lowest to be out, the others not
    guessed on. It assumes nothing of the mechanism. Its estimate is the bound itself; ``ceiling`` is the bound that
    guesses without a mistake would give.
    """
    trials = len(scores)
    if trials < 2 or included.shape != scores.shape:
        raise ValueError(f"{trials} scores and {len(included)} coins: need one of each for at least two trials")
    error, found, most = (1 - ONE_RUN) / len(SHARES), 0.0, 0.0
    order = included[scores.argsort()].bool()
    for share in SHARES:
        half = max(1, int(share * trials / 2))
        right = int(order[-half:].sum()) + int((~order[:half]).sum())
        found = max(found, _least_epsilon(trials, 2 * half, right, delta, error))
        most = max(most, _least_epsilon(trials, 2 * half, 2 * half, delta, error))
    return Estimate("one run (Steinke et al. 2023)", found, found, most, delta, trials, ONE_RUN)


def _chance(trials: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """The most likely that an (epsilon, delta) mechanism lets so many guesses be ``right``."""
    each = 1 / (1 + math.exp(-epsilon))
    fewer = np.arange(1, right + 1)
    near = np.cumsum(binom.pmf(right - fewer, guesses, each)) / fewer
    return min(1.0, float(binom.sf(right - 1, guesses, each)) + 2 * trials * delta * float(near.max(initial=0.0)))


def _least_epsilon(trials: int, guesses: int, right: int, delta: float, error: float) -> float:
    """The largest epsilon that so many right guesses refute at level ``error``; 0 where they refute none."""
    low, high = 0.0, 1.0
    if _chance(trials, guesses, right, 0.0, delta) >= error:
        return 0.0
    while _chance(trials, guesses, right, high, delta) < error:
        low, high = high, 2 * high
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if _chance(trials, guesses, right, middle, delta) < error else (low, middle)
    return low
