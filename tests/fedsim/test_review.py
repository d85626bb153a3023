"""What a review rests on: two runs told apart from noise, and a policy that missing evidence cannot pass."""

import copy
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from rich.console import Console

from fedsim import ClientDP, Federation, Scenario, SecureAggregation, Task, run
from fedsim.check import check, write_junit
from fedsim.difference import difference, load_results
from fedsim.policy import Policy, PolicyError
from fedsim.proof import proofs
from fedsim.report.terminal import print_difference
from fedsim.store import StoreError

ROOT = Path(__file__).parents[2]
POLICY = """
schema_version = 1
where = { protocol = "DP + SA" }
max_epsilon = 20
min_cohort = 5
min_seeds = 2

[[leakage]]
metric = "psnr"
at_most = 20
attacks = ["analytic"]
"""


def scenario(**changes):
    noisy = ClientDP(clip=1.0, noise_multiplier=0.5)
    fields = {
        "name": "review",
        "task": Task(dataset="digits", model_options={"hidden": [16]}),
        "federation": Federation(clients=5),
        "attacks": ["analytic", "prior"],
        "seeds": [0, 1],
        "compare": {"protocol": {"none": [], "DP": [noisy], "DP + SA": [noisy, SecureAggregation(clip=4.0)]}},
    }
    return Scenario(**{**fields, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run(scenario(), tmp_path_factory.mktemp("review") / "a").out


@pytest.fixture
def results(folder):
    return copy.deepcopy(load_results(folder))


@pytest.fixture
def policy(tmp_path):
    (tmp_path / "policy.toml").write_text(POLICY)
    return Policy.load(tmp_path / "policy.toml")


def broken(results, policy):
    return {ruling.rule: ruling.says for ruling in check(results, policy) if not ruling.passed}


def changed(policy, **fields):
    return Policy(**{**policy.model_dump(), **fields})


def test_a_protected_setting_passes_and_a_bare_one_does_not(results, policy):
    assert broken(results, policy) == {}
    found = broken(results, changed(policy, where={"protocol": "none"}))
    assert set(found) == {"max_epsilon", "min_cohort", "leakage of examples (psnr) up to L11"}
    assert "psnr" in found["leakage of examples (psnr) up to L11"]
    assert "1 client in" in found["min_cohort"]


@pytest.mark.parametrize(
    ("spoil", "rule", "says"),
    [
        (lambda e: e.clear(), "evidence of client_dp", "no client measured"),
        (lambda e: e["clients"]["client_dp.noise_std"].update(min=0.1), "evidence of client_dp", "noise of 0.1"),
        (lambda e: e["clients"]["client_dp.norm_after"].update(max=1.1), "evidence of client_dp", "above the clip"),
        (lambda e: e["clients"]["client_dp.noise_std"].update(count=3), "evidence of client_dp", "3 of 5 updates"),
        (lambda e: e["wire"].update(forms=["masked", "plain"]), "evidence of secure_aggregation", "plain crossed"),
        (lambda e: e["wire"].pop("masked_byte_p_value"), "evidence of secure_aggregation", "not tested"),
        (lambda e: e["wire"].update(masked_byte_p_value=1e-9), "evidence of secure_aggregation", "not uniform"),
    ],
)
def test_missing_or_spoiled_evidence_cannot_pass(results, policy, spoil, rule, says):
    for cell in [cell for cell in results["cells"] if cell["labels"] == {"protocol": "DP + SA"}]:
        spoil(results["evidence"][cell["digest"]])
    assert says in broken(results, policy)[rule]


def test_what_was_not_done_cannot_pass(results, policy):
    assert (
        "idlg was not run" in broken(results, changed(policy, leakage=[{"at_most": 0, "attacks": ["idlg"]}])).values()
    )
    assert broken(results, changed(policy, min_seeds=3)).keys() == {"min_seeds"}
    results["cells"][0].update(labels={"protocol": "DP + SA"}, status="failed", cause="it broke")
    assert broken(results, policy)["every cell finished"] == "it broke"
    for row in results["summary"]:
        row["statuses"] = ["diverged"]
    assert "proves nothing: diverged" in broken(results, policy)["leakage of examples (psnr) up to L11"]
    results["summary"] = []
    assert "was not run" in broken(results, policy)["leakage of examples (psnr) up to L11"]


def test_a_cell_that_is_not_there_cannot_pass(results, policy):
    results["cells"] = [cell for cell in results["cells"] if cell["seed"] == 0]
    assert broken(results, changed(policy, min_seeds=None)) == {"every cell finished": "is not among the results"}


@pytest.mark.parametrize(
    ("protocol", "wire", "lacking"),
    [
        ({"server_holds_secret_key": False}, ["ciphertext"], []),
        ({}, ["ciphertext"], ["nobody looked whether the server holds the secret key"]),
        ({"server_holds_secret_key": True}, ["ciphertext"], ["the server holds the secret key"]),
        (
            {"server_holds_secret_key": False, "clear_parameters": 3},
            ["ciphertext"],
            ["3 parameters travelled in clear"],
        ),
        ({"server_holds_secret_key": False}, [], ["nothing crossed the wire, not ciphertext alone"]),
    ],
)
def test_encryption_is_shown_by_the_wire_and_by_who_holds_the_key(protocol, wire, lacking):
    (proof,) = proofs([{"kind": "homomorphic"}], {}, {"protocol": protocol, "wire": {"forms": wire}})
    assert list(proof.lacking) == lacking


def test_a_defence_that_nobody_can_probe_is_not_shown():
    (proof,) = proofs([{"kind": "rot13"}], {}, {})
    assert not proof.shown


def test_secure_aggregation_that_was_only_imagined_is_no_evidence(tmp_path, policy):
    ideal = SecureAggregation(clip=4.0, mode="ideal")
    result = run(scenario(seeds=[0], compare=None, protocol=[ideal]), tmp_path / "ideal")
    found = broken(result.results, changed(policy, where={}, max_epsilon=None, min_seeds=None))
    assert "no cryptography ran" in found["evidence of secure_aggregation"]


def test_a_rung_below_which_nothing_was_tried_is_not_passed(results, policy):
    rule = {"metric": "psnr", "at_most": 20, "up_to": "L1"}
    assert "no attack at L1" in broken(results, changed(policy, leakage=[rule]))["leakage of examples (psnr) up to L1"]


def test_attacks_that_claim_nothing_of_an_asset_do_not_pass_its_rule(tmp_path, policy):
    read = run(scenario(attacks=["prior", "label_counts"], seeds=[0]), tmp_path / "labels").results
    asked = {"max_epsilon": None, "min_seeds": None, "leakage": [{"at_most": 0}]}
    (said,) = broken(read, changed(policy, **asked)).values()
    assert said == "no attack that was run claims anything about examples"
    asked["leakage"] = [{"at_most": 1, "asset": "labels"}]
    assert broken(read, changed(policy, **asked)) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_epsilom = 3", "nearest: max_epsilon"),
        ("[[leakage]]\nat_most = 1\nmetrik = 'psnr'", "nearest: metric"),
        ("[[leakage]]\nat_most = 1\nmetric = 'psnrr'", "nearest: psnr"),
        ("[[leakage]]\nat_most = 100", "at_most = 100: rebuilt is a share.*between 0 and 1"),
        ("[[leakage]]\nat_most = -0.1\nmetric = 'columns'", "at_most = -0.1: columns is a share"),
        ("[[leakage]]\nat_most = 1.5\nasset = 'membership'", "at_most = 1.5: membership is a share"),
        ("[[leakage]]\nat_most = 1\nasset = 'membership'\nmetric = 'psnr'", "means nothing for asset = 'membership'"),
        ("epsilon_against = 'an outsider'\n[[leakage]]\nat_most = 1", "judges nothing without max_epsilon"),
        ("[[leakage]]\nat_most = 1\nup_to = 'L12'", "no rung"),
        ("[[leakage]]\nat_most = 1\nattacks = ['analitic']", "nearest: analytic"),
        ("max_epsilon = -1", "greater than 0"),
        ("where = 3", "where"),
        ("max_epsilon = ", "is no TOML"),
    ],
)
def test_a_policy_with_a_mistake_is_refused(tmp_path, text, says):
    path = tmp_path / "policy.toml"
    path.write_text("schema_version = 1\n" + text)
    with pytest.raises(PolicyError, match=says):
        Policy.load(path)
    path.write_text("schema_version = 2\n" + POLICY.replace("schema_version = 1", ""))
    with pytest.raises(PolicyError, match="schema_version"):
        Policy.load(path)


