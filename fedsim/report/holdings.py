"""The document's section on what is at stake: assets, where each lies, what this run found of it, and whose it is."""

from fedsim.report.blocks import Prose, Section, Table
from fedsim.report.reading import Results, setting_name, unique
from fedsim.report.sections import Context, is_broken, what_was_read
from fedsim.report.standards import goal_of
from fedsim.words import listed

NAMES = {
    "membership": "membership: whose records were used",
    "attribute": "a sensitive column of a record known otherwise",
    "property": "properties of a client's records as a whole",
    "source": "which client a record came from",
    "classes": "what a class looks like to the model",
    "model": "the model itself",
}
"""What attacks that answer questions about given targets are after, by the goal's key in ``GOALS``."""


def assets(context: Context) -> Section:
    """Assets in order of harm, and the people behind them."""
    results = context.results
    reads: dict[str, list[str]] = {}
    for cell in results.cells:
        if said := (cell.get("protection") or {}).get("reads"):
            reads.setdefault(str(said), []).append(results.protocol_of(cell))
    readers = "\n".join(f"{listed(unique(names))}: {said}" for said, names in reads.items())
    asked = {key: names for key in NAMES if (names := _asked(results, key))}
    inferred: list[list[object]] = [
        [NAMES[key], "in the model and in each update", f"asked for by {listed(names)}"] for key, names in asked.items()
    ]
    if silent := [NAMES[key] for key in NAMES if key not in asked]:
        inferred.append(["; ".join(silent), "in the model and in each update", "not tested: no such attack was run"])
    rows: list[list[object]] = [
        ["a client's records, pictures or texts", "with the client alone", _rebuilt(results)],
        ["labels, sensitive columns, words, secrets", "with the client alone", _read(results)],
        *inferred,
        ["one client's update", "with the client, then as the protocol has it", readers or "not stated"],
        ["masks and keys", "with their holders; see the way of an update", "see the evidence in the last sections"],
        ["what travels beside an update", "in each message, in clear", _beside(results)],
    ]
    notes = unique(
        f"{setting_name(results.setting_of(cell))}: {cell['data']}".removeprefix(": ")
        for cell in results.cells
        if cell.get("data")
    )
    source = (
        f"The data of this review: {' '.join(notes)}" if notes else "The run does not say where its data come from."
    )
    return Section(
        "assets",
        "Assets and data subjects",
        [
            Table("What is at stake", ["asset", "where it is", "what this run found"], rows, tone="words cards"),
            Prose(source),
            Prose(
                "Data subjects are the people whom the deployed system's records are about. Who they are, how many, "
                "and whether children, patients or employees are among them, the controller has to add: a simulation "
                "does not know it.",
                "note",
            ),
        ],
    )


def _rebuilt(results: Results) -> str:
    broken = unique(results.protocol_of(entry) for entry in results.summary if is_broken(entry))
    rest = [protocol for protocol in results.protocols if protocol not in broken]
    said = [f"rebuilt under {listed(broken)}"] if broken else []
    return (
        "; ".join([*said, *([f"not rebuilt by what was run under {listed(rest)}"] if rest else [])])
        or "nothing was run"
    )


def _read(results: Results) -> str:
    found: dict[str, list[str]] = {}
    for entry in results.summary:
        for what in what_was_read(entry):
            found.setdefault(what, []).append(results.protocol_of(entry))
    return "; ".join(f"{what} read under {listed(unique(p))}" for what, p in found.items()) or "not shown to be read"


def _asked(results: Results, key: str) -> list[str]:
    return unique(str(r.get("name")) for r in results.attempted if goal_of(str(r.get("name"))) == key)


def _beside(results: Results) -> str:
    names = unique(str(channel.get("name")) for cell in results.cells for channel in cell.get("side_channels") or [])
    return listed(names) or "nothing seen"
