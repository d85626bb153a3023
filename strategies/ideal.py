"""The ideal functionality of secure aggregation: a trusted party between the server and the clients that only adds.

It proves nothing about a protocol; it gives large sweeps the protocol's sum without its cost (Canetti, FOCS 2001).
"""

from collections.abc import Iterable
from typing import cast

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

from crypto.secagg import Terms
from strategies.wire import ENCODED
from strategies.wrapped import WrappedGrid

SUM = "sum"
"""The record, on the first good answer, that holds the modular sum over all of them."""


class IdealAggregation(WrappedGrid):
    """Passes everything through, but takes every encoded vector out of the answers and puts their sum in one."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The answers without their vectors; the sum stands on the first one that held one."""
        messages = list(messages)
        replies = list(self.inner.send_and_receive(messages, timeout=timeout))
        holding = [reply for reply in replies if not reply.has_error() and _encoded(reply)]
        if not holding:
            return replies
        asked = next(message for message in messages if message.metadata.message_type == "train.sa_ideal")
        spoken = asked.content.config_records["protocol"]
        offered, index = cast(bytes, spoken["message"]), cast(int, spoken["index"])
        word = Terms.decode(offered, client=index, stage="advertise").encoding.word
        total = sum(np.frombuffer(reply.content.array_records["hidden"]["vector"].data, word) for reply in holding)
        for place, reply in enumerate(holding):
            kept = {name: record for name, record in reply.content.items() if name != "hidden"}
            if place == 0:
                kept[SUM] = ConfigRecord({"words": np.asarray(total, word).tobytes()})
            reply.content = RecordDict(kept)
        return replies


def _encoded(reply: Message) -> bool:
    record = reply.content.array_records.get("hidden")
    return record is not None and record["vector"].stype == ENCODED
