"""Flower 1.41's own SecAgg+ under review: a right sum, rounds that drop-outs cost, and one request that opens all."""

import random

import numpy as np
import pytest
import torch

from strategies.flower_lies import FLOWER_LIES
from tests.strategies.test_lying_server import CLIENTS, VICTIM, decibels, run, scenario

FLOWER = "flower_1_41"


def test_the_sum_is_the_plain_one_within_its_rounding():
    _, plain, _ = run(scenario(None, FLOWER).model_copy(update={"protocol": ()}))
    _, masked, view = run(scenario(None, FLOWER, bits=22))
    assert masked.history[1]["answered"] == list(range(CLIENTS))
    for name, tensor in plain.state.items():
        assert float((tensor - masked.state[name]).abs().max()) <= 4.0 / 2**22
    assert [(u.client, u.contributors) for u in view.updates] == [(None, CLIENTS)]


@pytest.mark.parametrize("settings", [{"neighbours": 2, "threshold": 2}, {"max_weight": 8, "bits": 20}])
def test_a_ring_and_weights_give_the_weighted_mean(settings):
    fields = {"weighted": "max_weight" in settings, "batch_size": 3, "examples_per_client": 7}
    _, plain, _ = run(scenario(None, FLOWER, federation=fields).model_copy(update={"protocol": ()}))
    _, masked, _ = run(scenario(None, FLOWER, federation=fields, **settings))
    for name, tensor in plain.state.items():
        assert float((tensor - masked.state[name]).abs().max()) <= 4.0 / 2**14


def test_words_cross_masked_and_the_number_of_examples_in_the_clear():
    _, _, view = run(scenario(None, FLOWER))
    forms = {m.form for m in view.messages if m.direction == "received" and m.arrays}
    assert forms == {"masked"}
    told = [m.metrics for m in view.messages if m.metrics]
    assert len(told) == CLIENTS
    assert all("num_examples" in metrics["fitres.num_examples"] for metrics in told)


@pytest.mark.parametrize("lie", sorted(set(FLOWER_LIES) - {"degenerate_modulus"}))
def test_flowers_own_clients_believe_a_lie(lie):
    experiment, training, view = run(scenario(lie, FLOWER))
    assert training.history[1]["lie"] == f"client {VICTIM}'s update was read"
    scores, _ = decibels(experiment, view)
    assert scores[VICTIM] >= 60


def test_one_request_that_lists_the_victim_twice_reads_its_image_and_leaves_the_sum():
    experiment, training, view = run(scenario("both_lists", FLOWER))
    assert training.history[1]["lie"] == f"client {VICTIM}'s update was read"
    assert training.history[1]["aborted"] is None
    scores, _ = decibels(experiment, view)
    assert list(scores) == [VICTIM]
    assert scores[VICTIM] >= 60
    _, honest, _ = run(scenario(None, FLOWER))
    assert all(torch.equal(honest.state[name], training.state[name]) for name in honest.state)


def test_a_drop_out_before_masking_costs_the_round_and_after_it_does_not():
    for stage, survives in (("shares", False), ("masked", True)):
        fields = {"rounds": 4, "dropout": 0.15, "dropout_stage": stage}
        _, training, _ = run(scenario(None, FLOWER, federation=fields))
        hit = [row for row in training.history[1:] if row["dropped"]]
        assert hit
        assert all((row["aborted"] is None) is survives for row in hit)
        assert all(row["aborted"] is None for row in training.history[1:] if not row["dropped"])


def test_the_same_seed_gives_the_same_model_and_no_global_generator_moves():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    models = [run(scenario("both_lists", FLOWER))[1].state for _ in range(2)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


def test_one_bit_a_coordinate_rebuilds_the_image_from_a_wide_layer():
    wide = {"model": "mlp", "model_options": {"hidden": [1024]}}
    experiment, training, view = run(scenario("degenerate_modulus", FLOWER, task=wide, clip=0.02))
    assert training.history[1]["lie"] == f"client {VICTIM}'s update was read"
    (read,) = [u.arrays for u in view.updates if u.client == VICTIM]
    assert all(tensor.abs().unique().tolist() == [pytest.approx(0.02)] for tensor in read.values())
    scores, outcome = decibels(experiment, view)
    assert scores[VICTIM] >= outcome["victims"][0]["baseline"]["psnr_mean_image"][0] + 8


@pytest.mark.parametrize("lie", ["late_message", "mask_reuse", "differencing"])
def test_lies_that_are_not_told_to_flowers_clients_are_refused_in_words(lie):
    with pytest.raises(ValueError, match="against 'flower_1_41' choose from"):
        scenario(lie, FLOWER, federation={"rounds": 2})
