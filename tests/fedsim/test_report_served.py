"""The report of runs in which the finished model is attacked: who attacks, what was told, and what was never tried."""

import copy
import re

import numpy as np
import pytest

from attacks.controls import Noise
from fedsim import ClientDP, Deployment, Scenario
from fedsim.report import write_report
from fedsim.report.adversaries import adversary
from fedsim.report.canaries import canary_blocks
from fedsim.report.decision import decision
from fedsim.report.document import question
from fedsim.report.flow import Zone
from fedsim.report.holdings import assets
from fedsim.report.markdown import markdown
from fedsim.report.reading import Results
from fedsim.report.rebuilt import rebuilt
from fedsim.report.residual import residual
from fedsim.report.scope import scope
from fedsim.report.sections import Context, judgement
from fedsim.report.seen import who_sees_what
from fedsim.report.served import served
from fedsim.report.shipped import shipped
from fedsim.report.tiles import Pictures
from fedsim.report.verdicts import verdict

OPEN, LABELS = "confidences", "label only"
DEPLOYMENTS = {
    OPEN: Deployment(access="confidences", controls=[Noise(std=0.1)]),
    LABELS: Deployment(access="label_only", query_budget=50),
}
HEADLINES = {"membership": "auc", "attribute": "advantage", "classes": "judged"}
ATTACKS = {
    "loss_membership": "membership",
    "attribute_map": "attribute",
    "model_inversion_confidences": "classes",
    "gradient_alignment_membership": "membership",
}


def row(deployment, name, value=None, low=None, high=None, guess=0.5):
    """A summary row; without a value, that of an attack that did not apply."""
    source = "updates" if name.startswith("gradient") else "model"
    asset, told = ATTACKS[name], low is not None and low > guess
    figure = {"value": value, "low": low, "high": high, "guess": guess, "guess_name": "chance"}
    said = "told" if told else "not shown to be told"
    return {
        "labels": {"deployment": deployment}, "attack": name, "asset": asset, "headline": HEADLINES[asset],
        "source": source, "access": DEPLOYMENTS[deployment].access if source == "model" else None, "round": 1,
        "rung": "L1" if source == "model" else "L4", "statuses": ["not_applicable" if value is None else "done"],
        "seeds": 1, "figures": {} if value is None else {HEADLINES[asset]: figure}, "told": told,
        "verdict": "not applicable: needs more" if value is None else f"{asset}: {said} by {name}",
        "queries": 10.0, "refused": 0.0, "alarms": ["volume"] if told else [],
    }  # fmt: skip


TOLD = row(OPEN, "loss_membership", 0.8, 0.7, 0.9)
HELD = row(OPEN, "attribute_map", 0.01, -0.1, 0.1, guess=0.0)
LOUD = row(OPEN, "gradient_alignment_membership", 0.99, 0.98, 1.0)
CHANCE = row(LABELS, "loss_membership", 0.5, 0.4, 0.6)
MUTE = row(LABELS, "attribute_map")


def served_run(rows, pictures=(), **more):
    """Results of a run whose inference summary is ``rows``."""
    names = list(dict.fromkeys(r["attack"] for r in rows))
    scenario = Scenario(name="api", attacks=names or ["analytic"], compare={"deployment": DEPLOYMENTS}, **more)
    cells = [
        {
            "labels": dict(cell.labels), "seed": 0, "digest": cell.digest, "status": "done", "attacks": [],
            "threat_model": ["The same.", cell.scenario.deployment.describe()],
            "releases": [{"access": cell.scenario.deployment.access, "controls": []}],
            "inferences": [
                {"name": r["attack"], "round": 1, "rung": r["rung"], "source": r["source"],
                 "access": r["access"], "status": r["statuses"][0],
                 "pictures": list(pictures)}
                for r in rows if r["labels"] == dict(cell.labels)
            ],
        }
        for cell in scenario.cells()
    ]  # fmt: skip
    return {
        "scenario": scenario.model_dump(mode="json"), "axes": {"deployment": list(DEPLOYMENTS)}, "cells": cells,
        "summary": [], "inference_summary": copy.deepcopy(rows),
    }  # fmt: skip


