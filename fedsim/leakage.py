"""Leakage: what a claim is worth against the truth, and beside what one would have guessed without the update."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import binom
from torch import Tensor

from attacks import Reconstruction, metrics
from attacks.columns import blocks_of
from attacks.prior import mean_example, nearest_public, proportional_labels
from fedsim.tasks import Dataset
from fedsim.texts import secrets_told, text_figures, words_told
from fedsim.truth import Truth

MARGIN_DB = 3.0
"""An image counts as recovered from 20 dB on, and only if it beats the best guess without the update by so much."""
TABLEAK_TOLERANCE = 0.319
"""A number is right within so many standard deviations of its public column (Vero et al. 2023, TabLeak)."""
RECORD_SHARE, RECORD_MARGIN, RECORD_CHANCE = 0.8, 0.1, 0.01
"""A record counts as recovered from this share of right columns on, if it beats the best guess by so much, and if luck
alone lets as many of a victim's records come as far above theirs with less than this probability."""
TOKEN_SHARE = 0.9
"""A text counts as recovered from this share of right positions on."""


SHARES = ("exact", "numeric", "categorical", "rouge_l")
"""Figures between 0 and 1 that stand beside the headline of tables and texts."""


@dataclass(frozen=True)
class Scale:
    """How one kind of data is scored: the headline metric, its unit, and every figure per target."""

    metric: str
    unit: str
    figures: Callable[[Tensor, Tensor, Dataset, Tensor], dict[str, Tensor]]
    recovered: Callable[[Sequence[float], Sequence[float], int], list[bool]]
    """Which of a victim's targets count as recovered: from the headline figure and the best baseline of each (minus
    infinity where there is none), and the number of a target's columns, or inputs."""


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
    spread = (public if len(public) > 1 else dataset.inputs).double().std(dim=0) * TABLEAK_TOLERANCE
    first = [sum(widths[:index]) for index in range(len(widths))]
    hits = metrics.column_hits(claims, targets, widths, [float(spread[index]) for index in first])
    kinds = [column.kind for column in dataset.columns] or ["numeric"] * len(widths)
    figures: dict[str, Tensor] = {
        "columns": hits.double().mean(1),
        **{
            kind: hits[:, torch.tensor([own == kind for own in kinds])].double().mean(1)
            for kind in ("numeric", "categorical")
            if kind in kinds
        },
        "exact": metrics.exact_match(hits).double(),
        "mse": metrics.mse(claims, targets),
    }
    if dataset.sensitive is not None:
        figures["sensitive"] = hits[:, [column.name for column in dataset.columns].index(dataset.sensitive)].double()
    return figures


def _pictures_recovered(figures: Sequence[float], baselines: Sequence[float], inputs: int) -> list[bool]:
    least = metrics.THRESHOLDS[0]
    return [own >= max(least, guess + MARGIN_DB) for own, guess in zip(figures, baselines, strict=True)]


def _records_recovered(figures: Sequence[float], baselines: Sequence[float], columns: int) -> list[bool]:
    """Every column right always counts, unless guessing has that too; a share of them needs the margin, and no luck.

    One column more than the guess, in the luckiest of many records, is no recovery; the same in most of them is. Luck
    has each column right, independently of the others, as often as the record's best guess.
    """
    pairs = list(zip(figures, baselines, strict=True))
    lucky = [float(binom.sf(round(max(f, 0) * columns) - 1, columns, max(guess, 0))) for f, guess in pairs]
    found = []
    for (figure, guess), chance in zip(pairs, lucky, strict=True):
        so_far = sum(other <= chance for other in lucky)
        beyond = float(binom.sf(so_far - 1, len(lucky), chance)) < RECORD_CHANCE
        clear = beyond and figure >= max(RECORD_SHARE, guess + RECORD_MARGIN) - 1e-9
        found.append(figure > guess and (clear or figure >= 1 - 1e-9))
    return found


def _texts_recovered(figures: Sequence[float], baselines: Sequence[float], inputs: int) -> list[bool]:
    return [own >= TOKEN_SHARE > guess for own, guess in zip(figures, baselines, strict=True)]


def _texts(claims: Tensor, targets: Tensor, dataset: Dataset, public: Tensor) -> dict[str, Tensor]:
    return text_figures(claims, targets)


SCALES: dict[str, Scale] = {
    "image": Scale("psnr", "dB", _images, _pictures_recovered),
    "tabular": Scale("columns", "share", _records, _records_recovered),
    "text": Scale("tokens", "share", _texts, _texts_recovered),
}


@dataclass(frozen=True)
class Floor:
    """The L0 baselines of one victim: what each guess that needs no update scores. Empty without public data."""

    figures: Mapping[str, Mapping[str, Tensor]]
    """Guess -> figure -> value of each target."""
    labels: Mapping[str, float]
    """Guess -> share of the labels that it gets right."""

    def best(self, metric: str, targets: int) -> list[float]:
        """The best guess for each target; minus infinity where there is none."""
        floor = [torch.full((targets,), -math.inf, dtype=torch.float64)]
        return torch.stack([*floor, *(guess[metric] for guess in self.figures.values())]).amax(0).tolist()


