"""A server that lies in the secure-aggregation protocol, over the same messages and to the same clients."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import ArrayRecord

from crypto.errors import SecAggError
from crypto.secagg import Terms
from crypto.secagg.lies import LIES
from crypto.secagg.lying import Lie
from strategies.federated import RoundRecord
from strategies.opened import Opened
from strategies.refused import own_errors, stopped_by
from strategies.secagg_server import Exchange, SecureFederatedMean, Summed

UNTOLD: Mapping[str, str] = {
    "inconsistent_models": "its crafted models are an adversary of their own; set kind = 'malicious_model' and plant "
    "'inconsistency'",
}
"""Lies that a server of this kind does not tell, and what does."""

Mute = Callable[[ArrayRecord], tuple[ArrayRecord, Sequence[str]]]
"""A model whose update is zero in the parameters named, made of the one that is due; ValueError where none is."""


@dataclass(frozen=True)
class _Heard:
    """The first of two rounds that a lie takes."""

    server: Lie
    record: RoundRecord


class LyingMean(SecureFederatedMean):
    """A ``SecureFederatedMean`` that tells ``lie`` in every round in which it asks the client ``victim``.

    Each round's record says what came of it. Most lies leave no sum: the model then stays as it was. ``colluders``
    are the clients that help, ``mute`` makes the model that a lie needs which silences clients.
    """

    def __init__(self, *, lie: str, victim: int, colluders: Collection[int], mute: Mute, **honest: Any) -> None:
        super().__init__(**honest)
        self.lie, self.victim, self.colluders, self._mute = LIES[lie], victim, frozenset(colluders), mute
        self._heard: _Heard | None = None

    def whom(self, round: int) -> list[int]:
        """A round that is told again asks those of the first time."""
        return self._heard.record.cohort if self._heard else super().whom(round)

    def open_sum(self, exchange: Exchange, terms: Terms) -> Summed:
        """Lie; keep what was learned as opened, and go on with the sum where the lie leaves one."""
        record = exchange.record
        if self.victim not in record.cohort:
            return super().open_sum(exchange, terms)
        heard, self._heard = self._heard, None
        try:
            muted, silent = self._mute(exchange.arrays) if self.lie.muted_model else (exchange.arrays, ())
        except ValueError as problem:
            record.lie = f"came to nothing: {problem}"
            return super().open_sum(exchange, terms)
        server = self._server(exchange, heard.server.terms if heard else terms, heard)
        exchange.confided = server.confided
        if heard:
            exchange.arrays = muted
        try:
            exchange.carry(server)
            if self.lie.rounds > 1 and not heard:
                self._heard = _Heard(server, record)
                record.lie = f"client {self.victim}'s masked vector was heard, to be told apart in the next round"
            else:
                self.opened.append(self._looted(server, exchange, heard, silent))
        except SecAggError as error:
            record.lie = self._came_of_it(record, error)
            raise
        return *server.result(), server.survivors

    def _server(self, exchange: Exchange, terms: Terms, heard: _Heard | None) -> Lie:
        cohort = exchange.record.cohort
        server = self.lie(
            terms,
            self.defence.safeguards,
            cohort.index(self.victim),
            earlier=heard.server if heard else None,
            model_hash=exchange.model_hash,
            ring=self.ring_of(exchange.record.round),
        )
        server.allies = [place for place, client in enumerate(cohort) if client in self.colluders]
        return server

    def _looted(self, server: Lie, exchange: Exchange, heard: _Heard | None, silent: Sequence[str]) -> Opened:
        """What was learned: of the round heard first where there are two, in the parameters that were ``silent``."""
        loot, record = server.loot(), exchange.record
        clients = [record.cohort[place] for place in server.exposed()]
        record.answered = clients  # released to this server, whether or not a sum opens
        record.lie = f"client {clients[0]}'s update was read"
        if len(clients) > 1:
            record.lie = f"the sum over clients {', '.join(map(str, clients))} was read"
        read = self.reading(exchange, loot, server.weight, clients)
        if not heard:
            return read
        arrays = {name: read.arrays[name] for name in silent if name in read.arrays}
        return replace(read, round=heard.record.round, arrays=arrays, buffers={})

    def _came_of_it(self, record: RoundRecord, error: SecAggError) -> str:
        """Which clients refused the lie, else why it came to nothing."""
        needed: dict[str, Any] = {"least": self.least(len(record.cohort)), "victim": self.victim}
        if stopped := stopped_by(record, _whom, **needed):
            return stopped
        return f"came to nothing: {own_errors(record, _whom, **needed) or error.numbered(record.cohort)}"

    def evidence(self) -> dict[str, Any]:
        """The lie and what came of it, round by round."""
        return told(self.lie.name, self.lie.claim, self.victim, self.rounds, stoppable=self.lie.refused is not None)


def told(lie: str, claim: str, victim: int, rounds: Sequence[RoundRecord], *, stoppable: bool) -> dict[str, Any]:
    """A lie and what came of it, for the evidence."""
    return {
        "lie": lie,
        "claim": claim,
        "victim": victim,
        "some_profile_stops_it": stoppable,
        "rounds": {str(record.round): record.lie for record in rounds if record.lie},
    }


def _whom(clients: Sequence[int]) -> str:
    return f"clients {', '.join(map(str, clients))}"
