"""Lies told over Flower messages: each reads its victim's image from the weak profile it fits, and not from `paper`."""

import pytest

from crypto.secagg.lies import LIES
from fedsim import ClientDP, Federation, Scenario, SecureAggregation
from fedsim.apps import client_app
from fedsim.assess import jobs, perform
from fedsim.experiment import Experiment
from fedsim.federation import federate, recording
from fedsim.grids import InlineGrid
from fedsim.guarantee import guarantee
from fedsim.outcome import attack_outcome
from strategies.lying_server import UNTOLD

CLIENTS = 5
VICTIM = 1
TOLD = sorted(set(LIES) - set(UNTOLD))
SETTINGS = {
    "scattered_dropouts": {"threshold": 2},
    "sybil_ring": {"neighbours": 4, "threshold": 3, "federation": {"clients": 7}, "colluders": 4},
    "mask_reuse": {"task": {"model": "mlp"}, "clip": 4.0, "federation": {"rounds": 2}},
}
"""What a lie needs to leave its victim alone: a threshold at which everybody else can be declared dropped, a ring, a
second round and a model that can be silenced."""


def scenario(lie, profile, *, federation=(), colluders=CLIENTS - 1, task=(), **defence):
    adversary = {"kind": "malicious_protocol" if lie else "honest_but_curious", "lie": lie}
    if lie in ("sybils", "sybil_ring"):
        adversary |= {"victim": 0, "colluders": colluders}
    elif lie:
        adversary["victim"] = VICTIM
    fields = {"clients": CLIENTS, "batch_size": 1, "weighted": False, **dict(federation)}
    return Scenario(
        name="x",
        task={"dataset": "digits", "model": "softmax", **dict(task)},
        federation=Federation(**fields),
        protocol=(SecureAggregation(**{"clip": 2.0, "profile": profile, **defence}),),
        adversary=adversary,
    )


def run(made):
    experiment = Experiment(made)
    clients = made.federation.clients
    nodes = {client: client + 1 for client in range(clients)}
    grid = InlineGrid(client_app, clients, {"scenario": made.model_dump_json()})
    recorder = recording(grid, made, nodes)
    training = federate(recorder, experiment, nodes)
    return experiment, training, recorder.view(experiment.initial_model(), training.opened)


def decibels(experiment, view):
    """The closed-form attack's score on each victim that the view supports, by client."""
    (job,) = jobs(experiment, view, experiment.scenario.attacks)
    outcome, _ = attack_outcome(experiment, experiment.scenario.cells()[0], job, perform(job))
    return {victim["client"]: victim["figures"]["psnr"][0] for victim in outcome["victims"]}, outcome


@pytest.mark.parametrize("lie", TOLD)
def test_a_lie_reads_the_victims_image_through_the_weak_profile(lie):
    experiment, training, view = run(scenario(lie, LIES[lie].breaks[0], **SETTINGS.get(lie, {})))
    victim = experiment.scenario.adversary.victim
    assert training.history[-1]["lie"] == f"client {victim}'s update was read"
    assert list(training.protocol["rounds"].values())[-1] == f"client {victim}'s update was read"
    scores, outcome = decibels(experiment, view)
    assert list(scores) == [victim]
    assert scores[victim] >= 60
    assert (outcome["rung"], outcome["contributors"]) == ("L10", 1)


@pytest.mark.parametrize("lie", [lie for lie in TOLD if LIES[lie].refused])
def test_paper_stops_a_lie_and_the_round_names_error_and_client(lie):
    experiment, training, view = run(scenario(lie, "paper", **{**SETTINGS.get(lie, {}), "threshold": None}))
    row, error = training.history[-1], LIES[lie].refused.__name__
    assert row["aborted"]
    assert error in " ".join(row["failed"].values())
    assert row["lie"].startswith(f"stopped by {error}")
    assert all(client in row["lie"] for client in row["failed"])
    assert training.protocol["some_profile_stops_it"]
    assert view.updates == ()
    assert decibels(experiment, view)[1]["status"] == "not_applicable"


def test_colluders_shrink_the_sum_to_the_honest_clients():
    leaked = {}
    for colluders in (2, 3, 4):
        experiment, training, view = run(scenario("sybils", "paper", colluders=colluders))
        honest = [u for u in view.updates if u.contributors == CLIENTS - colluders]
        assert len(honest) == 1
        assert training.history[1]["aborted"] is None
        leaked[colluders], outcome = decibels(experiment, view)
        assert outcome["contributors"] == CLIENTS - colluders
    assert min(leaked[4].values()) >= 60 > max(leaked[2].values())


