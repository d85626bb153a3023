"""Homomorphic aggregation over Flower messages: the same mean for every key holder, and who reads what."""

import pickle

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from attacks import NotApplicable, Reconstruction
from crypto.he import encrypt, generate_keys, open_public, select
from crypto.he.errors import SecretKeyExposedError
from fedsim import Adversary, Attack, AttackBudget, ClientDP, Federation, Homomorphic, Scenario
from fedsim.apps import client_app
from fedsim.assess import jobs, perform
from fedsim.encryption import colluded, deploy
from fedsim.experiment import Experiment
from fedsim.federation import TrainingFailed, federate, recording
from fedsim.grids import InlineGrid, open_grid
from fedsim.store import load_view, save_view
from fedsim.truth import truth_of
from strategies.he_client import ciphertext_array
from strategies.he_deployment import ServerKeys, all_alike
from strategies.he_server import refuse_secret_keys
from strategies.secure_aggregation import flat

HOLDERS = ("clients_share_key", "trusted_decryptor", "server_holds_key")


def experiment(*protocol, attacks=None, adversary=None, model="softmax", **federation):
    fields = {"clients": 4, "batch_size": 3, "rounds": 2, "weighted": False, "learning_rate": 0.5, **federation}
    return Experiment(
        Scenario(
            name="x",
            task={"dataset": "digits", "model": model},
            federation=Federation(**fields),
            protocol=protocol,
            adversary=adversary or Adversary(),
            attacks=attacks or (Attack(name="analytic", victims=2),),
        )
    )


class Run:
    """One federation, kept whole: its training, the server's view, the adversary's, and everything in between."""

    def __init__(self, made, wrap=lambda grid: grid, engine="inline"):
        clients = made.scenario.federation.clients
        nodes = {client: client + 1 for client in range(clients)}
        app = client_app if engine == "inline" else "fedsim.apps:client_app"
        self.grid = open_grid(engine, app, clients, {"scenario": made.scenario.model_dump_json()})
        self.deployment = deploy(self.grid, made, nodes)
        self.recorder = recording(wrap(self.grid), made.scenario, nodes)
        self.training = federate(self.recorder, made, nodes, deployment=self.deployment)
        self.seen = self.recorder.view(made.initial_model(), self.training.opened)
        self.view = colluded(self.deployment, made.scenario, self.seen)

    @property
    def state(self):
        return self.training.state


