"""The document's section of pictures: each protocol's worst and median, and the same examples under all of them."""

from typing import Any

from fedsim.report.aims import aims
from fedsim.report.blocks import Block, Folded, Heading, Prose, Section
from fedsim.report.extremes import extremes
from fedsim.report.gallery import picture_gallery
from fedsim.report.reading import Results, Setting, setting_name
from fedsim.report.records import record_tables
from fedsim.report.sections import Context, strength
from fedsim.report.tiles import SIDE
from fedsim.words import counted

ROOM = 4_000_000
"""Characters of pictures after which no further gallery is begun."""


def rebuilt(context: Context) -> Section:
    """Each protocol's worst and median, then a gallery an attack and setting: the strongest open, the others folded."""
    results = context.results
    ranked = {setting: _by_strength(results, setting) for setting in results.settings}
    bodies: dict[Setting, list[tuple[str, list[Block]]]] = {setting: [] for setting in ranked}
    extreme = {setting: extremes(context, setting) for setting in ranked if context.pictures.spent <= ROOM}
    omitted = 0
    for place in range(max(map(len, ranked.values()), default=0)):
        for setting in (setting for setting in ranked if place < len(ranked[setting])):
            name, round, rung = ranked[setting][place]
            if context.pictures.spent > ROOM:
                omitted += 1
                continue
            picture = picture_gallery(results, context.pictures, context.marks, setting, name, round)
            body: list[Block] = [picture] if picture else []
            body += [] if picture else record_tables(results, setting, name, round, rung, _metric(results, name))
            if body:
                bodies[setting].append((f"{name}, round {round}", body))
    blocks: list[Block] = []
    for setting, shown in bodies.items():
        worst = extreme.get(setting)
        if setting_name(setting) and (shown or worst):
            blocks.append(Heading(setting_name(setting).capitalize()))
        blocks += [worst] if worst else []
        blocks += shown[0][1] if shown else []
        blocks += [Folded(f"What {name} rebuilt", body) for name, body in shown[1:]]
    if omitted:
        blocks.append(
            Prose(
                f"{counted(omitted, 'gallery', 'galleries')} not shown here, so that this page stays small: each "
                "setting's strongest attack comes first. The others' pictures are in the run folder, below cells/, and "
                "their figures in the results.",
                "caution",
            )
        )
    if not blocks:
        blocks = [Prose(_nothing(results))]
    pictures = context.pictures
    if pictures.reduced:
        blocks.append(
            Prose(
                f"{counted(pictures.reduced, 'picture')} of more than {SIDE} pixels a side drawn smaller; the figures "
                "come from the claims themselves.",
                "note",
            )
        )
    if pictures.clipped or pictures.broken:
        blocks.append(
            Prose(
                f"Of {counted(pictures.shown, 'picture')}, {pictures.clipped} held values outside [0, 1] and are drawn "
                f"clipped, {pictures.broken} held values that are no numbers and show grey there. The figures come "
                "from the claims themselves.",
                "note",
            )
        )
    return Section("pictures", "What was rebuilt", blocks)


def _nothing(results: Results) -> str:
    """Why no picture or record stands here; what inversions of the model show stands in the section after."""
    inverted = any(entry.get("pictures") for cell in results.cells for entry in cell.get("inferences") or [])
    if not inverted:
        return "No attack of this run rebuilt anything that can be shown."
    said = "gave anything to show" if aims(results).rebuilds else "was run"
    below = "what inversions made of the model's classes stands below"
    return f"No attack that rebuilds examples from updates {said}; {below}."


def _metric(results: Results, attack: str) -> str:
    """The metric that an attack is summarised by."""
    return next((str(s.get("metric")) for s in results.summary if s.get("attack") == attack), "psnr")


def _by_strength(results: Results, setting: Setting) -> list[tuple[str, Any, str]]:
    """(attack, round, rung) of a setting; the one with the highest median under any protocol first."""
    rungs: dict[tuple[str, Any], str] = {}
    reached: dict[tuple[str, Any], tuple[float, float]] = {}
    for protocol in results.protocols:
        for key, records in results.attacks_of(protocol, setting).items():
            if records[0].get("rung") != "L0":
                rungs.setdefault(key, str(records[0].get("rung")))
        for entry in results.summary_of(protocol, setting):
            key = (str(entry.get("attack")), entry.get("round"))
            reached[key] = max(reached.get(key, strength({})), strength(entry))
    return [(*key, rungs[key]) for key in sorted(rungs, key=lambda key: reached.get(key, strength({})), reverse=True)]
