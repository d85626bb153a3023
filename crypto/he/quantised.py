"""Exact sums of quantised updates: the encoding of secure aggregation, sized so that BFV sums do not wrap.

Unbiased stochastic rounding to ``bits`` over [-clip, clip]; the encrypted sum equals the sum of the rounded updates,
so the error of a mean is the rounding's alone, below one step for every client.
"""

import numpy as np
from numpy.typing import NDArray

from crypto.encoding import BITS_ALLOWED, Encoding
from crypto.he.contexts import PublicContext
from crypto.he.errors import ParameterError, ValueRangeError

_MODULUS_BITS = 32  # of the words that are encrypted; the sum's own bound is the plain modulus, far below


def encoding_for(
    context: PublicContext, dimension: int, clip: float, *, bits: int | None = None, max_weight: int = 1
) -> Encoding:
    """The encoding of ``dimension`` values for this BFV context; ``bits`` None takes as many as the range allows.

    Raises ParameterError when ``2**bits - 1`` times ``max_weight`` exceeds what one client of the cohort may send.
    """
    limit = int(context.packing.limit)
    if context.parameters.scheme != "bfv":
        raise ParameterError(f"{context.parameters}: takes real values; quantised sums are for bfv")
    if max_weight < 1 or not 0 < clip < float("inf"):
        raise ParameterError(f"max_weight = {max_weight}, clip = {clip}: must be positive and finite")
    most = min((limit // max_weight + 1).bit_length() - 1, BITS_ALLOWED[-1])
    chosen = most if bits is None else bits
    if not BITS_ALLOWED[0] <= chosen <= most:
        raise ParameterError(
            f"bits = {chosen}: must be from {BITS_ALLOWED[0]} to {most} for weights up to {max_weight} over a cohort "
            f"of {context.cohort}; lower the weights or the cohort"
        )
    return Encoding(dimension, clip, chosen, max_weight, _MODULUS_BITS)


def quantise(encoding: Encoding, update: NDArray[np.float32], weight: int, rounding: bytes) -> NDArray[np.int64]:
    """The integers to encrypt for ``weight * update``; ``rounding`` is a 32-byte seed used for this vector alone.

    Raises ValueRangeError for a value outside the clip, not finite, or a weight outside the encoding's.
    """
    try:
        return encoding.encode(update, weight, rounding).astype(np.int64)
    except ValueError as refusal:
        raise ValueRangeError(f"update: {refusal}") from None


def dequantised_mean(encoding: Encoding, total: NDArray[np.int64], terms: int) -> NDArray[np.float64]:
    """The weighted mean behind the decrypted sum ``total`` of ``terms`` updates; raises ValueRangeError for no such."""
    try:
        weighted, weight = encoding.decode(total.astype(encoding.word), terms)
    except ValueError as refusal:
        raise ValueRangeError(f"sum: {refusal}") from None
    if not weight:
        raise ValueRangeError("sum: all weights are 0, so there is no mean")
    return weighted / weight
