"""The cost model counts the bytes of a round exactly, and its parts as the protocol does them."""

from dataclasses import replace

import numpy as np
import pytest

from crypto.secagg import PROFILES, simulate_round
from crypto.secagg.cost import Setting, predict
from crypto.secagg.units import Units

FREE = Units(**dict.fromkeys(Units.__dataclass_fields__, 0.0))
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
    """(k + 1)A + A + Dk masks, 2nk agreements, n(k + t) verifications, but for peers that dropped out themselves."""
    masks = predict(BASE, replace(FREE, mask_word=1 / 1000)).total()
    assert masks == pytest.approx(90 * 23 + 90 + 10 * 22 * 90 / 99)
    agreements = predict(BASE, replace(FREE, agreement=1.0)).total()
    assert agreements == pytest.approx(100 * 22 + 90 * 22 + 10 * 22 * 90 / 99)
    assert predict(BASE, replace(FREE, verify=1.0)).total("client") == 100 * 22 + 90 * 12
    semi_honest = replace(BASE, profile=PROFILES["semi_honest"])
    assert predict(semi_honest, replace(FREE, verify=1.0)).total() == 0


def test_a_clients_cost_depends_on_its_neighbours_and_not_on_the_clients():
    units = Units(**dict.fromkeys(Units.__dataclass_fields__, 1e-6))
    few, many = (predict(replace(BASE, clients=n, dropped=0), units).total("client") / n for n in (100, 10_000))
    assert few == pytest.approx(many)
