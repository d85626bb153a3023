"""Protocols side by side: what each sends, computes, gets wrong, withstands, and what larger cohorts would cost."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fedsim.report.blocks import Block, Cell, Folded, Heading, Prose, Section, Table
from fedsim.report.extrapolation import model_blocks
from fedsim.report.reading import Json, Setting, mean, setting_name, unique
from fedsim.report.sections import Context
from fedsim.report.wording import MISSING, finite, number, seconds, share, size
from fedsim.words import counted

STAGES = {
    "train": "training",
    "client_dp": "clipping and noise",
    "advertise": "keys are made known",
    "shares": "secrets are shared",
    "masked": "model down, masked update up",
    "consistency": "survivors are signed",
    "unmask": "masks are removed",
    "flower": "Flower's four stages",
    "encode": "rounding",
    "ideal": "model down, rounded update to the trusted party",
    "update": "model down, ciphertext up",
    "encrypt": "encryption",
    "decrypt": "decryption",
    "read": "checking ciphertexts",
    "add": "adding ciphertexts",
    "partial": "sum down, partial decryption up",
    "fuse": "fusing partial decryptions",
    "aggregate": "mean, and the step of the model",
    "workflow": "Flower's workflow",
}
"""Stages of all protocols, in their order, in words."""


ROWS = (
    "sent up",
    "sent down",
    "bytes up a parameter",
    "client CPU for the protocol",
    "server CPU",
    "decryptor",
    "largest error of the mean",
    "who reads what",
    "security level",
    "drop-outs survived",
    "accuracy",
)


def side_by_side(context: Context) -> Section:
    """One column a protocol; figures are means over seeds."""
    results = context.results
    blocks: list[Block] = [
        Prose(
            "Bytes are those of a client that stays for all of a round: names and values, without Flower's envelope. "
            "CPU seconds are those of one thread around the protocol's own work, as it really ran; a client's are per "
            "client and round, the server's per round. The error is the largest distance, over rounds and at most "
            "16,384 coordinates, of the mean that the protocol gave from the mean of what the same clients would have "
            "sent without it."
        )
    ]
    for setting in results.settings:
        among = [protocol for protocol, its in results.combinations if its == setting]
        title = setting_name(setting)
        on = f" on {title}" if title else ""
        columns = [_column(context, protocol, setting) for protocol in among]
        rows: list[list[object]] = [
            [words, *(column.get(words, MISSING) for column in columns)]
            for words in ROWS
            if any(words in column for column in columns)
        ]
        blocks.append(Table(f"Side by side{on}", ["", *among], rows, tone="words side"))
        stages = [row for protocol in among for row in _stages(context, protocol, setting)]
        head = ["protocol", "stage", "sent up", "sent down", "client CPU", "server CPU"]
        blocks.append(Folded(f"The same by stage{on}", [Table(f"Per client and round{on}", head, stages, head[2:])]))
    blocks += [Heading("What it should cost, here and with more clients"), *model_blocks(context)]
    return Section("protocols", "Protocols side by side", blocks)


def costs_of(context: Context, protocol: str, setting: Setting) -> list[Json]:
    """What was measured of each of a combination's cells: one per seed that finished."""
    evidence = context.results.raw.get("evidence") or {}
    cells = context.results.cells_of(protocol, setting)
    return [found for cell in cells if (found := evidence.get(str(cell.get("digest"))) or {}).get("cost")]


