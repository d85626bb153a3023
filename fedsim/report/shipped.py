"""The model that ships: what each access level gives away, what each control costs, and what the service could see."""

from collections.abc import Sequence

from fedsim.assets.copies import RAREST
from fedsim.inferred import TOLD
from fedsim.report.blocks import Band, Block, Cell, Chip, Folded, Gallery, Heading, Prose, Section, Table, Tile
from fedsim.report.inferences import (
    answered,
    figure_text,
    guess_text,
    headline,
    inference_rows,
    of_model,
    rows_of,
    strongest,
)
from fedsim.report.reading import Json, Setting, mean, setting_name, unique
from fedsim.report.sections import Context, at_rung
from fedsim.report.wording import MISSING, finite, number, share
from fedsim.words import counted

COLUMNS = 10
"""Classes shown at most."""
RATES = ("tpr at 0.1", "tpr at 0.01", "tpr at 0.001")


def shipped(context: Context) -> Section | None:
    """Attacks on the model after training, and inferences from updates; None where a run has neither."""
    rows = inference_rows(context.results)
    if not rows:
        return None
    asked = any(map(of_model, rows))
    who = (
        "Whoever may query the trained model, or holds it, is the adversary here: a protocol that hides every update "
        "ships this model all the same. "
    )
    blocks: list[Block] = [
        Prose(
            f"{who if asked else ''}“Told” means that the figure's whole interval lies above what is had without the "
            "attack, which stands beside it. A figure that is not shown to be told is no proof that nothing can be."
        ),
        *([_control_table(context)] if asked else []),
        _attack_table(context, rows),
    ]
    if any(row.get("asset") == "membership" and row.get("figures") for row in rows):
        blocks.append(_rates_table(context, rows))
    blocks += [*_further(context), *_galleries(context), *_watch_table(context)]
    return Section("model", "The model that ships" if asked else "What was inferred from updates", blocks)


def _where(context: Context, protocol: str, setting: Setting) -> Cell:
    """The combination's name, with what a caller gets."""
    releases = [release for cell in context.results.cells_of(protocol, setting) for release in cell["releases"] or []]
    access = unique(str(release["access"]).replace("_", " ") for release in releases)
    controls = unique(" + ".join(release["controls"]).replace("_", " ") for release in releases if release["controls"])
    several = len(context.results.protocols) > 1 or not setting
    return Cell(context.swatch(protocol) if several else setting_name(setting), "; ".join(
        [*([setting_name(setting)] if several and setting else []), *access, *controls]
    ))  # fmt: skip


def _control_table(context: Context) -> Table:
    """One row a combination: accuracy as trained and as served, and the most that each asset lost to a caller.

    What leaves with updates is no doing of the deployment, and no control on answers keeps it back.
    """
    results = context.results
    assets = unique(str(row["asset"]) for row in inference_rows(results) if row.get("asset") and of_model(row))
    head = ["deployment", "accuracy", "as served", "gap to training data", *(TOLD[asset] for asset in assets)]
    rows: list[list[object]] = []
    for protocol, setting in results.combinations:
        releases = [r for cell in results.cells_of(protocol, setting) for r in cell.get("releases") or []]
        figures = [share(mean(finite(r.get(key)) for r in releases)) for key in ("accuracy", "served")]
        gap = mean(finite(r.get("gap")) for r in releases)
        points = MISSING if gap is None else f"{100 * gap:+.1f} points".replace("-", "−")
        own = [row for row in rows_of(results, protocol, setting) if of_model(row)]
        most = [_strongest([row for row in own if row.get("asset") == asset]) for asset in assets]
        rows.append([_where(context, protocol, setting), *figures, points, *most])
    return Table("What a deployment gives away, and what its controls cost", head, rows, tuple(head[1:4]))


def _strongest(rows: Sequence[Json]) -> Cell:
    """The attack that got most above what is had without it."""
    best = strongest(rows)
    if best is None:
        return Cell(MISSING, str(rows[0]["verdict"]) if rows else "not attacked")
    figure = headline(best)
    return Cell(f"{best['headline']} {figure_text(figure)}", f"{best['attack']}; {guess_text(figure)}")


def _attack_table(context: Context, rows: Sequence[Json]) -> Table:
    """Every attack of every combination with its figure, its queries and its verdict."""
    head = ["deployment", "attack", "after what", "figure", "without it", "queries", "refused", ""]
    lines: list[list[object]] = []
    for protocol, setting in context.results.combinations:
        for row in rows_of(context.results, protocol, setting):
            figure, stated = headline(row), answered(row)
            asked = "model, round" if of_model(row) else "updates, to round"
            lines.append(
                [
                    _where(context, protocol, setting),
                    Cell(at_rung(row["attack"], row["rung"], row["statuses"]), TOLD.get(str(row["asset"]), "")),
                    f"{asked} {row['round']}",
                    Cell(figure_text(figure), f"{row['headline']}, {counted(row['seeds'], 'seed')}")
                    if stated
                    else Cell(MISSING, str(row["verdict"])),
                    guess_text(figure) or MISSING,
                    number(round(row["queries"])),
                    number(round(row["refused"])),
                    Chip("told", "bad") if row["told"] else Chip("not told" if stated else "no answer", "warn"),
                ]
            )
    return Table("Every attack on the model, and every inference from updates", head, lines, ("queries", "refused"))


