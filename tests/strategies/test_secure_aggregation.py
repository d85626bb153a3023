"""Secure aggregation over Flower messages, against the trusted adder and against a server that does not play fair."""

import pickle

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from crypto.secagg import STAGES
from crypto.secagg.identity import RoundSecrets
from fedsim import ClientDP, Federation, Scenario, SecureAggregation
from fedsim.apps import client_app
from fedsim.experiment import Experiment
from fedsim.federation import cohort, federate, recording, strategy_for
from fedsim.grids import InlineGrid
from fedsim.truth import truth_of
from strategies.secagg_server import SecureFederatedMean

CLIENTS = 5
NODES = {client: client + 1 for client in range(CLIENTS)}


def experiment(*protocol, **federation):
    fields = {"clients": CLIENTS, "batch_size": 3, "rounds": 2, "weighted": False, **federation}
    task = {"dataset": "digits", "model": "softmax"}
    return Experiment(Scenario(name="x", task=task, federation=Federation(**fields), protocol=protocol))


def run(made):
    clients = made.scenario.federation.clients
    nodes = {client: client + 1 for client in range(clients)}
    grid = InlineGrid(client_app, clients, {"scenario": made.scenario.model_dump_json()})
    recorder = recording(grid, made.scenario, nodes)
    training = federate(recorder, made, nodes)
    return training, recorder.view(made.initial_model(), training.opened)


@pytest.mark.parametrize(
    ("defence", "federation"),
    [
        ({}, {}),
        ({"bits": 20}, {"algorithm": "fedavg", "batch_size": 16}),
        ({"max_weight": 8}, {"weighted": True, "batch_size": 7}),
        ({"profile": "semi_honest", "threshold": 2}, {"dropout": 0.3, "rounds": 3}),
        ({"profile": "semi_honest", "threshold": 2}, {"dropout": 0.3, "dropout_stage": "shares"}),
        *(({}, {"dropout": 0.4, "dropout_stage": stage, "rounds": 6}) for stage in STAGES),
        ({"neighbours": 4}, {"clients": 9, "dropout": 0.3, "rounds": 8}),
        ({"neighbours": 2, "profile": "semi_honest"}, {"clients": 9, "dropout": 0.1, "dropout_stage": "unmask"}),
        ({"profile": "no_consistency", "threshold": 2}, {"clients": 4, "dropout": 0.5, "rounds": 8}),
    ],
)
def test_the_protocol_opens_the_trusted_adders_sum_bit_for_bit_or_neither_opens_one(defence, federation):
    real, seen = run(experiment(SecureAggregation(clip=2.0, **defence), **federation))
    ideal, view = run(experiment(SecureAggregation(clip=2.0, mode="ideal", **defence), **federation))
    for one, other in zip(real.history[1:], ideal.history[1:], strict=True):
        assert (one["answered"], sorted(one["dropped"])) == (other["answered"], sorted(other["dropped"]))
        assert (one["aborted"] is None) == (other["aborted"] is None)
    assert [(u.client, u.contributors) for u in seen.updates] == [(u.client, u.contributors) for u in view.updates]
    assert all(torch.equal(real.state[name], ideal.state[name]) for name in real.state)


def test_the_mean_is_the_plain_one_within_the_rounding_step():
    plain, _ = run(experiment())
    masked, _ = run(experiment(SecureAggregation(clip=2.0, bits=20)))
    for name, tensor in plain.state.items():
        assert float((tensor - masked.state[name]).abs().max()) < 4.0 / 2**20


def test_the_view_holds_masked_vectors_and_the_sum_and_nothing_else():
    made = experiment(SecureAggregation(clip=2.0), rounds=1)
    _, view = run(made)
    assert [(u.client, u.contributors) for u in view.updates] == [(None, CLIENTS)]
    assert {m.form for m in view.messages if m.direction == "received" and m.arrays} == {"masked"}
    assert not any(m.metrics for m in view.messages)
    _, plain = run(experiment(rounds=1))
    everything = pickle.dumps(view)
    for update in plain.updates:
        assert update.arrays["1.weight"].numpy().tobytes() not in everything
    total = sum(update.arrays["1.weight"] for update in plain.updates)
    assert float((view.updates[0].arrays["1.weight"] - total).abs().max()) < CLIENTS * 4 / 2**16


