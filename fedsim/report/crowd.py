"""Leakage against how many honest clients an attacked sum hides each of them among."""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedsim.report.blocks import Block, Heading
from fedsim.report.palette import INK, QUIET, Mark
from fedsim.report.plots import CEILING, DASHES, FILLS, columns, filled, interval
from fedsim.report.reading import Json, Results, Setting, setting_name, unique
from fedsim.report.sections import Context
from fedsim.report.wording import METRICS, finite, measure

CROWD_AXES = {"federation.clients", "federation.cohort", "adversary.colluders"}
"""Compared fields that change how many honest clients stand in a sum."""
UNMEASURED = (
    "Leakage against the number of honest clients in a sum was not measured: compare federation.cohort, "
    "federation.clients or adversary.colluders under a protocol that opens sums."
)


@dataclass(frozen=True)
class Spot:
    """One attack's median figure with its interval on a sum over ``contributors``, and what guessing gets."""

    protocol: str
    attack: str
    contributors: int
    span: tuple[float, float, float]
    guess: float | None


def crowd_blocks(context: Context) -> list[Block]:
    """A plot for each setting that is otherwise the same; none where no sum was measured at two sizes."""
    results = context.results
    drawings: list[Block] = []
    for i, rest in enumerate(unique(_rest(setting) for setting in results.settings)):
        spots = [spot for p, s in results.combinations if _rest(s) == rest for spot in _spots(results, p, s)]
        if not measured(spots):
            continue
        metric = _metric(results)
        unit = f"{METRICS.get(metric, metric)} of the claim{', dB' if metric == 'psnr' else ''}"
        told = "; ".join(
            f"{s.protocol}, {s.attack}, {s.contributors} in the sum: {measure(metric, s.span[1])} "
            f"(guessing {measure(metric, s.guess)})"
            for s in spots
        )
        on = f" on {setting_name(rest)}" if setting_name(rest) else ""
        drawings.append(
            context.plot(
                f"contributors-{i + 1}",
                lambda s=spots, u=unit: leakage_against_crowd(s, context.marks, u),
                f"Leakage against the number of clients in the sum{on}. {told}.",
                f"Median with its interval{on}, against the honest clients whose updates the attacked sum adds up; the "
                "dotted line is what guessing gets on the same examples. One client is no sum: its own update.",
            )
        )
    return [Heading("Leakage against the number of clients in the sum"), *drawings] if drawings else []


def measured(spots: list[Spot]) -> bool:
    """Whether one attack was run, under one protocol, on sums of at least two sizes."""
    sizes: dict[tuple[str, str], set[int]] = {}
    for spot in spots:
        sizes.setdefault((spot.protocol, spot.attack), set()).add(spot.contributors)
    return any(len(found) > 1 for found in sizes.values())


def crowd_measured(results: Results) -> bool:
    """Whether this run tells leakage against contributors."""
    rests = unique(_rest(setting) for setting in results.settings)
    return any(
        measured([spot for p, s in results.combinations if _rest(s) == rest for spot in _spots(results, p, s)])
        for rest in rests
    )


def leakage_against_crowd(spots: list[Spot], marks: Mapping[str, Mark], axis: str) -> Figure:
    """Leakage over contributors; colour tells the protocol, dash and fill the attack."""
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    attacks, protocols = unique(s.attack for s in spots), unique(s.protocol for s in spots)
    for i, attack in enumerate(attacks):
        for protocol in protocols:
            mine = sorted(
                (s for s in spots if (s.protocol, s.attack) == (protocol, attack)), key=lambda s: s.contributors
            )
            _curve(axes, mine, marks[protocol], i)
        axes.plot([], [], color=QUIET, linestyle=DASHES[i % len(DASHES)], marker="o", label=attack,
                  **filled(FILLS[i % len(FILLS)], QUIET))  # fmt: skip
    for protocol in protocols:
        axes.plot([], [], color=marks[protocol].colour, marker=marks[protocol].code, linestyle="", label=protocol)
    guesses = {s.contributors: s.guess for s in spots if s.guess is not None}
    if guesses:
        places = sorted(guesses)
        axes.plot(places, [guesses[n] for n in places], color=INK, linewidth=1, linestyle=(0, (2, 2)), label="guessing")
    axes.set_xlabel("honest clients in the attacked sum")
    axes.set_ylabel(axis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", ncols=columns([*attacks, *protocols, "guessing"]), fontsize=9)
    return figure


def _curve(axes: Axes, mine: list[Spot], mark: Mark, i: int) -> None:
    middles = [min(s.span[1], CEILING) for s in mine]
    axes.plot(
        [s.contributors for s in mine], middles, color=mark.colour, linestyle=DASHES[i % len(DASHES)], linewidth=1.2
    )
    for spot in mine:
        low, middle, high = (min(value, CEILING) for value in spot.span)
        interval(axes, spot.contributors, (low, middle, high), mark, FILLS[i % len(FILLS)])
    for contributors, figure in sorted({(s.contributors, round(s.span[1])) for s in mine if s.span[1] > CEILING}):
        axes.annotate(f"↑ {figure}", (contributors, CEILING), (8, 0), textcoords="offset points", va="center")


def _spots(results: Results, protocol: str, setting: Setting) -> list[Spot]:
    """The figures of one combination, each with the size of the sum that it is about."""
    found = []
    attacked = results.attacks_of(protocol, setting)
    for entry in results.attempts_of(protocol, setting):
        middle = finite(entry.get("median"))
        sizes = {int(r.get("contributors") or 1) for r in attacked.get(_key(entry), [])}
        if middle is None or len(sizes) != 1 or entry.get("metric") != _metric(results):
            continue
        low, high = finite(entry.get("low")), finite(entry.get("high"))
        span = (middle if low is None else low, middle, middle if high is None else high)
        found.append(Spot(protocol, f"{entry['attack']}", sizes.pop(), span, finite(entry.get("baseline"))))
    return found


def _key(entry: Json) -> tuple[str, object]:
    return str(entry.get("attack")), entry.get("round")


def _metric(results: Results) -> str:
    return next((str(entry.get("metric")) for entry in results.summary if entry.get("metric")), "psnr")


def _rest(setting: Setting) -> Setting:
    """The setting without what changes the size of a sum."""
    return tuple((axis, label) for axis, label in setting if axis not in CROWD_AXES)
