"""Masks: AES-256-CTR keystreams read as little-endian words and added in place.

The stream starts at counter 0 under a key used for one mask only (SP 800-38A section 6.5). Words are as wide as
the vector's (32 or 64 bits), so addition wraps modulo 2**32 or 2**64 without a reduction.
"""

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger]
BLOCK_BYTES = 1 << 17
"""Bytes expanded at a time: block, keystream and zeros stay in the second-level cache together."""
_ZEROS = memoryview(bytes(BLOCK_BYTES))
_FROM_ZERO = modes.CTR(bytes(16))


def keystream(key: bytes) -> CipherContext:
    """An AES-256-CTR stream from counter 0; fresh per mask."""
    return Cipher(algorithms.AES(key), _FROM_ZERO).encryptor()


def add_masks(
    words: Words, plus: Iterable[bytes], minus: Iterable[bytes] = (), modulus_bits: int | None = None
) -> None:
    """Add to ``words`` the mask of every key in ``plus`` and subtract that of every key in ``minus``, in place.

    Every stream advances block by block, so that the block of ``words`` in work never leaves the cache.
    ``modulus_bits`` narrower than a word bounds the masks, not the sum: only a client that lets the server choose
    the mask range passes it (see `crypto.secagg.profiles`).
    """
    streams = [(keystream(key), np.add) for key in plus] + [(keystream(key), np.subtract) for key in minus]
    bytes_per_word = words.dtype.itemsize
    low = None if modulus_bits in (None, 8 * bytes_per_word) else words.dtype.type((1 << modulus_bits) - 1)
    buffer = memoryview(bytearray(BLOCK_BYTES + 16))  # update_into wants a cipher block of slack
    mask = np.frombuffer(buffer[:BLOCK_BYTES], words.dtype)
    step = BLOCK_BYTES // bytes_per_word
    for start in range(0, len(words), step):
        block = words[start : start + step]
        zeros = _ZEROS[: len(block) * bytes_per_word]
        fresh = mask[: len(block)]
        for stream, combine in streams:
            stream.update_into(zeros, buffer)
            if low is not None:
                np.bitwise_and(fresh, low, out=fresh)
            combine(block, fresh, out=block)