def context(rows, pictures=(), **more):
    return Context(Results(served_run(rows, pictures, **more)), Pictures({}))


def text(section):
    return "\n\n".join(map(markdown, section.blocks)).replace("\\", "")


def table(section, caption):
    return next(block for block in section.blocks if getattr(block, "caption", "").startswith(caption))


def settings(found):
    return {setting[0][1]: setting for _, setting in found.combinations}


def test_the_capability_is_the_access_that_was_had():
    rows = {row[0].text: row for row in table(adversary(context([TOLD, MUTE])), "The adversary by attack").cells}
    assert rows["loss_membership"][2].text == "the model: confidences"
    assert rows["attribute_map"][2].text == "the model: rounded"


def test_an_attack_that_did_not_apply_carries_no_rung():
    rows = [row[1].text for row in table(shipped(context([TOLD, MUTE])), "Every attack").cells]
    assert rows == ["loss_membership @ L1", "attribute_map"]


def test_a_deployment_is_not_charged_with_what_updates_give_away():
    control = table(shipped(context([TOLD, LOUD, CHANCE])), "What a deployment gives away")
    first = control.cells[0][-1]
    assert first.text == "auc 0.80 [0.70, 0.90]"
    assert first.note.startswith("loss_membership")
    alone = shipped(context([LOUD]))
    assert not any(getattr(block, "caption", "").startswith("What a deployment") for block in alone.blocks)
    assert alone.title == "What was inferred from updates"


def test_an_attack_that_ran_to_the_end_and_held_chance_is_a_finding():
    here = context([TOLD, HELD, CHANCE, MUTE])
    found = settings(here.results)
    assert judgement(here.results, "none", found[OPEN]).text == "membership told"
    assert judgement(here.results, "none", found[LABELS]).text == "not shown to be told"
    said = text(verdict(here))
    assert "Deployment label only; not shown to be told\n" in said
    assert "1 membership told and 1 not shown to be told" in said
    assert "attribute not shown to be told by attribute_map" in said
    assert "attribute_map: not applicable: needs more" in said
    assert "no answer" not in text(decision(context([row(OPEN, "loss_membership", 0.5, 0.4, 0.6), CHANCE])))
    silent = context([MUTE])
    assert judgement(silent.results, "none", found[LABELS]).text == "undecided"


def test_the_rung_and_the_strongest_attack_of_an_inference_stand_in_the_verdict():
    first = table(verdict(context([TOLD, LOUD, HELD, CHANCE])), "Verdict on deployment confidences")
    cells = dict(zip(first.head, first.cells[0], strict=True))
    assert cells["lowest rung"].text == "L1"
    strongest = cells["strongest attack, median"]
    assert "loss_membership and gradient_alignment_membership (updates)" in cells["verdict"].note
    assert strongest.text == "auc 0.99 [0.98, 1.00]"
    assert strongest.note.startswith("gradient_alignment_membership (updates)\nchance: 0.50")


@pytest.mark.parametrize(
    ("attacks", "asked"),
    [
        (["analytic"], "What can the server rebuild of its clients' digits from the updates it receives?"),
        (["loss_membership"], "What can a caller of the finished model, or whoever holds it, tell of the clients'"),
        (["gradient_alignment_membership"], "What can the server tell of its clients' digits from the updates"),
        (["analytic", "loss_membership"], "receives, and what can a caller of the finished model"),
    ],
)
def test_the_question_fits_what_is_attacked(attacks, asked):
    scenario = Scenario(name="a", attacks=attacks, compare={"deployment": DEPLOYMENTS}).model_dump(mode="json")
    results = Results({"scenario": scenario, "axes": {"deployment": list(DEPLOYMENTS)}})
    assert asked in question(results)
    assert "Compared: deployment confidences and label only" in question(results)


def test_the_question_fits_who_attacks():
    scenario = Scenario(name="a", adversary="eavesdropper").model_dump(mode="json")
    assert "What can whoever reads the wire rebuild of the clients' digits" in question(Results({"scenario": scenario}))


