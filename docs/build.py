"""Build the documentation as a site: ``python -m docs.build`` writes ``build/site``, and any broken link stops it.

The pages in this folder and the README are taken as they are; the pages of attacks, protocols and scenarios are
generated from the registries, the docstrings and the measured figures, so that none can fall behind the code.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from docs.reference import reference_pages

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "pages"
SITE = ROOT / "build" / "site"
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")


class BrokenLink(ValueError):
    """A page names a file that is not there."""


def written_pages() -> dict[str, Path]:
    """The pages that people wrote: where each stands in the site, and its file."""
    return {"index.md": ROOT / "README.md", **{page.name: page for page in sorted((ROOT / "docs").glob("*.md"))}}


def relinked(text: str, folder: Path, place: str, places: Mapping[Path, str]) -> tuple[str, set[Path]]:
    """``text`` with its links, relative to ``folder``, as they must read at ``place``; the other files it names.

    ``places`` says where in the site each page stands. Raises BrokenLink for what is neither a page nor a file.
    """
    named: set[Path] = set()

    def moved(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / link[1]))
        if target not in places:
            if not target.is_file():
                raise BrokenLink(f"{place} links to {link[1]}, which is no file")
            named.add(target)
        goal = places.get(target, f"source/{target.relative_to(ROOT)}")
        return f"]({os.path.relpath(goal, Path(place).parent)}{link[2] or ''})"

    return LINK.sub(moved, text), named


def write_pages(folder: Path = PAGES) -> list[str]:
    """Write every page of the site, and the files that they link to, into ``folder``; the names of the pages."""
    shutil.rmtree(folder, ignore_errors=True)
    written, generated = written_pages(), reference_pages()
    scripts = {script: f"scenarios/{script.stem}.md" for script in (ROOT / "scenarios").glob("*.py")}
    places = {file: page for page, file in written.items()} | scripts
    texts = {page: (file.read_text(), file.parent, places) for page, file in written.items()}
    places_too = places | {ROOT / "docs" / page: page for page in generated}
    texts |= {page: (text, ROOT / "docs", places_too) for page, text in generated.items()}
    for page, (text, base, known) in texts.items():
        moved, named = relinked(text, base, page, known)
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text(moved)
        for source in named:
            copy = folder / "source" / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
    return list(texts)


def navigation(pages: list[str]) -> list[Mapping[str, object]]:
    """First the way in, then the reference."""
    first = ["index.md", "tutorial.md", "review.md", "scenarios.md", "extending.md"]
    last = ["glossary.md", "limits.md", "figures.md"]
    groups: list[Mapping[str, object]] = [
        {name.title(): [page for page in pages if page.startswith(f"{name}/")]}
        for name in ("scenarios", "attacks", "protocols")
    ]
    others = [page for page in pages if "/" not in page and page not in (*first, *last)]
    return [
        {"Start": [page for page in first if page in pages] + others},
        *groups,
        {"Background": [page for page in last if page in pages]},
    ]


def build() -> int:
    """Write the pages and turn them into HTML; MkDocs' exit code."""
    pages = write_pages()
    config = {**yaml.safe_load((ROOT / "docs" / "mkdocs.yml").read_text()), "nav": navigation(pages)}
    config |= {"docs_dir": str(PAGES), "site_dir": str(SITE)}
    settings = PAGES.with_suffix(".yml")
    settings.write_text(yaml.safe_dump(config, sort_keys=False))
    return subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(settings)]).returncode


if __name__ == "__main__":
    sys.exit(build())
