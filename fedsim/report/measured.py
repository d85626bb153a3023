"""The document's sections of figures: leakage in a table, leakage against utility in plots."""

from fedsim.report import plots
from fedsim.report.blocks import Block, Cell, Heading, Prose, Row, Section, Table
from fedsim.report.gallery import why_empty
from fedsim.report.reading import Json, Results, Setting, mean, setting_name
from fedsim.report.sections import Context
from fedsim.report.wording import METRICS, MISSING, counted, finite, interval, measure, number, share


def leakage(context: Context) -> Section:
    """Every figure with its interval, its worst case, its baseline and its status."""
    results = context.results
    blocks: list[Block] = [
        Prose(
            "Each figure is a median over victims and seeds, with its confidence interval in brackets. “Most leaked” "
            "is the single worst case. “Guessing” is what one would score with no update at all: a figure near it "
            "shows no leakage. “> 30 dB” is the share of examples rebuilt above that quality; at 20 dB a picture is "
            "recognisable, at 30 dB it is clear, at 40 dB it is practically the original."
        )
    ]
    head = ["protocol", "attack", "metric", "median", "most leaked", "guessing", "> 20 dB", "> 30 dB", "> 40 dB",
            "labels right", "n"]  # fmt: skip
    for setting in results.settings:
        rows: list[list[object]] = []
        for protocol in results.protocols:
            rows += _leakage_rows(context, protocol, setting)
        title = setting_name(setting)
        blocks.append(Table(f"Leakage{f' on {title}' if title else ''}", head, rows, tuple(head[3:])))
    return Section("leakage", "Leakage in figures", blocks)


def _leakage_rows(context: Context, protocol: str, setting: Setting) -> list[list[object]]:
    """One row a summary entry; where an attack gave none, one row that says why."""
    results, rows = context.results, []
    for (name, round), records in results.attacks_of(protocol, setting).items():
        attack = Cell(f"{name} @ {records[0].get('rung')}", f"round {round}")
        entries = [
            s for s in results.summary_of(protocol, setting) if (s.get("attack"), s.get("round")) == (name, round)
        ]
        reason = why_empty(results, protocol, setting, records)
        doubt = "the attack lost its own sanity case" if any(r.get("sanity") is False for r in records) else ""
        diverged = sum(int(v.get("diverged") or 0) for r in records for v in r.get("victims") or [])
        doubt = doubt or (f"{counted(diverged, 'restart')} diverged" if diverged else "")
        labels = Cell(*_labels(records))
        for entry in entries if any(finite(e.get("median")) is not None for e in entries) else []:
            metric, fractions = str(entry.get("metric")), entry.get("fractions") or {}
            unit = f", {entry['unit']}" if entry.get("unit") else ""
            rows.append(
                [
                    context.swatch(protocol),
                    Cell(attack.text, "; ".join(filter(None, [attack.note, reason, doubt]))),
                    f"{METRICS.get(metric, metric.replace('_', ' '))}{unit}",
                    interval(metric, entry),
                    measure(metric, entry.get("worst")),
                    Cell(measure(metric, entry.get("baseline")), str(entry.get("baseline_name") or "")),
                    *(share(fractions.get(level)) for level in ("20", "30", "40")),
                    labels,
                    number(entry.get("n")),
                ]
            )
            labels = Cell("")
        if labels.text != "" and not (reason == "" and rows):
            rows.append([context.swatch(protocol), attack, Cell(reason or "no figure", span=9)])
    cells = results.cells_of(protocol, setting)
    if not rows and cells:
        rows.append([context.swatch(protocol), MISSING, Cell(why_empty(results, protocol, setting, []), span=9)])
    return rows


def _labels(records: list[Json]) -> tuple[str, str]:
    """Share of labels right over victims, and what the majority guess gives."""
    victims = [victim for record in records for victim in record.get("victims") or []]
    right = mean(finite(victim.get("labels_right")) for victim in victims)
    guess = mean(finite((victim.get("baseline") or {}).get("label_majority")) for victim in victims)
    return share(right), "" if guess is None else f"guessing {share(guess)}"


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
                    "axis. Below: accuracy after the last round, with its range over seeds.",
                )
            )
        curves = {p: results.curves_of(p, setting, "accuracy") for p in results.protocols}
        curves = {p: curve for p, curve in curves.items() if curve}
        if any(len(curve) > 1 for curve in curves.values()):
            told = "; ".join(f"{p} ends at {share(mean(c[max(c)]))}" for p, c in curves.items())
            drawings.append(
                context.plot(
                    f"accuracy-{i + 1}",
                    lambda c=curves: plots.accuracy_per_round(c, context.marks, None),
                    f"Accuracy per round. {told}.",
                    "Mean over seeds; the band is the range over seeds. Round 0 is the untrained model.",
                )
            )
        if drawings:
            blocks += [Heading(title.capitalize())] if title else []
            blocks.append(Row(drawings))
    return Section("utility", "Leakage against utility", blocks or [Prose("There is nothing to plot in this run.")])


def _psnr(results: Results, setting: Setting) -> list[Json]:
    return [s for s in results.summary if results.setting_of(s) == setting and s.get("metric") in ("psnr", None)]


def _point(results: Results, protocol: str, setting: Setting) -> plots.Point:
    """A protocol's place in the plot; a first round is enough where an attack ran in several."""
    spans: dict[str, tuple[float, float, float]] = {}
    for entry in _psnr(results, setting):
        middle = finite(entry.get("median"))
        if results.protocol_of(entry) == protocol and middle is not None:
            low, high = finite(entry.get("low")), finite(entry.get("high"))
            name = f"{entry.get('attack')}, round {entry.get('round')}"
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
        + ", ".join(f"{name} {middle:.1f} dB" for name, (_, middle, _) in point.leakage.items())
        + (f", accuracy {share(point.accuracy[1])}" if point.accuracy else "")
        for point in points
    ]
    return "Leakage and accuracy against noise. " + "; ".join(parts) + "."
