"""What a client's key opens where all clients share one: everything with the server's messages, the sums without."""

import dataclasses
from collections.abc import Mapping, Set
from contextlib import suppress
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from flwr.app import ArrayRecord
from numpy.typing import NDArray
from torch import Tensor

from attacks.view import Kind, Message, Update, View
from crypto.he import HEError, SecretContext, open_secret
from strategies.he_client import opened_sum
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


def recipient_view(
    view: View,
    secret: bytes,
    sealing: Sealing,
    handed: Mapping[str, ArrayRecord],
    answered: Mapping[int, tuple[int, ...]],
    client: int,
) -> View:
    """What ``client`` holds by itself: its own messages, the model, and each round's sum less its own update.

    ``handed`` are the aggregates of all rounds, as the server hands them to clients, ``answered`` whose updates the
    rounds of interest add up. A sum is scaled so that every client in it counts once on average.
    """
    holder = _Coalition(view, open_secret(secret), sealing, handed)
    broadcasts, updates = dict(view.broadcasts), list[Update]()
    for round, clients in sorted(answered.items()):
        base, state = holder.model_before(round)
        broadcasts[base] = state
        updates += holder.others(round, base, state, clients, client)
    own = tuple(message for message in view.messages if message.client == client)
    return dataclasses.replace(view, party="a client", broadcasts=broadcasts, messages=own, updates=tuple(updates))


class _Coalition:
    def __init__(
        self,
        view: View,
        secret: SecretContext,
        sealing: Sealing,
        handed: Mapping[str, ArrayRecord] = MappingProxyType({}),
    ) -> None:
        self.view, self.secret, self.sealing = view, secret, sealing
        sent = [m for m in view.messages if m.direction == "sent" and m.stage == "train.he_update"]
        self.config: Mapping[str, Any] = sent[0].configs["config"]
        self.layout = Layout.told(self.config)
        self.sums = {int(key): data for m in sent for key, data in m.arrays.get("aggregates", {}).items()}
        self.clear = {int(key): tensor for m in sent for key, tensor in m.arrays.get("aggregates_clear", {}).items()}
        self.sums |= {int(key): array.data for key, array in handed.get("aggregates", ArrayRecord()).items()}
        beside = handed.get("aggregates_clear", ArrayRecord())
        self.clear |= {int(key): torch.from_numpy(array.numpy()) for key, array in beside.items()}
        self.first = next(m.arrays["arrays"] for m in sent if "arrays" in m.arrays)

    def model_before(self, round: int) -> tuple[str, dict[str, Tensor]]:
        """Digest and state of the model that the clients of a round trained from."""
        state = dict(self.first)
        for earlier in sorted(r for r in self.sums if r < round):
            total, weight = self._sum(earlier)
            mean = total / weight
            self.layout.move(state, self.config["step_size"], mean)
        return digest(ArrayRecord(state)), state

    def updates(self, round: int, base: str, state: State) -> list[Update]:
        """Each client's update of a round."""
        kind, found = cast(Kind, self.config["update_kind"]), []
        for message in self._answers(round):
            with suppress(HEError):  # an answer that was of no use to the server is of none to the coalition
                total, weight = self._vector(message)
                vector = total / weight
                update, beside = self.layout.update(vector, state), self.layout.left(vector, state)
                found.append(Update(round, message.client, kind, base, update, buffers=beside))
        return found

    def others(self, round: int, base: str, state: State, clients: tuple[int, ...], client: int) -> list[Update]:
        """The sum of a round over all of ``clients`` but ``client``, which takes its own update out of it."""
        total, weight = self._sum(round)
        for message in self._answers(round):
            if message.client == client and client in clients:
                own, counted = self._vector(message)
                total, weight = total - own, weight - counted
        others = tuple(one for one in clients if one != client)
        if not others:
            return []
        update = self.layout.update(total / weight * len(others), state)
        kind, alone = cast(Kind, self.config["update_kind"]), others[0] if len(others) == 1 else None
        return [Update(round, alone, kind, base, update, len(others), clients=others)]

    def _answers(self, round: int) -> list[Message]:
        received = (m for m in self.view.messages if m.round == round and m.direction == "received")
        return [message for message in received if {"hidden", "clear"} & set(message.arrays)]

    def _sum(self, round: int) -> tuple[NDArray[np.float64], int]:
        """The weighted sum (d,) of a round, and the sum of the weights."""
        clear = self.clear[round].numpy() if round in self.clear else None
        return opened_sum(self.sums[round], clear, self.secret, self.sealing)

    def _vector(self, message: Message) -> tuple[NDArray[np.float64], int]:
        """One client's vector (d,) times its weight, and the weight."""
        hidden, told = message.arrays.get("hidden"), message.metrics.get("metrics", {})
        total = self.sealing.read(hidden["vector"]) if hidden else None
        weight = int(told.get("num-examples", 1))
        clear = message.arrays["clear"]["vector"].double().numpy() if "clear" in message.arrays else np.empty(0)
        return self.sealing.decrypted(self.secret, total, ClearSum(clear * weight, weight))
