"""What sums alone give away, whatever the protocol: differences between rounds, and coordinates of one client."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Difference:
    """``updates`` (n, d): the least-squares estimate per client; ``isolated`` (n,): whether the sums determine it."""

    updates: NDArray[np.float64]
    isolated: NDArray[np.bool_]


def difference_rounds(sums: NDArray[np.float64], took_part: NDArray[np.bool_]) -> Difference:
    """Solve sums = took_part @ updates for updates that change little between rounds (So et al., AAAI 2023).

    ``sums`` (rounds, d) in data units; ``took_part`` (rounds, n). A client is isolated when its unit vector lies in the
    row space of the participation matrix.
    """
    matrix = took_part.astype(np.float64)
    inverse = np.linalg.pinv(matrix)
    isolated = np.isclose(np.diag(inverse @ matrix), 1.0, atol=1e-9)
    return Difference(inverse @ sums, isolated)


def cohort_per_coordinate(touched: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of the clients in ``touched`` (n, d) put something at each coordinate: 1 hides nothing."""
    return touched.sum(axis=0, dtype=np.int64)
