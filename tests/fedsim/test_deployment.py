"""Attacks on the model that ships, from a scenario to the report: given exactly the access of the deployment."""

import pickle

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from attacks import QueryBudgetExceeded
from attacks.controls import Noise, Rounding
from fedsim import Adversary, Attack, AttackBudget, ClientDP, Deployment, Federation, Scenario, Task, main, run
from fedsim.again import attack_again
from fedsim.check import check
from fedsim.dry_run import forecast
from fedsim.experiment import Experiment
from fedsim.held import candidates, joined, used
from fedsim.inferred import summarise_inferences
from fedsim.policy import Leakage, Policy
from fedsim.questions import answer, questions
from fedsim.scenario import explain
from fedsim.selection import Selection
from fedsim.store import RunFolder, StoreError, load_training, load_view
from fedsim.tasks import TaskError
from fedsim.twins import training_of
from strategies.client_dp import ClientDP as Defence

SMALL = Federation(
    algorithm="fedavg", clients=3, rounds=2, batch_size=10, local_epochs=3, learning_rate=0.3, examples_per_client=40
)
TASK = Task(dataset="digits", model="softmax", test_fraction=0.6)
ATTACKS = [
    "loss_membership",
    Attack(name="model_inversion_white_box", rounds=(1, 2), budget=AttackBudget(iterations=60, restarts=1)),
    Attack(name="label_only_membership", targets=20, budget=AttackBudget(iterations=1)),
    Attack(name="gradient_alignment_membership", victims=3),
    "source_inference",
    "active_membership",
    "lira_online",
]


def scenario(**more):
    return Scenario(**{
        "name": "shipped", "task": TASK, "federation": SMALL, "adversary": Adversary(knows=["value_range"]),
        "attacks": ATTACKS, **more,
    })  # fmt: skip


def shipped_scenario():
    compared = {"deployment": {"open": Deployment(), "labels": Deployment(access="label_only", query_budget=100)}}
    return scenario(compare=compared)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    return run(shipped_scenario(), tmp_path_factory.mktemp("runs") / "shipped")


def found(result, label, name, round=2):
    cell = next(cell for cell in result.cells if cell["labels"]["deployment"] == label)
    return next(e for e in cell["inferences"] if (e["name"], e["round"]) == (name, round))


def test_the_classes_are_judged_by_another_model_after_any_round(shipped):
    for round in (1, 2):
        entry = found(shipped, "open", "model_inversion_white_box", round)
        judged = entry["figures"]["judged"]
        assert entry["status"] == "done"
        assert judged["guess"] == 0.1
        assert judged["low"] <= judged["value"] <= judged["high"]
        assert len(entry["pictures"]) == 10
    assert found(shipped, "open", "model_inversion_white_box")["figures"]["judged"]["value"] >= 0.5
    assert entry["figures"]["judge's accuracy"]["value"] > 0.9


def test_a_level_below_what_an_attack_needs_is_named(shipped):
    assert found(shipped, "labels", "model_inversion_white_box")["reason"].startswith("needs access white_box")
    assert found(shipped, "labels", "loss_membership")["status"] == "not_applicable"


def test_a_budget_is_spent_on_what_it_pays_for(shipped):
    entry = found(shipped, "labels", "label_only_membership")
    assert entry["status"] == "done"
    assert (entry["queries"], entry["refused"]) == (80, 0)
    assert entry["figures"]["auc"]["n"] == 40
    assert entry["notes"] == [
        "1 of 3 noisy copies of each record were asked about",
        "40 records were asked about, for the sake of 100 queries",
    ]


def test_past_the_budget_is_refused_and_counted_in_a_run(tmp_path):
    deployment = Deployment(access="confidences", query_budget=0)
    attacks = [Attack(name="model_inversion_confidences", budget=AttackBudget(iterations=2, restarts=1))]
    (entry,) = run(scenario(deployment=deployment, attacks=attacks), tmp_path).cells[0]["inferences"]
    assert entry["status"] == "refused"
    assert "0 of 0 left" in entry["reason"]
    assert entry["refused"] > 0
    assert entry["figures"] == {}


