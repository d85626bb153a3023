"""The trade: leakage against accuracy against bytes, and which protocols no other one beats in all three."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from scipy.stats import binomtest

from fedsim.report.blocks import Block, Cell, Heading, Prose, Row, Table
from fedsim.report.palette import Mark
from fedsim.report.plots import columns, filled
from fedsim.report.reading import Results, Setting, mean, setting_name
from fedsim.report.sections import Context, holds, is_broken
from fedsim.report.wording import MISSING, finite, share, size
from fedsim.words import listed

POINT, BYTES = 0.01, 1.05
"""What a difference in accuracy must reach, and a ratio of bytes exceed, to count."""


@dataclass(frozen=True)
class Place:
    """One protocol: the largest share of examples that an attack rebuilt, accuracy, bytes up a client and round.

    ``targets`` stand behind the share, ``seeds`` behind the accuracy, which is their mean; without them both are exact.
    """

    protocol: str
    rebuilt: float
    accuracy: float
    sent: float
    targets: int = 0
    seeds: tuple[float, ...] = ()

    @property
    def interval(self) -> tuple[float, float]:
        """The share's 95 % interval (Wilson 1927), as if targets were independent."""
        if not self.targets:
            return self.rebuilt, self.rebuilt
        ends = binomtest(round(self.rebuilt * self.targets), self.targets).proportion_ci(0.95, method="wilson")
        return float(ends.low), float(ends.high)

    def ahead(self, other: "Place") -> list[str]:
        """In what this place is clearly better: beyond intervals, the spread over seeds and a small rest."""
        worst = min(self.seeds, default=self.accuracy)
        accurate = worst > max(other.seeds, default=other.accuracy) and self.accuracy >= other.accuracy + POINT
        found = {
            "examples rebuilt": self.interval[1] < other.interval[0],
            "accuracy": accurate,
            "bytes": BYTES * self.sent < other.sent,
        }
        return [what for what, clearly in found.items() if clearly]

    def beats(self, other: "Place") -> bool:
        """Clearly better in something, clearly worse in nothing.

        Of the share rebuilt any more is worse: too few targets for an interval must not put a leak ahead.
        """
        return bool(self.ahead(other)) and not other.ahead(self) and self.rebuilt <= other.rebuilt


def places(results: Results, setting: Setting) -> tuple[list[Place], list[str]]:
    """The protocols that have all three figures, and those that lack one."""
    found, missing = [], []
    for protocol in (p for p, its in results.combinations if its == setting):
        tried = [e for e in results.attempts_of(protocol, setting) if is_broken(e) or holds(e)]
        shares = [(finite(e.get("recovered")), int(e.get("n") or 0)) for e in tried]
        rebuilt = [(value, n) for value, n in shares if value is not None and 0 <= value <= 1]
        seeds = tuple(results.accuracy_of(protocol, setting))
        accuracy = mean(seeds)
        cells = results.cells_of(protocol, setting)
        sent = mean(finite((c.get("cost") or {}).get("bytes_up_per_client_round")) for c in cells)
        if rebuilt and accuracy is not None and isfinite(accuracy) and sent and isfinite(sent):
            most, targets = max(rebuilt)
            found.append(Place(protocol, most, accuracy, sent, targets, seeds))
        else:
            missing.append(protocol)
    return found, missing


