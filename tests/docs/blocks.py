"""The code blocks of a Markdown page, and what it says of those that cannot be run here."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {page.name: page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n\n?)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
FILE = re.compile(r"# (\w+)\.py\n")

SMALLER = {
    "README.md": {
        "seeds=[0, 1, 2]": "seeds=[0]",
        'Attack(name="absolute_matching", rounds=(1, 3))': (
            'Attack(name="absolute_matching", budget={"iterations": 2, "restarts": 1})'
        ),
        "--attack idlg": "--attack idlg --iterations 2 --restarts 1",
    },
}
"""What is made smaller to be run in a test; a page that no longer says it fails."""


@dataclass(frozen=True)
class Block:
    """One fenced block; ``why`` it is not run, empty where it is."""

    language: str
    text: str
    why: str

    @property
    def module(self) -> str:
        """The module that the block is the file of, by its first line; empty where it is none."""
        head = FILE.match(self.text)
        return head[1] if head else ""

    @property
    def commands(self) -> list[str]:
        """The lines that are typed, without what a comment says of them."""
        typed = [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]
        return [re.sub(r"\s{2,}#.*", "", line) for line in typed]


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order, made smaller where it would take long."""
    text = PAGES[page].read_text()
    for said, smaller in SMALLER.get(page, {}).items():
        assert said in text, f"{page} no longer says {said!r}"
        text = text.replace(said, smaller)
    return [Block(found["language"], found["text"], found["why"] or "") for found in BLOCK.finditer(text)]
