"""The pictures: truth above what each protocol let an attack rebuild, the same targets in every row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedsim.report.blocks import Band, Gallery, Swatch, Tile
from fedsim.report.palette import Mark
from fedsim.report.reading import Hit, Results, Setting, Target
from fedsim.report.tiles import Pictures
from fedsim.report.wording import MISSING, measure

COLUMNS, NOTHING = 5, ("no claim",)
EXACT = "200 dB stands for an exact copy"
RULE = (
    "Columns are chosen by rule, not by eye: the targets that every row attacked are ranked by PSNR within each row, "
    "the ranks averaged over the rows, and the columns taken at equal steps from the most to the least leaked."
)


def chosen(rows: Sequence[Mapping[Target, Hit]], metric: str, count: int = COLUMNS) -> list[Target]:
    """At most ``count`` targets from the most to the least leaked, by mean rank over the rows, at equal steps.

    They are the targets common to all rows, or any where no target is.
    """
    targets = set[Target]().union(*rows)
    targets = targets.intersection(*rows) or targets
    ranks: dict[Target, list[float]] = {target: [] for target in targets}
    for row in rows:
        known = {t: h.figures[metric] for t, h in row.items() if t in targets and h.figures.get(metric) is not None}
        for target in known:
            above = sum(value > known[target] for value in known.values())  # type: ignore[operator]
            ranks[target].append(above / len(known))
    order = sorted(ranks, key=lambda t: (np.mean(ranks[t] or [1.0]), t.seed, t.client, t.index))
    if len(order) <= count:
        return order
    return [order[round(i * (len(order) - 1) / (count - 1))] for i in range(count)]


def place(i: int, count: int) -> str:
    """What column ``i`` of ``count`` stands for."""
    if count == 1:
        return "the only target"
    if i == 0:
        return "most leaked"
    if i == count - 1:
        return "least leaked"
    return "median" if 2 * i == count - 1 else ""


def picture_gallery(
    results: Results,
    pictures: Pictures,
    marks: Mapping[str, Mark],
    setting: Setting,
    attack: str,
    round: Any,
) -> Gallery | None:
    """The gallery of one attack in one setting; None where there is no picture of it."""
    hits = {p: results.hits_of(p, setting, attack, round) for p in results.protocols}
    rows = [h for h in hits.values() if any(hit.stem and f"{hit.stem}/claim" in pictures for hit in h.values())]
    if not rows:
        return None
    targets = chosen(rows, "psnr")
    bands = [
        *_truth(pictures, targets, rows),
        *_guess(results, pictures, setting, targets, rows),
        *(
            _claims(results, pictures, marks, (protocol, setting), targets, hits[protocol], (attack, round), rows)
            for protocol in results.protocols
        ),
    ]
    caption = f"{attack}, round {round}. {RULE} Under each picture: PSNR, then SSIM; {EXACT}."
    return Gallery(caption, len(targets), bands)


def about(target: Target) -> str:
    """The words for a target."""
    return f"seed {target.seed}, client {target.client}, example {target.index}"


def _truth(pictures: Pictures, targets: list[Target], rows: Sequence[Mapping[Target, Hit]]) -> list[Band]:
    """The truth row, with what each column stands for; left out where the truth was not stored."""
    keys = [_truth_key(pictures, target, rows) for target in targets]
    if not any(keys):
        reason = (
            "The truth was not stored with this run. What was rebuilt stands alone; where an attack succeeded, it is a "
            "client's data all the same, as are the raw updates in the run folder."
        )
        return [Band("Truth", reason=reason)]
    tiles = []
    for i, (target, key) in enumerate(zip(targets, keys, strict=True)):
        lines = [place(i, len(targets)), f"client {target.client}", f"seed {target.seed}"]
        tiles.append(Tile(f"Truth: {about(target)}", pictures.uri(key) if key else None, lines))
    return [Band("Truth", "what the client holds", tiles, tone="truth")]


def _truth_key(pictures: Pictures, target: Target, rows: Sequence[Mapping[Target, Hit]]) -> str | None:
    keys = [f"{row[target].stem}/truth" for row in rows if target in row]
    return next((key for key in keys if key in pictures), None)


def _guess(
    results: Results, pictures: Pictures, setting: Setting, targets: list[Target], rows: Sequence[Mapping[Target, Hit]]
) -> list[Band]:
    """The baseline row: the mean public image, which needs no update."""
    means = {
        int(cell.get("seed") or 0): f"{cell.get('digest')}/baseline/mean"
        for cell in results.cells
        if results.setting_of(cell) == setting and f"{cell.get('digest')}/baseline/mean" in pictures
    }
    if not means:
        return []
    tiles = []
    for target in targets:
        guessed = next(row[target].baseline for row in rows if target in row)
        value = measure("psnr", next((v for name, v in guessed.items() if name.startswith("psnr_mean")), None))
        nearest = measure("psnr", guessed.get("psnr_nearest_public"))
        tiles.append(
            Tile(
                f"Guess without any update for {about(target)}: the mean public image, PSNR {value} dB",
                pictures.uri(means.get(target.seed, "")),
                (f"{value} dB", f"nearest {nearest}"),
            )
        )
    note = "no update needed: the mean public image, and how near the nearest public one comes"
    return [Band("Guessing", note, tiles, tone="guess")]


def _claims(
    results: Results,
    pictures: Pictures,
    marks: Mapping[str, Mark],
    combination: tuple[str, Setting],
    targets: list[Target],
    hits: Mapping[Target, Hit],
    which: tuple[str, Any],
    rows: Sequence[Mapping[Target, Hit]],
) -> Band:
    """One protocol's row, or why it has none."""
    protocol, setting = combination
    name = Swatch(protocol, marks[protocol])
    records = results.attacks_of(protocol, setting).get(which, [])
    reason = status(results, protocol, setting, records)
    rung = f"rung {records[0].get('rung')}" if records else ""
    if not any(hit.stem and f"{hit.stem}/claim" in pictures for hit in hits.values()):
        return Band(name, rung, reason=reason or "no claim")
    tiles = []
    for target in targets:
        hit = hits.get(target, Hit(None, {}, {}))
        psnr, ssim = measure("psnr", hit.figures.get("psnr")), measure("ssim", hit.figures.get("ssim"))
        if f"{hit.stem}/claim" not in pictures or ("psnr" in hit.figures and psnr == MISSING):
            tiles.append(Tile(f"No claim under {protocol}: {about(target)}", None, NOTHING))
        elif _elsewhere(pictures, target, hit, rows):
            tiles.append(Tile(f"Another target under {protocol}: not {about(target)}", None, ("another target",)))
        else:
            alt = f"Rebuilt under {protocol}: {about(target)}, PSNR {psnr} dB, SSIM {ssim}"
            tiles.append(Tile(alt, pictures.uri(f"{hit.stem}/claim"), (f"{psnr} dB", f"SSIM {ssim}")))
    if all(tile.lines == NOTHING for tile in tiles):
        return Band(name, rung, reason=reason or "no claim of any of these")
    return Band(name, "; ".join(filter(None, [rung, reason])), tiles)


def status(results: Results, protocol: str, setting: Setting, records: Sequence[Mapping[str, Any]]) -> str:
    """Why an attack's row is empty or doubtful, in one line; empty where all is well."""
    for record in records:
        word = str(record.get("status"))
        if word != "done":
            return word.replace("_", " ") + (f": {record['reason']}" if record.get("reason") else "")
    return results.lost(protocol, setting) or ("" if records else "not run")


def _elsewhere(pictures: Pictures, target: Target, hit: Hit, rows: Sequence[Mapping[Target, Hit]]) -> bool:
    """Whether this row attacked other data at the target's place, so that it must not stand under that truth."""
    reference = _truth_key(pictures, target, rows)
    own = f"{hit.stem}/truth"
    return bool(reference and own in pictures and not np.array_equal(pictures.array(reference), pictures.array(own)))
