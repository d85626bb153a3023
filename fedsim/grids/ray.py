"""The engine for real work: Flower messages sent to a warm pool of Ray workers."""

import io
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle
from flwr.app import ArrayRecord, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from fedsim.grids.base import Done, GridError, LocalGrid, Work, answer, failure, load_client_app
from fedsim.grids.pool import Lost, Size, worker_pool

MOST_CLIENTS = 16
MOST_BYTES = 32 * 2**20
"""Clients handed to a worker at once: few enough to balance, many enough that the driver has little to do."""


class RayGrid(LocalGrid):
    """Runs clients on Ray workers that outlive the grid, ``cpus_per_client`` CPUs each.

    An app given as ``"package.module:attribute"`` is imported by the workers; one given as an object is sent to
    them with every exchange. What all messages share, such as the model that is broadcast, is stored once. A client
    whose worker dies is tried once more; if that dies too, its error reply says so. ``timeout`` ends the workers
    that are still busy.

    Raises GridError where Ray cannot be reached or the app cannot be imported.
    """

    def __init__(
        self,
        client_app: str | ClientApp,
        num_clients: int,
        run_config: Mapping[str, Any],
        *,
        address: str | None = None,
        cpus_per_client: float = 1,
    ) -> None:
        super().__init__(client_app, num_clients, run_config)
        load_client_app(client_app)
        self._address = address
        self._size = Size(cpus_per_client)
        self._pool = worker_pool()
        self._pool.prepare(address, self._size)

    def _exchange(self, work: Sequence[Work], timeout: float | None) -> Iterator[Done]:
        if not work:
            return
        self._pool.prepare(self._address, self._size)
        shared = [self._run_config, *_shared_records(work)]
        numbers = {id(thing): number for number, thing in enumerate(shared)}
        weight = sum(record.count_bytes() for message in work[0].messages for record in _arrays(message))
        most = max(1, min(MOST_CLIENTS, MOST_BYTES // max(1, weight)))
        task = _Clients(self.client_app, shared)
        for index, done in self._pool.run(task, work, lambda jobs: _dump(jobs, numbers), most=most, timeout=timeout):
            yield _lost(work[index], done) if isinstance(done, Lost) else done


def map_on_ray(
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    address: str | None,
    on_done: Callable[[int, Any], None],
) -> list[Any]:
    """``map_tasks`` on the workers of this process's Ray; raises GridError where an item ends two workers."""
    items = list(items)
    results = [None] * len(items)
    if not items:
        return results
    pool = worker_pool()
    pool.prepare(address)
    for index, result in pool.run(_Mapped(fn), items, cloudpickle.dumps):
        if isinstance(result, Lost):
            raise GridError(f"task {index} was lost with its Ray worker twice: {result.cause}")
        results[index] = result
        on_done(index, result)
    return results


def stream_on_ray(
    fn: Callable[[Any], Any], items: Sequence[Any], *, address: str | None, namespace: str | None, size: Size
) -> Iterator[tuple[int, Any]]:
    """``(index, fn(item))`` as items finish, ``Lost`` for one that ended two workers."""
    pool = worker_pool()
    pool.prepare(address, size, namespace)
    yield from pool.run(_Mapped(fn), items, cloudpickle.dumps)


@dataclass(frozen=True)
class _Clients:
    """The task of an exchange."""

    client_app: str | ClientApp
    shared: list[Any]

    def __call__(self, batch: bytes) -> list[Done]:
        app = load_client_app(self.client_app)
        return [answer(app, work) for work in _Unpickler(io.BytesIO(batch), self.shared).load()]


@dataclass(frozen=True)
class _Mapped:
    """The task of a map."""

    fn: Callable[[Any], Any]

    def __call__(self, batch: bytes) -> list[Any]:
        return [self.fn(item) for item in cloudpickle.loads(batch)]


class _Pickler(pickle.Pickler):
    """Writes a number in place of each object that the workers already hold."""

    def __init__(self, file: io.BytesIO, numbers: Mapping[int, int]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._numbers = numbers

    def persistent_id(self, thing: Any) -> int | None:
        return self._numbers.get(id(thing))


class _Unpickler(pickle.Unpickler):
    """Reads what the pickler wrote."""

    def __init__(self, file: io.BytesIO, shared: Sequence[Any]) -> None:
        super().__init__(file)
        self._shared = shared

    def persistent_load(self, number: int) -> Any:
        return self._shared[number]


def _dump(jobs: list[Work], numbers: Mapping[int, int]) -> bytes:
    file = io.BytesIO()
    _Pickler(file, numbers).dump(jobs)
    return file.getvalue()


def _shared_records(work: Sequence[Work]) -> list[ArrayRecord]:
    """The ArrayRecords that go to more than one client as the same object."""
    records = [record for item in work for message in item.messages for record in _arrays(message)]
    uses = Counter(map(id, records))
    return list({id(record): record for record in records if uses[id(record)] > 1}.values())


def _arrays(message: Message) -> list[ArrayRecord]:
    return list(message.content.array_records.values())


def _lost(work: Work, lost: Lost) -> Done:
    reason = f"the Ray worker of this client died twice: {lost.cause}"
    replies = [failure(message, reason, ErrorCode.CLIENT_APP_CRASHED) for message in work.messages]
    return Done(replies, work.context.state)
