"""The worst and the median of each protocol: what leaked most under it, and what its attack got of a middling example.

The galleries hold the same examples in every row; a protocol's own worst case may be none of them.
"""

from collections.abc import Mapping
from typing import Any

from fedsim.report.blocks import Band, Gallery, Pair, Tile
from fedsim.report.gallery import EXACT, NOTHING, about
from fedsim.report.plots import CEILING
from fedsim.report.reading import Hit, Results, Setting, Target, setting_name, unique
from fedsim.report.sections import Context
from fedsim.report.tiles import Pictures
from fedsim.report.wording import MISSING, measure


def most_leaked(context: Context, protocol: str, setting: Setting) -> Pair | None:
    """Truth and claim of the example that leaked most, over attacks, rounds and seeds.

    One that counts as rebuilt comes before all others; among them, the one furthest above what guessing gets.
    """
    best = _strongest(context.results, context.pictures, protocol, setting)
    if best is None:
        return None
    target, hit = max(best[1].items(), key=lambda found: _worth(found[1]))
    first, second = context.pictures.uri(f"{hit.stem}/truth"), context.pictures.uri(f"{hit.stem}/claim")
    if first is None or second is None:
        return None
    words = (
        f"What leaked most with {protocol}, as the client holds it: {about(target)}",
        f"The same, rebuilt: {about(target)}",
    )
    return Pair((first, second), words)


def extremes(context: Context, setting: Setting) -> Gallery | None:
    """Truth beside claim, at worst and in the middle, one row a protocol; None where no truth and claim is stored."""
    results, pictures = context.results, context.pictures
    bands = []
    for protocol in (p for p, its in results.combinations if its == setting):
        best = _strongest(results, pictures, protocol, setting)
        if best is None:
            bands.append(Band(context.swatch(protocol), reason=results.lost(protocol, setting) or "no claim to show"))
            continue
        (attack, rung), hits = best
        worst = max(hits.items(), key=lambda found: _worth(found[1]))
        ranked = sorted(hits.items(), key=lambda found: _reached(found[1]), reverse=True)
        shown = (("worst", worst), ("median", ranked[len(ranked) // 2]))
        tiles = [tile for word, found in shown for tile in _pair(pictures, protocol, word, *found)]
        bands.append(Band(context.swatch(protocol), f"{attack}, rung {rung}", tiles))
    if not any(band.tiles for band in bands):
        return None
    on = f" on {setting_name(setting)}" if setting_name(setting) else ""
    caption = (
        f"Each protocol's own worst and median example{on}, of the attack that came furthest above guessing under it: "
        "the client's to the left, what was rebuilt to the right, with its PSNR and what the better guess reaches. "
        "Worst is what lies furthest above its guess; plain pictures reach higher figures, and are guessed well. The "
        f"median is over all examples; one for which the attack claimed nothing ranks below every figure; {EXACT}."
    )
    return Gallery(caption, 4, bands)


def _pair(pictures: Pictures, protocol: str, word: str, target: Target, hit: Hit) -> list[Tile]:
    """The client's example and the claim."""
    reached, guess = measure("psnr", hit.figures["psnr"]), measure("psnr", _guess(hit.baseline))
    truth = Tile(
        f"Truth of the {word} example with {protocol}: {about(target)}",
        pictures.uri(f"{hit.stem}/truth"),
        (f"{word}, truth", f"client {target.client}, seed {target.seed}"),
    )
    if hit.figures["psnr"] is None:
        return [truth, Tile(f"No claim for the {word} example with {protocol}", None, NOTHING)]
    claim = Tile(
        f"Rebuilt, the {word} with {protocol}: {about(target)}, PSNR {reached} dB, guessing {guess} dB",
        pictures.uri(f"{hit.stem}/claim"),
        (f"rebuilt, {reached} dB", f"guess {guess} dB" if guess != MISSING else ""),
    )
    return [truth, claim]


def _strongest(
    results: Results, pictures: Pictures, protocol: str, setting: Setting
) -> tuple[tuple[str, str], dict[Target, Hit]] | None:
    """The attack and rung that came furthest above guessing, and all that can be shown of it."""
    attempts = results.attempts_of(protocol, setting)
    tried = unique((str(e.get("attack")), e.get("round"), str(e.get("rung"))) for e in attempts)
    shown = [((name, rung), _shown(results, pictures, protocol, setting, name, round)) for name, round, rung in tried]
    claimed = (pair for pair in shown if any(map(_claimed, pair[1].values())))
    return max(claimed, key=lambda pair: max(map(_worth, pair[1].values())), default=None)


def _shown(
    results: Results, pictures: Pictures, protocol: str, setting: Setting, name: str, round: Any
) -> dict[Target, Hit]:
    """Targets of an attack on pictures whose truth is stored, and the claim where there was one."""
    return {
        target: hit
        for target, hit in results.hits_of(protocol, setting, name, round).items()
        if "psnr" in hit.figures
        and f"{hit.stem}/truth" in pictures
        and (not _claimed(hit) or f"{hit.stem}/claim" in pictures)
    }


def _claimed(hit: Hit) -> bool:
    """Whether the attack claimed anything of this target."""
    return hit.figures.get("psnr") is not None


def _reached(hit: Hit) -> float:
    """dB; lowest where nothing was claimed."""
    value = hit.figures["psnr"]
    return float("-inf") if value is None else value


def _guess(baseline: Mapping[str, float | None]) -> float | None:
    """What the better guess reaches, in dB."""
    return max((v for name, v in baseline.items() if name.startswith("psnr") and v is not None), default=None)


def _worth(hit: Hit) -> tuple[bool, float]:
    """Whether the example counts as rebuilt, then dB above the better guess.

    What is beyond telling two pictures apart does not count.
    """
    return hit.rebuilt, min(_reached(hit), CEILING) - (_guess(hit.baseline) or 0.0)
