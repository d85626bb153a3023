"""An imprint layer in front of any model (Fowl et al., ICLR 2022, Robbing the Fed, section 3).

Every row measures the input along one direction and is active above its own threshold, so that rows of neighbouring
thresholds differ by the examples that fall between them, and by nothing else.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor, nn

from attacks.surgery.front import NAME, prepend
from attacks.surgery.planted import Planted

_TIED = 1e-12
"""Two public examples whose measurements differ by less than this part of their spread tie."""
_SPANNING = 512
"""Public examples from which the directions of little variance are taken."""
_FINENESS = 8
"""Points per bin at which the smoothed distribution is evaluated before it is inverted."""


def _random_direction(features: int, generator: torch.Generator) -> Tensor:
    return torch.randn(features, generator=generator, dtype=torch.float64)


def _mean_direction(features: int, generator: torch.Generator) -> Tensor:
    return torch.ones(features, dtype=torch.float64)


DIRECTIONS: dict[str, Callable[[int, torch.Generator], Tensor]] = {"random": _random_direction, "mean": _mean_direction}
"""What the rows measure: a random projection, or the mean brightness as published (which ties on coarse data)."""


def plant_imprint(
    model: nn.Module,
    public: Tensor,
    *,
    bins: int,
    generator: torch.Generator,
    num_classes: int,
    loss: str = "cross_entropy",
    direction: Literal["random", "mean"] = "random",
    hats: bool = False,
    jitter: float = 0.0,
    change: float = 0.1,
    slope: float = 1.0,
) -> Planted:
    """A copy of ``model`` behind an imprint of ``bins`` rows, thresholds at the quantiles of ``public`` (N, *shape).

    ``change`` and ``slope`` are those of the front (``front.prepend``). ``hats`` gives every bin a row
    of its own, which needs no differences and so bears more noise. ``jitter`` turns every row by about so many radians,
    each another way in which public examples hardly vary: no two rows are parallel, as ``detect`` looks for, and what
    they measure stays nearly the same. Raises ValueError for fewer than two bins or public examples, and for inputs
    that are not numbers.
    """
    if bins < 2 or len(public) < 2:
        raise ValueError(f"bins = {bins}, {len(public)} public examples: an imprint needs at least two of each")
    if not public.is_floating_point():
        raise ValueError("public: an imprint measures numbers, these inputs are token ids")
    flat = public.flatten(1).double().cpu()
    along = DIRECTIONS[direction](flat.shape[1], generator)
    along = along / along.norm()
    measured = flat @ along
    edges = torch.as_tensor(smooth_quantiles(measured.numpy(), bins))
    widths = edges.diff(append=2 * edges[-1:] - edges[-2:-1]) if hats else torch.ones(bins)
    sent = prepend(
        model,
        (along + jitter * _quiet_directions(flat, bins, generator) if jitter else along) / widths[:, None],
        -edges / widths,
        public,
        generator=generator,
        num_classes=num_classes,
        loss=loss,
        top=1.0 if hats else math.inf,
        change=change,
        slope=slope,
    )
    planted = {"kind": "imprint", "layer": f"{NAME}.rows", "rows": "separate" if hats else "cumulative"}
    return Planted(sent, planted, _ties(measured))


def _quiet_directions(flat: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random unit vectors (count, d) across the directions in which ``flat`` (N, d), mean included, is large."""
    sample = flat[torch.randperm(len(flat), generator=generator)[:_SPANNING]]
    loud = torch.linalg.svd(sample, full_matrices=False).Vh[: min(sample.shape) // 2]
    drawn = torch.randn((count, flat.shape[1]), generator=generator, dtype=torch.float64)
    drawn = drawn - drawn @ loud.T @ loud
    return drawn / drawn.norm(dim=1, keepdim=True)


def smooth_quantiles(values: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """``bins`` ascending thresholds with equal mass between them under a kernel-smoothed distribution of ``values``.

    The first lies below all mass. Each value spreads over the distance to its neighbours (a Gaussian as wide as the
    distance to the sqrt(N)-th nearest, Loftsgaarden and Quesenberry 1965), so that more bins than values still hold
    about equal mass: linear interpolation between order statistics doubles the collisions.
    """
    ordered = np.sort(values)
    reach = max(1, round(len(ordered) ** 0.5))
    gaps = np.partition(np.abs(ordered[:, None] - ordered), min(reach, len(ordered) - 1), axis=1)
    width = np.maximum(gaps[:, min(reach, len(ordered) - 1)] / 2, 1e-9 * (np.ptp(ordered) + 1))
    grid = np.linspace((ordered - 6 * width).min(), (ordered + 6 * width).max(), max(4000, _FINENESS * bins))
    mass = np.mean([ndtr((grid - value) / w) for value, w in zip(ordered, width, strict=True)], axis=0)
    thresholds = np.interp(np.arange(bins) / bins, mass, grid)
    thresholds[0] = grid[0] - np.ptp(grid)
    return thresholds


def _ties(measured: Tensor) -> tuple[str, ...]:
    ordered = measured.sort().values
    near = ordered.diff() <= _TIED * (ordered[-1] - ordered[0])
    tied = int((torch.cat([near, near[:1] & False]) | torch.cat([near[:1] & False, near])).sum())
    if not tied:
        return ()
    return (
        f"{tied} of {len(measured)} public examples measure the same as another: examples that tie share a bin "
        "whatever their number, so expect less than (1 - 1/bins)^(n - 1); choose another direction",
    )
