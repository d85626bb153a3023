"""The cost model counts the bytes of a round exactly, and its parts as the protocol does them."""

from dataclasses import replace

import numpy as np
import pytest

from crypto.secagg import PROFILES, STAGES, simulate_round
from crypto.secagg.cost import Setting, predict
from crypto.secagg.units import Line, Units, measure_units

NOTHING = {stage: {"client": Line(0.0, 0.0), "server": Line(0.0, 0.0)} for stage in STAGES}
FREE = Units(NOTHING, **dict.fromkeys([name for name in Units.__dataclass_fields__ if name != "stages"], 0.0))
BASE = Setting(clients=100, neighbours=22, threshold=13, dimension=1000, profile=PROFILES["paper"], dropped=10)


@pytest.mark.parametrize("profile", ["paper", "semi_honest", "single_mask"])
@pytest.mark.parametrize("dropped", [0, 2])
@pytest.mark.parametrize("weights", [None, [1 << 20] * 9])
def test_predicted_bytes_are_those_that_crossed_the_wire(profile, dropped, weights):
    n, d = 9, 50
    updates = np.zeros((n, d), np.float32)
    round = simulate_round(
        updates, threshold=6, profile=profile, clip=1.0, weights=weights, dropped={"masked": list(range(dropped))}
    )
    words = d + (weights is not None)
    setting = Setting(n, n - 1, 6, words, PROFILES[profile], dropped, 8 if weights else 4)
    cost = predict(setting, FREE)
    assert (cost.bytes_up, cost.bytes_down) == (round.bytes_up, round.bytes_down)


def test_the_big_parts_are_counted_as_the_protocol_does_them():
    """(k + 1)A + A + Dk masks but for peers that dropped out themselves, and a threshold of signatures each."""
    masks = predict(BASE, replace(FREE, mask_word=1 / 1000)).total()
    assert masks == pytest.approx(90 * 23 + 90 + 10 * 22 * 90 / 99)
    assert predict(BASE, replace(FREE, verify=1.0)).total("client") == 90 * (13 - 2)
    semi_honest = replace(BASE, profile=PROFILES["semi_honest"])
    assert predict(semi_honest, replace(FREE, verify=1.0)).total() == 0


def test_a_stage_costs_those_who_are_still_there_and_by_their_neighbours():
    line = {"client": Line(3.0, 0.5), "server": Line(0.0, 0.0)}
    spent = predict(BASE, replace(FREE, stages=dict.fromkeys(STAGES, line))).cpu_seconds
    assert [spent[stage]["client"] for stage in STAGES] == [100 * 14, 100 * 14, 90 * 14, 90 * 14, 90 * 14]


def test_measured_units_are_costs():
    units = measure_units(PROFILES["paper"])
    assert units.mask_word > 0
    assert predict(BASE, units).total() > 0