def floor(truth: Truth, dataset: Dataset, public: Tensor, public_labels: Tensor) -> Floor:
    """Score the mean public example, the nearest public neighbour (chosen with the truth: generous), of records the
    median and a draw from each column too, and, of labels, the commonest public class and the classes' proportions."""
    if not len(public):
        return Floor({}, {})
    guesses = {
        "mean_image" if dataset.modality == "image" else "mean": mean_example(public).expand_as(truth.inputs),
        "nearest_public": nearest_public(truth.inputs, public),
    }
    if dataset.modality == "tabular":
        guesses |= _records_guessed(public, dataset, len(truth.inputs))
    figures = SCALES[dataset.modality].figures
    labels: dict[str, float] = {}
    if public_labels.ndim == 1:
        count = len(truth.labels)
        labels = {
            "majority": metrics.label_accuracy(public_labels.mode().values.repeat(count), truth.labels),
            "proportions": metrics.label_accuracy(proportional_labels(public_labels, count), truth.labels),
        }
    return Floor(
        {name: figures(guess, truth.inputs, dataset, public) for name, guess in guesses.items()},
        labels,
    )


def _records_guessed(public: Tensor, dataset: Dataset, count: int) -> dict[str, Tensor]:
    """Records (count, features): each number the public median, and each column of some public record or other."""
    blocks = blocks_of(dataset.columns)
    middle = public.median(0).values
    for begin, end in blocks:
        middle[begin:end] = public[:, begin:end].mean(0)
    draw = torch.Generator().manual_seed(0)
    widths = [column.width for column in dataset.columns] or [1] * public.shape[1]
    parts = [part[torch.randint(len(public), (count,), generator=draw)] for part in public.split(widths, 1)]
    return {"median": middle.expand(count, -1), "marginals": torch.cat(parts, 1)}


def score(
    claim: Reconstruction, truth: Truth, dataset: Dataset, public: Tensor
) -> tuple[dict[str, Any], Tensor | None]:
    """Figures of one claim per target (None where nothing was claimed), and the claims matched to the targets.

    A claim whose every restart diverged is scored as no claim at all.
    """
    scored: dict[str, Any] = {
        "client": truth.client,
        "owners": [list(owner) for owner in truth.owners],
        "sensitive": dataset.sensitive,
        "figures": {},
        "pool": len(truth.labels) + len(public),
        "labels_right": None,
        "objective": claim.objective.double().tolist(),
        "converged": claim.converged,
        "diverged": claim.diverged,
        "iterations": claim.iterations,
        "notes": list(claim.notes),
        "inconclusive": claim.inconclusive,
    }
    if not claim.converged:
        return scored, None
    if claim.labels is not None and truth.labels.ndim == 1 and dataset.loss != "elbo":  # which trains on no label
        scored["labels_right"] = metrics.label_accuracy(claim.labels.cpu(), truth.labels)
    if dataset.modality == "text":
        scored |= _texts_told(claim, truth, dataset, public)
    if claim.inputs is None:
        return scored, None
    claims = claim.inputs.detach().cpu()
    if not len(claims):  # an attack on inputs that found none is not an attack on labels alone
        nothing = SCALES[dataset.modality].figures(truth.inputs, truth.inputs, dataset, public)
        scored["figures"] = {name: [None] * len(truth.inputs) for name in nothing}
        return scored, None
    assigned = metrics.match(claims, truth.inputs)
    if claim.groups is not None:
        scored["traced"] = _traced(claim.groups, assigned, truth)
    matched = claims[assigned.clamp_min(0)]
    figures = SCALES[dataset.modality].figures(matched, truth.inputs, dataset, public)
    claimed = assigned >= 0
    scored["figures"] = {
        name: [float(v) if ok else None for v, ok in zip(values, claimed, strict=True)]
        for name, values in figures.items()
    }
    return scored, torch.where(claimed.view(-1, *[1] * (matched.ndim - 1)), matched, torch.zeros_like(matched))


def _texts_told(claim: Reconstruction, truth: Truth, dataset: Dataset, public: Tensor) -> dict[str, Any]:
    """The words and the secrets that a claim tells; words in no order count like those of whole texts."""
    told: dict[str, Any] = {}
    tokens = claim.tokens if claim.inputs is None or claim.tokens is not None else claim.inputs.unique()
    if tokens is not None:
        told["words"] = words_told(tokens.cpu(), truth.inputs, public, dataset)
    if claim.inputs is not None and dataset.secrets:
        told["secrets"] = secrets_told(claim.inputs.cpu(), truth.inputs, public, dataset)
    return told


def _traced(groups: Tensor, assigned: Tensor, truth: Truth) -> dict[str, int]:
    """Pairs of matched claims that the attack lays at one client's door, and how many of them are of one client."""
    held = (assigned >= 0).nonzero()[:, 0].tolist()
    said = [(int(groups[assigned[index]]), truth.owners[index][0]) for index in held]
    pairs = [(a, b) for a, b in itertools.combinations(said, 2) if a[0] == b[0] != -1]
    return {"pairs": len(pairs), "right": sum(a[1] == b[1] for a, b in pairs)}


def baseline_figures(floor: Floor, dataset: Dataset) -> dict[str, Any]:
    """The victim's baselines, ``<figure>_<guess>``: of the headline figure and other shares per target, of the labels
    for the victim."""
    headline = {SCALES[dataset.modality].metric, "sensitive", *SHARES}
    return {
        f"{metric}_{guess}": values.tolist()
        for guess, figures in floor.figures.items()
        for metric, values in figures.items()
        if metric in headline
    } | {f"label_{guess}": share for guess, share in floor.labels.items()}


def recovered(figures: Mapping[str, Any], floor: Floor, dataset: Dataset) -> list[bool]:
    """For each target with a figure, whether the claim counts as a recovery."""
    scale = SCALES[dataset.modality]
    values = figures.get(scale.metric)
    if not values:
        return []
    columns = len(dataset.columns) or dataset.input_shape[0]
    claimed = [-math.inf if value is None or not math.isfinite(value) else float(value) for value in values]
    return scale.recovered(claimed, floor.best(scale.metric, len(values)), columns)
