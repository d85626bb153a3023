"""An encrypted vector as it crosses the wire, and the checks before anybody works with one."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

from crypto.he import frame
from crypto.he.errors import (
    CorruptMessageError,
    ForeignCiphertextError,
    IncompatibleCiphertextsError,
    ValueRangeError,
)
from crypto.he.presets import Parameters

KIND = "vector"
Form = Literal["full", "seeded"]


class Context(Protocol):
    """What a ciphertext is checked against: the public half of some keys."""

    digest: str
    cohort: int
    parameters: Parameters


@dataclass(frozen=True)
class Ciphertext:
    """A vector of ``length`` values under one context, or the sum of ``terms`` of them.

    ``context`` is the digest of the public context, ``chunks`` are SEAL's own bytes, one per ``capacity`` values.
    ``terms`` is what the sender says: nothing in a ciphertext proves how many were added.
    """

    context: str
    form: Form
    length: int
    terms: int
    chunks: tuple[bytes, ...] = field(repr=False)

    def to_bytes(self) -> bytes:
        """The message; ``from_bytes`` undoes it."""
        header = {"context": self.context, "form": self.form, "length": self.length, "terms": self.terms}
        return frame.pack(KIND, header, self.chunks)

    @classmethod
    def from_bytes(cls, data: bytes, context: Context) -> "Ciphertext":
        """The checked ciphertext in ``data``.

        Raises CorruptMessageError for bytes that are damaged or no ciphertext, ForeignCiphertextError for one under
        another context, ValueRangeError for more terms than the context's range allows.
        """
        header, parts = frame.unpack(data, KIND)
        if not _well_formed(header):
            raise CorruptMessageError("ciphertext: its fields are not those of an encrypted vector")
        if len(parts) != -(-header["length"] // context.parameters.capacity):
            raise CorruptMessageError(f"ciphertext: {len(parts)} chunks do not hold {header['length']} values")
        found = cls(chunks=tuple(bytes(part) for part in parts), **header)
        found.require(context)
        return found

    @property
    def name(self) -> str:
        """SHA-256 of the chunks: what a partial decryption says that it is of."""
        return hashlib.sha256(b"".join(self.chunks)).hexdigest()

    def require(self, context: Context) -> None:
        """Raise ForeignCiphertextError or ValueRangeError unless this belongs to ``context`` and its cohort."""
        if self.context != context.digest:
            raise ForeignCiphertextError(
                f"ciphertext: was made under context {self.context[:12]}, not {context.digest[:12]}"
            )
        if self.terms > context.cohort:
            raise ValueRangeError(
                f"a sum of {self.terms} vectors: this context was made for {context.cohort}, beyond which sums overflow"
            )


def require_sum(ciphertexts: Sequence[Ciphertext], context: Context) -> tuple[int, int]:
    """Length and terms of the sum of ``ciphertexts``.

    Raises ForeignCiphertextError, IncompatibleCiphertextsError for none or unlike lengths, or ValueRangeError for
    more terms than the context was made for.
    """
    lengths = {ciphertext.length for ciphertext in ciphertexts}
    if len(lengths) != 1:
        raise IncompatibleCiphertextsError(
            f"ciphertexts of {sorted(lengths)} values: a sum takes one or more, all of the same length"
        )
    for ciphertext in ciphertexts:
        ciphertext.require(context)
    total = replace(ciphertexts[0], terms=sum(ciphertext.terms for ciphertext in ciphertexts))
    total.require(context)
    return total.length, total.terms


def _well_formed(header: Mapping[str, Any]) -> bool:
    return (
        set(header) == {"context", "form", "length", "terms"}
        and isinstance(header["context"], str)
        and header["form"] in get_args(Form)
        and all(type(header[name]) is int and header[name] >= 1 for name in ("length", "terms"))
    )
