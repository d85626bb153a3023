"""Flower's SecAgg+ as a peer: its own workflow and its own client mod, unmodified, on a Grid of plain calls.

Messages are handed over without serialisation and array data without a copy, in Flower's favour.
"""

import time
from typing import Any

import flwr.compat.common.recorddict_compat as compat
import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from flwr.server import ServerConfig
from flwr.server.client_manager import SimpleClientManager
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray


class CallGrid(Grid):
    """Answers every message at once by calling Flower's mod on that node's update."""

    def __init__(self, updates: NDArray[np.float32]) -> None:
        self.updates = updates
        self.contexts = {node + 1: blank_context(node + 1) for node in range(len(updates))}
        self.upload_bytes = 0

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        return [self.answer(message) for message in messages]

    def answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        records = {name: ConfigRecord(dict(r)) for name, r in message.content.config_records.items()}
        content = RecordDict({**message.content.array_records, **message.content.metric_records, **records})
        message.metadata.__dict__["_message_id"] = f"{node}"
        message.metadata.__dict__["_src_node_id"] = 0
        own = Message.__new__(Message)
        own.__dict__.update(message.__dict__, _content=content)
        reply = secaggplus_mod(own, self.contexts[node], self.fit)
        masked = reply.content.config_records[RECORD_KEY_CONFIGS].get(Key.MASKED_PARAMETERS, [])
        self.upload_bytes += sum(map(len, masked))
        return reply

    def fit(self, message: Message, context: Context) -> Message:
        parameters = ndarrays_to_parameters([self.updates[context.node_id - 1]])
        result = FitRes(Status(Code.OK, ""), parameters, num_examples=1, metrics={})
        return Message(compat.fitres_to_recorddict(result, keep_input=True), reply_to=message)

    def get_node_ids(self) -> list[int]:
        return list(self.contexts)

    def set_run(self, *args: Any) -> None: ...

    def run(self) -> Any: ...

    def create_message(self, *args: Any, **kwargs: Any) -> Any: ...

    def push_messages(self, *args: Any) -> Any: ...

    def pull_messages(self, *args: Any) -> Any: ...


class Proxy:
    """What Flower's client manager wants to know of a client."""

    def __init__(self, node: int) -> None:
        self.node_id, self.cid, self.properties = node, str(node), {}


def blank_context(node: int) -> Context:
    return Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})


def flower_round(updates: NDArray[np.float32], shares: int | float, threshold: int | float) -> tuple[float, float]:
    """CPU seconds of one round, and bytes uploaded per parameter and client; its sum is checked."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    n, d = updates.shape
    manager = SimpleClientManager()
    for node in range(1, n + 1):
        manager.register(Proxy(node))  # type: ignore[arg-type]
    strategy = FedAvg(fraction_fit=1.0, min_fit_clients=n, min_available_clients=n)
    context = LegacyContext(blank_context(0), ServerConfig(1), strategy, manager)
    zeros = ndarrays_to_parameters([np.zeros(d, np.float32)])
    context.state.config_records["config"] = ConfigRecord({"current_round": 1})
    context.state.array_records["parameters"] = compat.parameters_to_arrayrecord(zeros, keep_input=True)
    grid = CallGrid(updates)
    workflow = SecAggPlusWorkflow(num_shares=shares, reconstruction_threshold=threshold, max_weight=1.0)
    start = time.process_time()
    workflow(grid, context)
    seconds = time.process_time() - start
    result = compat.arrayrecord_to_parameters(context.state.array_records["parameters"], keep_input=True)
    mean = parameters_to_ndarrays(result)[0]
    if np.abs(mean - updates.mean(0, dtype=np.float64)).max() > 1e-3:
        raise AssertionError("Flower's round did not give the mean")
    return seconds, grid.upload_bytes / n / d
