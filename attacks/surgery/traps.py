"""Rows that few examples activate (Boenisch et al., EuroS&P 2023, When the Curious Abandon Honesty, section 5).

A row with as many negative as somewhat smaller positive weights is dead on most inputs, so that many rows of a batch
hold one example alone.
"""

import copy
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from attacks.probe import input_layer
from attacks.surgery.front import NAME, prepend
from attacks.surgery.planted import Planted
from attacks.view import Knowledge, NotApplicable

_SCALES = torch.linspace(0.2, 1.0, 81, dtype=torch.float64)
_PUBLIC = 512


def plant_traps(
    model: nn.Module,
    know: Knowledge,
    *,
    batch: int,
    generator: torch.Generator,
    rows: int = 1000,
    by: Literal["scale", "bias"] = "scale",
) -> Planted:
    """A copy of ``model`` with traps for batches of ``batch`` in the dense layer that reads the input.

    A model without such a layer gets one of ``rows`` in front. By ``scale`` (as published) one factor on all positive
    weights decides how rare activations are, chosen where the most examples of a batch of ``know.public`` would own a
    row; by ``bias`` every row's bias lets one public example in ``batch`` pass. Raises ValueError without ``public``.
    """
    if know.public is None:
        raise ValueError("knowledge.public: the traps are set on public data; grant some")
    try:
        layer, order = input_layer(model, know)
        rows = model.get_parameter(layer.weight).shape[0]
    except NotApplicable:
        layer, order = None, torch.arange(torch.Size(know.input_shape).numel())
    examples = know.public[:_PUBLIC].flatten(1).double().cpu()[:, order.cpu()]
    drawn = torch.randn((rows, len(order)), generator=generator, dtype=torch.float64).abs() / len(order)
    negative = torch.rand(drawn.shape, generator=generator).argsort(1) < len(order) // 2
    weight, bias = _RARITY[by](drawn, negative, examples, batch)
    share = expected_share(examples @ weight.T + bias > 0, batch)
    notes = (f"{share:.0%} of a batch of {batch} public examples would own a row",)
    if layer is None:
        public, classes = know.public[:_PUBLIC], know.num_classes
        sent = prepend(model, weight, bias, public, generator=generator, num_classes=classes, loss=know.loss)
        return Planted(sent, {"kind": "traps", "layer": f"{NAME}.rows"}, notes)
    sent = copy.deepcopy(model)
    with torch.no_grad():
        sent.get_parameter(layer.weight).copy_(weight)
        if layer.bias is not None:
            sent.get_parameter(layer.bias).copy_(bias)
    return Planted(sent, {"kind": "traps", "layer": layer.name}, notes)


def expected_share(active: Tensor, batch: int) -> float:
    """The part of a batch that owns a row, when row r is active on example i where ``active`` (N, rows) says so.

    An example owns a row if no other of the batch activates it; rows are taken to be independent.
    """
    alone = active * (1 - active.double().mean(0)) ** (batch - 1)
    return float(1 - (1 - alone).prod(1).mean())


def _scaled(drawn: Tensor, negative: Tensor, examples: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    down, up = examples @ (drawn * negative).T, examples @ (drawn * ~negative).T
    best = max(_SCALES, key=lambda scale: expected_share(scale * up > down, batch))
    return torch.where(negative, -drawn, best * drawn), drawn.new_zeros(len(drawn))


def _biased(drawn: Tensor, negative: Tensor, examples: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    weight = torch.where(negative, -drawn, drawn)
    return weight, -torch.quantile(examples @ weight.T, 1 - 1 / batch, dim=0)


_RARITY: dict[str, Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]] = {"scale": _scaled, "bias": _biased}