def test_the_model_moves_on_where_a_lie_leaves_the_sum_and_stays_where_it_does_not():
    fields = {"rounds": 2, "batch_size": 2}
    for lie, profile, moves in (("sybils", "paper", True), ("both_lists", "no_consistency", False)):
        _, training, _ = run(scenario(lie, profile, federation=fields))
        assert (training.history[2]["loss"] != training.history[0]["loss"]) is moves
        assert set(training.protocol["rounds"]) == {"1", "2"}


def test_a_weighted_update_is_read_free_of_its_weight():
    fields = {"weighted": True, "batch_size": 3}
    _, _, plain = run(scenario(None, "no_consistency", federation=fields).model_copy(update={"protocol": ()}))
    _, _, view = run(scenario("both_lists", "no_consistency", max_weight=8, federation=fields))
    (truth,) = [u.arrays for u in plain.updates if u.client == VICTIM]
    for name, tensor in view.updates[0].arrays.items():
        assert float((tensor - truth[name]).abs().max()) < 4 / 2**16


def test_what_a_lie_read_counts_as_released_and_colluders_noise_as_none():
    noise = ClientDP(clip=5.0, noise_multiplier=1.0)
    for lie, profile, summed in (("both_lists", "no_consistency", 1), ("sybils", "paper", CLIENTS)):
        made = scenario(lie, profile, clip=100.0)
        made = Scenario(**{**dict(made), "protocol": (noise, *made.protocol)})
        experiment, training, _ = run(made)
        assert len(training.history[1]["answered"]) == summed
        stated = guarantee(experiment, training.history)
        assert stated is not None
        (on_the_sum,) = [o for o in stated.observers if o.observer == "the server, on the sum, as it was"]
        assert on_the_sum.noise_of == 1
        assert on_the_sum.epsilon == pytest.approx(stated.statement.epsilon, rel=1e-6)


def test_a_victim_that_was_not_asked_or_has_left_is_not_read():
    made = scenario("key_substitution", "semi_honest", federation={"rounds": 8, "cohort": 4, "dropout": 0.2})
    _, training, _ = run(made)
    for row in training.history[1:]:
        if VICTIM not in row["cohort"]:
            assert row["lie"] is None
        elif VICTIM in row["dropped"]:
            assert row["lie"].startswith("came to nothing")
        else:
            assert row["lie"] == f"client {VICTIM}'s update was read"
    assert {row["lie"] and row["lie"].split()[0] for row in training.history[1:]} == {None, "client", "came"}


@pytest.mark.parametrize(
    ("adversary", "protocol", "words"),
    [
        ({"kind": "malicious_protocol"}, {}, "lie = None"),
        ({"kind": "honest_but_curious", "lie": "both_lists"}, {}, "no other kind"),
        ({"kind": "malicious_protocol", "lie": "both_list"}, {}, "both_lists"),
        ({"kind": "malicious_protocol", "lie": "inconsistent_models"}, {}, "malicious_model"),
        ({"kind": "malicious_protocol", "lie": "both_lists", "victim": 9}, {}, "victim = 9"),
        ({"kind": "malicious_protocol", "lie": "both_lists", "colluders": 2}, {}, "colluders = 2"),
        ({"kind": "malicious_protocol", "lie": "sybils"}, {}, "colluders = 0"),
        ({"kind": "malicious_protocol", "lie": "both_lists"}, {"mode": "ideal"}, "mode='protocol'"),
        ({"kind": "malicious_protocol", "lie": "late_message"}, {"profile": "flower_1_41"}, "choose from both_lists"),
        ({"kind": "malicious_protocol", "lie": "both_lists"}, None, "add SecureAggregation"),
        ({}, {"mode": "ideal", "profile": "flower_1_41"}, "no trusted adder"),
        ({}, {"threshold": 5, "profile": "flower_1_41"}, "threshold = 5"),
    ],
)
def test_a_lie_that_cannot_be_told_is_refused_before_anything_runs(adversary, protocol, words):
    stack = () if protocol is None else (SecureAggregation(**protocol),)
    with pytest.raises(ValueError, match=words):
        Scenario(name="x", federation=Federation(clients=CLIENTS), protocol=stack, adversary=adversary)
