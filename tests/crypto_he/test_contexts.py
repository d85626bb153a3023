"""Secret keys stay where they belong: not with a server, not in a representation, not in a pickle."""

import copy
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from crypto.he import frame, presets
from crypto.he.contexts import Keys, carries_secret_key, generate_keys, open_public, open_secret
from crypto.he.errors import CorruptMessageError, ParameterError, SecretKeyExposedError
from crypto.he.presets import PRESETS
from crypto.he.seeded import encrypt_seeded
from crypto.he.vectors import decrypt, encrypt
from crypto.he.wire import Ciphertext
from tests.crypto_he.conftest import keys_for


def test_a_server_refuses_a_secret_key():
    keys = keys_for("ckks")
    assert (carries_secret_key(keys.secret), carries_secret_key(keys.public)) == (True, False)
    with pytest.raises(SecretKeyExposedError):
        open_public(keys.secret)
    open_public(keys.public)


def test_a_secret_key_is_found_inside_other_formats():
    keys = keys_for("ckks")
    saved = io.BytesIO()
    np.save(saved, np.frombuffer(keys.secret, np.uint8))
    for wrapped in (saved.getvalue(), pickle.dumps({"key": keys.secret}), memoryview(b"x" + keys.secret)):
        assert carries_secret_key(wrapped)


def test_a_secret_key_posing_as_public():
    """Relabelled, added as a further part, or in place of the public key: never opened as a public context."""
    keys = keys_for("ckks")
    _, (public, secret) = frame.unpack(keys.secret, "secret")
    header, (public_key,) = frame.unpack(bytes(public), "public")
    for parts in ([public_key, secret], [secret], [bytes(public_key) + bytes(secret)]):
        with pytest.raises(CorruptMessageError):
            open_public(frame.pack("public", header, parts))
    with pytest.raises(CorruptMessageError):
        open_public(frame.pack("public", {}, [public, secret]))


def test_a_public_context_cannot_pose_as_secret():
    with pytest.raises(CorruptMessageError):
        open_secret(keys_for("ckks").public)


def test_no_secret_bytes_in_the_public_context():
    """The secret key's own bytes appear nowhere in what the server gets, nor in a ciphertext."""
    keys = keys_for("ckks")
    secret = bytes(frame.unpack(keys.secret, "secret")[1][1])
    context = open_secret(keys.secret)
    sent = [
        keys.public,
        encrypt(context.public, np.ones(5)).to_bytes(),
        encrypt_seeded(context, np.ones(5)).to_bytes(),
    ]
    for start in range(100, len(secret) - 32, 1009):
        assert not any(secret[start : start + 32] in data for data in sent)


def test_only_needed_keys_travel():
    """A public context is its public key: two polynomials modulo both primes, no relinearisation or Galois keys."""
    assert len(keys_for("ckks").public) < 1.01 * 2 * 2 * 8192 * 8


def test_representations_hide_keys():
    keys = keys_for("ckks")
    context = open_secret(keys.secret)
    for shown in (repr(keys), str(keys), repr(context), repr(context.public), repr(encrypt(context.public, [1.0]))):
        assert "\\x" not in shown
        assert len(shown) < 300


def test_live_contexts_stay_in_their_process():
    context = open_secret(keys_for("ckks").secret)
    for live in (context, context.public):
        for carry in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="send the bytes"):
                carry(live)


def test_opened_once_per_process():
    keys = keys_for("ckks")
    assert open_public(keys.public) is open_public(bytes(bytearray(keys.public)))
    assert open_secret(keys.secret) is open_secret(keys.secret)
    assert open_secret(keys.secret).public is open_public(keys.public)


def test_key_pairs_are_fresh():
    first, second = (generate_keys(PRESETS["bfv"], 10) for _ in range(2))
    assert first.public != second.public
    assert first.secret != second.secret


