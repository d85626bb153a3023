"""The document's sections after the figures: guarantees, side channels, cost, gaps, limits, and how to repeat it."""

import json
import math
from collections.abc import Sequence
from typing import Any

from fedsim.bounds import most_advantage, mu_of
from fedsim.report.blocks import Block, Bullets, Cell, Code, Folded, Prose, Section, Table
from fedsim.report.bounded import bounded_blocks
from fedsim.report.canaries import canary_blocks
from fedsim.report.reading import Json, Setting, cell_name, mean, setting_name, unique
from fedsim.report.sections import Context
from fedsim.report.wording import MISSING, at_most, finite, number, plain, share, size
from fedsim.words import counted, listed

STATEMENT = (
    ("epsilon", "epsilon over the whole run"),
    ("epsilon_rdp", "the same by RDP, as a check"),
    ("epsilon_one_release", "epsilon of a single update"),
    ("epsilon_replace_one", "epsilon, replacing one by another"),
    ("delta", "delta"),
    ("unit", "who or what is protected"),
    ("relation", "neighbouring data sets differ by"),
    ("sampling", "sampling really used"),
    ("rounds", "rounds"),
    ("participations", "rounds that one client took part in"),
    ("releases", "noised updates that one unit touches"),
    ("noise_multiplier", "noise multiplier"),
    ("clip", "clipping norm"),
    ("observer", "against whom"),
    ("trust", "who is trusted to add the noise"),
    ("accountant", "accountant"),
    ("amplification", "amplification claimed"),
    ("not_covered", "not covered"),
    ("cautions", "cautions"),
)


SHORT = 24
"""Characters of a value that stands in each column; a longer one that all share is told once across them."""


def privacy(context: Context) -> Section:
    """Every epsilon with the statement it belongs to: fields down, protocols across."""
    results = context.results
    found: dict[str, Json] = {}
    for protocol in results.protocols:
        stated = {setting_name(s): said for s in results.settings if (said := results.privacy_of(protocol, s))}
        first = next(iter(stated.values()), None)
        if all(said == first for said in stated.values()):
            found |= {protocol: first} if first else {}
        else:
            found |= {f"{protocol}, {name}": said for name, said in stated.items()}
    if not found:
        noisy = any(results.noise_of(*combination) for combination in results.combinations)
        why = "No run of a protocol that adds noise finished" if noisy else "No protocol of this run adds noise"
        return Section("epsilon", "Differential privacy", [Prose(f"{why}: no epsilon holds.")])
    fields = [(key, words) for key, words in STATEMENT if any(key in statement for statement in found.values())]
    known = {key for key, _ in STATEMENT} | {"observers"}
    fields += [(key, key.replace("_", " ")) for key in sorted({k for s in found.values() for k in s} - known)]
    rows: list[list[object]] = []
    for key, words in fields:
        values = [_stated(key, statement.get(key)) for statement in found.values()]
        shared = len(set(values)) == 1 and len(values) > 1 and len(values[0]) > SHORT
        rows.append([words, Cell(values[0], span=len(values))] if shared else [words, *values])
    if most := [_most(statement) for statement in found.values()]:
        rows.append(["no membership attack has a larger advantage", *most])
    noised = {protocol for protocol, setting in results.combinations if results.privacy_of(protocol, setting)}
    without = [f"“{protocol}”" for protocol in results.protocols if protocol not in noised]
    if any(results.privacy_differs(*combination) for combination in results.combinations):
        rows.append(
            [
                "over the seeds",
                Cell("how often a client took part hangs on the seed; the largest epsilon is stated", span=len(found)),
            ]
        )
    blocks: list[Block] = [
        Table("The statement behind each epsilon", ["", *found], rows, tone="words"),
        Prose(
            "Epsilon bounds what any attack could learn, however strong, on the assumptions in the table. The leakage "
            "figures above are what particular attacks did learn. The one is an upper bound, the other a lower bound. "
            "An epsilon above 10 bounds next to nothing, even where no attack here succeeded.",
        ),
    ]
    blocks += [
        _observers(protocol, statement["observers"])
        for protocol, statement in found.items()
        if statement.get("observers")
    ]
    blocks += bounded_blocks(context)
    measured = canary_blocks(context)
    blocks += measured or [
        Prose(
            "This run measured no lower bound on an epsilon. Canaries do so unasked where it takes seconds, and "
            "wherever the scenario says audit=True.",
            "note",
        )
    ]
    if without:
        blocks.append(Prose(f"No epsilon holds for {listed(without)}.", "note"))
    return Section("epsilon", "Differential privacy", blocks)


