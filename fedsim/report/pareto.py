"""The trade: leakage against accuracy against bytes, and which protocols no other one beats in all three."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from fedsim.report.blocks import Block, Heading, Prose, Row, Table
from fedsim.report.palette import Mark
from fedsim.report.plots import columns, filled
from fedsim.report.reading import Results, Setting, mean, setting_name
from fedsim.report.sections import Context, holds, is_broken
from fedsim.report.wording import MISSING, finite, share, size
from fedsim.words import listed


@dataclass(frozen=True)
class Place:
    """One protocol: the largest share of examples that an attack rebuilt, accuracy, bytes up a client and round."""

    protocol: str
    rebuilt: float
    accuracy: float
    sent: float

    def beats(self, other: "Place") -> bool:
        """No worse in anything, and better in something."""
        mine, its = (self.rebuilt, -self.accuracy, self.sent), (other.rebuilt, -other.accuracy, other.sent)
        return mine != its and all(a <= b for a, b in zip(mine, its, strict=True))


def places(results: Results, setting: Setting) -> tuple[list[Place], list[str]]:
    """The protocols that have all three figures, and those that lack one."""
    found, missing = [], []
    for protocol in (p for p, its in results.combinations if its == setting):
        tried = [e for e in results.attempts_of(protocol, setting) if is_broken(e) or holds(e)]
        rebuilt = [value for e in tried if (value := finite(e.get("recovered"))) is not None]
        accuracy = mean(results.accuracy_of(protocol, setting))
        cells = results.cells_of(protocol, setting)
        sent = mean(finite((c.get("cost") or {}).get("bytes_up_per_client_round")) for c in cells)
        if rebuilt and accuracy is not None and sent:
            found.append(Place(protocol, max(rebuilt), accuracy, sent))
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
        beaten = {p.protocol: [q.protocol for q in found if q.beats(p)] for p in found}
        front = [p.protocol for p in found if not beaten[p.protocol]]
        rows: list[list[object]] = [
            [
                context.swatch(p.protocol), share(p.rebuilt), share(p.accuracy), size(p.sent),
                f"beaten by {listed(beaten[p.protocol])}" if beaten[p.protocol] else "on the front",
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
            "another protocol leaks no more, is no less accurate and sends no more, and is better in one of these.",
        )
        head = ["protocol", "rebuilt", "accuracy", "sent up", "place"]
        blocks.append(Row([drawing, Table(f"The front{on}", head, rows, head[1:4], "cards narrow")]))
    note = (
        "Leakage is the largest share of examples that one attack of this run rebuilt, so a protocol that no attack "
        "here could start on stands at 0 % or is not placed. Means over seeds; a small distance may be chance."
    )
    return [Heading("The trade: leakage, accuracy, bytes"), Prose(note, "note"), *blocks] if blocks else []


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