def test_what_is_judged_in_decibels_is_no_share():
    rules = [{"at_most": 25, "metric": "psnr"}, {"at_most": 25, "asset": "features"}]
    assert Policy(schema_version=1, leakage=rules).leakage[0].at_most == 25


@pytest.mark.parametrize(
    "spoil", [lambda e: e.clear(), lambda e: (e.pop("cost"), e["wire"].update(readable_updates=1))]
)
def test_a_cohort_that_nobody_looked_at_is_unknown_and_no_number(results, policy, spoil):
    for cell in [cell for cell in results["cells"] if cell["labels"] == {"protocol": "DP + SA"}]:
        spoil(results["evidence"][cell["digest"]])
    assert broken(results, policy)["min_cohort"].startswith("unknown ")


def test_epsilon_can_be_judged_against_one_observer(results, policy):
    stated = next(cell["privacy"] for cell in results["cells"] if cell["labels"] == {"protocol": "DP + SA"})
    found = {row["observer"]: row["epsilon"] for row in stated["observers"]}
    assert found["an outsider"] < stated["epsilon"]
    asked = changed(policy, max_epsilon=(found["an outsider"] + stated["epsilon"]) / 2)
    assert "max_epsilon" in broken(results, asked)
    assert broken(results, changed(asked, epsilon_against="an outsider")) == {}
    said = broken(results, changed(asked, epsilon_against="the postman"))["max_epsilon"]
    assert "no epsilon holds against the postman (the run states it against: the server" in said
    assert "an outsider" in said


