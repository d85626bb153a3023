"""BFV packing: integers modulo t, N to a plaintext, summed exactly (Fan, Vercauteren 2012)."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crypto.he import seal
from crypto.he.errors import ValueRangeError
from crypto.he.presets import BFV


class BFVPacking:
    """Flat vectors of integers in [0, limit] whose sum over ``cohort`` clients does not wrap modulo t."""

    def __init__(self, parameters: BFV, context: Any, cohort: int) -> None:
        self.limit = parameters.largest_sum // cohort
        """The largest integer that one client may encrypt."""
        self._encoder = seal.api().BatchEncoder(context)

    def check(self, values: ArrayLike) -> NDArray[np.int64]:
        """``values`` as int64 (d,); raises ValueRangeError for other than integers, or outside [0, limit]."""
        vector = np.asarray(values)
        if vector.ndim != 1 or not vector.size or not np.issubdtype(vector.dtype, np.integer):
            raise ValueRangeError(
                f"values of shape {vector.shape} and type {vector.dtype}: must be a flat vector of integers; quantise"
            )
        low, high = int(vector.min()), int(vector.max())
        if low < 0 or high > self.limit:
            raise ValueRangeError(
                f"values in [{low}, {high}]: outside [0, {self.limit}], so a sum over the cohort could wrap; "
                "quantise to fewer bits, lower the weights or use a smaller cohort"
            )
        return vector.astype(np.int64)

    def check_sum(self, values: NDArray[np.int64], terms: int) -> None:
        """Raises ValueRangeError unless ``values`` can be a sum of ``terms`` checked vectors."""
        largest, most = int(values.max()), self.limit * terms
        if largest > most:
            raise ValueRangeError(
                f"decrypted integer {largest}: above {most}, the most that {terms} vectors sum to; the ciphertext is "
                "under another key, was altered, or sums more than it says"
            )

    def encode(self, chunk: NDArray[Any], plain: Any) -> None:
        """Fill ``plain`` from at most N values."""
        self._encoder.encode(chunk.tolist(), plain)

    def decode(self, plain: Any) -> NDArray[np.int64]:
        """The N values of ``plain``."""
        return np.array(self._encoder.decode_uint64(plain), dtype=np.int64)
