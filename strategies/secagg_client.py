"""Secure aggregation's client half: handlers of a Flower ClientApp that speak ``crypto.secagg`` around its training.

Stages arrive as ``train.sa_<stage>``. A client's secrets stay in its own ``Context.state`` from stage to stage; in a
simulation that state lies with the experimenter, never with the server.
"""

import hashlib
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from numpy.typing import NDArray

from crypto.errors import PolicyViolation, SecAggError, UnknownClient
from crypto.keys import KEY_BYTES, SigningKey
from crypto.secagg import STAGES, Client, Identity, Terms
from strategies.clock import timed
from strategies.federated import DROPPED_OUT
from strategies.secure_aggregation import SecureAggregation, flat
from strategies.wire import ENCODED, MASKED, digest

REFUSED = 1002
"""Error code of a client that ended the protocol; the reason names the error, the client and the stage."""
SECRETS = "secure_aggregation"
"""The record of ``Context.state`` that holds a client's keys and shares."""
HANDED = "handed"
"""The record of an answer in which a colluding client hands over its encoded vector."""


def bound_hash(model: bytes, cohort: Sequence[int]) -> bytes:
    """What a round's keys are bound to besides its terms: the model, and who stands where in the cohort."""
    return hashlib.sha256(model + b"".join(client.to_bytes(8, "little") for client in cohort)).digest()


