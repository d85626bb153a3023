"""Crafted models in the federation: what each plant reads through each protocol, what clients see, what stops it."""

import pytest
import torch
from flwr.app import ArrayRecord
from torch.nn.functional import cross_entropy

from fedsim import ClientChecks, ClientDP, Homomorphic, Imprint, Inconsistency, Scenario, SecureAggregation, run
from fedsim.again import attack_again
from fedsim.apps import client_app
from fedsim.assess import jobs, perform
from fedsim.detection import Detections
from fedsim.experiment import Experiment
from fedsim.federation import federate, recording
from fedsim.grids import InlineGrid
from fedsim.outcome import attack_outcome
from fedsim.planting import craft, malicious_server, suspects
from fedsim.store import load_view, save_view
from fedsim.tasks import TaskError
from strategies.he_deployment import hand_out

CLIENTS, VICTIM = 4, 2
WIDE = 8.0
"""A clip that an imprint's rows fit in."""


def scenario(plant, protocol=(), *, attack="model_inconsistency", model="mlp", federation=(), task=(), **adversary):
    return Scenario(
        name="x",
        task={"dataset": "digits", "model": model, **dict(task)},
        federation={"clients": CLIENTS, "batch_size": 1, "weighted": False, **dict(federation)},
        protocol=protocol,
        adversary={"kind": "malicious_model", "plant": plant, "victim": VICTIM, **adversary},
        attacks=[{"name": attack, "victims": 4}],
    )


def trained(made):
    """The experiment, its training, the server's view, and what clients saw."""
    clients = made.federation.clients
    experiment, nodes = Experiment(made), {client: client + 1 for client in range(clients)}
    grid = InlineGrid(client_app, clients, {"scenario": made.model_dump_json()})
    deployment = None
    encryption = next((d for d in made.protocol if isinstance(d, Homomorphic)), None)
    if encryption:
        size = sum(p.numel() for p in experiment.initial_model().parameters())
        deployment = hand_out(grid, nodes, encryption, clients, torch.ones(size).numpy())
    recorder, seen = recording(grid, made, nodes), Detections()

    def on_round(row):
        if row["round"]:
            seen.note(row["round"], row["cohort"], grid.states)

    training = federate(recorder, experiment, nodes, on_round, deployment)
    view = recorder.view(experiment.initial_model(), training.opened, training.planted)
    return experiment, training, view, {row["signal"]: row for row in seen.rows}


def scored(experiment, view):
    (job,) = jobs(experiment, view, experiment.scenario.attacks)
    outcome, _ = attack_outcome(experiment, experiment.scenario.cells()[0], job, perform(job))
    return outcome, {v["client"]: [p or 0.0 for p in v["figures"]["psnr"]] for v in outcome["victims"]}, job


IDEAL = SecureAggregation(clip=2.0, mode="ideal")


@pytest.mark.parametrize(
    ("protocol", "bar"),
    [
        ([], 100),
        ([IDEAL], 60),
        ([SecureAggregation(clip=2.0, bits=24, mode="ideal")], 100),
        ([SecureAggregation(clip=2.0, profile="server_chosen_parameters")], 60),
        ([SecureAggregation(clip=2.0, profile="flower_1_41")], 60),
        ([Homomorphic(keys="trusted_decryptor")], 100),
        ([Homomorphic(keys="server_holds_key")], 100),
        ([ClientDP(clip=1.0, noise_multiplier=1e-4), IDEAL], 40),
    ],
    ids=lambda protocol: "+".join(d.kind for d in protocol) or "plain" if isinstance(protocol, list) else None,
)
def test_inconsistency_reads_the_victim_whatever_hides_the_others(protocol, bar):
    experiment, training, view, seen = trained(scenario("inconsistency", protocol))
    outcome, psnr, job = scored(experiment, view)
    assert list(psnr) == [VICTIM]
    assert min(psnr[VICTIM]) >= bar
    assert (outcome["rung"], outcome["contributors"]) == ("L10", 1)
    assert "planted" in outcome["knowledge"]
    assert training.history[1]["lie"] == "inconsistency planted; answers on it came from 4 of 4"
    live = experiment.initial_model().state_dict()
    (observation,), _, _ = job.victims[0]
    assert all(torch.equal(tensor, live[name]) for name, tensor in observation.model.state_dict().items())
    assert {name: seen[name]["alarmed"] for name in ("model_hash", "dead_rows")} == {"model_hash": 4, "dead_rows": 3}


