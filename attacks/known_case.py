"""A small image behind a small model's gradient, for attacks to prove themselves on: synthetic, and known only here."""

import torch
from torch import nn

from attacks.losses import LOSSES
from attacks.registry import Sanity
from attacks.view import Budget, Knowledge, Observation, Reconstruction

CLASSES, SIDE = 4, 8
ERROR = 1e-2
"""Mean squared error (20 dB) below which the image counts as rebuilt."""


def image_case(activation: nn.Module, budget: Budget) -> Sanity:
    """An 8x8 grey blob of class 2 at a one-layer convolutional net with the given ``activation``, untrained."""
    draw = torch.Generator().manual_seed(5)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), activation, nn.Flatten(), nn.Linear(8 * SIDE * SIDE, CLASSES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    line = torch.linspace(-1, 1, SIDE)
    image = torch.exp(-2 * ((line[:, None] - 0.3) ** 2 + (line + 0.2) ** 2))[None, None]
    loss = LOSSES["cross_entropy"](model(image), torch.tensor([2]))
    names = [name for name, _ in model.named_parameters()]
    update = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))

    def won(claim: Reconstruction) -> bool:
        if claim.inputs is None or claim.labels is None:
            return False
        return claim.labels.tolist() == [2] and float((claim.inputs - image).square().mean()) < ERROR

    know = Knowledge(input_shape=(1, SIDE, SIDE), num_classes=CLASSES, batch_size=1, value_range=(0.0, 1.0))
    return Sanity(Observation(model, update, "gradient"), know, budget, won)