def test_a_caller_is_drawn_behind_its_service_and_the_server_is_no_adversary():
    drawn = text(scope(context([TOLD, CHANCE])))
    assert "Server, where the adversary is" not in drawn
    assert "no attack of this review reads updates" in drawn
    assert "Caller, where the adversary is" in drawn
    assert "changes each answer: noise" in drawn
    assert "answers a caller 50 inputs at most" in drawn
    assert "Server, where the adversary is" in text(scope(context([LOUD])))
    parties = [part.party for part in served(Scenario(name="a").model_dump(mode="json")) if isinstance(part, Zone)]
    assert parties == ["Clients and server", "Whoever holds the model"]


def test_the_threat_model_of_a_run_on_the_model_alone_is_a_callers():
    from fedsim.adversary import in_words

    said = in_words(Scenario(name="a", attacks=["loss_membership"]))
    assert said[0].startswith("The adversary calls the finished model")
    assert not any("The server sees every message" in sentence for sentence in said)
    both = in_words(Scenario(name="a", attacks=["loss_membership", "analytic"]))
    assert any("The server sees every message" in sentence for sentence in both)


def test_assets_say_what_was_found_and_what_nobody_tried():
    found = {cells[0].text: cells[2].text for cells in table(assets(context([TOLD, HELD, CHANCE, MUTE])), "What").cells}
    assert found["a client's records, pictures or texts"].startswith("not tested: no attack that rebuilds them was run")
    assert found["labels, sensitive columns, words, secrets"].startswith("not tested")
    assert found["membership: whose records were used"] == "told by loss_membership in 1 of 2 cases"
    assert found["a sensitive column of a record known otherwise"] == "not shown to be told by attribute_map"
    silent = {cells[0].text: cells[2].text for cells in table(assets(context([MUTE])), "What").cells}
    assert silent["a sensitive column of a record known otherwise"] == "no answer from attribute_map"


def test_each_deployment_has_its_own_words():
    section = who_sees_what(context([TOLD, CHANCE]))
    assert table(section, "What the server receives").cells[0][1].note == ""
    others = {cells[0].text: cells[1].text for cells in table(section, "The other parties").cells}
    assert others["a caller, confidences"] == "is told the confidence in every class, after noise"
    assert others["a caller, label only"] == "is told the label alone, for at most 50 inputs"


def test_inverted_classes_are_not_called_nothing():
    shown = [TOLD, row(OPEN, "model_inversion_confidences", 0.9, 0.8, 1.0, guess=0.1)]
    assert "No attack of this run rebuilt anything" in text(rebuilt(context(shown)))
    said = text(rebuilt(context(shown, pictures=["x/0"])))
    assert "rebuilt anything" not in said
    assert "No attack that rebuilds examples from updates was run; what inversions made of the model's classes" in said


def test_who_would_notice_a_caller_is_the_service():
    said = text(residual(context([TOLD, CHANCE])))
    assert "the service, where it watches its query log: an alarm at loss_membership" in said
    assert "nobody: the service's query log raised no alarm" in said
    assert "reading what arrives" not in said


def test_a_cell_that_was_not_audited_says_how_to_have_it():
    here = context([TOLD], protocol=[ClientDP(clip=1.0, noise_multiplier=1.0)])
    estimate = {"epsilon": 1.0, "low": 0.5, "ceiling": 9.0, "trials": 10}
    for cell in here.results.cells:
        cell["privacy"] = {"epsilon": 4.0, "unit": "client", "delta": 1e-5}
    assert canary_blocks(here) == []
    here.results.cells[0]["audit"] = {
        "claimed": 4.0, "estimate": estimate, "bound": estimate, "releases": 2, "cause": None,
    }  # fmt: skip
    first, second = canary_blocks(here)[0].cells
    assert first[-1].text == "keeps its claim"
    assert second[0].note == "deployment label only"
    assert second[-1].text == "not audited: say audit=True"


def test_the_whole_document_is_written(tmp_path):
    rows = [TOLD, HELD, LOUD, CHANCE, MUTE]
    page = write_report(served_run(rows), {"a": np.zeros((2, 2))}, tmp_path).read_text()
    assert not re.search(r"\bundecided\b", page.split("</ul>")[0])
    assert (tmp_path / "figures" / "service-2.svg").exists()
    assert "no attack was run" not in page
