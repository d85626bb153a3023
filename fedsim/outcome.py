"""From claims to figures: one entry a cell, one summary row for each protocol, attack and round over all seeds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attacks import NotApplicable, Reconstruction, metrics, reconstructions
from attacks.conditioning import doubt
from attacks.registry import NotFinite
from fedsim.adversary import rung
from fedsim.assess import Claims
from fedsim.experiment import Experiment
from fedsim.grids import one_thread
from fedsim.job import Job
from fedsim.leakage import SCALES, SHARES, Scale, baseline_figures, floor, recovered, score
from fedsim.scenario import Cell, Scenario
from fedsim.seeds import numpy_generator
from fedsim.tasks import Dataset
from fedsim.truth import Truth, truth_of
from fedsim.verdict import Entries, readings, verdict
from fedsim.words import counted, rung_step, titled

Pictures = dict[str, Tensor]


def attack_outcome(experiment: Experiment, cell: Cell, job: Job, claims: Claims) -> tuple[dict[str, Any], Pictures]:
    """What one attack made of one round's victims, scored; with the pictures of images."""
    attack = reconstructions()[job.attack]
    adversary = experiment.scenario.adversary
    victims, pictures, reasons = [], {}, []
    for whom, (seen, know, _), answer in zip(job.whom, job.victims, claims.answers, strict=False):
        if isinstance(answer, NotApplicable):
            reasons.append(f"needs {answer.missing} (rung {answer.rung})")
            continue
        truth = truth_of(experiment, whom.round, *whom.clients, earlier=whom.earlier)
        victim, shown = _victim(experiment, cell.digest, job, truth, answer)
        if seen and not any(victim["recovered"]) and not victim["inconclusive"]:
            with one_thread():
                victim["inconclusive"] = doubt(seen[-1], know, answer)
        victims.append(victim)
        pictures.update(shown)
    summed = max((len(whom.clients) for whom in job.whom), default=1)
    entry = {
        "name": job.attack,
        "on": "on the sum" if job.beside else None,
        "battery": job.of_battery,
        "rung": "L0" if not attack.needs.update else rung(experiment.scenario, job.round, summed),
        "paper": attack.paper,
        "claim": attack.claim,
        "round": job.round,
        "contributors": summed,
        "knowledge": [*adversary.knows, *(["planted"] if adversary.plant else [])],
        "budget": {name: getattr(job.budget, name) for name in ("iterations", "restarts", "seconds")},
        "sanity": claims.sanity,
        "victims": victims,
    }
    status, reason = ("not_run", job.skipped) if job.skipped else _status(victims, reasons, claims)
    return {**entry, "status": status, "reason": reason}, pictures


def _victim(
    experiment: Experiment, digest: str, job: Job, truth: Truth, claim: Reconstruction
) -> tuple[dict[str, Any], Pictures]:
    dataset = experiment.dataset
    public, public_labels = experiment.public_data()
    guess = floor(truth, dataset, public, public_labels)
    victim, matched = score(claim, truth, dataset, public)
    victim["baseline"] = baseline_figures(guess, dataset)
    victim["recovered"] = recovered(victim["figures"], guess, dataset)
    victim["pictures"] = []
    if matched is None:
        return victim, {}
    if dataset.modality != "image":
        victim["rows"] = _rows(dataset, truth.inputs, matched)
        return victim, {}
    stems = [f"{digest}/{job.attack}/{job.round}/{truth.client}/{i}" for i in range(len(matched))]
    victim["pictures"] = stems
    pictures = {f"{stem}/truth": image for stem, image in zip(stems, truth.inputs, strict=True)}
    pictures |= {f"{stem}/claim": image for stem, image in zip(stems, matched, strict=True)}
    return victim, pictures


def _rows(dataset: Dataset, truth: Tensor, claim: Tensor) -> dict[str, Any]:
    """The records or texts themselves, in words, truth beside claim."""
    names = [column.name for column in dataset.columns] or [str(i) for i in range(truth.shape[1])]
    return {
        "columns": names if dataset.modality == "tabular" else ["text"],
        "truth": [_spell(dataset, row) for row in truth],
        "claim": [_spell(dataset, row) for row in claim],
    }


def _spell(dataset: Dataset, row: Tensor) -> list[str]:
    if dataset.modality == "text":
        return [" ".join(dataset.vocabulary[int(token)] for token in row)]
    if not dataset.columns:
        return [f"{float(value):.3g}" for value in row]
    cells, start = [], 0
    for column in dataset.columns:
        block = row[start : start + column.width]
        start += column.width
        if column.kind == "categorical":
            cells.append(column.categories[int(block.argmax())])
        else:
            cells.append(_figure(column.low + float(block[0]) * (column.high - column.low)))
    return cells


def _figure(value: float) -> str:
    """To four digits; an income is read without an exponent."""
    rounded = f"{value:.4g}"
    return f"{float(rounded):.0f}" if "e+" in rounded and abs(value) < 1e6 else rounded


def _status(victims: Sequence[Mapping[str, Any]], reasons: Sequence[str], claims: Claims) -> tuple[str, str | None]:
    if claims.error is not None:
        return "failed", claims.error
    if not victims and any(isinstance(answer, NotFinite) for answer in claims.answers):
        return "failed", "; ".join(sorted(set(reasons)))
    if not victims:
        return "not_applicable", "; ".join(sorted(set(reasons))) or "needs an update whose examples are known"
    if not any(victim["converged"] for victim in victims):
        return "diverged", "every restart on every victim diverged"
    if claims.sanity is False and not any(any(victim["recovered"]) for victim in victims):
        return "inconclusive", "the attack fails even on the small case that it must win"
    doubts = sorted({victim["inconclusive"] for victim in victims if victim["inconclusive"]})
    if doubts and not any(any(victim["recovered"]) for victim in victims):
        return "inconclusive", doubts[0] + (
            f", and the like of {counted(len(doubts) - 1, 'victim')}" * (len(doubts) > 1)
        )
    missed = f"not applicable to {len(reasons)} of {len(reasons) + len(victims)} victims: "
    return "done", missed + "; ".join(sorted(set(reasons))) if reasons else None


