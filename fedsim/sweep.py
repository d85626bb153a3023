"""Sweeping a scenario: every cell, trained and attacked, is one task on Ray; results are kept as they come in."""

import functools
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from fedsim.cells import Machine, attack_cells, preflight, train_cell
from fedsim.database import DATABASE, Database
from fedsim.experiment import Experiment
from fedsim.grids import one_thread
from fedsim.grids.pool import Size, worker_pool
from fedsim.grids.ray import stream_on_ray
from fedsim.report.progress import Progress
from fedsim.run import Result, conclude, default_out, lacks
from fedsim.scenario import Cell, Scenario
from fedsim.store import RunFolder, exclusive, read_json, write_bytes, write_json
from fedsim.twins import adopt, failed, training_of

Files = tuple[tuple[str, bytes], ...]
"""Names and contents."""


@dataclass(frozen=True)
class Finished:
    """What comes back from a cell: its files, ``cell.json`` last, or why there are none; and who worked how long."""

    files: Files
    cause: str | None
    node: str
    worker: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Work:
    """The task of a worker: one cell from training to scores, its clients one after another.

    Trainings that several cells of the sweep share, by ``twins.training_of``, are ``shared``: a worker keeps the last
    of these that it did in this ``sweep``, and its twins start from there.
    """

    sweep: str
    truth: bool
    shared: frozenset[str]

    def __call__(self, cell: Cell) -> Finished:
        started, cpu = time.perf_counter(), time.process_time()
        files: Files = ()
        cause = None
        try:
            with tempfile.TemporaryDirectory() as place, Progress(quiet=True) as progress:
                files = self._files(RunFolder(Path(place)), cell, progress)
        except Exception as error:  # whatever a cell breaks on is that cell's result, and must not end the sweep
            cause = f"{type(error).__name__}: {error}"
        spent = time.perf_counter() - started, time.process_time() - cpu
        return Finished(files, cause, machine(), os.getpid(), *spent)

    def _files(self, folder: RunFolder, cell: Cell, progress: Progress) -> Files:
        experiment = Experiment(cell.scenario)
        self._train(folder, cell, experiment, progress)
        attack_cells(folder, [(cell, experiment)], Machine("inline"), progress, truth=self.truth)
        return contents(folder.cell(cell.digest), last="cell.json")

    def _train(self, folder: RunFolder, cell: Cell, experiment: Experiment, progress: Progress) -> None:
        key, place, kept = training_of(cell.scenario), folder.cell(cell.digest), kept_training(self.sweep)
        if key in kept:
            write_all(folder.path / "twin", kept[key])
            adopt(folder.path / "twin", place, experiment)
            return
        train_cell(folder, cell, experiment, Machine("inline"), progress)
        if key in self.shared and not failed(place):
            kept.clear()
            kept[key] = contents(place, last="measured.json")


@functools.lru_cache(maxsize=1)
def kept_training(sweep: str) -> dict[str, Files]:
    """The last training of this process that others of the sweep share, by its key: one, since a view may be large."""
    return {}


def contents(place: Path, *, last: str) -> Files:
    """The files of a cell; the one that makes it count comes last."""
    paths = sorted(place.iterdir(), key=lambda path: (path.name == last, path.name))
    return tuple((path.name, path.read_bytes()) for path in paths)


def write_all(place: Path, files: Files) -> None:
    """Write files in their order, each whole or not at all."""
    for name, content in files:
        write_bytes(place / name, content)


