"""The table that a run ends with on the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedsim.report.reading import Json, Results, Setting, mean, setting_name
from fedsim.report.wording import MISSING, epsilon, finite, interval, measure, share, size


def print_summary(results: Mapping[str, Any], console: Console, report: Path | None = None) -> None:
    """Print one row a protocol and attack, then, as the last line, where the report lies."""
    read = Results(results)
    several = len(read.settings) > 1
    table = Table(title=Text(str(read.scenario.get("name") or "")), title_justify="left", header_style="bold", box=None)
    for title in ("protocol", *(["setting"] if several else []), "attack@rung"):
        table.add_column(title, overflow="fold")
    for title in ("PSNR dB [CI] (guessing)", "> 30 dB", "labels", "accuracy", "epsilon", "up/client"):
        table.add_column(title, justify="right")
    for setting in read.settings:
        for protocol in read.protocols:
            attacks = read.attacks_of(protocol, setting)
            for (name, round), records in attacks.items():
                label = f"{name}@{records[0].get('rung')}" + (f" r{round}" if _rounds(attacks, name) > 1 else "")
                cells = [protocol, *([setting_name(setting)] if several else []), label]
                cells += [*_figures(read, protocol, setting, name, round, records), *_rest(read, protocol, setting)]
                table.add_row(*map(Text, cells))
            if not attacks and read.cells_of(protocol, setting):
                cause = next((c.get("cause") for c in read.cells_of(protocol, setting) if c.get("cause")), "no attack")
                cells = [protocol, *([setting_name(setting)] if several else []), f"failed: {cause}"]
                table.add_row(*map(Text, cells))
    console.print(table)
    if report is not None:
        console.print(Text(f"report: {report}"), soft_wrap=True)


def _rounds(attacks: Mapping[tuple[str, Any], list[Json]], name: str) -> int:
    return sum(attack == name for attack, _ in attacks)


def _figures(
    read: Results, protocol: str, setting: Setting, name: str, round: Any, records: list[Json]
) -> tuple[str, str, str]:
    """Median with interval and baseline, share above 30 dB, labels right; or the status in their place."""
    entry = next(
        (
            s
            for s in read.summary_of(protocol, setting)
            if (s.get("attack"), s.get("round")) == (name, round) and finite(s.get("median")) is not None
        ),
        None,
    )
    victims = [victim for record in records for victim in record.get("victims") or []]
    labels = share(mean(finite(victim.get("labels_right")) for victim in victims))
    statuses = {str(record.get("status")) for record in records} - {"done"}
    if entry is None:
        return ", ".join(sorted(statuses)).replace("_", " ") or "no figure", MISSING, labels
    metric = str(entry.get("metric"))
    text = f"{interval(metric, entry)} ({measure(metric, entry.get('baseline'))})"
    doubt = f" {', '.join(sorted(statuses))}".replace("_", " ") if statuses else ""
    return text + doubt, share((entry.get("fractions") or {}).get("30")), labels


def _rest(read: Results, protocol: str, setting: Setting) -> tuple[str, str, str]:
    """Accuracy, epsilon and bytes of a combination."""
    cells = read.cells_of(protocol, setting)
    up = mean(finite((cell.get("cost") or {}).get("bytes_up_per_client_round")) for cell in cells)
    return share(mean(read.accuracy_of(protocol, setting))), epsilon(read.privacy_of(protocol, setting)), size(up)
