"""The document's section on crafted models: what each yields, beside what clients could see of it and what they did."""

from collections.abc import Iterable

from fedsim.report.blocks import Block, Cell, Folded, Prose, Section, Table
from fedsim.report.reading import Json, Setting, setting_name, unique
from fedsim.report.sections import Context, judgement
from fedsim.report.wording import MISSING, finite, number, share
from fedsim.words import counted

SIGNALS = {
    "model_hash": "another model than other clients",
    "architecture": "another architecture than agreed",
    "parallel_rows": "rows that point the same way",
    "dead_rows": "rows without a gradient",
    "scarce_rows": "rows that one example moves",
    "gradient_snr": "one example that drowns all others",
}
"""What a client sees when a signal is suspicious."""


def detection(context: Context) -> Section | None:
    """Attack, detector, and attack against detector; None for a run in which no client looked at its model."""
    results = context.results
    if not any(map(_found, results.cells)):
        return None
    seen = [(p, its) for p, its in results.combinations if any(_found(c) or _told(c) for c in results.cells_of(p, its))]
    blocks: list[Block] = [
        Prose(
            "Clients measured what they were sent, each on its own examples and beside a model that it trusts: a fresh "
            "one of the agreed kind. A signal is suspicious where it is beyond its threshold and more than twice what "
            "the trusted model shows. What clients could see is told whether or not they had checks; only under a "
            "protocol with checks did they refuse. An attack that no signal betrays is not thereby invisible: these "
            "are the signals that were looked for."
        )
    ]
    head = ["protocol", "what was rebuilt", "suspicious to clients", "not suspicious", "what came of it"]
    for setting in unique(its for _, its in seen):
        name = setting_name(setting)
        rows = [_row(context, protocol, its) for protocol, its in seen if its == setting]
        blocks.append(Table(f"Attack beside detection{f' on {name}' if name else ''}", head, rows, tone="words cards"))
    details = [line for protocol, its in seen for line in _details(context, protocol, its)]
    columns = ["where", "signal", "measured", "trusted model", "threshold", "clients alarmed", "in words"]
    blocks.append(Folded("Every signal, measured", [Table("Signals", columns, details, columns[2:6], "words")]))
    return Section("detection", "Crafted models, and what clients could see", blocks)


def _found(cell: Json) -> list[Json]:
    return list(cell.get("detection") or [])


def _told(cell: Json) -> list[str]:
    """What came of what the server did, round by round."""
    return [str(row["lie"]) for row in cell.get("training") or [] if row.get("lie")]


def noticed(cells: Iterable[Json]) -> str:
    """The signals that alarmed a client, with how many clients each alarmed; empty where none did."""
    rows = [row for cell in cells for row in _found(cell)]
    alarms = {name: _alarmed([row for row in rows if row["signal"] == name]) for name in SIGNALS}
    return "; ".join(f"{SIGNALS[name]} ({said})" for name, (some, said) in alarms.items() if some)


def _row(context: Context, protocol: str, setting: Setting) -> list[object]:
    results = context.results
    cells = results.cells_of(protocol, setting)
    rows = [row for cell in cells for row in _found(cell)]
    alarms = {name: _alarmed([row for row in rows if row["signal"] == name]) for name in SIGNALS}
    quiet = [SIGNALS[name] for name, (some, said) in alarms.items() if not some and said]
    told = unique(text for cell in cells for text in _told(cell))
    return [
        context.swatch(protocol),
        Cell(judgement(results, protocol, setting), _yield(results.attempts_of(protocol, setting))),
        noticed(cells) or ("nothing" if rows else "no client got as far as to be sent the model"),
        "; ".join(quiet) or MISSING,
        "; ".join(unique(text.split(":")[0] for text in told)) or "the model was as agreed",
    ]


def _alarmed(rows: list[Json]) -> tuple[int, str]:
    """How many clients were alarmed by one signal, over seeds and rounds, and that in words."""
    alarmed, clients = sum(int(row["alarmed"]) for row in rows), sum(int(row["clients"]) for row in rows)
    return alarmed, f"{alarmed} of {clients}" if clients else ""


def _yield(attempts: list[Json]) -> str:
    """What the attack that rebuilt most got."""
    tried = [entry for entry in attempts if "recovered" in entry]
    if not tried:
        return "no attack had an update to work on"
    best = max(tried, key=lambda entry: finite(entry["recovered"]) or 0.0)
    return f"{share(best['recovered'])} by {best['attack']} ({best['rebuilt']:,} of {counted(best['n'], 'example')})"


def _details(context: Context, protocol: str, setting: Setting) -> list[list[object]]:
    """One row a signal: the seed in which it was largest."""
    rows = [row for cell in context.results.cells_of(protocol, setting) for row in _found(cell)]
    where, lines = ", ".join(filter(None, [setting_name(setting), protocol])), list[list[object]]()
    for name in SIGNALS:
        mine = [row for row in rows if row["signal"] == name]
        if mine:
            most = max(mine, key=lambda row: (row["alarmed"], finite(row["value"]) or 0.0))
            figures = [number(most[key]) for key in ("value", "trusted", "threshold")]
            lines.append([where, name.replace("_", " "), *figures, _alarmed(mine)[1], most["says"] or MISSING])
    return lines
