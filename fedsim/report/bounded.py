"""What attacks reached, drawn under what no attack can exceed: reconstruction and membership beside their bounds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest

from attacks.metrics import THRESHOLDS
from fedsim.bounds import most_true_positives, mu_of, mu_of_membership
from fedsim.leakage import RECORD_SHARE, TOKEN_SHARE
from fedsim.report.blocks import Block, Cell, Chip, Folded, Heading, Prose, Table
from fedsim.report.inferences import rows_of
from fedsim.report.palette import QUIET
from fedsim.report.plots import DASHES, FILLS, columns, filled, interval
from fedsim.report.reading import Results, Setting, setting_name, unique
from fedsim.report.sections import Context
from fedsim.report.shipped import RATES
from fedsim.report.wording import finite
from fedsim.words import counted

NEAR = {"psnr": THRESHOLDS[0], "columns": RECORD_SHARE, "tokens": TOKEN_SHARE}
"""From where on a claim counts as near its target: what "recovered" asks for, but for the margin over guessing."""
UNITS = {"psnr": "dB", "columns": "of the columns", "tokens": "of the words"}
FLOOR = 1e-3
"""Where the logarithmic axes begin; what lies below is drawn there."""
GRID = np.geomspace(FLOOR / 2, 1, 160)
DECADES, PERCENT = (1e-3, 1e-2, 1e-1, 1.0), ("0.1 %", "1 %", "10 %", "100 %")

Span = tuple[float, float, float]
"""Low, value, high."""


@dataclass(frozen=True)
class Reached:
    """What one attack reached under one protocol, beside what is reached without it; ``most`` is None without noise.

    ``guess`` is exact for membership, and a share of targets, with its interval, for reconstruction.
    """

    protocol: str
    attack: str
    rate: Span
    guess: Span
    most: float | None

    @property
    def exceeds(self) -> bool:
        """Whether the whole interval lies above the bound, which no sound mechanism lets happen but by rare chance."""
        return self.most is not None and self.rate[0] > self.most


def rebuilt(results: Results, setting: Setting) -> list[Reached]:
    """Under each protocol the attack that came near most targets; its bound is taken at the guess's upper end.

    Reconstruction robustness (Balle, Cherubin and Hayes 2022) of the Gaussian mechanism (Hayes et al. 2023, theorem 2),
    against all releases that one unit's data touched.
    """
    found = []
    for protocol in _protocols(results, setting):
        mu, best = _mu(results, protocol, setting, of_member=False), None
        for entry in results.attempts_of(protocol, setting):
            metric = str(entry.get("metric"))
            hits = list(results.hits_of(protocol, setting, str(entry.get("attack")), entry.get("round")).values())
            if metric not in NEAR or not hits or all(metric not in hit.figures for hit in hits):
                continue
            near = [(hit.figures.get(metric) or 0.0) >= NEAR[metric] for hit in hits]
            names = {name for hit in hits for name in hit.baseline if name.startswith(f"{metric}_")}
            guessed = [sum((hit.baseline.get(name) or 0.0) >= NEAR[metric] for hit in hits) for name in names]
            guess = _share(max(guessed, default=0), len(hits))
            most = None if mu is None else most_true_positives(mu, guess[2])
            reached = Reached(protocol, str(entry.get("attack")), _share(sum(near), len(hits)), guess, most)
            best = reached if best is None or reached.rate > best.rate else best
        found += [best] if best is not None else []
    return found


def members(results: Results, setting: Setting) -> list[Reached]:
    """Every membership attack's true positives at each share of false ones that its candidates support."""
    found = []
    for protocol in _protocols(results, setting):
        mu = _mu(results, protocol, setting, of_member=True)
        for row in rows_of(results, protocol, setting):
            for name in RATES if row.get("asset") == "membership" else ():
                figure = (row.get("figures") or {}).get(name) or {}
                low, value, high = (finite(figure.get(key)) for key in ("low", "value", "high"))
                if low is None or value is None or high is None:
                    continue
                fpr = float(name.split()[-1])
                most = None if mu is None else most_true_positives(mu, fpr)
                found.append(Reached(protocol, str(row["attack"]), (low, value, high), (fpr, fpr, fpr), most))
    return found


