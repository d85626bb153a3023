"""A pool of Ray workers that stays warm: processes with torch and Flower imported, kept from scenario to scenario."""

import functools
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cloudpickle
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from fedsim.grids import cluster
from fedsim.grids.base import GridError, one_thread
from fedsim.grids.versions import differences, versions
from fedsim.search_path import add_folders, own_folders

START_SECONDS = 180
"""How long to wait for the first worker: importing torch on a busy machine is slow, a full cluster is forever."""

MOST_STILLBORN = 10
"""So many workers in a row may fail to start while others go on: machines do leave a cluster."""

Task = Callable[[bytes], list[Any]]
"""What a worker runs: from a batch of jobs, as the caller serialised it, to one result for each."""


class Lost(NamedTuple):
    """The outcome of a job that ended two workers, or whose second worker was ended; ``cause`` is Ray's word."""

    cause: str


class Size(NamedTuple):
    """What a worker takes of its machine."""

    cpus: float = 1.0
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")


class Worker:
    """The process at the other end."""

    def ready(self) -> tuple[str, dict[str, str]]:
        """The machine and its packages' versions, once the process is up and the imports are done."""
        return socket.gethostname(), versions()

    def call(self, folders: list[str], task: bytes, batch: bytes) -> bytes:
        """Run a pickled Task on a batch, with one thread; what lies in ``folders`` can be imported."""
        add_folders(folders)
        with one_thread():
            return cloudpickle.dumps(cloudpickle.loads(task)(batch))


RemoteWorker: Any = ray.remote(Worker)


class WorkerPool:
    """Hands batches of jobs to workers; one exchange at a time.

    Workers are started when work asks for them, up to what the cluster holds, and then kept. One that dies is
    replaced; each job it had is tried once more, alone.
    """

    def __init__(self) -> None:
        self._connected: tuple[str | None, str] | None = None
        self._size = Size()
        self._idle: list[ActorHandle] = []
        self._starting: dict[ray.ObjectRef, ActorHandle] = {}
        self._stillborn = 0

    def prepare(self, address: str | None, size: Size | None = None, namespace: str | None = None) -> None:
        """Connect to Ray, if that is still to do, and let go of workers of another size than ``size``, if given.

        Raises GridError where the process is connected elsewhere, or no machine has room for such a worker.
        """
        if self._connected is None or not ray.is_initialized() or _job() != self._connected[1]:
            self._idle, self._starting = [], {}  # of a Ray that is gone
            if not ray.is_initialized():
                cluster.connect(address, namespace)
            self._connected = address, _job()
        elif address not in (None, self._connected[0]):
            raise GridError(
                f"address = {address!r}: this process already uses {self._connected[0] or 'a Ray of its own'}; "
                "use one address in a process"
            )
        if size is not None and size != self._size:
            cluster.largest_fit(size.cpus, size.gpus)
            self.dismiss()
            self._size = size

    def dismiss(self) -> None:
        """End all workers."""
        for worker in [*self._idle, *self._starting.values()]:
            ray.kill(worker)
        self._idle, self._starting = [], {}

    def run(
        self,
        task: Task,
        jobs: Sequence[Any],
        dumps: Callable[[list[Any]], bytes],
        *,
        most: int = 1,
        timeout: float | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Yield ``(index, result or Lost)`` as jobs finish, until all have or ``timeout`` seconds are over.

        A worker is given up to ``most`` jobs at once, fewer towards the end so that all finish together. What the
        task raises is raised here. Workers that are still busy when this ends are ended and replaced when needed.
        The caller may take its time over a result: the worker that gave it has its next jobs by then.
        """
        crew = min(cluster.largest_fit(self._size.cpus, self._size.gpus), len(jobs))
        sent, folders = ray.put(cloudpickle.dumps(task)), own_folders()
        fresh, again, tries = deque(range(len(jobs))), deque[int](), Counter[int]()
        busy: dict[ray.ObjectRef, tuple[ActorHandle, list[int]]] = {}
        finished: list[tuple[int, Any]] = []
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while fresh or again or busy or finished:
                self._hire(min(crew, len(fresh) + len(again) + len(busy)) - len(busy))
                while self._idle and (fresh or again):
                    size = max(1, min(most, len(fresh) // (2 * crew)))
                    indices = [again.popleft()] if again else [fresh.popleft() for _ in range(size)]
                    worker = self._idle.pop()
                    batch = dumps([jobs[i] for i in indices])
                    busy[worker.call.remote(folders, sent, batch)] = worker, indices
                yield from finished
                finished = []
                ref = self._next(busy, deadline) if fresh or again or busy else None
                if ref is None:
                    return
                if ref not in busy:
                    continue
                worker, indices = busy.pop(ref)
                try:
                    results = cloudpickle.loads(ray.get(ref))
                except RayTaskError as error:
                    self._idle.append(worker)
                    raise error.cause from None
                except RayError as error:
                    ray.kill(worker)
                    results = [Lost(_cause(error))] * len(indices)
                else:
                    self._idle.append(worker)
                for index, result in zip(indices, results, strict=True):
                    tries[index] += 1
                    if isinstance(result, Lost) and tries[index] < 2:
                        again.append(index)
                    else:
                        finished.append((index, result))
        finally:
            for worker, _ in busy.values():
                ray.kill(worker)

    def _hire(self, wanted: int) -> None:
        for _ in range(wanted - len(self._idle) - len(self._starting)):
            worker = RemoteWorker.options(num_cpus=self._size.cpus, num_gpus=self._size.gpus).remote()
            self._starting[worker.ready.remote()] = worker

    def _next(self, busy: dict[ray.ObjectRef, Any], deadline: float | None) -> ray.ObjectRef | None:
        """The next batch or start-up that has ended; None when the time is over."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        starting_only = not busy and (left is None or left > START_SECONDS)
        done, _ = ray.wait([*busy, *self._starting], timeout=START_SECONDS if starting_only else left)
        if not done:
            if not starting_only:
                return None
            free = ray.available_resources().get("CPU", 0.0)
            raise GridError(
                f"no worker could start within {START_SECONDS} s: a worker needs {self._size}, {free:g} CPUs are free; "
                "free some, or ask for less"
            )
        (ref,) = done
        if ref in self._starting:
            worker = self._starting.pop(ref)
            try:
                machine, theirs = ray.get(ref)
            except RayError as error:
                self._stillborn += 1
                if not (busy or self._idle or self._starting) or self._stillborn > MOST_STILLBORN:
                    remedy = "run `make setup` on the machines of the cluster, and start Ray from that environment"
                    raise GridError(f"a Ray worker could not start: {_cause(error)}; {remedy}") from error
                return ref  # its machine may be gone; the others go on
            if others := differences(theirs):
                raise GridError(f"machine {machine!r} would not give the same numbers: {', '.join(others)}; align them")
            self._idle.append(worker)
            self._stillborn = 0
        return ref


@functools.cache
def worker_pool() -> WorkerPool:
    """The process's pool: Ray allows a process one connection, so there is one pool."""
    return WorkerPool()


def _job() -> str:
    return str(ray.get_runtime_context().get_job_id())


def _cause(error: Exception) -> str:
    """What Ray's many lines come to: the last one that is neither a property nor a stack frame."""
    lines = [line for line in str(error).splitlines() if line and not line[0].isspace()]
    return lines[-1].rpartition("Worker exit detail: ")[2]
