"""The recorder: the server's view is what crossed the wire, no more and no less."""

import math
import random

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import nn

from fedsim.grids import InlineGrid
from strategies.recorder import RecordingGrid, first_appearance

app = ClientApp()


def state_of(message):
    return message.content["arrays"].to_torch_state_dict()


def answer(message, arrays, **metrics):
    content = RecordDict({name: ArrayRecord(array) for name, array in arrays.items()})
    content["metrics"] = MetricRecord({"num-examples": 3, **metrics})
    return Message(content, reply_to=message)


@app.train("ours")
def ours(message, context):
    weights = state_of(message)
    update = {name: torch.full_like(weights[name], float(context.node_id)) for name in ("0.weight", "0.bias", "1.bias")}
    buffers = {"1.running_mean": torch.full((2,), 7.0), "1.num_batches_tracked": torch.tensor(4)}
    return answer(message, {"update": update, "buffers": buffers}, losses=[0.5, 0.25])


@app.train("weights")
def weights(message, context):
    return answer(message, {"anything": {name: t + context.node_id for name, t in state_of(message).items()}}, loss=0.5)


@app.train("listed")
def listed(message, context):
    return answer(message, {"arrays": [a + 1 for a in message.content["arrays"].to_numpy_ndarrays()]})


@app.train("sealed")
def sealed(message, context):
    sealed = Array(dtype="ckks", shape=(8,), stype="ckks", data=b"\x01\x02")
    return Message(RecordDict({"update": ArrayRecord({"all": sealed})}), reply_to=message)


@app.train("fails")
def fails(message, context):
    raise ValueError("no data")


@app.evaluate()
def evaluate(message, context):
    return answer(message, {}, accuracy=0.5)


def network():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.fixture
def recorder():
    return RecordingGrid(InlineGrid(app, 3, {}))


def asks(grid, model, stage, round=1, nodes=None, **config):
    arrays = ArrayRecord(model.state_dict())
    record = RecordDict({"arrays": arrays, "config": ConfigRecord({"round": round, **config})})
    return [Message(record, node, stage) for node in (nodes or grid.get_node_ids())]


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["gradient", "delta"])
def test_an_explicit_update_is_read_as_the_instruction_says(recorder, kind):
    model = network()
    recorder.send_and_receive(asks(recorder, model, "train.ours", round=4, update_kind=kind))
    updates = recorder.view(network()).updates
    assert [(u.round, u.client, u.kind, u.contributors) for u in updates] == [(4, c, kind, 1) for c in range(3)]
    assert torch.equal(updates[1].arrays["0.weight"], torch.full((2, 3), 2.0))
    assert set(updates[1].buffers) == {"1.running_mean", "1.num_batches_tracked"}
    assert updates[1].side == {"num-examples": 3.0, "losses[0]": 0.5, "losses[1]": 0.25}


def test_returned_weights_are_read_as_the_delta_and_the_buffers(recorder):
    model = network()
    recorder.send_and_receive(asks(recorder, model, "train.weights"))
    view = recorder.view(network())
    first, second, _ = view.updates
    assert set(second.arrays) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        returned = parameter.detach() + 2
        assert torch.equal(second.arrays[name], returned - parameter.detach())
        assert second.arrays[name].dtype == parameter.dtype
    assert second.kind == "delta"
    assert torch.equal(second.buffers["1.running_var"], torch.full((2,), 3.0))
    assert second.buffers["1.num_batches_tracked"] == 2
    assert first.side == {"num-examples": 3.0, "loss": 0.5}


def test_observations_carry_the_model_that_was_sent_in_that_round(recorder):
    models = {1: network(), 2: network()}
    for round, model in models.items():
        recorder.send_and_receive(asks(recorder, model, "train.weights", round=round))
    view = recorder.view(network())
    assert len(view.broadcasts) == 2
    for round, model in models.items():
        (observation,) = view.observations(round=round, client=1)
        assert same(observation.model.state_dict(), model.state_dict())


def test_a_server_that_sends_each_client_its_own_model_is_seen_to_do_so(recorder):
    models = [network() for _ in range(3)]
    messages = [asks(recorder, model, "train.weights", nodes=[i + 1])[0] for i, model in enumerate(models)]
    recorder.send_and_receive(messages)
    view = recorder.view(network())
    assert len({u.base for u in view.updates}) == 3
    for i, observation in enumerate(view.observations()):
        assert same(observation.model.state_dict(), models[i].state_dict())