def _column(context: Context, protocol: str, setting: Setting) -> dict[str, object]:
    """What one protocol's column says, by the words of the row."""
    results, measured = context.results, [m["cost"] for m in costs_of(context, protocol, setting)]
    cells = results.cells_of(protocol, setting)
    wire = [cell.get("cost") or {} for cell in cells]
    promises: Json = next((cell["protection"] for cell in cells if cell.get("protection")), {})
    up, down, entries = (
        mean(finite(w.get(key)) for w in wire)
        for key in ("bytes_up_per_client_round", "bytes_down_per_client_round", "parameters")
    )
    client, server = by_stage(measured, "client_cpu_seconds"), by_stage(measured, "server_cpu_seconds")
    work = {stage: spent for stage, spent in client.items() if stage != "train"}
    decryptor = [found for m in costs_of(context, protocol, setting) if (found := _decryptor(m))]
    stand_in = any(defence.get("mode") == "ideal" for defence in results.stacks.get(protocol, []))
    column: dict[str, object] = {
        "sent up": Cell(size(up), "the trusted party's sum, over the cohort" if stand_in else ""),
        "sent down": size(down),
        "bytes up a parameter": number(up / entries) if up and entries and not stand_in else MISSING,
        "client CPU for the protocol": Cell(
            seconds(sum(work.values())) if client else MISSING,
            f"beside {seconds(client.get('train'))} of training" if client else "",
        ),
        "server CPU": seconds(sum(server.values())) if server else MISSING,
    }
    if decryptor:
        into, out, spent = (mean(values) for values in zip(*decryptor, strict=True))
        column["decryptor"] = Cell(seconds(spent), f"{size(into)} to it, {size(out)} from it, a round")
    return {
        **column,
        "largest error of the mean": number(max(_known(m.get("largest_error") for m in measured), default=None), 2),
        "who reads what": str(promises.get("reads") or MISSING),
        "security level": str(promises.get("security") or MISSING),
        "drop-outs survived": Cell(str(promises.get("survives") or MISSING), survivors(measured)),
        "accuracy": share(mean(results.accuracy_of(protocol, setting))),
    }


def _decryptor(measured: Json) -> tuple[float, float, float] | None:
    """Bytes to and from a party that decrypts beside the server, and its CPU seconds, per round."""
    party = ((measured.get("protocol") or {}).get("decryptor")) or None
    if party is None:
        return None
    rounds = measured["cost"]["rounds"]
    return party["bytes_in_per_round"], party["bytes_out_per_round"], party["cpu_seconds"] / rounds


def survivors(measured: Sequence[Json]) -> str:
    """Between how many clients the sums of this run were over, and how many rounds ended without one."""
    if not measured:
        return ""
    low, high = min(m["fewest_in_a_sum"] for m in measured), max(m["most_in_a_sum"] for m in measured)
    asked, lost = max(m["asked"] for m in measured), sum(m["rounds_without_a_sum"] for m in measured)
    stayed = "all" if low == asked else f"{low}" if low == high else f"{low} to {high}"
    return f"here {stayed} of {asked:g} stayed" + (f"; {counted(lost, 'round')} without a sum" if lost else "")


def _stages(context: Context, protocol: str, setting: Setting) -> list[list[object]]:
    measured = [m["cost"] for m in costs_of(context, protocol, setting)]
    wire = [cell.get("cost") or {} for cell in context.results.cells_of(protocol, setting)]
    up, down = by_stage(wire, "bytes_up_by_stage"), by_stage(wire, "bytes_down_by_stage")
    client, server = by_stage(measured, "client_cpu_seconds"), by_stage(measured, "server_cpu_seconds")
    order = list(STAGES)
    found = sorted(unique([*up, *down, *client, *server]), key=lambda s: order.index(s) if s in order else len(order))
    shown: tuple[tuple[Mapping[str, float], Callable[[Any], str]], ...] = (
        (up, size), (down, size), (client, seconds), (server, seconds),
    )  # fmt: skip
    return [
        [
            context.swatch(protocol),
            STAGES.get(stage, stage),
            *(say(figures[stage]) if stage in figures else "" for figures, say in shown),
        ]
        for stage in found
    ]


def by_stage(records: Iterable[Json], key: str) -> dict[str, float]:
    """The mean of a figure over records, stage by stage; a stage's prefix on the wire is left out."""
    found: dict[str, list[float]] = {}
    for record in records:
        for stage, value in (record.get(key) or {}).items():
            found.setdefault(stage.removeprefix("sa_").removeprefix("he_"), []).append(float(value))
    return {stage: sum(values) / len(values) for stage, values in found.items()}


def _known(values: Iterable[Any]) -> list[float]:
    return [value for value in map(finite, values) if value is not None]
