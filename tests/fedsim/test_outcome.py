"""Verdicts and summary rows from outcomes; who is attacked, and whose examples a sum is scored against."""

import ast
import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from attacks import NotApplicable, Reconstruction
from attacks.columns import Column
from attacks.registry import NotFinite
from attacks.view import Budget, Message, Update, View
from fedsim import Attack, Federation, Scenario, adversary, assess, guarantee, leakage, outcome, truth, verdict, words
from fedsim.assess import Claims, jobs, perform
from fedsim.experiment import Experiment
from fedsim.job import Job
from fedsim.outcome import attack_outcome, summarise
from fedsim.truth import THE_SUM, Victim, truth_of

SCENARIO = Scenario(name="x", federation=Federation(clients=6, batch_size=2), attacks=["analytic", "label_counts"])


@pytest.fixture(scope="module")
def made():
    return Experiment(SCENARIO)


def victim(psnr=(), labels=None, guess=0.1, proportions=0.1, hit=False, **more):
    return {
        "client": 0, "pool": 100, "labels_right": labels, "figures": {"psnr": list(psnr)} if psnr else {},
        "recovered": [hit and value is not None for value in psnr],
        "baseline": {"psnr_mean_image": [11.0] * len(psnr), "label_majority": guess, "label_proportions": proportions},
        **more,
    }  # fmt: skip


def entry(victims, name="analytic", status="done", **more):
    return {
        "name": name, "round": 1, "rung": "L5", "status": status, "reason": None, "knowledge": ["batch_size"],
        "budget": {}, "victims": victims, **more,
    }  # fmt: skip


def row(*entries, modality="image"):
    cells = [{"labels": {}, "modality": modality, "attacks": [e]} for e in entries]
    (summary,) = summarise(SCENARIO, cells)
    return summary


def test_labels_have_a_verdict_of_their_own_beside_that_on_examples():
    rows = [entry([victim([12.0], labels=1.0, guess=0.3, proportions=0.375) for _ in range(4)]) for _ in range(3)]
    summary = row(*rows)
    assert summary["verdict"].startswith("not broken at rung L5 by analytic")
    (reading,) = summary["readings"]
    assert reading["read"]
    assert reading["guess_name"] == "proportions"
    assert reading["verdict"] == "labels read at rung L5 by analytic: 100 % right, guessing 38 % (12 clients)"
    assert summary["label_baseline"] == 0.375


def test_an_attack_on_labels_alone_is_judged_by_them():
    rights = [1.0, 0.5, 1.0, 1.0, 0.5, 1.0]
    summary = row(entry([victim(labels=right, guess=0.2) for right in rights], name="label_counts"))
    assert summary["verdict"].startswith("labels read at rung L5 by label_counts: 83 % right, guessing 20 %")
    assert summary["n"] == 0


def test_labels_at_the_level_of_guessing_are_not_read():
    summary = row(entry([victim(labels=v, guess=0.1, proportions=0.97) for v in (0.98, 0.96, 0.97, 0.98, 0.97)]))
    (reading,) = summary["readings"]
    assert not reading["read"]
    assert "not shown to be read" in reading["verdict"]


def test_few_victims_are_called_few():
    said = row(entry([victim(labels=1.0)] * 2))["readings"][0]["verdict"]
    assert said.startswith("labels perhaps read at rung")
    assert "(2 clients, too few to be sure)" in said


def test_what_was_read_of_sums_is_the_cohorts():
    (reading,) = row(entry([victim(labels=1.0) | {"client": THE_SUM} for _ in range(6)]))["readings"]
    assert reading["verdict"].startswith("labels read at rung")
    assert reading["verdict"].endswith("(6 whole cohorts)")


def test_labels_that_were_granted_are_not_read():
    summary = row(entry([victim(labels=1.0)] * 6, name="label_counts", knowledge=["labels"]))
    assert summary["readings"] == []
    assert summary["verdict"].startswith("undecided")


def test_a_label_attack_without_a_count_is_inconclusive_unless_it_reads():
    failing = row(entry([victim(labels=0.1)] * 6, name="label_counts", status="inconclusive"))
    assert failing["verdict"] == "inconclusive: label_counts inconclusive"
    assert failing["readings"] == []