def pareto_blocks(context: Context) -> list[Block]:
    """A plot and a table for each setting with at least two protocols to weigh; none elsewhere."""
    results, blocks = context.results, list[Block]()
    for i, setting in enumerate(results.settings):
        found, missing = places(results, setting)
        if len(found) < 2:
            continue
        on = f" on {setting_name(setting)}" if setting_name(setting) else ""
        beaten = {p.protocol: [f"{q.protocol} in {listed(q.ahead(p))}" for q in found if q.beats(p)] for p in found}
        front = [p.protocol for p in found if not beaten[p.protocol]]
        rows: list[list[object]] = [
            [
                context.swatch(p.protocol), Cell(share(p.rebuilt), _spread(p)), share(p.accuracy), size(p.sent),
                f"beaten by {'; by '.join(beaten[p.protocol])}" if beaten[p.protocol] else "on the front",
            ]
            for p in found
        ]  # fmt: skip
        rows += [
            [context.swatch(name), MISSING, MISSING, MISSING, "not placed: a figure is missing"] for name in missing
        ]
        drawing = context.plot(
            f"pareto-{i + 1}",
            lambda f=found, b=beaten: trade(f, b, context.marks),
            f"Accuracy and bytes against the share of examples rebuilt{on}. On the front: {listed(front)}.",
            f"Better is to the left and up above, to the left and down below{on}. A hollow marker is beaten: "
            "another protocol has no larger share rebuilt, is not clearly less accurate, does not clearly send more, "
            "and is clearly better in one of these.",
        )
        head = ["protocol", "rebuilt", "accuracy", "sent up", "place"]
        blocks.append(Row([drawing, Table(f"The front{on}", head, rows, head[1:4], "cards narrow")]))
    notes = [
        "Leakage is the largest share of examples that one attack of this run rebuilt, so a protocol that no attack "
        "here could start on stands at 0 % or is not placed. Means over seeds. A difference counts as clear where the "
        "95 % intervals of the shares (Wilson 1927) lie apart, as if examples were independent; where accuracies "
        f"differ by {100 * POINT:g} point or more and their ranges over seeds lie apart; and where one sends over "
        f"{100 * (BYTES - 1):.0f} % more than the other.",
        "The front ignores all else: labels, words and columns that were read, what inference attacks told, whether "
        "the server sees single updates or sums alone, and the epsilon against each observer. A protocol that is "
        "beaten here may be the safer one in these.",
    ]
    return (
        [Heading("The trade: leakage, accuracy, bytes"), *(Prose(note, "note") for note in notes), *blocks]
        if blocks
        else []
    )


def _spread(place: Place) -> str:
    low, high = place.interval
    return f"[{share(low)}, {share(high)}]" if place.targets else ""


def trade(found: Sequence[Place], beaten: Mapping[str, list[str]], marks: Mapping[str, Mark]) -> Figure:
    """Accuracy above, bytes below, over the share of examples rebuilt."""
    figure = Figure(figsize=(4.6, 5.3), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for place in found:
        _dot(above, place, place.accuracy, marks[place.protocol], bool(beaten[place.protocol]), place.protocol)
        _dot(below, place, place.sent, marks[place.protocol], bool(beaten[place.protocol]), None)
    above.set_ylabel("accuracy")
    above.set_ylim(0, 1.04)
    below.set_ylabel("sent up")
    below.set_yscale("log")
    ticks = apart(sorted({place.sent for place in found}))
    below.set_yticks(ticks)
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
    below.yaxis.set_minor_locator(NullLocator())
    below.set_ylim(min(p.sent for p in found) / 2, max(p.sent for p in found) * 2)
    below.set_xlabel("share of examples rebuilt")
    widest = min(1.0, max(0.05, 1.1 * max(place.rebuilt for place in found)))
    below.set_xlim(-0.05 * widest, 1.05 * widest)
    below.xaxis.set_major_locator(MaxNLocator(5))
    below.xaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside upper center", ncols=columns([p.protocol for p in found]), fontsize=9)
    return figure


def apart(values: Sequence[float]) -> list[float]:
    """Of rising values those whose names fit above each other on the axis: each far enough over the one before."""
    step = max(1.15, (values[-1] / values[0]) ** 0.125)
    kept = [values[0]]
    for value in values:
        if value >= step * kept[-1]:
            kept.append(value)
    return kept


def _dot(axes: Axes, place: Place, height: float, mark: Mark, beaten: bool, label: str | None) -> None:
    style = filled("none" if beaten else "full", mark.colour)
    axes.plot([place.rebuilt], [height], marker=mark.code, color=mark.colour, markersize=9, linestyle="", label=label,
              clip_on=False, **style)  # fmt: skip
