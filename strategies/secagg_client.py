"""Secure aggregation's client half: handlers of a Flower ClientApp that speak ``crypto.secagg`` around its training.

Stages arrive as ``train.sa_<stage>``. A client's secrets stay in its own ``Context.state`` from stage to stage; in a
simulation that state lies with the experimenter, never with the server.
"""

import hashlib
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from numpy.typing import NDArray

from crypto.errors import (
    BadUpdate,
    InfeasibleParameters,
    MalformedMessage,
    PolicyViolation,
    SecAggError,
    UnknownClient,
    WrongStage,
)
from crypto.keys import KEY_BYTES, SigningKey
from crypto.secagg import STAGES, Client, Identity, Terms
from crypto.secagg.lying import Accomplice, Confided
from strategies.clock import timed
from strategies.collusion import HANDED, handed
from strategies.federated import DROPPED_OUT
from strategies.he_layout import Layout
from strategies.secure_aggregation import FLOWER, SecureAggregation
from strategies.wire import ENCODED, MASKED, digest

REFUSED = 1002
"""Error code of a client that ended the protocol; the reason names the error, the client and the stage."""
SECRETS = "secure_aggregation"
"""The record of ``Context.state`` that holds a client's keys and shares."""


LEAVES = "leaves"
"""The record of an answer to the trusted adder whose sender falls silent later in the round: from which stage on."""