def test_a_rate_that_the_non_members_cannot_support_is_refused(shipped):
    figures = found(shipped, "open", "loss_membership")["figures"]
    assert figures["tpr at 0.001"]["value"] is None
    assert figures["tpr at 0.001"]["refused"].startswith("too few non-members")
    assert figures["tpr at 0.01"]["value"] is not None
    assert figures["auc"]["members"] == 120


def test_missing_knowledge_and_what_nobody_planted_are_told(shipped):
    assert found(shipped, "open", "lira_online")["reason"].startswith("needs architecture")
    assert found(shipped, "open", "active_membership")["reason"].startswith("needs planted")


@pytest.mark.parametrize(
    ("public", "told"), [(0, "there are no public records"), (0.05, "the same in all 20 public records")]
)
def test_an_attribute_that_public_records_tell_nothing_of_has_no_baseline_and_no_figure(tmp_path, public, told):
    draw = np.random.default_rng(1)
    rows = [
        f"{a:.3f},{b:.3f},{'yes' if i == 7 else 'no'},{int(a + b > 1)}"
        for i, (a, b) in enumerate(draw.random((400, 2)))
    ]
    (tmp_path / "rare.csv").write_text("\n".join(["a,b,ill,y", *rows]))
    options = {"columns": {"a": [0, 1], "b": [0, 1], "ill": ["no", "yes"]}, "label": "y", "sensitive": "ill"}
    table = Task(dataset=str(tmp_path / "rare.csv"), data_options=options, model="softmax", public_fraction=public)
    result = run(scenario(task=table, attacks=["attribute_map"], adversary=Adversary(knows=[])), tmp_path / "out")
    (entry,) = result.cells[0]["inferences"]
    assert entry["status"] == "inconclusive"
    assert f"task.data_options.sensitive = 'ill': {told}" in entry["reason"]
    assert entry["reason"].endswith("raise task.public_fraction, or declare a column that varies more")


def test_an_absent_attribute_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(TaskError, match="declares no sensitive column"):
        run(scenario(attacks=["attribute_map"]), tmp_path / "out")
    assert not list((tmp_path / "out").glob("**/cell.json"))


def test_a_family_stands_for_its_members_but_for_those_named_besides():
    named = scenario(attacks=[Attack(name="membership", targets=30), Attack(name="lira_online", targets=9)])
    assert {attack.name: attack.targets for attack in named.attacks} == {
        "loss_membership": 30, "confidence_membership": 30, "entropy_membership": 30, "label_only_membership": 30,
        "lira_offline": 30, "lira_online": 9,
    }  # fmt: skip
    assert {attack.rounds for attack in named.attacks} == {(2,)}


def test_updates_tell_whose_a_record_is_whatever_the_deployment(shipped):
    for label in ("open", "labels"):
        entry = found(shipped, label, "source_inference")
        assert entry["figures"]["right"]["guess"] == pytest.approx(1 / 3)
        assert entry["access"] is None
    assert found(shipped, "open", "gradient_alignment_membership")["figures"]["auc"]["members"] == 120


def test_the_service_sees_the_queries_and_the_alarms_of_honest_callers(shipped):
    seen = found(shipped, "labels", "label_only_membership")["seen"]
    assert seen["signals"]["volume"] == 80
    assert "volume" in seen["alarms"]
    assert 0 <= seen["false_alarm_low"] <= seen["false_alarm_rate"] <= seen["false_alarm_high"] <= 1
    assert found(shipped, "open", "label_only_membership")["seen"] is None


