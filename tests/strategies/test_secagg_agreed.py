"""A client answers in the way that its own configuration has, whatever the server asks for."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from crypto.errors import PolicyViolation
from crypto.keys import SigningKey
from crypto.secagg import STAGES, simulate_round
from fedsim.apps import client_app
from fedsim.federation import federate, recording
from fedsim.grids import InlineGrid
from strategies.flower_client import ACTION
from strategies.secagg_client import SECRETS
from strategies.secure_aggregation import SecureAggregation
from strategies.wrapped import WrappedGrid
from tests.strategies.test_secure_aggregation import CLIENTS, NODES, experiment


def federation_of(**defence):
    made = experiment(SecureAggregation(clip=2.0, **defence), rounds=1)
    grid = InlineGrid(client_app, CLIENTS, {"scenario": made.scenario.model_dump_json()})
    return made, grid, recording(grid, made.scenario, NODES)


def ask(grid, kind, **content):
    config = ConfigRecord({"round": 1, "update_kind": "gradient"})
    (reply,) = grid.send_and_receive([Message(RecordDict({"config": config, **content}), 1, kind, group_id="1")])
    return reply


def refused(reply, error):
    assert reply.has_error()
    assert reply.error.reason.startswith(f"{error} at stage ")
    assert "client 0: " in reply.error.reason


@pytest.mark.parametrize("profile", ["paper", "semi_honest", "server_chosen_parameters", "flower_1_41"])
def test_no_server_gets_the_trusted_adders_vector_from_clients_of_the_protocol(profile):
    made, _, recorder = federation_of(profile=profile)
    arrays = ArrayRecord(dict(made.initial_model().state_dict()))
    offer = SecureAggregation(clip=2.0).terms(bytes(16), 1, CLIENTS, 650).encode()
    protocol = ConfigRecord({"message": offer, "index": 0})
    refused(ask(recorder, "train.sa_ideal", arrays=arrays, protocol=protocol), "PolicyViolation")
    assert not recorder.view(made.initial_model()).updates
    assert not any(m.arrays for m in recorder.view(made.initial_model()).messages if m.direction == "received")


@pytest.mark.parametrize("defence", [{}, {"mode": "ideal"}])
def test_no_server_gets_flowers_protocol_from_other_clients(defence):
    _, _, recorder = federation_of(**defence)
    refused(
        ask(recorder, f"train.{ACTION}", **{"secaggplus.configs": ConfigRecord({"stage": "setup"})}), "PolicyViolation"
    )


def test_clients_of_flowers_protocol_or_of_the_trusted_adder_speak_no_other():
    offer = SecureAggregation(clip=2.0).terms(bytes(16), 1, CLIENTS, 650).encode()
    protocol = ConfigRecord({"message": offer, "cohort": list(range(CLIENTS)), "model": "x"})
    for defence in ({"mode": "ideal"}, {"profile": "flower_1_41"}):
        _, _, recorder = federation_of(**defence)
        refused(ask(recorder, "train.sa_advertise", protocol=protocol), "PolicyViolation")


def test_a_server_cannot_put_its_own_keys_into_the_directory_or_make_a_client_forget():
    _, grid, recorder = federation_of()
    before = dict(grid.states[0].config_records[SECRETS])
    forged = ConfigRecord({str(client): SigningKey(bytes([client + 1]) * 32).public for client in range(CLIENTS)})
    refused(ask(recorder, "query.sa_directory", directory=forged), "UnknownClient")
    refused(ask(recorder, "query.sa_enrol"), "UnknownClient")
    assert dict(grid.states[0].config_records[SECRETS]) == before
    assert len(pickle.loads(before["directory"])) == CLIENTS


@pytest.mark.parametrize(
    ("bent", "words"),
    [
        ({"degree": 2, "threshold": 2}, "degree = 2"),
        ({"degree": 2, "threshold": 3}, "degree = 2"),
        ({"threshold": 3}, "threshold = 3"),
        ({"clip": 3.0}, "clip = 3.0"),
        ({"clients": 1000, "degree": 999, "threshold": 500}, "clients = 1000"),
    ],
)
def test_a_client_holds_the_server_to_the_parameters_that_were_agreed(bent, words):
    _, _, recorder = federation_of(threshold=4)
    offer = replace(SecureAggregation(clip=2.0, threshold=4).terms(bytes(16), 1, CLIENTS, 650), **bent)
    protocol = ConfigRecord({"message": offer.encode(), "cohort": list(range(CLIENTS)), "model": "x"})
    reply = ask(recorder, "train.sa_advertise", protocol=protocol)
    refused(reply, "PolicyViolation")
    assert words in reply.error.reason


@pytest.mark.parametrize("profile", ["paper", "semi_honest"])
def test_on_a_ring_no_threshold_lets_a_sum_of_two_open(profile):
    with pytest.raises(ValueError, match="threshold = 2"):
        experiment(SecureAggregation(neighbours=2, threshold=2, profile=profile))
    assert SecureAggregation(neighbours=2, profile=profile).terms(bytes(16), 1, CLIENTS, 1).threshold == 3
    with pytest.raises(PolicyViolation, match="threshold = 2"):
        simulate_round(np.zeros((9, 2), np.float32), neighbours=2, threshold=2, profile=profile)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("content", [{}, {"protocol": ConfigRecord()}, {"protocol": ConfigRecord({"message": "x"})}])
def test_a_message_that_lacks_what_its_stage_needs_is_malformed(stage, content):
    _, _, recorder = federation_of()
    reply = ask(recorder, f"train.sa_{stage}", **content)
    refused(reply, "MalformedMessage")
    assert f"at stage '{stage}'" in reply.error.reason


def test_no_stage_comes_before_the_first():
    _, _, recorder = federation_of()
    for stage in ("shares", "consistency", "unmask"):
        refused(ask(recorder, f"train.sa_{stage}", protocol=ConfigRecord({"message": b""})), "WrongStage")


def test_a_client_that_has_refused_answers_no_more_in_that_round():
    """Not even a message that is right: a server must not try one survivor set after another."""
    _, _, recorder = federation_of()

    class Twice(WrappedGrid):
        def send_and_receive(self, messages, *, timeout=None):
            messages, answers = list(messages), []
            for message in messages:
                if message.metadata.dst_node_id == 1 and message.metadata.message_type == "train.sa_shares":
                    said = message.content.config_records["protocol"]
                    garbage = ConfigRecord({**said, "message": b"-"})
                    refused(ask(self.inner, "train.sa_shares", protocol=garbage), "MalformedMessage")
                answers.append(message)
            return self.inner.send_and_receive(answers, timeout=timeout)

    made = experiment(SecureAggregation(clip=2.0), rounds=1)
    training = federate(Twice(recorder), made, NODES)
    assert training.history[1]["failed"]["0"].startswith("WrongStage at stage 'shares', client 0: 'aborted'")
    assert training.history[1]["answered"] == [1, 2, 3, 4]
