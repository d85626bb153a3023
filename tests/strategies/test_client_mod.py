"""The Flower mod: protects train replies, leaves the rest alone, and keeps its evidence out of the message."""

import math

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp

from strategies.base import ClientContext
from strategies.client_dp import ClientDP
from strategies.client_mod import defence_mod, evidence_of
from strategies.stack import Stack

UPDATE = {"w": torch.full((100,), 7.0), "s": torch.tensor(100.0)}


def instruction(kind="train", round=3):
    metadata = Metadata(
        run_id=1,
        message_id="m",
        src_node_id=1,
        dst_node_id=5,
        reply_to_message_id="",
        group_id=str(round),
        created_at=0.0,
        ttl=1e12,
        message_type=kind,
        src_task_id=1,
        dst_task_id=None,
    )
    return Message(content=RecordDict({"config": ConfigRecord({"round": round})}), metadata=metadata)


def node(client=4):
    return Context(
        run_id=1, node_id=client + 1, node_config={"partition-id": client}, state=RecordDict(), run_config={}
    )


def generator_for(message, context, kind):
    round, client = message.content["config"]["round"], context.node_config["partition-id"]
    return torch.Generator().manual_seed(1000 * round + 10 * client + len(kind))


def app(answer, *defences):
    client_app = ClientApp(mods=[defence_mod(lambda message, context: Stack(defences), generator_for)])
    for register in (client_app.train(), client_app.evaluate(), client_app.query(), client_app.train("other")):
        register(answer)
    return client_app


def answer(message, context):
    content = {
        "update": ArrayRecord(UPDATE),
        "buffers": ArrayRecord({"mean": torch.ones(6)}),
        "metrics": MetricRecord({"num-examples": 5, "train_loss": 0.5}),
    }
    return Message(RecordDict(content), reply_to=message)


def tensors(message):
    return message.content["update"].to_torch_state_dict()


def test_a_train_reply_is_clipped_and_noised_and_the_rest_travels_on():
    context = node()
    reply = app(answer, ClientDP(clip=2.0, noise_multiplier=0.0))(instruction(), context)
    sent = tensors(reply)
    assert math.sqrt(sum(float(t.square().sum()) for t in sent.values())) == pytest.approx(2.0, rel=1e-6)
    assert sent["s"].shape == ()
    assert set(reply.content) == {"update", "buffers", "metrics"}
    assert reply.content["metrics"]["num-examples"] == 5
    assert reply.metadata.dst_node_id == 1
    assert reply.metadata.reply_to_message_id == "m"


def test_the_evidence_stays_in_the_clients_state():
    context = node()
    reply = app(answer, ClientDP(clip=2.0, noise_multiplier=0.5))(instruction(), context)
    evidence = context.state["evidence"]
    assert evidence["client_dp.norm_before"] == pytest.approx(math.sqrt(100 * 49 + 10_000))
    assert evidence["client_dp.norm_after"] == pytest.approx(2.0)
    assert evidence["client_dp.coordinates"] == 101
    assert (evidence["beside_update.buffers"], evidence["beside_update.metrics"]) == (6, 2)
    assert "client_dp" not in repr(reply.content)


def test_the_evidence_is_of_the_latest_round_alone():
    context, client_app = node(), app(answer, ClientDP())
    for round in (1, 2):
        client_app(instruction(round=round), context)
    assert context.state["evidence"]["client_dp.releases"] == 1


def test_noise_differs_between_rounds_and_clients_and_repeats_for_the_same():
    client_app = app(answer, ClientDP())
    sent = {
        (round, client): tensors(client_app(instruction(round=round), node(client)))["w"]
        for round in (1, 2)
        for client in (1, 2)
    }
    assert len({tuple(t.tolist()) for t in sent.values()}) == 4
    again = tensors(client_app(instruction(round=1), node(1)))["w"]
    assert torch.equal(again, sent[1, 1])


def test_records_that_the_app_still_holds_are_not_touched():
    held = ArrayRecord(UPDATE)
    content = RecordDict({"update": held})
    app(lambda m, c: Message(content, reply_to=m), ClientDP())(instruction(), node())
    assert content["update"] is held
    assert torch.equal(held.to_torch_state_dict()["w"], UPDATE["w"])


@pytest.mark.parametrize("kind", ["evaluate", "query"])
def test_other_messages_pass_unchanged(kind):
    context = node()
    reply = app(answer, ClientDP())(instruction(kind), context)
    assert torch.equal(tensors(reply)["w"], UPDATE["w"])
    assert "evidence" not in context.state


def test_the_plain_protocol_passes_unchanged():
    assert torch.equal(tensors(app(answer)(instruction(), node()))["w"], UPDATE["w"])


def test_an_error_reply_passes_unchanged():
    reply = app(lambda m, c: Message(Error(1001, "dropped out"), reply_to=m), ClientDP())(instruction(), node())
    assert (reply.error.code, reply.error.reason) == (1001, "dropped out")


def test_an_update_that_is_not_finite_becomes_an_error_naming_the_tensor():
    def diverged(message, context):
        return Message(RecordDict({"update": ArrayRecord({"w": torch.tensor([math.nan])})}), reply_to=message)

    reply = app(diverged, ClientDP())(instruction(), node())
    assert reply.has_error()
    assert "update['w']" in reply.error.reason


@pytest.mark.parametrize("kind", ["train", "train.other"])
def test_arrays_under_another_name_are_not_sent_unprotected(kind):
    def quickstart(message, context):
        return Message(RecordDict({"arrays": ArrayRecord(UPDATE)}), reply_to=message)

    reply = app(quickstart, ClientDP())(instruction(kind), node())
    assert reply.has_error()
    assert "'update'" in reply.error.reason


def test_level_example_needs_the_private_gradient_and_adds_no_second_noise():
    def private(message, context):
        model = torch.nn.Linear(3, 2)
        kind, rule = Stack((ClientDP(level="example"),)).local_gradient
        ctx = ClientContext(3, 4, generator_for(message, context, kind), evidence_of(context))
        update = rule(model, torch.nn.functional.cross_entropy, torch.ones(4, 3), torch.tensor([0, 1, 0, 1]), 4.0, ctx)
        made.append(update)
        return Message(RecordDict({"update": ArrayRecord(update)}), reply_to=message)

    made = []
    context = node()
    reply = app(private, ClientDP(level="example"))(instruction(), context)
    assert all(torch.equal(tensors(reply)[n], t) for n, t in made[0].items())
    assert context.state["evidence"]["client_dp.releases"] == 1
    assert app(answer, ClientDP(level="example"))(instruction(), context).has_error()