def test_the_report_puts_access_beside_accuracy_and_shows_the_classes(shipped):
    text = (shipped.out / "report.html").read_text()
    assert "The model that ships" in text
    assert "What a deployment gives away, and what its controls cost" in text
    assert "model_inversion_white_box: the first seed" in text
    rows = {(row["labels"]["deployment"], row["attack"], row["round"]) for row in shipped.results["inference_summary"]}
    assert ("open", "model_inversion_white_box", 1) in rows


def test_a_policy_bounds_what_the_model_gives_away(shipped):
    def ruled(**rule):
        policy = Policy(schema_version=1, where={"deployment": "open"}, leakage=[Leakage(**rule)])
        return [ruling for ruling in check(shipped.results, policy) if ruling.rule.startswith("leakage")]

    (loose,) = ruled(asset="membership", at_most=1.0, up_to="L1", attacks=["loss_membership"])[:1]
    assert loose.passed
    assert "auc 0." in loose.says
    assert not any(r.passed for r in ruled(asset="classes", at_most=0.2))
    (kept_back,) = (r for r in ruled(asset="membership", at_most=1.0, attacks=["lira_online"]) if "lira" in r.says)
    assert not kept_back.passed
    assert "does not let the adversary know architecture" in kept_back.says
    (missing,) = (r for r in ruled(asset="model", at_most=0.5, attacks=["model_extraction"]) if "run" in r.says)
    assert not missing.passed


def test_cells_that_differ_in_the_deployment_alone_share_a_training(shipped):
    one, other = shipped.cells
    assert one["training"] == other["training"]
    assert training_of(scenario()) == training_of(scenario(deployment=Deployment(access="rounded")))
    assert training_of(scenario()) != training_of(scenario(attacks=["loss_membership", "analytic"]))


def test_a_run_can_be_attacked_again_on_the_models_that_it_kept(shipped):
    again = attack_again(shipped.out, "confidence_membership", rounds=[1])
    assert found(again, "open", "confidence_membership", 1)["status"] == "done"
    assert found(again, "open", "loss_membership")["status"] == "done"
    with pytest.raises(StoreError, match="hold rounds"):
        attack_again(shipped.out, "confidence_membership", rounds=[5])


def test_the_same_run_again_gives_the_same_figures(tmp_path):
    alone = scenario(attacks=["loss_membership", "gradient_alignment_membership"])
    one, other = (run(alone, tmp_path / name).results["inference_summary"] for name in ("a", "b"))
    assert one == other


def test_features_that_leave_clients_are_inverted_beside_the_mean(tmp_path):
    split = Task(dataset="digits", model="mlp", test_fraction=0.6)
    asked = [Attack(name="feature_inversion", targets=3, budget=AttackBudget(iterations=200))]
    shown = run(scenario(task=split, attacks=asked, deployment=Deployment(features="2")), tmp_path / "features")
    figure = shown.cells[0]["inferences"][0]["figures"]["psnr"]
    assert figure["n"] == 3
    assert figure["value"] > figure["guess"] + 3
    none = run(scenario(task=split, attacks=asked, deployment=Deployment(features="9")), tmp_path / "none")
    assert "no module of the model" in none.cells[0]["inferences"][0]["reason"]


def test_members_are_what_clients_used_and_candidates_come_in_no_order():
    experiment = Experiment(scenario(federation=Federation(clients=2, rounds=3, batch_size=4)))
    history = [{"round": 1, "answered": [0, 1]}, {"round": 2, "answered": [1]}, {"round": 3, "answered": [0]}]
    held = used(experiment, history, (1, 2))
    assert len(held[0][1]) == 4
    assert 4 < len(held[1][1]) <= 8
    targets, inside = candidates(experiment, joined(held, experiment.test_data()), 5, "test")
    assert inside.sum() == 5
    assert len(inside) == 10
    again, same = candidates(experiment, joined(held, experiment.test_data()), 5, "test")
    assert torch.equal(targets.inputs, again.inputs)
    assert torch.equal(inside, same)
    assert not torch.equal(inside, torch.arange(10) < 5)