def side_by_side(cells: Iterable[Cell]) -> tuple[list[Cell], frozenset[str]]:
    """The cells with those that share a training next to one another, and the trainings that are shared."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(training_of(cell.scenario), []).append(cell)
    return [cell for group in groups.values() for cell in group], frozenset(k for k, g in groups.items() if len(g) > 1)


def sweep(
    scenario: Scenario,
    out: Path | str | None = None,
    *,
    address: str | None = None,
    namespace: str | None = None,
    cpus_per_cell: float = 1,
    gpus_per_cell: float = 0,
    resume: bool = False,
    truth: bool = True,
    quiet: bool = True,
    command: str | None = None,
) -> Result:
    """Run every cell of ``scenario`` as a Ray task; the figures are those of ``fedsim.run``, and so is the folder.

    A cell is kept the moment it is finished, in its folder and in ``results.sqlite``: a worker or a machine that dies
    costs the cells in its hands, which are tried once more; a driver that dies, those in flight, which ``resume``
    runs. A cell that fails is listed with its cause. Bad input raises before anything on disk is touched: each setting
    is tried with its first seed; a seed that alone does not work is a failed cell.
    """
    cells = scenario.cells()
    path = Path(out) if out else default_out(scenario)
    with Progress(quiet) as progress:
        settings = {tuple(cell.labels.items()): cell for cell in reversed(cells)}
        progress.stage("checking data and models", len(settings))
        with one_thread():
            for cell in settings.values():
                preflight(cell, progress)
        size = Size(cpus_per_cell, gpus_per_cell)
        worker_pool().prepare(address, size, namespace)
        with exclusive(path):
            folder = RunFolder.begin(path, scenario, resume=resume, truth=truth)
            # An earlier run's database stays as it is until this run has its place.
            place = path / folder.stage if folder.replaces else path
            database = Database(place / DATABASE, scenario.digest, scenario.name)
            files = ("measured.json", "cell.json")
            held = {cell.digest: cell for cell in cells if not any(lacks(folder, cell, file) for file in files)}
            for cell in {tuple(cell.labels.items()): cell for cell in held.values()}.values():
                folder.check_same(Experiment(cell.scenario))  # one of each setting: data change for all seeds
            todo, shared = side_by_side(cell for cell in cells if cell.digest not in held)
            database.forget(cell.digest for cell in todo)
            database.bring_up_to_date(read_json(folder.cell(digest) / "cell.json") for digest in held)
            progress.stage("cells", len(todo))
            work = Work(secrets.token_hex(), folder.truth, shared)
            for index, outcome in stream_on_ray(work, todo, address=address, namespace=namespace, size=size):
                cell, finished = todo[index], outcome if isinstance(outcome, Finished) else lost(outcome.cause)
                _keep(folder, cell, finished)
                spent = {name: getattr(finished, name) for name in ("node", "worker", "seconds", "cpu_seconds")}
                database.add(read_json(folder.cell(cell.digest) / "cell.json"), **spent)
                progress.advance(text=", ".join([*cell.labels.values(), f"seed {cell.seed}"]))
            database.close()
            return conclude(folder, scenario, "ray", command, progress)


def machine() -> str:
    """The host that this worker runs on, and Ray's name for it: one host may be several nodes."""
    return f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:8]}"


def lost(cause: str) -> Finished:
    """What is left of a cell that ended two workers."""
    return Finished((), f"its Ray worker died twice: {cause}", "", 0, 0.0, 0.0)


def _keep(folder: RunFolder, cell: Cell, finished: Finished) -> None:
    """Write a finished cell into the run folder; of a failed one, its cause in the place of all files."""
    place = folder.cell(cell.digest)
    write_all(place, finished.files)
    if finished.cause is not None:
        write_json(place / "measured.json", {"cause": finished.cause, "evidence": {}, "timings": {}})
        write_json(place / "cell.json", failed_cell(cell, finished.cause))


def failed_cell(cell: Cell, cause: str) -> dict[str, Any]:
    """The entry of a cell that gave no results."""
    nothing: dict[str, Any] = {"training": [], "privacy": None, "side_channels": [], "cost": {}, "attacks": []}
    nothing |= {"inferences": [], "releases": []}
    named = {"labels": dict(cell.labels), "seed": cell.seed, "digest": cell.digest, "modality": None, "data": ""}
    return {**named, "status": "failed", "cause": cause, **nothing}
