"""The building blocks of the document: what a section may consist of, and the HTML of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from typing import ClassVar

import jinja2
from markupsafe import Markup

from fedsim.report.palette import Mark


@cache
def _template(source: str) -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(source)


def render(source: str, **names: object) -> Markup:
    """Fill a template with every value escaped, except what is Markup already."""
    return Markup(_template(source).render(**names))


class Block:
    """Part of a section; ``template`` sees the block as ``b``."""

    template: ClassVar[str]

    def __html__(self) -> str:
        return render(self.template, b=self)


@dataclass(frozen=True)
class Prose(Block):
    """A paragraph; ``tone`` is a CSS class (``lead``, ``note``, ``caution``)."""

    text: str
    tone: str = ""
    template = '<p{% if b.tone %} class="{{ b.tone }}"{% endif %}>{{ b.text }}</p>\n'


@dataclass(frozen=True)
class Heading(Block):
    """A heading inside a section."""

    text: str
    template = "<h3>{{ b.text }}</h3>\n"


@dataclass(frozen=True)
class Bullets(Block):
    """A list of sentences."""

    items: Sequence[str]
    template = "<ul class=bullets>{% for item in b.items %}<li>{{ item }}</li>{% endfor %}</ul>\n"


@dataclass(frozen=True)
class Chip(Block):
    """A verdict in one word, told by shape and words before colour."""

    text: str
    tone: str
    template = '<span class="chip {{ b.tone }}">{{ b.text }}</span>'


@dataclass(frozen=True)
class Link(Block):
    """A name that leads to a section of this document."""

    text: str
    target: str
    template = '<a href="#{{ b.target }}">{{ b.text }}</a>'


@dataclass(frozen=True)
class Several(Block):
    """Blocks one after another in one place."""

    items: Sequence[Block]
    between: str = " · "
    template = "{% for item in b.items %}{% if not loop.first %}{{ b.between }}{% endif %}{{ item }}{% endfor %}"


@dataclass(frozen=True)
class Swatch(Block):
    """A protocol's name with its mark."""

    text: str
    mark: Mark
    template = (
        '<span class=swatch><svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">'
        '<path d="{{ b.mark.path }}" fill="{{ b.mark.ink }}"/></svg>{{ b.text }}</span>'
    )


@dataclass(frozen=True)
class Cell(Block):
    """A table cell: text or a block, with an optional quieter second line, over ``span`` columns.

    ``hint`` shows while the pointer rests on the text; it must stand elsewhere in the document too.
    """

    text: object
    note: str = ""
    span: int = 1
    hint: str = ""
    template = (
        '{% if b.hint %}<span title="{{ b.hint }}">{{ b.text }}</span>{% else %}{{ b.text }}{% endif %}'
        "{% if b.note %}<small>{{ b.note }}</small>{% endif %}"
    )


@dataclass(frozen=True)
class Table(Block):
    """A table in a box of its own that scrolls; columns whose title is in ``numeric`` are set right.

    Rows that follow one another with equal first cells share it, unless the reader can filter them: by each column
    in ``filters``, where scripts run.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    numeric: Sequence[str] = ()
    tone: str = ""
    filters: Sequence[str] = ()

    @cached_property
    def cells(self) -> list[list[Cell]]:
        """The rows with every plain value made a cell."""
        return [[value if isinstance(value, Cell) else Cell(value) for value in row] for row in self.rows]

    @cached_property
    def heights(self) -> list[int]:
        """How many rows the first cell of each row spans; 0 where an earlier one does."""
        if self.filters:
            return [1] * len(self.rows)
        groups = (len(list(group)) for _, group in groupby(row[0] for row in self.cells))
        return [height for size in groups for height in (size, *[0] * (size - 1))]

    template = """<div class="scroll {{ b.tone }}{% if b.rows|length <= 8 %} short{% endif %}" role=region tabindex=0 \