def summarise(scenario: Scenario, cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each combination of labels, attack and round; figures pooled over seeds and victims.

    Where clients' parts in clear are attacked and the sum too, the sum has a row of its own, under ``titled``.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    failed = Counter(tuple(cell["labels"].items()) for cell in cells if cell.get("status") == "failed")
    for cell in cells:
        for attack in cell["attacks"]:
            key = (tuple(cell["labels"].items()), titled(attack), attack["round"])
            alarms = [row["signal"] for row in cell.get("detection", ()) if row["round"] == key[-1] and row["alarmed"]]
            groups.setdefault(key, []).append({**attack, "modality": cell["modality"], "detected_by": alarms})
    return [
        {**_row(dict(labels), name, round, entries), "seeds": len(entries), "failed_seeds": failed[labels]}
        for (labels, name, round), entries in groups.items()
    ]


def _row(labels: dict[str, str], name: str, round: int, entries: Entries) -> dict[str, Any]:
    scale = SCALES[entries[0]["modality"]]
    victims = [victim for entry in entries for victim in entry["victims"]]
    where = _rung(entries)
    read = readings(entries, where, numpy_generator(0, "bootstrap", "readings", str(labels), name, round))
    guesses = [_mean([v["baseline"].get(f"label_{guess}") for v in victims]) for guess in ("majority", "proportions")]
    return {
        "labels": labels,
        "attack": name,
        "round": round,
        "rung": where,
        "statuses": sorted({entry["status"] for entry in entries}),
        "labels_right": _mean([v["labels_right"] for v in victims]),
        "label_baseline": max((guess for guess in guesses if guess is not None), default=None),
        "readings": read,
        "verdict": verdict(entries, where, read),
        "detected_by": sorted({signal for entry in entries for signal in entry["detected_by"]}),
        "metric": scale.metric,
        "unit": scale.unit,
        **_figures(scale, victims, numpy_generator(0, "bootstrap", str(labels), name, round)),
    }


def _rung(entries: Entries) -> str:
    """The lowest rung that the verdict can stand on: of the outcomes that broke something, else of all."""
    broke = [entry for entry in entries if any(any(victim["recovered"]) for victim in entry["victims"])]
    return min((str(entry["rung"]) for entry in broke or entries), key=rung_step)


def _figures(scale: Scale, victims: Entries, generator: np.random.Generator) -> dict[str, Any]:
    """The headline metric over all targets: ``n`` of them, of which ``claimed`` got a claim and ``rebuilt`` a good
    one. A target without a claim counts as the least leakage, not as no target."""
    figures = [(v, i) for v in victims for i in range(len(v["figures"].get(scale.metric, ())))]
    values = [v["figures"][scale.metric][i] for v, i in figures]
    if not values:
        nothing = dict.fromkeys(("median", "low", "high", "worst", "baseline", "baseline_name"))
        return {**nothing, "n": 0, "claimed": 0, "rebuilt": 0, "fractions": {}}
    sample = np.array([-np.inf if value is None else value for value in values], dtype=np.float64)
    low, high = metrics.bootstrap_interval(sample, generator)
    best = {
        key: float(np.median([v["baseline"][key][i] for v, i in figures]))
        for key in figures[0][0]["baseline"]
        if key.startswith(f"{scale.metric}_")
    }
    strongest = max(best, key=lambda key: best[key], default="")
    hits = [hit for victim in victims for hit in victim["recovered"]]
    shares = metrics.fraction_recovered(torch.from_numpy(sample)) if scale.unit == "dB" else {}
    return {
        "n": len(values),
        "claimed": sum(value is not None for value in values),
        "rebuilt": sum(hits),
        "median": float(np.median(sample)),
        "low": low,
        "high": high,
        "worst": float(sample.max()),
        "baseline": best.get(strongest),
        "baseline_name": strongest.removeprefix(f"{scale.metric}_").replace("_", " ") or None,
        "identified": _mean([v["figures"]["identified"][i] or 0.0 for v, i in figures if "identified" in v["figures"]]),
        "pool": max(v["pool"] for v, _ in figures),
        "recovered": float(np.mean(hits)),
        "shares": {metric: _share(metric, victims) for metric in SHARES if metric in figures[0][0]["figures"]},
        "fractions": {f"{threshold:g}": share for threshold, share in shares.items()},
    }


def _share(metric: str, victims: Entries) -> dict[str, Any]:
    """The mean of a figure between 0 and 1 over all targets, and of the guess that gets most; no claim counts as 0."""
    values = [value or 0.0 for victim in victims for value in victim["figures"].get(metric, ())]
    guesses: dict[str, list[float]] = {}
    for victim in victims:
        for name, own in victim["baseline"].items():
            if name.startswith(f"{metric}_"):
                guesses.setdefault(name.removeprefix(f"{metric}_"), []).extend(own)
    best = max(guesses, key=lambda name: float(np.mean(guesses[name])), default=None)
    return {
        "mean": _mean(values),
        "baseline": None if best is None else _mean(guesses[best]),
        "baseline_name": best and best.replace("_", " "),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def baseline_pictures(experiment: Experiment, cell: Cell) -> Pictures:
    """The mean public image, for the gallery's row of guesses."""
    if experiment.dataset.modality != "image":
        return {}
    return {f"{cell.digest}/baseline/mean": experiment.public_data()[0].mean(0)}
