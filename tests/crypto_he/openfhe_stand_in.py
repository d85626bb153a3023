"""A stand-in with openfhe's interface, as far as ``crypto.he.threshold`` uses it, and with no security at all.

A share is a number, the public key their sum; a ciphertext is the plaintext plus that sum, once for each term. Partial
decryptions take one share's part away: all of them open a ciphertext, fewer leave numbers that mean nothing.
"""

import pickle
import secrets
from types import SimpleNamespace

import numpy as np

BINARY = "binary"
SecurityLevel = SimpleNamespace(HEStd_128_classic="128")
ScalingTechnique = SimpleNamespace(FIXEDMANUAL="fixed")
PKESchemeFeature = SimpleNamespace(PKE=1, LEVELEDSHE=2, MULTIPARTY=3)


class CCParamsCKKSRNS:
    def __getattr__(self, name):
        return lambda value: None


def Serialize(item, form):
    return pickle.dumps(item)


def _load(data, form):
    try:
        return pickle.loads(data)
    except Exception as error:
        raise RuntimeError("cannot be read") from error


DeserializePublicKeyString = DeserializePrivateKeyString = DeserializeCiphertextString = _load


class Context:
    def Enable(self, feature):
        pass

    def KeyGen(self):
        return self._pair(0.0)

    def MultipartyKeyGen(self, public):
        return self._pair(public)

    @staticmethod
    def _pair(before):
        share = 1e3 + secrets.randbelow(2**20) / 64  # dyadic, so that taking it away again is exact
        return SimpleNamespace(publicKey=before + share, secretKey=share)

    def MakeCKKSPackedPlaintext(self, values):
        return np.asarray(values)

    def Encrypt(self, public, plain):
        return {"terms": 1, "values": plain + public}

    def EvalAddInPlace(self, total, other):
        total["terms"] += other["terms"]
        total["values"] = total["values"] + other["values"]

    def MultipartyDecryptLead(self, ciphertexts, share):
        return [{**c, "values": c["values"] - c["terms"] * share} for c in ciphertexts]

    def MultipartyDecryptMain(self, ciphertexts, share):
        return [{**c, "values": np.full(len(c["values"]), -c["terms"] * share)} for c in ciphertexts]

    def MultipartyDecryptFusion(self, partials):
        values = sum(partial["values"] for partial in partials)
        return SimpleNamespace(GetRealPackedValue=lambda: values)


def GenCryptoContext(parameters):
    return Context()
