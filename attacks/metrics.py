"""Leakage figures: pure functions of claims and targets. Scoring decides what is a target; nothing here knows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from skimage.metrics import structural_similarity
from torch import Tensor

from attacks.ranges import bounds

PSNR_CAP = 200.0
"""Decibels at which ``cap`` states an exact recovery: above what float32 can show (about 160 dB)."""
THRESHOLDS = (20.0, 30.0, 40.0)
"""Decibels from which an image counts as recovered, from recognisable to all but identical."""


def mse(claims: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error (B,) of each claim against the target at the same place, in float64."""
    return (claims.double() - targets.double()).square().flatten(1).mean(1)


def match(claims: Tensor, targets: Tensor) -> Tensor:
    """For each of B targets the index of the claim assigned to it, -1 for none: the assignment of least total error.

    Hungarian method on the root of the mean squared error (the error itself breaks the triangle inequality, and a
    wild claim could then drive an exact one from its target); on positions that differ where both hold tokens. No
    claim serves two targets; a non-finite claim is assigned last of all.
    """
    flat, goal = claims.flatten(1).double().cpu(), targets.flatten(1).double().cpu()
    tokens = not targets.is_floating_point()
    cost = torch.cdist(goal, flat, p=0.0) if tokens else torch.cdist(goal, flat) / flat.shape[1] ** 0.5
    worst = cost[cost.isfinite()].max() if cost.isfinite().any() else torch.tensor(1.0)
    rows, columns = linear_sum_assignment(cost.nan_to_num(nan=torch.inf).clamp_max(float(2 * worst + 1)).numpy())
    assigned = torch.full((len(targets),), -1, dtype=torch.long)
    assigned[torch.as_tensor(rows)] = torch.as_tensor(columns)
    return assigned


def clamp(claims: Tensor, value_range: tuple[Any, Any]) -> Tensor:
    """Claims with out-of-range values moved to the bound; say so beside any figure computed from them."""
    low, high = bounds(value_range, claims.shape[1:])
    return claims.clamp(low.to(claims), high.to(claims))


def psnr(claims: Tensor, targets: Tensor, value_range: tuple[Any, Any]) -> Tensor:
    """Peak signal-to-noise ratio (B,) in decibels, uncapped (inf where equal); the peak is the width of the range."""
    low, high = bounds(value_range, targets.shape[1:])
    width = (high - low).to(targets.device)
    return -10 * torch.log10(mse(claims.double() / width, targets.double() / width))


def cap(decibels: Tensor, at: float = PSNR_CAP) -> Tensor:
    """Figures with everything above ``at`` stated as ``at``, so that exact recoveries stay finite numbers."""
    return decibels.clamp_max(at)


def ssim(claims: Tensor, targets: Tensor, value_range: tuple[Any, Any]) -> Tensor:
    """Structural similarity (B,) of images (B, C, H, W), from -1 to 1 (Wang et al. 2004).

    The window is 7, on small images the largest odd number up to half their side (3 for 8x8); ValueError below 3.
    """
    side = min(targets.shape[-2:])
    if side < 3:
        raise ValueError(f"images of {tuple(targets.shape[-2:])}: structural similarity needs at least 3x3 pixels")
    window = max(3, min(7, side // 2 - (side // 2 + 1) % 2))
    low, high = bounds(value_range, targets.shape[1:])
    width = (high - low).to(targets.device)
    pairs = zip((claims.double() / width).cpu().numpy(), (targets.double() / width).cpu().numpy(), strict=True)
    figures = [structural_similarity(c, t, win_size=window, data_range=1.0, channel_axis=0) for c, t in pairs]
    return torch.tensor(figures, dtype=torch.float64)


def fraction_recovered(decibels: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> dict[float, float]:
    """For each threshold the share of targets at or above it; a target without a claim enters as -inf or nan."""
    if not len(decibels):
        raise ValueError("no targets: a fraction recovered of nothing has no meaning")
    return {threshold: float((decibels >= threshold).double().mean()) for threshold in thresholds}


def identified(claims: Tensor, targets: Tensor, distractors: Tensor) -> tuple[Tensor, int]:
    """Whether each claim's nearest neighbour in the pool is its own target (B,), and the pool's size (chance: 1/size).

    The pool is all targets and the distractors (Yin et al. 2021, image identifiability precision, in pixel space).
    """
    pool = torch.cat([targets.flatten(1), distractors.to(targets).flatten(1)]).double()
    # The faster matrix product rounds, and could tell a target from its own duplicate.
    exact = "donot_use_mm_for_euclid_dist"
    distance = torch.cdist(claims.to(targets.device).flatten(1).double(), pool, compute_mode=exact)
    own = distance.diagonal()
    return own.isfinite() & (own <= distance.min(1).values), len(pool)


def label_accuracy(claimed: Tensor, labels: Tensor) -> float:
    """Share of the labels that the claim holds, both as multisets; extra claimed labels earn nothing."""
    size = int(max(claimed.max(), labels.max())) + 1 if len(claimed) else 0
    both = torch.minimum(claimed.bincount(minlength=size), labels.bincount(minlength=size)) if size else labels[:0]
    return float(both.sum()) / len(labels)


def column_hits(claims: Tensor, targets: Tensor, widths: Sequence[int], tolerances: Sequence[float]) -> Tensor:
    """Whether each column of each record is recovered (B, columns).

    ``widths`` splits the features: 1 is a number, right within its tolerance (in data units); more is a one-hot
    block, right where its largest entry is.
    """
    if sum(widths) != targets.shape[1] or len(widths) != len(tolerances):
        raise ValueError(
            f"widths {list(widths)} with {len(tolerances)} tolerances do not fit {targets.shape[1]} features"
        )
    parts = zip(claims.split(list(widths), 1), targets.split(list(widths), 1), tolerances, strict=True)
    return torch.stack(
        [(c - t).abs()[:, 0] <= tol if c.shape[1] == 1 else c.argmax(1) == t.argmax(1) for c, t, tol in parts], dim=1
    )


def exact_match(hits: Tensor) -> Tensor:
    """Whether every column of each record is recovered (B,): a few right columns do not add up to a record."""
    return hits.all(1)


def token_accuracy(claims: Tensor, targets: Tensor) -> Tensor:
    """Share of positions (B,) at which the claimed token is the target's."""
    return (claims == targets).double().mean(1)


def bootstrap_interval(
    values: ArrayLike,
    generator: np.random.Generator,
    *,
    statistic: Callable[..., Any] = np.median,
    level: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of a statistic with an ``axis`` argument; inf is a fair value."""
    sample: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not len(sample):
        raise ValueError(f"values of shape {sample.shape}: give a vector of at least one figure")
    drawn = statistic(sample[generator.integers(len(sample), size=(resamples, len(sample)))], axis=1)
    tails = (1 - level) / 2
    # No interpolation between order statistics: inf - inf is not a number.
    low, high = np.quantile(drawn, [tails, 1 - tails], method="inverted_cdf")
    return float(low), float(high)