def test_what_is_recorded_does_not_change_when_the_messages_do(recorder):
    model = network()
    messages = asks(recorder, model, "train.weights")
    replies = recorder.send_and_receive(messages)
    before = recorder.view(network())
    messages[0].content["config"]["round"] = 99
    messages[0].content["arrays"].clear()
    replies[0].content["anything"].clear()
    replies[0].content["metrics"]["loss"] = -1.0
    after = recorder.view(network())
    assert [m.round for m in after.messages] == [1] * 6
    assert after.updates[0].side == before.updates[0].side
    assert same(after.updates[0].arrays, before.updates[0].arrays)
    assert same(after.broadcasts[after.updates[0].base], model.state_dict())


def test_every_message_is_listed_with_what_it_carried(recorder):
    recorder.send_and_receive(asks(recorder, network(), "train.ours", update_kind="delta", secret="no"))
    recorder.send_and_receive(asks(recorder, network(), "evaluate"))
    view = recorder.view(network())
    crossed = [(m.direction, m.stage, m.client) for m in view.messages]
    assert crossed == [
        (direction, stage, client)
        for stage in ("train.ours", "evaluate")
        for direction in ("sent", "received")
        for client in range(3)
    ]
    sent, received = view.messages[0], view.messages[3]
    assert sent.configs == {"config": {"round": 1, "update_kind": "delta", "secret": "no"}}
    assert received.metrics == {"metrics": {"num-examples": 3, "losses": [0.5, 0.25]}}
    assert set(received.arrays) == {"update", "buffers"}
    assert len(view.updates) == 3  # evaluation returns no arrays


def test_bytes_count_names_and_values(recorder):
    content = RecordDict(
        {"a": ArrayRecord({"w": Array("int8", (2,), "x", b"\x01\x02")}), "c": ConfigRecord({"k": ["é", "bb"], "n": 1})}
    )
    recorder.send_and_receive([Message(content, 1, "evaluate")])
    assert recorder.view(network()).messages[0].bytes == (1 + 1 + 2) + (1 + 1 + 4 + 1 + 8)


def test_an_error_reply_is_a_message_and_no_update(recorder):
    recorder.send_and_receive(asks(recorder, network(), "train.fails"))
    view = recorder.view(network())
    assert [m.error.startswith("ValueError: no data") for m in view.messages[3:]] == [True] * 3
    assert view.updates == ()


def test_a_ciphertext_yields_no_observation(recorder):
    recorder.send_and_receive(asks(recorder, network(), "train.sealed", update_kind="delta"))
    view = recorder.view(network())
    assert {m.form for m in view.messages if m.direction == "received"} == {"ciphertext"}
    assert view.messages[3].arrays == {"update": {"all": b"\x01\x02"}}
    assert list(view.observations()) == []


def test_rounds_that_are_not_kept_are_listed_without_their_arrays():
    recorder = RecordingGrid(InlineGrid(app, 3, {}), keep=lambda round: round == 2)
    for round in (1, 2, 3):
        recorder.send_and_receive(asks(recorder, network(), "train.weights", round=round))
    view = recorder.view(network())
    assert {u.round for u in view.updates} == {2}
    assert len(view.broadcasts) == 1
    assert all(bool(m.arrays) == (m.round == 2) and m.bytes > 0 for m in view.messages)
    assert len(view.messages) == 18


@pytest.mark.parametrize(
    ("config", "group", "round"),
    [({"server-round": 5}, None, 5), ({"round": 6}, "9", 6), ({}, "7", 7), ({}, "warm-up", 0), ({}, None, 0)],
)
def test_a_round_is_found_where_apps_put_it(recorder, config, group, round):
    content = RecordDict({"arrays": ArrayRecord(network().state_dict()), "setup": ConfigRecord(config)})
    recorder.send_and_receive([Message(content, 1, "train.weights", group_id=group)])
    view = recorder.view(network())
    assert [m.round for m in view.messages] == [round, round]
    assert [u.round for u in view.updates] == [round]


def test_arrays_without_names_stand_for_the_state_in_order(recorder):
    model = nn.Linear(3, 2)
    arrays = ArrayRecord([t.numpy() for t in model.state_dict().values()])
    recorder.send_and_receive([Message(RecordDict({"arrays": arrays}), 1, "train.listed")])
    (observation,) = recorder.view(nn.Linear(3, 2)).observations()
    assert same(observation.model.state_dict(), model.state_dict())
    assert set(observation.update) == {"weight", "bias"}


def test_a_model_that_does_not_fit_is_refused(recorder):
    recorder.send_and_receive(asks(recorder, network(), "train.weights"))
    with pytest.raises(ValueError, match="do not fit this Linear: unknown names .*0.bias.*pass the model"):
        recorder.view(nn.Linear(3, 2))