def test_others_are_selected_as_members_are():
    """Else how far a record lies from the rest would tell who was trained on, of a model that saw nobody."""
    chosen = scenario(task=TASK.model_copy(update={"selection": Selection(outliers=0.3)}))
    experiment = Experiment(chosen)
    members = joined({client: experiment.client_data(client) for client in range(3)}, experiment.test_data())
    targets, inside = candidates(experiment, members, None, "test")
    inputs, labels = experiment.test_data()
    assert (~inside).sum() == len(labels) - int(0.3 * len(labels))
    far = torch.stack([inputs[labels == label].mean(0) for label in range(10)])

    def distance(x, y):
        return (x - far[y]).flatten(1).norm(dim=1)

    asked = distance(targets.inputs[~inside], targets.labels[~inside])
    assert asked.max() < distance(inputs, labels).quantile(0.75)


def test_copies_are_asked_about_once_and_a_record_that_was_trained_on_is_nowhere_held_out():
    experiment = Experiment(scenario())
    inputs, labels = experiment.client_data(0)
    held_out = experiment.test_data()
    copied = torch.cat([inputs, inputs[:3], held_out[0][:2]]), torch.cat([labels, labels[:3], held_out[1][:2]])
    targets, inside = candidates(experiment, copied, None, "test")
    assert inside.sum() == len(labels) + 2
    assert (~inside).sum() == len(held_out[1]) - 2
    assert len(targets.inputs.flatten(1).unique(dim=0)) == len(inside)


def test_a_question_travels_to_a_worker_and_holds_no_truth(shipped):
    cell = next(c for c in shipped_scenario().cells() if c.labels["deployment"] == "labels")
    place = RunFolder.open(shipped.out, shipped_scenario()).cell(cell.digest)
    experiment = Experiment(cell.scenario)
    view = load_view(place, experiment.initial_model())
    asked = questions(experiment, view, load_training(place), cell.scenario.attacks)
    sent = [pickle.loads(pickle.dumps(one.question)) for one in asked]
    assert {question.attack for question in sent} == {attack.name for attack in cell.scenario.attacks}
    assert all(question.seed != experiment.seed for question in sent)
    for one, question in zip(asked, sent, strict=True):
        if question.attack in ("label_only_membership", "source_inference"):
            here, there = answer(one.question), answer(question)
            assert (here.status, here.queries, here.refused) == (there.status, there.queries, there.refused)
            for a, b in zip(here.claims, there.claims, strict=True):
                assert torch.equal(a.scores, b.scores)


def test_an_inference_without_rounds_gets_those_that_it_is_about():
    made = scenario(attacks=["loss_membership", "source_inference", "analytic", Attack(name="fed_mia", rounds=(2,))])
    assert [attack.rounds for attack in made.attacks] == [(2,), (1, 2), (1,), (2,)]
    assert made.released_rounds == {2}
    assert Scenario.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"access": "white_box", "controls": [{"kind": "noise", "std": 0.1}]}, "bound by no control"),
        ({"access": "white_box", "query_budget": 5}, "bound by no control"),
        ({"access": "labels"}, "'label_only'"),
        ({"access": "confidences", "controls": [{"kind": "noise", "std": -1}]}, "std = -1"),
        ({"access": "confidences", "controls": [Noise(float("inf"))]}, "std = inf: must not be negative, and"),
        ({"access": "rounded", "top": 2}, "top = 2: has no hold at access = 'rounded'"),
        ({"access": "label_only", "decimals": 2}, "decimals = 2: has no hold at access = 'label_only'"),
        ({"query_budget": -1, "access": "label_only"}, "greater than or equal to 0"),
        ({"budget": 5}, "no field 'budget'; nearest: query_budget"),
    ],
)
def test_a_deployment_that_cannot_be_is_refused_in_a_line(fields, told):
    with pytest.raises(ValidationError) as caught:
        scenario(deployment=fields)
    assert any(told in line for line in explain(caught.value))