def left_at(stage: str) -> str:
    """The reason of a reply that stands for a client which is silent from ``stage`` on."""
    return f"dropped out at {stage}"


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
        """Make a long-lived signing key; answer with its public half, for the directory. Once: rounds hang on it."""
        if SECRETS in context.state.config_records:
            return _refusal(UnknownClient(_own(context), "enrol", "this client is enrolled already"), message)
        identity = Identity(SigningKey(os.urandom(KEY_BYTES)))
        _keep(context, identity=pickle.dumps(identity))
        key = ConfigRecord({"public": identity.signing_key.public})
        return Message(RecordDict({"key": key}), reply_to=message)

    def learn_directory(self, message: Message, context: Context) -> Message:
        """Take every client's public key from the party that clients trust with that. Once: a server that could send
        another directory could put its own keys in."""
        if "directory" in context.state.config_records.get(SECRETS, {}):
            return _refusal(UnknownClient(_own(context), "enrol", "this client has its directory already"), message)
        known = {int(client): key for client, key in message.content.config_records["directory"].items()}
        _keep(context, directory=pickle.dumps(known))
        return Message(RecordDict(), reply_to=message)

    def answer(self, message: Message, context: Context) -> Message:
        """One stage of the protocol; a message against the rules ends it for this client, with a typed error."""
        stage = message.metadata.message_type.removeprefix("train.sa_")
        if refused := self._unagreed(message, context, stage, "protocol"):
            return refused
        left = self.leaves_at(message, context)
        if left is not None and STAGES.index(stage) >= STAGES.index(left):
            return Message(Error(DROPPED_OUT, left_at(left)), reply_to=message)
        try:
            _check_heard(message, context, stage)
            if stage == "masked":
                return self._masked(message, context)
            begin_or_go_on = self._begin if stage == "advertise" else self._go_on
            client, spoken = begin_or_go_on(message, context)
        except SecAggError as error:
            _end(context)
            return _refusal(error, message)
        _keep(context, client=pickle.dumps(client))
        return Message(RecordDict({"protocol": ConfigRecord({"message": spoken})}), reply_to=message)

    def ideal(self, message: Message, context: Context) -> Message:
        """The encoded vector for a trusted party to add: what would be masked, without the masks."""
        if refused := self._unagreed(message, context, "masked", "ideal"):
            return refused
        left = self.leaves_at(message, context)
        if left is not None and STAGES.index(left) <= STAGES.index("masked"):
            return Message(Error(DROPPED_OUT, left_at(left)), reply_to=message)
        defence, index = self.defence(context), cast(int, message.content.config_records["protocol"]["index"])
        try:
            terms = Terms.decode(_spoken(message), client=index, stage="advertise")
            update, rounding = self._trained(message, context), self._rounding(message, context, defence)
            with timed(context, message, "encode"):
                words = terms.encoding.encode(*update, rounding)
        except ValueError as problem:
            return _refusal(BadUpdate(_own(context), "masked", str(problem)), message)
        except SecAggError as error:
            return _refusal(error, message)
        answer = _hidden(ENCODED, words.tobytes(), message)
        if left is not None:
            answer.content[LEAVES] = ConfigRecord({"stage": left})
        if self.colludes(context):
            answer.content[HANDED] = handed(Confided(words, {}, {}))
        return answer

    def _unagreed(self, message: Message, context: Context, stage: str, mode: str) -> Message | None:
        """A refusal where the server asks in another way than this client's own configuration has it."""
        defence = self.defence(context)
        if defence.mode == mode and defence.profile != FLOWER:
            return None
        asked = message.metadata.message_type
        reason = f"the server asks by {asked!r}; this client agreed to {defence.profile!r}, mode {defence.mode!r}"
        return _refusal(PolicyViolation(_own(context), stage, reason), message)

    def _begin(self, message: Message, context: Context) -> tuple[Client, bytes]:
        held, config = context.state.config_records[SECRETS], message.content.config_records["protocol"]
        cohort, own = list(cast(list[int], config["cohort"])), _own(context)
        if own not in cohort or len(set(cohort)) < len(cohort):
            raise UnknownClient(
                own, "advertise", "the cohort as the server names it lacks this client, or has one twice"
            )
        known = pickle.loads(cast(bytes, held["directory"]))
        identity = pickle.loads(cast(bytes, held["identity"]))
        directory = {index: known[client] for index, client in enumerate(cohort) if client in known}
        kind = Accomplice if self.colludes(context) else Client
        try:
            demands = self.defence(context).demands(len(cohort))
        except InfeasibleParameters as problem:
            raise PolicyViolation(own, "advertise", str(problem)) from None
        client = kind(cohort.index(own), demands, replace(identity, directory=directory))
        model = cast(str, config["model"]).encode()
        with timed(context, message, "advertise"), _numbered(cohort):
            spoken = client.advertise(_spoken(message), bound_hash(model, cohort))
        _keep(context, identity=pickle.dumps(client.identity), model=model, cohort=cohort)
        return client, spoken

    def _go_on(self, message: Message, context: Context) -> tuple[Client, bytes]:
        client, stage = _client(context), message.metadata.message_type.removeprefix("train.sa_")
        steps = {"shares": client.share, "consistency": client.endorse, "unmask": client.unmask}
        with timed(context, message, stage), _numbered(_cohort(context)):
            return client, steps[stage](_spoken(message))

    def _masked(self, message: Message, context: Context) -> Message:
        client, defence = _client(context), self.defence(context)
        if defence.safeguards.bound_terms and (
            digest(message.content.array_records["arrays"]).encode() != context.state.config_records[SECRETS]["model"]
        ):
            reason = "the model is not the one that the round's keys are bound to"
            raise PolicyViolation(_own(context), "masked", reason)
        try:
            update, rounding = self._trained(message, context), self._rounding(message, context, defence)
        except ValueError as problem:
            raise BadUpdate(_own(context), "masked", str(problem)) from None
        with timed(context, message, "masked"), _numbered(_cohort(context)):
            hidden = client.mask(_spoken(message), *update, rounding)
        _keep(context, client=pickle.dumps(client))
        answer = _hidden(MASKED, hidden, message)
        if isinstance(client, Accomplice) and client.confided:
            answer.content[HANDED] = handed(client.confided)
        return answer

    def _trained(self, message: Message, context: Context) -> tuple[NDArray[np.float32], int]:
        """The update as one vector, statistics with it, and its weight; ValueError where training gives none."""
        reply = self.train(message, context)
        if reply.has_error():
            raise ValueError(reply.error.reason or f"training ended with error {reply.error.code}")
        return vector_of(reply, message), weight_of(reply, self.defence(context))

    def _rounding(self, message: Message, context: Context, defence: SecureAggregation) -> bytes:
        generator = self.rounding(message, context, defence.kind)
        return bytes(torch.randint(256, (KEY_BYTES,), generator=generator).tolist())