def apart(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("keys", HOLDERS)
def test_ten_clients_for_three_rounds_reach_the_plaintext_mean_within_the_stated_error(keys):
    fields = {"clients": 10, "rounds": 3}
    plain = Run(experiment(**fields))
    encrypted = Run(experiment(Homomorphic(keys=keys), **fields))
    stated = 3 * 0.5 * encrypted.training.protocol["stated_error_of_a_sum"] / 10
    assert apart(plain.state, encrypted.state) <= stated + 1e-7  # and what float32 rounds in another order
    assert stated < 1e-6
    assert encrypted.training.history[-1]["loss"] == pytest.approx(plain.training.history[-1]["loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("defence", "federation"),
    [
        ({"keys": "clients_share_key", "seeded": True}, {"algorithm": "fedavg", "batch_size": 16}),
        ({"keys": "server_holds_key", "seeded": True}, {}),
        ({"keys": "clients_share_key", "max_weight": 8, "encrypted_fraction": 0.3}, {"weighted": True}),
        ({"keys": "trusted_decryptor", "max_weight": 8, "encrypted_fraction": 0.3}, {"weighted": True}),
        ({"keys": "trusted_decryptor", "max_weight": 8}, {"weighted": True}),
        ({"keys": "clients_share_key", "encrypted_fraction": 0.0}, {}),
        ({"keys": "server_holds_key", "encrypted_fraction": 0.0, "max_weight": 8}, {"weighted": True}),
        ({"keys": "clients_share_key", "preset": "ckks-tutorial"}, {"cohort": 2, "rounds": 4}),
        ({"keys": "trusted_decryptor", "encrypted_fraction": 0.1, "sensitivity": "label"}, {}),
        ({"keys": "clients_share_key"}, {"dropout": 0.4, "rounds": 4}),
    ],
)
def test_the_mean_is_the_plain_one_in_every_form(defence, federation):
    if federation.get("weighted"):
        federation["batch_size"] = 8
    plain = Run(experiment(**federation))
    assert apart(plain.state, Run(experiment(Homomorphic(**defence), **federation)).state) < 1e-6


@pytest.mark.parametrize("keys", HOLDERS)
def test_bfv_is_exact_on_rounded_values(keys):
    first, second = (Run(experiment(Homomorphic(scheme="bfv", keys=keys, clip=2.0))).state for _ in range(2))
    assert apart(first, second) == 0  # rounding comes from the seed, and sums are exact
    steps = 4.0 / (2**17 - 1)
    assert 0 < apart(Run(experiment()).state, first) < 2 * steps
    weighted = {"weighted": True, "batch_size": 4}
    defence = Homomorphic(scheme="bfv", keys=keys, clip=2.0, max_weight=4, encrypted_fraction=0.3)
    assert apart(Run(experiment(**weighted)).state, Run(experiment(defence, **weighted)).state) < 8 * steps


def test_the_server_alone_sees_ciphertexts_and_the_public_first_model():
    made = experiment(Homomorphic(), attacks=(Attack(name="analytic", rounds=(1, 2)),))
    run = Run(made)
    assert run.view is run.seen
    assert not run.view.updates
    assert {m.form for m in run.view.messages if m.direction == "received"} == {"ciphertext"}
    assert [set(s) for s in run.view.broadcasts.values()] == [set(made.initial_model().state_dict())]
    later = [m for m in run.view.messages if m.round == 2 and m.direction == "sent"]
    assert {m.form for m in later} == {"ciphertext"}
    assert not any(m.metrics for m in run.view.messages)
    assert apart(run.state, dict(made.initial_model().state_dict())) > 0.01
    plain = Run(experiment())
    everything = pickle.dumps(run.view)
    for update in plain.view.updates:
        assert update.arrays["1.weight"].numpy().tobytes() not in everything
    for job in jobs(made, run.view, made.scenario.attacks):
        for answer in perform(job).answers:
            assert isinstance(answer, NotApplicable)
            assert "an update that the server can read" in str(answer)


def test_one_colluder_undoes_a_shared_key_for_every_client():
    attacks = (Attack(name="analytic", rounds=(1, 2), victims=3),)
    fields = {"attacks": attacks, "batch_size": 1}
    plain = Run(made := experiment(**fields))
    coalition = Run(experiment(Homomorphic(), adversary=Adversary(colluders=1), **fields))
    assert [(u.round, u.client, u.contributors) for u in coalition.view.updates] == [
        (round, client, 1) for round in (1, 2) for client in range(4)
    ]
    for mine, theirs in zip(plain.view.updates, coalition.view.updates, strict=True):
        assert apart(mine.arrays, theirs.arrays) < 1e-6
        assert apart(plain.view.broadcasts[mine.base], coalition.view.broadcasts[theirs.base]) < 1e-6
    for one, other in zip(jobs(made, plain.view, attacks), jobs(made, coalition.view, attacks), strict=True):
        for a, b in zip(perform(one).answers, perform(other).answers, strict=True):
            assert isinstance(a, Reconstruction)
            assert float((a.inputs - b.inputs).abs().max()) < 1e-3


def test_a_colluder_reads_later_rounds_of_a_selectively_encrypted_weighted_mean_too():
    fields = {"attacks": (Attack(name="analytic", rounds=(3,)),), "rounds": 3, "weighted": True, "cohort": 3}
    plain = Run(experiment(**fields))
    defence = Homomorphic(encrypted_fraction=0.2, max_weight=5)
    coalition = Run(experiment(defence, adversary=Adversary(colluders=2), **fields))
    for mine, theirs in zip(plain.view.updates, coalition.view.updates, strict=True):
        assert mine.client == theirs.client
        assert apart(mine.arrays, theirs.arrays) < 1e-6


def test_a_client_that_does_not_collude_keeps_its_key():
    run = Run(experiment(Homomorphic(), adversary=Adversary(colluders=1), rounds=1))
    assert run.deployment.secret_of(3)
    with pytest.raises(ValueError, match="does not collude"):
        run.deployment.secret_of(0)


def test_the_decryptor_opens_the_sum_alone_and_the_mistaken_server_everything():
    plain = Run(experiment(rounds=1))
    total = sum(update.arrays["1.weight"] for update in plain.view.updates)
    summed = Run(experiment(Homomorphic(keys="trusted_decryptor"), rounds=1)).view.updates
    assert [(u.client, u.contributors) for u in summed] == [(None, 4)]
    assert float((summed[0].arrays["1.weight"] - total).abs().max()) < 1e-6
    each = Run(experiment(Homomorphic(keys="server_holds_key", encrypted_fraction=0.5), rounds=1)).view.updates
    assert [(u.client, u.contributors) for u in each] == [(client, 1) for client in range(4)]
    for mine, theirs in zip(plain.view.updates, each, strict=True):
        assert apart(mine.arrays, theirs.arrays) < 1e-6


def test_a_cohort_below_the_decryptors_minimum_opens_nothing():
    defence = Homomorphic(keys="trusted_decryptor", minimum_cohort=4)
    run = Run(experiment(defence, dropout=0.5, rounds=3))
    aborted = [row for row in run.training.history[1:] if row["aborted"]]
    assert aborted
    assert all("CohortTooSmallError" in row["aborted"] for row in aborted)
    assert len(run.training.opened) == 3 - len(aborted)


def test_the_clear_part_is_in_the_view_and_the_rest_is_not(tmp_path):
    made = experiment(Homomorphic(encrypted_fraction=0.1), rounds=1, model="mlp")
    run = Run(made)
    selection = run.deployment.server.selection
    assert "8,649 of 9,610 coordinates" in run.training.protocol["findings"][-1]
    assert len(selection.encrypted) == 0.1 * selection.size
    plain = {update.client: update.arrays for update in Run(experiment(rounds=1, model="mlp")).view.updates}
    save_view(tmp_path, run.view)
    for view in (run.view, load_view(tmp_path, made.initial_model())):
        assert [(update.client, update.partial) for update in view.updates] == [(client, True) for client in range(4)]
        for update in view.updates:
            held, true = flat(update.arrays), flat(plain[update.client])
            assert np.array_equal(held[selection.clear], true[selection.clear])
            assert np.isnan(held[selection.encrypted]).all()


def test_gradient_inversion_runs_on_the_clear_part_and_falls_with_the_encrypted_fraction():
    attacks = (Attack(name="inverting_gradients", budget=AttackBudget(iterations=300, restarts=1)),)
    adversary = Adversary(knows=("batch_size", "labels", "value_range"))
    error = []
    for part in (0.001, 0.95):
        defence = Homomorphic(encrypted_fraction=part)
        made = experiment(defence, attacks=attacks, adversary=adversary, model="mlp", batch_size=1, rounds=1)
        (job,) = jobs(made, Run(made).view, attacks)
        claim = perform(job).answers[0]
        error.append(float((claim.inputs - truth_of(made, 1, 0).inputs).square().mean()))
    assert error[0] < 0.01 < 0.1 < error[1]


class Tamper:
    """Stands between the clients and the server's record, and changes what client 1 (node 2) answers."""

    def __init__(self, inner, change):
        self.inner, self.change = inner, change

    def send_and_receive(self, messages, timeout=None):
        replies = list(self.inner.send_and_receive(messages, timeout=timeout))
        for reply in replies:
            if reply.metadata.src_node_id == 2 and "hidden" in reply.content:
                reply.content = self.change(reply.content)
        return replies


def swapped(change):
    def on(content):
        data = change(content.array_records["hidden"]["vector"].data)
        return RecordDict({**dict(content), "hidden": ArrayRecord({"vector": ciphertext_array(data)})})

    return on


def foreign(data):
    context = open_public(generate_keys(Homomorphic().parameters, 4).public)
    return encrypt(context, np.zeros(650)).to_bytes()


def refused_by_seal(data):
    from crypto.he import frame

    header, parts = frame.unpack(data, "vector")
    return frame.pack("vector", header, [bytes(part)[:-9] + bytes(9) for part in parts[:-1]] + [b"\x5e" * 400])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda data: data[:-100], "CorruptMessageError"),
        (lambda data: b"", "CorruptMessageError"),
        (lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:], "CorruptMessageError"),
        (refused_by_seal, "CorruptMessageError"),
        (foreign, "ForeignCiphertextError"),
    ],
)
@pytest.mark.parametrize("keys", HOLDERS[:2])
def test_a_bad_ciphertext_is_named_and_left_out(keys, change, error):
    run = Run(experiment(Homomorphic(keys=keys), rounds=1), lambda grid: Tamper(grid, swapped(change)))
    row = run.training.history[1]
    assert row["answered"] == [0, 2, 3]
    assert row["failed"]["1"].startswith(f"client 1: {error}")
    others = Run(experiment(rounds=1)).view.updates
    kept = sum(update.arrays["1.bias"] for update in others if update.client != 1) / 3
    expected = experiment().initial_model().state_dict()["1.bias"] - 0.5 * kept
    assert float((run.state["1.bias"] - expected).abs().max()) < 1e-6