@pytest.mark.parametrize(
    ("protocol", "error"),
    [
        ([SecureAggregation(clip=2.0)], "BadSignature"),
        ([SecureAggregation(clip=2.0, profile="semi_honest")], "BadShare"),
        ([ClientChecks()], "ModelRefused[model_hash]"),
        ([ClientChecks(), IDEAL], "ModelRefused[model_hash]"),
        ([ClientChecks(), Homomorphic(keys="trusted_decryptor")], "ModelRefused[model_hash]"),
    ],
)
def test_clients_that_bind_or_compare_the_model_stop_inconsistency_and_the_error_is_named(protocol, error):
    experiment, training, view, _ = trained(scenario("inconsistency", protocol))
    row = training.history[1]
    assert row["lie"].startswith(f"stopped by {error} (4 of 4 clients)")
    assert row["aborted"]
    assert len(row["failed"]) == CLIENTS
    assert view.updates == ()
    assert scored(experiment, view)[0]["status"] == "not_applicable"


def test_models_that_clients_cannot_encode_the_answers_to_are_not_stopped_by_them():
    _, training, view, _ = trained(
        scenario("inconsistency", [SecureAggregation(clip=1e-6, profile="server_chosen_parameters")])
    )
    row = training.history[1]
    assert row["lie"].startswith(
        "inconsistency came to nothing: the clients' own error BadUpdate (4 of 4 clients): BadUpdate at stage 'masked'"
    )
    assert view.updates == ()


def test_where_no_client_decrypts_for_the_server_nothing_is_read():
    experiment, _, view, _ = trained(scenario("inconsistency", [Homomorphic()]))
    assert view.updates == ()
    assert scored(experiment, view)[0]["status"] == "not_applicable"


def test_a_whisper_leaves_no_dead_rows_and_still_singles_out_the_victim():
    whisper = Inconsistency(whisper=1e-4)
    experiment, _, view, seen = trained(scenario(whisper, [IDEAL]))
    assert min(scored(experiment, view)[1][VICTIM]) >= 60
    assert seen["dead_rows"]["alarmed"] == seen["scarce_rows"]["alarmed"] == 0
    checks = ClientChecks(consistency=False)
    assert trained(scenario(whisper, [checks, IDEAL]))[1].history[1]["answered"] == [0, 1, 2, 3]
    deaf = trained(scenario("inconsistency", [checks, IDEAL]))[1].history[1]
    assert deaf["lie"].count("ModelRefused[dead_rows] (3 of 4 clients)") == 1
    assert deaf["answered"] == []  # the victim would be alone in the sum, so there is none


BIG = {"batch_size": 8}


@pytest.mark.parametrize("protocol", [[], [SecureAggregation(clip=WIDE)], [Homomorphic(keys="trusted_decryptor")]])
def test_an_imprint_reads_the_sum_though_all_are_sent_the_same_model(protocol):
    experiment, _, view, seen = trained(scenario("imprint", protocol, attack="imprint", federation=BIG))
    outcome, psnr, job = scored(experiment, view)
    values = [value for values in psnr.values() for value in values]
    assert len(values) == 8 * CLIENTS
    assert sum(value > 30 for value in values) >= (0.45 if protocol else 0.8) * len(values)
    assert (outcome["rung"], outcome["contributors"]) == ("L10", CLIENTS if protocol else 1)
    sent = job.victims[0][0][0].model.get_submodule("front.rows").weight
    assert bool(sent.any())  # the crafted layer, not the neutral one of the architecture
    assert {n for n, row in seen.items() if row["alarmed"]} == {"architecture", "parallel_rows"}
    assert seen["architecture"]["says"].count("front.") == 4


