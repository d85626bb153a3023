"""What every message has: the frame it travels in, and the strict way to read it.

On the wire: a 16-byte checksum, a header (magic, kind, session, round, client), a body of little-endian fields. The
checksum is GMAC under a published key: it tells damage on the way from a message, and is no protection against an
adversary, whom signatures and sealed shares stop.
"""

from __future__ import annotations

import hashlib
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self, TypeVar

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crypto.errors import CorruptMessage, MalformedMessage, UnknownClient, WrongRound, WrongStage

CHECKSUM_BYTES = 16
_HEADER = struct.Struct("<4sI16sQQ")
FRAME_BYTES = CHECKSUM_BYTES + _HEADER.size
"""Bytes of a message beside its body: a multiple of 8, so that words in the body are aligned."""
_MAGIC = b"FSA1"
_GMAC = AESGCM(bytes(16))
Row = TypeVar("Row", bound=tuple[Any, ...])


@dataclass(frozen=True)
class Message(ABC):
    """One message of one round; ``client`` is its sender on the way up and its recipient on the way down."""

    session: bytes
    round: int
    client: int
    kind: ClassVar[int]
    stage: ClassVar[str]

    @abstractmethod
    def body(self) -> Any: ...

    @classmethod
    @abstractmethod
    def parse(cls, body: memoryview) -> dict[str, Any]:
        """The fields in ``body``; struct.error or ValueError when it is anything but one whole body."""

    def encode(self) -> bytes:
        header = _HEADER.pack(_MAGIC, self.kind, self.session, self.round, self.client)
        body = self.body()
        return b"".join((_checksum(header, body), header, body))

    @classmethod
    def decode(cls, data: bytes, *, client: int, stage: str, session: bytes | None = None, round: int = 0) -> Self:
        """Parse ``data``, which must be this kind of message, of or for ``client``, in this session and round.

        Errors name ``client`` and ``stage``: CorruptMessage, MalformedMessage, WrongStage, UnknownClient, WrongRound.
        ``session`` None accepts any: the first message of a round sets it.
        """
        view = memoryview(data)
        start = FRAME_BYTES
        if len(view) < FRAME_BYTES:
            raise MalformedMessage(client, stage, f"{len(view)} bytes: shorter than a header")
        if _checksum(view[CHECKSUM_BYTES:start], view[start:]) != view[:CHECKSUM_BYTES]:
            raise CorruptMessage(client, stage, "damaged or truncated: the checksum does not fit")
        magic, kind, its_session, its_round, its_client = _HEADER.unpack(view[CHECKSUM_BYTES:start])
        if magic != _MAGIC:
            raise MalformedMessage(client, stage, "not a message of this protocol")
        if kind != cls.kind:
            raise WrongStage(client, stage, f"a message of kind {kind} where {cls.__name__} ({cls.kind}) is due")
        if its_client != client:
            raise UnknownClient(client, stage, f"the message is of or for client {its_client}")
        if session is not None and (its_session, its_round) != (session, round):
            raise WrongRound(client, stage, f"a message of round {its_round} of another session or round than {round}")
        try:
            return cls(its_session, its_round, its_client, **cls.parse(view[start:]))
        except (struct.error, ValueError) as problem:
            raise MalformedMessage(client, stage, f"{cls.__name__}: {problem}") from None


def ascending(rows: Iterable[Row]) -> tuple[Row, ...]:
    listed = tuple(rows)
    if any(a[0] >= b[0] for a, b in pairwise(listed)):
        raise ValueError("clients are not in ascending order")
    return listed


def _checksum(header: Any, body: Any) -> bytes:
    """GMAC (SP 800-38D) of the body under a published key, with a hash of the header for a nonce."""
    return _GMAC.encrypt(hashlib.sha256(header).digest()[:12], b"", body)
