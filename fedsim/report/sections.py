"""The document's opening sections: what came out, who sees what, and the pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedsim.report import plots
from fedsim.report.blocks import Block, Chip, Drawing, Folded, Heading, Prose, Section, Swatch
from fedsim.report.gallery import picture_gallery
from fedsim.report.palette import Mark, marks
from fedsim.report.reading import Json, Results, Setting, setting_name, unique
from fedsim.report.records import record_tables
from fedsim.report.tiles import SIDE, Pictures
from fedsim.report.wording import finite
from fedsim.words import counted, listed, rung_step

ROOM = 4_000_000
"""Characters of pictures after which no further gallery is begun."""


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


def what_was_told(results: Results, protocol: str, setting: Setting) -> list[Json]:
    """The summary rows of inferences that told more than is had without them, from updates or from the model."""
    rows = results.raw.get("inference_summary") or []
    mine = [row for row in rows if results.protocol_of(row) == protocol and results.setting_of(row) == setting]
    return [row for row in mine if row.get("told")]


def holds(entry: Json) -> bool:
    """Whether a summary entry's verdict says that the protocol was not broken."""
    return str(entry.get("verdict", "")).lower().startswith("not broken")


def lowest_broken(results: Results, protocol: str, setting: Setting) -> str:
    """The lowest rung on which an attack rebuilt an example; empty where none did."""
    rungs = [str(entry.get("rung")) for entry in results.attempts_of(protocol, setting) if is_broken(entry)]
    return min(rungs, key=rung_step, default="")


def judgement(results: Results, protocol: str, setting: Setting) -> Chip:
    """One combination's verdict in two words: the worst of its attacks counts."""
    entries = results.attempts_of(protocol, setting)
    cells = results.cells_of(protocol, setting)
    if any(map(is_broken, entries)):
        return Chip("broken", "bad")
    told = [str(row.get("asset")) for row in what_was_told(results, protocol, setting)]
    if read := unique([*(what for entry in entries for what in what_was_read(entry)), *told]):
        return Chip(f"{listed(read)} read", "bad")
    if cells and all(cell.get("status") == "failed" for cell in cells):
        return Chip("run failed", "warn")
    return Chip("not broken", "good") if any(map(holds, entries)) else Chip("undecided", "warn")


def strength(entry: Json) -> tuple[float, float]:
    """How much an attack got: by its median, then by its worst case."""
    low = float("-inf")
    middle, worst = finite(entry.get("median")), finite(entry.get("worst"))
    return low if middle is None else middle, low if worst is None else worst


def gallery(context: Context) -> Section:
    """Truth and reconstructions, one gallery an attack and setting; the strongest attack open, the others folded."""
    results = context.results
    ranked = {setting: _by_strength(results, setting) for setting in results.settings}
    bodies: dict[Setting, list[tuple[str, list[Block]]]] = {setting: [] for setting in ranked}
    omitted = 0
    for place in range(max(map(len, ranked.values()), default=0)):
        for setting in (setting for setting in ranked if place < len(ranked[setting])):
            name, round, rung = ranked[setting][place]
            if context.pictures.spent > ROOM:
                omitted += 1
                continue
            picture = picture_gallery(results, context.pictures, context.marks, setting, name, round, rung)
            body: list[Block] = [picture] if picture else []
            body += [] if picture else record_tables(results, setting, name, round, rung, _metric(results, name))
            if body:
                bodies[setting].append((f"{name}, round {round}", body))
    blocks: list[Block] = []
    for setting, shown in bodies.items():
        if setting_name(setting) and shown:
            blocks.append(Heading(setting_name(setting).capitalize()))
        blocks += shown[0][1] if shown else []
        blocks += [Folded(f"What {name} rebuilt", body) for name, body in shown[1:]]
    if omitted:
        blocks.append(
            Prose(
                f"{counted(omitted, 'gallery', 'galleries')} not shown here, so that this page stays small: each "
                "setting's strongest attack comes first. The others' pictures are in the run folder, below cells/, and "
                "their figures in the results.",
                "caution",
            )
        )
    if not blocks:
        blocks = [Prose("No attack of this run rebuilt anything that can be shown.")]
    pictures = context.pictures
    if pictures.reduced:
        blocks.append(
            Prose(
                f"{counted(pictures.reduced, 'picture')} of more than {SIDE} pixels a side drawn smaller; the figures "
                "come from the claims themselves.",
                "note",
            )
        )
    if pictures.clipped or pictures.broken:
        blocks.append(
            Prose(
                f"Of {counted(pictures.shown, 'picture')}, {pictures.clipped} held values outside [0, 1] and are drawn "
                f"clipped, {pictures.broken} held values that are no numbers and show grey there. The figures come "
                "from the claims themselves.",
                "note",
            )
        )
    return Section("pictures", "What was rebuilt", blocks)


def _metric(results: Results, attack: str) -> str:
    """The metric that an attack is summarised by."""
    return next((str(s.get("metric")) for s in results.summary if s.get("attack") == attack), "psnr")


def _by_strength(results: Results, setting: Setting) -> list[tuple[str, Any, str]]:
    """(attack, round, rung) of a setting; the one with the highest median under any protocol first."""
    rungs: dict[tuple[str, Any], str] = {}
    reached: dict[tuple[str, Any], tuple[float, float]] = {}
    for protocol in results.protocols:
        for key, records in results.attacks_of(protocol, setting).items():
            if records[0].get("rung") != "L0":
                rungs.setdefault(key, str(records[0].get("rung")))
        for entry in results.summary_of(protocol, setting):
            key = (str(entry.get("attack")), entry.get("round"))
            reached[key] = max(reached.get(key, strength({})), strength(entry))
    return [(*key, rungs[key]) for key in sorted(rungs, key=lambda key: reached.get(key, strength({})), reverse=True)]