def test_turned_rows_evade_the_check_for_parallel_ones():
    checks = ClientChecks(architecture=False)
    refused = trained(scenario("imprint", [checks], attack="imprint", federation=BIG))[1].history[1]
    assert refused["lie"].startswith("stopped by ModelRefused[parallel_rows] (4 of 4 clients)")
    turned = Imprint(jitter=0.01)
    experiment, _, view, seen = trained(scenario(turned, [checks], attack="imprint", federation=BIG))
    values = [value for values in scored(experiment, view)[1].values() for value in values]
    assert sum(value > 30 for value in values) >= 0.7 * len(values)
    assert {n for n, row in seen.items() if row["alarmed"]} == {"architecture"}


def test_kernels_tell_whose_each_example_in_a_sum_is():
    experiment, _, view, seen = trained(
        scenario(
            {"kind": "kernels", "bins": 64},
            [SecureAggregation(clip=WIDE, bits=20, mode="ideal")],
            attack="imprint",
            federation=BIG,
        )
    )
    outcome, psnr, _ = scored(experiment, view)
    assert sorted(psnr) == [0, 1, 2, 3]
    assert outcome["contributors"] == 1
    for values in psnr.values():
        assert sum(value > 30 for value in values) >= 4
    assert seen["model_hash"]["alarmed"] == CLIENTS
    assert seen["dead_rows"]["alarmed"] == CLIENTS


@pytest.mark.parametrize(
    ("plant", "attack", "signals"),
    [("traps", "trap_weights", set()), ({"kind": "fishing", "target_class": 3}, "class_fishing", {"scarce_rows"})],
)
def test_plants_in_existing_layers_change_no_architecture(plant, attack, signals):
    experiment, _, view, seen = trained(scenario(plant, [], attack=attack, federation=BIG))
    outcome, psnr, _ = scored(experiment, view)
    assert outcome["rung"] == "L9"
    assert any(value > 60 for values in psnr.values() for value in values)
    assert seen["architecture"]["alarmed"] == seen["model_hash"]["alarmed"] == 0
    assert signals <= {n for n, row in seen.items() if row["alarmed"]}


def test_a_crafted_round_teaches_nothing_and_the_next_one_trains_on():
    made = scenario("imprint", [], attack="imprint", federation={"batch_size": 8, "rounds": 3})
    experiment, training, _, _ = trained(made)
    losses = [row["loss"] for row in training.history]
    assert losses[1] == losses[0]
    assert len(set(losses[1:])) == 3
    assert [bool(row.get("lie")) for row in training.history] == [False, True, False, False]
    honest = experiment.agreed_model()
    honest.load_state_dict(
        {n.removeprefix("model."): t for n, t in training.state.items() if n.startswith("model.")}
    )  # what is left without the front is a model of the agreed kind


def test_a_victim_that_left_is_not_read():
    left = scenario("inconsistency", [IDEAL], federation={"dropout": 0.3, "dropout_stage": "masked"})
    for seed in range(40):
        made = left.model_copy(update={"seeds": (seed,)})
        experiment, training, view, _ = trained(made)
        answered = training.history[1]["answered"]
        if answered and VICTIM not in answered:
            assert all(update.client != VICTIM for update in view.updates)
            assert scored(experiment, view)[0]["status"] == "not_applicable"
            return
    pytest.fail("no seed in which the victim alone leaves")


