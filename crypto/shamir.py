"""Shamir's secret sharing (CACM 1979) of 32-byte secrets, vectorised: one matrix product shares a whole batch.

A secret is 13 limbs of 20 bits; each limb is shared on its own modulo the prime p = 2**20 + 7, so that p * p * 8191
fits the 53 exact bits of a float64 and BLAS does the work. Information-theoretic for any p above the number of
holders. Holder i (0-based) has the x-coordinate i + 1; zero is the secret.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from crypto.entropy import Entropy
from crypto.errors import InfeasibleParameters

PRIME = (1 << 20) + 7
SECRET_BYTES = 32
LIMB_BITS = 20
LIMBS = 13
SHARE_BYTES = 3 * LIMBS
_EXACT_TERMS = (1 << 53) // PRIME**2
_LIMB_WEIGHTS = 1 << np.arange(LIMB_BITS)


def share(secrets: NDArray[np.uint8], holders: int, threshold: int, entropy: Entropy) -> NDArray[np.uint8]:
    """Share each row of ``secrets`` (m, 32): returns (m, holders, 39), any ``threshold`` of which rebuild it.

    Raises InfeasibleParameters unless 1 <= threshold <= holders < p.
    """
    if not 1 <= threshold <= holders < PRIME:
        raise InfeasibleParameters(f"threshold = {threshold} of {holders} holders: must be from 1 to the holders")
    limbs = _to_limbs(secrets)
    m = len(limbs)
    coefficients = np.empty((threshold, m * LIMBS))
    coefficients[0] = limbs.reshape(-1)
    coefficients[1:] = _uniform((threshold - 1) * m * LIMBS, entropy).reshape(threshold - 1, m * LIMBS)
    powers = _powers(holders, threshold)
    values = np.zeros((holders, m * LIMBS), np.int64)
    for start in range(0, threshold, _EXACT_TERMS):
        part = slice(start, start + _EXACT_TERMS)
        values += (powers[:, part] @ coefficients[part]).astype(np.int64) % PRIME
    words = (values % PRIME).astype("<u4").reshape(holders, m, LIMBS).swapaxes(0, 1)
    return np.ascontiguousarray(words).view(np.uint8).reshape(m, holders, LIMBS, 4)[..., :3].reshape(m, holders, -1)


def combine(holders: NDArray[np.int64], shares: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rebuild secrets: row i of the result (m, 32) comes from ``shares[i]`` (t, 39) of the holders ``holders[i]`` (t,).

    Raises ValueError when a share is out of range, a holder repeats, or the shares do not form a secret.
    """
    padded = np.zeros((*shares.shape[:-1], LIMBS, 4), np.uint8)
    padded[..., :3] = shares.reshape(*shares.shape[:-1], LIMBS, 3)
    values = padded.view("<u4")[..., 0].astype(np.int64)
    if (values >= PRIME).any():
        raise ValueError("a share is outside the field")
    rows, which = np.unique(holders, axis=0, return_inverse=True)
    limbs = np.einsum("mt,mtl->ml", _lagrange(rows)[which.reshape(-1)], values) % PRIME
    return _from_limbs(limbs)


def _to_limbs(secrets: NDArray[np.uint8]) -> NDArray[np.int64]:
    bits = np.unpackbits(secrets, axis=1, bitorder="little")
    bits = np.pad(bits, ((0, 0), (0, LIMBS * LIMB_BITS - bits.shape[1])))
    return bits.reshape(len(secrets), LIMBS, LIMB_BITS) @ _LIMB_WEIGHTS


def _from_limbs(limbs: NDArray[np.int64]) -> NDArray[np.uint8]:
    bits = (limbs[..., None] >> np.arange(LIMB_BITS)) & 1
    flat = bits.reshape(len(limbs), -1)
    if (limbs >> LIMB_BITS).any() or flat[:, 8 * SECRET_BYTES :].any():
        raise ValueError("the shares do not rebuild a secret")
    return np.packbits(flat[:, : 8 * SECRET_BYTES].astype(np.uint8), axis=1, bitorder="little")


def _uniform(count: int, entropy: Entropy) -> NDArray[np.uint32]:
    """``count`` field elements, exactly uniform by rejection."""
    accepted = np.frombuffer(entropy(4 * count), "<u4")
    limit = (1 << 32) // PRIME * PRIME
    while (bad := accepted >= limit).any():
        accepted = np.concatenate([accepted[~bad], np.frombuffer(entropy(4 * int(bad.sum())), "<u4")])
    return accepted % np.uint32(PRIME)


@lru_cache(maxsize=16)
def _powers(holders: int, threshold: int) -> NDArray[np.float64]:
    """x**j mod p for x = 1..holders and j < threshold."""
    x = np.arange(1, holders + 1, dtype=np.int64)
    powers = np.ones((holders, threshold), np.int64)
    for j in range(1, threshold):
        powers[:, j] = powers[:, j - 1] * x % PRIME
    result = powers.astype(np.float64)
    result.flags.writeable = False
    return result


def _lagrange(holders: NDArray[np.int64]) -> NDArray[np.int64]:
    """Weights (m, t) that evaluate, at zero, the polynomial through the points of each row of ``holders`` (m, t)."""
    x = np.asarray(holders, np.int64) + 1
    over, under = np.ones_like(x), x.copy()
    for j in range(x.shape[1]):
        point = x[:, j : j + 1]
        over = over * point % PRIME
        difference = (point - x) % PRIME
        difference[:, j] = 1
        under = under * difference % PRIME
    if (under == 0).any():
        raise ValueError("a holder appears twice")
    return over * _inverse(under) % PRIME


def _inverse(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """values**(p - 2) mod p (Fermat)."""
    result, square, exponent = np.ones_like(values), values, PRIME - 2
    while exponent:
        if exponent & 1:
            result = result * square % PRIME
        square, exponent = square * square % PRIME, exponent >> 1
    return result
