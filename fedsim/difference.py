"""What changed between two runs: what they conclude, what they ran, and each figure, told apart from its noise."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import fisher_exact, permutation_test

from fedsim.conclusions import FINISHED, SHOWN, evidence, states, verdicts
from fedsim.seeds import numpy_generator
from fedsim.store import SCHEMA_VERSION, UNREADABLE, StoreError, read_json

LEVEL = 0.05
"""A change is called one where chance alone would give such a one less often than this."""
FEW = 4
"""With fewer figures on a side, no test at this level could tell a change from chance."""

LABELS = "share of labels right"

PARTS = ("scenario", "axes", "cells", "summary", "evidence", "environment")
"""What readers of a results.json rely on."""

SAME, ALONE = "the same", "in one run only"
"""Readings that need no figures to be told."""
CHANGED, NOISE = "changed", "within noise"
"""Readings that a test tells."""

Key = tuple[tuple[tuple[str, str], ...], str, int]


@dataclass(frozen=True)
class Changed:
    """A setting or a surrounding that differs; None stands for absent."""

    what: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Figure:
    """One figure in both runs; ``p`` is that of Fisher's exact test for the share rebuilt, of a permutation test on the
    medians for all others, and None where none can be made. Both take examples to be independent."""

    setting: str
    what: str
    unit: str
    a: float | None
    b: float | None
    p: float | None
    reading: str


@dataclass(frozen=True)
class Difference:
    """Two runs side by side."""

    verdicts: tuple[Changed, ...]
    evidence: tuple[Changed, ...]
    """The defences that either run does not show to have been on, changed or not."""
    unfinished: tuple[Changed, ...]
    """The cells that either run did not finish, changed or not."""
    scenario: tuple[Changed, ...]
    surroundings: tuple[Changed, ...]
    figures: tuple[Figure, ...]

    @property
    def tested(self) -> tuple[Figure, ...]:
        """The figures that differ and were held against chance: at this level it calls its share of them changed."""
        return tuple(figure for figure in self.figures if figure.reading in (CHANGED, NOISE))


def load_results(folder: Path | str) -> Mapping[str, Any]:
    """The results of a run folder; raises StoreError where there are none, or not all, or of another schema version."""
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise StoreError(f"{folder}: holds no results.json; run the scenario, or go on with --resume")
    results = read_json(path)
    version = results.get("schema_version") if isinstance(results, dict) else None
    if version != SCHEMA_VERSION:
        raise StoreError(f"{path}: schema {version}, this is {SCHEMA_VERSION}; run the scenario again")
    if lacking := [part for part in PARTS if part not in results]:
        raise StoreError(f"{path}: lacks {', '.join(lacking)}; {UNREADABLE}")
    return dict(results)


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> Difference:
    """Compare the contents of two results.json."""
    surroundings = [(run["environment"], run.get("fedsim")) for run in (a, b)]
    around_each = [
        {"fedsim": version, **dict(flat({k: v for k, v in around.items() if k not in ("date", "commands")}))}
        for around, version in surroundings
    ]
    return Difference(
        verdicts=_changes(verdicts(a), verdicts(b)),
        evidence=_unlike(SHOWN, evidence(a), evidence(b)),
        unfinished=_unlike(FINISHED, states(a), states(b)),
        scenario=_changes(dict(flat(a["scenario"])), dict(flat(b["scenario"]))),
        surroundings=_changes(*around_each),
        figures=(*_leakage(a, b), *_inferred(a, b), *_utility(a, b)),
    )


def flat(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by dotted path; a list of plain values is one leaf."""
    items: Any = content.items() if isinstance(content, Mapping) else enumerate(content) if _nested(content) else None
    if items is None or not content:
        yield path, content
        return
    for name, value in items:
        yield from flat(value, f"{path}.{name}" if path else str(name))


def _nested(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(item, dict | list) for item in content)


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Changed, ...]:
    return tuple(Changed(name, a.get(name), b.get(name)) for name in sorted({*a, *b}) if a.get(name) != b.get(name))


def _unlike(usual: str, a: Mapping[str, str], b: Mapping[str, str]) -> tuple[Changed, ...]:
    """Where either run has something else than the usual: what stays wrong must not read as nothing."""
    both = [Changed(name, a.get(name), b.get(name)) for name in sorted({*a, *b})]
    return tuple(one for one in both if {one.a, one.b} - {usual, None})


def _leakage(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Figure]:
    rows = [{_key(row): row for row in run["summary"]} for run in (a, b)]
    samples = [_samples(run) for run in (a, b)]
    for key in sorted({*rows[0], *rows[1]}):
        labels, attack, round = key
        there = rows[0].get(key) or rows[1][key]
        setting = ", ".join([*(value for _, value in labels)])
        hits = [_hits(side.get(key, {})) for side in rows]
        if any(hits):
            held = [key in side for side in rows]
            yield _figure(setting, f"{attack}, round {round}: share rebuilt", "", hits, held, np.mean, _exactly)
        for metric, what, unit in ((there["metric"], f"median {there['metric']}", there["unit"]), (LABELS, LABELS, "")):
            values = [sample.get((key, metric), []) for sample in samples]
            if metric != LABELS or any(values):
                yield _figure(setting, f"{attack}, round {round}: {what}", str(unit), values, [key in r for r in rows])


