"""What the server and a client read together where all clients share one key: everything."""

import dataclasses
from collections.abc import Mapping, Set
from contextlib import suppress
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord
from numpy.typing import NDArray
from torch import Tensor

from attacks.view import Kind, Message, Update, View
from crypto.he import HEError, SecretContext, open_secret
from strategies.he_client import opened_vector
from strategies.he_deployment import ServerKeys
from strategies.he_layout import Layout
from strategies.he_sealing import ClearSum, Sealing
from strategies.homomorphic import Homomorphic
from strategies.wire import State, digest


def joint_view(view: View, secret: bytes, keys: ServerKeys, defence: Homomorphic, rounds: Set[int]) -> View:
    """The server's view once a client has handed it the ``secret`` key: every client's update of ``rounds``, decrypted.

    The coalition also opens each round's aggregate, as clients do, and so has the model that every round began with.
    The view must hold the arrays of all rounds up to the last of ``rounds``.
    """
    coalition = _Coalition(view, open_secret(secret), keys.sealing(defence))
    broadcasts, updates = dict(view.broadcasts), list[Update]()
    for round in sorted(rounds):
        base, state = coalition.model_before(round)
        broadcasts[base] = state
        updates += coalition.updates(round, base, state)
    return dataclasses.replace(view, party="server and one client", broadcasts=broadcasts, updates=tuple(updates))


class _Coalition:
    def __init__(self, view: View, secret: SecretContext, sealing: Sealing) -> None:
        self.view, self.secret, self.sealing = view, secret, sealing
        sent = [m for m in view.messages if m.direction == "sent" and m.stage == "train.he_update"]
        self.config: Mapping[str, Any] = sent[0].configs["config"]
        self.layout = Layout.told(self.config)
        self.sums = {int(key): data for m in sent for key, data in m.arrays.get("aggregates", {}).items()}
        self.clear = {int(key): tensor for m in sent for key, tensor in m.arrays.get("aggregates_clear", {}).items()}
        self.first = next(m.arrays["arrays"] for m in sent if "arrays" in m.arrays)

    def model_before(self, round: int) -> tuple[str, dict[str, Tensor]]:
        """Digest and state of the model that the clients of a round trained from."""
        state = dict(self.first)
        for earlier in sorted(r for r in self.sums if r < round):
            clear = self.clear[earlier].numpy() if earlier in self.clear else None
            mean = opened_vector(self.sums[earlier], clear, self.secret, self.sealing)
            self.layout.move(state, self.config["step_size"], mean)
        return digest(ArrayRecord(state)), state

    def updates(self, round: int, base: str, state: State) -> list[Update]:
        """Each client's update of a round."""
        kind, found = cast(Kind, self.config["update_kind"]), []
        for message in self.view.messages:
            if message.round == round and message.direction == "received" and {"hidden", "clear"} & set(message.arrays):
                with suppress(HEError):  # an answer that was of no use to the server is of none to the coalition
                    vector = self._vector(message)
                    update, beside = self.layout.update(vector, state), self.layout.left(vector, state)
                    found.append(Update(round, message.client, kind, base, update, buffers=beside))
        return found

    def _vector(self, message: Message) -> NDArray[np.float64]:
        hidden, told = message.arrays.get("hidden"), message.metrics.get("metrics", {})
        total = self.sealing.read(hidden["vector"]) if hidden else None
        weight = int(told.get("num-examples", 1))
        clear = message.arrays["clear"]["vector"].double().numpy() if "clear" in message.arrays else np.empty(0)
        vector, weight = self.sealing.decrypted(self.secret, total, ClearSum(clear * weight, weight))
        return vector / weight
