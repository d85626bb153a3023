"""The plots, as SVG that is the same for the same figures: leakage against noise with utility, accuracy per round."""

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedsim.report.palette import GRID, INK, PAPER, QUIET, Mark
from fedsim.report.wording import number

STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "legend.frameon": False,
    "path.simplify": False,
}
DASHES = ("-", (0, (5, 2)), (0, (1, 1.6)), (0, (5, 2, 1, 2)))
Fill = Literal["full", "none", "left", "bottom"]
FILLS: tuple[Fill, ...] = ("full", "none", "left", "bottom")
"""How markers tell attacks apart: their colour and shape tell the protocol."""
CEILING = 60.0
"""dB above which two 8-bit pictures no longer differ; higher figures are drawn here, with their number."""


@dataclass(frozen=True)
class Point:
    """One protocol's place in the plot: its noise multiplier (None: adds none), leakage and accuracy."""

    protocol: str
    noise: float | None
    leakage: Mapping[str, tuple[float, float, float]]
    accuracy: tuple[float, float, float] | None


def leakage_against_noise(points: list[Point], marks: Mapping[str, Mark], baseline: float | None, axis: str) -> Figure:
    """Leakage per attack above, accuracy below, over the noise multiplier; protocols without noise stand left."""
    figure = Figure(figsize=(4.6, 5.3), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.8, 1))
    places = _places(points)
    attacks = list(dict.fromkeys(attack for point in points for attack in point.leakage))
    for i, attack in enumerate(attacks):
        dash, fill = DASHES[i % len(DASHES)], FILLS[i % len(FILLS)]
        seen = [(places[p.protocol], p) for p in points if attack in p.leakage]
        noisy = [(x, min(p.leakage[attack][1], CEILING)) for x, p in seen if p.noise]
        above.plot([x for x, _ in noisy], [y for _, y in noisy], color=QUIET, linestyle=dash, linewidth=1.2)
        above.plot([], [], color=QUIET, linestyle=dash, marker="o", label=attack, **filled(fill, QUIET))
        for x, point in seen:
            low, middle, high = (min(value, CEILING) for value in point.leakage[attack])
            interval(above, x, (low, middle, high), marks[point.protocol], fill)
            if point.leakage[attack][1] > CEILING:
                beyond = f"↑ {number(point.leakage[attack][1])}"
                above.annotate(beyond, (x, middle), (8, 0), textcoords="offset points", va="center")
    if baseline is not None:
        above.axhline(baseline, color=INK, linewidth=1, linestyle=(0, (2, 2)), label="guessing")
    above.set_ylabel(axis)
    figure.legend(loc="outside upper center", ncols=columns([*attacks, "guessing"]), fontsize=9, handlelength=2.6)
    for point in points:
        if point.accuracy:
            interval(below, places[point.protocol], point.accuracy, marks[point.protocol], "full")
    below.set_ylabel("accuracy")
    below.set_ylim(0, 1.04)
    below.set_xticks(
        [places[p.protocol] for p in points], [f"{p.noise:g}" if p.noise else _wrapped(p.protocol) for p in points]
    )
    below.set_xlim(-0.4, max(places.values()) + 0.6)
    below.set_xlabel("noise multiplier (noise ÷ clipping norm, log scale)" if any(p.noise for p in points) else "")
    return figure


def accuracy_per_round(curves: Mapping[str, Mapping[int, list[float]]], marks: Mapping[str, Mark]) -> Figure:
    """Mean accuracy over seeds after each round, the range over seeds shaded."""
    figure = Figure(figsize=(4.6, 5.3), layout="constrained")
    axes = figure.subplots()
    for protocol, curve in curves.items():
        mark, rounds = marks[protocol], list(curve)
        low, high = [min(values) for values in curve.values()], [max(values) for values in curve.values()]
        axes.fill_between(rounds, low, high, color=mark.colour, alpha=0.15, linewidth=0)
        axes.plot(
            rounds, [sum(values) / len(values) for values in curve.values()], color=mark.colour, marker=mark.code,
            markersize=6, markeredgecolor=PAPER, linewidth=1.5, label=protocol, markevery=max(1, len(rounds) // 12),
        )  # fmt: skip
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy on held-out data")
    axes.set_ylim(0, 1.04)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", ncols=columns(list(curves)), fontsize=9)
    return figure


def _places(points: list[Point]) -> dict[str, float]:
    """Protocol -> x: one slot each for protocols without noise, then the noise multipliers on a log scale."""
    quiet = [p.protocol for p in points if not p.noise]
    places = {protocol: float(i) for i, protocol in enumerate(quiet)}
    noises = {p.protocol: math.log10(p.noise) for p in points if p.noise}
    least = min(noises.values(), default=0.0)
    return places | {protocol: len(quiet) + 0.15 + noise - least for protocol, noise in noises.items()}


def interval(axes: Axes, x: float, span: tuple[float, float, float], mark: Mark, fill: Fill) -> None:
    """A marker with its interval."""
    axes.plot([x, x], [span[0], span[2]], color=mark.colour, linewidth=2, solid_capstyle="butt")
    axes.plot([x], [span[1]], marker=mark.code, color=mark.colour, markersize=8.5, **filled(fill, mark.colour))


def filled(fill: Fill, colour: str) -> dict[str, Any]:
    """How a marker is filled; a hollow one covers what lies behind it."""
    hollow = fill == "none"
    return {
        "fillstyle": "full" if hollow else fill,
        "markerfacecolor": PAPER if hollow else colour,
        "markerfacecoloralt": PAPER,
        "markeredgewidth": 1.4,
    }


def columns(labels: list[str]) -> int:
    """Columns of a legend that fit beside one another."""
    longest = max(map(len, labels), default=0)
    return 1 if longest > 24 else 2


def _wrapped(text: str) -> str:
    """A label of at most a few short lines."""
    return "\n".join(text.split(" ")[:3])


def svg(figure: Figure, name: str) -> str:
    """The figure as SVG text; ``name`` keeps its ids apart from those of other figures."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def drawn(make: Callable[[], Figure], name: str) -> str:
    """``make()`` in the report's style, as SVG text."""
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        return svg(make(), name)


def inline(text: str, name: str, alt: str) -> Markup:
    """SVG text as part of the page: no prolog, ids of its own, colours that follow light and dark."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.S)
    body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body)
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)[0]
    body = re.sub(
        r"<svg[^>]*>",
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(alt)}">',
        body,
        count=1,
    )
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for stand_in, variable in ((INK, "--ink"), (PAPER, "--paper"), (QUIET, "--quiet"), (GRID, "--line")):
        body = body.replace(stand_in, f"var({variable})")
    return Markup(body)