@contextmanager
def _numbered(cohort: Sequence[int]) -> Iterator[None]:
    """Errors from inside the protocol, which knows places in the cohort, name clients by number."""
    try:
        yield
    except SecAggError as error:
        raise error.numbered(cohort) from error


def _refusal(error: SecAggError, message: Message) -> Message:
    return Message(Error(REFUSED, str(error)), reply_to=message)


_NEEDED: Mapping[str, type] = {"message": bytes, "cohort": list, "model": str}
"""What the server says at the first stage; of it, at every later one only ``message``."""


def _check_heard(message: Message, context: Context, stage: str) -> None:
    """Raise MalformedMessage where a message lacks what its stage needs, WrongStage where nothing came before it."""
    said, first = message.content.config_records.get("protocol", ConfigRecord()), stage == "advertise"
    needed = _NEEDED.items() if first else [("message", bytes)]
    if wrong := [name for name, kind in needed if not isinstance(said.get(name), kind)]:
        raise MalformedMessage(_own(context), stage, f"the message holds no {', '.join(wrong)}")
    if stage == "masked" and "arrays" not in message.content.array_records:
        raise MalformedMessage(_own(context), stage, "the message holds no model")
    held = context.state.config_records.get(SECRETS, ConfigRecord())
    if "directory" not in held or (not first and "client" not in held):
        raise WrongStage(_own(context), stage, f"{'a directory' if first else 'an advert'} is due")


def _end(context: Context) -> None:
    """The round is over for this client, whatever the server says next."""
    if "client" in context.state.config_records.get(SECRETS, ConfigRecord()):
        client = _client(context)
        client.abort()
        _keep(context, client=pickle.dumps(client))


def _own(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _cohort(context: Context) -> list[int]:
    return cast(list[int], context.state.config_records[SECRETS]["cohort"])


def _keep(context: Context, **values: Any) -> None:
    context.state[SECRETS] = ConfigRecord({**context.state.config_records.get(SECRETS, {}), **values})


def _client(context: Context) -> Client:
    return cast(Client, pickle.loads(cast(bytes, context.state.config_records[SECRETS]["client"])))


def _spoken(message: Message) -> bytes:
    return cast(bytes, message.content.config_records["protocol"]["message"])


def vector_of(reply: Message, message: Message) -> NDArray[np.float32]:
    """What training answered, as one vector: the update, and by how much the model's statistics moved."""
    records = reply.content.array_records
    buffers = records["buffers"].to_torch_state_dict() if "buffers" in records else {}
    received = message.content.array_records["arrays"].to_torch_state_dict() if buffers else {}
    statistics = [name for name, held in buffers.items() if name in received and held.is_floating_point()]
    update = dict(records["update"].to_torch_state_dict())
    return Layout((), tuple(statistics)).vector(update, buffers, received)


def weight_of(reply: Message, defence: SecureAggregation) -> int:
    """The client's number of examples where the protocol weights, else 1."""
    weight = cast(float, reply.content.metric_records["metrics"]["num-examples"]) if defence.max_weight > 1 else 1
    return int(weight)


def _hidden(form: str, data: bytes, message: Message) -> Message:
    """The answer: the hidden vector alone. Metrics stay at home."""
    vector = ArrayRecord({"vector": Array("bytes", (len(data),), form, data)})
    return Message(RecordDict({"hidden": vector}), reply_to=message)
