"""What a review is argued from: the way of an update, evidence, results by rung, the trade, conditions, gaps."""

import copy

import pytest

from attacks import available
from fedsim import Homomorphic, Scenario, SecureAggregation
from fedsim.observers import GUARANTEED
from fedsim.report.blocks import Table, render
from fedsim.report.decision import conditions
from fedsim.report.flow import Zone, drawn, parts, told
from fedsim.report.matrix import matrix
from fedsim.report.pareto import Place, pareto_blocks, places
from fedsim.report.proven import shown_on
from fedsim.report.reading import Results
from fedsim.report.sections import Context
from fedsim.report.standards import CATALOGUES, GOALS, goal_of
from fedsim.report.style import CSS
from fedsim.report.suite import left_out
from fedsim.report.tiles import Pictures
from fedsim.report.verdicts import verdict
from tests.fedsim.report_fixture import made_up_run

FACES = (("task", "photos"),)


@pytest.fixture
def results():
    return copy.deepcopy(made_up_run()[0])


def way(protocol, **adversary):
    return parts(
        Scenario(name="a", protocol=protocol, adversary=adversary or "honest_but_curious").model_dump(mode="json")
    )


def parties(found):
    return [part.party for part in found if isinstance(part, Zone)]


@pytest.mark.parametrize(
    ("protocol", "through", "said"),
    [
        ([], ["Each client", "Server", "Every client"], "one update, readable"),
        ([SecureAggregation()], ["Each client", "Server", "Every client"], "one masked vector"),
        ([Homomorphic(keys="clients_share_key")], ["Each client", "Server", "Every client"], "the encrypted sum"),
        (
            [Homomorphic(keys="trusted_decryptor")],
            ["Each client", "Server", "Decryptor", "Server", "Every client"],
            "holds the secret key",
        ),
        (
            [Homomorphic(keys="threshold")],
            ["Each client", "Server", "All clients together", "Server", "Every client"],
            "the parts of the decryption",
        ),
    ],
)
def test_the_way_of_an_update_follows_the_protocol(protocol, through, said):
    found = way(protocol)
    assert parties(found) == through
    assert said in told(found)
    assert drawn(found).count("<rect") >= len(through)


@pytest.mark.parametrize(
    "protocol",
    [
        [],
        [SecureAggregation()],
        [SecureAggregation(mode="ideal")],
        [Homomorphic(keys="trusted_decryptor")],
        [Homomorphic(keys="threshold")],
        [Homomorphic(keys="server_holds_key")],
    ],
)
def test_the_next_model_comes_from_the_server_that_stepped_it(protocol):
    server, _, last = way(protocol)[-3:]
    assert server.party == "Server"
    assert server.steps[-1].endswith("steps the model")
    assert last.party == "Every client"
    assert "steps the model. Over the trust boundary goes the next model, in clear" in told(way(protocol))


def test_an_opened_sum_goes_back_to_the_server_that_is_sent_it():
    found = way([Homomorphic(keys="trusted_decryptor")], kind="sum_recipient")
    assert "Over the trust boundary goes the sum, opened. Server, where the adversary is: reads the sum" in told(found)
    assert not found[-1].watched


def test_the_adversary_is_marked_once_where_it_sits():
    def marked(found):
        return [getattr(part, "party", "wire") for part in found if part.watched]

    assert marked(way([])) == ["Server"]
    assert marked(way([SecureAggregation()], kind="eavesdropper")) == ["wire"]
    assert marked(way([Homomorphic(keys="clients_share_key")], kind="sum_recipient")) == ["Every client"]


def test_protection_counts_as_shown_only_where_it_was_measured(results):
    assert shown_on(Results(results), "none", FACES).word == "no defence"
    assert shown_on(Results(results), "DP z=0.01", FACES).word == "shown"
    for measured in results["evidence"].values():
        measured["clients"]["client_dp.noise_std"] |= {"min": 0.0}
    lacking = shown_on(Results(results), "DP z=0.01", FACES)
    assert lacking.word == "lacking"
    assert "was measured, 0.01 was set" in lacking.notes[0]
    assert shown_on(Results({**results, "scenario": {"name": "?"}}), "DP z=0.01", FACES).word == "lacking"


def test_a_failed_seed_is_counted_in_every_row_of_its_combination(results):
    context = Context(Results(results), Pictures({}))
    rows = [row for row in matrix(context).cells if row[2].text.text == "DP z=0.1" and row[3].text == "photos"]
    assert rows
    assert {(row[-1].text, row[-1].note) for row in rows} == {("1", "1 failed")}


def test_what_could_not_start_carries_no_rung(results):
    rows = matrix(Context(Results(results), Pictures({}))).cells
    rungs = {row[4].text.text: row[1].text for row in rows}
    assert rungs["not applicable"] == "–"
    assert rungs["not broken"].startswith("L")


def test_a_protocol_is_beaten_only_by_one_that_is_nowhere_worse():
    plain, noisy, masked = Place("a", 1.0, 0.9, 100), Place("b", 0.0, 0.9, 100), Place("c", 0.0, 0.9, 120)
    assert noisy.beats(plain)
    assert noisy.beats(masked)
    assert not masked.beats(plain)
    assert not plain.beats(plain)