def bounded_blocks(context: Context) -> list[Block]:
    """A plot and a table for each setting in which something was measured under noise; none elsewhere."""
    results, blocks = context.results, list[Block]()
    for i, setting in enumerate(results.settings):
        examples, whose = rebuilt(results, setting), members(results, setting)
        kept = [[] if all(r.most is None for r in found) else found for found in (examples, whose)]
        if not any(kept):
            continue
        under = [r for r in (*kept[0], *kept[1]) if r.most is not None]
        broken = unique(f"{r.attack} under {r.protocol}" for r in under if r.exceeds)
        on = f" on {setting_name(setting)}" if setting_name(setting) else ""
        told = f"above its bound: {'; '.join(broken)}" if broken else "none lies above its bound"
        drawing = context.plot(
            f"bounds-{i + 1}",
            lambda k=kept, s=setting: drawn_under(results, s, k[0], k[1], context),
            f"Measured success of attacks as points, with what the noise lets any attack reach as curves{on}; of "
            f"{counted(len(under), 'point')} under noise, {told}.",
            f"Points are what attacks reached{on}, with 95 % intervals; a curve of the same colour is what no attack "
            "can exceed under that protocol's noise. The dotted line is guessing.",
        )
        rows = [_line(context, r) for p in results.protocols for r in under if r.protocol == p]
        head = ["protocol", "attack", "measured", "by guessing", "at most", ""]
        table = Table(f"Measured, beside the bound{on}", head, rows, head[2:5], "cards")
        blocks += [drawing, table if broken else Folded("Every point beside its bound", [table])]
    if not blocks:
        return []
    metric = str(next((s.get("metric") for s in results.summary if s.get("metric") in NEAR), "psnr"))
    note = (
        f"“Near” is at least {NEAR[metric]:g} {UNITS[metric]}. The curve is reconstruction robustness (Balle, "
        "Cherubin and Hayes 2022; Hayes et al. 2023) and, for membership, the trade-off of a Gaussian mechanism (Dong, "
        "Roth and Su 2022), over every release that one unit's data touched, so that an attack on a single round is "
        "bounded tighter still. Guessing is known from few targets, and the bound is taken at its interval's upper "
        "end. Under noise on whole clients one record changes an update by up to twice the clip norm, and so the "
        "curve for members is the weaker. A point above its curve would show the defence broken, one below proves "
        "nothing."
    )
    return [Heading("What attacks reached, under what none can exceed"), *blocks, Prose(note, "note")]


def drawn_under(
    results: Results, setting: Setting, examples: Sequence[Reached], whose: Sequence[Reached], context: Context
) -> Figure:
    """Reconstruction above, membership below; a panel without points is left out."""
    panels = [panel for panel in ((examples, False), (whose, True)) if panel[0]]
    figure = Figure(figsize=(4.6, 2.9 * len(panels) + 0.6), layout="constrained")
    names = unique(r.attack for r in (*examples, *whose))
    shown = unique(r.protocol for r in (*examples, *whose))
    for axes, (found, of_member) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        axes.plot(GRID, GRID, color=QUIET, linestyle=(0, (1, 2)), linewidth=1)
        for i, protocol in enumerate(shown):
            if (mu := _mu(results, protocol, setting, of_member=of_member)) is not None:
                curve = [most_true_positives(mu, float(x)) for x in GRID]
                axes.plot(GRID, curve, color=context.marks[protocol].colour, linestyle=DASHES[i % 4], linewidth=1.4)
        places = unique((r.protocol, r.attack) for r in found)
        for r in found:
            aside = 1.12 ** (places.index((r.protocol, r.attack)) - (len(places) - 1) / 2)
            x, mark = max(r.guess[1], FLOOR) * aside, context.marks[r.protocol]
            low, value, high = (max(v, FLOOR) if of_member else v for v in r.rate)
            interval(axes, x, (low, value, high), mark, FILLS[names.index(r.attack) % len(FILLS)])
            if not of_member:
                axes.plot([x, max(x, r.guess[2])], [value] * 2, color=mark.colour, linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks(DECADES, PERCENT)
        axes.set_xlim(FLOOR / 1.5, 1.2)
        if of_member:
            axes.set_yscale("log")
            axes.set_yticks(DECADES, PERCENT)
            axes.set_ylim(FLOOR / 1.5, 1.4)
        else:
            axes.set_ylim(-0.04, 1.06)
        axes.minorticks_off()
        axes.set_xlabel("others taken for members" if of_member else "targets that guessing comes near")
        axes.set_ylabel("members told" if of_member else "that the attack comes near")
    for protocol in shown:
        figure.axes[0].plot([], [], color=context.marks[protocol].colour, marker=context.marks[protocol].code,
                            label=protocol)  # fmt: skip
    for i, name in enumerate(names):
        figure.axes[0].plot([], [], color=QUIET, marker="o", linestyle="", label=name, **filled(FILLS[i % 4], QUIET))
    figure.legend(loc="outside upper center", ncols=columns([*shown, *names]), fontsize=9, handlelength=2.6)
    return figure


def _line(context: Context, r: Reached) -> list[object]:
    low, value, high = r.rate
    what = f"members, {100 * r.guess[1]:g} % false" if r.guess[0] == r.guess[2] else "targets come near"
    return [
        context.swatch(r.protocol),
        Cell(r.attack, what),
        Cell(f"{value:.3f}", f"[{low:.3f}, {high:.3f}]"),
        Cell(f"{r.guess[1]:.3f}", "" if r.guess[0] == r.guess[2] else f"up to {r.guess[2]:.3f}"),
        f"{r.most:.3f}",
        Chip("above its bound", "bad") if r.exceeds else Chip("below", "good") if value <= (r.most or 0) else "within",
    ]


def _protocols(results: Results, setting: Setting) -> list[str]:
    return [protocol for protocol, its in results.combinations if its == setting]


def _mu(results: Results, protocol: str, setting: Setting, *, of_member: bool) -> float | None:
    """Of the weakest statement over seeds; None where no noise bounds anything."""
    given = results.privacy_of(protocol, setting) or {}
    noise, releases = finite(given.get("noise_multiplier")), finite(given.get("releases"))
    if not noise or releases is None:
        return None
    if of_member:
        return mu_of_membership(noise, int(releases), str(given.get("unit")))
    return mu_of(noise, int(releases))


def _share(hits: int, count: int) -> Span:
    """With its exact 95 % interval (Clopper and Pearson 1934), as if targets were independent."""
    ends = binomtest(hits, count).proportion_ci(0.95, method="exact")
    return float(ends.low), hits / count, float(ends.high)
