"""The report: sections put in order, written as one HTML file that needs nothing else, as Markdown, and the plots."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from fedsim.report import (
    adversaries,
    apart,
    assurance,
    crafted,
    decision,
    dpia,
    holdings,
    markdown,
    measured,
    protocols,
    rebuilt,
    residual,
    scope,
    seen,
    shipped,
    suite,
    verdicts,
)
from fedsim.report.aims import asked_of
from fedsim.report.blocks import Section, render
from fedsim.report.page import PAGE
from fedsim.report.reading import PROTOCOL, Results
from fedsim.report.script import SCRIPT
from fedsim.report.sections import Context
from fedsim.report.style import CSS
from fedsim.report.tiles import Pictures
from fedsim.store import write_bytes
from fedsim.words import counted, listed

SECTIONS: tuple[Callable[[Context], Section | None], ...] = (
    verdicts.verdict,
    scope.scope,
    holdings.assets,
    adversaries.adversary,
    seen.who_sees_what,
    assurance.side_channels,
    suite.suite,
    measured.leakage,
    rebuilt.rebuilt,
    shipped.shipped,
    assurance.privacy,
    measured.utility,
    assurance.cost,
    crafted.detection,
    residual.residual,
    decision.decision,
    dpia.dpia,
    assurance.limits,
    assurance.reproduce,
)
APART: tuple[Callable[[Context], Section], ...] = (protocols.side_by_side, apart.evidence, apart.this_run)
"""What belongs to one run alone, and differs between two runs of the same scenario."""
APART_NOTE = (
    "Everything above is the same for the same scenario and seeds. What follows belongs to this one run and stands "
    "outside any comparison."
)


def write_report(results: Mapping[str, Any], pictures: Mapping[str, np.ndarray], out: Path) -> Path:
    """Write ``out``/report.html, ``out``/report.md and ``out``/figures/*.svg; return the path of the page.

    ``results`` is the content of results.json; ``pictures`` maps keys such as ``<cell>/<attack>/<client>/<i>/truth``
    to float arrays (C, H, W) or (H, W) in [0, 1]. The same input gives the same bytes. Raises ValueError for a
    picture of another shape, StoreError where ``out`` cannot be written. Each file is written whole or not at all.
    """
    context = Context(Results(results), Pictures(pictures))
    body = [made for section in SECTIONS if (made := section(context)) is not None]
    ending = [section(context) for section in APART]
    title, asked = str(context.results.scenario.get("name") or "Unnamed scenario"), question(context.results)
    page = render(
        PAGE,
        title=title,
        question=asked,
        css=Markup(CSS),
        script=Markup(SCRIPT),
        sections=body,
        apart=ending,
        note=APART_NOTE,
        version=str(results.get("fedsim") or ""),
    )
    figures = out / "figures"
    for stale in set(figures.glob("*.svg")) - {figures / f"{name}.svg" for name in context.figures}:
        stale.unlink()
    for name, text in context.figures.items():
        write_bytes(figures / f"{name}.svg", text.encode())
    path = out / "report.html"
    write_bytes(path, page.encode())
    write_bytes(out / "report.md", markdown.document(title, asked, body, ending, APART_NOTE).encode())
    return path


def question(results: Results) -> str:
    """What the run asks, and what it compares."""
    task = results.scenario.get("task") or {}
    axes = results.raw.get("axes") or {}
    data = [str(label) for label in axes.get("task", [])] or [str(task.get("dataset", "data"))]
    seeds = counted(len(results.scenario.get("seeds") or []), "seed")
    others = {axis: labels for axis, labels in axes.items() if axis not in ("task", PROTOCOL)}
    compared = [
        f"{axis.split('.')[-1].replace('_', ' ')} {listed(list(map(str, own)))}" for axis, own in others.items()
    ]
    if len(results.protocols) > 1 or not compared:
        compared.insert(0, listed(results.protocols) or "no protocol")
    return f"{asked_of(results, listed(data))} Compared: {'; '.join(compared)}; {seeds}."
