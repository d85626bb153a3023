"""A report on a hundred cells: small enough to mail, honest about what it leaves out, and the same as Markdown."""

import copy
import re

import numpy as np
import pytest

from fedsim.report import markdown, write_report
from fedsim.report.blocks import Block, Cell, Code, Prose, Table
from tests.fedsim.report_fixture import made_up_run

RATES = {f"{rate:g}": rate for rate in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)}


def hundred_cells():
    """112 cells: 4 protocols, 2 tasks, 7 learning rates, 2 seeds; pictures of 64 pixels a side that hold noise."""
    results, pictures = made_up_run()
    generator = np.random.default_rng(3)
    noisy = {}
    for key, value in pictures.items():
        large = np.kron(value, np.ones((1, 64 // value.shape[-1], 64 // value.shape[-1])))
        noisy[key] = large + generator.normal(0, 0.1, large.shape)
    many, cells, summary, evidence = {}, [], [], {}
    for i, rate in enumerate(RATES):
        many |= {f"{i}{key}": value for key, value in noisy.items()}
        for cell in copy.deepcopy(results["cells"]):
            evidence[f"{i}{cell['digest']}"] = results["evidence"].get(cell["digest"], {})
            cell["digest"] = f"{i}{cell['digest']}"
            cell["labels"]["federation.learning_rate"] = rate
            for victim in (victim for attack in cell["attacks"] for victim in attack["victims"]):
                victim["pictures"] = [f"{i}{stem}" for stem in victim["pictures"]]
            cells.append(cell)
        summary += [{**e, "labels": {**e["labels"], "federation.learning_rate": rate}} for e in results["summary"]]
    results["scenario"]["compare"]["federation.learning_rate"] = dict(RATES)
    results["axes"]["federation.learning_rate"] = list(RATES)
    return {**results, "cells": cells, "summary": summary, "evidence": evidence}, many


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    path = tmp_path_factory.mktemp("hundred")
    write_report(*hundred_cells(), path)
    return path


def test_a_hundred_cells_stay_under_ten_megabytes(out):
    assert (out / "report.html").stat().st_size < 10_000_000


def test_galleries_that_are_left_out_are_counted(out):
    page = (out / "report.html").read_text(encoding="utf-8")
    left = int(re.search(r"(\d+) galler(?:y|ies) not shown here", page)[1])
    asked = (1 + 3) * 2 * len(RATES)  # the worst, and three attacks of which one has nothing to show, in each setting
    assert left > 0
    assert left + page.count("<figure class=gallery") <= asked


def test_every_setting_keeps_its_strongest_gallery_as_long_as_there_is_room(out):
    assert (out / "report.html").read_text(encoding="utf-8").count("<figure class=gallery") >= 8


def test_failed_seeds_stand_in_the_rows_that_they_are_missing_from(out):
    text = (out / "report.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| analytic<br>") and "DP z=0.1**" in line]
    failed = [line for line in rows if "| photos" in line]
    assert len(failed) == len(RATES)
    assert all(line.endswith("| 1<br>1 failed |") for line in failed)


def test_markdown_has_every_section_and_figure_of_the_page(out):
    page, text = ((out / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    assert re.findall(r'<section id="([\w-]+)"', page) == re.findall(r'^<a id="([\w-]+)">', text, re.M)
    for name in re.findall(r"\]\(figures/([\w-]+\.svg)\)", text):
        assert (out / "figures" / name).exists()


def test_what_markdown_would_read_as_its_own_is_only_text():
    hostile = "a | b\n# c <script> [x](y) `z` *w* _v_"
    assert markdown.markdown(Prose(hostile)) == r"a \| b \# c \<script\> \[x\](y) \`z\` \*w\* \_v\_"
    row = markdown.markdown(Table("t", ["one", "two"], [[hostile, Cell("k", hostile)]])).splitlines()[-1]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert markdown.markdown(Code("```\nx", "x")).startswith("````\n")


def test_every_block_has_its_markdown():
    kinds, todo = set(), [Block]
    while todo:
        todo += (below := todo.pop().__subclasses__())
        kinds |= set(below)
    assert {kind.__name__ for kind in kinds - set(markdown.markdown.registry)} == set()
