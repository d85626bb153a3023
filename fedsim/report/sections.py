"""What every section of the document is written from, and the judgements that they share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedsim.report import plots
from fedsim.report.blocks import Chip, Drawing, Swatch
from fedsim.report.inferences import NOT_TOLD, answered, rows_of, what_was_told
from fedsim.report.palette import Mark, marks
from fedsim.report.reading import Json, Results, Setting, unique
from fedsim.report.tiles import Pictures
from fedsim.report.wording import finite
from fedsim.verdict import read_as
from fedsim.words import listed, rung_step

STOPPED = "attack stopped"
"""The verdict where clients found the server lying, and sent it nothing."""


@dataclass
class Context:
    """What a section is written from; ``figures`` collects the plots as SVG text, by file stem."""

    results: Results
    pictures: Pictures
    figures: dict[str, str] = field(default_factory=dict)

    @property
    def marks(self) -> Mapping[str, Mark]:
        """Colour and marker of each protocol."""
        return marks(self.results.protocols)

    def swatch(self, protocol: str) -> Swatch:
        """A protocol's name with its mark."""
        return Swatch(protocol, self.marks[protocol])

    def plot(self, name: str, make: Any, alt: str, caption: str) -> Drawing:
        """Draw with ``make`` in the report's style."""
        return self.drawing(name, plots.drawn(make, name), alt, caption)

    def drawing(self, name: str, svg: str, alt: str, caption: str) -> Drawing:
        """Keep an SVG as a file, and put the same into the page."""
        self.figures[name] = svg
        return Drawing(plots.inline(svg, name, alt), caption, name, alt)


def is_broken(entry: Json) -> bool:
    """Whether a summary entry's verdict says that the protocol was broken."""
    return str(entry.get("verdict", "")).lower().startswith("broken")


def what_was_read(entry: Json) -> list[str]:
    """What an attack told better than guessing without rebuilding examples: the labels, the sensitive column."""
    return [str(reading.get("what")) for reading in entry.get("readings") or [] if reading.get("read")]


def how_read(entries: Iterable[Json]) -> dict[str, list[str]]:
    """Word -> what attacks told that way: a thing that many victims show read is not called perhaps read too."""
    found: dict[str, str] = {}
    for reading in (r for entry in entries for r in entry.get("readings") or [] if r.get("read")):
        what, word = str(reading.get("what")), read_as(int(reading.get("n") or 0))
        found[what] = min(word, found.get(what, word), key=("read", "perhaps read").index)
    return {word: [what for what, its in found.items() if its == word] for word in unique(found.values())}


def at_rung(name: str, rung: object, statuses: Iterable[object]) -> str:
    """An attack with its rung; one that could not start needed none."""
    return name if set(statuses) == {"not_applicable"} else f"{name} @ {rung}"


def holds(entry: Json) -> bool:
    """Whether a summary entry's verdict says that the protocol was not broken."""
    return str(entry.get("verdict", "")).lower().startswith("not broken")


def lowest_broken(results: Results, protocol: str, setting: Setting) -> str:
    """The lowest rung on which an attack rebuilt an example; empty where none did."""
    rungs = [str(entry.get("rung")) for entry in results.attempts_of(protocol, setting) if is_broken(entry)]
    return min(rungs, key=rung_step, default="")


def lowest_rung(results: Results, protocol: str, setting: Setting) -> str:
    """The lowest rung of what the verdict stands on: where examples were rebuilt, else where anything was read or told;
    empty where nothing was."""
    rungs = [str(e.get("rung")) for e in results.attempts_of(protocol, setting) if what_was_read(e)]
    rungs += [str(row.get("rung")) for row in what_was_told(results, protocol, setting)]
    return lowest_broken(results, protocol, setting) or min(rungs, key=rung_step, default="")


def judgement(results: Results, protocol: str, setting: Setting) -> Chip:
    """One combination's verdict in two words: the worst of its attacks counts."""
    entries = results.attempts_of(protocol, setting)
    cells = results.cells_of(protocol, setting)
    if any(map(is_broken, entries)):
        return Chip("broken", "bad")
    told = unique(str(row.get("asset")) for row in what_was_told(results, protocol, setting))
    if said := [f"{listed(what)} {word}" for word, what in {**how_read(entries), "told": told}.items() if what]:
        return Chip(", ".join(said), "bad")
    if cells and all(cell.get("status") == "failed" for cell in cells):
        return Chip("run failed", "warn")
    if results.stopped(protocol, setting):
        return Chip(STOPPED, "good")
    if any(map(holds, entries)):
        return Chip("not broken", "good")
    return Chip(NOT_TOLD if any(map(answered, rows_of(results, protocol, setting))) else "undecided", "warn")


def strength(entry: Json) -> tuple[float, float]:
    """How much an attack got: by its median, then by its worst case."""
    low = float("-inf")
    middle, worst = finite(entry.get("median")), finite(entry.get("worst"))
    return low if middle is None else middle, low if worst is None else worst
