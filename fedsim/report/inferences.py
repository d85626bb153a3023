"""What inference attacks told of one combination, from the model that ships or from updates, as every section reads
it: told, not shown to be told, or no answer."""

from collections.abc import Sequence

from fedsim.report.reading import Json, Results, Setting, unique
from fedsim.report.wording import MISSING, finite
from fedsim.words import listed

NOT_TOLD = "not shown to be told"
"""The verdict where inference attacks ran to the end, and no figure's whole interval lies above what is had without."""


def inference_rows(results: Results) -> list[Json]:
    """The summary rows of inference attacks."""
    return list(results.raw.get("inference_summary") or [])


def rows_of(results: Results, protocol: str, setting: Setting) -> list[Json]:
    """Those of one combination."""
    rows = inference_rows(results)
    return [row for row in rows if results.protocol_of(row) == protocol and results.setting_of(row) == setting]


def headline(row: Json) -> Json:
    """The figure that a row's verdict rests on; empty where there is none."""
    return (row.get("figures") or {}).get(str(row.get("headline"))) or {}


def answered(row: Json) -> bool:
    """Whether an attack ran to the end and has its figure, whatever it shows."""
    return finite(headline(row).get("value")) is not None


def of_model(row: Json) -> bool:
    """Whether an attack asked the model that ships; all others read updates."""
    return row.get("source") == "model"


def what_was_told(results: Results, protocol: str, setting: Setting) -> list[Json]:
    """The rows that told more than is had without them, from updates or from the model."""
    return [row for row in rows_of(results, protocol, setting) if row.get("told")]


def strongest(rows: Sequence[Json]) -> Json | None:
    """The row that got most above what is had without it, one that told before all others; None without a figure."""

    def gain(row: Json) -> tuple[bool, float]:
        figure = headline(row)
        return bool(row.get("told")), (finite(figure.get("value")) or 0.0) - (finite(figure.get("guess")) or 0.0)

    return max(filter(answered, rows), key=gain, default=None)


def found(rows: Sequence[Json]) -> list[str]:
    """What became of each asset, a line each: told by whom, not shown to be told by whom, no answer and why.

    Who read updates and did not ask the model is marked: no deployment answers for that.
    """
    lines: dict[str, list[str]] = {}
    silent: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: not row.get("told")):
        name = str(row.get("attack")) + ("" if of_model(row) else " (updates)")
        if answered(row):
            word = "told" if row.get("told") else NOT_TOLD
            lines.setdefault(f"{row.get('asset')} {word} by", []).append(name)
        else:
            silent.setdefault(str(row.get("verdict") or "no answer"), []).append(name)
    said = [f"{words} {listed(unique(names))}" for words, names in lines.items()]
    return said + [f"{listed(unique(names))}: {why}" for why, names in silent.items()]


def figure_text(figure: Json) -> str:
    """``value [low, high]`` to two places."""
    value, low, high = (finite(figure.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return MISSING
    return f"{value:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else "")


def guess_text(figure: Json) -> str:
    """What is had without the attack, by name; empty where that is not known."""
    guess = finite(figure.get("guess"))
    return "" if guess is None else f"{figure.get('guess_name')}: {guess:.2f}"