def test_a_scenario_that_cannot_be_read_is_refused_by_its_file(results, policy):
    results["scenario"]["colour"] = "blue"
    with pytest.raises(StoreError, match=r"runs/a/results\.json: scenario: no field 'colour'.*fedsim that wrote it"):
        check(results, policy, "runs/a/results.json")


def test_a_setting_that_the_run_lacks_is_named(results, policy):
    with pytest.raises(PolicyError, match=r"no such setting.*DP \+ SA"):
        check(results, changed(policy, where={"protocol": "HE"}))


def test_the_command_line_tells_pass_broken_and_bad_input_apart(folder, tmp_path):
    path, junit = tmp_path / "policy.toml", tmp_path / "reports" / "junit.xml"

    def fedsim(*words):
        return subprocess.run([sys.executable, "-m", "fedsim", *words], cwd=ROOT, capture_output=True, text=True)

    path.write_text(POLICY)
    assert fedsim("check", folder, "--policy", path).returncode == 0
    path.write_text(POLICY.replace("DP + SA", "none"))
    done = fedsim("check", folder, "--policy", path, "--junit", junit)
    assert done.returncode == 1
    assert "BROKEN max_epsilon (none, seed 0): no epsilon holds" in done.stdout
    suite = ElementTree.parse(junit).getroot()
    failures = [case for case in suite if case.find("failure") is not None]
    assert int(suite.get("failures")) == len(failures) > 0
    done = fedsim("check", folder, "--policy", path, "--junit", path / "junit.xml")
    assert (done.returncode, "cannot be written" in done.stderr) == (2, True)
    path.write_text("nonsense")
    assert fedsim("check", folder, "--policy", path, "--junit", junit).returncode == 2
    (case,) = ElementTree.parse(junit).getroot()
    assert "is no TOML" in case.find("error").get("message")
    assert fedsim("check", tmp_path, "--policy", path).returncode == 2
    done = fedsim("diff", folder, folder)
    assert done.returncode == 0
    assert "Scenario: the same" in done.stdout


def test_junit_names_every_ruling(results, policy, tmp_path):
    several = [{"metric": "psnr", "at_most": 20}, {"at_most": 0}, {"at_most": 1, "asset": "labels"}]
    for row in [row for row in results["summary"] if row["attack"] == "analytic"]:
        results["summary"].append({**row, "attack": "idlg"})
    rulings = check(results, changed(policy, leakage=several))
    write_junit(rulings, tmp_path / "junit.xml")
    cases = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(cases) == len(rulings)


def test_a_run_differs_in_nothing_from_itself(results):
    found = difference(results, results)
    assert not found.scenario
    assert not found.surroundings
    assert {figure.reading for figure in found.figures} == {"the same"}


def test_a_change_is_told_from_noise(results, tmp_path):
    seeds = run(scenario(seeds=[2, 3]), tmp_path / "seeds").results
    found = difference(results, seeds)
    assert [change.what for change in found.scenario] == ["seeds"]
    readings = {(f.setting, f.what): f for f in found.figures}
    assert readings["DP + SA", "analytic, round 1: median psnr"].reading == "within noise"

    louder = copy.deepcopy(results)
    for cell in louder["cells"]:
        for attack in cell["attacks"]:
            for victim in attack["victims"]:
                victim["figures"]["psnr"] = [value + 30 for value in victim["figures"]["psnr"]]
    readings = {(f.setting, f.what): f for f in difference(results, louder).figures}
    assert readings["DP + SA", "analytic, round 1: median psnr"].reading == "changed"
    assert readings["none", "analytic, round 1: median psnr"].reading.startswith("differs; with fewer than")


