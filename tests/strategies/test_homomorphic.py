"""Homomorphic aggregation over Flower messages: the same mean for every key holder, and nothing bad in a sum."""

import gc

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from crypto.he import HEError, SecretContext, contexts, encrypt, generate_keys, open_public, select
from crypto.he.errors import SecretKeyExposedError
from crypto.he.vectors import encrypt_chunks
from fedsim import ClientDP, Homomorphic
from fedsim.apps import client_app
from fedsim.federation import TrainingFailed
from fedsim.grids import InlineGrid
from strategies.he_client import ciphertext_array
from strategies.he_deployment import ServerKeys, all_alike
from strategies.he_server import refuse_secret_keys
from tests.strategies.homomorphic_runs import HOLDERS, Run, apart, everything, experiment


@pytest.mark.parametrize("keys", HOLDERS)
def test_ten_clients_for_three_rounds_reach_the_plaintext_mean_within_the_stated_error(keys):
    fields = {"clients": 10, "rounds": 3}
    plain = Run(experiment(**fields))
    encrypted = Run(experiment(Homomorphic(keys=keys), **fields))
    stated = 3 * 0.5 * encrypted.training.protocol["stated_error_of_a_sum"] / 10
    assert apart(plain.state, encrypted.state) <= stated + 1e-7  # and what float32 rounds in another order
    assert stated < 1e-6
    assert encrypted.training.history[-1]["loss"] == pytest.approx(plain.training.history[-1]["loss"], abs=1e-5)


UNEQUAL = {
    "partition": {"kind": "dirichlet", "options": {"alpha": 0.5}},
    "algorithm": "fedavg",
    "weighted": True,
    "clients": 10,
    "rounds": 3,
    "batch_size": 16,
}


def unequal(**fields):
    made = experiment(**UNEQUAL)
    most = max(len(made.client_data(client)[1]) for client in range(10))
    return experiment(Homomorphic(max_weight=most, **fields), **UNEQUAL)


@pytest.mark.parametrize(
    "fields", [*({"keys": keys} for keys in HOLDERS), {"seeded": True}, {"encrypted_fraction": 0.3}], ids=str
)
def test_clients_of_unlike_sizes_weigh_what_they_weigh_in_plaintext(fields):
    plain = Run(experiment(**UNEQUAL))
    sizes = [update.side["num-examples"] for update in plain.view.updates]
    assert len(set(sizes)) > 5
    encrypted = Run(unequal(**fields))
    stated = 3 * encrypted.training.protocol["stated_error_of_a_sum"] / (sum(sizes) / len(sizes) * 10)
    assert apart(plain.state, encrypted.state) <= stated + 1e-7
    counted_once = Run(experiment(Homomorphic(), **UNEQUAL))
    assert apart(plain.state, counted_once.state) > 0.01
    assert "each client counted once" in Homomorphic().describe()


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_ray_weighs_clients_of_unlike_sizes_as_inline_does():
    assert apart(Run(experiment(**UNEQUAL)).state, Run(unequal(), engine="ray").state) < 1e-6


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
    for array in (Array("bytes", (1,), "any", keys.secret), Array(np.frombuffer(keys.secret, np.uint8))):
        with pytest.raises(SecretKeyExposedError, match="somebody"):
            refuse_secret_keys(RecordDict({"a": ArrayRecord({"v": array})}), "somebody")


def secrets_of(run):
    return {bytes(state.config_records["homomorphic"]["context"]) for state in run.grid.states.values()}


@pytest.fixture
def drawn(monkeypatch):
    """Every key pair that is made in this process."""
    made = []
    monkeypatch.setattr("strategies.he_deployment.generate_keys", lambda *a: made.append(k := generate_keys(*a)) or k)
    return made


def own_part(keys):
    """The bytes of a secret context that its public one does not have."""
    return keys.secret[keys.secret.index(keys.public) + len(keys.public) : -32]


@pytest.mark.parametrize("keys", HOLDERS)
def test_only_those_who_should_hold_the_secret_key(keys, drawn):
    run = Run(experiment(Homomorphic(keys=keys), rounds=1))
    if keys == "trusted_decryptor":
        assert not drawn
        assert secrets_of(run) == {run.deployment.server.public}
        assert run.deployment.server.mistake is None
        return
    assert secrets_of(run) == {drawn[0].secret if keys == "clients_share_key" else drawn[0].public}
    assert (run.deployment.server.mistake == drawn[0].secret) == (keys == "server_holds_key")
    assert own_part(drawn[0]) not in everything(run.view)


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("keys", ["clients_share_key", "trusted_decryptor"])
def test_no_secret_key_was_opened_in_the_server_process(keys, monkeypatch):
    monkeypatch.setattr("strategies.he_server.decrypt", None)
    contexts._open_secret.cache_clear()  # what other tests opened in this process
    gc.collect()
    run = Run(experiment(Homomorphic(keys=keys), rounds=2), engine="ray")
    assert run.training.history[-1]["answered"] == [0, 1, 2, 3]
    assert not [found for found in gc.get_objects() if type(found) is SecretContext]


def test_seeded_keys_whose_forms_differ_are_not_taken(monkeypatch):
    def far(context, vector, one):
        return encrypt_chunks(context, vector + 1, one)

    monkeypatch.setattr("crypto.he.seeded.encrypt_chunks", far)
    with pytest.raises(HEError, match="took no key: HEError: seeded and full ciphertexts decrypt 1 apart"):
        Run(experiment(Homomorphic(seeded=True)))
    Run(experiment(Homomorphic(), rounds=1))


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
        ({"encrypted_fraction": float("nan")}, {}, "encrypted_fraction = nan"),
        ({"encrypted_fraction": "half"}, {}, "encrypted_fraction"),
        ({"max_weight": 2.5}, {}, "max_weight"),
        ({"keys": "trusted_decryptor", "minimum_cohort": 5}, {}, "minimum_cohort = 5"),
        ({"keys": "trusted_decryptor", "minimum_cohort": 1}, {}, "minimum_cohort = 1"),
    ],
)
def test_what_cannot_hold_is_refused_before_anything_runs(fields, federation, words):
    with pytest.raises(ValueError, match=words):
        experiment(Homomorphic(**fields), **federation)


@pytest.mark.parametrize("scheme", ["ckks", "bfv"])
def test_vectors_longer_than_a_ciphertext_print_no_warnings(scheme, capfd):
    made = experiment(Homomorphic(scheme=scheme, keys="trusted_decryptor", clip=4.0), rounds=1, model="mlp")
    size = sum(parameter.numel() for parameter in made.initial_model().parameters())
    assert size > Homomorphic(scheme=scheme).parameters.capacity
    Run(made)
    assert capfd.readouterr() == ("", "")


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("keys", HOLDERS)
def test_ray_gives_the_same_mean_and_no_secret_key_reaches_the_server(keys, drawn):
    made = experiment(Homomorphic(keys=keys), clients=10, rounds=3)
    inline, ray = Run(made), Run(made, engine="ray")
    assert apart(inline.state, ray.state) < 1e-6
    assert not drawn or own_part(drawn[1]) not in everything(ray.view)
    assert apart(Run(experiment(clients=10, rounds=3)).state, ray.state) < 1e-6
