"""The tables that commands end with on the terminal: of a run, and of what changed between two."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from attacks.monitor import SIGNALS
from fedsim.difference import ALONE, CHANGED, LEVEL, SAME, Changed, Difference
from fedsim.report.inferences import headline, rows_of
from fedsim.report.reading import Json, Results, Setting, label_guess, mean, setting_name, words_told
from fedsim.report.wording import MISSING, epsilon, finite, interval, measure, number, share, shown, size, unclaimed
from fedsim.watching import Watched
from fedsim.words import counted


def print_summary(results: Mapping[str, Any], console: Console, report: Path | None = None) -> None:
    """Print a table for each setting, one row a protocol and attack; then, as the last line, where the report lies."""
    read = Results(results)
    for setting in read.settings:
        title = " on ".join(filter(None, [str(read.scenario.get("name") or "results"), setting_name(setting)]))
        table = Table(title=Text(title, style="bold"), title_justify="left", box=None, padding=(0, 1, 0, 0))
        for head in ("protocol", "attack"):
            table.add_column(head, overflow="fold")
        for head in ("median (guess)", ">30dB", "labels (guess)", "acc.", "epsilon", "up"):
            table.add_column(head, justify="right")
        for protocol, its in read.combinations:
            if its == setting:
                for row in _rows(read, protocol, setting):
                    table.add_row(*map(Text, row))
        console.print(table)
        console.print()
    if report is not None:
        console.print(Text(f"report: {report}"), soft_wrap=True)


def print_suspects(seen: Mapping[str, Watched], console: Console) -> None:
    """One row a caller: its signals, thresholds, alarms and refusals; then how often an honest one's signals sound."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("caller", *SIGNALS, "alarm", "refused"):
        table.add_column(head.replace("_", " "), overflow="fold")
    for caller, own in seen.items():
        signals = [
            number(own.signals[name]) + (f" (alarm above {number(own.thresholds[name])})" if own.thresholds else "")
            for name in SIGNALS
        ]
        raised = ", ".join(own.alarms).replace("_", " ") or MISSING
        refused = f"{counted(own.refused or 0, 'input')} in {counted(own.refusals or 0, 'request')}"
        table.add_row(*map(Text, (caller, *signals, raised, refused if own.refusals else MISSING)))
    console.print(table)
    for own in list(seen.values())[:1]:
        rate = f"{share(own.false_alarm_rate)} [{share(own.false_alarm_low)}, {share(own.false_alarm_high)}]"
        console.print(Text(own.lacking or f"honest callers on whom any alarm sounds: {rate}"))


def _rows(read: Results, protocol: str, setting: Setting) -> list[list[str]]:
    """One row an attack; what belongs to the protocol stands in its first row alone."""
    cells = read.cells_of(protocol, setting)
    up = mean(finite((cell.get("cost") or {}).get("bytes_up_per_client_round")) for cell in cells)
    privacy = read.privacy_of(protocol, setting)
    own = [share(mean(read.accuracy_of(protocol, setting))), epsilon(privacy) if privacy else MISSING, size(up)]
    rows = [
        [
            f"{name}\n@{records[0].get('rung')}, round {round}",
            *_figures(read, protocol, setting, (name, round), records),
        ]
        for (name, round), records in read.attacks_of(protocol, setting).items()
        if records[0].get("rung") != "L0"
    ]
    rows += [_told(row) for row in rows_of(read, protocol, setting)]
    rows = rows or [[read.lost(protocol, setting) or "no attack", MISSING, MISSING, MISSING]]
    return [[protocol, *rows[0], *own], *(["", *row, "", "", ""] for row in rows[1:])]


def _told(row: Json) -> list[str]:
    """One inference: its figure with what is had without it, or why there is none."""
    figure = headline(row)
    value, guess = finite(figure.get("value")), finite(figure.get("guess"))
    statuses = ", ".join(row["statuses"]).replace("_", " ")
    beside = "" if guess is None else f"\n({guess:.2f})"
    said = statuses if value is None else f"{row['headline']} {value:.2f}{beside}"
    return [f"{row['attack']}\n@{row['rung']}, round {row['round']}", said, MISSING, MISSING]


