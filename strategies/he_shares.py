"""A secret key that exists in shares alone, one at every client: how it is made, and what each share-holder does.

Threshold CKKS (``crypto.he.threshold``) over Flower messages. No party ever has the key, so there is none to hand over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from crypto.he import Ciphertext, HEError
from crypto.he.holders import require_openable
from crypto.he.threshold import JointContext, Share, join, open_joint
from strategies.clock import timed
from strategies.federated import DROPPED_OUT
from strategies.he_client import KEYS, ciphertext_array, refuse
from strategies.homomorphic import Homomorphic

SHARE = "share"
"""The record of ``Context.state`` with a client's share of the key."""
JOIN, PARTIAL = "he_join", "he_partial"


def joined(grid: Grid, nodes: Mapping[int, int], cohort: int) -> bytes:
    """The joint public context of all clients, made by one after another; raises HEError."""
    public: bytes | None = None
    for party, client in enumerate(sorted(nodes)):
        turn = ConfigRecord({"party": party, **({"previous": public} if public else {})})
        asked = Message(RecordDict({"turn": turn}), nodes[client], f"query.{JOIN}", group_id="0")
        reply = next(iter(grid.send_and_receive([asked])))
        if reply.has_error():
            raise HEError(f"client {client}: made no share: {reply.error.reason}")
        public = cast(bytes, reply.content.config_records["turn"]["public"])
    return JointContext(public or b"", len(nodes), cohort).to_bytes()


@dataclass(frozen=True)
class ShareHolder:
    """A client's handlers beside those of ``HomomorphicClient``: makes its share, and helps to open one sum a round.

    ``defence`` and ``leaves`` are those of ``HomomorphicClient``.
    """

    defence: Callable[[Context], Homomorphic]
    leaves: Callable[[Message, Context], bool]

    def register(self, app: ClientApp) -> None:
        """Add the handlers to ``app``."""
        app.query(JOIN)(self.join)
        app.train(PARTIAL)(self.partial)

    def join(self, message: Message, context: Context) -> Message:
        """Make a share, and answer with the public key joined up to this client."""
        turn = message.content.config_records["turn"]
        try:
            share = join(cast(int, turn["party"]), cast(bytes | None, turn.get("previous")))
        except HEError as error:
            return refuse(message, error)
        context.state[SHARE] = ConfigRecord({"party": share.party, "public": share.public, "secret": share.secret})
        return Message(RecordDict({"turn": ConfigRecord({"public": share.public})}), reply_to=message)

    def partial(self, message: Message, context: Context) -> Message:
        """This client's part in opening the round's sum, which it refuses for a second one and for one of too few."""
        if self.leaves(message, context):
            return Message(Error(DROPPED_OUT, "dropped out"), reply_to=message)
        held, round = context.state.config_records[SHARE], message.content.config_records["config"]["round"]
        try:
            joint = open_joint(cast(bytes, context.state.config_records[KEYS]["context"]))
            total = Ciphertext.from_bytes(message.content.array_records["sum"]["vector"].data, joint)
            last = cast(int | None, held.get("answered"))
            require_openable(total, cast(int, round), self.defence(context).minimum_cohort, last)
            with timed(context, message, "partial"):
                own = Share(cast(int, held["party"]), cast(bytes, held["public"]), cast(bytes, held["secret"]))
                chunks = joint.partial(own, total).chunks
        except HEError as error:
            return refuse(message, error)
        context.state[SHARE] = ConfigRecord({**held, "answered": cast(int, round)})
        part = ArrayRecord({str(i): ciphertext_array(chunk) for i, chunk in enumerate(chunks)})
        whose = ConfigRecord({"party": own.party})
        return Message(RecordDict({"partial": part, "party": whose}), reply_to=message)