def test_the_sensitive_column_has_a_verdict():
    def told(right):
        figures = {"columns": [0.5], "sensitive": [right]}
        return victim() | {
            "figures": figures, "recovered": [False], "sensitive": "diagnosis",
            "baseline": {"columns_mean": [0.4], "sensitive_mean": [0.0]},
        }  # fmt: skip

    summary = row(entry([told(1.0), told(1.0), told(None), told(1.0), told(1.0)]), modality="tabular")
    (reading,) = summary["readings"]
    assert reading["what"] == "diagnosis"
    assert reading["right"] == 0.8
    assert reading["read"]
    assert summary["verdict"].startswith("not broken")


def test_few_claims_keep_their_worst_case_and_their_count():
    psnr = [45.0, 43.0] + [None] * 537
    summary = row(entry([victim(psnr, hit=True)]))
    assert (summary["n"], summary["claimed"], summary["rebuilt"]) == (539, 2, 2)
    assert summary["worst"] == 45.0
    assert np.isneginf(summary["median"])
    assert summary["fractions"]["40"] == pytest.approx(2 / 539)


def test_a_diverged_victim_is_no_target_that_was_not_rebuilt():
    summary = row(entry([victim([45.0], hit=True), victim() | {"labels_right": None}]))
    assert summary["recovered"] == 1.0
    assert (summary["n"], summary["rebuilt"]) == (1, 1)


def test_a_refusal_is_named_once_and_every_reason_is():
    refused = entry([], status="not_applicable", reason="needs labels (rung L6)")
    other = refused | {"reason": "needs batch_size (rung L5)"}
    said = row(refused, other)["verdict"]
    assert said == "not applicable: needs batch_size (rung L5); needs labels (rung L6)"


def test_the_rung_of_a_break_is_that_of_the_outcome_that_broke():
    few = entry([victim([12.0])], rung="L3")
    many = entry([victim([45.0], hit=True)], rung="L2")
    assert row(few, many)["verdict"] == "broken at rung L2 by analytic"
    assert row(few, many | {"victims": [victim([12.0])]})["verdict"].startswith("not broken at rung L2")


def seen(model, readable, asked, *, summed=(), form="plain", error=()):
    """A server's view of round 1: who was asked, who answered in which form, and what is readable."""
    update = {name: torch.ones_like(parameter) for name, parameter in model.named_parameters()}
    messages = [Message(1, client, "sent", "train") for client in asked]
    messages += [
        Message(1, c, "received", "train", form=form, error="gone" if c in error else None)
        for c in (*readable, *summed)
    ]
    updates = [Update(1, client, "gradient", "w", update) for client in readable]
    if summed:
        updates.append(Update(1, None, "gradient", "w", update, contributors=len(set(summed) - set(error))))
    return View("server", model, {"w": model.state_dict()}, tuple(messages), tuple(updates))


def test_victims_are_clients_whose_update_was_received(made):
    view = seen(made.initial_model(), readable=[3, 5], asked=range(6))
    (job,) = jobs(made, view, [Attack(name="analytic", victims=2)])
    assert job.clients == (3, 5)
    assert all(len(observations) == 1 for observations, _, _ in job.victims)


def test_with_nothing_readable_attacks_still_say_what_they_lack(made):
    view = seen(made.initial_model(), readable=[], asked=range(6))
    (job,) = jobs(made, view, [Attack(name="analytic", victims=2)])
    assert job.clients == (0, 1)
    outcome, _ = attack_outcome(made, SCENARIO.cells()[0], job, perform(job))
    assert outcome["status"] == "not_applicable"
    assert outcome["reason"] == "needs an update that the adversary can read (rung L4)"


