"""CKKS packing: real values in fixed point, as N/2 complex slots (Cheon, Kim, Kim, Song 2017)."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crypto.he import seal
from crypto.he.errors import ValueRangeError
from crypto.he.presets import CKKS


class CKKSPacking:
    """Flat float vectors whose sum over ``cohort`` clients stays within ``parameters.largest_sum``."""

    def __init__(self, parameters: CKKS, context: Any, cohort: int) -> None:
        self.limit = parameters.largest_sum / cohort
        """The largest magnitude that one client may encrypt."""
        self._pairs = parameters.values_per_slot == 2
        self._scale = 2.0**parameters.scale_bits
        self._error = parameters.sum_error
        self._encoder = seal.api().CKKSEncoder(context)

    def check(self, values: ArrayLike) -> NDArray[np.float64]:
        """``values`` as float64 (d,); raises ValueRangeError for a value that is not finite or above ``limit``."""
        return checked(values, self.limit)

    def check_sum(self, values: NDArray[np.float64], terms: int) -> None:
        """Raises ValueRangeError unless ``values`` can be a sum of ``terms`` checked vectors."""
        # A billionth for what the encoder's 64-bit Fourier transform rounds off large values.
        largest, most = float(np.abs(values).max()), self.limit * terms * (1 + 1e-9) + self._error(terms)
        if not largest <= most:
            raise ValueRangeError(
                f"decrypted magnitude {largest:g}: above {most:g}, the most that {terms} vectors sum to; the "
                "ciphertext is under another key, was altered, or sums more than it says"
            )

    def encode(self, chunk: NDArray[np.float64], plain: Any) -> None:
        """Fill ``plain`` from at most ``parameters.capacity`` values."""
        if self._pairs:
            whole = np.append(chunk, 0.0) if len(chunk) % 2 else chunk
            self._encoder.encode(whole.view(np.complex128).tolist(), self._scale, plain)
        else:
            self._encoder.encode(chunk.tolist(), self._scale, plain)

    def decode(self, plain: Any) -> NDArray[np.float64]:
        """All values of ``plain``."""
        if self._pairs:
            return np.array(self._encoder.decode_complex(plain), dtype=np.complex128).view(np.float64)
        return np.array(self._encoder.decode_double(plain), dtype=np.float64)


def checked(values: ArrayLike, limit: float) -> NDArray[np.float64]:
    """``values`` as float64 (d,); raises ValueRangeError for another shape, or a magnitude not within ``limit``."""
    vector = np.asarray(values, dtype=np.float64, order="C")
    if vector.ndim != 1 or not vector.size:
        raise ValueRangeError(f"values of shape {vector.shape}: must be a flat vector that is not empty")
    largest = float(max(vector.max(), -vector.min()))  # both are NaN if any value is
    if not largest <= limit:
        raise ValueRangeError(
            f"largest magnitude {largest:g}: above {limit:g}, where a sum over the cohort would decrypt to garbage; "
            "clip the update or use a smaller cohort"
        )
    return vector
