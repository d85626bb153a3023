"""Homomorphic aggregation: sums of encrypted updates, by a party that cannot read them.

    keys = generate_keys(PRESETS["ckks"], cohort=100)              # bytes; who gets which: KEY_HOLDERS
    public, secret = open_public(keys.public), open_secret(keys.secret)
    message = encrypt(public, update).to_bytes()                   # a client
    message = encrypt_seeded(secret, update).to_bytes()            # half the bytes, where clients hold the secret key
    total = add(public, [Ciphertext.from_bytes(message, public)])  # the server
    average = mean(secret, total)                                  # whoever holds the secret key

Everything that is wrong with a message is an ``HEError`` before anything is added or decrypted.
"""

from crypto.he.contexts import (
    Keys,
    PublicContext,
    SecretContext,
    carries_secret_key,
    generate_keys,
    open_public,
    open_secret,
)
from crypto.he.decryptor import Decryptor
from crypto.he.errors import HEError
from crypto.he.holders import KEY_HOLDERS, KeyHolder, TrustedDecryptor
from crypto.he.presets import BFV, CKKS, PRESETS, Parameters
from crypto.he.quantised import dequantised_mean, encoding_for, quantise
from crypto.he.seeded import check_forms_agree, encrypt_seeded
from crypto.he.selective import Selection, select
from crypto.he.vectors import add, decrypt, encrypt, mean
from crypto.he.wire import Ciphertext

__all__ = [
    "BFV",
    "CKKS",
    "KEY_HOLDERS",
    "PRESETS",
    "Ciphertext",
    "Decryptor",
    "HEError",
    "KeyHolder",
    "Keys",
    "Parameters",
    "PublicContext",
    "SecretContext",
    "Selection",
    "TrustedDecryptor",
    "add",
    "carries_secret_key",
    "check_forms_agree",
    "decrypt",
    "dequantised_mean",
    "encoding_for",
    "encrypt",
    "encrypt_seeded",
    "generate_keys",
    "mean",
    "open_public",
    "open_secret",
    "quantise",
    "select",
]
