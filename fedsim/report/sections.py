"""The document's opening sections: what came out, who sees what, and the pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attacks.metrics import THRESHOLDS
from fedsim.leakage import MARGIN_DB, RECORD_MARGIN, RECORD_SHARE, TOKEN_SHARE
from fedsim.report import plots
from fedsim.report.blocks import Block, Bullets, Cell, Chip, Drawing, Folded, Heading, Prose, Section, Swatch, Table
from fedsim.report.gallery import picture_gallery
from fedsim.report.palette import Mark, marks
from fedsim.report.reading import Json, Results, Setting, mean, setting_name, unique
from fedsim.report.records import record_tables
from fedsim.report.tiles import Pictures
from fedsim.report.wording import (
    MISSING,
    MUST_TRUST,
    SERVER_SEES,
    SHARES,
    epsilon,
    finite,
    measure,
    share,
    shown,
    unclaimed,
)
from fedsim.words import counted, listed


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
        """Draw, keep the file, and put the same plot into the page."""
        self.figures[name] = plots.drawn(make, name)
        return Drawing(plots.inline(self.figures[name], name, alt), caption)


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


def verdict(context: Context) -> Section:
    """What came out, one line for each protocol and setting."""
    results = context.results
    words = [judgement(results, protocol, setting).text for protocol, setting in results.combinations]
    rank = ("not broken", "undecided", "run failed")
    ordered = sorted(unique(words), key=lambda word: rank.index(word) + 2 if word in rank else word != "broken")
    tally = [f"{words.count(word)} {word}" for word in ordered]
    kind = "combination of protocol and setting" if len(results.settings) > 1 else "protocol"
    plural = "combinations of protocol and setting" if len(results.settings) > 1 else "protocols"
    lead = f"Of {counted(len(words), kind, plural)}: {listed(tally)}." if words else "Nothing was run."
    head = ["protocol", "verdict", "rebuilt", "strongest attack, median", "accuracy", "epsilon"]
    tables = [
        Table(
            f"Verdict on {setting_name(setting)}" if setting_name(setting) else "Verdict by protocol",
            head,
            [_verdict_row(context, protocol, its) for protocol, its in results.combinations if its == setting],
            ("rebuilt", "accuracy", "epsilon"),
            "cards",
        )
        for setting in results.settings
    ]
    return Section(
        "verdict",
        "Verdict",
        [
            Prose(lead, "lead"),
            *tables,
            Prose(
                "“Broken” means that an attack rebuilt at least one example at the rung named, given what that rung "
                "grants. “Not broken” means that the attacks named, with the budget they had, did not; a stronger "
                "attack may. “Labels read”, or a column, words or secrets, means that these were told right more often "
                "than the better guess from public data gets, by more than chance: the whole interval lies above it. "
                "“Undecided” means that no attack gave an answer that counts either way.",
                "note",
            ),
            Prose(
                f"A picture counts as rebuilt from {THRESHOLDS[0]:g} dB on, if that beats the best guess without any "
                f"update by {MARGIN_DB:g} dB; a record from {share(RECORD_SHARE)} of its columns right on, if that is "
                f"{100 * RECORD_MARGIN:g} points more than guessing gets, or all of them; a text when "
                f"{share(TOKEN_SHARE)} of its words are right, and guessing gets fewer.",
                "note",
            ),
        ],
    )


def _verdict_row(context: Context, protocol: str, setting: Setting) -> list[object]:
    """Verdict sentences, the headline figure, accuracy and epsilon of one combination."""
    results, attempts = context.results, context.results.attempts_of(protocol, setting)
    read = [str(r.get("verdict") or "") for s in attempts for r in s.get("readings") or [] if r.get("read")]
    read += [str(row.get("verdict") or "") for row in what_was_told(results, protocol, setting)]
    said = unique([*(str(s.get("verdict") or "") for s in attempts), *read])
    said = sorted(filter(None, said), key=lambda text: (not text.lower().startswith("broken"), text not in read))
    note = "\n".join(filter(None, [*said, results.lost(protocol, setting)]))
    return [
        context.swatch(protocol),
        Cell(judgement(results, protocol, setting), note or "no attack gave an answer that counts"),
        _rebuilt(attempts),
        Cell(*_headline_figure(results, protocol, setting)),
        share(mean(results.accuracy_of(protocol, setting))),
        _epsilon(results, protocol, setting),
    ]


def _rebuilt(attempts: list[Json]) -> Cell:
    """The largest share of examples that one attack rebuilt, with the counts behind it."""
    tried = [entry for entry in attempts if "recovered" in entry]
    if not tried:
        return Cell(MISSING)
    best = max(tried, key=lambda entry: finite(entry["recovered"]) or 0.0)
    counts = f"{best['rebuilt']:,} of {best['n']:,}" if best.get("n") and "rebuilt" in best else ""
    return Cell(share(best["recovered"]), counts)


def _epsilon(results: Results, protocol: str, setting: Setting) -> Cell:
    """The epsilon that holds for every seed; a dash where a protocol adds noise, but no run of it finished."""
    privacy = results.privacy_of(protocol, setting)
    if privacy is None:
        return Cell(MISSING if results.noise_of(protocol, setting) else epsilon(None))
    unit = f"per {privacy['unit']}" if privacy.get("unit") else ""
    most = "the largest over seeds" if results.privacy_differs(protocol, setting) else ""
    return Cell(epsilon(privacy), ", ".join(filter(None, [unit, most])))


def _headline_figure(results: Results, protocol: str, setting: Setting) -> tuple[str, str]:
    """The strongest attack's median figure in the first metric reported, and what guessing gives.

    Where an attack claimed something of fewer than half the targets, the median is none, and the worst case stands.
    """
    entries = [s for s in results.attempts_of(protocol, setting) if shown(s)]
    if not entries:
        return MISSING, ""
    first = [s for s in entries if s.get("metric") == entries[0].get("metric")]
    best = max(first, key=_strength)
    metric = str(best.get("metric"))
    unit = f" {best['unit']}" if best.get("unit") and metric not in SHARES else ""
    guess = f"guess {measure(metric, best.get('baseline'))}{unit}"
    if finite(best.get("median")) is not None:
        return f"{measure(metric, best['median'])}{unit}", guess
    worst = f"most leaked {measure(metric, best.get('worst'))}{unit}"
    return "no claim", f"{worst}, {guess}; nothing claimed of {unclaimed(best):,} of {best['n']:,}"


def _strength(entry: Json) -> tuple[float, float]:
    """How much an attack got: by its median, then by its worst case."""
    low = float("-inf")
    middle, worst = finite(entry.get("median")), finite(entry.get("worst"))
    return low if middle is None else middle, low if worst is None else worst


def who_sees_what(context: Context) -> Section:
    """The threat model in words: parties, what the server receives under each protocol, what it is told."""
    results = context.results
    rows: list[list[object]] = []
    common, own, by_setting = _threat(results)
    settings = [[setting_name(setting).capitalize(), said] for setting, said in by_setting.items()]
    for protocol in results.protocols:
        kinds = [_defence(defence) for defence in results.stacks.get(protocol, [])] or ["plain"]
        sees = SERVER_SEES.get(kinds[-1], "what the defence named leaves visible")
        sees_cell = Cell(sees, own.get(protocol, ""))
        rows.append([context.swatch(protocol), sees_cell, "; ".join(unique(MUST_TRUST.get(k, MISSING) for k in kinds))])
    others = [
        ["each client", "its own data, every model it is sent, its own update"],
        ["other clients", "the models they are sent; never another client's update"],
        ["outsiders", "the final model, where it is published"],
        ["the experimenter", "everything; the truth is opened for scoring alone, and no attack receives it"],
    ]
    return Section(
        "who-sees-what",
        "Who sees what",
        [
            Bullets(common),
            *(
                [Table("Where settings differ", ["setting", "threat model"], settings, tone="words")]
                if settings
                else []
            ),
            Table(
                "What the server receives",
                ["protocol", "the server sees", "what must be trusted"],
                rows,
                tone="words cards",
            ),
            Table("The other parties", ["party", "sees"], others, tone="words cards"),
            Prose(
                "The result is void if one of these fails: attacks were given only the adversary's view and the "
                "knowledge listed above; no client shares memory, files or random seeds with the server; and the "
                "deployed system sends what was simulated here, nothing besides.",
                "caution",
            ),
        ],
    )


def _defence(defence: Json) -> str:
    """The key of a defence in the word lists."""
    kind = str(defence.get("kind"))
    return "sample_dp" if kind == "client_dp" and defence.get("level") == "example" else kind


def _threat(results: Results) -> tuple[list[str], dict[str, str], dict[Setting, str]]:
    """The threat model's sentences that all cells share, for each protocol its own, and for each setting its own.

    What holds of all cells of a setting, whatever the protocol, is the setting's; what is left is the protocol's.
    """
    told = [(c, [str(sentence) for sentence in c.get("threat_model") or []]) for c in results.cells]
    common = [sentence for sentence in told[0][1] if all(sentence in others for _, others in told)] if told else []
    own: dict[str, list[str]] = {}
    settings: dict[Setting, list[str]] = {}
    for cell, sentences in told:
        setting = results.setting_of(cell)
        mates = [others for other, others in told if results.setting_of(other) == setting]
        shared = [s for s in sentences if s not in common and all(s in others for others in mates)]
        if len(results.protocols) > 1 and len(results.settings) > 1:
            settings.setdefault(setting, []).extend(shared)
            shared = [*common, *shared]
        else:
            shared = common
        own.setdefault(results.protocol_of(cell), []).extend(s for s in sentences if s not in shared)
    spoken = {setting: " ".join(unique(sentences)) for setting, sentences in settings.items() if sentences}
    return common, {protocol: " ".join(unique(sentences)) for protocol, sentences in own.items()}, spoken


def gallery(context: Context) -> Section:
    """Truth and reconstructions, one gallery an attack and setting; the strongest attack open, the others folded."""
    results = context.results
    blocks: list[Block] = []
    for setting in results.settings:
        ranked = _by_strength(results, setting)
        shown: list[tuple[str, list[Block]]] = []
        for name, round, rung in ranked:
            picture = picture_gallery(results, context.pictures, context.marks, setting, name, round, rung)
            body: list[Block] = [picture] if picture else []
            body += [] if picture else record_tables(results, setting, name, round, rung, _metric(results, name))
            if body:
                shown.append((f"{name}, round {round}", body))
        if setting_name(setting) and shown:
            blocks.append(Heading(setting_name(setting).capitalize()))
        blocks += shown[0][1] if shown else []
        blocks += [Folded(f"What {name} rebuilt", body) for name, body in shown[1:]]
    if not blocks:
        blocks = [Prose("No attack of this run rebuilt anything that can be shown.")]
    pictures = context.pictures
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
            reached[key] = max(reached.get(key, _strength({})), _strength(entry))
    return [(*key, rungs[key]) for key in sorted(rungs, key=lambda key: reached.get(key, _strength({})), reverse=True)]