def test_another_process_decrypts():
    """Keys and ciphertexts are bytes: everything needed travels, and an unrelated process reads it."""
    keys = keys_for("ckks")
    message = encrypt(open_public(keys.public), np.array([0.25, -3.0])).to_bytes()
    program = (
        "import sys, pickle\n"
        "from crypto.he.contexts import open_secret\n"
        "from crypto.he.vectors import decrypt\n"
        "from crypto.he.wire import Ciphertext\n"
        "keys, message = pickle.load(sys.stdin.buffer)\n"
        "context = open_secret(keys.secret)\n"
        "print(*decrypt(context, Ciphertext.from_bytes(message, context.public)).round(6))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps((keys, message)), capture_output=True, check=True
    )
    assert done.stdout.decode().split() == ["0.25", "-3.0"]


def test_tenseal_is_imported_late():
    program = "import sys, crypto.he, crypto.he.holders, crypto.he.seeded, crypto.he.threshold\n" + (
        "assert not {'tenseal', 'openfhe', 'torch', 'flwr', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_no_terminal_noise_and_no_threads(capfd):
    """Vectors far longer than the slots, and no pool of threads beside them."""
    before = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else None
    context = open_secret(generate_keys(PRESETS["ckks"], 10).secret)
    decrypt(context, encrypt(context.public, np.ones(20_000)))
    assert capfd.readouterr() == ("", "")
    if before is not None:
        assert len(os.listdir("/proc/self/task")) == before


def test_no_open_files_left():
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts descriptors through /proc")
    context = open_secret(keys_for("ckks").secret)
    encrypt(context.public, np.ones(3))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        decrypt(context, encrypt(context.public, np.ones(3)))
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_files_in_memory(monkeypatch):
    """Systems without memfd take a private temporary file, and leave none behind."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    context = open_secret(keys_for("bfv").secret)
    made = Ciphertext.from_bytes(encrypt(context.public, np.arange(5)).to_bytes(), context.public)
    assert decrypt(context, made).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "described",
    [
        {},
        {"scheme": "ckks"},
        {"scheme": "paillier", "degree": 8192, "chain": [60, 60], "scale_bits": 40, "values_per_slot": 2},
        {"scheme": ["ckks"], "degree": 8192, "chain": [60, 60], "scale_bits": 40, "values_per_slot": 2},
        {"scheme": "ckks", "degree": 8192, "chain": [60, 60], "scale_bits": -40, "values_per_slot": 2},
        {"scheme": "ckks", "degree": 8192, "chain": [], "scale_bits": 40, "values_per_slot": 2},
        {"scheme": "ckks", "degree": 8192, "chain": 60, "scale_bits": 40, "values_per_slot": 2},
        {"scheme": "ckks", "degree": True, "chain": [60, 60], "scale_bits": 40, "values_per_slot": 2},
        {"scheme": "ckks", "degree": 8192, "chain": [60, 60], "scale_bits": 40, "values_per_slot": 2, "more": 1},
        {"scheme": "ckks", "degree": 8192, "chain": [60, 60], "scale_bits": 40, "values_per_slot": 3},
        {"scheme": "ckks", "degree": 8192, "chain": [60, 60], "scale_bits": 40},
        {"scheme": "ckks", "degree": 2048, "chain": [60, 60], "scale_bits": 40, "values_per_slot": 2},
    ],
)
def test_a_server_cannot_choose_unsound_parameters(described):
    """Contexts come from a server: other than known fields at 128-bit security, nothing is opened."""
    _, (key,) = frame.unpack(keys_for("ckks").public, "public")
    with pytest.raises(ParameterError):
        open_public(frame.pack("public", {"parameters": described, "cohort": 3}, [key]))


@pytest.mark.parametrize("cohort", [0, -3, 1.5, True, None, "7"])
def test_a_server_cannot_choose_an_unsound_cohort(cohort):
    header, (key,) = frame.unpack(keys_for("ckks").public, "public")
    with pytest.raises(ParameterError):
        open_public(frame.pack("public", {**header, "cohort": cohort}, [key]))


def test_parameters_round_trip():
    for parameters in PRESETS.values():
        assert presets.parse(presets.describe(parameters)) == parameters


def test_keys_are_plain_data():
    assert pickle.loads(pickle.dumps(keys_for("bfv"))) == keys_for("bfv")
    assert isinstance(keys_for("bfv"), Keys)
