"""Threshold CKKS through OpenFHE: the secret key exists only in n shares, and all n decrypt a sum together.

Mouchet et al. 2021 ("Multiparty homomorphic encryption"): the parties extend a public key in turn, encrypt under the
joint one, and each removes its share from the sum. Every partial decryption carries smudging noise of standard
deviation 2^20 (OpenFHE's FIXED_NOISE_MULTIPARTY), which sets the error here; independent smudging has no simulation
proof (ePrint 2025/395). A party that drops out makes the sum unreadable.
"""

import hashlib
import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crypto.he import frame
from crypto.he.ckks import checked
from crypto.he.errors import (
    CorruptMessageError,
    ForeignCiphertextError,
    IncompatibleCiphertextsError,
    ParameterError,
    ThresholdUnavailableError,
)
from crypto.he.presets import CKKS, Parameters
from crypto.he.wire import Ciphertext, require_sum

PARAMETERS = CKKS(8192, (60, 60), 50, values_per_slot=1)
"""A scale of 2^50 keeps the smudging noise at 1e-7; sums may reach 256 in magnitude."""
_SMUDGING = 2.0**20
JOINT = "joint"
"""The kind of the message that carries a joint public key."""


def openfhe() -> Any:
    """The optional module; raises ThresholdUnavailableError where it cannot be imported."""
    try:
        return importlib.import_module("openfhe")
    except ImportError as cause:
        raise ThresholdUnavailableError(
            f"threshold CKKS: openfhe cannot be imported ({cause}); its wheels fit one system each (those ending in "
            "24.4 Python 3.12 on Ubuntu 24.04, in 22.4 Python 3.10), or choose a key holder that needs no openfhe"
        ) from None


@dataclass(frozen=True)
class Share:
    """One party's part of the secret key, and the public key joined up to this party."""

    party: int
    public: bytes = field(repr=False)
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class Partial:
    """One party's contribution to the decryption of the ciphertext with digest ``of``."""

    party: int
    of: str
    chunks: tuple[bytes, ...] = field(repr=False)


def join(party: int, previous: bytes | None) -> Share:
    """The share of ``party``, counted from 0: the first has no ``previous`` public key, each next the one before."""
    if (party == 0) != (previous is None):
        raise ParameterError(f"party = {party}: the first starts the public key, each other extends the previous one")
    module, context = openfhe(), _context()
    if previous is None:
        pair = context.KeyGen()
    else:
        pair = context.MultipartyKeyGen(_read(module.DeserializePublicKeyString, previous))
    return Share(party, *(module.Serialize(key, module.BINARY) for key in (pair.publicKey, pair.secretKey)))