def test_an_array_that_is_no_model_is_no_update(recorder):
    content = RecordDict({"question": ArrayRecord({"probe": Array(torch.ones(3).numpy())})})
    recorder.send_and_receive([Message(content, 1, "evaluate")])
    view = recorder.view(network())
    assert view.updates == ()
    assert view.broadcasts == {}
    assert torch.equal(view.messages[0].arrays["question"]["probe"], torch.ones(3))


def test_tied_weights_are_parameters_once_and_buffers_never(recorder):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    recorder.send_and_receive(asks(recorder, model, "train.weights"))
    (observation, *_) = recorder.view(model).observations()
    assert set(observation.update) == {"0.weight", "0.bias", "1.bias"}
    assert observation.buffers == {}


class Foreign(Grid):
    """A grid like Flower's own: random node ids, replies in any order, one reply a pull."""

    def __init__(self, clients):
        self.inner = InlineGrid(app, clients, {})
        self.ids = dict(zip(random.Random(1).sample(range(10**6), clients), self.inner.get_node_ids(), strict=True))
        self.run_set = None
        self.waiting = {}

    def set_run(self, run):
        self.run_set = run

    run = property(lambda self: self.run_set)

    def create_message(self, *args, **kwargs):
        return self.inner.create_message(*args, **kwargs)

    def get_node_ids(self):
        return set(self.ids)

    def push_messages(self, messages):
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{len(self.waiting)}"
            self.waiting[message.metadata.message_id] = message
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids):
        for id in reversed(list(message_ids)):
            if id in self.waiting:
                message = self.waiting.pop(id)
                ours = Message(message.content, self.ids[message.metadata.dst_node_id], message.metadata.message_type)
                (reply,) = self.inner.send_and_receive([ours])
                reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
                reply.metadata.__dict__["_reply_to_message_id"] = id
                return [reply]
        return []

    def send_and_receive(self, messages, *, timeout=None):
        ids = self.push_messages(messages)
        return [reply for _ in ids for reply in self.pull_messages(ids)]


def test_another_grid_gives_the_same_view_once_the_partitions_are_known(recorder):
    model = network()
    foreign = Foreign(3)
    other = RecordingGrid(foreign)
    for grid in (recorder, other):
        for round in (1, 2):
            grid.send_and_receive(asks(grid, model, "train.weights", round=round))
    other.partition_of = {node: ours - 1 for node, ours in foreign.ids.items()}.__getitem__
    a, b = recorder.view(network()), other.view(network())
    assert [(m.client, m.round, m.direction, m.metrics, m.bytes) for m in a.messages] == [
        (m.client, m.round, m.direction, m.metrics, m.bytes) for m in b.messages
    ]
    for one, two in zip(a.updates, b.updates, strict=True):
        assert (one.client, one.round, one.base) == (two.client, two.round, two.base)
        assert same(one.arrays, two.arrays)


def test_first_appearance_numbers_unknown_nodes(recorder):
    grid = RecordingGrid(Foreign(3), partition_of=first_appearance())
    grid.send_and_receive(asks(grid, network(), "train.weights"))
    assert [u.client for u in grid.view(network()).updates] == [0, 1, 2]


def test_pushing_and_pulling_is_recorded_as_it_happens():
    grid = RecordingGrid(Foreign(3), partition_of=first_appearance())
    ids = grid.push_messages(asks(grid, network(), "train.weights"))
    assert [m.direction for m in grid.view(network()).messages] == ["sent"] * 3
    assert len(list(grid.pull_messages(ids))) == 1
    assert len(grid.view(network()).updates) == 1
    while list(grid.pull_messages(ids)):
        pass
    assert len(grid.view(network()).updates) == 3


def test_the_rest_of_the_grid_passes_through(recorder):
    assert list(recorder.get_node_ids()) == [1, 2, 3]
    assert [node.node_id for node in recorder.get_nodes()] == [1, 2, 3]
    recorder.set_run(recorder.run)
    assert recorder.run.run_id == recorder.inner.run.run_id
    assert recorder.create_message(RecordDict(), "query", 1, "3").metadata.group_id == "3"


def test_a_delta_is_the_exact_difference_rounded_once(recorder):
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.bias.fill_(1 / 3)
    recorder.send_and_receive(asks(recorder, model, "train.weights", nodes=[1]))
    (update,) = recorder.view(nn.Linear(1, 1)).updates
    sent = float(model.bias.detach())
    returned = float(torch.tensor(sent) + 1)
    assert math.isclose(float(update.arrays["bias"]), returned - sent, rel_tol=2**-24)