def test_the_same_inputs_are_masked_afresh_every_time():
    vectors = []
    for _ in range(2):
        _, view = run(experiment(SecureAggregation(clip=2.0), rounds=1))
        vectors.append([m.arrays["hidden"]["vector"] for m in view.messages if m.form == "masked"])
    for one, other in zip(*vectors, strict=True):
        equal = np.frombuffer(one[-2000:], np.uint8) == np.frombuffer(other[-2000:], np.uint8)
        assert equal.mean() < 0.03


def test_noise_is_added_before_masking():
    _, clean = run(experiment(SecureAggregation(clip=2.0, bits=20), rounds=1))
    dp = ClientDP(clip=5.0, noise_multiplier=0.02)
    _, noised = run(experiment(dp, SecureAggregation(clip=2.0, bits=20), rounds=1))
    residual = noised.updates[0].arrays["1.weight"] - clean.updates[0].arrays["1.weight"]
    assert float(residual.std()) == pytest.approx(0.1 * CLIENTS**0.5, rel=0.1)


def test_an_update_is_never_sent_outside_the_protocol():
    made = experiment(SecureAggregation(clip=2.0))
    grid = InlineGrid(client_app, CLIENTS, {"scenario": made.scenario.model_dump_json()})
    content = {
        "arrays": ArrayRecord(dict(made.initial_model().state_dict())),
        "config": ConfigRecord({"round": 1, "update_kind": "gradient"}),
    }
    reply = grid.send_and_receive([Message(RecordDict(content), 1, "train")])[0]
    assert reply.has_error()
    assert "outside the secure-aggregation stages" in reply.error.reason


def test_a_value_outside_the_clip_is_refused_and_named():
    training, _ = run(experiment(SecureAggregation(clip=1e-4, threshold=3), rounds=1))
    row = training.history[1]
    assert "outside the clip" in row["failed"]["0"]
    assert "TooFewClients" in row["aborted"]


def test_a_round_without_a_sum_leaves_the_model_and_training_goes_on():
    made = experiment(SecureAggregation(clip=2.0, threshold=5), dropout=0.15, rounds=8)
    training, _ = run(made)
    aborted = [row["round"] for row in training.history[1:] if row["aborted"]]
    assert 0 < len(aborted) < 8
    losses = {row["round"]: row["loss"] for row in training.history}
    assert all(losses[r] == losses[r - 1] for r in aborted)
    assert training.history[-1]["loss"] < training.history[0]["loss"]


class TwoModels(SecureFederatedMean):
    """Sends client 0 a model of its own, and tells it so."""

    def train_round(self, grid, round, arrays):
        return super().train_round(_Swap(grid, self.victim_arrays), round, arrays)


class _Swap:
    def __init__(self, inner, arrays):
        self.inner, self.arrays = inner, arrays

    def send_and_receive(self, messages, timeout=None):
        from strategies.wire import digest

        messages = list(messages)
        for message in messages:
            if message.metadata.dst_node_id != 1:
                continue
            if "arrays" in message.content:
                message.content["arrays"] = self.arrays
            protocol = message.content["protocol"]
            if "model" in protocol and self.announce:
                message.content["protocol"] = ConfigRecord({**protocol, "model": digest(self.arrays)})
        return self.inner.send_and_receive(messages, timeout=timeout)

    announce = True


