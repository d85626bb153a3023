"""How far a candidate's gradient is from the one that was seen, and how unlike an image the candidate is."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Gradient = Mapping[str, Tensor]
Distance = Callable[[Gradient, Gradient], Tensor]


def _flat(gradient: Gradient, target: Gradient) -> tuple[Tensor, Tensor]:
    """Both as one vector each, over the target's parameters: few large operations, where each would be many small."""
    return torch.cat([gradient[name].flatten() for name in target]), torch.cat([t.flatten() for t in target.values()])


def euclidean(gradient: Gradient, target: Gradient) -> Tensor:
    """Squared distance over the target's squared norm (scalar): 0 is a match, 1 is what a zero gradient gets.

    Zhu, Liu, Han 2019, eq. 3, made free of the gradient's scale.
    """
    own, seen = _flat(gradient, target)
    gap = own - seen
    return (gap * gap).sum() / (seen * seen).sum()


def cosine(gradient: Gradient, target: Gradient) -> Tensor:
    """One minus the cosine between the two, over all parameters at once (scalar in [0, 2]).

    Geiping, Bauermeister, Dröge, Moeller 2020, eq. 4.
    """
    own, seen = _flat(gradient, target)
    return _turn(own, seen)


def _turn(own: Tensor, seen: Tensor) -> Tensor:
    """One minus the cosine, as half the squared distance of the unit vectors: nothing cancels near a match."""
    gap = own / (own * own).sum().sqrt() - seen / (seen * seen).sum().sqrt()
    return (gap * gap).sum() / 2


ROUND = 0.01
"""Differences below this part of the target's mean size are squared instead: what rounding changes steers no search."""


def absolute(gradient: Gradient, target: Gradient) -> Tensor:
    """What the best multiple of the gradient leaves of the target, as a share of its absolute sum (scalar): 0 matches.

    A candidate across a kink of the model (a ReLU that is on, and off at the truth) has a few coordinates wrong by
    much and the others right. Squares, and so the cosine, are ruled by those few; absolute differences are not. Deng et
    al. 2021 (TAG), eq. 5, has them beside squares.
    """
    own, seen = _flat(gradient, target)
    left = (own * seen).sum() / (own * own).sum() * own - seen
    size = seen.abs().mean()
    corner = ROUND * size
    return ((left.square() + corner.square()).sqrt() - corner).mean() / size


def kept_cosine(gradient: Gradient, target: Gradient) -> Tensor:
    """``cosine`` over the coordinates that a client kept: where the target is exactly zero, it says nothing."""
    own, seen = _flat(gradient, target)
    return _turn(own * (seen != 0), seen)


def wrong_signs(gradient: Gradient, target: Gradient) -> Tensor:
    """The part of the gradient's absolute sum that points against the target's signs, or is where it has none."""
    own, seen = _flat(gradient, target)
    wrong = (-own * seen.sign()).clamp_min(0) + own.abs() * (seen == 0)
    return wrong.sum() / own.abs().sum()


EDGE = 1e-3
"""Differences of neighbours below this size, a quarter of a grey level, are squared instead, so that flat areas are no
kinks."""


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, down plus across (scalar); (B, C, H, W), any C, H, W > 1.

    Smooth at zero (Charbonnier, width EDGE); of images in unit coordinates.
    """
    across, down = ((images.diff(dim=axis).square() + EDGE**2).sqrt() - EDGE for axis in (-1, -2))
    return across.mean() + down.mean()
