"""The protocol's client half as a Flower mod: what the ClientApp answers is protected before it leaves the client."""

from collections.abc import Callable, MutableMapping
from typing import cast

import torch
from flwr.app import ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.common.constant import ErrorCode

from strategies.base import ClientContext, ClientUpdateError
from strategies.clock import timed
from strategies.stack import Stack

EVIDENCE = "evidence"
"""The record of ``Context.state`` that holds the latest round's evidence: for the experimenter, in no message."""


def evidence_of(context: Context) -> MutableMapping[str, float]:
    """This client's evidence of the round: the local update and every defence write into it."""
    if EVIDENCE not in context.state:
        context.state[EVIDENCE] = MetricRecord()
    return cast(MutableMapping[str, float], context.state[EVIDENCE])


def defence_mod(
    stack_for: Callable[[Message, Context], Stack],
    generator_for: Callable[[Message, Context, str], torch.Generator],
) -> Mod:
    """A mod that sends the ``update`` record of every train reply through ``stack_for(message, context)``.

    ``generator_for(message, context, kind)`` gives the generator of one defence, for this client and round. Error
    replies and other kinds of messages pass unchanged. An update that must not be sent, or a train reply without
    one, becomes an error reply. The rest of a reply travels unprotected: the evidence counts the numbers in each
    such record under ``beside_update``.
    """

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        stack = stack_for(message, context)
        if message.metadata.message_type.split(".")[0] != "train" or not stack.defences:
            return call_next(message, context)
        context.state[EVIDENCE] = MetricRecord()
        round = cast(int, message.content.config_records["config"]["round"])
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        if "update" not in reply.content.array_records:
            return _refuse(message, "the reply has no array record 'update' to protect; nothing was sent")
        evidence = evidence_of(context)

        def context_for(kind: str) -> ClientContext:
            client = cast(int, context.node_config["partition-id"])
            return ClientContext(round, client, generator_for(message, context, kind), evidence)

        plain = dict(reply.content.array_records["update"].to_torch_state_dict())
        try:
            with timed(context, message, " + ".join(defence.kind for defence in stack.defences)):
                update = stack.protect(plain, context_for)
        except ClientUpdateError as error:
            return _refuse(message, str(error))
        beside = {name: record for name, record in reply.content.items() if name != "update"}
        for name, record in beside.items():
            evidence[f"beside_update.{name}"] = float(_count(record))
        return Message(RecordDict({**beside, "update": ArrayRecord(update)}), reply_to=message)

    return mod


def _refuse(message: Message, reason: str) -> Message:
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)


def _count(record: object) -> int:
    if isinstance(record, ArrayRecord):
        return sum(array.numpy().size for array in record.values())
    return len(cast(MetricRecord, record))
