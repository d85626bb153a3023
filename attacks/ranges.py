"""A value range (scalars, or one bound per entry of the first input axis) as tensors that fit the inputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def bounds(value_range: tuple[Any, Any], input_shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Low and high as float64 tensors of ``input_shape``; ValueError where they do not fit or a range is empty."""
    low, high = (_spread(bound, tuple(input_shape)) for bound in value_range)
    if not (low < high).all():
        raise ValueError(f"value_range = {value_range}: low must lie below high everywhere")
    return low, high


def feature_box(
    value_range: tuple[Any, Any] | None, input_shape: Sequence[int], order: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Low and high (d,) for features of which feature j is flat input ``order[j]``; None where no range is granted."""
    if value_range is None:
        return None
    low, high = bounds(value_range, input_shape)
    return low.flatten().to(order.device)[order], high.flatten().to(order.device)[order]


def _spread(bound: Any, shape: tuple[int, ...]) -> Tensor:
    values = torch.as_tensor(bound, dtype=torch.float64)
    if values.ndim == 0:
        return values.expand(shape)
    if values.shape != shape[:1]:
        raise ValueError(f"value_range bound of shape {tuple(values.shape)}: give a scalar or {shape[:1]} for {shape}")
    return values.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