def test_a_secret_key_at_the_server_ends_the_run_with_a_typed_error():
    keys = generate_keys(Homomorphic().parameters, 4)

    def leak(content):
        return RecordDict({**dict(content), "extra": ConfigRecord({"context": [keys.secret]})})

    with pytest.raises(TrainingFailed, match="SecretKeyExposedError: client 1") as failed:
        Run(experiment(Homomorphic()), lambda grid: Tamper(grid, leak))
    assert isinstance(failed.value.__cause__, SecretKeyExposedError)
    with pytest.raises(SecretKeyExposedError):
        ServerKeys(keys.secret, select(all_alike(3), 1.0))
    record = RecordDict({"a": ArrayRecord({"v": Array("bytes", (1,), "any", keys.secret)})})
    with pytest.raises(SecretKeyExposedError, match="somebody"):
        refuse_secret_keys(record, "somebody")


def secrets_of(run):
    return {bytes(state.config_records["homomorphic"]["context"]) for state in run.grid.states.values()}


@pytest.fixture
def drawn(monkeypatch):
    """Every key pair that is made."""
    made = []
    monkeypatch.setattr("strategies.he_deployment.generate_keys", lambda *a: made.append(k := generate_keys(*a)) or k)
    return made


def own_part(keys):
    """The bytes of a secret context that its public one does not have."""
    return keys.secret[keys.secret.index(keys.public) + len(keys.public) : -32]


