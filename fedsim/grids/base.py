"""What every engine of ours shares: a Flower Grid over clients that live where the engine puts them."""

import importlib
import itertools
import traceback
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from threadpoolctl import threadpool_limits

RUN_ID = 1


class GridError(RuntimeError):
    """An engine that cannot start or go on; the message is one line that says what to change."""


class Work(NamedTuple):
    """What one client is given: itself, and the messages for it, in order."""

    context: Context
    messages: list[Message]


class Done(NamedTuple):
    """What came of it: a reply to each message, and the state that the client keeps."""

    replies: list[Message]
    state: RecordDict


class LocalGrid(Grid):
    """A Grid of ``num_clients`` clients without a SuperLink: node ``p + 1`` holds partition ``p``.

    ``client_app`` is a ClientApp or where to import one from (``"package.module:attribute"``). Every client has a
    Context of its own with ``run_config``, whose ``state`` lasts from message to message. Messages are copied, so
    that no client shares memory with the server or with another. Replies come sorted by node; a client that raises
    gives an error reply that begins with its exception. ``states`` is the experimenter's window on the clients.
    """

    def __init__(self, client_app: str | ClientApp, num_clients: int, run_config: Mapping[str, Any]) -> None:
        if num_clients < 1:
            raise GridError(f"num_clients = {num_clients}: must be at least 1")
        self.client_app = client_app
        self.states: dict[int, RecordDict] = {partition: RecordDict() for partition in range(num_clients)}
        self._run_config = dict(run_config)
        self._run = Run.create_empty(RUN_ID)
        self._ids = itertools.count(1)
        self._unpulled: dict[str, Message] = {}
        # Message() reads these process-wide names; they are the same for every grid of ours.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, SUPERLINK_NODE_ID, 1

    @abstractmethod
    def _exchange(self, work: Sequence[Work], timeout: float | None) -> Iterable[Done]:
        """Let every client answer; leave out those that have not when ``timeout`` seconds are over."""

    def set_run(self, run: Run) -> None:
        """Take over a run's description; the run's id stays ours."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run's description."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Flower's deprecated way to write ``Message(...)``."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Node ids, sorted."""
        return [partition + 1 for partition in self.states]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Have the messages answered (this blocks), and keep the replies until they are pulled."""
        messages = list(messages)
        replies = self.send_and_receive(messages)
        self._unpulled |= {reply.metadata.reply_to_message_id: reply for reply in replies}
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to pushed messages, each given out once."""
        return [self._unpulled.pop(id) for id in message_ids if id in self._unpulled]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Replies sorted by node id; a client that has not answered after ``timeout`` seconds has no reply."""
        by_node: dict[int, list[Message]] = {}
        for message in messages:
            node = message.metadata.dst_node_id
            if node - 1 not in self.states:
                raise GridError(f"dst_node_id = {node}: no such node; nodes are 1 to {len(self.states)}")
            message.metadata.__dict__["_message_id"] = str(next(self._ids))
            by_node.setdefault(node, []).append(message)
        work = [Work(self._context(node), by_node[node]) for node in sorted(by_node)]
        replies: list[Message] = []
        for done in self._exchange(work, timeout):
            replies += done.replies
            self.states[done.replies[0].metadata.src_node_id - 1] = done.state
        replies.sort(key=lambda reply: reply.metadata.src_node_id)
        for reply in replies:
            reply.metadata.__dict__["_message_id"] = str(next(self._ids))
        return replies

    def _context(self, node: int) -> Context:
        return Context(
            run_id=RUN_ID,
            node_id=node,
            node_config={"partition-id": node - 1, "num-partitions": len(self.states)},
            state=self.states[node - 1],
            run_config=self._run_config,
        )


def answer(app: ClientApp, work: Work) -> Done:
    """Run one client on copies of its messages; what it did to its state is kept only where it did not raise."""
    context, replies = work.context, []
    for message in work.messages:
        attempt = Context(
            run_id=context.run_id,
            node_id=context.node_id,
            node_config=dict(context.node_config),
            state=copy_records(context.state),
            run_config=dict(context.run_config),
        )
        try:
            # A client's sys.exit is that client's failure, not the simulator's end.
            reply = app(copy_message(message), attempt)
            _check_reply(reply, message)
        except (Exception, SystemExit) as error:
            reply = failure(message, _describe(error), ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
        else:
            reply, context = copy_message(reply), attempt
        replies.append(reply)
    return Done(replies, context.state)


def failure(message: Message, reason: str, code: int) -> Message:
    """The error reply that stands for a client which did not answer ``message``."""
    return Message(Error(code, reason), reply_to=message)


def load_client_app(ref: str | ClientApp) -> ClientApp:
    """Import ``"package.module:attribute"``; raises GridError where that is not a ClientApp."""
    if isinstance(ref, ClientApp):
        return ref
    module, _, attribute = ref.partition(":")
    try:
        app = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise GridError(f"client_app = {ref!r}: cannot be imported ({error}); write 'package.module:name'") from error
    if not isinstance(app, ClientApp):
        raise GridError(f"client_app = {ref!r}: is a {type(app).__name__}, must be a flwr.clientapp.ClientApp")
    return app


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch and BLAS: sums come out the same on every engine, and actors do not crowd each other."""
    before = torch.get_num_threads()
    with threadpool_limits(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def copy_message(message: Message) -> Message:
    """A message that shares nothing mutable with ``message``."""
    # Flower's own way to rebuild a message is private to it; a blank one with both dictionaries filled is the same.
    copied = Message.__new__(Message)
    metadata = type(message.metadata).__new__(type(message.metadata))
    metadata.__dict__.update(message.metadata.__dict__)
    content = copy_records(message.content) if message.has_content() else None
    copied.__dict__.update(_metadata=metadata, _content=content, _error=message.__dict__["_error"])
    return copied


def copy_records(records: RecordDict) -> RecordDict:
    """Records that share nothing mutable with ``records``: only bytes and numbers, which cannot change."""
    return RecordDict({name: type(record)(_copy_entries(record)) for name, record in records.items()})


def _copy_entries(record: Mapping[str, Any]) -> dict[str, Any]:
    # An ArrayRecord copies its Arrays itself; lists in configs and metrics are the only other mutable values.
    return {key: list(value) if isinstance(value, list) else value for key, value in record.items()}


def _check_reply(reply: object, message: Message) -> None:
    if not isinstance(reply, Message):
        raise TypeError(f"the ClientApp returned a {type(reply).__name__}, must return a Message")
    if reply.metadata.reply_to_message_id != message.metadata.message_id:
        raise ValueError("the ClientApp returned a Message that is no reply; write Message(content, reply_to=message)")


def _describe(error: BaseException) -> str:
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text} ({Path(where.filename).name}, line {where.lineno})"
