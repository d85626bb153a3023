"""A model that answers with nothing (Pasquini, Francati, Ateniese, CCS 2022, Eluding Secure Aggregation, section 4).

Sent to every client but the target, it makes their part of the sum zero, so that the sum is the target's update.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attacks.losses import LOSSES
from attacks.probe import output_layer, proxies, sandbox
from attacks.surgery.planted import Planted
from attacks.view import Knowledge, generator

_FAR = 1e3
"""A bias so far below zero that any rectifier behind it is dead and any sigmoid flat, in float32."""
_PROBES = 32


def plant_silence(
    model: nn.Module, know: Knowledge, target: int | None = None, layers: Sequence[str] | None = None
) -> Planted:
    """A copy of ``model`` whose updates are exactly zero in as many parameters as one muted layer can make so.

    The layer's weight is zero and its bias far below zero: no gradient passes back through it, and none arises
    behind a dead rectifier. Which layer is best, and which parameters then stay ``silent``, is measured on random
    inputs of ``know.input_shape`` (or on ``know.public``) with random labels; ``layers`` narrows the choice.
    ``target`` is the client that gets the untouched model. Raises ValueError where no single layer silences any
    parameter.
    """
    best: tuple[int, str, tuple[str, ...]] = (0, "", ())
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if "weight" not in own or (layers is not None and name not in layers):
            continue
        silent = _silent(_muted(model, name), know)
        score = sum(sizes[parameter] for parameter in silent)
        if score > best[0]:
            best = (score, name, silent)
    score, layer, silent = best
    if not silent:
        raise ValueError(f"model {type(model).__name__}: muting no single layer of {layers or 'it'} silences the rest")
    heard = sorted(set(sizes) - set(silent))
    planted = {"kind": "inconsistency", "layer": layer, "silent": silent, "target": target}
    return Planted(_muted(model, layer), planted, (f"other clients are still heard in {heard}",) if heard else ())


def plant_whisper(model: nn.Module, know: Knowledge, factor: float, target: int | None = None) -> Planted:
    """A copy of ``model`` whose updates before the output layer are ``factor`` times what they would be, never zero.

    A client that looks for rows without any gradient finds none; what the others add to the sum is small, not absent.
    Raises ValueError for a model that does not end in a dense layer.
    """
    layer = output_layer(model, know)
    if layer is None:
        raise ValueError(f"model {type(model).__name__}: whispering needs a dense output layer")
    if layer.parametrised:
        raise ValueError(f"model {type(model).__name__}: whispering writes to {layer.name}, which is parametrised")
    quiet = copy.deepcopy(model)
    with torch.no_grad():
        quiet.get_parameter(layer.weight).mul_(factor)
    silent = tuple(name for name, _ in model.named_parameters() if name not in layer.parameters)
    planted = {"kind": "inconsistency", "layer": layer.name, "silent": silent, "target": target}
    return Planted(quiet, planted, (f"other clients add {factor:g} of their updates to the target's",))


def _muted(model: nn.Module, layer: str) -> nn.Module:
    muted = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in muted.get_submodule(layer).named_parameters(recurse=False):
            parameter.fill_(-_FAR if "bias" in name else 0.0)
    return muted


def _silent(model: nn.Module, know: Knowledge) -> tuple[str, ...]:
    """The parameters whose gradient is exactly zero for each of some examples."""
    draw = generator(0)
    inputs = know.public[:_PROBES] if know.public is not None else proxies(know, _PROBES, model, draw)
    labels = inputs
    if know.loss != "next_token":
        inputs = inputs.to(next(model.parameters()))
        labels = torch.randint(know.num_classes, (len(inputs),), generator=draw).to(inputs.device)
    heard: set[str] = set()
    with sandbox(model) as twin:
        names, parameters = zip(*twin.named_parameters(), strict=True)
        gradients: Sequence[Tensor | None] = torch.autograd.grad(
            LOSSES[know.loss](twin(inputs), labels), parameters, allow_unused=True
        )
        heard = {n for n, g in zip(names, gradients, strict=True) if g is None or bool(g.any())}
    return tuple(name for name in names if name not in heard)
