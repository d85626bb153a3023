"""The pictures: truth above what each protocol let an attack rebuild, the same targets in every row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedsim.report.blocks import Band, Block, Gallery, Heading, Prose, Swatch, Table, Tile
from fedsim.report.palette import Mark
from fedsim.report.reading import Hit, Results, Setting, Target
from fedsim.report.tiles import Pictures
from fedsim.report.wording import MISSING, measure

COLUMNS = 5
RULE = (
    "Columns are chosen by rule, not by eye: the targets are ranked by PSNR within each row, the ranks averaged over "
    "the rows, and the columns taken at equal steps from the most to the least leaked."
)


def chosen(rows: Sequence[Mapping[Target, Hit]], metric: str, count: int = COLUMNS) -> list[Target]:
    """At most ``count`` targets from the most to the least leaked, by mean rank over the rows, at equal steps."""
    ranks: dict[Target, list[float]] = {}
    for row in rows:
        known = {t: h.figures[metric] for t, h in row.items() if h.figures.get(metric) is not None}
        for target in row:
            ranks.setdefault(target, [])
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
    rung: str,
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
    caption = f"{attack} at rung {rung}, round {round}. {RULE} Under each picture: PSNR, then SSIM."
    return Gallery(caption, len(targets), bands)


def _about(target: Target) -> str:
    return f"seed {target.seed}, client {target.client}, example {target.index}"


def _truth(pictures: Pictures, targets: list[Target], rows: Sequence[Mapping[Target, Hit]]) -> list[Band]:
    """The truth row, with what each column stands for; left out where the truth was not stored."""
    keys = [_truth_key(pictures, target, rows) for target in targets]
    if not any(keys):
        return [Band("Truth", reason="The truth was not stored with this run: reconstructions stand alone.")]
    tiles = []
    for i, (target, key) in enumerate(zip(targets, keys, strict=True)):
        lines = [place(i, len(targets)), f"client {target.client}", f"seed {target.seed}"]
        tiles.append(Tile(f"Truth: {_about(target)}", pictures.uri(key) if key else None, lines))
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
        tiles.append(
            Tile(
                f"Guess without any update for {_about(target)}: the mean public image, PSNR {value} dB",
                pictures.uri(means.get(target.seed, "")),
                (f"{value} dB",),
            )
        )
    return [Band("Guessing", "the mean public image, no update needed", tiles, tone="guess")]


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
    if not any(hit.stem and f"{hit.stem}/claim" in pictures for hit in hits.values()):
        return Band(name, reason=reason or "no claim")
    tiles = []
    for target in targets:
        hit = hits.get(target, Hit(None, {}, {}))
        psnr, ssim = measure("psnr", hit.figures.get("psnr")), measure("ssim", hit.figures.get("ssim"))
        if f"{hit.stem}/claim" not in pictures or ("psnr" in hit.figures and psnr == MISSING):
            tiles.append(Tile(f"No claim under {protocol}: {_about(target)}", None, ("no claim",)))
        elif _elsewhere(pictures, target, hit, rows):
            tiles.append(Tile(f"Another target under {protocol}: not {_about(target)}", None, ("another target",)))
        else:
            alt = f"Rebuilt under {protocol}: {_about(target)}, PSNR {psnr} dB, SSIM {ssim}"
            tiles.append(Tile(alt, pictures.uri(f"{hit.stem}/claim"), (f"{psnr} dB", f"SSIM {ssim}")))
    return Band(name, reason, tiles)


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


def record_tables(
    results: Results, setting: Setting, attack: str, round: Any, rung: str, metric: str, count: int = 3
) -> list[Block]:
    """For tables and text: one table per target, the truth beside each protocol's claim, feature by feature."""
    hits = {p: results.hits_of(p, setting, attack, round) for p in results.protocols}
    rows = [h for h in hits.values() if any(hit.rows for hit in h.values())]
    if not rows:
        return []
    blocks: list[Block] = []
    targets = chosen(rows, metric, count)
    for i, target in enumerate(targets):
        claims = {p: h[target].rows or {} for p, h in hits.items() if target in h}
        first = next((record for record in claims.values() if record.get("truth") is not None), {})
        truth = list(first.get("truth") or [])
        length = max([len(truth), *(len(record.get("claim") or []) for record in claims.values())])
        columns = list(next(iter(claims.values())).get("columns") or [])
        names = [str(columns[j]) if j < len(columns) else str(j + 1) for j in range(length)]
        head = ["feature" if columns else "position", *(["truth"] if truth else []), *claims]
        body = [
            [
                name,
                *([_value(truth, j)] if truth else []),
                *(_claim(truth, c.get("claim") or [], j) for c in claims.values()),
            ]
            for j, name in enumerate(names)
        ]
        title = f"{place(i, len(targets)) or 'target'}: {_about(target)}"
        blocks.append(Heading(title[0].upper() + title[1:]))
        blocks.append(
            Table(f"{attack} at rung {rung}, round {round}; ✓ marks a value that the claim has right", head, body)
        )
    if not any(record.rows and record.rows.get("truth") is not None for row in rows for record in row.values()):
        blocks.append(Prose("The truth was not stored with this run: claims stand alone.", "note"))
    return blocks


def _value(values: Sequence[Any], j: int) -> str:
    if j >= len(values):
        return "–"
    return values[j] if isinstance(values[j], str) else measure("", values[j])


def _claim(truth: Sequence[Any], claim: Sequence[Any], j: int) -> str:
    text = _value(claim, j)
    return f"{text} ✓" if truth and text == _value(truth, j) and text != "–" else text
