"""LiRA: a record's log odds under the finished model, held against models trained with the record and without it.

Carlini et al. 2022, algorithms 1 and 2. The shadow models are the adversary's own, on data that it holds. Where the
finished model shows few confidences, or few digits of them, theirs are cut alike.
"""

import math

import torch
from torch import Tensor

from attacks import known_members
from attacks.inference import Claim, InferenceNeeds, Targets, inference
from attacks.membership_model import classifies, logit_gap
from attacks.membership_updates import records
from attacks.oracle import Oracle
from attacks.shadows import Recipe, membership, train_shadows
from attacks.view import Budget, Knowledge

_SHADOWS = 64
_FEWEST = 8
_RECIPE = ("architecture", "learning_rate", "local_batch_size", "epochs")
_DECIMALS = 7
"""Answers with fewer decimals than this were rounded; float32 has no more."""
_PRIOR = 16.0
"""Shadow models that the common variance counts for, beside a record's own."""


@inference(
    "lira_online",
    paper="Carlini et al. 2022 (Membership inference attacks from first principles), algorithm 1",
    claim="whether a record was trained on, by the likelihood ratio over models trained with it and without it",
    needs=InferenceNeeds("L1", "oracle", "rounded", knowledge=(*_RECIPE, "member_rate")),
    cost="minutes",
    stopped_by="example-level noise in training, or answers without confidences",
    sanity=lambda: known_members.finished("confidences", (*_RECIPE, "member_rate")),
)
def lira_online(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """``budget.iterations`` shadows (64 without), each on ``member_rate`` of the candidates and of the public data.

    The candidates are in the adversary's hands, so that it may train on them; which ones were members, it is not told.
    """
    inputs, labels = records(targets)
    public, theirs = _public(knowledge, inputs, labels)
    rate, count = knowledge.member_rate, _shadows(budget)
    if rate is None or not 0 < rate < 1:
        raise ValueError(f"member_rate = {rate}: must lie between 0 and 1; some candidates are members, not all")
    pool, truth = torch.cat([inputs, public]), torch.cat([labels, theirs])
    member = membership(count, len(pool), min(count - 2, max(2, round(rate * count))), generator)
    asked, shown = source.queries, source.confidences(inputs)
    gaps = _gaps(pool, truth, member, knowledge, generator, shown)
    observed = logit_gap(shown, labels).cpu()
    gaps, member = gaps[:, : len(inputs)], member[:, : len(inputs)]
    score = _log_density(observed, gaps, member) - _log_density(observed, gaps, ~member)
    return Claim(score, source.queries - asked, notes=(f"{count} shadow models",))


@inference(
    "lira_offline",
    paper="Carlini et al. 2022 (Membership inference attacks from first principles), algorithm 2",
    claim="whether a record was trained on, by how unlikely its confidence is for models trained without it",
    needs=InferenceNeeds("L1", "oracle", "rounded", knowledge=(*_RECIPE, "public", "public_labels")),
    cost="minutes",
    stopped_by="example-level noise in training, or answers without confidences",
    sanity=lambda: known_members.finished("confidences", (*_RECIPE, "public", "public_labels")),
)
def lira_offline(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """``budget.iterations`` shadows (64 without), each on a random half of the public data alone."""
    inputs, labels = records(targets)
    public, theirs = _public(knowledge, inputs, labels)
    count = _shadows(budget)
    member = torch.rand(count, len(public), generator=generator).argsort(1) < max(1, len(public) // 2)
    blank = torch.zeros(count, len(inputs), dtype=torch.bool)
    pool, truth = torch.cat([inputs, public]), torch.cat([labels, theirs])
    asked, shown = source.queries, source.confidences(inputs)
    gaps = _gaps(pool, truth, torch.cat([blank, member], 1), knowledge, generator, shown)
    observed = logit_gap(shown, labels).cpu()
    mean, spread = _moments(gaps[:, : len(inputs)], ~blank)
    return Claim((observed - mean) / spread, source.queries - asked, notes=(f"{count} shadow models",))


def _shadows(budget: Budget) -> int:
    count = budget.iterations or _SHADOWS
    if count < _FEWEST:
        raise ValueError(f"budget.iterations = {count}: a distribution needs at least {_FEWEST} shadow models")
    return count


def _public(knowledge: Knowledge, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Public data with labels; empty where none is granted."""
    classifies(knowledge)
    if knowledge.public is None or knowledge.public_labels is None:
        return inputs[:0], labels[:0]
    return knowledge.public.to(inputs), knowledge.public_labels.to(labels)


def _gaps(
    pool: Tensor, truth: Tensor, member: Tensor, know: Knowledge, generator: torch.Generator, shown: Tensor
) -> Tensor:
    """Every shadow's log odds (models, N) of every record of the pool, from confidences cut as those ``shown`` are."""
    architecture, rate, size, epochs = know.architecture, know.learning_rate, know.local_batch_size, know.epochs
    assert architecture is not None
    assert rate is not None
    assert size is not None
    assert epochs is not None
    recipe = Recipe(epochs=epochs, batch_size=size, learning_rate=rate, loss=know.loss)
    shadows = train_shadows(architecture, pool, truth, member, recipe, generator)
    # The oracle's own number format, so that both sides of the comparison saturate alike.
    return logit_gap(cut_alike(shadows.outputs(pool).softmax(-1), shown), truth).cpu()


def cut_alike(confidences: Tensor, shown: Tensor) -> Tensor:
    """Confidences (..., K) with as many classes left, and as many decimals, as the answers ``shown`` (N, K) have."""
    most = int((shown > 0).sum(1).max())
    if 0 < most < shown.shape[1]:
        least = confidences.topk(most, dim=-1).values[..., -1:]
        confidences = confidences.masked_fill(confidences < least, 0.0)
    for decimals in range(_DECIMALS):
        if torch.allclose(shown, shown.round(decimals=decimals), rtol=0, atol=1e-7):
            return confidences.round(decimals=decimals)
    return confidences


def _moments(gaps: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (T,) over the chosen models; the variance leans on that common to all records."""
    weight = chosen.double()
    count = weight.sum(0)
    mean = (gaps * weight).sum(0) / count
    squares = ((gaps - mean).square() * weight).sum(0)
    common = squares.sum() / (count - 1).sum().clamp_min(1)
    variance = (squares + _PRIOR * common) / (count - 1 + _PRIOR)
    return mean, variance.clamp_min(1e-12).sqrt()


def _log_density(observed: Tensor, gaps: Tensor, chosen: Tensor) -> Tensor:
    mean, spread = _moments(gaps, chosen)
    return -((observed - mean) / spread).square() / 2 - spread.log() - math.log(2 * math.pi) / 2
