"""Gradients and losses of candidate records, each by itself, at a model that the adversary holds."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from attacks.losses import LOSSES
from attacks.view import Observation

_VALUES = 2**24
"""Numbers that the gradients held at once may have."""


def directions(model: nn.Module, names: Sequence[str], inputs: Tensor, labels: Tensor, loss: str) -> Tensor:
    """The gradient of each record's own loss, over the parameters ``names`` in one row: (T, d).

    In evaluation mode, since batch statistics of one record are none; the caller's model stays as it was.
    """
    still = copy.deepcopy(model).eval()
    parameters = {name: p.detach() for name, p in still.named_parameters()}
    moved = {name: parameters.pop(name) for name in names}
    fixed = {**parameters, **dict(still.named_buffers())}

    def one(weights: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return LOSSES[loss](functional_call(still, {**fixed, **weights}, (x[None],)), y[None])

    each = vmap(grad(one), in_dims=(None, 0, 0))
    size = max(1, _VALUES // max(1, sum(t.numel() for t in moved.values())))
    rows = []
    for x, y in zip(inputs.split(size), labels.split(size), strict=True):
        slopes = each(moved, x, y)
        rows.append(torch.cat([slopes[name].flatten(1) for name in names], dim=1))
    return torch.cat(rows)


def losses(model: nn.Module, inputs: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Each record's own loss (T,) in evaluation mode."""
    still = copy.deepcopy(model).eval()
    with torch.no_grad():
        return vmap(lambda x, y: LOSSES[loss](still(x[None]), y[None]))(inputs, labels)


def downhill(obs: Observation) -> tuple[list[str], Tensor]:
    """Parameter names, and the update along them as one row (d,) that points as a gradient does."""
    names = list(obs.update)
    row = torch.cat([obs.update[name].flatten() for name in names])
    return names, -row if obs.kind == "delta" else row


def alignments(obs: Observation, inputs: Tensor, labels: Tensor, loss: str) -> Tensor:
    """The cosine (T,) of each record's gradient with the update; 0 where either is zero."""
    names, row = downhill(obs)
    return torch.cosine_similarity(directions(obs.model, names, inputs, labels, loss), row[None], dim=1, eps=1e-30)


def local_model(obs: Observation) -> nn.Module:
    """The client's model after its local training, which a delta gives away."""
    local = copy.deepcopy(obs.model)
    with torch.no_grad():
        for name, parameter in local.named_parameters():
            if name in obs.update:
                parameter.add_(obs.update[name].to(parameter))
    buffers = dict(local.named_buffers())
    for name, value in obs.buffers.items():
        if name in buffers:
            buffers[name].copy_(value)
    return local
