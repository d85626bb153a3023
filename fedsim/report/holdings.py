"""The document's section on what is at stake: assets, where each lies, what this run found of it, and whose it is."""

from fedsim.report.blocks import Prose, Section, Table
from fedsim.report.inferences import NOT_TOLD, answered, inference_rows
from fedsim.report.reading import Results, unique
from fedsim.report.sections import Context, holds, how_read, is_broken
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
        [NAMES[key], "in the model and in each update", _told(results, names)] for key, names in asked.items()
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
        f"{dict(results.setting_of(cell)).get('task', '')}: {cell['data']}".removeprefix(": ")
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
    """Under which protocols examples were rebuilt, or were not, or nothing that rebuilds them answered or was run."""
    broken = unique(results.protocol_of(entry) for entry in results.summary if is_broken(entry))
    held = {results.protocol_of(entry) for entry in results.summary if holds(entry)}
    tried = {
        results.protocol_of(cell)
        for cell in results.cells
        for record in cell.get("attacks") or []
        if goal_of(str(record.get("name"))) == "examples" and record.get("rung") != "L0"
    }
    rest = [protocol for protocol in results.protocols if protocol not in broken]
    among = (
        ("rebuilt under", broken),
        ("not rebuilt by what was run under", [p for p in rest if p in held]),
        ("no attack that rebuilds them gave an answer under", [p for p in rest if p in tried - held]),
        ("not tested: no attack that rebuilds them was run under", [p for p in rest if p not in tried | held]),
    )
    if not broken and not held and not tried and rest:
        return "not tested: no attack that rebuilds them was run"
    return "; ".join(f"{words} {listed(names)}" for words, names in among if names) or "nothing was run"


def _read(results: Results) -> str:
    read: dict[str, list[str]] = {}
    for entry in results.summary:
        for word, things in how_read([entry]).items():
            for what in things:
                read.setdefault(f"{what} {word}", []).append(results.protocol_of(entry))
    if not any(record.get("rung") != "L0" for record in results.attacks):
        return "not tested: no attack that reads them from updates was run"
    return "; ".join(f"{what} under {listed(unique(p))}" for what, p in read.items()) or "not shown to be read"


def _told(results: Results, names: list[str]) -> str:
    """What the attacks ``names`` found, and in how many of the cases in which each was run."""
    said: list[str] = []
    for name in names:
        rows = [row for row in inference_rows(results) if row.get("attack") == name]
        got, told = list(filter(answered, rows)), [row for row in rows if row.get("told")]
        if told:
            often = f" in {len(told)} of {len(rows)} cases" if len(rows) > 1 else ""
            said.append(f"told by {name}{often}")
        else:
            said.append(f"{NOT_TOLD} by {name}" if got else f"no answer from {name}")
    return "; ".join(sorted(said, key=lambda text: not text.startswith("told")))


def _asked(results: Results, key: str) -> list[str]:
    return unique(str(r.get("name")) for r in results.attempted if goal_of(str(r.get("name"))) == key)


def _beside(results: Results) -> str:
    names = unique(str(channel.get("name")) for cell in results.cells for channel in cell.get("side_channels") or [])
    return listed(names) or "nothing seen"
