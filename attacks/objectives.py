"""How far a candidate's gradient is from the one that was seen, and how unlike an image the candidate is."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Gradient = Mapping[str, Tensor]
Distance = Callable[[Gradient, Gradient], Tensor]


def _sum(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum()


def euclidean(gradient: Gradient, target: Gradient) -> Tensor:
    """Squared distance over the target's squared norm (scalar): 0 is a match, 1 is what a zero gradient gets.

    Zhu, Liu, Han 2019, eq. 3, made free of the gradient's scale.
    """
    gap = _sum([(gradient[name] - seen).square().sum() for name, seen in target.items()])
    return gap / _sum([seen.square().sum() for seen in target.values()])


def cosine(gradient: Gradient, target: Gradient) -> Tensor:
    """One minus the cosine between the two, over all parameters at once (scalar in [0, 2]).

    Geiping, Bauermeister, Dröge, Moeller 2020, eq. 4.
    """
    inner = _sum([(gradient[name] * seen).sum() for name, seen in target.items()])
    own = _sum([gradient[name].square().sum() for name in target])
    return 1 - inner / (own * _sum([seen.square().sum() for seen in target.values()])).sqrt()


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, down plus across (scalar); (B, C, H, W), any C, H, W > 1."""
    return (images.diff(dim=-1).abs().mean()) + (images.diff(dim=-2).abs().mean())
