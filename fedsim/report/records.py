"""For tables and text: the true record beside what each protocol let an attack claim."""

from collections.abc import Sequence
from typing import Any

from fedsim.report.blocks import Block, Heading, Prose, Table
from fedsim.report.gallery import about, chosen, place
from fedsim.report.reading import Results, Setting
from fedsim.report.wording import measure


def record_tables(
    results: Results, setting: Setting, attack: str, round: Any, rung: str, metric: str, count: int = 3
) -> list[Block]:
    """For tables and text: one table per target, the truth beside each protocol's claim, feature by feature."""
    hits = {p: results.hits_of(p, setting, attack, round) for p in results.protocols}
    rows = [h for h in hits.values() if any(hit.rows for hit in h.values())]
    if not rows:
        return []
    blocks: list[Block] = []
    targets = chosen(rows, metric, count)
    for i, target in enumerate(targets):
        claims = {p: h[target].rows or {} for p, h in hits.items() if target in h}
        first = next((record for record in claims.values() if record.get("truth") is not None), {})
        truth = list(first.get("truth") or [])
        length = max([len(truth), *(len(record.get("claim") or []) for record in claims.values())])
        columns = list(next(iter(claims.values())).get("columns") or [])
        names = [str(columns[j]) if j < len(columns) else str(j + 1) for j in range(length)]
        caption = f"{attack} at rung {rung}, round {round}; ✓ marks what the claim has right"
        title = f"{place(i, len(targets)) or 'target'}: {about(target)}"
        blocks.append(Heading(title[0].upper() + title[1:]))
        if length == 1:
            own = [["truth", _value(truth, 0)]] if truth else []
            claimed = [[protocol, _claim(truth, c.get("claim") or [], 0)] for protocol, c in claims.items()]
            blocks.append(Table(caption, ["", names[0]], [*own, *claimed]))
            continue
        head = ["feature" if columns else "position", *(["truth"] if truth else []), *claims]
        body = [
            [
                name,
                *([_value(truth, j)] if truth else []),
                *(_claim(truth, c.get("claim") or [], j) for c in claims.values()),
            ]
            for j, name in enumerate(names)
        ]
        blocks.append(Table(caption, head, body))
    if not any(record.rows and record.rows.get("truth") is not None for row in rows for record in row.values()):
        blocks.append(
            Prose(
                "The truth was not stored with this run. A claim that is right is a client's data all the same.", "note"
            )
        )
    return blocks


def _value(values: Sequence[Any], j: int) -> str:
    if j >= len(values):
        return "–"
    return values[j] if isinstance(values[j], str) else measure("", values[j])


def _claim(truth: Sequence[Any], claim: Sequence[Any], j: int) -> str:
    text = _value(claim, j)
    return f"{text} ✓" if truth and text == _value(truth, j) and text != "–" else text