def test_honest_models_pass_every_check_and_a_check_can_be_left_out():
    honest = scenario("inconsistency").model_copy(update={"adversary": Scenario(name="x").adversary})
    checked = honest.model_copy(update={"protocol": (ClientChecks(),), "attacks": Scenario(name="x").attacks})
    _, training, view, seen = trained(checked)
    assert training.history[1]["answered"] == [0, 1, 2, 3]
    assert not any(row["alarmed"] for row in seen.values())
    assert len(view.updates) == CLIENTS
    blind = ClientChecks(consistency=False, dead_rows=None, scarce_rows=None)
    assert trained(scenario("inconsistency", [blind]))[1].history[1]["answered"] == [0, 1, 2, 3]


def test_what_was_planted_is_stored_with_the_view(tmp_path):
    experiment, _, view, _ = trained(scenario("inconsistency", [IDEAL]))
    save_view(tmp_path, view)
    again = load_view(tmp_path, experiment.initial_model())
    assert again.planted[1]["kind"] == "inconsistency"
    assert again.planted[1]["target"] == VICTIM
    assert scored(experiment, again)[1] == scored(experiment, view)[1]


def test_an_honest_scenario_has_no_malicious_server_and_the_agreed_architecture():
    experiment = Experiment(Scenario(name="x", seeds=(0,)))
    assert malicious_server(experiment) is None
    assert str(experiment.initial_model()) == str(experiment.agreed_model())


def test_the_report_shows_attack_and_detection_and_the_stopped_run_is_no_problem(tmp_path):
    made = scenario("imprint", attack="imprint", federation=BIG).model_dump()
    made["compare"] = {"protocol": {"none": [], "checks": [{"kind": "client_checks"}]}}
    result = run(Scenario(**made), tmp_path / "run")
    assert result.problems == []
    assert [bool(cell["attacks"][0]["victims"]) for cell in result.cells] == [True, False]
    assert {row["signal"] for row in result.cells[0]["detection"]} >= {"model_hash", "parallel_rows"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Crafted models, and what clients could see" in page
    assert "stopped by ModelRefused[architecture] (4 of 4 clients)" in page
    assert "The server sends crafted models in the rounds that are attacked (imprint)" in page
    wire = [cell["wire"]["same_model_for_all"] for cell in result.results["evidence"].values()]
    assert wire == [True, True]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "honest_but_curious"}, "'malicious_model' plants, and no other kind does"),
        ({"plant": None}, "'malicious_model' plants, and no other kind does"),
        ({"plant": "imprnt"}, "'imprnt': unknown; nearest: imprint"),
        ({"plant": {"kind": "imprint", "bins": 1}}, "bins = 1: must be at least 2"),
        ({"plant": {"kind": "imprint", "hats": True}}, "hats"),
        ({"plant": {"kind": "inconsistency", "whisper": 1.0}}, "whisper = 1.0"),
        ({"plant": {"kind": "feature_fishing", "among": 1}}, "plant.among = 1: must be at least 2"),
        ({"plant": {"kind": "feature_fishing", "sharpness": 0}}, "plant.sharpness = 0.0: must be positive"),
        ({"victim": CLIENTS}, "adversary.victim = 4: must be an honest client, from 0 to 3"),
        ({"plant": "imprint", "knows": ["batch_size"]}, "is set on public data; grant 'public'"),
    ],
)
def test_bad_adversaries_are_refused_with_field_and_remedy(change, said):
    with pytest.raises(ValueError, match="adversary") as caught:
        scenario(**{"plant": "inconsistency", **change})
    assert said in str(caught.value)


def test_clients_that_keep_their_own_model_can_be_planted_in_the_first_round_alone():
    made = scenario("imprint", [Homomorphic()], attack="imprint", federation={"rounds": 2}).model_dump()
    made["attacks"] = [{"name": "imprint", "rounds": [1, 2]}]
    with pytest.raises(ValueError, match=r"attacks.rounds = \[2\]: clients that share the key keep their own copy"):
        Scenario(**made)


@pytest.mark.parametrize(
    "protocol", [[{"kind": "client_checks", "examples": 1}], [{"kind": "client_checks", "dead_rows": 0}]]
)
def test_bad_checks_are_refused(protocol):
    with pytest.raises(ValueError, match=r"protocol\[0\].(examples|dead_rows) = [01]"):
        scenario("imprint", protocol)


