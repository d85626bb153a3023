"""A server that lies in the secure-aggregation protocol, over the same messages and to the same clients."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from flwr.app import Message

from crypto.errors import SecAggError
from crypto.secagg import Terms
from crypto.secagg.lies import LIES
from crypto.secagg.lying import Confided, Lie
from strategies.base import Update
from strategies.federated import RoundRecord
from strategies.opened import Opened
from strategies.secagg_client import HANDED
from strategies.secagg_server import Exchange, SecureFederatedMean, Summed
from strategies.secure_aggregation import unflat

UNTOLD: Mapping[str, str] = {
    "mask_reuse": "it gives the difference of two rounds' updates, which no attack here reads; run it by "
    "crypto.secagg.lies.attempt",
    "inconsistent_models": "it sends crafted models, one a client; run it by crypto.secagg.lies.attempt",
    "sybil_ring": "its colluders are chosen by their seats; tell 'sybils' with adversary.colluders",
}
"""Lies that cannot be told over Flower's messages yet, and why."""


class LyingMean(SecureFederatedMean):
    """A ``SecureFederatedMean`` that tells ``lie`` in every round in which it asks the client ``victim``.

    Each round's record says what came of it. Most lies leave no sum: the model then stays as it was.
    """

    def __init__(self, *, lie: str, victim: int, **honest: Any) -> None:
        super().__init__(**honest)
        self.lie, self.victim = LIES[lie], victim

    def open_sum(self, exchange: Exchange, terms: Terms, like: Update) -> Summed:
        """Lie; keep what was learned as opened, and go on with the sum where the lie leaves one."""
        record = exchange.record
        if self.victim not in record.cohort:
            return super().open_sum(exchange, terms, like)
        place = record.cohort.index(self.victim)
        server = self.lie(terms, self.defence.safeguards, place, model_hash=exchange.model_hash)
        server.confided = handed = {}

        def listen(index: int, reply: Message) -> None:
            if HANDED in reply.content.config_records:
                words = cast(bytes, reply.content.config_records[HANDED]["words"])
                handed[index] = Confided(np.frombuffer(words, terms.encoding.word), {}, {})

        try:
            exchange.carry(server, listen)
            self.opened.append(self._looted(server, record, like))
        except SecAggError as error:
            record.lie = stopped_by(record) or f"came to nothing: {error}"
            raise
        return *server.result(), server.survivors

    def _looted(self, server: Lie, record: RoundRecord, like: Update) -> Opened:
        loot, clients = server.loot(), tuple(record.cohort[place] for place in server.exposed())
        record.answered = list(clients)  # released to this server, whether or not a sum opens
        if len(clients) > 1:
            record.lie = f"the sum over clients {', '.join(map(str, clients))} was read"
            return Opened(record.round, self.kind, unflat(loot, like), len(clients), clients=clients)
        (client,) = clients
        record.lie = f"client {client}'s update was read"
        return Opened(record.round, self.kind, unflat(loot / server.weight, like), 1, client)

    def evidence(self) -> dict[str, Any]:
        """The lie and what came of it, round by round."""
        return told(self.lie, self.victim, self.rounds)


def told(lie: type[Lie], victim: int, rounds: Sequence[RoundRecord]) -> dict[str, Any]:
    """A lie and what came of it, for the evidence."""
    return {
        "lie": lie.name,
        "claim": lie.claim,
        "victim": victim,
        "some_profile_stops_it": lie.refused is not None,
        "rounds": {str(record.round): record.lie for record in rounds if record.lie},
    }


def stopped_by(record: RoundRecord) -> str | None:
    """The typed errors with which clients refused, and the first one in full; None where nobody refused."""
    if not record.failed:
        return None
    by_type: dict[str, list[str]] = defaultdict(list)
    for client, reason in record.failed.items():
        by_type[reason.split(" at stage")[0]].append(str(client))
    named = "; ".join(f"{name} (clients {', '.join(clients)})" for name, clients in by_type.items())
    return f"stopped by {named}: {next(iter(record.failed.values()))}"
