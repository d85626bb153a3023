"""What is read of right sums: weighted ones, those that colluders shrink, those of rounds whose cohorts differ."""

import numpy as np
import pytest
import torch

from attacks import Knowledge, reconstruct
from fedsim import Adversary, Homomorphic, Scenario
from fedsim.residue import residue
from fedsim.truth import truth_of
from strategies.differencing import alone, differenced
from strategies.opened import Opened
from tests.strategies import homomorphic_runs
from tests.strategies.homomorphic_runs import experiment as homomorphic
from tests.strategies.test_lying_server import CLIENTS, VICTIM, decibels, run, scenario

FULL = {"examples_per_client": 1, "batch_size": 1}
"""A client that uses all it holds in every round: its update changes with the model alone."""


def honest(made, **adversary):
    return Scenario(**{**made.model_dump(), "adversary": adversary})


def plain(made):
    return run(Scenario(**{**made.model_dump(), "protocol": (), "adversary": {}}))[2]


@pytest.mark.parametrize("mode", ["protocol", "ideal"])
@pytest.mark.parametrize("max_weight", [1, 8])
def test_colluders_leave_the_server_the_sum_over_the_honest(mode, max_weight):
    fields = {"weighted": max_weight > 1, "batch_size": 3}
    made = honest(scenario(None, "paper", federation=fields, mode=mode, max_weight=max_weight), colluders=3)
    _, training, view = run(made)
    assert training.history[1]["aborted"] is None
    assert [(u.clients, u.contributors) for u in view.updates] == [((0, 1), 2), (tuple(range(CLIENTS)), CLIENTS)]
    truth = {u.client: u.arrays["1.weight"] * (3 if max_weight > 1 else 1) for u in plain(made).updates}
    assert float((view.updates[0].arrays["1.weight"] - truth[0] - truth[1]).abs().max()) < 40 * 4 / 2**16


def test_an_honest_sum_leaks_more_the_fewer_clients_in_it_are_honest():
    leaked = {}
    for colluders in (2, 4):
        experiment, _, view = run(honest(scenario(None, "paper"), colluders=colluders))
        scores, outcome = decibels(experiment, view)
        assert outcome["contributors"] == CLIENTS - colluders
        leaked[colluders] = max(scores.values())
    assert leaked[4] >= 60 > leaked[2]


def test_a_weighted_sum_says_its_weight_so_that_labels_are_counted_rightly():
    fields = {"weighted": True, "batch_size": 6}
    made = scenario(None, "paper", federation=fields, max_weight=8, bits=20)
    experiment, training, view = run(made)
    (observation,) = view.observations()
    assert observation.weight == training.history[1]["weight"] == 6 * CLIENTS
    assert observation.scale == pytest.approx(1 / 30)
    dataset = experiment.dataset
    know = Knowledge(dataset.input_shape, dataset.num_classes, batch_size=30, public=experiment.public_data()[0])
    claimed = reconstruct("label_counts", observation, know).labels
    labels = truth_of(experiment, 1, *range(CLIENTS)).labels
    wrong = (torch.bincount(claimed, minlength=10) - torch.bincount(labels, minlength=10)).abs().sum()
    assert int(wrong) <= 6  # of 30 labels, each misplaced one counted twice


@pytest.mark.parametrize("profile", ["paper", "semi_honest"])
def test_the_same_model_twice_and_the_victim_once_give_its_update(profile):
    made = scenario("differencing", profile, federation={**FULL, "rounds": 2})
    experiment, training, view = run(made)
    assert training.history[2]["lie"] == f"client {VICTIM}'s update was read"
    assert all(row["aborted"] is None for row in training.history[1:])
    assert training.history[2]["loss"] == training.history[0]["loss"]
    assert not training.protocol["some_profile_stops_it"]
    scores, outcome = decibels(experiment, view)
    assert scores[VICTIM] >= 60
    assert outcome["rung"] == "L10"


def test_differences_are_noise_where_clients_draw_new_batches_and_nothing_where_two_leave():
    made = scenario("differencing", "paper", federation={"rounds": 2})
    experiment, _, view = run(made)
    assert decibels(experiment, view)[0][VICTIM] < 20
    made = scenario("differencing", "semi_honest", federation={**FULL, "rounds": 4, "dropout": 0.2}, threshold=2)
    _, training, view = run(made)
    for row, before in zip(training.history[2::2], training.history[1::2], strict=True):
        if row["dropped"] or before["dropped"]:
            assert row["lie"].startswith("came to nothing")


