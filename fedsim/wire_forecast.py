"""Bytes that each protocol will put on the wire, before anything runs: counted, or measured on one small ciphertext."""

import math

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from crypto.he import encrypt, encrypt_seeded, generate_keys, open_secret
from crypto.secagg.cost import wire_bytes
from fedsim.client import trainable
from fedsim.cost_model import setting_of, sizes_of
from fedsim.experiment import Experiment
from fedsim.scenario import Scenario
from strategies.base import Stage
from strategies.homomorphic import Homomorphic
from strategies.secure_aggregation import FLOWER, SecureAggregation
from strategies.wire import payload_bytes

FLOWER_WORD = 8
"""Bytes a value takes in Flower's masked vectors."""


def wire_of(scenario: Scenario, experiment: Experiment) -> tuple[int, int, str]:
    """Bytes up and down per client and round, and what else crosses to other parties, in words."""
    model = experiment.initial_model()
    down = payload_bytes(RecordDict({"arrays": ArrayRecord(dict(model.state_dict())), "config": ConfigRecord()}))
    hiding = next((defence for defence in scenario.protocol if defence.stage == Stage.HIDE), None)
    cohort = scenario.federation.cohort or scenario.federation.clients
    _, size = sizes_of(experiment)
    if isinstance(hiding, SecureAggregation) and hiding.profile == FLOWER:
        return FLOWER_WORD * size, down, ""
    if isinstance(hiding, SecureAggregation):
        up, around = wire_bytes(setting_of(hiding, cohort, size))
        stands_in = "; a trusted party stands in for it" if hiding.mode == "ideal" else ""
        return up // cohort, down + around // cohort, stands_in
    if isinstance(hiding, Homomorphic):
        return _encrypted(hiding, cohort, size, down)
    return (
        payload_bytes(RecordDict({"update": ArrayRecord({n: p.detach() for n, p in trainable(model).items()})})),
        down,
        "",
    )


def _encrypted(defence: Homomorphic, cohort: int, size: int, model: int) -> tuple[int, int, str]:
    hidden = round(size * defence.encrypted_fraction)
    clear = 4 * (size - hidden)
    if defence.keys == "threshold":
        return clear, model, "; and ciphertexts, which are not forecast for keys in shares"
    sealed = ciphertext_bytes(defence, cohort, hidden) if hidden else 0
    said = f"; of these {sealed:,} are ciphertext, {sealed / hidden:.1f} bytes a parameter" if hidden else ""
    if defence.keys == "trusted_decryptor":
        said += f"; {sealed:,} to the decryptor and {8 * hidden:,} back, a round"
    if defence.keys == "clients_share_key":
        return (
            sealed + clear,
            ciphertext_bytes(defence, cohort, hidden, total=True) if hidden else model,
            (f"{said}; down comes the encrypted sum, and the model ({model:,}) once"),
        )
    return sealed + clear, model, said


def ciphertext_bytes(defence: Homomorphic, cohort: int, values: int, *, total: bool = False) -> int:
    """Bytes of one client's ciphertext of so many values; of a sum's with ``total``, which is never in seeded form."""
    secret = open_secret(generate_keys(defence.parameters, cohort).secret)
    capacity = defence.parameters.capacity

    def made(length: int) -> int:
        zeros = np.zeros(length, np.int64 if defence.scheme == "bfv" else np.float64)
        sealed = encrypt_seeded(secret, zeros) if defence.seeded and not total else encrypt(secret.public, zeros)
        return len(sealed.to_bytes())

    one, two = made(1), made(capacity + 1)
    return one + (math.ceil(values / capacity) - 1) * (two - one)