@pytest.mark.parametrize("keys", HOLDERS)
def test_only_those_who_should_hold_the_secret_key(keys, drawn):
    run = Run(experiment(Homomorphic(keys=keys), rounds=1))
    assert secrets_of(run) == {drawn[0].secret if keys == "clients_share_key" else drawn[0].public}
    assert (run.deployment.server.mistake == drawn[0].secret) == (keys == "server_holds_key")
    assert own_part(drawn[0]) not in pickle.dumps(run.view)


def test_noise_is_added_before_encryption():
    dp = ClientDP(clip=5.0, noise_multiplier=0.02)
    clean = Run(experiment(Homomorphic(keys="trusted_decryptor"), rounds=1)).view.updates[0].arrays["1.weight"]
    noised = Run(experiment(dp, Homomorphic(keys="trusted_decryptor"), rounds=1)).view.updates[0].arrays["1.weight"]
    assert float((noised - clean).std()) == pytest.approx(0.1 * 4**0.5, rel=0.1)


def test_an_update_is_never_sent_outside_encryption():
    made = experiment(Homomorphic())
    grid = InlineGrid(client_app, 4, {"scenario": made.scenario.model_dump_json()})
    content = {
        "arrays": ArrayRecord(dict(made.initial_model().state_dict())),
        "config": ConfigRecord({"round": 1, "update_kind": "gradient"}),
    }
    reply = grid.send_and_receive([Message(RecordDict(content), 1, "train")])[0]
    assert "outside the homomorphic stage" in reply.error.reason