def _figures(read: Results, protocol: str, setting: Setting, which: tuple[str, Any], records: list[Json]) -> list[str]:
    """Median with baseline and interval, share above 30 dB, labels right; or the status in their place.

    Where an attack claimed nothing of some targets, the worst case and the count stand with them.
    """
    victims = [victim for record in records for victim in record.get("victims") or []]
    labels = share(mean(finite(victim.get("labels_right")) for victim in victims))
    if labels != MISSING:
        told = any("labels" in (record.get("knowledge") or []) for record in records)
        labels = "told" if told else f"{labels}\n({share(label_guess(victims))})"
    doubt = "\n".join(sorted({str(record.get("status")).replace("_", " ") for record in records} - {"done"}))
    for entry in read.summary_of(protocol, setting):
        if (entry.get("attack"), entry.get("round")) == which and shown(entry):
            metric = str(entry.get("metric"))
            middle, _, bounds = interval(metric, entry).partition(" [")
            worst = f"at most {measure(metric, entry.get('worst'))}" if unclaimed(entry) else ""
            rebuilt = f"{entry['rebuilt']} of {entry['n']} rebuilt" if unclaimed(entry) and entry.get("n") else ""
            head = f"{middle} ({measure(metric, entry.get('baseline'))})"
            text = "\n".join(filter(None, [head, bounds and f"[{bounds}", worst, rebuilt, doubt]))
            return [text, share((entry.get("fractions") or {}).get("30")), labels]
    if known := words_told(records):
        words = f"words {share(known[0])} ({share(known[2])})"
        return ["\n".join(filter(None, [words, doubt])), MISSING, labels]
    return [doubt or ("no figure" if labels == MISSING else "labels only"), MISSING, labels]


def print_difference(found: Difference, console: Console) -> None:
    """Print what differs between two runs, conclusions first; figures that are the same in both are counted alone."""
    _changes("Verdicts", found.verdicts, console)
    _changes("Defences not shown to have been on", found.evidence, console, "none")
    _changes("Cells that did not finish", found.unfinished, console, "none")
    _changes("Scenario", found.scenario, console)
    _changes("Surroundings", found.surroundings, console)
    table = Table(title="Figures", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for head in ("setting", "figure", "A", "B", "p", "reading"):
        table.add_column(head, overflow="fold")
    differing = [figure for figure in found.figures if figure.reading not in (SAME, ALONE)]
    for figure in differing:
        values = [MISSING if value is None else f"{value:.4g} {figure.unit}" for value in (figure.a, figure.b)]
        chance = MISSING if figure.p is None else f"{figure.p:.3f}"
        table.add_row(*map(Text, (figure.setting, figure.what, *values, chance, figure.reading)))
    if differing:
        console.print(table)
    if found.tested:
        called = sum(figure.reading == CHANGED for figure in found.tested)
        console.print(
            f"{called} of {counted(len(found.tested), 'figure')} tested changed at the {LEVEL:.0%} level; chance alone "
            f"would call about {LEVEL * len(found.tested):.1f} of so many changed, and more where examples depend on "
            "one another, as those of one client do"
        )
    for reading, words in ((SAME, "the same in both"), (ALONE, "in one run only")):
        count = sum(figure.reading == reading for figure in found.figures)
        console.print(f"{count} of {len(found.figures)} figures are {words}")


def _changes(title: str, changes: Sequence[Changed], console: Console, nothing: str = "the same") -> None:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for head in ("what", "A", "B"):
        table.add_column(head, overflow="fold")
    for change in changes:
        table.add_row(*(Text(MISSING if value is None else str(value)) for value in (change.what, change.a, change.b)))
    console.print(table if changes else f"{title}: {nothing}")
