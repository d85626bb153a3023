"""The document's sections of figures: leakage in a table, leakage against utility in plots."""

from attacks.metrics import PSNR_CAP
from fedsim.report import plots
from fedsim.report.blocks import Block, Cell, Folded, Heading, Prose, Row, Section, Table
from fedsim.report.crowd import crowd_blocks
from fedsim.report.gallery import status
from fedsim.report.inferences import inference_rows
from fedsim.report.matrix import matrix
from fedsim.report.pareto import pareto_blocks
from fedsim.report.reading import Json, Results, Setting, label_guess, mean, setting_name, words_told
from fedsim.report.sections import Context, at_rung
from fedsim.report.wording import METRICS, MISSING, finite, interval, measure, number, share, shown, unclaimed
from fedsim.words import counted, listed


def leakage(context: Context) -> Section:
    """Every figure with its interval, its worst case, its baseline and its status."""
    results = context.results
    blocks: list[Block] = [
        Prose(
            "Each figure is a median over victims and seeds, with its confidence interval in brackets. “Most leaked” "
            "is the single worst case. “Guessing” is what one would score with no update at all: a figure near it "
            "shows no leakage. “> 30 dB” is the share of examples rebuilt above that quality; at 20 dB a picture is "
            f"recognisable, at 30 dB it is clear, at 40 dB it is practically the original. {PSNR_CAP:g} dB stands for "
            "an exact copy. “Identified” is the share whose nearest neighbour, among the batch and all public examples "
            "(the pool, whose size stands below it), is the private example itself. A target for which an attack "
            "claimed nothing ranks below every figure. “Labels right” is the share of labels told right, as counts."
        )
    ]
    head = ["protocol", "attack", "metric", "median", "most leaked", "guessing", "> 20 dB", "> 30 dB", "> 40 dB",
            "identified", "labels right"]  # fmt: skip
    tables: list[Block] = []
    notes: list[Block] = [
        Prose(
            "One row an attack and protocol. The median is over victims and seeds, with its bootstrap interval in "
            "brackets; “guessing” is the best that one gets from public data with no update, and a figure near it "
            "shows no leakage. Seeds that failed are counted beside those that finished. Resting the pointer on an "
            "attack tells its round, knowledge and budget, which stand in the section before.",
            "note",
        )
    ]
    for setting in results.settings:
        mine = [protocol for protocol, its in results.combinations if its == setting]
        rows = [row for p in mine for row in _leakage_rows(context, p, setting)]
        title = setting_name(setting)
        tables.append(Table(f"Leakage{f' on {title}' if title else ''}", head, rows, tuple(head[3:])))
    whole = matrix(context)
    if whole is None and not results.attacks and inference_rows(results):
        said = "No attack that rebuilds examples from updates was run; what was told of them stands two sections below."
        return Section("leakage", "Results", [Prose(said)])
    if whole is None:
        return Section("leakage", "Results", [*blocks, *tables])
    return Section("leakage", "Results", [whole, *notes, Folded("Every figure, by setting", [*blocks, *tables])])


def _leakage_rows(context: Context, protocol: str, setting: Setting) -> list[list[object]]:
    """One row a summary entry; where an attack gave none, one row that says why."""
    results, rows = context.results, []
    swatch = context.swatch(protocol)
    for (name, round), records in results.attacks_of(protocol, setting).items():
        if records[0].get("rung") == "L0" and protocol != results.protocols[0]:
            continue  # guessing knows nothing of the protocol
        label = at_rung(name, records[0].get("rung"), (record.get("status") for record in records))
        reason = status(results, protocol, setting, records)
        entries = [
            entry
            for entry in results.summary_of(protocol, setting)
            if (entry.get("attack"), entry.get("round")) == (name, round) and shown(entry)
        ]
        right, guess = _labels(records)
        attack = Cell(label, "; ".join(filter(None, [f"round {round}", reason, _doubt(records)])))
        for i, entry in enumerate(entries):
            rows.append([swatch, attack, *_figures(entry), "" if i else Cell(right, guess)])
        if not entries and right != MISSING:
            rows.append([swatch, attack, Cell("labels only", reason, span=8), Cell(right, guess)])
        elif not entries:
            said = "; ".join(filter(None, [_words(records), reason])) or "no figure"
            rows.append([swatch, Cell(label, f"round {round}"), Cell(said, span=9)])
    return rows or [[swatch, MISSING, Cell(results.lost(protocol, setting) or "no attack was run", span=9)]]


def _figures(entry: Json) -> list[object]:
    """Metric, median with interval, worst case, baseline, shares above 20, 30 and 40 dB, and identified in the pool."""
    metric, fractions = str(entry.get("metric")), entry.get("fractions") or {}
    return [
        Cell(METRICS.get(metric, metric.replace("_", " ")), "in dB" if entry.get("unit") == "dB" else _shares(entry)),
        Cell(interval(metric, entry), _counts(entry)),
        measure(metric, entry.get("worst")),
        Cell(measure(metric, entry.get("baseline")), str(entry.get("baseline_name") or "")),
        *(share(fractions.get(level)) for level in ("20", "30", "40")),
        Cell(share(entry.get("identified")), f"of {number(entry.get('pool'))}" if entry.get("pool") else ""),
    ]


