"""The document's first section: what came out, in a line for each protocol, and how much stands behind it."""

from attacks.metrics import THRESHOLDS
from fedsim.leakage import MARGIN_DB, RECORD_CHANCE, RECORD_MARGIN, RECORD_SHARE, TOKEN_SHARE
from fedsim.observers import GUARANTEED
from fedsim.report.blocks import Block, Bullets, Cell, Chip, Folded, Prose, Section, Table
from fedsim.report.extremes import most_leaked
from fedsim.report.inferences import (
    NOT_TOLD,
    answered,
    figure_text,
    found,
    guess_text,
    headline,
    of_model,
    rows_of,
    strongest,
)
from fedsim.report.matrix import doubt
from fedsim.report.proven import shown_on
from fedsim.report.reading import Json, Results, Setting, mean, setting_name, unique
from fedsim.report.sections import STOPPED, Context, holds, how_read, is_broken, judgement, lowest_rung, strength
from fedsim.report.wording import (
    MISSING,
    SHARES,
    at_most,
    bounds_little,
    epsilon,
    finite,
    measure,
    share,
    shown,
    unclaimed,
)
from fedsim.verdict import COHORT, FEW, read_as
from fedsim.words import RUNGS, counted, listed, rung_step

FEW_SETTINGS, OPEN = 6, 2
"""So many settings are told in a line each before the tables; so many tables stand open."""
TONES = ("bad", "warn", "good")


def verdict(context: Context) -> Section:
    """The answer in a sentence, then by protocol; each verdict in full is folded."""
    results = context.results
    words = [judgement(results, protocol, setting).text for protocol, setting in results.combinations]
    rank = ("undecided", "run failed", STOPPED, NOT_TOLD, "not broken")
    ordered = sorted(unique(words), key=lambda word: rank.index(word) + 2 if word in rank else word != "broken")
    tally = [f"{words.count(word)} {'with the ' if word == STOPPED else ''}{word}" for word in ordered]
    kind = "combination of protocol and setting" if len(results.settings) > 1 else "protocol"
    plural = "combinations of protocol and setting" if len(results.settings) > 1 else "protocols"
    lead = f"Of {counted(len(words), kind, plural)}: {listed(tally)}." if words else "Nothing was run."
    blocks: list[Block] = [Prose(lead, "lead")]
    if words and len(results.settings) <= FEW_SETTINGS:
        blocks.append(Bullets([_by_name(results, setting) for setting in results.settings]))
    tables = [(setting_name(setting), _table(context, setting)) for setting in results.settings]
    blocks += [table for _, table in tables[:OPEN]]
    blocks += [Folded(f"Verdict on {name}", [table]) for name, table in tables[OPEN:]]
    sentences: list[list[object]] = [
        [context.swatch(protocol), setting_name(setting) or MISSING, text]
        for protocol, setting in results.combinations
        for text in _said(results, protocol, setting)
    ]
    if sentences:
        head = ["protocol", "setting", "verdict"]
        if not any(map(setting_name, results.settings)):
            head, sentences = ["protocol", "verdict"], [[row[0], row[2]] for row in sentences]
        full = Table("One row a verdict", head, sentences, tone="words cards")
        blocks.append(Folded("Every verdict in full", [full]))
    rungs = sorted(unique(lowest_rung(results, *pair) for pair in results.combinations), key=rung_step)
    if context.pictures.shown:
        blocks.append(
            Prose(
                "“Most leaked” shows one example, the client's beside what was rebuilt: of all attacks and seeds, and "
                "first of those that count as rebuilt, the one whose figure lies furthest above what guessing gets.",
                "note",
            )
        )
    if meant := [f"{rung}: {RUNGS[rung]}" for rung in rungs if rung in RUNGS]:
        blocks.append(Prose(f"Rungs say what an attacker has. {'; '.join(meant)}.", "note"))
    return Section("verdict", "Verdict", [*blocks, *_meanings()])


