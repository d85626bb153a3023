"""A lie counts as stopped where clients refused it, never where they failed on their own."""

import pytest

from crypto.errors import BadUpdate, OverlappingSets, TooFewClients
from crypto.secagg.lies import LIES
from strategies.federated import RoundRecord
from strategies.refused import NAMES, own_errors, refusals, stopped_by

OVERFLOW = "a value of magnitude 1.99988 is outside the clip 1"


def whom(clients):
    return f"clients {', '.join(map(str, clients))}"


def record(*, refused=(), own=(), dropped=()):
    failed = {client: str(BadUpdate(client, "masked", OVERFLOW)) for client in own}
    failed |= {
        client: str(OverlappingSets(client, "unmask", "client 0 is listed both alive and dead")) for client in refused
    }
    return RoundRecord(1, [0, 1, 2, 3, 4], dropped=list(dropped), failed=failed)


def test_every_error_that_refuses_a_lie_is_a_refusal_and_a_clients_own_is_none():
    assert {lie.refused.__name__ for lie in LIES.values() if lie.refused} <= NAMES
    assert not {BadUpdate.__name__, TooFewClients.__name__} & NAMES


def test_an_overflow_of_every_client_stops_nothing_and_is_named_with_its_reason():
    all_failed = record(own=range(5))
    assert stopped_by(all_failed, whom, least=3, victim=0) is None
    said = own_errors(all_failed, whom, least=3, victim=0)
    assert said.startswith("the clients' own error BadUpdate (clients 0, 1, 2, 3, 4): BadUpdate at stage 'masked'")
    assert said.endswith(OVERFLOW)


def test_refusals_beside_one_overflow_stop_a_lie_and_name_the_refusals_alone():
    mixed = record(refused=(0, 1, 2, 4), own=(3,))
    assert stopped_by(mixed, whom, least=3, victim=0).startswith(
        "stopped by OverlappingSets (clients 0, 1, 2, 4): Over"
    )
    assert own_errors(mixed, whom, least=3, victim=0) is None


@pytest.mark.parametrize(
    "without_refusal",
    [record(refused=(0, 1), own=(2, 3, 4)), record(refused=(1, 2, 3, 4), own=(0,))],
    ids=["below the threshold", "the victim"],
)
def test_a_refusal_stops_nothing_where_the_round_had_ended_without_it(without_refusal):
    assert stopped_by(without_refusal, whom, least=3, victim=0) is None
    assert "BadUpdate" in own_errors(without_refusal, whom, least=3, victim=0)


def test_clients_that_left_are_neither():
    left = record(refused=(0,), dropped=(2, 3, 4))
    assert stopped_by(left, whom, least=3) is None
    assert own_errors(left, whom, least=3) is None


def test_a_reason_is_told_by_the_error_that_came_first():
    refused = "ModelRefused[dead_rows] at stage 'train', client 0: 9 of 10 rows"
    reasons = {
        0: str(BadUpdate(0, "masked", refused)),
        1: "did not answer in time",
        2: "ValueError at stage 'train': x",
    }
    assert list(refusals(RoundRecord(1, [0, 1, 2], failed=reasons))) == [0]