def _rates_table(context: Context, rows: Sequence[Json]) -> Table:
    """Membership at few false positives, beside the most that the mechanism allows any attack."""
    head = ["deployment", "attack", "AUC", *(f"at {100 * float(name.split()[-1]):g} % false" for name in RATES)]
    lines: list[list[object]] = []
    for protocol, setting in context.results.combinations:
        for row in rows_of(context.results, protocol, setting):
            if row["asset"] == "membership" and row["figures"]:
                own = [row["figures"].get(name) or {} for name in ("auc", *RATES)]
                cells = [Cell(figure_text(figure), _limits(figure)) for figure in own]
                source = "" if of_model(row) else "from updates"
                lines.append([_where(context, protocol, setting), Cell(str(row["attack"]), source), *cells])
    return Table("Members told at few false positives", head, lines)


def _limits(figure: Json) -> str:
    """Why a rate is missing; or chance, and the bound that the run's noise sets."""
    if figure.get("refused"):
        return str(figure["refused"])
    bound = finite(figure.get("bound"))
    return "; ".join(filter(None, [guess_text(figure), "" if bound is None else f"no attack exceeds {bound:.2f}"]))


def _further(context: Context) -> list[Block]:
    """What was measured of each attack beside its headline, folded; members' rates have a table of their own."""
    lines: list[list[object]] = []
    for protocol, setting in context.results.combinations:
        for row in rows_of(context.results, protocol, setting):
            for name, figure in (row.get("figures") or {}).items():
                if name != row["headline"] and row["asset"] != "membership":
                    where = _where(context, protocol, setting)
                    lines.append([where, str(row["attack"]), name, figure_text(figure), guess_text(figure) or MISSING])
    head = ["deployment", "attack", "figure", "value", "without it"]
    table = Table("Figures beside the headline; shares with exact intervals (Clopper and Pearson 1934)", head, lines)
    rare = any(str(line[2]).endswith(RAREST) for line in lines)
    said = "“Rarest value”: of an attribute with more than two, the one that fewest records asked about have, against "
    notes = [Prose(f"{said}all others.", "note")] if rare else []
    return [Folded("What else was measured of each attack", [table, *notes])] if lines else []


def _galleries(context: Context) -> list[Block]:
    """For each inversion one gallery: the classes as the clients' own mean, and as each deployment gave them away."""
    results, pictures = context.results, context.pictures
    found: dict[str, list[Band]] = {}
    truths: dict[str, Band] = {}
    for protocol, setting in results.combinations:
        for cell in results.cells_of(protocol, setting)[:1]:
            for entry in cell.get("inferences") or []:
                if stems := sorted(entry.get("pictures") or [], key=lambda stem: int(stem.rsplit("/", 1)[1])):
                    name, shown = str(entry["name"]), stems[:COLUMNS]
                    where = _where(context, protocol, setting)
                    found.setdefault(name, []).append(
                        Band(where.text, where.note, [_tile(context, stem, "claim", name) for stem in shown])
                    )
                    if name not in truths and f"{shown[0]}/truth" in pictures:
                        mean_of = [_tile(context, stem, "truth", "mean of the clients' examples") for stem in shown]
                        truths[name] = Band("Clients", "the mean of what they hold of the class", mean_of, tone="truth")
    blocks: list[Block] = [Heading("The classes, as the model gives them away")] if found else []
    for name, bands in found.items():
        every = [truths[name], *bands] if name in truths else bands
        columns = max(len(band.tiles) for band in every)
        blocks.append(Gallery(f"{name}: the first seed, one picture a class, none chosen.", columns, every))
    return blocks


def _tile(context: Context, stem: str, which: str, name: str) -> Tile:
    label, key = stem.rsplit("/", 1)[1], f"{stem}/{which}"
    source = context.pictures.uri(key) if key in context.pictures else None
    return Tile(f"Class {label}: {name}", source, (f"class {label}",))


def _watch_table(context: Context) -> list[Block]:
    """What the query log showed of each attack, beside the alarms that honest callers raise."""
    results, lines = context.results, list[list[object]]()
    for protocol, setting in results.combinations:
        for row in rows_of(results, protocol, setting):
            entries = [
                entry
                for cell in results.cells_of(protocol, setting)
                for entry in cell.get("inferences") or []
                if (entry["name"], entry["round"]) == (row["attack"], row["round"]) and entry.get("seen")
            ]
            if not entries:
                continue
            seen = entries[0]["seen"]
            signals = [
                Cell(number(seen["signals"][name]), f"alarm above {number(seen['thresholds'].get(name))}")
                for name in ("volume", "near_duplicates", "boundary_probing")
            ]
            raised = sum(bool(entry["seen"]["alarms"]) for entry in entries)
            low, high = seen["false_alarm_low"], seen["false_alarm_high"]
            lines.append(
                [
                    _where(context, protocol, setting),
                    Cell(str(row["attack"]), f"{row['headline']} {figure_text(headline(row))}"),
                    *signals,
                    f"in {raised} of {counted(len(entries), 'seed')}",
                    Cell(share(seen["false_alarm_rate"]), seen.get("lacking") or f"[{share(low)}, {share(high)}]"),
                ]
            )
    head = [
        "deployment",
        "attack",
        "queries",
        "near-duplicates",
        "near the boundary",
        "alarm",
        "honest callers alarmed",
    ]
    if not lines:
        return []
    return [
        Heading("What the service could see"),
        Table("Signals in the query log, first seed, beside each attack's yield", head, lines, tuple(head[2:5])),
    ]
