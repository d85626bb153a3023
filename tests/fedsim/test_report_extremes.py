"""What breaks a protocol is shown: its own worst case in pictures and figures, whatever its median says."""

import copy
import re

import pytest

from fedsim.proof import proofs
from fedsim.report.blocks import Cell, Table
from fedsim.report.extremes import extremes, most_leaked
from fedsim.report.flow import WIDTH, drawn, parts
from fedsim.report.markdown import markdown
from fedsim.report.pareto import Place, apart, trade
from fedsim.report.plots import inline
from fedsim.report.proven import shown_on
from fedsim.report.reading import Results
from fedsim.report.sections import Context, judgement
from fedsim.report.tiles import Pictures
from fedsim.report.verdicts import verdict
from fedsim.scenario import Scenario
from tests.fedsim.report_fixture import made_up_run

DIGITS = (("task", "digits"),)


@pytest.fixture(scope="module")
def run():
    return made_up_run()


def context(results, pictures):
    return Context(Results(results), Pictures(pictures))


def test_each_protocol_shows_its_own_worst_and_median_with_what_guessing_reaches(run):
    here = context(*run)
    shown = extremes(here, DIGITS)
    assert [band.name.text for band in shown.bands] == here.results.protocols
    assert {len(band.tiles) for band in shown.bands} == {4}
    hits = here.results.hits_of("DP z=0.01", DIGITS, "analytic", 1)
    reached = sorted((hit.figures["psnr"] for hit in hits.values()), reverse=True)
    lines = [tile.lines for tile in shown.bands[2].tiles]
    assert lines[3][0] == f"rebuilt, {reached[len(reached) // 2]:.1f} dB"
    assert all(re.fullmatch(r"guess [\d.]+ dB", claim[1]) for claim in lines[1::2])


def test_an_example_that_counts_as_rebuilt_comes_before_one_further_above_guessing(run):
    results = copy.deepcopy(run[0])
    attacks = [a for c in results["cells"] if c["labels"]["protocol"] == "DP z=0.1" for a in c["attacks"]]
    victims = [victim for attack in attacks for victim in attack["victims"]]
    for victim, figure in zip(victims, (23.0, 22.0), strict=False):
        victim["figures"]["psnr"] = [figure]
    victims[1]["recovered"] = [True]
    tiles = extremes(context(results, run[1]), DIGITS).bands[3].tiles
    assert tiles[1].lines[0] == "rebuilt, 22.0 dB"


def test_a_median_without_a_claim_is_said_to_have_none(run):
    results = copy.deepcopy(run[0])
    attacks = [a for c in results["cells"] if c["labels"]["protocol"] == "none" for a in c["attacks"]]
    for attack in attacks:
        for victim in attack["victims"][1:]:
            victim["figures"]["psnr"] = [None]
    worst, median = extremes(context(results, run[1]), DIGITS).bands[0].tiles[1::2]
    assert worst.lines[0].startswith("rebuilt, ")
    assert (median.source, median.lines) == (None, ("no claim",))


def test_a_protocol_without_a_claim_says_so_and_without_truth_there_is_no_gallery(run):
    results = copy.deepcopy(run[0])
    for cell in results["cells"]:
        if cell["labels"]["protocol"] == "none":
            cell["attacks"] = []
    assert extremes(context(results, run[1]), DIGITS).bands[0].reason == "no claim to show"
    assert most_leaked(context(results, run[1]), "none", DIGITS) is None
    bare = {key: value for key, value in run[1].items() if not key.endswith("/truth")}
    assert extremes(context(results, bare), DIGITS) is None


def test_the_headline_is_that_of_the_attack_that_broke_the_protocol(run):
    results = copy.deepcopy(run[0])
    for entry in results["summary"]:
        if entry["labels"]["protocol"] == "none" and entry["attack"] == "inverting_gradients":
            entry.update(median=99.0, verdict="not broken by inverting_gradients at rung L7 with the default budget")
    table = next(block for block in verdict(context(results, run[1])).blocks if isinstance(block, Table))
    headline = table.cells[0][table.head.index("strongest attack, median")]
    assert headline.note.splitlines()[0] == "analytic"
    assert headline.note.splitlines()[1].startswith("worst ")