def test_an_honest_server_that_subtracts_reads_clients_as_far_as_the_model_stands_still():
    scores = {}
    for rate in (1e-6, 1.0):
        fields = {**FULL, "rounds": 6, "dropout": 0.2, "learning_rate": 1.0, "server_learning_rate": rate}
        made = scenario(None, "semi_honest", federation=fields, threshold=2)
        experiment, training, view = run(honest(made, across_rounds=True))
        lone = {u.client for u in view.updates if u.client is not None}
        isolated = set(alone([row["answered"] for row in training.history[1:] if row["answered"]]))
        assert lone == isolated.intersection(training.history[1]["answered"]) != set()  # the round that is attacked
        scores[rate] = max(decibels(experiment, view)[0].values())
    assert scores[1e-6] >= 50 > scores[1.0]


@pytest.mark.parametrize("weighted", [False, True])
def test_colluders_shrink_a_decrypted_sum_too(weighted):
    fields = {"weighted": weighted, "batch_size": 3, "rounds": 1, "clients": CLIENTS}
    made = homomorphic(
        Homomorphic(keys="trusted_decryptor", max_weight=8 if weighted else 1),
        adversary=Adversary(colluders=3),
        **fields,
    )
    seen = homomorphic_runs.Run(made).view.updates
    assert [one.clients for one in seen] == [(0, 1), tuple(range(CLIENTS))]
    truth = {u.client: u.arrays["1.weight"] for u in homomorphic_runs.Run(homomorphic(**fields)).view.updates}
    wanted = (truth[0] + truth[1]) * (3 if weighted else 1)
    assert float((seen[0].arrays["1.weight"] - wanted).abs().max()) < 1e-4
    assert seen[0].weight == (6 if weighted else None)


def test_colluders_are_refused_where_their_part_is_not_modelled():
    with pytest.raises(ValueError, match="colluders = 2"):
        honest(scenario(None, "flower_1_41"), colluders=2)
    with pytest.raises(ValueError, match="the victim has 4 neighbours"):
        scenario("sybil_ring", "paper", federation={"clients": 7}, colluders=3, neighbours=4)


def test_across_rounds_needs_rounds_and_sums():
    with pytest.raises(ValueError, match="across_rounds"):
        honest(scenario(None, "paper"), across_rounds=True)
    made = scenario(None, "paper", federation={"rounds": 2})
    with pytest.raises(ValueError, match="across_rounds"):
        Scenario(**{**made.model_dump(), "protocol": (), "adversary": {"across_rounds": True}})


def test_differences_of_weighted_sums_are_exact():
    draw = np.random.default_rng(5)
    updates, weights = draw.normal(size=(4, 7)), np.array([3, 1, 2, 5])
    cohorts = [(0, 1, 2, 3), (0, 1, 3), (1, 2, 3)]

    def opened(round, clients):
        total = torch.from_numpy((updates * weights[:, None])[list(clients)].sum(0))
        weight = int(weights[list(clients)].sum())
        return Opened(round, "gradient", {"w": total}, len(clients), clients=clients, weight=weight)

    found = differenced([opened(round, clients) for round, clients in enumerate(cohorts, start=1)])
    assert {(one.client, one.round) for one in found} == {(0, 1), (0, 2), (2, 1), (2, 3)}
    for one in found:
        assert np.allclose(one.arrays["w"].numpy(), updates[one.client], atol=1e-5)


def test_a_neuron_that_one_client_alone_activates_shows_its_digit_in_the_sum():
    made = scenario(None, "paper", task={"model": "mlp"}, bits=20)
    experiment, _, view = run(made)
    (observation,) = view.observations()
    assert observation.contributors == CLIENTS
    _, outcome = decibels(experiment, view)
    (victim,) = outcome["victims"]
    figures = [figure for figure in victim["figures"]["psnr"] if figure is not None]
    assert outcome["rung"] == "L2"
    assert max(figures) >= 40
    assert max(victim["baseline"]["psnr_mean_image"]) < 20


def test_what_no_profile_stops_is_told_in_sentences():
    made = scenario(None, "paper", federation={"rounds": 2})
    history = [{"round": 0}, {"answered": [0, 1, 2, 3]}, {"answered": [0, 1, 2]}]
    cohort, differences, coordinates = residue(made, history, {1: 0.0, 2: 0.25})
    assert "3 clients" in cohort
    assert "client 3 alone" in differences
    assert "25 % of the coordinates of round 2" in coordinates
    assert "leaves no client alone" in residue(made, history[:2] * 2, {1: 0.0})[1]
    assert residue(made.model_copy(update={"protocol": ()}), history, {}) == []