def _stated(key: str, value: Any) -> str:
    """One field of a statement; what is several sentences, a line each."""
    if key.startswith("epsilon"):
        return at_most(value)
    return "\n".join(map(plain, value)) if isinstance(value, (list, tuple)) else plain(value)


def _most(statement: Json) -> str:
    """The most that true positives can exceed false ones by, for any attack on a Gaussian mechanism's releases."""
    noise, releases = finite(statement.get("noise_multiplier")), finite(statement.get("releases"))
    if not noise or noise < 0 or not releases or releases < 0 or math.isinf(noise) or math.isinf(releases):
        return MISSING
    return share(most_advantage(mu_of(noise, int(releases))))


def _observers(protocol: str, seen: Sequence[Json]) -> Table:
    """Epsilon by who looks, where the protocol opens sums alone."""
    head = ["observer", "sees", "clients whose noise counts", "epsilon", "assumes"]
    rows: list[list[object]] = [
        [plain(o["observer"]), plain(o["sees"]), number(o["noise_of"]), at_most(o["epsilon"]), plain(o["assumes"])]
        for o in seen
    ]
    return Table(f"Epsilon under {protocol}, by observer", head, rows, tuple(head[2:4]), "words cards")


def side_channels(context: Context) -> Section:
    """What travelled beside the update, in the clear, and what it tells."""
    results = context.results
    seen: dict[tuple[str, str, str], tuple[Any, list[str]]] = {}
    for cell in results.cells:
        for channel in cell.get("side_channels") or []:
            key = (str(channel.get("name")), str(channel.get("where")), str(channel.get("says") or ""))
            seen.setdefault(key, (channel.get("example"), []))[1].append(results.protocol_of(cell))
    if not seen:
        return Section("side-channels", "Beside the update", [Prose("Nothing travelled beside the updates.")])
    rows = []
    for (name, where, says), (example, protocols) in seen.items():
        among = unique(protocols)
        under = "all" if len(among) == len(results.protocols) else listed(among)
        rows.append([name, where, plain(example), says, under])
    return Section(
        "side-channels",
        "Beside the update",
        [
            Prose("These travelled next to the update, and a defence of the update does not cover them."),
            Table(
                "Side channels",
                ["name", "part of the message", "for example", "what it tells", "protocols"],
                rows,
                ("for example",),
                "words cards",
            ),
        ],
    )


def cost(context: Context) -> Section:
    """Bytes on the wire, accuracy lost against the first protocol, and drop-outs survived."""
    results = context.results
    head = ["protocol", "sent up", "times the first", "sent down", "accuracy", "change", "drop-outs survived"]
    tables: list[Block] = []
    for setting in results.settings:
        rows = [_cost_row(context, protocol, its) for protocol, its in results.combinations if its == setting]
        on = f" on {setting_name(setting)}" if setting_name(setting) else ""
        tables.append(Table(f"Cost for each client and round, and in accuracy{on}", head, rows, head[1:-1]))
    if not tables:
        return Section("cost", "Cost", [Prose("Nothing was run, so there is no cost to state.")])
    time = "Time differs from run to run: the CPU seconds of clients and server stand in the last sections, under "
    return Section("cost", "Cost", [*tables, Prose(f"{time}“Protocols side by side”.", "note")])