def _shares(entry: Json) -> str:
    """What stands beside the headline of records and texts: on average over targets, with what the best guess gets."""
    found = entry.get("shares") or {}
    return "; ".join(
        f"{METRICS.get(name, name)} {share(own.get('mean'))}, guess {share(own.get('baseline'))}"
        for name, own in found.items()
    )


def _words(records: list[Json]) -> str:
    """The words that an attack told in no order, beside as many common ones."""
    if (told := words_told(records)) is None:
        return ""
    recall, precision, guess = map(share, told)
    return f"{recall} of the words told, {precision} of those claimed are right; as many common ones: {guess}"


def _counts(entry: Json) -> str:
    """How many targets stand behind a figure, and how many of them got no claim."""
    missing = unclaimed(entry)
    return f"n = {number(entry.get('n'))}" + (f"\n{number(missing)} without a claim" if missing else "")


def _doubt(records: list[Json]) -> str:
    """What weakens an attack's figures: restarts that diverged."""
    diverged = sum(int(victim.get("diverged") or 0) for record in records for victim in record.get("victims") or [])
    return f"{counted(diverged, 'restart')} diverged" if diverged else ""


def _labels(records: list[Json]) -> tuple[str, str]:
    """Share of labels right over victims, and what the better guess gives."""
    if any("labels" in (record.get("knowledge") or []) for record in records):
        return "was told", ""
    victims = [victim for record in records for victim in record.get("victims") or []]
    right = mean(finite(victim.get("labels_right")) for victim in victims)
    guess = label_guess(victims)
    return share(right), "" if guess is None else f"guess {share(guess)}"


def utility(context: Context) -> Section:
    """Leakage and accuracy over the noise, and accuracy per round, one pair a setting."""
    results = context.results
    blocks: list[Block] = []
    for i, setting in enumerate(results.settings):
        drawings: list[Block] = []
        points = [_point(results, protocol, setting) for protocol in results.protocols]
        points = [point for point in points if point.leakage or point.accuracy]
        title = setting_name(setting)
        if any(point.leakage for point in points):
            guess = mean(finite(s.get("baseline")) for s in _psnr(results, setting))
            drawings.append(
                context.plot(
                    f"leakage-{i + 1}",
                    lambda p=points, g=guess: plots.leakage_against_noise(p, context.marks, g, "PSNR of the claim, dB"),
                    _told(points),
                    "Above: median PSNR with its interval; higher is more leakage. An arrow marks figures beyond the "
                    "axis. An attack that claimed nothing of most examples has no median and is not drawn, though it "
                    "may have rebuilt a few. Below: accuracy after the last round, with its range over seeds.",
                )
            )
        curves = {p: results.curves_of(p, setting, "accuracy") for p in results.protocols}
        curves = {p: curve for p, curve in curves.items() if curve}
        losses = {p: results.curves_of(p, setting, "loss") for p in results.protocols}
        if any(losses.values()) and not curves:
            ends = [f"{p} {mean(c[min(c)]):.3g} to {mean(c[max(c)]):.3g}" for p, c in losses.items() if c]
            drawings.append(
                Prose(
                    "This task's model generates, so that it has no accuracy: its loss on held-out data stands for it. "
                    f"In nats, from the untrained model to the last round: {listed(ends)}."
                )
            )
        if any(len(curve) > 1 for curve in curves.values()):
            told = "; ".join(f"{p} ends at {share(mean(c[max(c)]))}" for p, c in curves.items())
            drawings.append(
                context.plot(
                    f"accuracy-{i + 1}",
                    lambda c=curves: plots.accuracy_per_round(c, context.marks),
                    f"Accuracy per round. {told}.",
                    "Mean over seeds; the band is the range over seeds. Round 0 is the untrained model.",
                )
            )
        if drawings:
            blocks += [Heading(title.capitalize())] if title else []
            blocks.append(Row(drawings))
    blocks += [*pareto_blocks(context), *crowd_blocks(context)]
    return Section("utility", "Leakage against utility", blocks or [Prose("There is nothing to plot in this run.")])


def _psnr(results: Results, setting: Setting) -> list[Json]:
    return [s for p in results.protocols for s in results.attempts_of(p, setting) if s.get("metric") == "psnr"]


def _point(results: Results, protocol: str, setting: Setting) -> plots.Point:
    """A protocol's place in the plot; attacks carry their round where there are several."""
    spans: dict[str, tuple[float, float, float]] = {}
    several = len({entry.get("round") for entry in _psnr(results, setting)}) > 1
    for entry in _psnr(results, setting):
        middle = finite(entry.get("median"))
        if results.protocol_of(entry) == protocol and middle is not None:
            low, high = finite(entry.get("low")), finite(entry.get("high"))
            name = str(entry.get("attack")) + (f", round {entry.get('round')}" if several else "")
            spans[name] = (middle if low is None else low, middle, middle if high is None else high)
    accuracy = results.accuracy_of(protocol, setting)
    middle = mean(accuracy)
    return plots.Point(
        protocol,
        results.noise_of(protocol, setting),
        spans,
        None if middle is None else (min(accuracy), middle, max(accuracy)),
    )


def _told(points: list[plots.Point]) -> str:
    """The plot in words."""
    parts = [
        f"{point.protocol}: "
        + ", ".join(f"{name} {measure('psnr', middle)} dB" for name, (_, middle, _) in point.leakage.items())
        + (f", accuracy {share(point.accuracy[1])}" if point.accuracy else "")
        for point in points
    ]
    return "Leakage and accuracy against noise. " + "; ".join(parts) + "."
