"""Homomorphic aggregation's client half: handlers of a Flower ClientApp that encrypt what its training gives.

A client's context, secret key included where it has one, and its own copy of the model stay in ``Context.state``; in
a simulation that state lies with the experimenter, never with the server.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from numpy.typing import NDArray

from crypto.he import Ciphertext, HEError, SecretContext, carries_secret_key, check_forms_agree, open_secret
from crypto.he.errors import KeyPolicyError
from crypto.he.keyless import AnyContext, open_context
from strategies.client_mod import evidence_of
from strategies.clock import timed
from strategies.collusion import HANDED
from strategies.federated import DROPPED_OUT
from strategies.he_layout import Layout
from strategies.he_sealing import ClearSum, Sealing, selection_of
from strategies.homomorphic import Homomorphic
from strategies.sample import DECRYPTED, keep
from strategies.secagg_client import REFUSED
from strategies.wire import CIPHERTEXT

KEYS, MODEL = "homomorphic", "model"
"""The records of ``Context.state`` that hold a client's keys, and its copy of the model where the server has none."""
ROUNDING_BYTES = 32


@dataclass(frozen=True)
class HomomorphicClient:
    """The client in one round after another.

    ``train`` is the app's own training, behind the defences that act on plain numbers. ``defence`` finds the
    parameters, ``rounding`` a generator for stochastic rounding (keys and encryption noise come from the operating
    system), ``leaves`` whether it drops out of a round, ``colludes`` whether it gives the server its key.
    """

    train: ClientAppCallable
    defence: Callable[[Context], Homomorphic]
    rounding: Callable[[Message, Context, str], torch.Generator]
    leaves: Callable[[Message, Context], bool]
    colludes: Callable[[Context], bool]

    def register(self, app: ClientApp) -> None:
        """Add the handlers to ``app``."""
        app.query("he_enrol")(self.enrol)
        app.query("he_model")(self.model)
        app.query("he_collude")(self.collude)
        app.train("he_update")(self.update)

    def enrol(self, message: Message, context: Context) -> Message:
        """Take the keys from the party that hands them out; try them in both forms where the seeded one is sent."""
        context.state[KEYS] = ConfigRecord(dict(message.content.config_records["keys"]))
        secret = _keys(context)[1]
        if secret is not None and self.defence(context).seeded:
            try:
                check_forms_agree(secret, np.arange(3))
            except HEError as error:
                return refuse(message, error)
        return Message(RecordDict(), reply_to=message)

    def model(self, message: Message, context: Context) -> Message:
        """Catch up and show the model: to the experimenter, who asks past the server."""
        try:
            self._catch_up(message, context)
        except HEError as error:
            return refuse(message, error)
        return Message(RecordDict({"model": context.state[MODEL]}), reply_to=message)

    def collude(self, message: Message, context: Context) -> Message:
        """Hand over the secret key, as the adversary's accomplice."""
        held = cast(bytes, context.state.config_records[KEYS]["context"])
        if not self.colludes(context) or not carries_secret_key(held):
            return refuse(message, KeyPolicyError("key: this client does not collude, or has no secret key"))
        return Message(RecordDict({"key": ConfigRecord({"secret": held})}), reply_to=message)

    def update(self, message: Message, context: Context) -> Message:
        """Train from the model received, or from the client's own copy; answer with the update encrypted."""
        if self.leaves(message, context):
            return Message(Error(DROPPED_OUT, "dropped out"), reply_to=message)
        try:
            if self.defence(context).holder.holder == "clients":
                with timed(context, message, "decrypt"):
                    message.content["arrays"] = self._catch_up(message, context)
        except HEError as error:
            return refuse(message, error)
        reply = self.train(message, context)
        if reply.has_error():
            return reply
        try:
            with timed(context, message, "encrypt"):
                content = self._sealed(message, context, reply)
        except HEError as error:
            return refuse(message, error)
        return Message(content, reply_to=message)

    def _sealed(self, message: Message, context: Context, reply: Message) -> RecordDict:
        """The answer: ciphertext and clear part. Metrics stay at home, but for a weight that is needed."""
        defence, sealing = self.defence(context), self._sealing(context)
        generator = self.rounding(message, context, defence.kind)
        rounding = bytes(torch.randint(256, (ROUNDING_BYTES,), generator=generator).tolist())
        vector = Layout.told(message.content.config_records["config"]).vector(
            *(dict(record.to_torch_state_dict()) for record in _records(message, reply))
        )
        count = reply.content.metric_records["metrics"]["num-examples"]
        weight = int(cast(float, count)) if defence.max_weight > 1 else 1
        hidden, clear = sealing.seal(vector, weight, rounding, _keys(context)[1] if defence.seeded else None)
        content = RecordDict()
        evidence = evidence_of(context)
        if hidden is not None:
            data = hidden.to_bytes()
            content["hidden"] = ArrayRecord({"vector": ciphertext_array(data)})
            evidence["homomorphic.bytes_per_encrypted_parameter"] = len(data) / len(sealing.selection.encrypted)
        if len(clear):
            content["clear"] = ArrayRecord({"vector": Array(clear)})
        if sealing.tells_weight:
            content["metrics"] = MetricRecord({"num-examples": weight})
        if self.colludes(context) and _keys(context)[1] is None:  # who holds the secret key hands over that
            content[HANDED] = ConfigRecord({"vector": vector.astype(np.float64).tobytes(), "weight": weight})
        evidence["homomorphic.encrypted_parameters"] = float(len(sealing.selection.encrypted))
        evidence["homomorphic.clear_parameters"] = float(len(clear))
        return content

    def _sealing(self, context: Context) -> Sealing:
        held = context.state.config_records[KEYS]
        selection = selection_of(cast(bytes, held["mask"]), cast(int, held["size"]))
        return Sealing(self.defence(context), _keys(context)[0], selection)

    def _catch_up(self, message: Message, context: Context) -> ArrayRecord:
        """Move the client's copy of the model by every aggregate that it has not seen; raises HEError.

        The first model ever received becomes the copy; a model that is sent later is not looked at.
        """
        secret = _keys(context)[1]
        if secret is None:
            raise KeyPolicyError("key: this client has none to decrypt the aggregates with")
        if MODEL not in context.state:
            context.state[MODEL] = message.content.array_records["arrays"]
        held = context.state.config_records[KEYS]
        state = dict(context.state.array_records[MODEL].to_torch_state_dict())
        config, records = message.content.config_records["config"], message.content.array_records
        sums, clear = records.get("aggregates", ArrayRecord()), records.get("aggregates_clear", ArrayRecord())
        seen = cast(int, held.get("seen", 0))
        layout = Layout.told(config)
        for key in sorted((key for key in sums if int(key) > seen), key=int):
            beside = clear[key].numpy() if key in clear else None
            total, weight = opened_sum(sums[key].data, beside, secret, self._sealing(context))
            mean = total / weight
            layout.move(state, cast(float, config["step_size"]), mean)
            seen = int(key)
            keep(context, DECRYPTED, seen, mean[: layout.size(state)])
        context.state[KEYS] = ConfigRecord({**held, "seen": seen})
        context.state[MODEL] = ArrayRecord(state)
        return context.state.array_records[MODEL]