def _cost_row(context: Context, protocol: str, setting: Setting) -> list[object]:
    results = context.results
    first = results.protocols[0]
    up, down, base = (
        _cost(context, name, setting, f"bytes_{way}_per_client_round")
        for name, way in ((protocol, "up"), (protocol, "down"), (first, "up"))
    )
    reached, reference = mean(results.accuracy_of(protocol, setting)), mean(results.accuracy_of(first, setting))
    factor = f"× {number(up / base)}" if up is not None and base else MISSING
    change = MISSING
    if reached is not None and reference is not None and protocol != first:
        change = f"{100 * (reached - reference):+.1f} points".replace("-", "−")
    promises = [c["protection"] for c in results.cells_of(protocol, setting) if c.get("protection")]
    survives = listed(unique(str(p["survives"]) for p in promises if p.get("survives"))) or MISSING
    accuracy = MISSING if reached is None else f"{100 * reached:.1f} %"
    return [context.swatch(protocol), size(up), factor, size(down), accuracy, change, survives]


def _cost(context: Context, protocol: str, setting: Setting, key: str) -> float | None:
    cells = context.results.cells_of(protocol, setting)
    return mean(finite((cell.get("cost") or {}).get(key)) for cell in cells)


def limits(context: Context) -> Section:
    """How far the result carries."""
    problems = [line for cell in context.results.cells for line in _problems(cell)]
    blocks: list[Block] = [
        Prose("A failure to attack is not privacy.", "lead"),
        Bullets(
            [
                "Every figure is a lower bound: it says what these attacks got, and a better attack gets more.",
                "A row marked inconclusive, diverged or not applicable says nothing about protection.",
                "The federation was simulated: real deployments add logs, backups, metrics and people.",
                "Intervals cover the victims and seeds of this run, not other data.",
                "Review again when the model, the data, the cohort or the state of the art changes.",
            ]
        ),
    ]
    if problems:
        blocks.append(Folded(f"{counted(len(problems), 'problem')} in this run", [Bullets(problems)]))
    return Section("limits", "Limits", blocks)


def _problems(cell: Json) -> list[str]:
    """What went wrong in one cell: its own failure, clients that could not be used, attacks that broke."""
    lines = [str(cell["cause"])] if cell.get("cause") else []
    for row in cell.get("training") or []:
        refused = "stopped by" in str(row.get("lie"))  # who refuses a lie does right
        failed = [] if refused else sorted((row.get("failed") or {}).items())
        lines += [f"round {row.get('round')}, client {client}: {reason}" for client, reason in failed]
    lines += [f"{a.get('name')}: {a.get('reason')}" for a in cell.get("attacks") or [] if a.get("status") == "failed"]
    return [f"{cell_name(cell)}: {line}" for line in lines]


def reproduce(context: Context) -> Section:
    """How to get the same report again."""
    raw, scenario = context.results.raw, context.results.scenario
    commands = (raw.get("environment") or {}).get("commands")
    notes = unique(
        (setting_name(context.results.setting_of(c)), c["data"]) for c in context.results.cells if c.get("data")
    )
    known = [c for c in context.results.cells if c.get("fingerprint")]
    named = unique((setting_name(context.results.setting_of(c)), c.get("seed"), c["fingerprint"]) for c in known)
    prints = "\n".join(f"{f'{where}, ' if where else ''}seed {seed}: {found}" for where, seed, found in named)
    facts = [
        *([f"data: {where}" if where else "data", str(note)] for where, note in notes),
        *([["SHA-256 of data, division and first model", prints]] if prints else []),
        ["digest of the scenario", str(raw.get("digest") or MISSING)],
        ["seeds", plain(scenario.get("seeds"))],
        ["schema of results.json", plain(raw.get("schema_version"))],
    ]
    text = json.dumps(scenario, indent=2, sort_keys=True, ensure_ascii=False, default=str)
    return Section(
        "reproduce",
        "How to repeat it",
        [
            Code("\n".join(commands), "Command")
            if commands
            else Prose("No command was stored with this run: pass the scenario below to fedsim.run in Python."),
            Table("Identity of this run", ["", "value"], facts, tone="narrow words"),
            Prose("Versions, date and machine differ from run to run, and stand in the last section.", "note"),
            Folded("The whole scenario, as JSON", [Code(text, "Scenario as JSON")]),
        ],
    )