def test_labels_and_inference_attacks_are_compared_too(results):
    def told(run, at):
        for cell in run["cells"]:
            entry = {"name": "loss_membership", "round": 1, "headline": "auc", "figures": {"auc": {"value": at}}}
            cell["inferences"] = [entry]

    other = copy.deepcopy(results)
    told(results, 0.5)
    told(other, 0.9)
    readings = {(f.setting, f.what): f for f in difference(results, other).figures}
    found = readings["none", "loss_membership, round 1: auc"]
    assert (found.a, found.b) == (0.5, 0.9)
    assert found.reading.startswith("differs; with fewer than")
    assert readings["none", "analytic, round 1: share of labels right"].reading == "the same"
    for cell in other["cells"]:
        cell["inferences"] = []
    readings = {(f.setting, f.what): f.reading for f in difference(results, other).figures}
    assert readings["none", "loss_membership, round 1: auc"] == "in one run only"


def changes(found):
    return {change.what: (change.a, change.b) for change in found}


def test_a_verdict_that_turned_and_the_share_rebuilt_come_first(results):
    broken, held = copy.deepcopy(results), copy.deepcopy(results)
    for side, rebuilt, said in ((broken, 12, "broken at rung L2 by analytic"), (held, 0, "not broken at rung L2 by x")):
        for row in side["summary"]:
            if (row["labels"], row["attack"]) == ({"protocol": "DP + SA"}, "analytic"):
                row.update(verdict=said, rebuilt=rebuilt, n=20)
    found = difference(broken, held)
    turned = {"DP + SA: analytic, round 1": ("broken at rung L2", "not broken at rung L2")}
    assert changes(found.verdicts) == turned
    (share,) = [figure for figure in found.figures if figure.reading == "changed"]
    assert (share.what, share.a, share.b) == ("analytic, round 1: share rebuilt", 0.6, 0.0)
    console = Console(record=True, width=200)
    print_difference(found, console)
    said = console.export_text()
    assert said.index("not broken at rung L2") < said.index("Scenario: the same")
    assert "1 of 1 figure tested changed at the 5% level; chance alone would call about 0.1" in said


def test_budgets_and_figures_alone_turn_no_verdict(results):
    other = copy.deepcopy(results)
    for row in results["summary"]:
        row["verdict"] = "not broken at rung L2 by analytic with budget iterations 10"
    for row in other["summary"]:
        row["verdict"] = "not broken at rung L2 by analytic with budget default"
    assert not difference(results, other).verdicts


def test_an_inference_that_tells_more_turns_its_verdict(results):
    other = copy.deepcopy(results)
    for side, told in ((results, False), (other, True)):
        row = {"labels": {"protocol": "none"}, "attack": "loss_membership", "round": 1, "rung": "L1", "told": told}
        side["inference_summary"] = [
            {**row, "headline": "auc", "figures": {"auc": {"value": 0.6}}, "statuses": ["done"]},
            {**row, "attack": "lira", "headline": "auc", "figures": {}, "statuses": ["not_applicable"]},
        ]
    expected = {"none: loss_membership, round 1": ("not shown to be told at rung L1", "told at rung L1")}
    assert changes(difference(results, other).verdicts) == expected


def test_evidence_that_is_gone_is_told_even_if_it_is_gone_from_both(results):
    bare = copy.deepcopy(results)
    bare["evidence"] = {digest: {} for digest in bare["evidence"]}
    found = changes(difference(results, bare).evidence)
    assert found.keys() == {"DP: client_dp", "DP + SA: client_dp", "DP + SA: secure_aggregation"}
    assert found["DP: client_dp"] == ("shown", "not shown: no client measured its clipping and noise")
    assert changes(difference(bare, bare).evidence).keys() == found.keys()
    assert not difference(results, results).evidence


def test_cells_that_failed_or_are_gone_are_told(results):
    other = copy.deepcopy(results)
    other["cells"][0].update(status="failed", cause="it broke")
    gone = other["cells"].pop()
    assert changes(difference(results, other).unfinished) == {
        "none, seed 0": ("finished", "failed: it broke"),
        f"{gone['labels']['protocol']}, seed {gone['seed']}": ("finished", "not among the results"),
    }


def test_runs_of_another_fedsim_can_be_compared_but_show_no_evidence(results):
    results["scenario"]["colour"] = "blue"
    found = difference(results, results)
    assert "cannot tell what was to be on" in changes(found.evidence)["DP + SA"][0]
    assert not found.unfinished


def test_results_of_another_schema_are_refused(folder, tmp_path):
    with pytest.raises(StoreError, match=r"holds no results\.json"):
        load_results(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(StoreError, match="schema 99"):
        load_results(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"schema_version": 1, "cells": [], "axes": {}}))
    with pytest.raises(StoreError, match="lacks scenario, summary, evidence, environment; move it away"):
        load_results(tmp_path)
    (tmp_path / "results.json").write_text('{"schema_ver')
    with pytest.raises(StoreError, match="cannot be read"):
        load_results(tmp_path)
