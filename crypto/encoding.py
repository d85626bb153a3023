"""Floats to words of Z_2^32 or Z_2^64 and back: unbiased stochastic rounding on 2**bits levels over [-clip, clip].

A value x becomes floor((x + clip) * L / (2 clip) + u), with L = 2**bits - 1 and u uniform in [0, 1): its mean is exact
to 2**-24 of a step (Suresh et al., ICML 2017, section 2). A weighted vector carries its weight as one more word, so
that the weighted mean needs nothing beside the masked vector.
"""

import math
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crypto.masks import Words, keystream

BITS_ALLOWED = range(1, 25)
"""A float32 has 24 bits of mantissa; more levels would only spend modulus."""
_BLOCK = 1 << 14
_ZEROS = memoryview(bytes(4 * _BLOCK))
_UNIT = 2.0**-32
_BELOW_TOP = 1 - 2.0**-48
"""Keeps x = clip, with its float64 rounding error, from reaching one level above the top."""


@dataclass(frozen=True)
class Encoding:
    """How a float32 vector of ``dimension`` values in [-clip, clip], times an integer weight, becomes words."""

    dimension: int
    clip: float
    bits: int
    max_weight: int
    modulus_bits: int

    @property
    def levels(self) -> int:
        return (1 << self.bits) - 1

    @property
    def step(self) -> float:
        """The value of one level."""
        return 2 * self.clip / self.levels

    @property
    def usable(self) -> bool:
        """Whether one level is a normal float64, so that neither it nor its inverse is zero or infinite."""
        return self.bits > 0 and sys.float_info.min <= self.step < math.inf

    @property
    def length(self) -> int:
        """Words on the wire: one more than the values when vectors are weighted."""
        return self.dimension + (self.max_weight > 1)

    @property
    def word(self) -> np.dtype[np.unsignedinteger]:
        return np.dtype("<u8" if self.modulus_bits > 32 else "<u4")

    def encode(self, update: NDArray[np.float32], weight: int, rounding: bytes) -> Words:
        """The words of ``weight * update``; ``rounding`` is a 32-byte seed used for this vector only.

        Raises ValueError for a wrong size, NaN, infinity, a value outside the clip, a weight outside 0..max_weight (0
        needs weights that travel), or an encoding without levels.
        """
        self._check(update, weight)
        words = np.empty(self.length, self.word)
        top = self.levels * _BELOW_TOP
        scale, shift = top / (2 * self.clip), top / 2
        stream, uniform, level = keystream(rounding), np.empty(_BLOCK), np.empty(_BLOCK)
        draws = memoryview(bytearray(4 * _BLOCK + 16))  # update_into wants a cipher block of slack
        drawn = np.frombuffer(draws[: 4 * _BLOCK], "<u4")
        for start in range(0, self.dimension, _BLOCK):
            part = update[start : start + _BLOCK]
            count = len(part)
            stream.update_into(_ZEROS[: 4 * count], draws)
            fraction, exact = uniform[:count], level[:count]
            np.multiply(drawn[:count], _UNIT, out=fraction)
            np.multiply(part, scale, out=exact, dtype=np.float64)
            exact += shift
            exact += fraction
            words[start : start + count] = exact
        if self.max_weight > 1:
            words[: self.dimension] *= self.word.type(weight)
            words[-1] = weight
        return words

    def decode(self, total: Words, contributors: int) -> tuple[NDArray[np.float64], int]:
        """The weighted sum of updates and the sum of weights behind ``total``, the modular sum of encoded vectors.

        Raises ValueError when ``total`` is more than ``contributors`` vectors can reach: it is not their sum.
        """
        weight = int(total[-1]) if self.max_weight > 1 else contributors
        levels = total[: self.dimension]
        if weight > contributors * self.max_weight or (len(levels) and int(levels.max()) > weight * self.levels):
            raise ValueError("the opened words exceed what the survivors can have sent")
        return np.multiply(levels, self.step, dtype=np.float64) - self.clip * weight, weight

    def _check(self, update: NDArray[np.float32], weight: int) -> None:
        if not self.usable:
            raise ValueError(f"clip = {self.clip}, bits = {self.bits}: no levels to round to")
        if update.shape != (self.dimension,):
            raise ValueError(f"shape {update.shape}: expected ({self.dimension},)")
        if update.dtype != np.float32:
            raise ValueError(f"dtype {update.dtype}: expected float32")
        if self.dimension:
            low, high = float(update.min()), float(update.max())
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ValueError("NaN or infinity in the update")
            if max(-low, high) > self.clip:
                raise ValueError(f"a value of magnitude {max(-low, high):.6g} is outside the clip {self.clip:.6g}")
        least = 0 if self.max_weight > 1 else 1  # a weight that does not travel cannot be told from 1
        if not least <= weight <= self.max_weight or weight != int(weight):
            raise ValueError(f"weight = {weight}: must be a whole number from {least} to {self.max_weight}")
