"""A Grid that writes down what crosses another Grid, and turns it into the server's View."""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, cast

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor, nn

from attacks.view import Kind, Update, View
from attacks.view import Message as Seen
from strategies.opened import Opened
from strategies.wire import Reader, State, digest, form_of, numbers, payload_bytes, plain
from strategies.wrapped import WrappedGrid


def first_appearance() -> Callable[[int], int]:
    """Numbers nodes 0, 1, 2, ... as they are first seen: for grids whose node ids say nothing about partitions."""
    known: dict[int, int] = {}
    return lambda node: known.setdefault(node, len(known))


@dataclasses.dataclass(frozen=True)
class _Instruction:
    """What a reply is read against: the message that it answers."""

    node: int
    round: int
    update_kind: str | None
    broadcast: str | None


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One message, its ``client`` still a node id; messages of one batch crossed together, in no order that counts."""

    batch: int
    message: Seen
    answers: _Instruction | None = None


class RecordingGrid(WrappedGrid):
    """Passes everything through to ``inner`` unchanged, and remembers it as the server saw it.

    ``partition_of`` names clients by node id; the default is that of fedsim's own grids, ``node_id - 1``. On a
    grid with random node ids set it before ``view``: from a roll call, or to ``first_appearance()``. The arrays of
    rounds for which ``keep`` is false are not held: their messages are listed, but yield no updates.

    A message's round is the entry ``round`` or ``server-round`` in a ConfigRecord of the instruction, else its
    ``group_id``, else 0.
    """

    def __init__(
        self,
        inner: Grid,
        *,
        partition_of: Callable[[int], int] = lambda node: node - 1,
        keep: Callable[[int], bool] = lambda round: True,
    ) -> None:
        super().__init__(inner)
        self.partition_of = partition_of
        self._keep = keep
        self._batches = 0
        self._entries: list[_Entry] = []
        self._broadcasts: dict[str, State] = {}
        self._sent_in: dict[int, str] = {}
        self._open: dict[str, _Instruction] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass through, and record what is sent."""
        messages = list(messages)
        instructions = self._record_sent(messages)
        ids = list(self.inner.push_messages(messages))
        self._expect_replies(messages, instructions)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass through, and record what is received."""
        replies = list(self.inner.pull_messages(message_ids))
        self._record_received(replies)
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Pass through, and record what is sent and received."""
        messages = list(messages)
        instructions = self._record_sent(messages)  # before the inner grid or a client can touch them
        replies = list(self.inner.send_and_receive(messages, timeout=timeout))
        self._expect_replies(messages, instructions)
        self._record_received(replies)
        return replies

    def view(
        self,
        model: nn.Module,
        opened: Sequence[Opened] = (),
        planted: Mapping[int, Mapping[str, Any]] = MappingProxyType({}),
    ) -> View:
        """The server's view so far; ``model`` is the architecture of which the state crossed the wire.

        ``opened`` is what the server's side of a protocol could read in what it received, ``planted`` what it put
        into the models of a round.

        A reply's ArrayRecord ``update`` is an update of the kind that the instruction's ``update_kind`` says, with
        ``buffers`` beside it. Any other reply is read as new weights where its only ArrayRecord has the entries and
        shapes of the model that was sent: its update is the delta, parameters returned minus parameters sent (taken
        in float64 and rounded to the parameters' type), its entries that are no parameters are buffers. Entries
        named ``0``, ``1``, ... stand for the model's state in order.

        Raises ValueError where the arrays do not fit ``model``.
        """
        model = copy.deepcopy(model)
        broadcasts = {d: _named(state, model) for d, state in self._broadcasts.items() if not _misfit(state, model)}
        messages = [
            dataclasses.replace(entry.message, client=self.partition_of(entry.message.client))
            for entry in self._entries
        ]
        # By client within a batch, not by arrival: the same run gives the same view on every engine.
        order = sorted(range(len(messages)), key=lambda i: (self._entries[i].batch, messages[i].client))
        updates = []
        for i in order:
            instruction = self._entries[i].answers
            if instruction is not None and instruction.broadcast is not None:
                sent = self._broadcasts[instruction.broadcast]
                found = _updates(messages[i], instruction.update_kind, instruction.broadcast, sent, model)
                if found and (misfit := _misfit(sent, model)):
                    raise ValueError(misfit)
                updates += found
        for o in opened:
            base = self._sent_in.get(o.round)
            if isinstance(o.base, str):
                base = o.base if o.base in broadcasts else None
            elif o.base is not None and self._keep(o.round):
                base = digest(ArrayRecord(dict(o.base)))
                broadcasts[base] = o.base
            if base is not None:
                beside: dict[str, Any] = {n: getattr(o, n) for n in ("buffers", "partial", "clients", "weight")}
                updates.append(Update(o.round, o.client, o.kind, base, o.arrays, o.contributors, **beside))
        return View("server", model, broadcasts, tuple(messages[i] for i in order), tuple(updates), dict(planted))

    def _record_sent(self, messages: Sequence[Message]) -> list[_Instruction]:
        reader, instructions = Reader(), []
        self._batches += 1
        for message in messages:
            node, round = message.metadata.dst_node_id, _round_of(message)
            broadcast = None
            model = _model_record(message.content)
            if model is not None and form_of(model) == "plain" and self._keep(round):
                broadcast, state = reader.read(model)
                self._broadcasts.setdefault(broadcast, state)
                self._sent_in.setdefault(round, broadcast)
            instructions.append(_Instruction(node, round, _update_kind(message.content), broadcast))
            self._entries.append(_Entry(self._batches, self._seen(message, node, round, "sent", reader)))
        return instructions

    def _expect_replies(self, messages: Sequence[Message], instructions: Sequence[_Instruction]) -> None:
        # A grid gives a message its id when it pushes it, so this comes after.
        for message, instruction in zip(messages, instructions, strict=True):
            self._open[message.metadata.message_id] = instruction

    def _record_received(self, replies: Sequence[Message]) -> None:
        reader = Reader()
        self._batches += 1
        for reply in replies:
            instruction = self._open.pop(reply.metadata.reply_to_message_id)
            seen = self._seen(reply, instruction.node, instruction.round, "received", reader)
            self._entries.append(_Entry(self._batches, seen, instruction))

    def _seen(
        self, message: Message, node: int, round: int, direction: Literal["sent", "received"], reader: Reader
    ) -> Seen:
        stage = message.metadata.message_type
        if message.has_error():
            reason = message.error.reason or f"error {message.error.code}"
            return Seen(round, node, direction, stage, error=reason)
        content = message.content
        forms = {name: form_of(record) for name, record in content.array_records.items()}
        arrays: dict[str, Mapping[str, Any]] = {}
        if self._keep(round):
            for name, record in content.array_records.items():
                clear = forms[name] == "plain"
                arrays[name] = reader.read(record)[1] if clear else {key: array.data for key, array in record.items()}
        return Seen(
            round=round,
            client=node,
            direction=direction,
            stage=stage,
            form=next((form for form in forms.values() if form != "plain"), "plain"),
            arrays=arrays,
            metrics=plain(content.metric_records),
            configs=plain(content.config_records),
            bytes=payload_bytes(content),
        )


