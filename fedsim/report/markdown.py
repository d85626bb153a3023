"""The same document as Markdown: each block a second time, for places that show no HTML."""

import re
from collections.abc import Sequence
from functools import singledispatch

from fedsim.report.blocks import (
    Blanks,
    Block,
    Bullets,
    Cell,
    Chip,
    Code,
    Drawing,
    Folded,
    Gallery,
    Heading,
    Link,
    Pair,
    Prose,
    Row,
    Section,
    Several,
    Swatch,
    Table,
)

SPECIAL = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<>|#$"})


def document(title: str, question: str, sections: Sequence[Section], apart: Sequence[Section], note: str) -> str:
    """The whole document; ``note`` stands before the sections ``apart``."""
    parts = [f"# {plain(title)}", plain(question)]
    for i, section in enumerate([*sections, *apart], 1):
        parts += ["---", f"*{plain(note)}*"] if i == len(sections) + 1 else []
        parts += [f'<a id="{section.id}"></a>', f"## {i}. {plain(section.title)}", *map(markdown, section.blocks)]
    return "\n\n".join(filter(None, parts)) + "\n"


def plain(text: object) -> str:
    """Text in which no character means anything to Markdown; one line."""
    return " ".join(str(text).translate(SPECIAL).split())


@singledispatch
def markdown(block: object) -> str:
    """One block as Markdown; whatever is no block is text."""
    return plain(block)


@markdown.register
def _(block: Block) -> str:
    raise TypeError(f"{type(block).__name__}: has no Markdown; register one")


@markdown.register
def _(block: Prose) -> str:
    return f"> {plain(block.text)}" if block.tone == "caution" else plain(block.text)


@markdown.register
def _(block: Heading) -> str:
    return f"### {plain(block.text)}"


@markdown.register
def _(block: Bullets) -> str:
    return "\n".join(f"- {markdown(item)}" for item in block.items)


@markdown.register
def _(block: Chip) -> str:
    return f"**{plain(block.text)}**"


@markdown.register
def _(block: Link) -> str:
    return f"[{plain(block.text)}](#{block.target})"


@markdown.register
def _(block: Several) -> str:
    return block.between.join(map(markdown, block.items))


@markdown.register
def _(block: Swatch) -> str:
    return f"**{plain(block.text)}**"


@markdown.register
def _(block: Cell) -> str:
    text = markdown(block.text) if isinstance(block.text, Block) else _lines(str(block.text))
    return "<br>".join(filter(None, [text, _lines(block.note)]))


def _lines(text: str) -> str:
    """Text whose lines stay lines within a cell."""
    return "<br>".join(map(plain, text.splitlines()))


@markdown.register
def _(block: Table) -> str:
    width = len(block.head)
    rule = ["--:" if title in block.numeric else "---" for title in block.head]
    rows = []
    for row in block.cells:
        texts = [text for cell in row for text in [markdown(cell)] * cell.span]
        rows.append([*texts, *[""] * (width - len(texts))])
    lines = [list(map(plain, block.head)), rule, *rows]
    return f"*{plain(block.caption)}*\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


@markdown.register
def _(block: Drawing) -> str:
    return f"![{plain(block.alt)}](figures/{block.name}.svg)\n\n*{plain(block.caption)}*"


@markdown.register
def _(block: Pair) -> str:
    return plain(block.alts[1])


@markdown.register
def _(block: Row) -> str:
    return "\n\n".join(map(markdown, block.items))


@markdown.register
def _(block: Gallery) -> str:
    """Figures alone: pictures are in the page."""
    lines = []
    for band in block.bands:
        tiles = "; ".join(", ".join(filter(None, tile.lines)) for tile in band.tiles)
        lines.append(f"- {markdown(band.name)}: {plain(band.reason or tiles)}")
    return f"*{plain(block.caption)} The pictures themselves are in report.html.*\n\n" + "\n".join(lines)


@markdown.register
def _(block: Folded) -> str:
    return "\n\n".join([f"**{plain(block.summary)}**", *map(markdown, block.items)])


@markdown.register
def _(block: Code) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
    return f"{fence}\n{block.text}\n{fence}"


@markdown.register
def _(block: Blanks) -> str:
    return "\n".join(f"- {plain(name)}: ____________________" for name in block.names)
