"""The envelope of everything that crosses the wire: type, version, lengths, and a digest over all of it.

The digest finds truncation and damage. It authenticates nobody: who can alter a message can also compute it anew.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from crypto.he.errors import CorruptMessageError

MAGIC = b"FSHE"
VERSION = 1
_PREFIX = struct.Struct("<4sB8sII")  # magic, version, kind, bytes of the header, number of parts
_LENGTH = struct.Struct("<Q")
_DIGEST = 32


def kind_of(data: bytes) -> str:
    """The kind that a message says it is; empty when it says nothing."""
    view = memoryview(data).cast("B")
    if len(view) < _PREFIX.size or view[: len(MAGIC)] != MAGIC:
        return ""
    return _name(_PREFIX.unpack_from(view)[2])


def holds(data: bytes, kind: str) -> bool:
    """Whether a message of ``kind`` begins anywhere in ``data``, be it wrapped in another format."""
    return MAGIC + bytes([VERSION]) + kind.encode().ljust(8) in bytes(data)


def pack(kind: str, header: Mapping[str, Any], parts: Sequence[bytes | memoryview]) -> bytes:
    """A message of ``kind`` (at most 8 ASCII letters) with a JSON header and binary parts."""
    head = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    prefix = _PREFIX.pack(MAGIC, VERSION, kind.encode().ljust(8), len(head), len(parts))
    pieces = [prefix, head, *(_LENGTH.pack(len(part)) for part in parts), *parts]
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return b"".join([*pieces, digest.digest()])


def unpack(data: bytes, kind: str) -> tuple[dict[str, Any], list[memoryview]]:
    """Header and parts of a message of ``kind``; raises CorruptMessageError for any other bytes."""
    view = memoryview(data).cast("B")
    if len(view) < _PREFIX.size + _DIGEST:
        raise CorruptMessageError(f"message of {len(view)} bytes: too short to be one; it was truncated")
    magic, version, found, head_size, count = _PREFIX.unpack_from(view)
    if magic != MAGIC:
        raise CorruptMessageError("message: is not one of fedsim's encrypted messages")
    if version != VERSION:
        raise CorruptMessageError(f"message: format version {version}, this program reads version {VERSION}")
    body = view[:-_DIGEST]
    if hashlib.sha256(body).digest() != view[-_DIGEST:]:
        raise CorruptMessageError("message: its digest does not match; it was truncated or altered")
    if found.rstrip() != kind.encode():
        raise CorruptMessageError(f"message: holds {_name(found)}, where {kind} is expected")
    start = _PREFIX.size + head_size
    payload = start + count * _LENGTH.size
    if payload > len(body):
        raise CorruptMessageError("message: its lengths do not add up")
    lengths = [_LENGTH.unpack_from(body, start + i * _LENGTH.size)[0] for i in range(count)]
    if payload + sum(lengths) != len(body):
        raise CorruptMessageError("message: its lengths do not add up")
    parts = []
    for length in lengths:
        parts.append(body[payload : payload + length])
        payload += length
    return _header(bytes(body[_PREFIX.size : start])), parts


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise CorruptMessageError("message: its header cannot be read")
    return header


def _name(kind: bytes) -> str:
    return kind.rstrip().decode("ascii", "replace")
