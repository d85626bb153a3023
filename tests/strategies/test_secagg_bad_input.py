"""Bad input on the wire and in an update: the error names type, stage and client, no sum is wrong, training goes on."""

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord
from flwr.clientapp import ClientApp

from crypto.secagg import Terms
from fedsim import Federation, Scenario, SecureAggregation
from fedsim.apps import _leaves_at, _noise_of, _secure_aggregation_of, client_app, protected_train
from fedsim.experiment import Experiment
from fedsim.federation import federate, recording
from fedsim.grids import InlineGrid
from strategies.secagg_client import SecureAggregationClient
from strategies.secure_aggregation import flat
from strategies.wrapped import WrappedGrid

CLIENTS, BAD = 7, 6
NODES = {client: client + 1 for client in range(CLIENTS)}
CLIP = 2.0


def experiment(*protocol, rounds=2):
    federation = Federation(clients=CLIENTS, cohort=5, rounds=rounds, batch_size=3, weighted=False)
    task = {"dataset": "digits", "model": "softmax"}
    attacks = [{"name": "analytic", "rounds": list(range(1, rounds + 1))}]
    return Experiment(Scenario(name="x", task=task, federation=federation, protocol=protocol, attacks=attacks))


def run(made, app=client_app, wrap=lambda grid: grid):
    grid = InlineGrid(app, CLIENTS, {"scenario": made.scenario.model_dump_json()})
    recorder = recording(grid, made.scenario, NODES)
    training = federate(wrap(recorder), made, NODES)
    return training, recorder.view(made.initial_model(), training.opened)


def check_that_no_sum_is_wrong(made, training, view):
    """Each round moved the model by the mean of the plain updates of those whom it names, or not at all."""
    _, plain = run(Experiment(made.scenario.model_copy(update={"protocol": ()})))
    first = {u.client: flat(dict(u.arrays)) for u in plain.updates if u.round == 1}
    sums = [u for u in view.updates if u.round == 1]
    row = training.history[1]
    assert bool(sums) is (row["aborted"] is None)
    for one in sums:
        wanted = sum(first[client] for client in one.clients)
        assert abs(flat(dict(one.arrays)) - wanted).max() < CLIENTS * 2 * CLIP / 2**16
    assert (row["loss"] == training.history[0]["loss"]) is bool(row["aborted"])
    last = training.history[-1]
    assert last["aborted"] is None
    assert last["failed"] == {}
    assert last["loss"] != row["loss"]


@pytest.mark.parametrize("mode", ["protocol", "ideal"])
@pytest.mark.parametrize(
    ("value", "words"), [(torch.nan, "NaN or infinity"), (torch.inf, "NaN or infinity"), (9.0, "outside the clip")]
)
def test_an_update_that_cannot_be_encoded_is_refused_on_the_client(value, words, mode):
    def poisoned(message, context):
        reply = protected_train(message, context)
        round = message.content.config_records["config"]["round"]
        if (context.node_config["partition-id"], round) == (BAD, 1):
            update = reply.content.array_records["update"].to_torch_state_dict()
            update["1.weight"].view(-1)[3] = value
            reply.content["update"] = ArrayRecord(dict(update))
        return reply

    app = ClientApp()
    SecureAggregationClient(poisoned, _secure_aggregation_of, _noise_of, _leaves_at).register(app)
    made = experiment(SecureAggregation(clip=CLIP, mode=mode))
    training, view = run(made, app)
    reason = training.history[1]["failed"][str(BAD)]
    assert reason.startswith(f"BadUpdate at stage 'masked', client {BAD}: ")
    assert words in reason
    check_that_no_sum_is_wrong(made, training, view)


class Wire(WrappedGrid):
    """Tampers, in round 1 and at one stage, with the message to the client BAD or with its answer."""

    def __init__(self, inner, bad):
        super().__init__(inner)
        self.bad, self.kept = bad, {}

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        for message in messages:
            if self.due(message, BAD + 1, "down"):
                self.bad.tamper(self, message)
        replies = list(self.inner.send_and_receive(messages, timeout=timeout))
        if any(self.due(message, BAD + 1, "up") for message in messages):
            (reply,) = [reply for reply in replies if reply.metadata.src_node_id == BAD + 1]
            again = self.bad.tamper(self, reply)
            replies += [again] if again else []
        return replies

    def due(self, message, node, way):
        stage = message.metadata.message_type.removeprefix("train.sa_")
        here = message.metadata.dst_node_id == node and message.metadata.group_id == self.bad.round
        if here and way == "down":
            self.kept[stage] = spoken(message)
        return here and (self.bad.stage, self.bad.way) == (stage, way)


def spoken(message):
    return message.content.config_records["protocol"]["message"]


def say(message, data, **more):
    if "hidden" in message.content.array_records:
        message.content.array_records["hidden"]["vector"].data = data
    else:
        message.content["protocol"] = ConfigRecord({**message.content["protocol"], "message": data, **more})


def heard(message):
    if "hidden" in message.content.array_records:
        return message.content.array_records["hidden"]["vector"].data
    return spoken(message)


def truncated(wire, message):
    say(message, heard(message)[:-3])


