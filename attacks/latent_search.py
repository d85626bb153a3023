"""Inversion of a generative model: what it remembers of a record of which a part is known."""

import math
import time

import torch
from torch import Tensor

from attacks.autoencoder import Autoencoder
from attacks.generative_membership import generative, memorising
from attacks.inference import Claim, InferenceNeeds, Targets, inference
from attacks.oracle import Oracle
from attacks.ranges import bounds
from attacks.view import Budget, Knowledge

ITERATIONS, RESTARTS, RATE = 300, 4, 0.1
_LEAST = 1e-6
"""A reconstruction is at least so far from either end of the value range, that no entry costs infinitely many nats."""


def explain(
    model: Autoencoder,
    unit: Tensor,
    known: Tensor,
    low: Tensor,
    high: Tensor,
    generator: torch.Generator,
    budget: Budget,
) -> tuple[Tensor, Tensor]:
    """The likeliest code (T, dimension) of each record, and the nats (T,) that the known part and the code cost then.

    ``unit`` (T, *input_shape) are the records within [0, 1], read only where ``known`` (the same shape) holds.
    """
    restarts = budget.restarts or RESTARTS
    deadline = time.monotonic() + (budget.seconds or math.inf)
    shown, mask = (part.repeat_interleave(restarts, 0).flatten(1) for part in (unit, known))
    codes = torch.randn((len(shown), model.dimension), generator=generator).requires_grad_()
    optimiser = torch.optim.Adam([codes], RATE)

    def nats() -> Tensor:
        share = ((model.decode(codes) - low) / (high - low)).flatten(1).clamp(_LEAST, 1 - _LEAST)
        cross = -(shown * share.log() + (1 - shown) * (1 - share).log())
        return torch.where(mask, cross, 0.0).sum(1) + codes.square().sum(1) / 2

    for _ in range(budget.iterations or ITERATIONS):
        optimiser.zero_grad()
        nats().sum().backward()
        optimiser.step()
        if time.monotonic() > deadline:
            break
    with torch.no_grad():
        least = nats().unflatten(0, (-1, restarts)).min(1)
    return codes.detach().unflatten(0, (-1, restarts))[torch.arange(len(unit)), least.indices], least.values


def _upper_half() -> Tensor:
    return (torch.arange(36) < 24).reshape(6, 6)


@inference(
    "latent_search",
    paper="Chen, Yu, Zhang and Fritz, CCS 2020 (GAN-Leaks, white box); Yeh et al., CVPR 2017, for the rest of a record",
    claim="the rest of a record of which a part is known (unknown entries NaN), as a generative model remembers it",
    needs=InferenceNeeds("L1", "oracle", "white_box", targets=("inputs",)),
    cost="seconds",
    stopped_by="weights that stay with the service, or a model that remembers no record",
    sanity=lambda: memorising(_upper_half()),
)
def latent_search(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """``inputs`` are the records with their unknown entries filled in, ``scores`` minus the nats of the known part.

    Beside it belongs what a model trained on public data fills in.
    """
    assert targets.inputs is not None  # checked by the registry
    model, known = generative(source), ~targets.inputs.isnan()
    low, high = (bound.float() for bound in bounds(knowledge.value_range or (0.0, 1.0), knowledge.input_shape))
    unit = ((targets.inputs - low) / (high - low)).nan_to_num().clamp(0, 1)
    codes, nats = explain(model, unit, known, low, high, generator, budget)
    return Claim(scores=-nats, inputs=torch.where(known, targets.inputs, model.decode(codes)))
