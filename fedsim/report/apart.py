"""The document's last sections, which belong to one run alone: evidence measured, times, the machine."""

from collections.abc import Mapping
from typing import Any

from fedsim.report.answers import answer_blocks
from fedsim.report.bare import bare_blocks
from fedsim.report.blocks import Block, Folded, Prose, Section, Table
from fedsim.report.hiding import hiding_blocks
from fedsim.report.reading import Setting, cell_name, setting_name, unique
from fedsim.report.sections import Context
from fedsim.report.wording import MISSING, finite, number, plain
from fedsim.words import listed


def evidence(context: Context) -> Section:
    """Proof that the controls were on: measured, not configured."""
    results, content = context.results, context.results.raw.get("evidence")
    facts = _facts(context, {key: _without_costs(value) for key, value in (content or {}).items()}, "measured")
    if not facts:
        text = "No evidence was stored with this run: that the defences were on rests on the configuration alone."
        return Section("evidence", "Evidence that the defences were on", [Prose(text)])
    blocks: list[Block] = [
        Prose(
            "What the run measured of its own defences while they worked, and what crossed the wire. Noise is the "
            "standard deviation of what was added; norms are the largest over clients, rounds and seeds."
        )
    ]
    head = ["protocol", "noise set", "noise measured", "clip set", "norm before", "norm after", "on the wire",
            "updates readable", "one model for all"]  # fmt: skip
    for setting in results.settings:
        title = setting_name(setting)
        rows = [_proof(context, content, p, its) for p, its in results.combinations if its == setting]
        blocks.append(Table(f"Measured{f' on {title}' if title else ''}", head, rows, head[1:6]))
    return Section(
        "evidence",
        "Evidence that the defences were on",
        [
            *blocks,
            *answer_blocks(context),
            *hiding_blocks(context),
            *bare_blocks(context),
            Folded("Every measurement, cell by cell", facts, printed=False),
        ],
    )


def _without_costs(measured: Any) -> Any:
    """A cell's evidence without what stands, protocol beside protocol, in a section of its own."""
    if not isinstance(measured, Mapping):
        return measured
    return {key: value for key, value in measured.items() if key not in ("cost", "cost_model")}


def _proof(context: Context, content: Any, protocol: str, setting: Setting) -> list[object]:
    """What was set and what was measured, for one combination over its seeds."""
    results = context.results
    cells = [content.get(str(cell.get("digest"))) or {} for cell in results.cells_of(protocol, setting)]
    leaves = [(path.split(".")[-1], value) for cell in cells for _, path, value in _flat({"cell": cell})]

    def seen(name: str) -> list[Any]:
        return [value for key, value in leaves if key == name]

    def extreme(name: str, bound: str, choose: Any) -> float | None:
        return choose(
            (v[bound] for v in seen(name) if isinstance(v, Mapping) and finite(v[bound]) is not None), default=None
        )

    statement = results.privacy_of(protocol, setting) or {}
    clip, noise = finite(statement.get("clip")), results.noise_of(protocol, setting)
    low, high = extreme("noise_std", "min", min), extreme("noise_std", "max", max)
    mine = listed(unique(plain(value) for value in seen("forms"))) or MISSING
    agreed = unique(plain(value) for value in seen("same_model_for_all"))
    return [
        context.swatch(protocol),
        plain(clip * noise) if clip and noise else MISSING,
        MISSING if low is None else f"{plain(low)} to {plain(high)}",
        plain(clip),
        plain(extreme("norm_before", "max", max)),
        plain(extreme("norm_after", "max", max)),
        mine,
        number(sum(seen("readable_updates"))) if seen("readable_updates") else MISSING,
        listed(agreed) or MISSING,
    ]


def this_run(context: Context) -> Section:
    """Times, dates and the machine: never the same twice."""
    times = _facts(context, context.results.raw.get("timings"), "timings")
    blocks = [
        *_facts(context, context.results.raw.get("environment"), "environment"),
        *([Folded("Times", times, printed=False)] if times else []),
    ]
    return Section("this-run", "Time and place of this run", blocks or [Prose("Nothing was recorded.")])


def _facts(context: Context, content: Any, title: str) -> list[Block]:
    """Any nested JSON as a readable table: cells by their labels and in their order, the rest by name."""
    if not content:
        return []
    names = {str(cell.get("digest")): cell_name(cell) for cell in context.results.cells}
    order = {digest: i for i, digest in enumerate(names)}
    leaves = sorted(_flat(content), key=lambda leaf: order.get(leaf[0], -1))
    rows = [[names.get(where, where), what, plain(value)] for where, what, value in leaves]
    if all(row[0] == "" for row in rows):
        return [Table(title.capitalize(), ["", "value"], [row[1:] for row in rows], tone="words")]
    return [Table(title.capitalize(), ["where", "what", "value"], rows, tone="words")]


def _flat(content: Any) -> list[tuple[str, str, Any]]:
    """(first key, dotted rest, leaf), by name; a measurement with mean, min and max stays one leaf."""
    leaves: list[tuple[str, str, Any]] = []

    def walk(path: tuple[str, ...], value: Any) -> None:
        if isinstance(value, Mapping) and not {"mean", "min", "max"} <= set(value):
            for key in sorted(value):
                walk((*path, str(key)), value[key])
        else:
            where, what = (path[0], path[1:]) if len(path) > 1 else ("", path)
            leaves.append((where, ".".join(what), value))

    walk((), content)
    return leaves
