"""The site: every page is written, every link leads somewhere, and what generated pages tell one to type works."""

import re

import pytest

from attacks import available
from docs.build import BrokenLink, relinked, write_pages
from docs.measured import anchor, tables
from docs.reference import usage
from fedsim import Scenario
from fedsim.scripts import available_scripts
from tests.docs.blocks import ROOT


def test_every_attack_defence_and_scenario_has_a_page(tmp_path):
    pages = set(write_pages(tmp_path / "pages"))
    assert {f"attacks/{name}.md" for name in available()} < pages
    assert {f"scenarios/{name}.md" for name in available_scripts()} < pages
    assert {f"protocols/{kind}.md" for kind in ("client_dp", "secure_aggregation", "homomorphic")} < pages
    told = (tmp_path / "pages/attacks/imprint.md").read_text()
    for words in ("Robbing the Fed", "plant=Imprint()", "stopped by", "1000 bins"):
        assert words in told


def test_a_link_to_nothing_stops_the_build():
    with pytest.raises(BrokenLink, match=r"page\.md links to nowhere\.md"):
        relinked("see [this](nowhere.md)", ROOT / "docs", "page.md", {})


@pytest.mark.parametrize("name", available())
def test_what_an_attack_page_says_to_type_is_a_scenario(name):
    names = {}
    exec(usage(available()[name]), names)
    assert isinstance(names["scenario"], Scenario)


def test_tables_of_figures_are_found_with_their_sections():
    page = "# Figures\n\n## One, two\n\n| what | m |\n| --- | --- |\n| `a` x | 1 |\n| the same y | 2 |\n| `b` | 3 |\n"
    (table,) = tables(page)
    assert (table.section, anchor(table.section)) == ("One, two", "one-two")
    assert table.about("a") == ("| `a` x | 1 |", "| the same y | 2 |")
    assert table.about("b") == ("| `b` | 3 |",)


def test_scenarios_told_are_scenarios_there():
    told = re.findall(r"^## (\w+)$", (ROOT / "docs/scenarios.md").read_text(), re.MULTILINE)
    assert set(told) <= {path.stem for path in (ROOT / "scenarios").glob("*.py")}
    assert told
