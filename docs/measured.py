"""The rows of docs/figures.md that concern one attack or defence, each with the words above its table."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FIGURES = Path(__file__).with_name("figures.md")


@dataclass(frozen=True)
class Table:
    """One table of measured figures: the section that it stands in, its two head lines, and its rows."""

    section: str
    head: tuple[str, str]
    rows: tuple[str, ...]

    def about(self, name: str) -> tuple[str, ...]:
        """The rows that name ``name``, each with those after it that begin "the same"; all where the head does."""
        wanted = f"`{name}`"
        if wanted in self.head[0]:
            return self.rows
        found: list[str] = []
        going = False
        for row in self.rows:
            going = wanted in row or (going and row.startswith("| the same"))
            found += [row] if going else []
        return tuple(found)


def tables(text: str) -> Iterator[Table]:
    """Every table of a Markdown page."""
    section = ""
    for block in re.split(r"\n(?=## )|\n{2,}", text):
        lines = block.strip().splitlines()
        for line in lines:
            section = line.removeprefix("## ") if line.startswith("## ") else section
        rows = [line for line in lines if line.startswith("|")]
        if len(rows) > 2:
            yield Table(section, (rows[0], rows[1]), tuple(rows[2:]))


def anchor(section: str) -> str:
    """The anchor of a heading, as Python-Markdown makes it."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", section).strip().lower())


def measured(name: str) -> str:
    """What was measured about ``name``, as Markdown; empty where nothing was."""
    parts = []
    for table in tables(FIGURES.read_text()):
        if rows := table.about(name):
            link = f"From [{table.section}](figures.md#{anchor(table.section)}), which has the command:"
            parts.append("\n".join([link, "", *table.head, *rows, ""]))
    return "\n".join(parts)