@pytest.mark.parametrize(
    ("defence", "words"),
    [
        ({"scheme": "bfv", "clip": 1e-5}, "ValueRangeError"),
        ({"max_weight": 2}, "weight = 3"),
    ],
)
def test_a_value_out_of_range_is_refused_on_the_client(defence, words):
    with pytest.raises(TrainingFailed, match=words):
        Run(experiment(Homomorphic(**defence), rounds=1, weighted=True))


@pytest.mark.parametrize(
    ("fields", "federation", "words"),
    [
        ({"scheme": "rsa"}, {}, "'rsa'"),
        ({"preset": "bfv"}, {}, "preset = 'bfv'"),
        ({"keys": "trusted_decryptor", "seeded": True}, {}, "seeded = True"),
        ({"clip": 0.0}, {}, "clip = 0.0"),
        ({"bits": 40, "scheme": "bfv"}, {}, "bits = 40"),
        ({"bits": 20, "scheme": "bfv"}, {}, "bits = 20: sums of 4 clients"),
        ({"max_weight": 10**6}, {}, "max_weight = 1000000: sums of 4"),
        ({"encrypted_fraction": 1.5}, {}, "encrypted_fraction = 1.5"),
        ({"encrypted_fraction": -0.1}, {}, "encrypted_fraction = -0.1"),
        ({"keys": "trusted_decryptor", "minimum_cohort": 5}, {}, "minimum_cohort = 5"),
        ({"keys": "trusted_decryptor", "minimum_cohort": 1}, {}, "minimum_cohort = 1"),
    ],
)
def test_what_cannot_hold_is_refused_before_anything_runs(fields, federation, words):
    with pytest.raises(ValueError, match=words):
        experiment(Homomorphic(**fields), **federation)


def test_colluders_that_are_not_modelled_are_refused():
    with pytest.raises(ValueError, match="adversary.colluders = 1: what it adds to a sum"):
        experiment(Homomorphic(keys="trusted_decryptor"), adversary=Adversary(colluders=1))
    with pytest.raises(ValueError, match="adversary.colluders = 4: leaves no victim"):
        experiment(Homomorphic(), adversary=Adversary(colluders=4))


def test_the_evidence_tells_the_findings_and_the_bytes():
    run = Run(experiment(Homomorphic(keys="trusted_decryptor"), rounds=1, model="mlp"))
    proof = run.training.protocol
    assert any("Li and Micciancio" in finding for finding in proof["findings"])
    assert not any("in clear" in finding for finding in proof["findings"])
    assert proof["security_bits"] == 128
    assert proof["secret_key_at"] == ["decryptor"]
    assert not proof["server_holds_secret_key"]
    measured = run.grid.states[0].metric_records["evidence"]
    assert measured["homomorphic.encrypted_parameters"] == proof["encrypted_parameters"]
    assert run.grid.states[0].metric_records["timings"]["encrypt_cpu_seconds"] > 0


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("keys", HOLDERS)
def test_ray_gives_the_same_mean_and_no_secret_key_reaches_the_server(keys, drawn):
    made = experiment(Homomorphic(keys=keys), clients=10, rounds=3)
    inline, ray = Run(made), Run(made, engine="ray")
    assert apart(inline.state, ray.state) < 1e-6
    assert own_part(drawn[1]) not in pickle.dumps(ray.view)
    assert apart(Run(experiment(clients=10, rounds=3)).state, ray.state) < 1e-6
