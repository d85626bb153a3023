"""The messages of a round: frozen, typed, and parsed strictly.

Clients in a list stand in ascending order, so none stands twice.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from crypto.encoding import Encoding
from crypto.errors import InfeasibleParameters
from crypto.keys import KEY_BYTES, SEAL_OVERHEAD, SIGNATURE_BYTES
from crypto.masks import Words
from crypto.secagg.wire import Message, ascending
from crypto.shamir import SHARE_BYTES

STAGES = ("advertise", "shares", "masked", "consistency", "unmask")
SEALED_BYTES = 2 * SHARE_BYTES + SEAL_OVERHEAD
_ID = struct.Struct("<I")
_COUNTS = struct.Struct("<III")
_TERMS = struct.Struct("<IIIIIIdQ")
TERMS_BYTES = _TERMS.size
_SEALED = struct.Struct(f"<I{SEALED_BYTES}s")
_SIGNED = struct.Struct(f"<I{SIGNATURE_BYTES}s")
_SHARE = struct.Struct(f"<I{SHARE_BYTES}s")
_UNSIGNED_ADVERT = struct.Struct(f"<I{KEY_BYTES}s{KEY_BYTES}s0s")
_SIGNED_ADVERT = struct.Struct(f"<I{KEY_BYTES}s{KEY_BYTES}s{SIGNATURE_BYTES}s")


class Neighbour(NamedTuple):
    """A client's public keys as the server passes them on; ``signature`` is empty without a directory of keys."""

    client: int
    mask_key: bytes
    share_key: bytes
    signature: bytes


@dataclass(frozen=True)
class Terms(Message):
    """Server to client: the parameters of the round, for the client's policy to accept or refuse."""

    clients: int
    degree: int
    threshold: int
    modulus_bits: int
    bits: int
    max_weight: int
    clip: float
    dimension: int
    kind, stage = 1, "advertise"

    @property
    def encoding(self) -> Encoding:
        return Encoding(self.dimension, self.clip, self.bits, self.max_weight, self.modulus_bits)

    def common(self) -> bytes:
        """What every client of the round must see alike."""
        return self.session + self.round.to_bytes(8, "little") + self.body()

    def body(self) -> bytes:
        fields = (self.clients, self.degree, self.threshold, self.modulus_bits, self.bits, self.max_weight)
        try:
            return _TERMS.pack(*fields, self.clip, self.dimension)
        except struct.error as problem:
            raise InfeasibleParameters(f"{self}: {problem}") from None

    @classmethod
    def parse(cls, body: memoryview) -> dict[str, Any]:
        names = ("clients", "degree", "threshold", "modulus_bits", "bits", "max_weight", "clip", "dimension")
        return dict(zip(names, _TERMS.unpack(body), strict=True))


@dataclass(frozen=True)
class Advert(Message):
    """Client to server: this round's public keys, signed where clients have long-lived keys."""

    mask_key: bytes
    share_key: bytes
    signature: bytes
    kind, stage = 2, "advertise"

    def body(self) -> bytes:
        return self.mask_key + self.share_key + self.signature

    @classmethod
    def parse(cls, body: memoryview) -> dict[str, Any]:
        if len(body) not in (2 * KEY_BYTES, 2 * KEY_BYTES + SIGNATURE_BYTES):
            raise ValueError(f"{len(body)} bytes are not two keys and at most one signature")
        keys = bytes(body)
        return {"mask_key": keys[:32], "share_key": keys[32:64], "signature": keys[64:]}


@dataclass(frozen=True)
class Roster(Message):
    """Server to client: the neighbours and their keys."""

    neighbours: tuple[Neighbour, ...]
    kind, stage = 3, "shares"

    def body(self) -> bytes:
        signed = any(n.signature for n in self.neighbours)
        row = _SIGNED_ADVERT if signed else _UNSIGNED_ADVERT
        return bytes([signed]) + b"".join(row.pack(*n) for n in self.neighbours)

    @classmethod
    def parse(cls, body: memoryview) -> dict[str, Any]:
        if len(body) < 1 or body[0] > 1:
            raise ValueError("no flag that says whether keys are signed")
        row = _SIGNED_ADVERT if body[0] else _UNSIGNED_ADVERT
        return {"neighbours": ascending(map(Neighbour._make, row.iter_unpack(body[1:])))}


@dataclass(frozen=True)
class Shares(Message):
    """Client to server: sealed shares of both its secrets, one per neighbour, and a hash of its self-mask seed."""

    commitment: bytes
    sealed: tuple[tuple[int, bytes], ...]
    kind, stage = 4, "shares"

    def body(self) -> bytes:
        return self.commitment + b"".join(_SEALED.pack(*row) for row in self.sealed)

    @classmethod
    def parse(cls, body: memoryview) -> dict[str, Any]:
        if len(body) < KEY_BYTES:
            raise ValueError("no commitment")
        sealed = ascending(_SEALED.iter_unpack(body[KEY_BYTES:]))
        return {"commitment": bytes(body[:KEY_BYTES]), "sealed": sealed}