class JointContext:
    """The joint public key of ``parties`` shares: encrypts, adds, and fuses partial decryptions."""

    def __init__(self, public: bytes, parties: int, cohort: int) -> None:
        if parties < 2 or not 1 <= cohort <= PARAMETERS.largest_sum:
            raise ParameterError(
                f"parties = {parties}, cohort = {cohort}: must be at least 2, and from 1 to "
                f"{int(PARAMETERS.largest_sum)}"
            )
        self.parameters: Parameters = PARAMETERS
        self.parties, self.cohort = parties, cohort
        self.limit = PARAMETERS.largest_sum / cohort
        self._openfhe, self._context = openfhe(), _context()
        self._public_bytes = public
        self._public = _read(self._openfhe.DeserializePublicKeyString, public)
        self.digest = hashlib.sha256(public + f"|{parties}|{cohort}".encode()).hexdigest()

    def to_bytes(self) -> bytes:
        """The message that every party is given; ``open_joint`` undoes it."""
        return frame.pack(JOINT, {"parties": self.parties, "cohort": self.cohort}, [self._public_bytes])

    def sum_error(self) -> float:
        """The stated error of any slot of a decrypted sum: eight standard deviations of the smudging noise."""
        return 8 * _SMUDGING * math.sqrt(self.parties * PARAMETERS.capacity) / 2.0**PARAMETERS.scale_bits

    def encrypt(self, values: ArrayLike) -> Ciphertext:
        """``values`` (d,) under the joint key; raises ValueRangeError."""
        vector, capacity = checked(values, self.limit), PARAMETERS.capacity
        cut = [vector[start : start + capacity].tolist() for start in range(0, len(vector), capacity)]
        plain = [self._context.MakeCKKSPackedPlaintext(chunk) for chunk in cut]
        chunks = tuple(self._bytes(self._context.Encrypt(self._public, one)) for one in plain)
        return Ciphertext(self.digest, "full", len(vector), 1, chunks)

    def add(self, ciphertexts: Sequence[Ciphertext]) -> Ciphertext:
        """The sum; raises what ``vectors.add`` does, before anything is added."""
        length, terms = require_sum(ciphertexts, self)
        chunks = []
        for column in zip_longest(*(ciphertext.chunks for ciphertext in ciphertexts)):
            total, *others = (self._ciphertext(chunk) for chunk in column)
            for other in others:
                self._context.EvalAddInPlace(total, other)
            chunks.append(self._bytes(total))
        return Ciphertext(self.digest, "full", length, terms, tuple(chunks))

    def partial(self, share: Share, ciphertext: Ciphertext) -> Partial:
        """What the party of ``share`` sends so that all together decrypt ``ciphertext``."""
        ciphertext.require(self)
        module, context = self._openfhe, self._context
        secret = _read(module.DeserializePrivateKeyString, share.secret)
        decrypt = context.MultipartyDecryptMain if share.party else context.MultipartyDecryptLead
        loaded = [self._ciphertext(chunk) for chunk in ciphertext.chunks]
        return Partial(share.party, ciphertext.name, tuple(self._bytes(one) for one in decrypt(loaded, secret)))

    def fuse(self, ciphertext: Ciphertext, partials: Sequence[Partial]) -> NDArray[np.float64]:
        """The values (d,) of ``ciphertext`` from all parties' partial decryptions of it.

        Raises IncompatibleCiphertextsError unless every party contributed once, ForeignCiphertextError for a
        contribution to another ciphertext.
        """
        ciphertext.require(self)
        found = sorted(partial.party for partial in partials)
        if found != list(range(self.parties)):
            raise IncompatibleCiphertextsError(f"parties {found}: all {self.parties} must contribute, once each")
        if any(partial.of != ciphertext.name for partial in partials):
            raise ForeignCiphertextError("partial decryption: belongs to another ciphertext")
        values = []
        for column in zip_longest(*(partial.chunks for partial in partials)):
            plain = self._context.MultipartyDecryptFusion([self._ciphertext(chunk) for chunk in column])
            values.append(plain.GetRealPackedValue())
        return np.concatenate(values)[: ciphertext.length]

    def _bytes(self, ciphertext: Any) -> bytes:
        return bytes(self._openfhe.Serialize(ciphertext, self._openfhe.BINARY))

    def _ciphertext(self, chunk: bytes | None) -> Any:
        return _read(self._openfhe.DeserializeCiphertextString, chunk or b"")


@lru_cache(8)
def open_joint(data: bytes) -> JointContext:
    """The joint context in ``data``, opened once per process.

    Raises CorruptMessageError, ParameterError, or ThresholdUnavailableError where openfhe cannot be imported.
    """
    header, parts = frame.unpack(data, JOINT)
    if set(header) != {"parties", "cohort"} or len(parts) != 1:
        raise CorruptMessageError("context: its fields are not those of a joint context")
    if not all(type(value) is int for value in header.values()):
        raise ParameterError(f"parties = {header['parties']!r}, cohort = {header['cohort']!r}: must be integers")
    return JointContext(bytes(parts[0]), **header)


def _context() -> Any:
    """OpenFHE's context for ``PARAMETERS``; it keeps one per process for equal parameters."""
    module = openfhe()
    chosen = module.CCParamsCKKSRNS()
    chosen.SetSecurityLevel(module.SecurityLevel.HEStd_128_classic)
    chosen.SetRingDim(PARAMETERS.degree)
    chosen.SetBatchSize(PARAMETERS.capacity)
    chosen.SetMultiplicativeDepth(0)
    chosen.SetFirstModSize(PARAMETERS.chain[0])
    chosen.SetScalingModSize(PARAMETERS.scale_bits)
    chosen.SetScalingTechnique(module.ScalingTechnique.FIXEDMANUAL)
    context = module.GenCryptoContext(chosen)
    for feature in ("PKE", "LEVELEDSHE", "MULTIPARTY"):
        context.Enable(getattr(module.PKESchemeFeature, feature))
    return context


def _read(reader: Any, data: bytes) -> Any:
    try:
        return reader(data, openfhe().BINARY)
    except (RuntimeError, ValueError) as refusal:
        raise CorruptMessageError(f"message: openfhe cannot read it: {refusal}") from None