def test_an_epsilon_that_bounds_nothing_says_so(run):
    table = next(block for block in verdict(context(*run)).blocks if isinstance(block, Table))
    notes = [row[table.head.index("epsilon")].note for row in table.cells]
    assert notes[0] == ""
    assert all("bounds next\nto nothing" in note for note in notes[1:])


def test_the_flow_keeps_its_size_and_colour_within_the_page():
    stated = Scenario(name="a", protocol=[{"kind": "secure_aggregation"}]).model_dump(mode="json")
    page = inline(drawn(parts(stated)), "flow-1", "told")
    assert 'font-size="12"' in page
    assert 'fill="var(--ink)"' in page
    sizes = [(float(x), len(text)) for x, text in re.findall(r'<text x="([\d.]+)"[^>]*>([^<]*)<', page)]
    assert max(x + 7.5 * count for x, count in sizes) <= WIDTH


def test_the_trade_is_drawn_where_the_points_are_and_its_ticks_do_not_overlap(run):
    found = [Place("none", 0.03, 0.9, 39_000.0), Place("DP z=0.1", 0.0, 0.8, 39_800.0)]
    figure = trade(found, {"none": [], "DP z=0.1": []}, context(*run).marks)
    assert figure.axes[1].get_xlim()[1] < 0.1
    assert apart([39_000.0, 39_800.0, 263_000.0]) == [39_000.0, 263_000.0]


def test_lines_of_a_cell_stay_lines_in_markdown_and_what_spans_stands_in_each_column():
    table = Table("t", ["", "a", "b"], [["x", "one\ntwo", "3"], ["y", Cell("both", span=2)]])
    assert "| x | one<br>two | 3 |\n| y | both | both |" in markdown(table)


def test_a_lie_that_clients_stopped_is_no_missing_evidence_and_no_open_question(run):
    results = copy.deepcopy(run[0])
    mine = [cell for cell in results["cells"] if cell["labels"] == {"protocol": "DP z=0.1", "task": "digits"}]
    for cell in mine:
        for row in cell["training"][1:]:
            row["lie"] = "stopped by ModelRefused[parallel_rows] (4 of 4 clients)"
        results["evidence"][cell["digest"]]["wire"] |= {"forms": [], "readable_updates": 0}
    results["summary"] = [e for e in results["summary"] if e["labels"]["protocol"] != "DP z=0.1"]
    here = Results(results)
    assert judgement(here, "DP z=0.1", DIGITS).text == "attack stopped"
    assert (shown_on(here, "DP z=0.1", DIGITS).word, shown_on(here, "DP z=0.1", DIGITS).lacking) == (
        "clients refused",
        False,
    )
    for cell in mine:  # masked words that nobody could read
        results["evidence"][cell["digest"]]["wire"]["forms"] = ["masked"]
    assert judgement(Results(results), "DP z=0.1", DIGITS).text == "attack stopped"
    assert shown_on(Results(results), "DP z=0.1", DIGITS).word == "shown"
    results["evidence"][mine[0]["digest"]]["wire"]["readable_updates"] = 1
    assert judgement(Results(results), "DP z=0.1", DIGITS).text == "undecided"
    results["evidence"][mine[0]["digest"]]["wire"] |= {"forms": [], "readable_updates": 0}
    mine[0]["training"][-1]["lie"] = "imprint planted; answers on it came from 1 of 4"
    assert judgement(here, "DP z=0.1", DIGITS).text == "undecided"
    assert shown_on(here, "DP z=0.1", DIGITS).word == "shown"


def test_checks_count_as_shown_where_clients_looked_in_every_round():
    checks = [{"kind": "client_checks"}]
    cell = {"training": [{"round": 0}, {"round": 1}, {"round": 2}], "detection": [{"round": 1, "clients": 4}]}
    (proof,) = proofs(checks, cell, {})
    assert proof.lacking == ("no client's checks were measured in 1 round",)
    cell["detection"].append({"round": 2, "clients": 4})
    assert proofs(checks, cell, {})[0].shown
