"""Leakage: what a claim is worth against the truth, and beside what one would have guessed without the update."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attacks import Reconstruction, metrics
from attacks.prior import mean_example, nearest_public
from fedsim.tasks import Dataset
from fedsim.truth import Truth

MARGIN_DB = 3.0
"""An image counts as recovered from 20 dB on, and only if it beats the best guess without the update by so much."""
TABLEAK_TOLERANCE = 0.319
"""A number is right within so many standard deviations of its public column (Vero et al. 2023, TabLeak)."""
TOKEN_SHARE = 0.9
"""A text counts as recovered from this share of right positions on."""


@dataclass(frozen=True)
class Scale:
    """How one kind of data is scored: the headline metric, its unit, and every figure per target."""

    metric: str
    unit: str
    figures: Callable[[Tensor, Tensor, Dataset, Tensor], dict[str, Tensor]]
    recovered: Callable[[float, float], bool]
    """From a target's headline figure and its best baseline to whether it counts as recovered."""


def _images(claims: Tensor, targets: Tensor, dataset: Dataset, public: Tensor) -> dict[str, Tensor]:
    own, _ = metrics.identified(claims, targets, public)  # the pool: the batch and all public examples
    return {
        "psnr": metrics.cap(metrics.psnr(claims, targets, dataset.value_range)),
        "mse": metrics.mse(claims, targets),
        "ssim": metrics.ssim(claims, targets, dataset.value_range),
        "identified": own.double(),
    }


def _records(claims: Tensor, targets: Tensor, dataset: Dataset, public: Tensor) -> dict[str, Tensor]:
    widths = [column.width for column in dataset.columns] or [1] * targets.shape[1]
    spread = public.double().std(dim=0) * TABLEAK_TOLERANCE
    first = [sum(widths[:index]) for index in range(len(widths))]
    hits = metrics.column_hits(claims, targets, widths, [float(spread[index]) for index in first])
    return {
        "columns": hits.double().mean(1),
        "exact": metrics.exact_match(hits).double(),
        "mse": metrics.mse(claims, targets),
    }


def _texts(claims: Tensor, targets: Tensor, dataset: Dataset, public: Tensor) -> dict[str, Tensor]:
    return {"tokens": metrics.token_accuracy(claims, targets)}


SCALES: dict[str, Scale] = {
    "image": Scale(
        "psnr", "dB", _images, lambda figure, baseline: figure >= max(metrics.THRESHOLDS[0], baseline + MARGIN_DB)
    ),
    "tabular": Scale("columns", "share", _records, lambda figure, baseline: figure >= 1.0 > baseline),
    "text": Scale("tokens", "share", _texts, lambda figure, baseline: figure >= TOKEN_SHARE > baseline),
}


@dataclass(frozen=True)
class Floor:
    """The L0 baselines of one victim: each target's figure under each guess that needs no update."""

    mean: dict[str, Tensor]
    nearest: dict[str, Tensor]
    label_majority: float | None

    def best(self, metric: str) -> Tensor:
        """The better guess of each target."""
        return torch.maximum(self.mean[metric], self.nearest[metric])


def floor(truth: Truth, dataset: Dataset, public: Tensor, public_labels: Tensor) -> Floor:
    """Score the mean public example and the nearest public neighbour (chosen with the truth: generous)."""
    figures = SCALES[dataset.modality].figures
    mean = mean_example(public).expand_as(truth.inputs)
    majority = None
    if public_labels.ndim == 1:
        majority = metrics.label_accuracy(public_labels.mode().values.repeat(len(truth.labels)), truth.labels)
    return Floor(
        mean=figures(mean, truth.inputs, dataset, public),
        nearest=figures(nearest_public(truth.inputs, public), truth.inputs, dataset, public),
        label_majority=majority,
    )


def score(
    claim: Reconstruction, truth: Truth, dataset: Dataset, public: Tensor
) -> tuple[dict[str, Any], Tensor | None]:
    """Figures of one claim per target (None where nothing was claimed), and the claims matched to the targets.

    A claim whose every restart diverged is scored as no claim at all.
    """
    scored: dict[str, Any] = {
        "client": truth.client,
        "figures": {},
        "pool": len(truth.labels) + len(public),
        "labels_right": None,
        "objective": claim.objective.double().tolist(),
        "converged": claim.converged,
        "diverged": claim.diverged,
        "iterations": claim.iterations,
        "notes": list(claim.notes),
    }
    if not claim.converged:
        return scored, None
    if claim.labels is not None and truth.labels.ndim == 1:
        scored["labels_right"] = metrics.label_accuracy(claim.labels.cpu(), truth.labels)
    if claim.inputs is None or not len(claim.inputs):
        return scored, None
    claims = claim.inputs.detach().cpu()
    assigned = metrics.match(claims, truth.inputs)
    matched = claims[assigned.clamp_min(0)]
    figures = SCALES[dataset.modality].figures(matched, truth.inputs, dataset, public)
    claimed = assigned >= 0
    scored["figures"] = {
        name: [float(v) if ok else None for v, ok in zip(values, claimed, strict=True)]
        for name, values in figures.items()
    }
    return scored, torch.where(claimed.view(-1, *[1] * (matched.ndim - 1)), matched, torch.zeros_like(matched))


def baseline_figures(floor: Floor, dataset: Dataset) -> dict[str, Any]:
    """The victim's baselines under the names that results.json uses."""
    metric = SCALES[dataset.modality].metric
    guess = "mean_image" if dataset.modality == "image" else "mean"
    return {
        f"{metric}_{guess}": floor.mean[metric].tolist(),
        f"{metric}_nearest_public": floor.nearest[metric].tolist(),
        "label_majority": floor.label_majority,
    }


def recovered(figures: Mapping[str, Any], floor: Floor, dataset: Dataset) -> list[bool]:
    """For each target, whether the claim counts as a recovery."""
    scale = SCALES[dataset.modality]
    best = floor.best(scale.metric).tolist()
    values = figures.get(scale.metric) or [None] * len(best)
    return [
        value is not None and math.isfinite(value) and scale.recovered(value, baseline)
        for value, baseline in zip(values, best, strict=True)
    ]
