"""Membership told from a finished model's answers to the records themselves: one score each, and no other model."""

import torch
from torch import Tensor

from attacks import known_members
from attacks.inference import Claim, InferenceNeeds, Targets, inference
from attacks.membership_updates import records
from attacks.oracle import Oracle
from attacks.view import Budget, Knowledge, NotApplicable

_TINY = 1e-30
"""Confidences below this count as this, zero among them."""
_COPIES = 25
"""Noisy copies of each record that a label-only attack asks about."""
_NOISE = (0.05, 0.1, 0.2)
"""Standard deviations of that noise, in widths of the input's range."""


@inference(
    "loss_membership",
    paper="Yeom et al. 2018 (Privacy risk in machine learning)",
    claim="whether a record was trained on, by the finished model's loss on it",
    needs=InferenceNeeds("L1", "oracle", "rounded"),
    cost="closed form",
    stopped_by="example-level noise in training, or answers without confidences",
    sanity=lambda: known_members.finished("confidences"),
)
def loss_membership(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """The logarithm of the confidence in the record's own label."""
    classifies(knowledge)
    inputs, labels = records(targets)
    asked = source.queries
    own = source.confidences(inputs).double().gather(1, labels[:, None])[:, 0]
    return Claim(own.clamp_min(_TINY).log(), source.queries - asked)


@inference(
    "confidence_membership",
    paper="Salem et al. 2019 (ML-Leaks, adversary 3)",
    claim="whether a record was trained on, by the finished model's largest confidence, whatever its label",
    needs=InferenceNeeds("L1", "oracle", "rounded", targets=("inputs",)),
    cost="closed form",
    stopped_by="example-level noise in training, or answers without confidences",
    sanity=lambda: known_members.finished("confidences"),
)
def confidence_membership(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """The largest confidence; needs no label."""
    classifies(knowledge)
    assert targets.inputs is not None
    asked = source.queries
    return Claim(source.confidences(targets.inputs).double().amax(1), source.queries - asked)


@inference(
    "entropy_membership",
    paper="Song and Mittal 2021 (modified prediction entropy)",
    claim="whether a record was trained on, by an entropy of the finished model's answer that heeds the label",
    needs=InferenceNeeds("L1", "oracle", "rounded"),
    cost="closed form",
    stopped_by="example-level noise in training, or answers without confidences",
    sanity=lambda: known_members.finished("confidences"),
)
def entropy_membership(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """Minus the modified entropy, equation 8 of the paper."""
    classifies(knowledge)
    inputs, labels = records(targets)
    asked = source.queries
    shown = source.confidences(inputs).double()
    rest = 1 - shown
    wrong = shown * rest.clamp_min(_TINY).log()
    own, left = shown.gather(1, labels[:, None])[:, 0], rest.gather(1, labels[:, None])[:, 0]
    others = wrong.sum(1) - wrong.gather(1, labels[:, None])[:, 0]
    return Claim(left * own.clamp_min(_TINY).log() + others, source.queries - asked)


@inference(
    "label_only_membership",
    paper="Choquette-Choo et al. 2021 (Label-only membership inference, random noise)",
    claim="whether a record was trained on, by how much noise its predicted label survives",
    needs=InferenceNeeds("L1", "oracle", "label_only", knowledge=("value_range",)),
    cost="seconds",
    stopped_by="example-level noise in training, or a limit on questions",
    sanity=lambda: known_members.finished("label_only", ("value_range",)),
)
def label_only_membership(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """The share of noisy copies, the record itself among them, that are labelled as the record is.

    Gaussian noise of three widths; ``budget.iterations`` copies at each (25 without). A record whose own label is
    wrong comes last: that is the gap attack of Yeom et al. 2018, which one query does. Copies that a query budget does
    not pay for are left out.
    """
    classifies(knowledge)
    inputs, labels = records(targets)
    low, high = (torch.as_tensor(end, dtype=torch.float32) for end in knowledge.value_range or (0.0, 1.0))
    width = (high - low).reshape(-1, *[1] * (inputs.dim() - 2))
    asked, copies = source.queries, budget.iterations or _COPIES
    right = [source.labels(inputs) == labels]
    for spread in _NOISE * copies:
        if source.left is not None and source.left < len(inputs):
            break
        noise = torch.randn(inputs.shape, generator=generator).to(inputs) * spread * width.to(inputs)
        right.append(source.labels(inputs + noise) == labels)
    score = torch.stack(right).double().mean(0)
    note = f"{len(right) - 1} of {copies * len(_NOISE)} noisy copies of each record were asked about"
    return Claim(score + right[0].double(), source.queries - asked, notes=(note,))


def classifies(knowledge: Knowledge) -> None:
    """Raise NotApplicable for a model that gives more than one answer to a record."""
    if knowledge.loss != "cross_entropy":
        raise NotApplicable("a model that classifies", "L1")


def logit_gap(confidences: Tensor, labels: Tensor) -> Tensor:
    """Log odds (..., N) of each record's own label, from confidences (..., N, K): LiRA's statistic, near normal."""
    shown = confidences.double()
    index = labels.expand(shown.shape[:-1])[..., None]
    own = shown.gather(-1, index)[..., 0]
    rest = shown.scatter(-1, index, 0.0).sum(-1)  # not one minus own, which float32 rounds to nothing
    return own.clamp_min(_TINY).log() - rest.clamp_min(_TINY).log()
