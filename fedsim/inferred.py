"""From answers to figures: one entry for each inference attack of a cell, one row over all seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from attacks import inferences
from attacks.rates import TooFew
from fedsim.assets import Scored, asset_of
from fedsim.assets.case import Figure
from fedsim.grids import one_thread
from fedsim.questions import Answer, Asked, Service
from fedsim.tasks import TaskError
from fedsim.words import counted

FEW = 5
"""With fewer seeds the interval is that of the records asked about, and the row says how many seeds there are."""

TOLD = {
    "membership": "who was trained on",
    "source": "whose a record is",
    "property": "a property of those behind an update",
    "classes": "what the classes look like",
    "features": "the records behind features that leave clients",
    "attribute": "the sensitive attribute",
    "model": "the model itself",
}
"""What each asset is, in words."""


def inference_outcome(asked: Asked, answer: Answer, stem: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What one inference attack told, scored; with its pictures, under ``stem``."""
    question, case = asked.question, asked.case
    attack, asset = inferences()[question.attack], asset_of(question.attack)
    scored, status, reason = Scored({}), answer.status, answer.reason
    if asked.lacking is not None:
        status, reason = "inconclusive", asked.lacking
    elif asset is None:
        status, reason = "not_applicable", reason or "needs targets that a scenario does not draw"
    elif status == "done":
        try:
            with one_thread():
                scored = asset.score(case, question.knowledge, asked.key, answer.claims)
        except (TaskError, TooFew) as without:
            status, reason = "inconclusive", str(without)
    if status == "done" and answer.sanity is False and asset and not told(scored.figures[asset.headline]):
        status, reason = "inconclusive", "the attack fails even on the small case that it must win"
    service = question.source if isinstance(question.source, Service) else None
    deployment = case.experiment.scenario.deployment
    entry = {
        "name": question.attack,
        "asset": asset.name if asset else None,
        "headline": asset.headline if asset else None,
        "source": "model" if service else "updates",
        "rung": asked.rung,
        "paper": attack.paper,
        "claim": attack.claim,
        "round": question.round,
        "rounds": list(case.rounds),
        "access": deployment.access if service else None,
        "knowledge": list(question.knowledge.granted()),
        "budget": {name: getattr(question.budget, name) for name in ("iterations", "restarts", "seconds")},
        "sanity": answer.sanity,
        "status": status,
        "reason": reason,
        "figures": scored.figures,
        "queries": answer.queries,
        "refused": answer.refused,
        "query_budget": deployment.query_budget if service else None,
        "seen": answer.seen.as_dict() if answer.seen else None,
        "notes": sorted({note for claim in answer.claims for note in claim.notes} | set(scored.notes)),
        "pictures": sorted({f"{stem}/{key.rsplit('/', 1)[0]}" for key in scored.pictures}),
    }
    return entry, {f"{stem}/{key}": picture for key, picture in scored.pictures.items()}


def told(figure: Figure) -> bool:
    """Whether a figure lies above what is had without the attack, its whole interval."""
    return figure.get("low") is not None and figure["low"] > (figure["guess"] or 0.0)


def summarise_inferences(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each combination of labels, attack and round, over all seeds."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for cell in cells:
        for entry in cell.get("inferences", ()):
            groups.setdefault((tuple(cell["labels"].items()), entry["name"], entry["round"]), []).append(entry)
    return [_row(dict(labels), entries) for (labels, *_), entries in groups.items()]


def _row(labels: dict[str, str], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = entries[0]
    done = [entry for entry in entries if entry["status"] == "done"]
    figures = {
        name: _pooled([entry["figures"][name] for entry in done]) for name in (done[0]["figures"] if done else ())
    }
    headline = figures.get(first["headline"]) if done else None
    return {
        "labels": labels,
        "attack": first["name"],
        "asset": first["asset"],
        "headline": first["headline"],
        "source": first["source"],
        "access": first["access"],
        "round": first["round"],
        "rung": first["rung"],
        "statuses": sorted({entry["status"] for entry in entries}),
        "seeds": len(done),
        "figures": figures,
        "told": headline is not None and told(headline),
        "verdict": _verdict(first, entries, headline, len(done)),
        "queries": float(np.mean([entry["queries"] for entry in entries])),
        "refused": float(np.mean([entry["refused"] for entry in entries])),
        "alarms": sorted({name for entry in entries if entry["seen"] for name in entry["seen"]["alarms"]}),
    }


def _pooled(figures: Sequence[Figure]) -> Figure:
    """The mean over seeds; the interval's ends are the means of the seeds' own, no narrower than one over all."""
    mean = {
        key: float(np.mean([figure[key] for figure in figures]))
        if all(f.get(key) is not None for f in figures)
        else None
        for key in ("value", "low", "high", "guess")
    }
    pooled: Figure = {**mean, "guess_name": figures[0]["guess_name"], "seeds": len(figures)}
    if any("n" in figure for figure in figures):
        pooled["n"] = sum(figure.get("n", 0) for figure in figures)
    if bounds := [figure["bound"] for figure in figures if figure.get("bound") is not None]:
        pooled["bound"] = max(bounds)
    if reasons := sorted({figure["refused"] for figure in figures if figure.get("refused")}):
        pooled["refused"] = reasons[0]
    return pooled


def _verdict(
    first: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], headline: Figure | None, seeds: int
) -> str:
    """Told or not shown to be told, with the figure; never that nothing can be told."""
    name, rung = first["name"], first["rung"]
    if headline is None or headline["value"] is None:
        statuses = sorted({entry["status"] for entry in entries})
        reasons = "; ".join(sorted({str(entry["reason"]) for entry in entries if entry["reason"]}))
        return f"{', '.join(statuses).replace('_', ' ')}: {reasons or 'no figure'}"
    said = "told" if told(headline) else "not shown to be told"
    few = ", too few to tell how far seeds differ" if seeds < FEW else ""
    return (
        f"{TOLD[first['asset']]}: {said} at rung {rung} by {name}, {first['headline']} {headline['value']:.2f} "
        f"[{headline['low']:.2f}, {headline['high']:.2f}], {headline['guess_name']} {headline['guess']:.2f} "
        f"({counted(seeds, 'seed')}{few})"
    )
