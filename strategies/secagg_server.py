"""Secure aggregation's server half as a Flower strategy: a round is the protocol's stages, each one exchange."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from crypto.errors import SecAggError, TooFewClients
from crypto.secagg import Server, Terms
from strategies.base import Update
from strategies.federated import DROPPED_OUT, FederatedMean, RoundRecord
from strategies.ideal import SUM
from strategies.opened import Opened
from strategies.sample import sampled
from strategies.secagg_client import bound_hash
from strategies.secure_aggregation import SecureAggregation, unflat
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

    ``parameters`` names the entries of the model that updates are about; the others are buffers.
    """

    def __init__(self, *, parameters: Sequence[str], **federated: Any) -> None:
        super().__init__(**federated)
        self.parameters = tuple(parameters)
        self.defence = next(d for d in self.stack.defences if isinstance(d, SecureAggregation))
        self._session = os.urandom(16)

    def train_round(
        self, grid: Grid, round: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The protocol from terms to sum; a round that ends without one leaves the model as it was, and says why."""
        record = RoundRecord(round, sorted(self.cohort_of(round)))
        self.rounds.append(record)
        state = dict(arrays.to_torch_state_dict())
        like = {name: state[name] for name in self.parameters}
        terms = self.defence.terms(self._session, round, len(record.cohort), sum(t.numel() for t in like.values()))
        try:
            summed, weight, survivors = self.open_sum(Exchange(self, grid, record, arrays), terms, like)
        except SecAggError as error:
            record.aborted = str(error)
            return None, None
        record.answered = [record.cohort[index] for index in sorted(survivors)]
        self.means[round] = sampled(summed / weight)
        with self.clock.timed("aggregate"):
            update = unflat(summed, like)
            for name, tensor in update.items():
                state[name] = state[name] + self.step_size / weight * tensor
        self.opened.append(Opened(round, self.kind, update, len(survivors)))
        return ArrayRecord(state), MetricRecord({"weight": weight})

    def open_sum(self, exchange: "Exchange", terms: Terms, like: Update) -> Summed:
        """Play the server's part in one round over updates shaped as ``like``; raises SecAggError without a sum."""
        if self.defence.mode == "ideal":
            return exchange.ideal(terms)
        server = Server(terms, self.defence.safeguards, exchange.model_hash)
        exchange.carry(server)
        with self.clock.timed("unmask"):
            return *server.result(), server.survivors


class Exchange:
    """One round's messages between a SecureFederatedMean and its clients."""

    def __init__(self, strategy: SecureFederatedMean, grid: Grid, record: RoundRecord, arrays: ArrayRecord) -> None:
        self.strategy, self.grid, self.record, self.arrays = strategy, grid, record, arrays

    @property
    def model_hash(self) -> bytes:
        """What the round's keys are bound to, as this server announces it."""
        return bound_hash(digest(self.arrays).encode(), self.record.cohort)

    def carry(self, server: Server, listen: Callable[[int, Message], None] = lambda index, reply: None) -> None:
        """Carry the messages of every stage; raises SecAggError where the round cannot go on.

        ``listen`` gets every good answer, for what it holds beside the protocol.
        """
        clock = self.strategy.clock
        with clock.timed("advertise"):
            outbox = server.start()
        while outbox:
            stage = server.stage
            announced = {"cohort": self.record.cohort, "model": digest(self.arrays)}
            extra: dict[str, Any] = announced if stage == "advertise" else {}
            for index, reply in self._send(f"sa_{stage}", outbox, extra, with_model=stage == "masked"):
                listen(index, reply)
                try:
                    with clock.timed(stage):
                        server.receive(index, _answer(reply))
                except SecAggError as error:
                    self.record.failed[self.record.cohort[index]] = str(error)
            with clock.timed(stage):
                outbox = server.advance()

    def ideal(self, terms: Terms) -> Summed:
        """Ask once; the trusted party between server and clients hands over nothing but the sum."""
        offers = {index: replace(terms, client=index).encode() for index in range(terms.clients)}
        asked = self._send("sa_ideal", offers, {}, with_model=True, with_index=True)
        survivors = {index for index, _ in asked}
        if not survivors:
            raise TooFewClients(None, "masked", "no client answered")
        opened = next(reply.content[SUM] for _, reply in asked if SUM in reply.content)
        words = np.frombuffer(cast(bytes, opened["words"]), terms.encoding.word)
        with self.strategy.clock.timed("aggregate"):
            total, weight = terms.encoding.decode(words, len(survivors))
        return total, weight, survivors

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


def _answer(reply: Message) -> bytes:
    if "hidden" in reply.content.array_records:
        return reply.content.array_records["hidden"]["vector"].data
    return cast(bytes, reply.content.config_records["protocol"]["message"])
