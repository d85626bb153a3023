"""The document's section on what is left: residual risk by protocol, who would notice, and what it rests on."""

from fedsim.report.aims import aims
from fedsim.report.blocks import Block, Cell, Chip, Prose, Section, Table
from fedsim.report.crafted import noticed
from fedsim.report.inferences import of_model, rows_of, what_was_told
from fedsim.report.matrix import doubt
from fedsim.report.proven import shown_on
from fedsim.report.reading import Results, Setting, setting_name, unique
from fedsim.report.sections import (
    Context,
    how_read,
    is_broken,
    judgement,
    lowest_broken,
)
from fedsim.report.trusted import must_trust
from fedsim.report.wording import at_most, bounds_little
from fedsim.words import listed

PASSIVE = "nobody: reading what arrives leaves no trace at the clients"
WATCHERS = {
    "malicious_protocol": "clients, where their profile checks what the server says",
    "malicious_model": "clients, by what they are sent",
}


def residual(context: Context) -> Section:
    """One row for each protocol, a table for each setting."""
    results = context.results
    blocks: list[Block] = [
        Prose(
            "What remains under each protocol after this review. A row without a break is no clean "
            "bill: it says how hard this run tried."
        )
    ]
    head = ["protocol", "what remains", "bound by", "who would notice", "rests on"]
    for setting in results.settings:
        rows = [_row(context, protocol, its) for protocol, its in results.combinations if its == setting]
        on = f" on {setting_name(setting)}" if setting_name(setting) else ""
        blocks.append(Table(f"Residual risk{on}", head, rows, tone="words cards"))
    return Section("residual", "Residual risk and detectability", blocks)


def _row(context: Context, protocol: str, setting: Setting) -> list[object]:
    results = context.results
    privacy = results.privacy_of(protocol, setting)
    bound = f"epsilon {at_most(privacy.get('epsilon'))} for one {privacy.get('unit')}" if privacy else "no bound"
    weak = "so large that it bounds next to nothing" if privacy and bounds_little(privacy) else ""
    proof = shown_on(results, protocol, setting)
    trust = must_trust(results.stacks.get(protocol, []))
    return [
        context.swatch(protocol),
        Cell(remains(results, protocol, setting), doubt(results, protocol, setting)),
        Cell(bound, weak),
        _notices(results, protocol, setting),
        Cell(trust, "evidence that the protection was on is lacking" if proof.lacking else ""),
    ]


def remains(results: Results, protocol: str, setting: Setting) -> Chip:
    """What an attacker on the lowest rung that sufficed got, else how the attempt ended."""
    attempts = results.attempts_of(protocol, setting)
    if any(map(is_broken, attempts)):
        return Chip(f"examples rebuilt from {lowest_broken(results, protocol, setting)} on", "bad")
    if read := how_read(attempts):
        return Chip(", ".join(f"{listed(what)} {word}" for word, what in read.items()), "bad")
    if told := unique(str(row.get("asset")) for row in what_was_told(results, protocol, setting)):
        return Chip(f"{listed(told)} told", "bad")
    verdict = judgement(results, protocol, setting)
    return Chip("no break by what was run" if verdict.text == "not broken" else verdict.text, verdict.tone)


def _notices(results: Results, protocol: str, setting: Setting) -> Cell:
    """Who would notice the adversary of this combination: of what it reads of the training, and what it asks."""
    aim = aims(results, [(protocol, setting)])
    asked = _service(results, protocol, setting) if aim.model else ""
    return Cell(_clients(results, protocol, setting), asked) if aim.updates else Cell(asked)


def _service(results: Results, protocol: str, setting: Setting) -> str:
    """Whether the log of the service shows who asks the finished model."""
    rows = [row for row in rows_of(results, protocol, setting) if of_model(row)]
    if any(row.get("access") == "white_box" for row in rows):
        return "nobody: whoever holds the model asks no service"
    loud = unique(str(row.get("attack")) for row in rows if row.get("alarms"))
    if loud:
        return f"the service, where it watches its query log: an alarm at {listed(loud)}"
    return "nobody: the service's query log raised no alarm"


def _clients(results: Results, protocol: str, setting: Setting) -> str:
    """Whether clients would notice what is read or sent while they train."""
    kind = str((results.stated_of(protocol, setting).get("adversary") or {}).get("kind") or "")
    cells = results.cells_of(protocol, setting)
    if loud := noticed(cells):
        return f"clients, by {loud}"
    refused = any("stopped by" in str(row.get("lie")) for cell in cells for row in cell.get("training") or [])
    if refused:
        return "clients: some refused to go on"
    if kind in WATCHERS:
        return (
            "clients looked, and no signal was suspicious" if any(c.get("detection") for c in cells) else WATCHERS[kind]
        )
    return PASSIVE
