"""Results as the report reads them: cells grouped by protocol and by setting, seeds together."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from fedsim.report.wording import finite
from fedsim.scenario import Scenario
from fedsim.words import titled

Json = Mapping[str, Any]
Setting = tuple[tuple[str, str], ...]
"""The labels of every compared axis but the protocol: the task first, the others by name."""

PROTOCOL = "protocol"


def setting_name(setting: Setting) -> str:
    """The words for a setting; empty where nothing but the protocol is compared."""
    return ", ".join(
        label if axis == "task" else f"{axis.split('.')[-1].replace('_', ' ')} {label}" for axis, label in setting
    )


def cell_name(cell: Json) -> str:
    """The words for one cell: its labels and its seed."""
    return ", ".join(
        [*(str(label) for _, label in sorted((cell.get("labels") or {}).items())), f"seed {cell.get('seed')}"]
    )


@dataclass(frozen=True)
class Target:
    """One private example under attack, the same in every protocol: a seed, a client and an index."""

    seed: int
    client: int
    index: int


@dataclass(frozen=True)
class Hit:
    """What an attack made of one target: picture key stem, figures by metric, baseline figures, record columns."""

    stem: str | None
    figures: Mapping[str, float | None]
    baseline: Mapping[str, float | None]
    rows: Mapping[str, Any] | None = None
    rebuilt: bool = False
    """Whether the claim counts as rebuilt: near enough, and nearer than guessing by a margin."""


@dataclass(frozen=True)
class Results:
    """A read-only, order-keeping look at ``results.json``; missing parts read as empty."""

    raw: Json

    @property
    def scenario(self) -> Json:
        return self.raw.get("scenario") or {}

    @property
    def cells(self) -> list[Json]:
        return list(self.raw.get("cells") or [])

    @property
    def summary(self) -> list[Json]:
        return list(self.raw.get("summary") or [])

    @cached_property
    def stacks(self) -> dict[str, list[Json]]:
        """Protocol label -> its defences, in the order compared: results.json sorts its keys, but lists the axes."""
        compared = (self.scenario.get("compare") or {}).get(PROTOCOL)
        if isinstance(compared, Mapping):
            order = [*(self.raw.get("axes") or {}).get(PROTOCOL, ()), *compared]
            return {label: list(compared[label] or []) for label in sorted(compared, key=order.index)}
        stack = list(self.scenario.get("protocol") or [])
        return {" + ".join(str(d.get("kind", "?")).replace("_", " ") for d in stack) or "none": stack}

    @cached_property
    def _stated(self) -> dict[tuple[tuple[str, str], ...], Json]:
        """Labels -> the scenario of that combination with every default filled in; empty where it is none of ours."""
        try:
            cells = Scenario(**self.scenario).cells()
        except (TypeError, ValueError):
            return {}
        return {tuple(sorted(cell.labels.items())): cell.scenario.model_dump(mode="json") for cell in cells}

    def stated_of(self, protocol: str, setting: Setting) -> Json:
        """Everything that was set for one combination; empty where the scenario cannot be read."""
        labels = dict(next((c.get("labels") or {} for c in self.cells_of(protocol, setting)), {}))
        return self._stated.get(tuple(sorted(labels.items())), {})

    def evidence_of(self, protocol: str, setting: Setting) -> list[tuple[Json, Json]]:
        """The finished cells of one combination, each with what was measured while its defences worked."""
        measured = self.raw.get("evidence") or {}
        done = (cell for cell in self.cells_of(protocol, setting) if cell.get("status") != "failed")
        return [(cell, measured.get(str(cell.get("digest"))) or {}) for cell in done]

    def stopped(self, protocol: str, setting: Setting) -> bool:
        """Whether clients refused the server's lie in every round of every finished cell, and it read no update."""
        cells = self.evidence_of(protocol, setting)
        rows = [row for cell, _ in cells for row in cell.get("training") or [] if row.get("round")]
        unread = all((measured.get("wire") or {}).get("readable_updates") == 0 for _, measured in cells)
        return bool(rows) and unread and all(str(row.get("lie") or "").startswith("stopped by") for row in rows)

    def seeds_of(self, protocol: str, setting: Setting) -> tuple[int, int]:
        """How many of a combination's cells finished, and how many failed."""
        cells = self.cells_of(protocol, setting)
        failed = sum(cell.get("status") == "failed" for cell in cells)
        return len(cells) - failed, failed

    def protocol_of(self, entry: Json) -> str:
        """The protocol label of a cell or summary entry."""
        labels = entry.get("labels") or {}
        return str(labels[PROTOCOL]) if PROTOCOL in labels else next(iter(self.stacks))

    def setting_of(self, entry: Json) -> Setting:
        """The labels of the other axes."""
        labels = entry.get("labels") or {}
        axes = sorted((axis for axis in labels if axis != PROTOCOL), key=lambda axis: (axis != "task", axis))
        return tuple((axis, str(labels[axis])) for axis in axes)

    @cached_property
    def protocols(self) -> list[str]:
        """Protocol labels in the scenario's order."""
        declared = [str(label) for label in (self.raw.get("axes") or {}).get(PROTOCOL, [])]
        return unique([*declared, *map(self.protocol_of, self.cells), *map(self.protocol_of, self.summary)])

    @cached_property
    def settings(self) -> list[Setting]:
        """Settings in the scenario's order."""
        return unique([*map(self.setting_of, self.cells), *map(self.setting_of, self.summary)])

    @property
    def combinations(self) -> list[tuple[str, Setting]]:
        """Every (protocol, setting) that has a cell, settings outermost."""
        return [(p, s) for s in self.settings for p in self.protocols if self.cells_of(p, s)]

    def attempts_of(self, protocol: str, setting: Setting) -> list[Json]:
        """The summary entries of real attacks: what needs no update (rung L0) is the baseline, not an attack."""
        return [entry for entry in self.summary_of(protocol, setting) if entry.get("rung") != "L0"]

    def cells_of(self, protocol: str, setting: Setting) -> list[Json]:
        """The cells of one combination: one per seed."""
        return [c for c in self.cells if self.protocol_of(c) == protocol and self.setting_of(c) == setting]

    def summary_of(self, protocol: str, setting: Setting) -> list[Json]:
        """The summary entries of one combination."""
        return [s for s in self.summary if self.protocol_of(s) == protocol and self.setting_of(s) == setting]

    def privacy_of(self, protocol: str, setting: Setting) -> Json | None:
        """The weakest privacy statement over a combination's seeds: who takes part how often hangs on the seed.

        A run that failed is not counted: what it would have cost to finish is unknown.
        """
        return max(self._statements(protocol, setting), key=_loss, default=None)

    def privacy_differs(self, protocol: str, setting: Setting) -> bool:
        """Whether the seeds of a combination differ in epsilon."""
        return len(set(map(_loss, self._statements(protocol, setting)))) > 1

    def _statements(self, protocol: str, setting: Setting) -> list[Json]:
        done = (cell for cell in self.cells_of(protocol, setting) if cell.get("status") != "failed")
        return [cell["privacy"] for cell in done if cell.get("privacy")]

    def lost(self, protocol: str, setting: Setting) -> str:
        """Which of a combination's cells failed, in words; empty where all finished."""
        cells = self.cells_of(protocol, setting)
        failed = [cell for cell in cells if cell.get("status") == "failed"]
        if not failed:
            return ""
        if len(failed) == len(cells):
            return f"the run failed: {failed[0].get('cause') or 'no cause given'}"
        return f"{len(failed)} of {len(cells)} seeds failed"

    def noise_of(self, protocol: str, setting: Setting) -> float | None:
        """Noise multiplier of a combination, or None where no noise is added."""
        noises = [(self.privacy_of(protocol, setting) or {}).get("noise_multiplier")]
        noises += [defence.get("noise_multiplier") for defence in self.stacks.get(protocol, [])]
        return next((z for z in map(finite, noises) if z is not None and 0 < z < math.inf), None)

    def curves_of(self, protocol: str, setting: Setting, key: str) -> dict[int, list[float]]:
        """Round -> the finite values of ``key`` over seeds."""
        curves: dict[int, list[float]] = {}
        for cell in self.cells_of(protocol, setting):
            for row in cell.get("training") or []:
                value = finite(row.get(key))
                if value is not None and math.isfinite(value):
                    curves.setdefault(int(row.get("round", 0)), []).append(value)
        return dict(sorted(curves.items()))

    def accuracy_of(self, protocol: str, setting: Setting) -> list[float]:
        """Accuracy after the last round, per seed."""
        curves = self.curves_of(protocol, setting, "accuracy")
        return curves[max(curves)] if curves else []

    def attacks_of(self, protocol: str, setting: Setting) -> dict[tuple[str, Any], list[Json]]:
        """(attack, round) -> its record in the cell of each seed."""
        found: dict[tuple[str, Any], list[Json]] = {}
        for cell in self.cells_of(protocol, setting):
            for attack in cell.get("attacks") or []:
                found.setdefault((titled(attack), attack.get("round")), []).append(attack)
        return found

    @cached_property
    def attacks(self) -> list[Json]:
        """Every attack record of every cell."""
        return [attack for cell in self.cells for attack in cell.get("attacks") or []]

    @property
    def attempted(self) -> list[Json]:
        """Every record of an attack on updates or on the model."""
        return [*self.attacks, *(record for cell in self.cells for record in cell.get("inferences") or [])]

    def hits_of(self, protocol: str, setting: Setting, attack: str, round: Any) -> dict[Target, Hit]:
        """Each target that this attack claimed something about, with what it claimed."""
        hits: dict[Target, Hit] = {}
        for cell in self.cells_of(protocol, setting):
            for record in cell.get("attacks") or []:
                if (titled(record), record.get("round")) != (attack, round):
                    continue
                for victim in record.get("victims") or []:
                    owners = victim.get("owners") or []
                    for index, hit in enumerate(_hits(victim)):
                        # A sum's examples go by their owners, so that they stand under the same truth as elsewhere.
                        owner = owners[index] if index < len(owners) else (victim.get("client") or 0, index)
                        hits[Target(int(cell.get("seed") or 0), *map(int, owner))] = hit
        return hits


