"""The results matrix: every attack on every protocol, at its rung, beside what guessing gives, with its seeds."""

from fedsim.report.blocks import Cell, Chip, Table
from fedsim.report.gallery import status
from fedsim.report.inferences import rows_of
from fedsim.report.reading import Json, Results, Setting, setting_name
from fedsim.report.sections import Context, holds, how_read, is_broken
from fedsim.report.suite import told, tried
from fedsim.report.wording import METRICS, MISSING, SHARES, finite, interval, measure, share, shown
from fedsim.words import counted, listed, rung_step

FIGURE = "median [95 % interval]"
APART = Chip("not applicable", "none")


def matrix(context: Context) -> Table | None:
    """One row for each attack, round, setting and protocol; rungs in order. None without a single attack."""
    results = context.results
    rows: list[tuple[tuple[int, str, str], list[object]]] = []
    for protocol, setting in results.combinations:
        for (name, round), records in results.attacks_of(protocol, setting).items():
            rung = str(records[0].get("rung"))
            if rung == "L0":
                continue  # guessing is a column, not an attack
            rows.append(((rung_step(rung), name, str(round)), _row(context, protocol, setting, records, (name, round))))
    if not rows:
        return None
    head = ["attack", "rung", "protocol", "outcome", FIGURE, "guessing", "rebuilt", "seeds"]
    several = any(map(setting_name, results.settings))
    if several:
        head.insert(3, "setting")
    body = [row if several else [*row[:3], *row[4:]] for _, row in sorted(rows, key=lambda pair: pair[0])]
    filters = [title for title in ("attack", "rung", "protocol", "setting", "outcome") if title in head]
    caption = "Attack by protocol by rung; failed seeds are counted, and no median reaches over them"
    return Table(
        caption, head, body, ("median [95 % interval]", "guessing", "rebuilt", "seeds"), "matrix cards", filters
    )


def _row(
    context: Context, protocol: str, setting: Setting, records: list[Json], which: tuple[str, object]
) -> list[object]:
    """Attack, rung, protocol, setting, outcome, figure, baseline, rebuilt and seeds."""
    results = context.results
    entries = [e for e in results.summary_of(protocol, setting) if (e.get("attack"), e.get("round")) == which]
    entry = next((e for e in entries if shown(e)), entries[0] if entries else {})
    metric = str(entry.get("metric") or "")
    unit = f" {entry['unit']}" if entry.get("unit") and metric not in SHARES else ""
    middle = interval(metric, entry)
    said = middle if middle == "no claim" else f"{middle}{unit}"
    figure = Cell(said, METRICS.get(metric, "")) if shown(entry) else Cell(MISSING)
    guess = f"{measure(metric, entry.get('baseline'))}{unit}" if finite(entry.get("baseline")) is not None else MISSING
    if not shown(entry) and entry.get("readings"):
        first = entry["readings"][0]
        right, low, high = (share(first.get(key)) for key in ("right", "low", "high"))
        figure, guess = Cell(f"{right} [{low}, {high}]", f"{first.get('what')} right"), share(first.get("guess"))
    worst = f"worst {measure(metric, entry.get('worst'))}{unit}" if shown(entry) else ""
    rebuilt = Cell(f"{entry.get('rebuilt', 0):,} of {entry['n']:,}", worst) if entry.get("n") else Cell(MISSING)
    hint = f"Round {which[1]}. Told: {told(records[0])}. Budget: {tried(records)}."
    chip = outcome(entry, records)
    return [
        Cell(which[0], f"round {which[1]}", hint=hint),
        MISSING if chip == APART else str(records[0].get("rung")),  # what could not start needed no rung
        context.swatch(protocol),
        setting_name(setting) or MISSING,
        Cell(chip, status(results, protocol, setting, records).removeprefix("not applicable: ")),
        figure,
        guess,
        rebuilt,
        seeds(results, protocol, setting, entry),
    ]


def outcome(entry: Json, records: list[Json]) -> Chip:
    """One word for what an attack came to."""
    if is_broken(entry):
        return Chip("broken", "bad")
    if read := how_read([entry]):
        return Chip(", ".join(f"{listed(what)} {word}" for word, what in read.items()), "bad")
    statuses = {str(record.get("status")) for record in records}
    if statuses == {"not_applicable"}:
        return APART
    return Chip("not broken", "good") if holds(entry) else Chip("undecided", "warn")


def seeds(results: Results, protocol: str, setting: Setting, entry: Json) -> Cell:
    """How many seeds stand behind a row, and how many failed."""
    done, failed = results.seeds_of(protocol, setting)
    done, failed = int(entry.get("seeds", done)), int(entry.get("failed_seeds", failed))
    return Cell(f"{done:,}", f"{failed:,} failed" if failed else "")


def doubt(results: Results, protocol: str, setting: Setting) -> str:
    """How much stands behind a combination's verdict: seeds, examples, failures."""
    done, failed = results.seeds_of(protocol, setting)
    most = max((int(e.get("n") or 0) for e in results.attempts_of(protocol, setting)), default=0)
    said = [counted(done, "seed")]
    if most or not rows_of(results, protocol, setting):
        said.append(counted(most, "example") if most else "no example")
    return ", ".join([*said, *([f"{failed} failed"] if failed else [])])
