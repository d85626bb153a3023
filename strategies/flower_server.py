"""Flower 1.41's own SecAgg+ server, ``SecAggPlusWorkflow`` unmodified, as a strategy over explicit updates."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common import FitIns, FitRes, Parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.server import ServerConfig
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.serverapp import Grid
from numpy.typing import NDArray

from crypto.secagg.lies import LIES
from strategies.federated import DROPPED_OUT, FederatedMean, RoundRecord
from strategies.flower_client import ACTION, own_randomness, unpacked
from strategies.flower_lies import FLOWER_LIES, MODULUS, FlowerLie
from strategies.he_layout import Layout, State
from strategies.lying_server import told
from strategies.opened import Opened
from strategies.sample import sampled
from strategies.secure_aggregation import SecureAggregation


class FlowerMean(FederatedMean):
    """``FederatedMean`` by Flower's SecAgg+; with ``lie``, by a server that tells it about the client ``victim``.

    ``parameters`` names the entries of the model that updates are about, ``buffers`` the statistics that travel
    hidden with them. Flower clips an update that exceeds the clip, without a word.
    """

    def __init__(
        self,
        *,
        parameters: Sequence[str],
        buffers: Sequence[str] = (),
        lie: str | None = None,
        victim: int = 0,
        **federated: Any,
    ) -> None:
        super().__init__(**federated)
        self.layout, self.lie, self.victim = Layout(tuple(parameters), tuple(buffers)), lie, victim
        self.defence = next(d for d in self.stack.defences if isinstance(d, SecureAggregation))

    def train_round(
        self, grid: Grid, round: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """One run of Flower's workflow; where it halts the model stays as it was."""
        record = RoundRecord(round, sorted(self.cohort_of(round)))
        self.rounds.append(record)
        state = dict(arrays.to_torch_state_dict())
        envelope = _Envelope(self, grid, record, arrays)
        liar = None
        if self.lie is not None and self.victim in record.cohort:
            liar = FLOWER_LIES[self.lie](envelope, self.nodes[self.victim])
        result = _Result([self.nodes[client] for client in record.cohort])
        with self.clock.timed("workflow"):
            self._carry(liar or envelope, result, record)
        self.clock.seconds["workflow"] -= envelope.away
        if liar is not None:
            self._loot(liar, record, state)
        if result.mean is None:
            record.aborted = record.aborted or "Flower's workflow halted without a sum"
            return None, None
        record.answered = sorted(self.partitions[node] for node in result.weights)
        weight = sum(result.weights.values())
        self.means[round] = sampled(result.mean[: self.layout.size(state)])
        self.opened.append(
            Opened(
                round,
                self.kind,
                self.layout.update(weight * result.mean, state),
                len(record.answered),
                clients=tuple(record.answered),
                weight=weight if self.defence.max_weight > 1 else None,
                buffers=self.layout.left(result.mean, state),
            )
        )
        self.layout.move(state, self.step_size, result.mean)
        return ArrayRecord(state), MetricRecord({"weight": weight})

    def least(self, asked: int) -> int:
        """The threshold: with fewer no sum opens."""
        return self.defence.terms(bytes(16), 1, asked, 1).threshold

    def evidence(self) -> dict[str, Any]:
        """The lie and what came of it, round by round; empty without one."""
        if not self.lie:
            return {}
        return told(self.lie, LIES[self.lie].claim, self.victim, self.rounds, stoppable=True)

    def _carry(self, channel: Any, result: "_Result", record: RoundRecord) -> None:
        defence, peers = self.defence, self.defence.neighbours
        workflow = SecAggPlusWorkflow(
            num_shares=1.0 if peers is None else peers + 1,
            reconstruction_threshold=self.least(len(record.cohort)),
            max_weight=float(defence.max_weight),
            clipping_range=defence.clip,
            quantization_range=1 << defence.bits,
            modulus_range=MODULUS,
        )
        blank = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
        context = LegacyContext(blank, ServerConfig(1), cast(Any, result), cast(Any, result))
        context.state.config_records["config"] = ConfigRecord({"current_round": record.round})
        context.state.array_records["parameters"] = ArrayRecord()
        try:
            with own_randomness(record.round), _quiet():
                workflow(channel, context)
        except (AssertionError, KeyError, ValueError, IndexError) as error:
            record.aborted = f"Flower's workflow broke: {type(error).__name__}: {error}"

    def _loot(self, liar: FlowerLie, record: RoundRecord, state: State) -> None:
        try:
            vector = liar.loot(self.defence.clip, 1 << self.defence.bits)
        except ValueError as error:
            record.lie = f"came to nothing: {error}"
            return
        record.lie = f"client {self.victim}'s update was read"
        update, left = self.layout.update(vector, state), self.layout.left(vector, state)
        self.opened.append(Opened(record.round, self.kind, update, 1, self.victim, buffers=left))


class _Result:
    """What the workflow wants of a strategy and of a client manager: whom to ask, and where to leave the mean."""

    def __init__(self, nodes: Sequence[int]) -> None:
        self.nodes = nodes
        self.mean: NDArray[np.float64] | None = None
        self.weights: dict[int, int] = {}

    def num_available(self) -> int:
        return len(self.nodes)

    def configure_fit(self, server_round: int, parameters: Parameters, client_manager: Any) -> list[tuple[Any, FitIns]]:
        return [(SimpleNamespace(node_id=node), FitIns(parameters, {})) for node in self.nodes]

    def aggregate_fit(
        self, server_round: int, results: list[tuple[Any, FitRes]], failures: Any
    ) -> tuple[None, dict[str, Any]]:
        self.mean = parameters_to_ndarrays(results[0][1].parameters)[0]
        self.weights = {proxy.node_id: result.num_examples for proxy, result in results}
        return None, {}


class _Envelope:
    """Puts the workflow's messages into ours and ours into its; notes who left."""

    def __init__(self, strategy: FlowerMean, grid: Grid, record: RoundRecord, arrays: ArrayRecord) -> None:
        self.strategy, self.grid, self.record, self.arrays = strategy, grid, record, arrays
        self.away = 0.0
        """CPU seconds that passed in the grid: not the server's, but on ``inline`` its clients'."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        asked, started = list(map(self._ours, messages)), time.thread_time()
        replies = list(self.grid.send_and_receive(asked, timeout=timeout))
        self.away += time.thread_time() - started
        for reply in replies:
            if not reply.has_error():
                reply.content = unpacked(reply.content)
                continue
            client = self.strategy.partitions[reply.metadata.src_node_id]
            if reply.error.code == DROPPED_OUT:
                self.record.dropped.append(client)
            else:
                self.record.failed[client] = reply.error.reason or f"error {reply.error.code}"
        return replies

    def _ours(self, message: Message) -> Message:
        spoken = message.content.config_records[RECORD_KEY_CONFIGS]
        config = ConfigRecord({"round": self.record.round, "update_kind": self.strategy.kind})
        content: dict[str, Any] = {"config": config, RECORD_KEY_CONFIGS: spoken}
        if spoken[Key.STAGE] == Stage.COLLECT_MASKED_VECTORS:
            content["arrays"] = self.arrays
        node, group = message.metadata.dst_node_id, str(self.record.round)
        return Message(RecordDict(content), node, f"train.{ACTION}", group_id=group)


@contextmanager
def _quiet() -> Iterator[None]:
    """Flower's workflow reports every stage; warnings are enough."""
    log = logging.getLogger("flwr")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
