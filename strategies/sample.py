"""Some coordinates of an update, the same for every party: enough to tell how far a protocol's mean is from the plain
one, without keeping every client's update."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from numpy.typing import NDArray

SAMPLED = 1 << 14
"""Coordinates that are compared, at most; they lie evenly over the whole vector."""
PLAIN, DECRYPTED = "plain_sample", "decrypted_sample"
"""Records of ``Context.state``: of what a client would send without protection, and of the mean that it decrypted."""
_ROUND, _VALUES, _WEIGHT = "round", "values", "weight"


def sampled(vector: NDArray[np.floating]) -> NDArray[np.float64]:
    """At most SAMPLED coordinates of a flat update (d,)."""
    return np.asarray(vector[:: -(-len(vector) // SAMPLED)], np.float64)


def keep(context: Context, name: str, round: int, vector: NDArray[np.floating], weight: float = 1.0) -> None:
    """Leave a sample of ``vector`` in a client's state, for the experimenter."""
    context.state[name] = ArrayRecord(
        {_ROUND: Array(np.array(round)), _VALUES: Array(sampled(vector)), _WEIGHT: Array(np.array(weight))}
    )


def kept(record: ArrayRecord, round: int) -> tuple[NDArray[np.float64], float] | None:
    """The sample of ``round`` and its weight; None where the record is another round's."""
    if int(record[_ROUND].numpy()) != round:
        return None
    return record[_VALUES].numpy(), float(record[_WEIGHT].numpy())
