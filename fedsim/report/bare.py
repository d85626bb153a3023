"""The sentences on what sums give away whatever the protocol, each once for the protocols that it is about."""

from fedsim.report.blocks import Block, Bullets, Heading
from fedsim.report.sections import Context


def bare_blocks(context: Context) -> list[Block]:
    """One bullet a sentence; nothing where no protocol opens sums."""
    results, evidence = context.results, context.results.raw.get("evidence") or {}
    about: dict[str, list[str]] = {}
    for protocol, setting in results.combinations:
        for cell in results.cells_of(protocol, setting):
            measured = evidence.get(str(cell.get("digest"))) or {}
            for sentence in (measured.get("protocol") or {}).get("what_sums_give_away", ()):
                names = about.setdefault(str(sentence), [])
                names += [protocol] if protocol not in names else []
    if not about:
        return []
    return [
        Heading("What sums give away, whatever the protocol"),
        Bullets([f"{', '.join(names)}: {sentence}" for sentence, names in about.items()]),
    ]