aria-label="{{ b.caption }}"><table>
<caption>{{ b.caption }}</caption>
<thead><tr>{% for title in b.head %}<th scope=col{% if title in b.numeric %} class=num{% endif %}\
{% if title in b.filters %} data-filter{% endif %}>{{ title }}</th>\
{% endfor %}</tr></thead>
<tbody>
{% for row in b.cells %}
{% set height = b.heights[loop.index0] %}
<tr>{% for cell in row %}{% if loop.first %}{% if height %}<th{% if height > 1 %} scope=rowgroup rowspan={{ height }}\
{% else %} scope=row{% endif %}>{{ cell }}</th>{% endif %}{% else %}\
<td{% if cell.span > 1 %} colspan={{ cell.span }}{% elif b.head[loop.index0] in b.numeric %} class=num{% endif %} \
data-label="{{ b.head[loop.index0] }}">{{ cell }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
"""


@dataclass(frozen=True)
class Drawing(Block):
    """A plot as inline SVG, with the sentence that a reader who cannot see it gets."""

    svg: Markup
    caption: str
    name: str
    alt: str
    template = "<figure class=plot>{{ b.svg }}<figcaption>{{ b.caption }}</figcaption></figure>\n"


@dataclass(frozen=True)
class Pair(Block):
    """Two small pictures side by side, each with the words for who cannot see it."""

    sources: tuple[str, str]
    alts: tuple[str, str]
    template = (
        "<span class=two>{% for source in b.sources %}"
        '<img src="{{ source }}" alt="{{ b.alts[loop.index0] }}">{% endfor %}</span>'
    )


@dataclass(frozen=True)
class Row(Block):
    """Blocks side by side where there is room."""

    items: Sequence[Block]
    tone: str = "pair"
    template = "<div class={{ b.tone }}>{% for item in b.items %}{{ item }}{% endfor %}</div>\n"


@dataclass(frozen=True)
class Tile:
    """One picture with the lines under it; without a source, an empty frame with the lines alone."""

    alt: str
    source: str | None = None
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Band:
    """A row of the gallery: whose it is, its tiles, or why it has none."""

    name: object
    note: str = ""
    tiles: Sequence[Tile] = ()
    reason: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Gallery(Block):
    """Truth above reconstructions, column by column the same targets."""

    caption: str
    columns: int
    bands: Sequence[Band]
    template = """<figure class=gallery style="--columns:{{ b.columns }}">
{% for band in b.bands %}
<div class="band {{ band.tone }}"><div class=who>{{ band.name }}{% if band.note %}<small>{{ band.note }}</small>\
{% endif %}</div>
{% if band.reason %}<p class=reason>{{ band.reason }}</p>{% else %}<ul class=tiles>
{% for tile in band.tiles %}
<li>{% if tile.source %}<img src="{{ tile.source }}" alt="{{ tile.alt }}">{% else %}<span class=empty role=img \
aria-label="{{ tile.alt }}"></span>{% endif %}{% for line in tile.lines %}<span{% if loop.first %} class=first\
{% endif %}>{{ line }}</span>{% endfor %}</li>
{% endfor %}
</ul>{% endif %}</div>
{% endfor %}
<figcaption>{{ b.caption }}</figcaption></figure>
"""


@dataclass(frozen=True)
class Folded(Block):
    """Something long behind one line; printed open, or where it is raw detail not at all."""

    summary: str
    items: Sequence[Block]
    printed: bool = True
    template = (
        "<details{% if not b.printed %} class=unprinted{% endif %}><summary>{{ b.summary }}"
        "</summary>{% for item in b.items %}{{ item }}{% endfor %}</details>\n"
    )


@dataclass(frozen=True)
class Code(Block):
    """Text as it is."""

    text: str
    label: str
    template = '<pre tabindex=0 role=region aria-label="{{ b.label }}"><code>{{ b.text }}</code></pre>\n'


@dataclass(frozen=True)
class Blanks(Block):
    """Lines to be filled in by hand, each under its name."""

    names: Sequence[str]
    template = (
        "<dl class=blanks>{% for name in b.names %}<div><dt>{{ name }}</dt><dd><span aria-label="
        '"to be filled in" role=img></span></dd></div>{% endfor %}</dl>\n'
    )


@dataclass(frozen=True)
class Section:
    """A numbered part of the document."""

    id: str
    title: str
    blocks: Sequence[Block]
