"""Epsilon by observer under secure aggregation."""

import pytest

from fedsim.experiment import Experiment
from fedsim.guarantee import guarantee
from fedsim.observers import observers
from fedsim.privacy import epsilons
from fedsim.scenario import Scenario
from strategies.client_dp import ClientDP
from strategies.secure_aggregation import SecureAggregation

DP = ClientDP(noise_multiplier=1.0)


def by_name(**counts):
    fields = {"releases": 1, "cohort": 16, "survivors": 16, "colluders": 0, **counts}
    weight = fields.pop("max_weight", 1)
    return {o.observer: o for o in observers(DP, SecureAggregation(max_weight=weight), **fields)}


def test_one_update_costs_what_it_does_without_masks():
    assert by_name()["the server, on one update"].epsilon == epsilons(1.0, 1, DP.delta)[0]


def test_only_the_threshold_of_survivors_is_sure():
    seen = by_name()
    assert seen["the server, on the sum, guaranteed"].noise_of == 9  # more than half of 16
    assert seen["the server, on the sum, as it was"].noise_multiplier == pytest.approx(4.0)
    assert seen["an outsider"].epsilon == pytest.approx(epsilons(4.0, 1, DP.delta)[0])


def test_dropouts_and_collusion_take_noise_away():
    whole, fewer = by_name(), by_name(survivors=10, colluders=3)
    assert fewer["the server, on the sum, as it was"].noise_of == 7
    assert fewer["the server, on the sum, guaranteed"].noise_of == 6
    for name in ("the server, on the sum, guaranteed", "the server, on the sum, as it was", "an outsider"):
        assert fewer[name].epsilon > whole[name].epsilon


def test_with_all_others_colluding_only_the_own_noise_is_left():
    assert by_name(colluders=15)["the server, on the sum, as it was"].epsilon == epsilons(1.0, 1, DP.delta)[0]


def test_a_heavy_client_hides_behind_light_ones_less():
    light, heavy = by_name(), by_name(max_weight=8)
    assert heavy["an outsider"].noise_multiplier == pytest.approx((1 + 15 / 64) ** 0.5)
    assert heavy["an outsider"].epsilon > light["an outsider"].epsilon


@pytest.mark.parametrize(
    ("lie", "noise_of"), [(None, 3), ("stopped by OverlappingSets", 3), ("client 0's update was read", 1)]
)
def test_the_threshold_vouches_for_nothing_once_a_lie_has_opened_an_update(lie, noise_of):
    task = {"dataset": "digits", "model": "softmax"}
    made = Experiment(Scenario(name="x", task=task, federation={"weighted": False}, protocol=[DP, SecureAggregation()]))
    given = guarantee(made, [{"round": 0}, {"round": 1, "answered": [0, 1, 2, 3], "lie": lie}])
    sure = next(o for o in given.observers if o.observer == "the server, on the sum, guaranteed")
    assert sure.noise_of == noise_of
    assert (sure.epsilon == given.statement.epsilon) == (noise_of == 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "are honest"),
        ({"profile": "semi_honest"}, "are honest, and the server keeps to the protocol"),
        ({"profile": "flower_1_41"}, "are honest, and the server keeps to the protocol"),
        ({"mode": "ideal"}, "are honest, and so is the party that adds"),
    ],
)
def test_a_guarantee_says_who_else_must_keep_to_the_protocol(fields, words):
    counts = {"releases": 1, "cohort": 6, "survivors": 6, "colluders": 0}
    rows = observers(DP, SecureAggregation(**fields), **counts)
    (sure,) = [row for row in rows if row.observer == "the server, on the sum, guaranteed"]
    assert sure.assumes.endswith(words)
