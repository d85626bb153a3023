"""What a colluding client hands the server beside its answer: all that it knows of the round."""

from collections.abc import Mapping
from typing import cast

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from numpy.typing import NDArray

from crypto.encoding import Encoding
from crypto.secagg.lying import Confided

HANDED = "handed"
"""The record of an answer that a colluding client hands over."""


def handed(told: Confided) -> ConfigRecord:
    """The record that tells it."""
    return ConfigRecord(
        {
            "words": told.words.tobytes(),
            "peers": list(told.mask_keys),
            "mask_keys": list(told.mask_keys.values()),
            "owners": list(told.seed_shares),
            "seed_shares": list(told.seed_shares.values()),
        }
    )


def confided(content: RecordDict, encoding: Encoding) -> Confided | None:
    """What an answer's sender tells the server; None for an honest client's."""
    record = content.config_records.get(HANDED)
    if record is None:
        return None
    return Confided(
        np.frombuffer(cast(bytes, record["words"]), encoding.word),
        dict(zip(cast(list[int], record["peers"]), cast(list[bytes], record["mask_keys"]), strict=True)),
        dict(zip(cast(list[int], record["owners"]), cast(list[bytes], record["seed_shares"]), strict=True)),
    )


def without(
    total: NDArray[np.float64], weight: int, told: Mapping[int, Confided], encoding: Encoding
) -> tuple[NDArray[np.float64], int]:
    """A weighted sum and its weight, less the vectors of those who told theirs."""
    for colluder in told.values():
        theirs, one = encoding.decode(colluder.words, 1)
        total, weight = total - theirs, weight - one
    return total, weight
