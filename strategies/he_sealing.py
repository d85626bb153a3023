"""An update's two parts on the wire: the encrypted coordinates as one ciphertext, the others in clear."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crypto.encoding import Encoding
from crypto.he import (
    Ciphertext,
    PublicContext,
    SecretContext,
    Selection,
    decrypt,
    encoding_for,
    encrypt_seeded,
    quantise,
)
from crypto.he.errors import CorruptMessageError, ValueRangeError
from crypto.he.keyless import AnyContext, encrypt
from strategies.homomorphic import Homomorphic


class Codec(Protocol):
    """What is encrypted for a vector, and which weighted sum stands behind the decrypted total."""

    def encode(self, vector: NDArray[np.float32], weight: int, rounding: bytes) -> NDArray[Any]: ...
    def decode(self, total: NDArray[Any], terms: int) -> tuple[NDArray[np.float64], int]: ...


@dataclass(frozen=True)
class RealCodec:
    """For CKKS: the values times their weight and, where weights differ, the weight as one more value."""

    max_weight: int

    def encode(self, vector: NDArray[np.float32], weight: int, rounding: bytes) -> NDArray[np.float64]:
        """Raises ValueRangeError for a weight outside 1..max_weight."""
        if not 1 <= weight <= self.max_weight:
            raise ValueRangeError(f"weight = {weight}: outside 1..{self.max_weight}; raise max_weight")
        values = vector.astype(np.float64) * weight
        return np.append(values, weight) if self.max_weight > 1 else values

    def decode(self, total: NDArray[np.float64], terms: int) -> tuple[NDArray[np.float64], int]:
        """Raises ValueRangeError for a sum of weights that so many clients cannot have."""
        if self.max_weight == 1:
            return total, terms
        weight = round(float(total[-1]))
        if not terms <= weight <= terms * self.max_weight:
            raise ValueRangeError(f"sum of weights {weight}: not that of {terms} clients of 1..{self.max_weight}")
        return total[:-1], weight


@dataclass(frozen=True)
class IntegerCodec:
    """For BFV: the quantised encoding that secure aggregation uses too."""

    encoding: Encoding

    def encode(self, vector: NDArray[np.float32], weight: int, rounding: bytes) -> NDArray[np.int64]:
        """Raises ValueRangeError for a value outside the clip, or a weight outside 0..max_weight."""
        return quantise(self.encoding, vector, weight, rounding)

    def decode(self, total: NDArray[np.int64], terms: int) -> tuple[NDArray[np.float64], int]:
        """Raises ValueRangeError for what is no sum of so many encoded vectors."""
        try:
            weighted, weight = self.encoding.decode(total.astype(self.encoding.word), terms)
        except ValueError as refusal:
            raise ValueRangeError(f"sum: {refusal}") from None
        if not weight:
            raise ValueRangeError("sum: all weights are 0, so there is no mean")
        return weighted, weight


@dataclass(frozen=True)
class ClearSum:
    """The weighted sum of what travelled in clear (possibly no coordinate), and the sum of the weights told with it."""

    values: NDArray[np.float64]
    weight: int


class Sealing:
    """How the vectors of one federation are taken apart, encrypted, and put together again."""

    def __init__(self, defence: Homomorphic, context: AnyContext, selection: Selection) -> None:
        self.context, self.selection = context, selection
        dimension = len(selection.encrypted)
        weighted = defence.max_weight > 1
        self.length = dimension + weighted if dimension else 0
        """Values in each ciphertext; 0 where nothing is encrypted, and there is none."""
        self.tells_weight = weighted and len(selection.clear) > 0
        """Whether the weight travels in clear: a clear part cannot be averaged without it."""
        self.rounding_step = 0.0
        """What one level of a rounded coordinate is worth; 0 where nothing is rounded before encryption."""
        self._codec: Codec = RealCodec(defence.max_weight)
        if isinstance(context, PublicContext) and defence.scheme == "bfv":
            bits, weight = defence.bits, defence.max_weight
            encoding = encoding_for(context, dimension, defence.clip, bits=bits, max_weight=weight)
            self.rounding_step, self._codec = encoding.step, IntegerCodec(encoding)

    def seal(
        self, vector: NDArray[np.float32], weight: int, rounding: bytes, secret: SecretContext | None
    ) -> tuple[Ciphertext | None, NDArray[np.float32]]:
        """The ciphertext, in the seeded form where ``secret`` is given, and the clear part; raises HEError."""
        private, clear = self.selection.split(vector)
        if not self.length:
            return None, clear
        values = self._codec.encode(private, weight, rounding)
        return (encrypt_seeded(secret, values) if secret else encrypt(self.context, values)), clear

    def read(self, data: bytes) -> Ciphertext:
        """One client's ciphertext; raises HEError for bytes that are none, or not one of this federation's vectors."""
        found = Ciphertext.from_bytes(data, self.context)
        if found.length != self.length or found.terms != 1:
            raise CorruptMessageError(
                f"ciphertext: a sum of {found.terms} vectors of {found.length} values, not one of {self.length}"
            )
        return found

    def opened(self, values: NDArray[Any] | None, terms: int, clear: ClearSum) -> tuple[NDArray[np.float64], int]:
        """The weighted sum (d,) and the sum of weights behind decrypted ``values`` and the clear part."""
        if values is None:
            return self.selection.join(np.empty(0), clear.values), clear.weight
        private, weight = self._codec.decode(values, terms)
        return self.selection.join(private, clear.values), weight

    def decrypted(
        self, secret: SecretContext, total: Ciphertext | None, clear: ClearSum
    ) -> tuple[NDArray[np.float64], int]:
        """As ``opened``, for whoever holds the secret key."""
        values = None if total is None else decrypt(secret, total)
        return self.opened(values, 0 if total is None else total.terms, clear)


def selection_of(mask: bytes, size: int) -> Selection:
    """The selection that ``mask_of`` wrote."""
    chosen = np.unpackbits(np.frombuffer(mask, np.uint8), count=size).astype(bool)
    return Selection(size, np.flatnonzero(chosen), np.flatnonzero(~chosen))


def mask_of(selection: Selection) -> bytes:
    """One bit a coordinate, set where it is encrypted."""
    chosen = np.zeros(selection.size, bool)
    chosen[selection.encrypted] = True
    return np.packbits(chosen).tobytes()