def _meanings() -> list[Block]:
    return [
        Prose(
            "“Broken” means that an attack rebuilt at least one example at the rung named, given what that rung "
            "grants. “Not broken” means that the attacks named, with the budget they had, did not; a stronger "
            "attack may. “Labels read”, or a column, words or secrets, means that these were told right more often "
            "than the better guess from public data gets, by more than chance: the whole interval lies above it. "
            f"“Perhaps read” means that it does, but rests on fewer than {FEW} clients, cohorts, examples or secrets: "
            "too few for chance to be ruled out. "
            f"“Told” says the same of an inference attack's figure, beside what is had without the attack. "
            f"“{NOT_TOLD.capitalize()}” means that inference attacks ran to the end, and no such interval lies above: "
            "that is no proof that nothing can be told, least of all where records are few. "
            f"“{STOPPED.capitalize()}” means that clients refused the server's lie in every round, and it read no "
            "update; a client that failed on its own refused nothing. “Undecided” means that no attack gave an answer "
            "that counts either way.",
            "note",
        ),
        Prose(
            f"A picture counts as rebuilt from {THRESHOLDS[0]:g} dB on (200 dB stands for an exact copy), if that "
            f"beats the best guess without any update by {MARGIN_DB:g} dB; a record from {share(RECORD_SHARE)} of its "
            f"columns right on, if that is {100 * RECORD_MARGIN:g} points more than guessing gets, and if luck alone, "
            "with each column right as often as in the best guess, lets as many of a victim's records come as far with "
            f"a probability below {100 * RECORD_CHANCE:g} %; or with all of its columns right, where guessing has "
            f"fewer; a text when {share(TOKEN_SHARE)} of its words are right, and guessing gets fewer.",
            "note",
        ),
    ]


def _by_name(results: Results, setting: Setting) -> str:
    """One setting's verdicts, by protocol; the worst first."""
    found: dict[Chip, list[str]] = {}
    for protocol, _ in (pair for pair in results.combinations if pair[1] == setting):
        found.setdefault(judgement(results, protocol, setting), []).append(protocol)
    among = len(results.protocols) > 1
    told = [
        f"{chip.text}: {listed(found[chip])}" if among else chip.text
        for chip in sorted(found, key=lambda chip: TONES.index(chip.tone))
    ]
    said = "; ".join([*([setting_name(setting)] if setting_name(setting) else []), *told])
    return said[:1].upper() + said[1:]


def _said(results: Results, protocol: str, setting: Setting) -> list[str]:
    """Every verdict and reading of one combination, breaks first."""
    attempts = results.attempts_of(protocol, setting)
    read = [str(r.get("verdict") or "") for s in attempts for r in s.get("readings") or [] if r.get("read")]
    rows = rows_of(results, protocol, setting)
    read += [str(row.get("verdict") or "") for row in rows if row.get("told")]
    rest = [str(entry.get("verdict") or "") for entry in attempts]
    rest += [str(row["verdict"]) if answered(row) else f"{row['attack']}: {row['verdict']}" for row in rows]
    said = unique(filter(None, [*rest, *read]))
    return sorted(said, key=lambda text: (not text.lower().startswith("broken"), text not in read))


def _table(context: Context, setting: Setting) -> Table:
    """One row a protocol; the most leaked example in pictures where there are any."""
    among = [protocol for protocol, its in context.results.combinations if its == setting]
    rows = [_row(context, protocol, setting) for protocol in among]
    pairs = [most_leaked(context, protocol, setting) for protocol in among]
    head = ["protocol", "verdict", "lowest rung", "rebuilt", "strongest attack, median", "accuracy", "epsilon",
            "protection was on"]  # fmt: skip
    if any(pairs):
        head.insert(2, "most leaked")
        rows = [[*row[:2], pair or Cell(MISSING), *row[2:]] for row, pair in zip(rows, pairs, strict=True)]
    caption = f"Verdict on {setting_name(setting)}" if setting_name(setting) else "Verdict by protocol"
    return Table(caption, head, rows, ("rebuilt", "accuracy", "epsilon"), "cards verdicts")


def _row(context: Context, protocol: str, setting: Setting) -> list[object]:
    """Verdict, the headline figure, accuracy, epsilon and evidence of one combination."""
    results, attempts = context.results, context.results.attempts_of(protocol, setting)
    proof = shown_on(results, protocol, setting)
    lost = results.lost(protocol, setting)
    behind = "" if lost.startswith("the run failed") else doubt(results, protocol, setting)
    inferred = found(rows_of(results, protocol, setting))
    note = "\n".join(filter(None, [*_short(attempts), *inferred, lost, behind]))
    return [
        context.swatch(protocol),
        Cell(judgement(results, protocol, setting), note or "no attack gave an answer that counts"),
        lowest_rung(results, protocol, setting) or MISSING,
        _rebuilt(attempts),
        Cell(*_headline_figure(results, protocol, setting)),
        share(mean(results.accuracy_of(protocol, setting))),
        _epsilon(results, protocol, setting),
        Cell(proof.chip, "\n".join(proof.notes)),
    ]