def _inferred(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Figure]:
    """The headline of each inference attack: one figure a seed."""
    found: list[dict[tuple[Key, str], list[float]]] = []
    for run in (a, b):
        told: dict[tuple[Key, str], list[float]] = {}
        for cell in run["cells"]:
            for entry in cell.get("inferences", ()):
                key = _key({"labels": cell["labels"], "attack": entry["name"], "round": entry["round"]})
                value = entry["figures"].get(entry["headline"], {}).get("value")
                told.setdefault((key, str(entry["headline"])), []).extend([] if value is None else [float(value)])
        found.append(told)
    for key, headline in sorted({*found[0], *found[1]}):
        labels, attack, round = key
        setting = ", ".join(value for _, value in labels)
        values = [told.get((key, headline), []) for told in found]
        held = [(key, headline) in told for told in found]
        yield _figure(setting, f"{attack}, round {round}: {headline}", "", values, held)


def _utility(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Figure]:
    for what, unit, read in _UTILITY:
        by_setting: list[dict[str, list[float]]] = []
        for run in (a, b):
            found: dict[str, list[float]] = {}
            for cell in run["cells"]:
                value = read(cell)
                held = found.setdefault(", ".join(cell["labels"].values()), [])
                held += [] if value is None else [float(value)]
            by_setting.append(found)
        for setting in sorted({*by_setting[0], *by_setting[1]}):
            values = [found.get(setting, []) for found in by_setting]
            if any(values):
                yield _figure(setting, what, unit, values, [setting in found for found in by_setting])


_UTILITY = (
    ("accuracy after training", "", lambda cell: cell["training"][-1].get("accuracy") if cell["training"] else None),
    ("epsilon", "", lambda cell: (cell["privacy"] or {}).get("epsilon")),
    ("bytes up a client and round", "B", lambda cell: cell["cost"].get("bytes_up_per_client_round")),
)


def _shuffled(name: str, a: Sequence[float], b: Sequence[float]) -> float:
    """How often shuffling the figures between the runs moves the medians as far apart."""

    def apart(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.median(x) - np.median(y))

    test = permutation_test((a, b), apart, vectorized=False, n_resamples=1999, rng=numpy_generator(0, "diff", name))
    return float(test.pvalue)


def _exactly(name: str, a: Sequence[float], b: Sequence[float]) -> float:
    """How often so many hits fall so unevenly on the runs, by Fisher's exact test."""
    return float(fisher_exact([[sum(side), len(side) - sum(side)] for side in (a, b)]).pvalue)


def _figure(
    setting: str,
    what: str,
    unit: str,
    values: Sequence[Sequence[float]],
    held: Sequence[bool],
    middle: Callable[[Sequence[float]], Any] = np.median,
    chance: Callable[[str, Sequence[float], Sequence[float]], float] = _shuffled,
) -> Figure:
    middles = [float(middle(side)) if len(side) else None for side in values]
    p = None if min(map(len, values)) < FEW else chance(setting + what, *values)
    if not all(held):
        reading = ALONE
    elif list(values[0]) == list(values[1]):
        reading = SAME
    elif p is None:
        reading = f"differs; with fewer than {FEW} figures a side, noise cannot be told from change"
    else:
        reading = CHANGED if p < LEVEL else NOISE
    return Figure(setting, what, unit, middles[0], middles[1], p, reading)


def _hits(row: Mapping[str, Any]) -> list[float]:
    """A 1 for each example that was rebuilt, a 0 for each that was not."""
    rebuilt, n = row.get("rebuilt", 0), row.get("n", 0)
    return [1.0] * rebuilt + [0.0] * (n - rebuilt)


def _key(row: Mapping[str, Any]) -> Key:
    return tuple(sorted(row["labels"].items())), row["attack"], row["round"]


def _samples(run: Mapping[str, Any]) -> dict[tuple[Key, str], list[float]]:
    """Every example's figures, and the labels of every victim, by setting, attack, round and metric."""
    found: dict[tuple[Key, str], list[float]] = {}
    for cell in run["cells"]:
        for attack in cell["attacks"]:
            key = _key({"labels": cell["labels"], "attack": attack["name"], "round": attack["round"]})
            for victim in attack["victims"]:
                for metric, values in victim["figures"].items():
                    kept = [value for value in values if value is not None] if isinstance(values, list) else [values]
                    found.setdefault((key, metric), []).extend(kept)
                if victim.get("labels_right") is not None:
                    found.setdefault((key, LABELS), []).append(victim["labels_right"])
    return found
