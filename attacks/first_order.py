"""A gradient that can be derived once more where the model has first derivatives alone."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

Slope = Callable[[Mapping[str, Tensor], Tensor, Tensor], Tensor]
"""From weights by name, inputs and labels."""

STEP = 0.6
"""The step is the type's precision to this power, in parts of the weights' norm. A third is best for a smooth model;
but each kink within the step adds its whole jump over the step. Of a ReLU net in float64, a third met one in every
second call, this in none, and rounding costs 1e-7 at most."""
_ENDS = ("torch::autograd::Error", "torch::autograd::NotImplemented")
"""The names of the nodes that PyTorch puts where a derivative is missing."""


def differenced(loss: Slope, at: Mapping[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The loss's gradient in the weights ``at``; it is itself derived by central differences of first derivatives.

    What flows back, v, asks for the derivative of v times the gradient in weights, inputs and labels: that of the
    loss's own first derivatives as the weights move along v. The error is of second order in the step.
    """
    found = _Differenced.apply(loss, tuple(at), x, y, *at.values())
    return dict(zip(at, found, strict=True))


def ends_early(value: Tensor) -> bool:
    """Whether something behind ``value`` has no derivative.

    PyTorch raises an error only where that lies on the way to what is asked; beside the way, it leaves a part of the
    derivative out and says nothing.
    """
    waiting, known = [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in known:
            continue
        if node.name() in _ENDS:
            return True
        known.add(node)
        waiting += [before for before, _ in node.next_functions]
    return False


class _Differenced(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, loss: Slope, names: tuple[str, ...], x: Tensor, y: Tensor, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.loss, ctx.names = loss, names  # type: ignore[attr-defined]
        ctx.save_for_backward(x, y, *weights)
        return _slopes(loss, names, x, y, weights)[2:]

    @staticmethod
    def backward(ctx: Any, *back: Tensor) -> tuple[Tensor | None, ...]:
        x, y, *weights = ctx.saved_tensors
        length = torch.stack([v.square().sum() for v in back]).sum().sqrt()
        if not length > 0:
            return (None, None, torch.zeros_like(x), None, *(torch.zeros_like(weight) for weight in weights))
        size = torch.stack([weight.square().sum() for weight in weights]).sum().sqrt()
        step = torch.finfo(x.dtype).eps ** STEP * size / length
        ahead, behind = (
            _slopes(
                ctx.loss, ctx.names, x, y, [weight + sign * step * v for weight, v in zip(weights, back, strict=True)]
            )
            for sign in (1, -1)
        )
        slopes = [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]
        return None, None, slopes[0], slopes[1] if ctx.needs_input_grad[3] else None, *slopes[2:]


def _slopes(
    loss: Slope, names: tuple[str, ...], x: Tensor, y: Tensor, weights: tuple[Tensor, ...] | list[Tensor]
) -> tuple[Tensor, ...]:
    """First derivatives in inputs, labels (zero where these are classes) and weights."""
    leaves = [tensor.detach().requires_grad_(tensor.is_floating_point()) for tensor in (x, y, *weights)]
    with torch.enable_grad():
        value = loss(dict(zip(names, leaves[2:], strict=True)), leaves[0], leaves[1])
    asked = [leaf for leaf in leaves if leaf.requires_grad]
    found = iter(torch.autograd.grad(value, asked, materialize_grads=True))
    return tuple(next(found) if leaf.requires_grad else torch.zeros_like(leaf) for leaf in leaves)
