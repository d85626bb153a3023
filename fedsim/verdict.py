"""Verdicts: what a group of attack outcomes shows, in words that never claim protection that was not shown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from attacks import metrics, reconstructions
from fedsim.truth import THE_SUM
from fedsim.words import counted

Entries = Sequence[Mapping[str, Any]]
"""The outcomes of one attack on one round, one a seed, as results.json holds them."""

FEW = 5
"""Below so many victims an interval says little, and the verdict says so."""
COHORT = "whole cohort"
"""What a reading's count is of where the attack had sums alone."""


def read_as(n: int) -> str:
    """The word for what lies above guessing in ``n`` victims or targets: of few, an interval is too narrow."""
    return "perhaps read" if n < FEW else "read"


@dataclass(frozen=True)
class Reading:
    """How often something private (the labels, the sensitive column) was told right, beside the best guess.

    ``right``, ``low`` and ``high`` are mean and bootstrap interval over ``n`` victims or targets, between 0 and 1.
    """

    what: str
    right: float
    low: float
    high: float
    guess: float
    guess_name: str
    n: int
    unit: str

    @property
    def read(self) -> bool:
        """Whether the interval lies above what the better guess gets on average."""
        return self.low > self.guess

    def verdict(self, rung: str, attack: str) -> str:
        """The reading as a sentence, with its figures."""
        said = read_as(self.n) if self.read else "not shown to be read"
        few = ", too few to be sure" if self.n < FEW else ""
        return (
            f"{self.what} {said} at rung {rung} by {attack}: {_percent(self.right)} right, guessing "
            f"{_percent(self.guess)} ({counted(self.n, self.unit)}{few})"
        )


def readings(entries: Entries, rung: str, generator: np.random.Generator) -> list[dict[str, Any]]:
    """What was read of the labels and of the sensitive column, each with its verdict; nothing that was granted."""
    attack = str(entries[0]["name"])
    if not reconstructions()[attack].needs.update:
        return []
    victims = [victim for entry in entries for victim in entry["victims"]]
    # An attack that failed the case it must win shows nothing by failing here too.
    counts = any(entry["status"] == "done" for entry in entries)
    found = [_labels(entries, victims, generator), _sensitive(victims, generator), *_told(victims, generator)]
    return [
        {**asdict(reading), "read": reading.read, "verdict": reading.verdict(rung, attack)}
        for reading in found
        if reading is not None and (reading.read or counts)
    ]


def _labels(entries: Entries, victims: Entries, generator: np.random.Generator) -> Reading | None:
    if any("labels" in entry["knowledge"] for entry in entries):
        return None
    scored = [v for v in victims if v["labels_right"] is not None]
    guesses = {
        name: [v["baseline"][f"label_{name}"] for v in scored if f"label_{name}" in v["baseline"]]
        for name in ("majority", "proportions")
    }
    return _reading("labels", [v["labels_right"] for v in scored], guesses, _whose(scored), generator)


def _whose(victims: Entries) -> str:
    """What was read of a sum is the cohort's: it says of no client what was its own."""
    return COHORT if victims and all(victim["client"] == THE_SUM for victim in victims) else "client"


def _sensitive(victims: Entries, generator: np.random.Generator) -> Reading | None:
    """The mean public record is the only guess: the nearest one is chosen with the truth."""
    scored = [v for v in victims if "sensitive" in v["figures"]]
    right = [value or 0.0 for v in scored for value in v["figures"]["sensitive"]]
    guess = [value for v in scored for value in v["baseline"].get("sensitive_mean", ())]
    return _reading(str(scored[0]["sensitive"]) if scored else "", right, {"mean": guess}, "example", generator)


def _told(victims: Entries, generator: np.random.Generator) -> list[Reading | None]:
    """The words of texts, beside as many of the commonest public ones, and the secrets planted in them."""
    worded = [victim for victim in victims if "words" in victim]
    words, whose = [victim["words"] for victim in worded], _whose(worded)
    secrets = [victim["secrets"] for victim in victims if "secrets" in victim]
    told, known = ([value for own in secrets for value in own[key]] for key in ("told", "public"))
    return [
        _reading("words", [w["recall"] for w in words], {"common": [w["guess"] for w in words]}, whose, generator),
        _reading("secrets", told, {"public": known}, "secret", generator),
    ]


def _reading(
    what: str,
    right: Sequence[float],
    guesses: Mapping[str, Sequence[float]],
    unit: str,
    generator: np.random.Generator,
) -> Reading | None:
    means = {name: float(np.mean(values)) for name, values in guesses.items() if values}
    if not right or not means:
        return None
    low, high = metrics.bootstrap_interval(right, generator, statistic=np.mean)
    best = max(means, key=lambda name: means[name])
    return Reading(what, float(np.mean(right)), low, high, means[best], best, len(right), unit)


def verdict(entries: Entries, rung: str, read: Sequence[Mapping[str, Any]]) -> str:
    """Never 'private': broken by this attack, not broken by it, or no evidence either way.

    It is about whole examples; of an attack that claims none, about what it read.
    """
    name = str(entries[0]["name"])
    victims = [victim for entry in entries for victim in entry["victims"]]
    statuses = {entry["status"] for entry in entries}
    reasons = "; ".join(sorted({str(e["reason"]) for e in entries if e["status"] == "not_applicable"}))
    if not reconstructions()[name].needs.update:
        return "what guessing gives, without any update"
    if any(any(victim["recovered"]) for victim in victims):
        return f"broken at rung {rung} by {name}"
    if statuses == {"not_applicable"}:
        return f"not applicable: {reasons}"
    open_yet = sorted({str(e["reason"]) for e in entries if e["status"] == "inconclusive" and e["reason"]})
    if not any(victim["figures"] for victim in victims) and read:
        if open_yet:
            return f"inconclusive beyond what was read: {name}, {open_yet[0]}"
        return "; ".join(str(reading["verdict"]) for reading in read)
    if "done" not in statuses or "inconclusive" in statuses:
        said = ", ".join(sorted(statuses - {"not_applicable", "done"}))
        return f"inconclusive: {name}, {open_yet[0]}" if open_yet else f"inconclusive: {name} {said}"
    if not any(victim["figures"] for victim in victims):
        return f"undecided: {name} claims no examples, and here nothing about them can be judged"
    budget = ", ".join(f"{key} {value}" for key, value in entries[0]["budget"].items() if value is not None)
    return f"not broken at rung {rung} by {name} with budget {budget or 'default'}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
