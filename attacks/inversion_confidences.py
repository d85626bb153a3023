"""Model inversion by questions alone, where the answers are confidences: perturbed, rounded or cut ones serve too."""

import math
import time

import torch
from torch import Tensor

from attacks.evolution import Evolution
from attacks.generative import Prior, leading
from attacks.inference import Claim, InferenceNeeds, Targets, inference
from attacks.inversion import best_claim, blob_case, search_space, unlikely
from attacks.oracle import Oracle
from attacks.view import Budget, Knowledge

GENERATIONS = 200
DIRECTIONS = 64
"""Most directions that are searched: the prior's broadest."""
POOL, WIDEST = 256, 3.0
"""Draws from the prior that are asked about once for all targets; each search starts at its class's best."""
FLOOR = 1e-6
"""Confidence taken for one that reads zero."""


def objective(source: Oracle, prior: Prior, codes: Tensor) -> Tensor:
    """Objective (N, K) of codes (N, d) for every class: minus log-confidence, and what the prior adds."""
    shown = source.confidences(prior.decode(codes))
    return -shown.clamp_min(FLOOR).log() + unlikely(codes)[:, None]


def draws(left: int | None, dimension: int, generator: torch.Generator) -> Tensor:
    """Codes to start from, from the prior's middle out to its rim: at most half of what the query budget leaves."""
    count = POOL if left is None else max(1, min(POOL, left // 2))
    reach = WIDEST * torch.rand((count, 1), generator=generator)
    return reach * torch.randn((count, dimension), generator=generator)


@inference(
    "model_inversion_confidences",
    paper="Fredrikson, Jha and Ristenpart, CCS 2015, black box; search by Ros and Hansen 2008 (sep-CMA-ES)",
    claim="an input that stands for each class, from the confidences that the model answers",
    needs=InferenceNeeds(rung="L1", source="oracle", access="rounded", targets=("labels",)),
    cost="seconds",
    stopped_by="answers without confidences, or a limit on questions",
    sanity=blob_case("confidences", Budget(iterations=100)),
)
def confidences(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """Stops before the first generation that the query budget would refuse; raises QueryBudgetExceeded at none left."""
    assert targets.labels is not None  # checked by the registry
    before, labels = source.queries, targets.labels.repeat_interleave(budget.restarts or 1)
    deadline = time.monotonic() + (budget.seconds or math.inf)
    prior = leading(search_space(knowledge), DIRECTIONS)
    start = draws(source.left, prior.dimension, generator)
    values, place = objective(source, prior, start).min(0)
    codes, values = start[place[labels]], values[labels]
    search = Evolution(codes, 0.5, generator)
    notes: tuple[str, ...] = ()
    for generation in range(budget.iterations or GENERATIONS):
        if source.left is not None and source.left < len(labels) * search.population:
            notes = (f"the query budget ended the search after {generation} generations",)
            break
        asked = search.ask()
        every = objective(source, prior, asked.flatten(0, 1)).unflatten(0, asked.shape[:2])
        found = every.gather(2, labels[:, None, None].expand(-1, asked.shape[1], 1))[..., 0]
        search.tell(found)
        least = found.min(1)
        better = least.values < values
        values = torch.where(better, least.values, values)
        codes = torch.where(better[:, None], asked[torch.arange(len(labels)), least.indices], codes)
        if time.monotonic() > deadline:
            break
    shape = (len(targets.labels), -1)
    return best_claim(prior, codes.unflatten(0, shape), values.unflatten(0, shape), source.queries - before, notes)
