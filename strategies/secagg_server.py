"""Secure aggregation's server half as a Flower strategy: a round is the protocol's stages, each one exchange."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray
from torch import Tensor

from crypto.entropy import Entropy
from crypto.errors import MalformedMessage, SecAggError, TooFewClients
from crypto.secagg import Server, Terms
from crypto.secagg.lying import Confided
from strategies.collusion import confided, without
from strategies.federated import DROPPED_OUT, FederatedMean, RoundRecord
from strategies.he_layout import Layout
from strategies.ideal import SUM
from strategies.opened import Opened
from strategies.sample import sampled
from strategies.secagg_client import LEAVES, bound_hash
from strategies.secure_aggregation import SecureAggregation
from strategies.wire import digest

Summed = tuple[NDArray[np.float64], int, set[int]]
"""The weighted sum as one vector, the sum of the weights, and who is in it, by place in the cohort."""


def enrol(grid: Grid, nodes: Mapping[int, int]) -> None:
    """Collect every client's public signing key and give all of them to each: the part of a key directory.

    ``grid`` is the directory's own channel to the clients, not the server's.
    """
    asked = [Message(RecordDict(), node, "query.sa_enrol", group_id="0") for node in nodes.values()]
    clients = {node: client for client, node in nodes.items()}
    directory = {
        str(clients[reply.metadata.src_node_id]): reply.content.config_records["key"]["public"]
        for reply in grid.send_and_receive(asked)
    }
    known = [
        Message(RecordDict({"directory": ConfigRecord(directory)}), node, "query.sa_directory", group_id="0")
        for node in nodes.values()
    ]
    grid.send_and_receive(known)


class SecureFederatedMean(FederatedMean):
    """``FederatedMean`` that learns the cohort's sum alone. ``opened`` collects the sums, round by round.

    Where clients collude it collects, beside the sum, what is left of it without theirs. ``parameters`` names the
    entries of the model that updates are about, ``buffers`` the statistics that travel hidden with them. ``ring_of``
    draws a round's masking graph: with drop-outs it decides whether a sum opens.
    """

    def __init__(
        self,
        *,
        parameters: Sequence[str],
        buffers: Sequence[str] = (),
        ring_of: Callable[[int], Entropy] = lambda round: os.urandom,
        **federated: Any,
    ) -> None:
        super().__init__(**federated)
        self.ring_of = ring_of
        self.layout = Layout(tuple(parameters), tuple(buffers))
        self.defence = next(d for d in self.stack.defences if isinstance(d, SecureAggregation))
        self._session = os.urandom(16)

    def train_round(
        self, grid: Grid, round: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The protocol from terms to sum; a round that ends without one leaves the model as it was, and says why."""
        record = RoundRecord(round, self.whom(round))
        self.rounds.append(record)
        exchange = Exchange(self, grid, record, arrays)
        state = dict(exchange.state)
        dimension = sum(state[name].numel() for name in (*self.layout.parameters, *self.layout.buffers))
        terms = self.defence.terms(self._session, round, len(record.cohort), dimension)
        try:
            summed, weight, survivors = self.open_sum(exchange, terms)
        except SecAggError as error:
            record.aborted = str(error.numbered(record.cohort))
            return None, None
        record.answered = [record.cohort[index] for index in sorted(survivors)]
        self.means[round] = sampled(summed[: self.layout.size(state)] / weight)
        self.opened.append(self.reading(exchange, summed, weight, record.answered))
        with self.clock.timed("aggregate"):
            self.layout.move(state, self.step_size, summed / weight)
        return ArrayRecord(state), MetricRecord({"weight": weight})

    def least(self, asked: int) -> int:
        """The threshold: with fewer no sum opens."""
        return self.defence.terms(self._session, 1, asked, 1).threshold

    def whom(self, round: int) -> list[int]:
        """The clients to ask, ascending."""
        return sorted(self.cohort_of(round))

    def open_sum(self, exchange: "Exchange", terms: Terms) -> Summed:
        """Play the server's part in one round; raises SecAggError where it ends without a sum."""
        if self.defence.mode == "ideal":
            summed, weight, survivors = exchange.ideal(terms)
        else:
            ring = self.ring_of(exchange.record.round)
            server = Server(terms, self.defence.safeguards, exchange.model_hash, ring=ring)
            exchange.carry(server)
            with self.clock.timed("unmask"):
                summed, weight = server.result()
                survivors = server.survivors
        told = {index: theirs for index, theirs in exchange.confided.items() if index in survivors}
        if told and (honest := sorted(survivors.difference(told))):
            left, of_them = without(summed, weight, told, terms.encoding)
            clients = [exchange.record.cohort[index] for index in honest]
            self.opened.append(self.reading(exchange, left, of_them, clients))
        return summed, weight, survivors

    def reading(self, exchange: "Exchange", total: NDArray[np.float64], weight: int, clients: Sequence[int]) -> Opened:
        """A weighted ``total`` (d,) over ``clients`` as this server reads it: of one client, its own update."""
        alone = len(clients) == 1
        return Opened(
            exchange.record.round,
            self.kind,
            self.layout.update(total / weight if alone else total, exchange.state),
            len(clients),
            clients[0] if alone else None,
            clients=tuple(clients),
            weight=weight if self.defence.max_weight > 1 and not alone else None,
            buffers=self.layout.left(total / weight, exchange.state),
        )


