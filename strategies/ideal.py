"""The ideal functionality of secure aggregation: a trusted party between the server and the clients that only adds.

It proves nothing about a protocol; it gives large sweeps the protocol's sum without its cost (Canetti, FOCS 2001), and
no sum where the protocol would open none.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from crypto.entropy import Entropy
from crypto.errors import SecAggError
from crypto.secagg import Profile, Terms
from crypto.secagg.attrition import survivors
from strategies.federated import DROPPED_OUT
from strategies.secagg_client import LEAVES, left_at
from strategies.wire import ENCODED
from strategies.wrapped import WrappedGrid

SUM = "sum"
"""The record, on the first good answer, that holds the modular sum over all of them, or why there is none."""


class IdealAggregation(WrappedGrid):
    """Passes everything through, but takes every encoded vector out of the answers and puts their sum in one.

    ``profile`` has the clients' rules, ``ring_of`` draws a round's masking graph: if too few stay there is no sum.
    """

    def __init__(self, inner: Grid, profile: Profile, ring_of: Callable[[int], Entropy]) -> None:
        super().__init__(inner)
        self.profile, self.ring_of = profile, ring_of

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The answers without their vectors; the sum stands on the first one that held one."""
        messages = list(messages)
        replies = list(self.inner.send_and_receive(messages, timeout=timeout))
        holding = [reply for reply in replies if not reply.has_error() and _encoded(reply)]
        if not holding:
            return replies
        places = {m.metadata.dst_node_id: cast(int, m.content.config_records["protocol"]["index"]) for m in messages}
        asked = messages[0].content.config_records
        offered = cast(bytes, asked["protocol"]["message"])
        terms = Terms.decode(offered, client=places[messages[0].metadata.dst_node_id], stage="advertise")
        try:
            survivors(terms, self.profile, _leaving(replies, places), self.ring_of(cast(int, asked["config"]["round"])))
        except SecAggError as none:
            added = ConfigRecord({"stage": none.stage, "reason": none.reason})
        else:
            word = terms.encoding.word
            total = sum(np.frombuffer(r.content.array_records["hidden"]["vector"].data, word) for r in holding)
            added = ConfigRecord({"words": np.asarray(total, word).tobytes()})
        for place, reply in enumerate(holding):
            kept = {name: record for name, record in reply.content.items() if name != "hidden"}
            reply.content = RecordDict({**kept, SUM: added} if place == 0 else kept)
        return replies


def _leaving(replies: Iterable[Message], places: Mapping[int, int]) -> dict[int, str]:
    """Place in the cohort -> the stage from which it is silent; whoever could not answer would not at 'masked'."""
    leaves = dict.fromkeys(places.values(), "masked")
    for reply in replies:
        place = places[reply.metadata.src_node_id]
        if not reply.has_error():
            del leaves[place]
            if LEAVES in reply.content:
                leaves[place] = cast(str, reply.content.config_records[LEAVES]["stage"])
        elif reply.error.code == DROPPED_OUT:
            leaves[place] = (reply.error.reason or "").removeprefix(left_at(""))
    return leaves


def _encoded(reply: Message) -> bool:
    record = reply.content.array_records.get("hidden")
    return record is not None and record["vector"].stype == ENCODED