@dataclass(frozen=True)
class Inbox(Message):
    """Server to client: the sealed shares that its neighbours made for it."""

    sealed: tuple[tuple[int, bytes], ...]
    kind, stage = 5, "masked"

    def body(self) -> bytes:
        return b"".join(_SEALED.pack(*row) for row in self.sealed)

    @classmethod
    def parse(cls, body: memoryview) -> dict[str, Any]:
        return {"sealed": ascending(_SEALED.iter_unpack(body))}


@dataclass(frozen=True, eq=False)
class Masked(Message):
    """Client to server: the encoded update under its masks."""

    words: Words
    kind, stage = 6, "masked"

    def body(self) -> memoryview:
        return np.ascontiguousarray(self.words).view(np.uint8).data

    @classmethod
    def parse(cls, body: memoryview) -> dict[str, Any]:
        return {"words": np.frombuffer(body, np.uint8)}

    def vector(self, encoding: Encoding) -> Words:
        """The words, read as ``encoding`` has them. Raises ValueError when their number is another."""
        if self.words.nbytes != encoding.length * encoding.word.itemsize:
            raise ValueError(f"{self.words.nbytes} bytes are not {encoding.length} words of {encoding.word.itemsize}")
        return self.words.view(encoding.word)


@dataclass(frozen=True)
class Survivors(Message):
    """Server to client: everyone whose masked vector arrived, as one bit per client of the round."""

    clients: int
    alive: frozenset[int]
    kind, stage = 7, "consistency"

    def body(self) -> bytes:
        bits = np.zeros(self.clients, bool)
        bits[list(self.alive)] = True
        return _ID.pack(self.clients) + np.packbits(bits, bitorder="little").tobytes()

    @classmethod
    def parse(cls, body: memoryview) -> dict[str, Any]:
        (clients,) = _ID.unpack(body[:4])
        if len(body) != 4 + -(-clients // 8):
            raise ValueError(f"the set is not {clients} bits long")
        bits = np.unpackbits(np.frombuffer(body[4:], np.uint8), bitorder="little")
        if bits[clients:].any():
            raise ValueError("bits beyond the last client")
        return {"clients": clients, "alive": frozenset(np.flatnonzero(bits).tolist())}


@dataclass(frozen=True)
class Endorsement(Message):
    """Client to server: its signature on the survivor set that it was shown."""

    signature: bytes
    kind, stage = 8, "consistency"

    def body(self) -> bytes:
        return self.signature

    @classmethod
    def parse(cls, body: memoryview) -> dict[str, Any]:
        if len(body) != SIGNATURE_BYTES:
            raise ValueError(f"{len(body)} bytes are not a signature")
        return {"signature": bytes(body)}


@dataclass(frozen=True)
class UnmaskRequest(Message):
    """Server to client: the neighbours (and itself) whose seeds, and those whose keys, are to be opened."""

    alive: tuple[int, ...]
    dead: tuple[int, ...]
    endorsements: tuple[tuple[int, bytes], ...]
    kind, stage = 9, "unmask"

    def body(self) -> bytes:
        counts = _COUNTS.pack(len(self.alive), len(self.dead), len(self.endorsements))
        ids = b"".join(map(_ID.pack, self.alive + self.dead))
        return counts + ids + b"".join(_SIGNED.pack(*row) for row in self.endorsements)

    @classmethod
    def parse(cls, body: memoryview) -> dict[str, Any]:
        alive, dead, signed = _COUNTS.unpack(body[: _COUNTS.size])
        first, second = _COUNTS.size + 4 * alive, _COUNTS.size + 4 * (alive + dead)
        if len(body) != second + signed * _SIGNED.size:
            raise ValueError("lists of another length than announced")
        return {
            "alive": tuple(row[0] for row in ascending(_ID.iter_unpack(body[_COUNTS.size : first]))),
            "dead": tuple(row[0] for row in ascending(_ID.iter_unpack(body[first:second]))),
            "endorsements": ascending(_SIGNED.iter_unpack(body[second:])),
        }


@dataclass(frozen=True)
class Unmasking(Message):
    """Client to server: its shares of survivors' self-mask seeds and of dropped clients' mask keys."""

    seeds: tuple[tuple[int, bytes], ...] = field(repr=False)
    keys: tuple[tuple[int, bytes], ...] = field(repr=False)
    kind, stage = 10, "unmask"

    def body(self) -> bytes:
        return _ID.pack(len(self.seeds)) + b"".join(_SHARE.pack(*row) for row in self.seeds + self.keys)

    @classmethod
    def parse(cls, body: memoryview) -> dict[str, Any]:
        (seeds,) = _ID.unpack(body[:4])
        split = 4 + seeds * _SHARE.size
        if split > len(body):
            raise ValueError("fewer shares than announced")
        return {
            "seeds": ascending(_SHARE.iter_unpack(body[4:split])),
            "keys": ascending(_SHARE.iter_unpack(body[split:])),
        }
