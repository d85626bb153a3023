"""``--write-table`` puts the rows that the tests print into docs/known-results.md, in the place of older ones."""

from pathlib import Path

from tests.known_results.ground import ROWS, key

PAGE = Path(__file__).resolve().parents[2] / "docs" / "known-results.md"
HEAD = """# Known results

What each attack gets beside the published or closed-form figure, written by `make known-results`: median over seeds
with its 95 % bootstrap interval, the bar, and the figure of every seed. A run of some tests replaces their rows alone.
[Measured figures](figures.md) tells the settings in full, and holds the rows that this page does not have yet.

| what | median | published, closed form, or bar | each seed |
| --- | --- | --- | --- |
"""


def pytest_addoption(parser):
    parser.addoption("--write-table", action="store_true", help="write the rows into docs/known-results.md")


def pytest_sessionfinish(session):
    if session.config.getoption("--write-table", default=False):
        PAGE.write_text(merged(PAGE.read_text() if PAGE.exists() else HEAD, ROWS))


def merged(page, rows):
    """The page with ``rows`` (unchanged where nothing is new) in the places of those about the same thing."""
    old = [line for line in page.splitlines() if line.startswith("| ")][2:]
    table = {key(line): line for line in [*old, *rows]}
    return HEAD + "".join(f"{line}\n" for line in table.values())
