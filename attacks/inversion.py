"""Model inversion: an input that stands for a class, from the model alone. What is claimed is likely under the prior
and certain to the model; whether it shows the class to anyone else, a held-out evaluator must judge."""

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.autoencoder import autoencoder
from attacks.generative import Linear, Prior, prior_for
from attacks.inference import Claim, InferenceNeeds, InferenceSanity, Targets, inference
from attacks.oracle import Oracle, put
from attacks.ranges import bounds
from attacks.view import Budget, Knowledge, NotApplicable

WEIGHT = 0.01
"""Of the prior's exponent beside the model's log-confidence; found on seeds other than those of the known results."""
ITERATIONS, RESTARTS, RATE = 300, 4, 0.1
JITTER, LOOKS = 1.0, 16
"""Noise on the codes at each step, in standard deviations of the prior, and how often the end is looked at under it:
what only the attacked model takes for the class does not survive it."""


def search_space(know: Knowledge) -> Linear:
    """Where inversions search; raises NotApplicable for a model of tokens, and for one that generates."""
    if know.loss == "next_token":
        raise NotApplicable("continuous inputs (this model takes tokens)", "L1")
    if know.loss == "elbo":
        raise NotApplicable("a model that tells classes apart (this one generates)", "L1")
    return prior_for(know)


def unlikely(codes: Tensor) -> Tensor:
    """What the prior adds to the objective (...,) of codes (..., d)."""
    return WEIGHT / 2 * codes.square().sum(-1)


def best_claim(prior: Prior, codes: Tensor, values: Tensor, queries: int = 0, notes: tuple[str, ...] = ()) -> Claim:
    """The claim of the restart with the least objective: ``codes`` (T, R, d), ``values`` (T, R)."""
    least = values.min(1)
    chosen = codes[torch.arange(len(codes)), least.indices]
    return Claim(scores=-least.values, queries=queries, inputs=prior.decode(chosen), notes=notes)


def descend(model: nn.Module, prior: Prior, labels: Tensor, generator: torch.Generator, budget: Budget) -> Claim:
    """Adam on the codes of every target and restart at once (Fredrikson et al. 2015, with the prior's exponent)."""
    restarts = budget.restarts or RESTARTS
    deadline = time.monotonic() + (budget.seconds or math.inf)
    wanted = labels.repeat_interleave(restarts)
    model.requires_grad_(False)
    codes = torch.randn((len(wanted), prior.dimension), generator=generator).requires_grad_()
    optimiser = torch.optim.Adam([codes], RATE)

    def objective() -> Tensor:
        moved = codes + JITTER * torch.randn(codes.shape, generator=generator)
        outputs = put(model, prior.decode(moved)).to(codes)
        return F.cross_entropy(outputs, wanted, reduction="none") + unlikely(codes)

    for _ in range(budget.iterations or ITERATIONS):
        optimiser.zero_grad()
        objective().sum().backward()
        optimiser.step()
        if time.monotonic() > deadline:
            break
    with torch.no_grad():
        values = torch.stack([objective() for _ in range(LOOKS)]).mean(0).unflatten(0, (len(labels), restarts))
        return best_claim(prior, codes.detach().unflatten(0, (len(labels), restarts)), values)


def blob_case(access: str, budget: Budget, public: int | None = None) -> Callable[[], InferenceSanity]:
    """A linear model of two 8x8 patterns, a bright left and a bright right half: the claims must show them.

    With ``public``, so many noised examples of the two are granted.
    """

    def case() -> InferenceSanity:
        left = torch.zeros(8, 8)
        left[:, :4] = 1
        patterns = torch.stack([left, 1 - left])
        layer = nn.Linear(64, 2)
        with torch.no_grad():
            layer.weight.copy_((patterns - 0.5).flatten(1) / 4)
            layer.bias.zero_()
        model = nn.Sequential(nn.Flatten(), layer)

        def won(claim: Claim) -> bool:
            if claim.inputs is None:
                return False
            means = torch.stack([claim.inputs[..., :4].flatten(1).mean(1), claim.inputs[..., 4:].flatten(1).mean(1)], 1)
            return means.argmax(1).tolist() == [0, 1] and bool((means[:, 0] - means[:, 1]).abs().min() > 0.1)

        noise = torch.rand((public or 0, 1, 8, 8), generator=torch.Generator().manual_seed(6))
        granted = (0.7 * patterns[torch.arange(public) % 2, None] + 0.3 * noise) if public else None
        return InferenceSanity(
            Oracle(model, num_classes=2, access=access),
            Knowledge((1, 8, 8), 2, value_range=(0.0, 1.0), public=granted),
            Targets(labels=torch.arange(2)),
            budget,
            won,
        )

    return case


@inference(
    "model_inversion_white_box",
    paper="Fredrikson, Jha and Ristenpart, CCS 2015, algorithm 1 (MIFace)",
    claim="an input that stands for each class, by descent on the model's loss",
    needs=InferenceNeeds(rung="L1", source="oracle", access="white_box", targets=("labels",)),
    cost="seconds",
    stopped_by="weights that stay with the service",
    sanity=blob_case("white_box", Budget(iterations=50, restarts=1)),
)
def white_box(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """Within smoothness, or within the public data's principal components where they are granted."""
    assert targets.labels is not None  # checked by the registry
    return descend(source.model, search_space(knowledge), targets.labels, generator, budget)


@inference(
    "model_inversion_generative",
    paper="Zhang et al., CVPR 2020 (GMI), with a variational autoencoder for its GAN",
    claim="an input that stands for each class, among those that a generator trained on public data can make",
    needs=InferenceNeeds(rung="L8", source="oracle", access="white_box", knowledge=("public",), targets=("labels",)),
    cost="seconds",
    stopped_by="weights that stay with the service, or no public data of the kind",
    sanity=blob_case("white_box", Budget(iterations=50, restarts=1), public=40),
)
def generative(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """It shows public data where these hold the class: judge it beside the public example nearest to the claim."""
    assert targets.labels is not None  # checked by the registry
    assert knowledge.public is not None
    search_space(knowledge)
    low, high = bounds(knowledge.value_range or (0.0, 1.0), knowledge.input_shape)
    prior = autoencoder(knowledge.public, low, high, generator)
    return descend(source.model, prior, targets.labels, generator, budget)
