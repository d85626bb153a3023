"""The document's section on what was reviewed: the system in figures, the way of an update, the unit of privacy."""

from collections.abc import Mapping
from typing import Any

from fedsim.report.aims import aims
from fedsim.report.blocks import Block, Heading, Prose, Row, Section, Table
from fedsim.report.flow import Part, drawn, parts, told
from fedsim.report.reading import unique
from fedsim.report.sections import Context
from fedsim.report.served import served
from fedsim.report.wording import plain
from fedsim.words import listed

FACTS = (
    ("data", "task.dataset"),
    ("model", "task.model"),
    ("model options", "task.model_options"),
    ("spread over clients", "task.partition.kind"),
    ("algorithm", "federation.algorithm"),
    ("clients", "federation.clients"),
    ("clients asked in a round", "federation.cohort"),
    ("rounds", "federation.rounds"),
    ("examples in a batch", "federation.batch_size"),
    ("local epochs", "federation.local_epochs"),
    ("local steps", "federation.local_steps"),
    ("learning rate", "federation.learning_rate"),
    ("weighted by examples", "federation.weighted"),
    ("drop-out", "federation.dropout"),
)
"""What a reader must know of the system, and where the scenario has it."""


def scope(context: Context) -> Section:
    """System, data flow and privacy unit."""
    rows = facts(context)
    half = -(-len(rows) // 2)
    tables = [
        Table(title, ["", "value"], some, tone="narrow words")
        for title, some in (("The system", rows[:half]), ("The system, continued", rows[half:]))
        if some
    ]
    blocks: list[Block] = [Row(tables)]
    blocks += _update_blocks(context) + _model_blocks(context)
    blocks += [
        Heading("The unit of privacy"),
        Prose(unit(context)),
        Prose(
            "Outside this review: the devices, their software supply, authentication, transport encryption, logs, "
            "backups, timing, and whoever collected the data.",
            "note",
        ),
    ]
    return Section("scope", "Scope and data flow", blocks)


def _update_blocks(context: Context) -> list[Block]:
    """The way of an update, one drawing for all protocols under which it is the same."""
    results, ways = context.results, dict[tuple[Part, ...], list[str]]()
    for protocol, setting in results.combinations:
        if stated := results.stated_of(protocol, setting):
            attacked = aims(results, [(protocol, setting)]).updates
            names = ways.setdefault(parts(stated, attacked=attacked), [])
            names += [protocol] if protocol not in names else []
    bold = (
        "the party with the bold frame is the adversary of this review."
        if any(part.watched for way in ways for part in way)
        else "no attack of this review reads updates, so that no party here is its adversary."
    )
    return _drawings(context, "flow", "The way of an update", bold, ways)


def _model_blocks(context: Context) -> list[Block]:
    """The way of the finished model where an attack asks it, one drawing for all deployments that are the same."""
    results, ways = context.results, dict[tuple[Part, ...], list[str]]()
    for protocol, setting in results.combinations:
        stated = results.stated_of(protocol, setting)
        if stated and aims(results, [(protocol, setting)]).model:
            names = ways.setdefault(served(stated), [])
            mine = [label for axis, label in setting if axis.split(".")[0] == "deployment"]
            names += [name for name in mine or [protocol] if name not in names]
    bold = "the party with the bold frame attacks the finished model."
    return _drawings(context, "service", "The way of the finished model", bold, ways)


def _drawings(
    context: Context, stem: str, title: str, bold: str, ways: Mapping[tuple[Part, ...], list[str]]
) -> list[Block]:
    if not ways:
        return []
    drawings = [
        context.drawing(f"{stem}-{i + 1}", drawn(way), told(way), listed(names))
        for i, (way, names) in enumerate(ways.items())
    ]
    note = Prose(f"Read from the top. A dashed line is a trust boundary; {bold}", "note")
    return [Heading(title), note, Row(drawings, "flows")]


def facts(context: Context) -> list[list[object]]:
    """The settings of the system, in words; what is compared shows all its values."""
    results = context.results
    rows: list[list[object]] = []
    stated = [found for combination in results.combinations if (found := results.stated_of(*combination))]
    for words, path in FACTS:
        values = unique(plain(value) for each in stated or [results.scenario] for value in _at(each, path))
        if values:
            rows.append([words, f"compared: {listed(values)}" if len(values) > 1 else values[0]])
    return rows


def _at(stated: Any, path: str) -> list[Any]:
    """The value at a dotted path, where there is one that says something."""
    for key in path.split("."):
        stated = stated.get(key) if isinstance(stated, dict) else None
    return [] if stated is None or stated == {} else [stated]


def unit(context: Context) -> str:
    """Who or what a guarantee or a figure of this document is about."""
    results = context.results
    found = [s for combination in results.combinations if (s := results.privacy_of(*combination))]
    units = unique(str(statement["unit"]) for statement in found if statement.get("unit"))
    leaked = "Leakage is counted in examples: an example is one record, picture or text of a client."
    if not units:
        return f"No protocol here gives differential privacy, so none protects a unit by a bound. {leaked}"
    return (
        f"Differential privacy, where a protocol adds noise, protects one {listed(units)} (neighbouring data differ by "
        f"{listed(unique(str(s['relation']) for s in found if s.get('relation')))}). {leaked} The two are not the same "
        "unit: a bound for a client covers all of its examples at once."
    )