def _short(attempts: list[Json]) -> list[str]:
    """Which attacks rebuilt, read, failed to, or gave no answer, a line each."""
    broke = [f"{entry.get('attack')}{_counts(entry)}" for entry in attempts if is_broken(entry)]
    sure = how_read(attempts).get("read", [])
    lines: dict[str, list[str]] = {"rebuilt by": broke} if broke else {}
    other: dict[str, list[str]] = {}
    for entry in attempts:
        name = str(entry.get("attack"))
        for reading in entry.get("readings") or []:
            word = read_as(int(reading.get("n") or 0))
            if reading.get("read") and (word == "read" or reading.get("what") not in sure):
                whose = f" of a {COHORT}" if reading.get("unit") == COHORT else ""
                lines.setdefault(f"{reading.get('what')}{whose} {word} by", []).append(name)
        if holds(entry):
            lines.setdefault("not broken by", []).append(name)
        elif not is_broken(entry) and not entry.get("readings"):
            other.setdefault(str(entry.get("verdict") or "no answer"), []).append(name)
    said = [f"{words} {listed(unique(names))}" for words, names in lines.items()]
    return said + [f"{listed(unique(names))}: {why}" for why, names in other.items()]


def _rebuilt(attempts: list[Json]) -> Cell:
    """The largest share of examples that one attack rebuilt, with the counts behind it."""
    tried = [entry for entry in attempts if "recovered" in entry]
    if not tried:
        return Cell(MISSING)
    best = max(tried, key=lambda entry: finite(entry["recovered"]) or 0.0)
    return Cell(share(best["recovered"]), _counts(best).strip(" ()"))


def _counts(entry: Json) -> str:
    """How many of its targets an attack rebuilt, in brackets; empty where that was not counted."""
    return f" ({entry['rebuilt']:,} of {entry['n']:,})" if entry.get("n") and "rebuilt" in entry else ""


def _epsilon(results: Results, protocol: str, setting: Setting) -> Cell:
    """The epsilon that holds for every seed; a dash where a protocol adds noise, but no run of it finished."""
    privacy = results.privacy_of(protocol, setting)
    if privacy is None:
        return Cell(MISSING if results.noise_of(protocol, setting) else epsilon(None))
    unit = f"per {privacy['unit']}" if privacy.get("unit") else ""
    most = "the largest over seeds" if results.privacy_differs(protocol, setting) else ""
    weak = "bounds next\nto nothing" if bounds_little(privacy) else ""
    summed = _on_sums(results, protocol, setting)
    alone = "on one update" if summed else ""
    return Cell(epsilon(privacy), "\n".join(filter(None, [unit, alone, most, weak, summed])))


def _on_sums(results: Results, protocol: str, setting: Setting) -> str:
    """The largest epsilon over seeds against a server that opens sums alone; empty where none is stated."""
    statements = [cell.get("privacy") or {} for cell, _ in results.evidence_of(protocol, setting)]
    own = [o for said in statements for o in said.get("observers") or [] if o.get("observer") == GUARANTEED]
    if not own:
        return ""
    known = [finite(o.get("epsilon")) for o in own]
    most = None if None in known else max(value for value in known if value is not None)
    return f"{at_most(most)} on sums,\nif enough clients\nare honest"


def _headline_figure(results: Results, protocol: str, setting: Setting) -> tuple[str, str]:
    """The strongest attack's median figure in the first metric reported, its worst case, and what guessing gives; of an
    inference its headline, where nothing was rebuilt and it told something, or stands alone.

    An attack that broke the protocol is stronger than one that did not, whatever their medians: few examples may be
    rebuilt while most are not.
    """
    entries = [s for s in results.attempts_of(protocol, setting) if shown(s)]
    inferred = strongest(rows_of(results, protocol, setting))
    if inferred is not None and (not entries or (inferred.get("told") and not any(map(is_broken, entries)))):
        figure = headline(inferred)
        said = [
            str(inferred.get("attack")) + ("" if of_model(inferred) else " (updates)"),
            guess_text(figure),
            "mean over seeds",
        ]
        return f"{inferred.get('headline')} {figure_text(figure)}", "\n".join(filter(None, said))
    if not entries:
        return MISSING, ""
    first = [s for s in entries if s.get("metric") == entries[0].get("metric")]
    best = max(first, key=lambda entry: (is_broken(entry), *strength(entry)))
    metric = str(best.get("metric"))
    unit = f" {best['unit']}" if best.get("unit") and metric not in SHARES else ""
    said = [
        str(best.get("attack")),
        f"worst {measure(metric, best.get('worst'))}{unit}",
        f"guess {measure(metric, best.get('baseline'))}{unit}",
    ]
    if finite(best.get("median")) is not None:
        return f"{measure(metric, best['median'])}{unit}", "\n".join(said)
    return "no claim", "\n".join([*said, f"nothing claimed of {unclaimed(best):,} of {best['n']:,}"])
