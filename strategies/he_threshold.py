"""The server's half of threshold CKKS: the sum goes to all clients, and opens where all of them answer."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from crypto.he import Ciphertext
from crypto.he.errors import CorruptMessageError, IncompatibleCiphertextsError, KeyPolicyError
from crypto.he.threshold import JointContext, Partial
from strategies.he_client import ciphertext_array
from strategies.he_layout import State
from strategies.he_server import SERVERS as ONE_KEY
from strategies.he_server import Answer, HomomorphicMean, refuse_secret_keys
from strategies.he_shares import PARTIAL


class ThresholdMean(HomomorphicMean):
    """``threshold``: the sum goes to every client as a ciphertext, and opens by all their partial decryptions."""

    def train_round(
        self, grid: Grid, round: int, arrays: ArrayRecord
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As ``HomomorphicMean``, with a second exchange for the sum."""
        self._grid = grid
        return super().train_round(grid, round, arrays)

    def _finish(
        self, round: int, total: Ciphertext | None, answers: Sequence[Answer], state: State
    ) -> NDArray[np.float64] | None:
        joint = self.keys.context
        if not isinstance(joint, JointContext):
            raise KeyPolicyError("key: this deployment has no shares")
        values = None
        if total is not None:
            partials = self._partials(round, total)
            with self.clock.timed("fuse"):
                values = joint.fuse(total, partials)
        return self._mean(round, values, answers, state, note=True)

    def _partials(self, round: int, total: Ciphertext) -> list[Partial]:
        """The partial decryptions of all clients; raises IncompatibleCiphertextsError where one answers with none."""
        with self.clock.timed("add"):
            message = ArrayRecord({"vector": ciphertext_array(total.to_bytes())})
        config = self.config(round)
        asked = [
            Message(RecordDict({"config": config, "sum": message}), node, f"train.{PARTIAL}", group_id=str(round))
            for node in self.nodes.values()
        ]
        found = []
        for reply in self._grid.send_and_receive(asked):
            client = self.partitions[reply.metadata.src_node_id]
            if reply.has_error():
                raise IncompatibleCiphertextsError(
                    f"client {client}: gives no partial decryption ({reply.error.reason}), and a sum takes all of them"
                )
            refuse_secret_keys(reply.content, f"client {client}")
            found.append(self._partial(client, total, reply.content))
        return found

    def _partial(self, client: int, total: Ciphertext, content: RecordDict) -> Partial:
        try:
            party = cast(int, content.config_records["party"]["party"])
            chunks = tuple(array.data for _, array in sorted(content.array_records["partial"].items(), key=_place))
        except (KeyError, ValueError):
            raise CorruptMessageError(f"client {client}: its answer holds no partial decryption") from None
        return Partial(party, total.name, chunks)


def _place(entry: tuple[str, object]) -> int:
    return int(entry[0])


SERVERS: dict[str, type[HomomorphicMean]] = {**ONE_KEY, "threshold": ThresholdMean}
"""The server's half of each deployment, by the name of its key holder."""
