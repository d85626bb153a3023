"""Feature inversion: the very input behind the features that an inner layer made of it (split learning, embeddings)."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attacks.inference import Claim, InferenceNeeds, InferenceSanity, Targets, inference
from attacks.inversion import search_space, unlikely
from attacks.oracle import Oracle, put
from attacks.view import Budget, Knowledge, NotApplicable

ITERATIONS, RATE = 600, 0.05
WEIGHT = 1e-3
"""Of the prior beside the relative squared error of the features, as a share of its weight in class inversion."""


@contextmanager
def outputs_of(model: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Collect what module ``layer`` puts out at each forward pass; raises ValueError where there is no such module."""
    named = dict(model.named_modules())
    if layer not in named or not layer:
        raise ValueError(f"layer = {layer!r}: no such module; one of {', '.join(name for name in named if name)}")
    seen: list[Tensor] = []
    handle = named[layer].register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        yield seen
    finally:
        handle.remove()


def features(model: nn.Module, layer: str, inputs: Tensor) -> Tensor:
    """What module ``layer`` makes of ``inputs``: (N, ...)."""
    with outputs_of(model, layer) as seen:
        put(model, inputs)
    return seen[-1].to(inputs)


def _sanity() -> InferenceSanity:
    draw = torch.Generator().manual_seed(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((torch.rand(parameter.shape, generator=draw) - 0.5) / 2)
    truth = torch.rand((2, 1, 4, 4), generator=draw)
    with torch.no_grad():
        asked = Targets(features=features(model, "1", truth), layer="1")

    def won(claim: Claim) -> bool:
        return claim.inputs is not None and float((claim.inputs - truth).square().mean()) < 1e-2

    know = Knowledge((1, 4, 4), 3, value_range=(0.0, 1.0))
    return InferenceSanity(Oracle(model, num_classes=3, access="white_box"), know, asked, Budget(), won)


@inference(
    "feature_inversion",
    paper="Mahendran and Vedaldi, CVPR 2015; He, Zhang and Lee, ACSAC 2019 (white box)",
    claim="the input itself, from the features that an inner layer made of it",
    needs=InferenceNeeds("L1", "oracle", "white_box", targets=("features", "layer")),
    cost="seconds",
    stopped_by="features that stay where they were made, or noise on them",
    sanity=_sanity,
)
def invert_features(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """Adam on the prior's codes of every target at once. ``scores`` (T,) are minus the relative squared errors.

    Raises NotApplicable where the layer's features of one input are not of the shape that was given.
    """
    assert targets.features is not None  # both are checked by the registry
    assert targets.layer is not None
    deadline = time.monotonic() + (budget.seconds or math.inf)
    model, prior = source.model.requires_grad_(False), search_space(knowledge)
    wanted = targets.features.flatten(1)
    codes = torch.zeros((len(wanted), prior.dimension), requires_grad=True)
    scale = wanted.square().sum(1).clamp_min(1e-12)
    with torch.no_grad():
        own = tuple(features(model, targets.layer, prior.decode(codes)).shape)
    if own != tuple(targets.features.shape):
        given = f"(layer {targets.layer!r} makes {own}, given are {tuple(targets.features.shape)})"
        raise NotApplicable(f"features of the layer's shape {given}", "L1")
    steps = budget.iterations or ITERATIONS
    optimiser = torch.optim.Adam([codes], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

    def errors() -> Tensor:
        return (features(model, str(targets.layer), prior.decode(codes)).flatten(1) - wanted).square().sum(1) / scale

    for _ in range(steps):
        optimiser.zero_grad()
        (errors() + WEIGHT * unlikely(codes)).sum().backward()
        optimiser.step()
        schedule.step()
        if time.monotonic() > deadline:
            break
    with torch.no_grad():
        return Claim(-errors(), inputs=prior.decode(codes))
