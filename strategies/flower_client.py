"""Flower 1.41's own SecAgg+ client, ``secaggplus_mod`` unmodified, behind an envelope that our recorder can read.

Flower's messages travel as ``train.sa_flower``, masked words in an ArrayRecord instead of a ConfigRecord. What is
masked is what training returns, here an update; the number of examples and the loss go in the clear, as Flower's do.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.app.message_type import MessageType
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common import recorddict_compat as compat

from crypto.errors import PolicyViolation
from crypto.secagg import STAGES
from strategies.clock import timed
from strategies.federated import DROPPED_OUT
from strategies.secagg_client import REFUSED, vector_of, weight_of
from strategies.secure_aggregation import FLOWER, SecureAggregation
from strategies.wire import MASKED

ACTION = "sa_flower"
FIT_PARAMETERS = "fitres.parameters"
_STAGES = {
    Stage.SETUP: "advertise",
    Stage.SHARE_KEYS: "shares",
    Stage.COLLECT_MASKED_VECTORS: "masked",
    Stage.UNMASK: "unmask",
}
"""Flower's stages by the names of ours, in which a scenario's dropout is told."""


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Flower draws from the process's global generators: seed these for one call, and leave them as they were."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002


@dataclass(frozen=True)
class FlowerSecAggClient:
    """Answers Flower's four stages with Flower's mod around ``train``; the fields are SecureAggregationClient's."""

    train: ClientAppCallable
    defence: Callable[[Context], SecureAggregation]
    rounding: Callable[[Message, Context, str], torch.Generator]
    leaves_at: Callable[[Message, Context], str | None]

    def register(self, app: ClientApp) -> None:
        """Add the handler to ``app``."""
        app.train(ACTION)(self.answer)

    def answer(self, message: Message, context: Context) -> Message:
        """One stage; what Flower's client raises becomes an error reply that begins with the exception's name."""
        if (defence := self.defence(context)).profile != FLOWER:
            client = int(context.node_config["partition-id"])
            reason = f"the server asks for Flower's SecAgg+; this client agreed to {defence.profile!r}"
            return Message(Error(REFUSED, str(PolicyViolation(client, "advertise", reason))), reply_to=message)
        stage = cast(str, message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE])
        left = self.leaves_at(message, context)
        if left is not None and STAGES.index(_STAGES[stage]) >= STAGES.index(left):
            return Message(Error(DROPPED_OUT, f"dropped out at {left}"), reply_to=message)
        trained = self.train(message, context) if stage == Stage.COLLECT_MASKED_VECTORS else None
        if trained is not None and trained.has_error():
            return trained

        def fit(asked: Message, _: Context) -> Message:
            return Message(_fit_result(cast(Message, trained), message, defence), reply_to=asked)

        seed = int(torch.randint(2**32, (), generator=self.rounding(message, context, defence.kind)))
        asked = message.metadata.message_type
        message.metadata.message_type = MessageType.TRAIN  # the mod lets every other type pass
        try:
            with own_randomness(seed), timed(context, message, _STAGES[stage]):
                reply = secaggplus_mod(message, context, fit)
        except (KeyError, TypeError, ValueError) as error:
            return Message(Error(REFUSED, f"{type(error).__name__} at stage {stage!r}: {error}"), reply_to=message)
        finally:
            message.metadata.message_type = asked
        return Message(packed(reply.content), reply_to=message)


def _fit_result(trained: Message, message: Message, defence: SecureAggregation) -> RecordDict:
    loss = trained.content.metric_records["metrics"]["train_loss"]
    result = FitRes(
        Status(Code.OK, ""),
        ndarrays_to_parameters([vector_of(trained, message)]),
        num_examples=weight_of(trained, defence),
        metrics={"train_loss": cast(float, loss)},
    )
    return compat.fitres_to_recorddict(result, keep_input=False)


def packed(content: RecordDict) -> RecordDict:
    """Flower's answer with its masked words, if it has any, in an ArrayRecord ``hidden``."""
    spoken = dict(content.config_records[RECORD_KEY_CONFIGS])
    words = cast("list[bytes] | None", spoken.pop(Key.MASKED_PARAMETERS, None))
    if words is None:
        return content
    hidden = ArrayRecord({str(i): Array("bytes", (len(part),), MASKED, part) for i, part in enumerate(words)})
    kept = {name: record for name, record in content.items() if name != FIT_PARAMETERS}
    return RecordDict({**kept, RECORD_KEY_CONFIGS: ConfigRecord(spoken), "hidden": hidden})


def unpacked(content: RecordDict) -> RecordDict:
    """The answer as Flower's mod gave it."""
    if "hidden" not in content:
        return content
    hidden = content.array_records["hidden"]
    words = [hidden[str(i)].data for i in range(len(hidden))]
    spoken = ConfigRecord({**content.config_records[RECORD_KEY_CONFIGS], Key.MASKED_PARAMETERS: words})
    kept = {name: record for name, record in content.items() if name != "hidden"}
    return RecordDict({**kept, RECORD_KEY_CONFIGS: spoken, FIT_PARAMETERS: ArrayRecord()})