def _updates(message: Seen, update_kind: str | None, base: str, sent: State, model: nn.Module) -> list[Update]:
    """The update that a reply holds in the clear: one or none."""
    if message.form != "plain" or not message.arrays:
        return []
    if update_kind in ("gradient", "delta") and "update" in message.arrays:
        kind, arrays, beside = cast(Kind, update_kind), message.arrays["update"], message.arrays.get("buffers", {})
    elif len(message.arrays) == 1 and _shapes(returned := next(iter(message.arrays.values()))) == _shapes(sent):
        kind, parameters = "delta", dict(model.named_parameters())
        delta = {name: _difference(returned[name], sent[name]) for name in returned}
        arrays = {name: tensor for name, tensor in _named(delta, model).items() if name in parameters}
        aliases = dict(model.named_parameters(remove_duplicate=False))  # tied weights cross the wire twice
        beside = {name: tensor for name, tensor in _named(returned, model).items() if name not in aliases}
    else:
        return []
    return [Update(message.round, message.client, kind, base, arrays, 1, beside, numbers(message.metrics))]


def _difference(after: Tensor, before: Tensor) -> Tensor:
    return (after.double() - before.double()).to(before.dtype)


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _named(state: State, model: nn.Module) -> State:
    """The state by the model's own names, for an app that sends its arrays as a list."""
    own = model.state_dict()
    if list(state) == [str(i) for i in range(len(own))]:
        return dict(zip(own, state.values(), strict=True))
    return state


def _misfit(state: State, model: nn.Module) -> str:
    """Why the state is none of this model's; empty where it is one."""
    found, own = _shapes(_named(state, model)), _shapes(model.state_dict())
    strangers = sorted(set(found) - set(own))
    wrong = sorted(name for name in set(found) & set(own) if found[name] != own[name])
    if not strangers and not wrong:
        return ""
    return (
        f"the arrays that crossed the wire do not fit this {type(model).__name__}: unknown names {strangers}, "
        f"wrong shapes {wrong}; pass the model whose state_dict the app sends"
    )


def _round_of(message: Message) -> int:
    for record in message.content.config_records.values():
        for key in ("round", "server-round"):
            if isinstance(value := record.get(key), int):
                return value
    group = message.metadata.group_id
    return int(group) if group.isdecimal() else 0


def _update_kind(content: RecordDict) -> str | None:
    records = content.config_records.values()
    return next((str(record["update_kind"]) for record in records if "update_kind" in record), None)


def _model_record(content: RecordDict) -> ArrayRecord | None:
    """The model in an instruction: the record ``arrays``, or the only one there is."""
    records = content.array_records
    if "arrays" in records:
        return records["arrays"]
    return next(iter(records.values())) if len(records) == 1 else None