def opened_sum(
    data: bytes, clear: NDArray[np.float64] | None, secret: SecretContext, sealing: Sealing
) -> tuple[NDArray[np.float64], int]:
    """The weighted sum (d,) and its weight behind an aggregate: ``data`` is its ciphertext, empty where nothing is
    encrypted; ``clear`` the sum of the clear parts with the sum of weights as the last value. Raises HEError."""
    total = Ciphertext.from_bytes(data, secret.public) if data else None
    known = ClearSum(np.empty(0), 0) if clear is None else ClearSum(clear[:-1], int(clear[-1]))
    return sealing.decrypted(secret, total, known)


def ciphertext_array(data: bytes) -> Array:
    """Ciphertext bytes as Flower carries them."""
    return Array("bytes", (len(data),), CIPHERTEXT, data)


def _records(message: Message, reply: Message) -> tuple[ArrayRecord, ArrayRecord, ArrayRecord]:
    """Update, buffers after the local training, and the model that it began with."""
    answered = reply.content.array_records
    return answered["update"], answered.get("buffers", ArrayRecord()), message.content.array_records["arrays"]


def _keys(context: Context) -> tuple[AnyContext, SecretContext | None]:
    held = cast(bytes, context.state.config_records[KEYS]["context"])
    if not carries_secret_key(held):
        return open_context(held), None
    secret = open_secret(held)
    return secret.public, secret


def refuse(message: Message, error: HEError) -> Message:
    """The answer of a client that does not do what it is asked."""
    return Message(Error(REFUSED, f"{type(error).__name__}: {error}"), reply_to=message)
