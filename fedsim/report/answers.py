"""The controls on the answers of the finished model, as set and as measured on the deployment's own oracle."""

from collections.abc import Iterator, Mapping
from typing import Any

from fedsim.report.blocks import Block, Table
from fedsim.report.reading import cell_name
from fedsim.report.sections import Context
from fedsim.report.wording import MISSING, number, plain

UNITS = {
    "temperature": "temperature",
    "noise": "standard deviation",
    "rounding": "decimal places, at most",
    "top_k": "entries shown in a row, at most",
    "label_only": "entries shown in a row, at most",
}
"""What is set and measured of each control."""


def answer_blocks(context: Context) -> list[Block]:
    """One row a control of each cell; nothing where no deployment has any."""
    rows: list[list[object]] = []
    evidence = context.results.raw.get("evidence") or {}
    for cell in context.results.cells:
        found = (evidence.get(str(cell.get("digest"))) or {}).get("deployment") or {}
        rows += [[cell_name(cell), *row] for row in _rows(found)]
    if not rows:
        return []
    head = ["cell", "control", "what", "set", "measured"]
    return [Table("Controls on answers, measured on the service itself", head, rows, ("set", "measured"), "words")]


def _rows(found: Mapping[str, Any]) -> Iterator[list[object]]:
    if "failed" in found:
        yield ["all", f"could not be measured: {found['failed']}", MISSING, MISSING]
    for place in sorted(found.get("controls") or {}, key=lambda place: int(place.split()[0])):
        told, kind = found["controls"][place], place.split()[1]
        interval = f" [{plain(told['low'])}, {plain(told['high'])}]" if "low" in told else ""
        yield [kind.replace("_", " "), UNITS[kind], plain(told["set"]), f"{plain(told['measured'])}{interval}"]
    if spent := found.get("query_budget"):
        said = "one more is refused" if spent["one_more_refused"] else "one more is answered"
        yield ["query budget", "inputs answered", number(spent["set"]), said]