def test_a_difference_that_may_be_chance_beats_nobody():
    alone, summed = Place("DP", 0.0, 0.15, 1_577_063, 8), Place("DP + SA", 0.0, 0.15, 1_577_659, 20)
    assert not alone.beats(summed)
    few, more = Place("a", 0.3, 0.9, 100, 20), Place("b", 0.6, 0.9, 100, 20)
    assert not few.beats(more)
    assert Place("a", 0.3, 0.9, 100, 200).ahead(Place("b", 0.6, 0.9, 100, 200)) == ["examples rebuilt"]
    steady = Place("a", 0.0, 0.85, 100, 8, (0.82, 0.88))
    assert not steady.beats(Place("b", 0.0, 0.83, 100, 8, (0.8, 0.86)))
    assert steady.ahead(Place("b", 0.0, 0.7, 400, 8, (0.69, 0.71))) == ["accuracy", "bytes"]


def test_few_targets_put_no_leak_ahead_of_a_protocol_that_leaked_less():
    leaky, safe = Place("a", 1.0, 0.9, 100, 2), Place("b", 0.0, 0.6, 100, 2)
    assert leaky.ahead(safe) == ["accuracy"]
    assert not leaky.beats(safe)


def test_the_verdict_names_the_epsilon_against_a_server_that_opens_sums(results):
    for cell in results["cells"]:
        if cell["labels"] == {"protocol": "DP z=0.1", "task": "digits"} and cell.get("privacy"):
            stated = {"observer": GUARANTEED, "epsilon": 7.8 + cell["seed"]}
            cell["privacy"] = {**cell["privacy"], "observers": [stated]}
    verdicts = next(b for b in verdict(Context(Results(results), Pictures({}))).blocks if isinstance(b, Table))
    column = list(verdicts.head).index("epsilon")
    notes = {row[0].text.text: row[column].note for row in verdicts.cells}
    assert "on one update" in notes["DP z=0.1"]
    assert "8.80 on sums" in notes["DP z=0.1"]
    assert "on sums" not in notes["DP z=0.01"]


def test_the_front_says_what_it_ignores(results):
    said = " ".join(str(render("{{ b }}", b=block)) for block in pareto_blocks(Context(Results(results), Pictures({}))))
    assert "The front ignores all else: labels" in said
    assert "epsilon against each observer" in said


def test_a_protocol_without_an_answer_has_no_place(results):
    for entry in results["summary"]:
        if entry["labels"]["protocol"] == "DP z=0.1":
            entry["verdict"] = "inconclusive: diverged"
    found, missing = places(Results(results), FACES)
    assert missing == ["DP z=0.1"]
    assert [place.protocol for place in found] == ["none", "DP z=0.001", "DP z=0.01"]


def test_conditions_are_the_settings_that_were_run(results):
    stated = dict(conditions(Results(results), "DP z=0.01"))
    assert stated["noise multiplier z"] == "at least 0.01, for one client"
    assert stated["clipping norm"].startswith("1,")
    assert stated["epsilon"].startswith("5,430 at delta")
    assert "epsilon" not in dict(conditions(Results(results), "none"))


def test_the_smallest_sum_of_all_seeds_is_the_condition(results):
    results["scenario"]["compare"]["protocol"]["none"] = [{"kind": "secure_aggregation"}]
    for size, cell in enumerate(cell for cell in results["cells"] if cell["labels"]["protocol"] == "none"):
        results["evidence"][cell["digest"]] = {"cost": {"fewest_in_a_sum": size + 2}}
    assert dict(conditions(Results(results), "none"))["fewest clients in a sum"] == "at least 2"


def test_every_registered_attack_was_run_or_is_listed_with_its_reason(results):
    tried = {attack["name"] for cell in results["cells"] for attack in cell["attacks"]}
    rest = dict(left_out(Results(results)))
    assert tried | set(rest) == set(available())
    assert not tried & set(rest)
    assert "crafted model" in rest["imprint"]
    assert "finished model" in rest["loss_membership"]


def test_every_attack_has_a_goal_with_its_published_names():
    for name in available():
        assert len(GOALS[goal_of(name)].names) == len(CATALOGUES)
    assert [goal_of(n) for n in ("prior", "ilrg", "analytic", "loss_membership", "source_inference", "model_extraction",
                                 "attribute_map", "property_inference", "model_inversion_labels")] == [
        "guess", "labels", "examples", "membership", "source", "model", "attribute", "property", "classes",
    ]  # fmt: skip


def test_a_long_name_of_a_protocol_wraps_and_figures_do_not():
    rules = [rule.partition("{") for rule in CSS.replace("\n", "").split("}")]
    names = [body for selector, _, body in rules if "swatch" in selector]
    assert any("overflow-wrap:anywhere" in body for body in names)
    assert not any("white-space:nowrap" in body for body in names)
    assert any("white-space:nowrap" in body for selector, _, body in rules if "td.num" in selector.split(","))