class Exchange:
    """One round's messages between a SecureFederatedMean and its clients."""

    def __init__(self, strategy: SecureFederatedMean, grid: Grid, record: RoundRecord, arrays: ArrayRecord) -> None:
        self.strategy, self.grid, self.record, self.arrays = strategy, grid, record, arrays
        self.state: dict[str, Tensor] = dict(arrays.to_torch_state_dict())
        self.confided: dict[int, Confided] = {}
        """What colluding clients told this server, by place in the cohort."""

    @property
    def model_hash(self) -> bytes:
        """What the round's keys are bound to, as this server announces it."""
        return bound_hash(digest(self.arrays).encode(), self.record.cohort)

    def carry(self, server: Server) -> None:
        """Carry the messages of every stage; raises SecAggError where the round cannot go on."""
        clock = self.strategy.clock
        with clock.timed("advertise"):
            outbox = server.start()
        while outbox:
            stage = server.stage
            announced = {"cohort": self.record.cohort, "model": digest(self.arrays)}
            extra: dict[str, Any] = announced if stage == "advertise" else {}
            for index, reply in self._send(f"sa_{stage}", outbox, extra, with_model=stage == "masked"):
                self._listen(index, reply, server.terms)
                try:
                    with clock.timed(stage):
                        server.receive(index, _answer(reply, index, stage))
                except SecAggError as error:
                    self.record.failed[self.record.cohort[index]] = str(error.numbered(self.record.cohort))
            with clock.timed(stage):
                outbox = server.advance()

    def ideal(self, terms: Terms) -> Summed:
        """Ask once; the trusted party between server and clients hands over nothing but the sum."""
        offers = {index: replace(terms, client=index).encode() for index in range(terms.clients)}
        asked = self._send("sa_ideal", offers, {}, with_model=True, with_index=True)
        survivors = {index for index, _ in asked}
        for index, reply in asked:
            self._listen(index, reply, terms)
            if LEAVES in reply.content:
                self.record.dropped.append(self.record.cohort[index])
        if not survivors:
            raise TooFewClients(None, "masked", "no client answered")
        opened = next(reply.content[SUM] for _, reply in asked if SUM in reply.content)
        if "reason" in opened:
            raise TooFewClients(None, cast(str, opened["stage"]), cast(str, opened["reason"]))
        words = np.frombuffer(cast(bytes, opened["words"]), terms.encoding.word)
        with self.strategy.clock.timed("aggregate"):
            total, weight = terms.encoding.decode(words, len(survivors))
        return total, weight, survivors

    def _listen(self, index: int, reply: Message, terms: Terms) -> None:
        if told := confided(reply.content, terms.encoding):
            self.confided[index] = told

    def _send(
        self,
        action: str,
        outbox: Mapping[int, bytes],
        extra: Mapping[str, Any],
        *,
        with_model: bool,
        with_index: bool = False,
    ) -> list[tuple[int, Message]]:
        """One exchange; the good answers by index. Errors are noted, and their senders count as gone."""
        strategy, record = self.strategy, self.record
        config: dict[str, Any] = {"round": record.round, "update_kind": strategy.kind}
        messages = []
        for index, spoken in outbox.items():
            protocol = {"message": spoken, **extra, **({"index": index} if with_index else {})}
            content: dict[str, Any] = {"config": ConfigRecord(config), "protocol": ConfigRecord(protocol)}
            if with_model:
                content["arrays"] = self.arrays
            node = strategy.nodes[record.cohort[index]]
            messages.append(Message(RecordDict(content), node, f"train.{action}", group_id=str(record.round)))
        place = {client: index for index, client in enumerate(record.cohort)}
        good = []
        for reply in self.grid.send_and_receive(messages):
            client = strategy.partitions[reply.metadata.src_node_id]
            if not reply.has_error():
                good.append((place[client], reply))
            elif reply.error.code == DROPPED_OUT:
                record.dropped.append(client)
            else:
                record.failed[client] = reply.error.reason or f"error {reply.error.code}"
        return sorted(good, key=lambda answer: answer[0])


def _answer(reply: Message, index: int, stage: str) -> bytes:
    """The protocol's message in an answer; raises MalformedMessage where there is none."""
    try:
        if "hidden" in reply.content.array_records:
            return reply.content.array_records["hidden"]["vector"].data
        return cast(bytes, reply.content.config_records["protocol"]["message"])
    except KeyError as missing:
        raise MalformedMessage(index, stage, f"the answer holds no {missing}") from None
