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

    In evaluation mode, since batch statistics of one record are none; the caller's model stays as it was. A model that
    vmap cannot take is asked about one record at a time, which is slower and gives the same.
    """
    still = copy.deepcopy(model).eval()
    parameters = {name: p.detach() for name, p in still.named_parameters()}
    moved = {name: parameters.pop(name) for name in names}
    fixed = {**parameters, **dict(still.named_buffers())}

    def one(weights: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return LOSSES[loss](functional_call(still, {**fixed, **weights}, (x[None],)), y[None])

    def alone(x: Tensor, y: Tensor) -> Tensor:
        leaves = {name: weight.requires_grad_() for name, weight in moved.items()}
        slopes = torch.autograd.grad(one(leaves, x, y), [leaves[name] for name in names], materialize_grads=True)
        return torch.cat([slope.flatten() for slope in slopes])

    each = vmap(grad(one), in_dims=(None, 0, 0))
    size = max(1, _VALUES // max(1, sum(t.numel() for t in moved.values())))
    rows = []
    for x, y in zip(inputs.split(size), labels.split(size), strict=True):
        try:
            slopes = each(moved, x, y)
            rows.append(torch.cat([slopes[name].flatten(1) for name in names], dim=1))
        except RuntimeError:
            rows.append(torch.stack([alone(*record) for record in zip(x, y, strict=True)]))
    return torch.cat(rows)


def losses(model: nn.Module, inputs: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Each record's own loss (T,) in evaluation mode."""
    still = copy.deepcopy(model).eval()

    def one(x: Tensor, y: Tensor) -> Tensor:
        return LOSSES[loss](still(x[None]), y[None])

    with torch.no_grad():
        try:
            return vmap(one)(inputs, labels)
        except RuntimeError:
            return torch.stack([one(*record) for record in zip(inputs, labels, strict=True)])


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