@pytest.mark.parametrize("announce", [True, False])
def test_a_model_of_its_own_for_one_client_never_reaches_a_sum(announce, monkeypatch):
    monkeypatch.setattr(_Swap, "announce", announce)
    made = experiment(SecureAggregation(clip=2.0), rounds=1)
    grid = InlineGrid(client_app, CLIENTS, {"scenario": made.scenario.model_dump_json()})
    recorder = recording(grid, made.scenario, NODES)
    model = made.initial_model()
    honest = strategy_for(made, NODES)
    lying = TwoModels(
        parameters=honest.layout.parameters,
        kind=honest.kind,
        stack=honest.stack,
        cohort_of=lambda round: cohort(made.scenario, made.seed, round),
        nodes=NODES,
        step_size=honest.step_size,
        weighted=False,
    )
    lying.victim_arrays = ArrayRecord({n: t * 0 for n, t in model.state_dict().items()})
    lying.train_round(recorder, 1, ArrayRecord(dict(model.state_dict())))
    record = lying.rounds[0]
    assert 0 not in record.answered
    reasons = " ".join(record.failed.values()) + str(record.aborted)
    assert ("do not open" in reasons or "BadSignature" in reasons) if announce else "not the one" in reasons


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"clip": 0.0}, "clip = 0.0"),
        ({"bits": 40}, "bits = 40"),
        ({"neighbours": 3}, "neighbours = 3"),
        ({"threshold": 2}, "threshold = 2"),
        ({"profile": "papr"}, "profile = 'papr'"),
        ({"threshold": 9}, "threshold = 9"),
    ],
)
def test_parameters_that_cannot_hold_are_refused_before_anything_runs(fields, words):
    with pytest.raises(ValueError, match=words):
        experiment(SecureAggregation(**fields))


def test_two_clients_are_too_few_for_the_clients_policy():
    with pytest.raises(ValueError, match="clients = 2"):
        experiment(SecureAggregation(), clients=2)


def test_secrets_stay_out_of_messages_and_of_the_view(monkeypatch):
    made = experiment(SecureAggregation(clip=2.0), rounds=1)
    drawn = []
    generate = RoundSecrets.generate.__func__
    monkeypatch.setattr(
        RoundSecrets, "generate", classmethod(lambda cls, entropy: drawn.append(s := generate(cls, entropy)) or s)
    )
    _, view = run(made)
    seen = pickle.dumps(view)
    assert len(drawn) == CLIENTS
    for client, secrets in enumerate(drawn):
        assert secrets.mask_key.secret not in seen
        assert secrets.share_key.secret not in seen
        assert truth_of(made, 1, client).inputs.numpy().tobytes() not in seen


NORMALISED = "tests.strategies.test_secure_aggregation:Normalised"


class Normalised(torch.nn.Module):
    """A small net whose BatchNorm keeps statistics of the inputs."""

    def __init__(self, inputs=64, classes=10):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.BatchNorm1d(inputs), torch.nn.Linear(inputs, classes)
        )

    def forward(self, inputs):
        return self.layers(inputs)


@pytest.mark.parametrize("fields", [{}, {"mode": "ideal"}, {"profile": "flower_1_41"}, {"max_weight": 8}])
def test_statistics_of_the_inputs_are_hidden_with_the_update_and_reach_the_model(fields):
    def made(*protocol):
        federation = {"clients": CLIENTS, "batch_size": 4, "rounds": 2, "weighted": "max_weight" in fields}
        task = {"dataset": "digits", "model": NORMALISED}
        return Experiment(Scenario(name="x", task=task, federation=federation, protocol=protocol))

    plain, seen = run(made())
    hidden, view = run(made(SecureAggregation(clip=2.0, **fields)))
    name = "layers.1.running_mean"
    assert float(plain.state[name].abs().max()) > 0.1
    for key in (name, "layers.1.running_var"):
        assert float((hidden.state[key] - plain.state[key]).abs().max()) < 1e-3
    assert int(hidden.state["layers.1.num_batches_tracked"]) == 0  # counters stay at home
    assert not any("buffers" in m.arrays for m in view.messages)
    everything = pickle.dumps(view)
    for update in seen.updates:
        assert update.buffers[name].numpy().tobytes() not in everything
    mean = torch.stack([u.buffers[name] for u in seen.updates if u.round == 1]).mean(0)
    assert float((view.updates[0].buffers[name] - mean).abs().max()) < 1e-3
