"""The honest server as a Flower strategy: ask a cohort, undo the protocol, average, step (McMahan et al. 2017)."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from torch import Tensor

from attacks.view import Kind
from strategies.clock import Clock
from strategies.opened import Opened
from strategies.sample import sampled
from strategies.secure_aggregation import flat
from strategies.stack import Stack

DROPPED_OUT = 1001
"""Error code of a reply that stands for a client which left in mid-round, as the scenario's ``dropout`` asks."""

log = logging.getLogger(__name__)


@dataclass
class RoundRecord:
    """What happened in one round: who was asked, who left, whose answer could not be used and why."""

    round: int
    cohort: list[int]
    answered: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    aborted: str | None = None
    """Why a protocol ended the round without a result; training goes on from the last good model."""
    lie: str | None = None
    """What came of the lie that the server told in this round: what it read, or which errors stopped it."""


class FederatedMean(Strategy):
    """FedSGD and FedAvg on explicit updates: the global model moves by ``step_size`` times the mean update.

    ``cohort_of(round)`` gives the partition ids to ask, ``nodes`` maps them to Flower's node ids.
    ``step_size`` is minus the learning rate for gradients, the server's learning rate for deltas.
    Answers are summed in the order of the partition ids, so that a sum does not depend on arrival.
    """

    def __init__(
        self,
        *,
        kind: Kind,
        stack: Stack,
        cohort_of: Callable[[int], Sequence[int]],
        nodes: Mapping[int, int],
        step_size: float,
        weighted: bool,
    ) -> None:
        self.kind: Kind = kind
        self.stack = stack
        self.cohort_of = cohort_of
        self.nodes = dict(nodes)
        self.partitions = {node: partition for partition, node in self.nodes.items()}
        self.step_size = step_size
        self.weighted = weighted
        self.rounds: list[RoundRecord] = []
        self.opened: list[Opened] = []  # what the protocol let this server read of hidden updates
        self.clock = Clock()
        self.means: dict[int, NDArray[np.float64]] = {}  # samples of the mean that this server got, by round
        self._sent: dict[str, Tensor] = {}

    def least(self, asked: int) -> int:
        """The fewest answers with which a round that asked so many clients gives a result."""
        return 1

    def summary(self) -> None:
        """Log what this strategy will do."""
        log.info("%s: mean of each cohort's %s, times %g", type(self).__name__, self.kind, self.step_size)

    def train_round(
        self, grid: Grid, round: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """One whole round over ``grid``: the model after it, or (None, None) where no answer could be used."""
        replies = grid.send_and_receive(self.configure_train(round, arrays, ConfigRecord(), grid))
        return self.aggregate_train(round, replies)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a client of the cohort, each with records of its own."""
        cohort = sorted(self.cohort_of(server_round))
        self.rounds.append(RoundRecord(server_round, cohort))
        self._sent = dict(arrays.to_torch_state_dict())
        return [
            Message(
                RecordDict(
                    {
                        "arrays": arrays,
                        "config": ConfigRecord({**config, "round": server_round, "update_kind": self.kind}),
                    }
                ),
                dst_node_id=self.nodes[partition],
                message_type="train",
                group_id=str(server_round),
            )
            for partition in cohort
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The model after the round; (None, None), and the old model stays, when no answer could be used."""
        with self.clock.timed("aggregate"):
            return self._aggregated(server_round, replies)

    def _aggregated(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        record = self.rounds[-1]
        usable = self._usable(record, sorted(replies, key=lambda reply: self.partitions[reply.metadata.src_node_id]))
        if not usable:
            return None, None
        weights = [_metric(reply, "num-examples") if self.weighted else 1.0 for reply in usable]
        shares = [weight / math.fsum(weights) for weight in weights]
        mean = self.stack.reveal(_mean([_tensors(reply, "update") for reply in usable], shares))
        self.means[server_round] = sampled(flat(mean))
        state = {name: tensor.clone() for name, tensor in self._sent.items()}
        for name, tensor in mean.items():
            state[name] = state[name] + self.step_size * tensor
        if all("buffers" in reply.content for reply in usable):
            state.update(_mean([_tensors(reply, "buffers") for reply in usable], shares))
        losses = [_metric(reply, "train_loss") for reply in usable]
        return ArrayRecord(state), MetricRecord({"train_loss": float(np.dot(shares, losses))})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """No client evaluates: accuracy is measured on data that no client holds."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing to aggregate."""
        return None

    def _usable(self, record: RoundRecord, replies: Sequence[Message]) -> list[Message]:
        """The answers to average; the others are named in ``record`` and never averaged in."""
        usable = []
        for reply in replies:
            client = self.partitions[reply.metadata.src_node_id]
            if reply.has_error():
                if reply.error.code == DROPPED_OUT:
                    record.dropped.append(client)
                else:
                    record.failed[client] = reply.error.reason or f"error {reply.error.code}"
            elif broken := [n for n, t in _tensors(reply, "update").items() if not torch.isfinite(t).all()]:
                record.failed[client] = f"its update is not finite in {', '.join(broken)}"
            else:
                record.answered.append(client)
                usable.append(reply)
        heard = {*record.answered, *record.dropped, *record.failed}
        record.failed.update({client: "did not answer in time" for client in record.cohort if client not in heard})
        return usable


def _tensors(reply: Message, name: str) -> dict[str, Tensor]:
    return dict(reply.content.array_records[name].to_torch_state_dict())


def _metric(reply: Message, name: str) -> float:
    return cast(float, reply.content.metric_records["metrics"][name])


def _mean(updates: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """Weighted mean, by name; integer entries (counters) take their largest value, a mean of them has no meaning."""
    result = {}
    for name, first in updates[0].items():
        stacked = [update[name] for update in updates]
        if first.is_floating_point():
            terms = [share * tensor for share, tensor in zip(shares, stacked, strict=True)]
            result[name] = torch.stack(terms).sum(dim=0)
        else:
            result[name] = torch.stack(stacked).amax(dim=0)
    return result
