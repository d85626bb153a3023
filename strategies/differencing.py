"""Subtracting sums of rounds whose cohorts differ (So et al., AAAI 2023, Securing Secure Aggregation).

Each round's sum is right and all a protocol opens; two of them over cohorts that differ by one client differ by that
client's update. Exactly so where nobody else's update changed between the rounds: the model was the same, and each
client used all of its examples. Where the model moves or clients draw new batches, the change is noise on the result.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid

from crypto.secagg.residue import difference_rounds
from strategies.lying_server import told
from strategies.opened import Opened
from strategies.secagg_server import SecureFederatedMean
from strategies.secure_aggregation import flat, unflat

DIFFERENCING = "differencing"
"""The lie of a server that never moves the model, and leaves its victim out of every second round."""
CLAIM = "Send the same model again, to everybody but the victim: the two rounds' sums differ by the victim's update."


def participation(sums: Sequence[Sequence[int]]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Whose updates each sum adds up, as rows over the clients from 0 to the last one named."""
    took_part = np.zeros((len(sums), 1 + max((max(clients) for clients in sums), default=-1)), np.bool_)
    for row, clients in zip(took_part, sums, strict=True):
        row[list(clients)] = True
    return took_part


def alone(sums: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The clients whose updates sums over these cohorts give away, as far as updates do not change between them."""
    found = difference_rounds(np.zeros((len(sums), 0)), participation(sums))
    return tuple(np.flatnonzero(found.isolated).tolist())


def differenced(opened: Sequence[Opened]) -> list[Opened]:
    """Every single client's update that the sums determine, by least squares, in each round that it took part in."""
    sums = [one for one in opened if one.client is None and one.clients]
    if len(sums) < 2:
        return []
    matrix = participation([one.clients for one in sums])
    vectors = np.stack([flat(dict(one.arrays)).astype(np.float64) for one in sums])
    weights = np.array([[one.weight or one.contributors] for one in sums], np.float64)
    found = difference_rounds(np.concatenate([vectors, weights], axis=1), matrix)
    results = []
    for client in np.flatnonzero(found.isolated).tolist():
        weight = found.updates[client, -1]
        if weight <= 0:  # clients changed their weights by more than this one's
            continue
        rounds = {one.round: one for one in sums if client in one.clients}
        for round, one in rounds.items():
            update = unflat(found.updates[client, :-1] / weight, dict(one.arrays))
            results.append(Opened(round, one.kind, update, 1, client, base=one.base))
    return results


class DifferencingMean(SecureFederatedMean):
    """A server that plays every round by the rules, and twice: with its ``victim``, and then without.

    It asks the victim along with the first round's cohort, and says that the model has not moved; a client has no
    means to know better.
    """

    def __init__(self, *, victim: int, **honest: Any) -> None:
        super().__init__(**honest)
        self.victim = victim
        self._with_victim: list[int] = []

    def whom(self, round: int) -> list[int]:
        """In odd rounds those who are due and the victim, in even ones the same without it."""
        if round % 2:
            self._with_victim = sorted({*super().whom(round), self.victim})
            return self._with_victim
        return [client for client in self._with_victim if client != self.victim]

    def train_round(
        self, grid: Grid, round: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """One honest round, after which the model is what it was."""
        moved, metrics = super().train_round(grid, round, arrays)
        if round % 2 == 0:
            record = self.rounds[-1]
            pair = [one for one in self.opened if one.round in (round - 1, round)]
            found = [one for one in differenced(pair) if one.client == self.victim]
            self.opened += found
            if found:
                record.answered = [self.victim]  # released to this server
                record.lie = f"client {self.victim}'s update was read"
            else:
                record.lie = f"came to nothing: the two sums do not differ by client {self.victim} alone"
        return (arrays if moved else None), metrics

    def evidence(self) -> dict[str, Any]:
        """The lie and what came of it, round by round."""
        return told(DIFFERENCING, CLAIM, self.victim, self.rounds, stoppable=False)
