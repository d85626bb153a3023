"""Encrypt, add, decrypt: the three verbs, alike for CKKS and BFV.

Vectors are cut into chunks of what one ciphertext holds. Addition needs no key. A decrypted CKKS sum is approximate
and carries information on the noise: handing it to whoever holds the ciphertext lets them recover the key (Li and
Micciancio 2021), and SEAL adds no flooding noise against that.
"""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crypto.he import seal
from crypto.he.contexts import PublicContext, SecretContext
from crypto.he.errors import CorruptMessageError, ValueRangeError
from crypto.he.wire import Ciphertext, require_sum


def encrypt(context: PublicContext, values: ArrayLike) -> Ciphertext:
    """``values`` (d,) under the public key: floats for CKKS, integers for BFV; raises ValueRangeError."""

    def one(plain: Any) -> Any:
        made = seal.api().Ciphertext()
        context.encryptor.encrypt(plain, made)
        return made

    vector = context.packing.check(values)
    return Ciphertext(context.digest, "full", len(vector), 1, encrypt_chunks(context, vector, one))


def encrypt_chunks(context: PublicContext, vector: NDArray[Any], one: Callable[[Any], Any]) -> tuple[bytes, ...]:
    """The chunks of a checked vector, each plaintext encrypted by ``one``."""
    plain, capacity = seal.api().Plaintext(), context.parameters.capacity
    with seal.scratch() as file:
        chunks = []
        for start in range(0, len(vector), capacity):
            context.packing.encode(vector[start : start + capacity], plain)
            chunks.append(file.save(one(plain)))
    return tuple(chunks)


def add(context: PublicContext, ciphertexts: Sequence[Ciphertext]) -> Ciphertext:
    """The sum of vectors of one length under one context.

    Raises, before anything is added: ForeignCiphertextError, IncompatibleCiphertextsError, or ValueRangeError for
    more terms than the context's cohort.
    """
    length, terms = require_sum(ciphertexts, context)
    evaluator = seal.api().Evaluator(context.seal)
    with seal.scratch() as file:
        chunks = tuple(
            _add_chunk(context, evaluator, file, column)
            for column in zip_longest(*(ciphertext.chunks for ciphertext in ciphertexts))
        )
    return Ciphertext(context.digest, "full", length, terms, chunks)


def _add_chunk(context: PublicContext, evaluator: Any, file: seal.Scratch, column: Sequence[bytes]) -> bytes:
    total, *others = (file.load(seal.api().Ciphertext(), context.seal, chunk) for chunk in column)
    try:
        for other in others:
            evaluator.add_inplace(total, other)
    except (RuntimeError, ValueError) as refusal:
        raise CorruptMessageError(f"ciphertext: SEAL refuses to add it: {refusal}") from None
    return file.save(total)


def decrypt(context: SecretContext, ciphertext: Ciphertext) -> NDArray[Any]:
    """The values (d,) of a ciphertext or of a sum: float64 for CKKS, int64 for BFV.

    Raises ForeignCiphertextError, ValueRangeError or CorruptMessageError before anything is decrypted, and
    ValueRangeError for values that no sum of so many vectors in range has: what another key, or altered bytes with a
    matching digest, decrypt to.
    """
    ciphertext.require(context.public)
    api, packing = seal.api(), context.public.packing
    with seal.scratch() as file:
        loaded = [file.load(api.Ciphertext(), context.public.seal, chunk) for chunk in ciphertext.chunks]
    plain, values = api.Plaintext(), []
    for chunk in loaded:
        try:
            context.decryptor.decrypt(chunk, plain)
        except (RuntimeError, ValueError) as refusal:
            raise CorruptMessageError(f"ciphertext: SEAL refuses to decrypt it: {refusal}") from None
        values.append(packing.decode(plain))
    found: NDArray[Any] = np.concatenate(values)[: ciphertext.length]
    packing.check_sum(found, ciphertext.terms)
    return found


def mean(context: SecretContext, total: Ciphertext, weight: float | None = None) -> NDArray[np.float64]:
    """The decrypted sum over ``weight``: the sum of the clients' weights, or their number when they sent none."""
    divisor = total.terms if weight is None else weight
    if not 0 < divisor < float("inf"):
        raise ValueRangeError(f"weight = {divisor}: the sum of the weights must be positive and finite")
    return decrypt(context, total).astype(np.float64) / divisor
