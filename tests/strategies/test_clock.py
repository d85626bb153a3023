"""CPU seconds and samples that a client's state keeps for the experimenter."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedsim.grids import InlineGrid
from strategies.clock import CPU, Clock, timed
from strategies.sample import PLAIN, SAMPLED, keep, kept, sampled


@pytest.fixture(autouse=True)
def a_run():
    """Flower writes messages only within a run."""
    return InlineGrid(ClientApp(), 1, {})


def asked(round):
    return Message(RecordDict({"config": ConfigRecord({"round": round})}), 1, "train")


def work():
    return sum(i * i for i in range(20_000))


@pytest.fixture
def context():
    return Context(run_id=1, node_id=1, node_config={"partition-id": 0}, state=RecordDict(), run_config={})


def test_stages_add_up_within_a_round_and_a_new_round_begins_afresh(context):
    with timed(context, asked(1), "train"):
        work()
    once = context.state[CPU]["train"]
    assert once > 0
    with timed(context, asked(1), "masked"):
        work()
    with timed(context, asked(1), "train"):
        work()
    assert context.state[CPU]["train"] > once
    assert set(context.state[CPU]) == {"round", "train", "masked"}
    with timed(context, asked(2), "masked"):
        work()
    assert set(context.state[CPU]) == {"round", "masked"}


def test_what_fails_is_counted_too(context):
    clock = Clock()
    with pytest.raises(ZeroDivisionError), clock.timed("add"):
        work() / 0
    assert clock.seconds["add"] > 0
    with pytest.raises(ZeroDivisionError), timed(context, asked(1), "train"):
        work() / 0
    assert "train" in context.state[CPU]


@pytest.mark.parametrize("size", [1, 100, SAMPLED, SAMPLED + 1, 5 * SAMPLED])
def test_a_sample_is_bounded_and_spread_over_the_vector(size):
    found = sampled(np.arange(size, dtype=np.float32))
    assert 0 < len(found) <= SAMPLED
    assert found[0] == 0
    assert found[-1] >= size - 1 - size / SAMPLED - 1
    assert size > SAMPLED or len(found) == size


def test_a_sample_belongs_to_its_round(context):
    keep(context, PLAIN, 3, np.array([1.0, 2.0]), 7)
    values, weight = kept(context.state[PLAIN], 3)
    assert values.tolist() == [1.0, 2.0]
    assert weight == 7
    assert kept(context.state[PLAIN], 4) is None
