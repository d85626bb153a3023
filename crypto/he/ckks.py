"""CKKS packing: real values in fixed point, N/2 to a plaintext (Cheon, Kim, Kim, Song 2017)."""

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
        self._scale = 2.0**parameters.scale_bits
        self._encoder = seal.api().CKKSEncoder(context)

    def check(self, values: ArrayLike) -> NDArray[np.float64]:
        """``values`` as float64 (d,); raises ValueRangeError for a value that is not finite or above ``limit``."""
        return checked(values, self.limit)

    def encode(self, chunk: NDArray[Any], plain: Any) -> None:
        """Fill ``plain`` from at most N/2 values."""
        self._encoder.encode(chunk.tolist(), self._scale, plain)

    def decode(self, plain: Any) -> NDArray[np.float64]:
        """The N/2 values of ``plain``."""
        return np.array(self._encoder.decode_double(plain), dtype=np.float64)


def checked(values: ArrayLike, limit: float) -> NDArray[np.float64]:
    """``values`` as float64 (d,); raises ValueRangeError for another shape, or a magnitude not within ``limit``."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not vector.size:
        raise ValueRangeError(f"values of shape {vector.shape}: must be a flat vector that is not empty")
    largest = float(np.abs(vector).max())
    if not largest <= limit:
        raise ValueRangeError(
            f"largest magnitude {largest:g}: above {limit:g}, where a sum over the cohort would decrypt to garbage; "
            "clip the update or use a smaller cohort"
        )
    return vector