def _loss(statement: Json) -> float:
    epsilon = finite(statement.get("epsilon"))
    return math.inf if epsilon is None else epsilon


def label_guess(victims: Iterable[Json]) -> float | None:
    """What the better guess from public class shares gets of the labels, on average over victims."""
    baselines = [victim.get("baseline") or {} for victim in victims]
    means = [mean(finite(b.get(f"label_{guess}")) for b in baselines) for guess in ("majority", "proportions")]
    return max((value for value in means if value is not None), default=None)


def words_told(records: Iterable[Json]) -> tuple[float, float, float] | None:
    """Of the words in the texts: recall and precision on average over victims, and the recall of common words.

    None where no attack told any.
    """
    told = [v["words"] for record in records for v in record.get("victims") or [] if v.get("words")]
    means = [mean(finite(words.get(key)) for words in told) for key in ("recall", "precision", "guess")]
    return (means[0] or 0.0, means[1] or 0.0, means[2] or 0.0) if told else None


def _hits(victim: Json) -> Iterable[Hit]:
    """The victim's examples, one after another."""
    stems = list(victim.get("pictures") or [])
    rows, recovered = victim.get("rows") or {}, list(victim.get("recovered") or [])
    figures = {str(k): list(v) for k, v in (victim.get("figures") or {}).items() if isinstance(v, (list, tuple))}
    guesses = {str(k): list(v) for k, v in (victim.get("baseline") or {}).items() if isinstance(v, (list, tuple))}
    count = max([len(stems), len(rows.get("claim") or []), *map(len, figures.values())], default=0)
    for i in range(count):
        record = {
            "columns": list(rows.get("columns") or []),
            **{part: rows[part][i] for part in ("truth", "claim") if i < len(rows.get(part) or [])},
        }
        yield Hit(
            stem=str(stems[i]) if i < len(stems) else None,
            figures={name: finite(values[i]) for name, values in figures.items() if i < len(values)},
            baseline={name: finite(values[i]) for name, values in guesses.items() if i < len(values)},
            rows=record if rows else None,
            rebuilt=i < len(recovered) and bool(recovered[i]),
        )


def unique(items: Iterable[Any]) -> list[Any]:
    """The items without repeats, in order of first appearance."""
    return list(dict.fromkeys(items))


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the numbers among ``values``, or None without any."""
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None
