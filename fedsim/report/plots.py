"""The plots, as SVG that is the same for the same figures: leakage against noise with utility, accuracy per round."""

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    figure = Figure(figsize=(5.2, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.7, 1))
    places = _places(points)
    attacks = list(dict.fromkeys(attack for point in points for attack in point.leakage))
    for attack, dash in zip(attacks, DASHES * len(attacks), strict=False):
        drawn = [(places[p.protocol], p, p.leakage[attack]) for p in points if attack in p.leakage]
        heights = [min(middle, CEILING) for _, _, (_, middle, _) in drawn]
        noisy = [(x, y) for (x, p, _), y in zip(drawn, heights, strict=True) if p.noise]
        above.plot(*zip(*noisy, strict=True) if noisy else ((), ()), color=QUIET, linestyle=dash, linewidth=1.3)
        above.plot([], [], color=QUIET, linestyle=dash, label=attack)
        for (x, point, (low, middle, high)), y in zip(drawn, heights, strict=True):
            _interval(above, x, (min(low, CEILING), y, min(high, CEILING)), marks[point.protocol])
            if middle > CEILING:
                text = "" if math.isinf(middle) else f"{middle:.0f}"
                above.annotate(f"↑ {text or '∞'}", (x, y), (7, 0), textcoords="offset points", va="center", fontsize=9)
    if baseline is not None:
        above.axhline(baseline, color=INK, linewidth=1, linestyle=(0, (2, 2)), label="guessing, no update")
    above.set_ylabel(axis)
    above.legend(fontsize=9, loc="upper right", handlelength=2.4)
    for point in points:
        if point.accuracy:
            _interval(below, places[point.protocol], point.accuracy, marks[point.protocol])
    below.set_ylabel("accuracy")
    below.set_ylim(0, 1.04)
    below.set_xticks(
        [places[p.protocol] for p in points], [number(p.noise, 2) if p.noise else _wrapped(p.protocol) for p in points]
    )
    below.set_xlim(-0.4, max(places.values()) + 0.6)
    below.set_xlabel("noise multiplier (noise ÷ clipping norm, log scale)" if any(p.noise for p in points) else "")
    return figure


def accuracy_per_round(
    curves: Mapping[str, Mapping[int, list[float]]], marks: Mapping[str, Mark], baseline: float | None
) -> Figure:
    """Mean accuracy over seeds after each round, the range over seeds shaded."""
    figure = Figure(figsize=(5.2, 5.4), layout="constrained")
    axes = figure.subplots()
    for protocol, curve in curves.items():
        mark, rounds = marks[protocol], list(curve)
        means = [sum(values) / len(values) for values in curve.values()]
        axes.fill_between(
            rounds, [min(v) for v in curve.values()], [max(v) for v in curve.values()], color=mark.colour, alpha=0.15,
            linewidth=0,
        )  # fmt: skip
        axes.plot(
            rounds, means, color=mark.colour, marker=mark.code, markersize=6, markeredgecolor=PAPER, linewidth=1.5,
            label=protocol, markevery=max(1, len(rounds) // 12),
        )  # fmt: skip
    if baseline is not None:
        axes.axhline(baseline, color=INK, linewidth=1, linestyle=(0, (2, 2)), label="always the most frequent label")
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy on held-out data")
    axes.set_ylim(0, 1.04)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _places(points: list[Point]) -> dict[str, float]:
    """Protocol -> x: one slot each for protocols without noise, then the noise multipliers on a log scale."""
    quiet = [p.protocol for p in points if not p.noise]
    places = {protocol: float(i) for i, protocol in enumerate(quiet)}
    noises = {p.protocol: math.log10(p.noise) for p in points if p.noise}
    least = min(noises.values(), default=0.0)
    return places | {protocol: len(quiet) + 0.15 + noise - least for protocol, noise in noises.items()}


def _interval(axes: Axes, x: float, span: tuple[float, float, float], mark: Mark) -> None:
    """A marker with its interval."""
    axes.plot([x, x], [span[0], span[2]], color=mark.colour, linewidth=2, solid_capstyle="butt")
    axes.plot([x], [span[1]], marker=mark.code, color=mark.colour, markersize=9, markeredgecolor=PAPER)


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