def test_controls_compose_in_the_order_given():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    deployed = Deployment(access="confidences", controls=[Noise(0.2), Rounding(1)], query_budget=3)
    oracle = deployed.open(network, 3, torch.Generator().manual_seed(1), None)
    answers = oracle.confidences(torch.rand(3, 4))
    assert oracle.access == "rounded"
    assert torch.allclose(answers, answers.round(decimals=1))
    with pytest.raises(QueryBudgetExceeded):
        oracle.labels(torch.rand(1, 4))
    assert deployed.describe().endswith("after noise and rounding, for at most 3 inputs.")


def test_a_dry_run_says_what_is_asked_of_whom():
    words = forecast(scenario(deployment=Deployment(access="label_only", query_budget=500)), "inline")
    assert "model_inversion_white_box: what the classes look like, from the model after round 1 and 2" in words
    assert "(label only, 500 queries at most)" in words
    assert "A caller of the finished model is told the label alone, for at most 500 inputs." in words


def test_rows_pool_seeds_without_narrowing_the_interval():
    def entry(value):
        figure = {
            "value": value,
            "low": value - 0.1,
            "high": value + 0.1,
            "guess": 0.5,
            "guess_name": "chance",
            "n": 10,
        }
        return {
            "name": "loss_membership", "round": 1, "rung": "L1", "asset": "membership", "headline": "auc", "seen": None,
            "source": "model", "access": "rounded", "status": "done", "reason": None, "figures": {"auc": figure},
            "queries": 10, "refused": 0,
        }  # fmt: skip

    (row,) = summarise_inferences([{"labels": {}, "inferences": [entry(v)]} for v in (0.6, 0.8)])
    figure = row["figures"]["auc"]
    assert [figure[key] for key in ("value", "low", "high")] == pytest.approx([0.7, 0.6, 0.8])
    assert figure["n"] == 20
    assert row["told"]
    assert row["verdict"].startswith("who was trained on: told at rung L1 by loss_membership, auc 0.70 [0.60, 0.80]")
    assert "2 seeds, too few to tell how far seeds differ" in row["verdict"]


def private(**more):
    return scenario(
        federation=Federation(clients=3, rounds=1, batch_size=4),
        protocol=[ClientDP(clip=1.0, noise_multiplier=2.0)],
        attacks=["label_counts"],
        **more,
    )


def test_client_dp_is_audited_as_the_run_ends(tmp_path):
    (cell,) = run(private(), tmp_path / "sound").cells
    assert cell["status"] == "done"
    assert cell["audit"]["claimed"] == pytest.approx(cell["privacy"]["epsilon"])
    assert cell["audit"]["bound"]["low"] <= cell["audit"]["claimed"] < cell["audit"]["bound"]["ceiling"]
    assert "Epsilon as canaries measured it" in (tmp_path / "sound" / "report.html").read_text()
    (cell,) = run(private(audit=False), tmp_path / "off").cells
    assert cell["audit"] is None


def test_a_run_whose_noise_is_missing_fails_loudly(tmp_path, monkeypatch):
    sound = Defence.protect

    def quiet(self, update, context):
        weaker = Defence(**{**self.__dict__, "noise_multiplier": 0.2})
        return sound(weaker, update, context)

    monkeypatch.setattr(Defence, "protect", quiet)
    result = run(private(), tmp_path / "broken")
    assert result.cells[0]["status"] == "failed"
    assert "epsilon claimed = 1.99" in result.cells[0]["cause"]
    assert any("the defence or its accounting is broken" in problem for problem in result.problems)


def test_a_prediction_api_scenario_is_there():
    assert callable(main)
    from scenarios.prediction_api import scenario as api

    cells = api.cells()
    assert {cell.scenario.deployment.access for cell in cells} == {
        "white_box", "confidences", "top_k", "rounded", "label_only",
    }  # fmt: skip
    assert len(np.unique([training_of(cell.scenario) for cell in cells])) == len(api.seeds)
