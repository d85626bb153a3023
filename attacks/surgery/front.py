"""A layer put in front of any model: rows that each measure the whole input, summed and added back to it."""

import copy
import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from attacks.losses import LOSSES
from attacks.probe import sandbox

NAME = "front"
INNER = "model"
"""The submodules of a model with a front: the front, and the model as it was."""


class Front(nn.Module):
    """Adds to its input one direction times the sum of ``rows`` rectified measurements of it.

    All rows feed the same sum, so the loss has the same slope in each row that an example activates. A finite ``top``
    cuts every row off there.
    """

    def __init__(self, features: int, rows: int, top: float = math.inf) -> None:
        super().__init__()
        self.top = top
        # Their values are the server's, so no generator is asked for others first.
        self.rows = nn.utils.skip_init(nn.Linear, features, rows)
        self.spread = nn.utils.skip_init(nn.Linear, 1, features)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (B, *input_shape) to outputs of the same shape."""
        active = self.rows(x.flatten(1)).clamp(0, self.top)
        return x + self.spread(active.sum(1, keepdim=True)).reshape(x.shape)


def behind_front(model: nn.Module, features: int, rows: int) -> nn.Module:
    """A copy of ``model`` behind a ``Front`` that changes nothing yet: the architecture, before anything is planted."""
    front = Front(features, rows)
    with torch.no_grad():
        for parameter in front.parameters():
            parameter.zero_()
    return _joined(front, model)


def prepend(
    model: nn.Module,
    weight: Tensor,
    bias: Tensor,
    public: Tensor,
    *,
    generator: torch.Generator,
    num_classes: int,
    loss: str,
    top: float = math.inf,
    change: float = 0.1,
    slope: float = 1.0,
) -> nn.Module:
    """A copy of ``model`` behind a ``Front`` with rows ``weight`` (k, d) and ``bias`` (k,).

    ``change`` is the root mean square of what the front adds to an input, as a part of the spread of ``public``.
    ``slope`` is that of the loss of one example in an active row: rows can be scaled down and the sum up without
    changing what the model computes, so its size is the server's free choice.
    """
    front = Front(weight.shape[1], len(weight), top)
    push = torch.randn(weight.shape[1], generator=generator, dtype=torch.float64)
    with torch.no_grad():
        front.rows.weight.copy_(weight)
        front.rows.bias.copy_(bias)
        front.spread.weight.copy_(push[:, None])
        front.spread.bias.zero_()
    whole = _joined(front, model)
    public = public.to(next(model.parameters()))
    _centre(front, public, change)
    labels = torch.randint(num_classes, (len(public),), generator=generator).to(public.device)
    gain = slope / _slope(whole, public, labels, loss)
    with torch.no_grad():
        front.rows.weight.div_(gain)
        front.rows.bias.div_(gain)
        front.spread.weight.mul_(gain)
    front.top /= gain
    return whole


def _joined(front: Front, model: nn.Module) -> nn.Module:
    front.to(next(model.parameters()))
    whole = nn.Sequential(OrderedDict([(NAME, front), (INNER, copy.deepcopy(model))]))
    return whole.train(model.training)


def _centre(front: Front, public: Tensor, change: float) -> None:
    """Scale what the front adds to ``change`` of the data's spread, around zero."""
    with torch.no_grad():
        added = front(public) - public
        factor = change * public.std() / (added - added.mean(0)).square().mean().sqrt()
        front.spread.weight.mul_(factor)
        front.spread.bias.copy_(-factor * added.mean(0).flatten())


def _slope(whole: nn.Module, public: Tensor, labels: Tensor, loss: str) -> float:
    """Root mean square, over public examples, of the slope of an example's loss in the front's sum."""
    sums: list[Tensor] = []
    with sandbox(whole) as twin:
        spread = twin.get_submodule(f"{NAME}.spread")
        spread.register_forward_hook(lambda _, read, wrote: sums.append(read[0]))
        value = LOSSES[loss](twin(public), labels) * len(public)
        slopes = torch.autograd.grad(value, sums[0])[0]
    return float(slopes.square().mean().sqrt()) or 1.0