def flipped(wire, message):
    data = bytearray(heard(message))
    data[len(data) // 2] ^= 4
    say(message, bytes(data))


def out_of_order(wire, message):
    """The message of the stage before."""
    say(message, wire.kept["shares"])


def early(wire, message):
    message.metadata.message_type = "train.sa_unmask"


def twice(wire, reply):
    return reply


def silent(wire, reply):
    del reply.content["protocol"]


def overflowing(wire, message):
    place = message.content["protocol"]["cohort"].index(BAD)
    terms = Terms.decode(spoken(message), client=place, stage="advertise")
    say(message, replace(terms, max_weight=1 << 20).encode())


def among_two(wire, message):
    place = message.content["protocol"]["cohort"].index(BAD)
    terms = Terms.decode(spoken(message), client=place, stage="advertise")
    say(message, replace(terms, clients=2, degree=1, threshold=2).encode())


def doubled(wire, message):
    cohort = list(message.content["protocol"]["cohort"])
    say(message, spoken(message), cohort=[cohort[1], *cohort[1:]])


def without_it(wire, message):
    say(message, spoken(message), cohort=[c for c in message.content["protocol"]["cohort"] if c != BAD])


class Bad(NamedTuple):
    tamper: object
    stage: str
    way: str
    error: str
    named: str | None = None
    round: str = "1"


CASES = [
    *(Bad(truncated, stage, "down", "CorruptMessage") for stage in ("advertise", "shares", "masked", "unmask")),
    *(Bad(flipped, stage, "down", "CorruptMessage") for stage in ("advertise", "consistency")),
    *(Bad(truncated, stage, "up", "CorruptMessage") for stage in ("advertise", "masked", "unmask")),
    *(Bad(flipped, stage, "up", "CorruptMessage") for stage in ("shares", "masked")),
    Bad(out_of_order, "masked", "down", "WrongStage"),
    Bad(early, "shares", "down", "WrongStage", "unmask"),
    Bad(silent, "shares", "up", "MalformedMessage"),
    Bad(overflowing, "advertise", "down", "PolicyViolation"),
    Bad(among_two, "advertise", "down", "PolicyViolation"),
    Bad(doubled, "advertise", "down", "UnknownClient"),
    Bad(without_it, "advertise", "down", "UnknownClient"),
]


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: f"{bad.tamper.__name__}-{bad.stage}-{bad.way}")
def test_a_bad_message_is_refused_by_type_stage_and_client(bad):
    made = experiment(SecureAggregation(clip=CLIP))
    training, view = run(made, wrap=lambda grid: Wire(grid, bad))
    assert BAD in training.history[1]["cohort"]
    reason = training.history[1]["failed"][str(BAD)]
    assert reason.startswith(f"{bad.error} at stage '{bad.named or bad.stage}', client {BAD}: ")
    if bad.stage != "unmask":
        check_that_no_sum_is_wrong(made, training, view)


class Everybody(Wire):
    """The same at every client."""

    def due(self, message, node, way):
        return any(super(Everybody, self).due(message, one, way) for one in NODES.values())

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        for message in messages:
            if self.due(message, None, self.bad.way):
                self.bad.tamper(self, message)
        return self.inner.send_and_receive(messages, timeout=timeout)


@pytest.mark.parametrize("stage", ["advertise", "shares", "masked", "consistency", "unmask"])
def test_a_round_in_which_everybody_refuses_ends_at_that_stage(stage):
    made = experiment(SecureAggregation(clip=CLIP))
    training, view = run(made, wrap=lambda grid: Everybody(grid, Bad(truncated, stage, "down", "")))
    row = training.history[1]
    assert sorted(map(int, row["failed"])) == row["cohort"]
    assert row["aborted"].split(" at ")[0] in ("TooFewClients", "BadShare")
    assert f"at stage '{stage}', server" in row["aborted"]
    check_that_no_sum_is_wrong(made, training, view)


def test_an_answer_that_comes_twice_counts_once():
    made = experiment(SecureAggregation(clip=CLIP))
    training, view = run(made, wrap=lambda grid: Wire(grid, Bad(twice, "masked", "up", "")))
    assert training.history[1]["failed"][str(BAD)].startswith(f"DuplicateMessage at stage 'masked', client {BAD}: ")
    _, clean = run(made)
    for name, tensor in clean.updates[0].arrays.items():
        assert torch.equal(tensor, view.updates[0].arrays[name])


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_message_of_an_earlier_round_is_refused(way):
    old = {}

    def keep(wire, message):
        old["data"] = heard(message)

    def replay(wire, message):
        say(message, old["data"])

    def wrap(grid):
        return Wire(Wire(grid, Bad(keep, "shares", way, "")), Bad(replay, "shares", way, "", round="2"))

    made = experiment(SecureAggregation(clip=CLIP), rounds=3)
    training, _ = run(made, wrap=wrap)
    assert BAD in training.history[1]["cohort"]
    assert BAD in training.history[2]["cohort"]
    assert training.history[1]["failed"] == {}
    assert training.history[2]["failed"][str(BAD)].startswith(f"WrongRound at stage 'shares', client {BAD}: ")
    assert training.history[3]["aborted"] is None
