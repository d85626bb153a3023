"""The cost model in the report: predicted beside measured, and cohorts that no one simulates."""

from fedsim.report.blocks import Block, Cell, Prose, Table
from fedsim.report.reading import Json, setting_name
from fedsim.report.sections import Context
from fedsim.report.wording import MISSING, number, seconds, share, size

WITHIN = 0.2
"""How far the model may be off."""


def model_blocks(context: Context) -> list[Block]:
    """Both tables, with what they rest on; the first only where a protocol was counted."""
    checked: list[list[object]] = []
    larger: list[list[object]] = []
    for protocol, setting in context.results.combinations:
        models = [m for m in _models(context, protocol, setting) if m]
        if not models:
            continue
        title = setting_name(setting)
        name = Cell(context.swatch(protocol), title)
        if any("cpu_seconds" in model for model in models):
            checked.append([name, *_check(next(model for model in models if "cpu_seconds" in model))])
        elif reason := models[0].get("not_compared") or models[0].get("not_modelled"):
            checked.append([name, Cell(f"not compared: {reason}", span=5)])
        larger += [[name, *_cohort(entry)] for entry in models[0].get("extrapolated") or []]
    blocks: list[Block] = []
    if checked:
        head = [
            "protocol",
            "CPU counted",
            "CPU measured",
            "counted ÷ measured",
            "not for the vector",
            "bytes counted, as against measured",
        ]
        blocks.append(
            Table("Secure aggregation of this run, counted from unit costs of this machine", head, checked, head[1:5])
        )
        blocks.append(
            Prose(
                "Counted: agreements, sealed shares, signatures, masks and roundings of the whole run, clients and "
                "server together, times what each takes here. “Not for the vector” is the part that does not depend "
                "on the model's size. Where that is nearly all, as with small models, calls and messages of some "
                "microseconds decide, and the count may be further off than 20 %.",
                "note",
            )
        )
    if larger:
        head = ["protocol", "clients", "k, t", "up", "down", "client CPU", "server CPU"]
        blocks.append(Table("One round of a larger cohort, for this model", head, larger, head[1:]))
        blocks.append(
            Prose(
                "Secure aggregation: on Bell et al.'s graph with k neighbours and threshold t, found for 5 % corrupt "
                "clients and 5 % drop-outs, by the same count. All "
                "other protocols: this run's own figures, the server's seconds linear in the clients. Bytes are per "
                "client. Server seconds are of one core; clients work at the same time.",
                "note",
            )
        )
    return blocks or [Prose("This run holds no cost model.")]


def _models(context: Context, protocol: str, setting: tuple[tuple[str, str], ...]) -> list[Json]:
    evidence = context.results.raw.get("evidence") or {}
    cells = context.results.cells_of(protocol, setting)
    return [(evidence.get(str(cell.get("digest"))) or {}).get("cost_model") or {} for cell in cells]


def _check(model: Json) -> list[object]:
    """Counted and measured CPU seconds of a run, their ratio and what it rests on, and bytes."""
    spent, ratio, wire = model["cpu_seconds"], model["predicted_over_measured"], model["bytes"]
    fixed, counted, seen = model["independent_of_model_size"], wire["predicted"], wire["measured"]
    within = "within 20 %" if abs(ratio - 1) <= WITHIN else "off by more than 20 %"
    return [
        seconds(sum(spent["predicted"].values())),
        seconds(sum(spent["measured"].values())),
        Cell(number(ratio, 2), within),
        share(fixed),
        Cell(
            f"{size(counted['up'])} up, against {size(seen['up'])}",
            f"{size(counted['down'])} down, against {size(seen['down'])}",
        ),
    ]


def _cohort(entry: Json) -> list[object]:
    if "refused" in entry:
        return [number(entry["clients"]), Cell(f"refused: {entry['refused']}", span=5)]
    graph = f"{entry['neighbours']}, {entry['threshold']}" if "neighbours" in entry else MISSING
    return [
        number(entry["clients"]),
        graph,
        size(entry.get("bytes_up")),
        size(entry.get("bytes_down")),
        seconds(entry["client_cpu_seconds"]),
        seconds(entry["server_cpu_seconds"]),
    ]