@pytest.mark.parametrize(("summed", "rung"), [((0, 2, 5), "L3"), ((0, 1, 2, 3, 4), "L2")])
def test_a_sum_is_one_victim_whose_truth_is_that_of_all_its_clients(made, summed, rung):
    view = seen(made.initial_model(), readable=[], asked=range(6), summed=summed, form="masked")
    (job,) = jobs(made, view, [Attack(name="analytic", victims=4)])
    assert job.whom == (Victim(1, summed),)
    assert job.clients == (THE_SUM,)
    ((observations, knowledge, _),) = job.victims
    assert [o.contributors for o in observations] == [len(summed)]
    assert knowledge.batch_size == 2 * len(summed)
    truth = truth_of(made, 1, *summed)
    apart = [truth_of(made, 1, client) for client in summed]
    assert torch.equal(truth.inputs, torch.cat([t.inputs for t in apart]))
    assert truth.owners == tuple((client, place) for client in summed for place in range(2))
    found = Claims((Reconstruction(truth.inputs.flip(0), truth.labels, torch.zeros(1)),))
    outcome, pictures = attack_outcome(made, SCENARIO.cells()[0], job, found)
    (scored,) = outcome["victims"]
    assert outcome["rung"] == rung
    assert scored["client"] == THE_SUM
    assert scored["owners"][2] == [summed[1], 0]
    assert all(scored["recovered"])
    assert len(scored["recovered"]) == 2 * len(summed)
    assert len(pictures) == 4 * len(summed)


def test_who_dropped_out_of_a_sum_is_not_in_its_truth(made):
    view = seen(made.initial_model(), readable=[], asked=range(6), summed=(0, 2, 5), form="masked", error=(2,))
    (job,) = jobs(made, view, [Attack(name="label_counts")])
    assert job.whom == (Victim(1, (0, 5)),)


def test_a_sum_over_one_client_is_that_client(made):
    view = seen(made.initial_model(), readable=[], asked=range(6), summed=(4,), form="masked")
    (job,) = jobs(made, view, [Attack(name="analytic")])
    assert job.clients == (4,)
    assert len(job.victims[0][0]) == 1


def test_a_sum_of_unknown_clients_is_not_scored_against_others(made):
    view = seen(made.initial_model(), readable=[], asked=range(6), summed=(0, 2, 5), form="masked")
    wrong = View(view.party, view.model, view.broadcasts, view.messages[:-1], view.updates)
    (job,) = jobs(made, wrong, [Attack(name="analytic")])
    assert job.whom == ()


def test_an_attack_that_breaks_in_any_way_is_a_failed_attack(monkeypatch):
    def broken(*args, **named):
        raise KeyError("oops")

    monkeypatch.setattr("fedsim.assess.reconstruct_many", broken)
    assert perform(Job("analytic", 1, (), (), Budget())).error == "KeyError: 'oops'"


def test_clients_that_diverged_are_a_failure_and_no_protection(made):
    view = seen(made.initial_model(), readable=[3, 5], asked=range(6))
    (job,) = jobs(made, view, [Attack(name="analytic", victims=2)])
    outcome, _ = attack_outcome(made, SCENARIO.cells()[0], job, Claims((NotFinite("a finite update", "L4"),) * 2))
    assert outcome["status"] == "failed"
    assert "a finite update" in outcome["reason"]


def test_a_victim_that_was_refused_among_others_is_said(made):
    view = seen(made.initial_model(), readable=[3, 5], asked=range(6))
    (job,) = jobs(made, view, [Attack(name="label_counts", victims=2)])
    claims = Claims((NotApplicable("x", "L5"), Reconstruction(None, torch.tensor([0, 1]), torch.zeros(1))))
    outcome, _ = attack_outcome(made, SCENARIO.cells()[0], job, claims)
    assert outcome["status"] == "done"
    assert outcome["reason"] == "not applicable to 1 of 2 victims: needs x (rung L5)"


@pytest.mark.parametrize("module", [adversary, assess, guarantee, leakage, outcome, truth, verdict, words])
def test_the_core_does_not_lean_on_the_report(module):
    imports = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.ImportFrom)]
    assert not [node.module for node in imports if (node.module or "").startswith("fedsim.report")]


def test_an_inconclusive_claim_never_reads_as_not_broken():
    unsure = {**entry([victim(labels=0.1)] * 6, name="dager", status="inconclusive"), "reason": "rank: 9 of 63"}
    sure = entry([victim(labels=0.1)] * 6, name="dager")
    assert row(unsure)["verdict"] == "inconclusive: dager, rank: 9 of 63"
    assert "not broken" not in row(unsure, sure)["verdict"]


def test_an_income_is_spelt_without_an_exponent():
    dataset = SimpleNamespace(modality="tabular", columns=(Column("income", "numeric", low=0.0, high=2e5),))
    said = outcome._rows(dataset, torch.tensor([[0.4635]]), torch.tensor([[0.00001]]))
    assert said["truth"] == [["92700"]]
    assert said["claim"] == [["2"]]
