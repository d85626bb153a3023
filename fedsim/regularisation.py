"""Controls that act while the model is trained: on its weights, its targets, and how long it goes on."""

import math
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from attacks.losses import LOSSES, Loss
from fedsim.part import Part


class Regularisation(Part):
    """What holds the model back from its training data. Dropout is an option of the model."""

    weight_decay: float = Field(0.0, ge=0)
    """Added to every gradient, times the weights."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target spread over all classes; cross-entropy alone."""
    early_stop: int | None = Field(None, ge=1)
    """Rounds without a better loss on public data after which training ends."""


def training_loss(name: str, regularisation: Regularisation) -> Loss:
    """The loss that clients train on."""
    smoothing = regularisation.label_smoothing
    if not smoothing:
        return LOSSES[name]
    return lambda outputs, labels: F.cross_entropy(outputs, labels, label_smoothing=smoothing)


def decayed(gradient_of: Any, decay: float, measured: MutableMapping[str, float]) -> Any:
    """``gradient_of`` with weight decay; how hard it pulled last goes to ``measured``."""
    if not decay:
        return gradient_of

    def gradient(model: nn.Module, inputs: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        found = gradient_of(model, inputs, labels)
        weights = dict(model.named_parameters())
        pull = {name: decay * weights[name].detach() for name in found}
        measured["weight_decay.pull"] = math.sqrt(sum(float(t.square().sum()) for t in pull.values()))
        return {name: slope + pull[name] for name, slope in found.items()}

    return gradient


def smoothing_added(
    name: str, loss: Loss, model: nn.Module, inputs: Tensor, labels: Tensor, measured: MutableMapping[str, float]
) -> None:
    """Measure what smoothing adds to the loss of a batch, in evaluation mode; nothing where there is none."""
    if loss is LOSSES[name]:
        return
    mode = model.training
    with torch.no_grad():
        outputs = model.eval()(inputs)
        measured["label_smoothing.loss_added"] = float(loss(outputs, labels) - LOSSES[name](outputs, labels))
    model.train(mode)


@contextmanager
def dropout_seen(model: nn.Module, measured: MutableMapping[str, float]) -> Iterator[None]:
    """Measure the share of activations that the model's dropout layers zero while they train."""
    zeroed, there = 0, 0

    def look(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        nonlocal zeroed, there
        alive = given[0] != 0
        zeroed, there = zeroed + int((alive & (made == 0)).sum()), there + int(alive.sum())

    handles = [m.register_forward_hook(look) for m in model.modules() if isinstance(m, nn.Dropout)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if there:
        measured["dropout.zeroed"] = zeroed / there


class Patience:
    """Tells when training has gone ``rounds`` rounds without a better loss."""

    def __init__(self, rounds: int | None) -> None:
        self._rounds, self._best, self._waited = rounds, math.inf, 0

    def exhausted(self, loss: float) -> bool:
        """Take in a round's loss; whether to stop after it."""
        self._waited = 0 if loss < self._best else self._waited + 1
        self._best = min(self._best, loss)
        return self._rounds is not None and self._waited >= self._rounds