@dataclass(frozen=True)
class SecureAggregationClient:
    """The client of one protocol run after another.

    ``train`` is the app's own training, behind the defences that act on plain numbers. ``defence`` finds the
    parameters that this client demands, ``rounding`` a generator for stochastic rounding (keys and masks come from
    the operating system), ``leaves_at`` the stage from which it is silent in a round, as a scenario's dropout asks,
    ``colludes`` whether it helps the server.
    """

    train: ClientAppCallable
    defence: Callable[[Context], SecureAggregation]
    rounding: Callable[[Message, Context, str], torch.Generator]
    leaves_at: Callable[[Message, Context], str | None]
    colludes: Callable[[Context], bool] = lambda context: False

    def register(self, app: ClientApp) -> None:
        """Add the protocol's handlers to ``app``."""
        app.query("sa_enrol")(self.enrol)
        app.query("sa_directory")(self.learn_directory)
        app.train("sa_ideal")(self.ideal)
        for stage in STAGES:
            app.train(f"sa_{stage}")(self.answer)

    def enrol(self, message: Message, context: Context) -> Message:
        """Make a long-lived signing key; answer with its public half, for the directory."""
        identity = Identity(SigningKey(os.urandom(KEY_BYTES)))
        _keep(context, identity=pickle.dumps(identity))
        key = ConfigRecord({"public": identity.signing_key.public})
        return Message(RecordDict({"key": key}), reply_to=message)

    def learn_directory(self, message: Message, context: Context) -> Message:
        """Take every client's public key from the party that clients trust with that."""
        known = {int(client): key for client, key in message.content.config_records["directory"].items()}
        _keep(context, directory=pickle.dumps(known))
        return Message(RecordDict(), reply_to=message)

    def answer(self, message: Message, context: Context) -> Message:
        """One stage of the protocol; a message against the rules ends it for this client, with a typed error."""
        stage = message.metadata.message_type.removeprefix("train.sa_")
        left = self.leaves_at(message, context)
        if left is not None and STAGES.index(stage) >= STAGES.index(left):
            return Message(Error(DROPPED_OUT, f"dropped out at {left}"), reply_to=message)
        try:
            if stage == "masked":
                return self._masked(message, context)
            begin_or_go_on = self._begin if stage == "advertise" else self._go_on
            client, spoken = begin_or_go_on(message, context)
        except SecAggError as error:
            return Message(Error(REFUSED, str(error)), reply_to=message)
        _keep(context, client=pickle.dumps(client))
        return Message(RecordDict({"protocol": ConfigRecord({"message": spoken})}), reply_to=message)

    def ideal(self, message: Message, context: Context) -> Message:
        """The encoded vector for a trusted party to add: what would be masked, without the masks."""
        left = self.leaves_at(message, context)
        if left is not None and STAGES.index(left) <= STAGES.index("masked"):
            return Message(Error(DROPPED_OUT, f"dropped out at {left}"), reply_to=message)
        reply = self.train(message, context)
        if reply.has_error():
            return reply
        defence, index = self.defence(context), cast(int, message.content.config_records["protocol"]["index"])
        terms = Terms.decode(_spoken(message), client=index, stage="advertise")
        update, rounding = _vector(reply, defence), self._rounding(message, context, defence)
        try:
            with timed(context, message, "encode"):
                words = terms.encoding.encode(*update, rounding)
        except ValueError as error:
            return Message(Error(REFUSED, str(error)), reply_to=message)
        return _hidden(reply, ENCODED, words.tobytes(), message)

    def _begin(self, message: Message, context: Context) -> tuple[Client, bytes]:
        held, config = context.state.config_records[SECRETS], message.content.config_records["protocol"]
        cohort, own = list(cast(list[int], config["cohort"])), cast(int, context.node_config["partition-id"])
        if own not in cohort or len(set(cohort)) < len(cohort):
            raise UnknownClient(
                own, "advertise", "the cohort as the server names it lacks this client, or has one twice"
            )
        known = pickle.loads(cast(bytes, held["directory"]))
        identity = pickle.loads(cast(bytes, held["identity"]))
        directory = {index: known[client] for index, client in enumerate(cohort) if client in known}
        client = Client(cohort.index(own), self.defence(context).safeguards, replace(identity, directory=directory))
        model = cast(str, config["model"]).encode()
        with timed(context, message, "advertise"):
            spoken = client.advertise(_spoken(message), bound_hash(model, cohort))
        _keep(context, identity=pickle.dumps(client.identity), model=model)
        return client, spoken

    def _go_on(self, message: Message, context: Context) -> tuple[Client, bytes]:
        client, stage = _client(context), message.metadata.message_type.removeprefix("train.sa_")
        steps = {"shares": client.share, "consistency": client.endorse, "unmask": client.unmask}
        with timed(context, message, stage):
            return client, steps[stage](_spoken(message))

    def _masked(self, message: Message, context: Context) -> Message:
        client, defence = _client(context), self.defence(context)
        if defence.safeguards.bound_terms and (
            digest(message.content.array_records["arrays"]).encode() != context.state.config_records[SECRETS]["model"]
        ):
            raise PolicyViolation(client.index, "masked", "the model is not the one that the round's keys are bound to")
        reply = self.train(message, context)
        if reply.has_error():
            return reply
        update, rounding = _vector(reply, defence), self._rounding(message, context, defence)
        with timed(context, message, "masked"):
            hidden = client.mask(_spoken(message), *update, rounding)
        _keep(context, client=pickle.dumps(client))
        answer = _hidden(reply, MASKED, hidden, message)
        if self.colludes(context):
            words = client.terms.encoding.encode(*update, rounding)
            answer.content[HANDED] = ConfigRecord({"words": words.tobytes()})
        return answer

    def _rounding(self, message: Message, context: Context, defence: SecureAggregation) -> bytes:
        generator = self.rounding(message, context, defence.kind)
        return bytes(torch.randint(256, (KEY_BYTES,), generator=generator).tolist())


def _keep(context: Context, **values: bytes) -> None:
    context.state[SECRETS] = ConfigRecord({**context.state.config_records.get(SECRETS, {}), **values})


def _client(context: Context) -> Client:
    return cast(Client, pickle.loads(cast(bytes, context.state.config_records[SECRETS]["client"])))


def _spoken(message: Message) -> bytes:
    return cast(bytes, message.content.config_records["protocol"]["message"])


def _vector(reply: Message, defence: SecureAggregation) -> tuple[NDArray[np.float32], int]:
    """The update as one vector, and its weight."""
    weight = cast(float, reply.content.metric_records["metrics"]["num-examples"]) if defence.max_weight > 1 else 1
    return flat(dict(reply.content.array_records["update"].to_torch_state_dict())), int(weight)


def _hidden(reply: Message, form: str, data: bytes, message: Message) -> Message:
    """The answer with the update hidden. Buffers travel as they are; metrics stay at home."""
    vector = ArrayRecord({"vector": Array("bytes", (len(data),), form, data)})
    beside = {"buffers": reply.content["buffers"]} if "buffers" in reply.content else {}
    return Message(RecordDict({"hidden": vector, **beside}), reply_to=message)