def test_checks_come_before_what_hides():
    with pytest.raises(ValueError, match="put 'client_checks' first"):
        scenario("imprint", [IDEAL, ClientChecks()])


@pytest.mark.parametrize(
    ("plant", "task", "said"),
    [
        ("traps", {"dataset": "photos", "model": "convnet"}, "no dense layer that reads the input; plant 'imprint'"),
        ("imprint", {"dataset": "messages", "model": "transformer"}, "token ids"),
        ({"kind": "fishing", "target_class": 10}, {}, "target_class = 10: the model tells classes 0 to 9 apart"),
        (
            {"kind": "feature_fishing", "target_class": 10},
            {},
            "target_class = 10: the model tells classes 0 to 9 apart",
        ),
    ],
)
def test_a_model_without_a_place_for_the_plant_is_refused_before_the_run(plant, task, said, tmp_path):
    with pytest.raises(TaskError, match="adversary.plant") as caught:
        run(scenario(plant, task=task), tmp_path / "run")
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def asking(**more):
    return Scenario(
        name="asks",
        task={"dataset": "digits", "model": "mlp", "test_fraction": 0.6},
        federation={
            "algorithm": "fedavg", "clients": CLIENTS, "rounds": 5, "batch_size": 5, "examples_per_client": 10,
            "learning_rate": 0.1, **more,
        },
        adversary={"kind": "malicious_model", "plant": {"kind": "ascent", "records": 6, "steps": 20}, "victim": VICTIM},
        attacks=[{"name": "active_membership", "rounds": [2, 3, 4, 5]}, {"name": "fed_mia", "rounds": [5]}],
    )  # fmt: skip


def test_a_server_asks_about_the_victims_records_by_unlearning_them(tmp_path):
    result = run(asking(), tmp_path / "out")
    (entry, passive) = result.cells[0]["inferences"]
    assert (entry["status"], entry["rung"]) == ("done", "L9")
    assert entry["figures"]["auc"]["members"] == entry["figures"]["auc"]["others"] == 6
    assert entry["notes"] == []
    assert passive["status"] == "done"
    assert "unlearned some of 12 records" in (tmp_path / "out" / "report.html").read_text()
    again = attack_again(tmp_path / "out", "active_membership", rounds=[2, 3, 4, 5])
    assert again.cells[0]["inferences"][-1]["figures"] == entry["figures"]


def test_the_records_asked_about_lose_in_the_round_that_asks_and_the_server_is_not_told_whose_they_are():
    experiment = Experiment(asking())
    asked, inside = suspects(experiment)
    assert inside.sum() == 6
    assert len(inside) == 12
    held = {tuple(row) for row in experiment.client_data(VICTIM)[0].flatten(1).tolist()}
    assert [tuple(row) in held for row in asked.inputs.flatten(1).tolist()] == inside.tolist()
    honest = experiment.initial_model()
    crafted = craft(experiment, 3, tuple(range(CLIENTS)), ArrayRecord(dict(honest.state_dict())))
    assert crafted.planted == {"kind": "ascent", "rounds": {r: list(range(r - 2, 12, 4)) for r in (2, 3, 4, 5)}}
    chosen = crafted.planted["rounds"][3]
    losses = [cross_entropy(m(asked.inputs[chosen]), asked.labels[chosen]).item() for m in (honest, crafted.common)]
    assert losses[1] > losses[0] + 0.5


@pytest.mark.parametrize(("field", "value"), [("records", 0), ("rate", -1.0), ("steps", 0)])
def test_an_ascent_that_cannot_be_is_refused_with_a_remedy(field, value):
    with pytest.raises(ValueError, match=f"{field} = {value}: must be .*; try"):
        scenario({"kind": "ascent", field: value}, attack="active_membership")
