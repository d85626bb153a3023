"""A server that sends crafted models: it runs the protocol as agreed, on other models than clients think.

What a Flower client trains is what the server's app defines; here the client builds the agreed model and, where an
instruction names ``front``, the layer of that size in front of it. The architecture is the same in all rounds.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import Grid
from torch import nn

from attacks.surgery.front import behind_front
from strategies.base import Update
from strategies.federated import FederatedMean, RoundRecord
from strategies.opened import Opened
from strategies.plants import Crafted, Plant
from strategies.refused import Whom, own_errors, stopped_by
from strategies.wire import digest
from strategies.wrapped import WrappedGrid

FRONT = "front"
"""The entry of an instruction's configuration that announces a layer in front: its inputs, its rows."""


def announced_model(agreed: nn.Module, message: Message) -> nn.Module:
    """The architecture that an instruction speaks of: the agreed one, or that behind a front."""
    front = message.content.config_records["config"].get(FRONT)
    return behind_front(agreed, *cast(list[int], front)) if front else agreed


class CraftingGrid(WrappedGrid):
    """Puts each client's ``own`` model in the place of the one that the strategy sends, and announces the ``front``.

    Where a message tells the model's hash, it tells that of the model which this client is sent.
    """

    def __init__(
        self, inner: Grid, clients: Mapping[int, int], own: Mapping[int, ArrayRecord], front: Sequence[int]
    ) -> None:
        super().__init__(inner)
        self.clients, self.own, self.front = clients, own, list(front)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Pass through what the strategy sends, the models exchanged."""
        messages = list(messages)
        for message in messages:
            self._craft(message)
        return self.inner.send_and_receive(messages, timeout=timeout)

    def _craft(self, message: Message) -> None:
        own = self.own.get(self.clients[message.metadata.dst_node_id])
        spoken = message.content.config_records
        if own is not None and "model" in spoken.get("protocol", ()):
            spoken["protocol"]["model"] = digest(own)
        if "arrays" not in message.content.array_records:
            return
        if own is not None:
            message.content["arrays"] = own
        if self.front:
            message.content.config_records["config"][FRONT] = self.front


class MaliciousServer:
    """Plays a strategy's rounds with crafted models in ``rounds``; what such a round taught the model is discarded.

    ``craft(round, cohort, arrays)`` gives the models, from the state of the round. ``planted`` collects, by round,
    what this server must remember to read the answers.
    """

    def __init__(
        self,
        plant: Plant,
        *,
        victim: int,
        rounds: Collection[int],
        front: Sequence[int],
        craft: Callable[[int, tuple[int, ...], ArrayRecord], Crafted],
    ) -> None:
        self.plant, self.victim, self.rounds, self.front, self.craft = plant, victim, rounds, front, craft
        self.planted: dict[int, Mapping[str, Any]] = {}
        self.notes: list[str] = []

    def train_round(
        self, strategy: FederatedMean, grid: Grid, round: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """One round of ``strategy``; a crafted one leaves the model as it was, and a victim who is not asked in peace.

        ``strategy.opened`` is completed by what the crafted models let this server read in a sum.
        """
        cohort = tuple(sorted(strategy.cohort_of(round)))
        if round not in self.rounds or (self.plant.one_victim and self.victim not in cohort):
            return strategy.train_round(self._grid(grid, strategy, {}), round, arrays)
        crafted = self.craft(round, cohort, arrays)
        common = _record(crafted.common)
        own = {client: _record(model) for client, model in crafted.own.items()}
        moved, metrics = strategy.train_round(self._grid(grid, strategy, own), round, common)
        record = strategy.rounds[-1]
        self.planted[round] = crafted.planted
        self.notes = list(crafted.notes)
        sent = {client: _state(own.get(client, common)) for client in cohort}
        strategy.opened = [
            read
            for opened in strategy.opened
            for read in (_read(opened, crafted, sent, _state(common), record) if opened.round == round else [opened])
        ]
        needed: dict[str, Any] = {"least": strategy.least(len(cohort))}
        needed["victim"] = self.victim if self.plant.one_victim else None
        stopped = stopped_by(record, whom := _of(len(cohort)), **needed)
        if moved is None:
            failed = stopped or own_errors(record, whom, **needed)
            record.aborted = record.aborted or failed or "no client answered"
            record.lie = stopped or f"{self.plant.kind} came to nothing: {failed or record.aborted}"
            return None, None
        record.lie = f"{self.plant.kind} planted; answers on it came from {len(record.answered)} of {len(cohort)}"
        record.lie += f"; {stopped}" if stopped else ""
        return arrays, metrics

    def evidence(self, strategy: FederatedMean) -> dict[str, Any]:
        """What was planted, and what came of it, round by round."""
        return {
            "plant": self.plant.kind,
            "claim": f"It sends {self.plant.describe()}.",
            "notes": self.notes,
            "rounds": {str(record.round): record.lie for record in strategy.rounds if record.lie},
        }

    def _grid(self, grid: Grid, strategy: FederatedMean, own: Mapping[int, ArrayRecord]) -> CraftingGrid:
        return CraftingGrid(grid, strategy.partitions, own, self.front)


def _of(asked: int) -> Whom:
    return lambda clients: f"{len(clients)} of {asked} clients"


def _state(record: ArrayRecord) -> Update:
    return dict(record.to_torch_state_dict())


def _record(model: nn.Module) -> ArrayRecord:
    return ArrayRecord(dict(model.state_dict()))


def _read(
    opened: Opened, crafted: Crafted, sent: Mapping[int, Update], common: Update, record: RoundRecord
) -> Iterable[Opened]:
    """An update or a sum, on the model that it was computed on; and the single updates that the sum shows.

    Under a weighted sum the server takes it that all clients weigh the same.
    """
    if opened.client is not None:
        return [replace(opened, base=sent[opened.client])]
    single = [
        replace(
            opened,
            client=client,
            contributors=1,
            clients=(),
            weight=None if opened.weight is None else opened.weight / opened.contributors,
            arrays={name: opened.arrays[name] for name in names if name in opened.arrays},
            base=sent[client],
        )
        for client, names in crafted.alone.items()
        if client in record.answered
    ]
    return [replace(opened, base=common), *single]
