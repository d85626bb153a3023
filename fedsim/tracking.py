"""A finished run handed to the tools that teams track experiments with: MLflow and TensorBoard, both optional."""

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedsim.difference import flat
from fedsim.store import StoreError

REMEDY = "install it with: pip install -e '.[tracking]'"
ARTEFACTS = ("report.html", "report.md", "results.json", "figures")
STRANGE = re.compile(r"[^\w\-. :/]")
"""What MLflow takes in no name."""
MOST_PARAMS, MOST_METRICS = 100, 1000
"""So many MLflow takes in one request."""
WORST = {"mse": min}
"""Metrics of which the smallest is the worst for the client; of all others the largest is."""


def log_to_mlflow(folder: Path, results: Mapping[str, Any], uri: str) -> int:
    """Log the run as an MLflow run under the scenario's name, with its documents, and every cell as a run below it.

    A cell's run holds its settings, accuracy by round, leakage, epsilon and cost. Returns how many cells were logged;
    those that are there whole are left as they are. Raises StoreError where MLflow is not installed, or its server
    refuses: what was cut off then is logged anew the next time.
    """
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise StoreError(f"mlflow = {uri!r}: MLflow is not installed; {REMEDY}") from None
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a server that is not there is said within seconds
    try:
        experiments = mlflow.MlflowClient(tracking_uri=uri)
        name = str(results["scenario"]["name"])
        held = experiments.get_experiment_by_name(name)
        book = Book(experiments, held.experiment_id if held else experiments.create_experiment(name))
        cells = [cell for cell in results["cells"] if not book.holds(cell["digest"])]
        if not cells and book.holds(results["digest"]):
            return 0
        parent = book.begin(name, results["digest"], {"fedsim": str(results["fedsim"])})
        for artefact in filter(Path.exists, (folder / name for name in ARTEFACTS)):
            log = experiments.log_artifacts if artefact.is_dir() else experiments.log_artifact
            log(parent, str(artefact), artefact.name if artefact.is_dir() else None)
        settings = {key: value for key, value in flat(results["scenario"]) if not key.startswith(("compare", "seeds"))}
        for cell in cells:
            run = book.begin(cell_title(cell), cell["digest"], {"mlflow.parentRunId": parent, "status": cell["status"]})
            scenario = {f"scenario.{key}": value for key, value in settings.items()}
            book.fill(run, {**scenario, **cell["labels"], "seed": cell["seed"]}, scalars(cell))
            experiments.set_terminated(run, "FINISHED" if cell["status"] == "done" else "FAILED")
        experiments.set_terminated(parent)
        return len(cells)
    except MlflowException as error:
        raise StoreError(f"mlflow = {uri!r}: {' '.join(str(error).split())}; try again once it answers") from None


class Book:
    """One MLflow experiment, whose runs are told apart by the digests of what they hold."""

    def __init__(self, client: Any, experiment: str) -> None:
        self._client, self._experiment = client, experiment

    def holds(self, digest: str) -> bool:
        """Whether a run of ``digest`` is there whole."""
        return any(run.info.status in ("FINISHED", "FAILED") for run in self._runs(digest))

    def begin(self, name: str, digest: str, tags: Mapping[str, str]) -> str:
        """Start a run, in the place of one that was cut off; its id."""
        for run in self._runs(digest):
            self._client.delete_run(run.info.run_id)
        begun = self._client.create_run(self._experiment, run_name=name, tags={**tags, "digest": digest})
        return str(begun.info.run_id)

    def fill(self, run: str, params: Mapping[str, Any], metrics: Iterable[tuple[str, float, int]]) -> None:
        """Log a run's settings and scalars, in as few requests as MLflow takes."""
        from mlflow.entities import Metric, Param

        now = int(1000 * time.time())
        told = [Param(STRANGE.sub("", key), str(value)[:500]) for key, value in params.items()]
        measured = [Metric(STRANGE.sub("", key), value, now, step) for key, value, step in metrics]
        for first in range(0, len(told), MOST_PARAMS):
            self._client.log_batch(run, params=told[first : first + MOST_PARAMS])
        for first in range(0, len(measured), MOST_METRICS):
            self._client.log_batch(run, metrics=measured[first : first + MOST_METRICS])

    def _runs(self, digest: str) -> list[Any]:
        return list(self._client.search_runs([self._experiment], f"tags.digest = '{digest}'"))


def log_to_tensorboard(results: Mapping[str, Any], place: Path) -> int:
    """Write every cell's scalars as a TensorBoard run of its own below ``place``; returns how many.

    Raises StoreError where TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise StoreError(f"tensorboard = {place}: TensorBoard is not installed; {REMEDY}") from None
    for cell in results["cells"]:
        with SummaryWriter(str(place / f"{cell_title(cell).replace('/', '-')}-{cell['digest'][:8]}")) as writer:
            for tag, value, step in scalars(cell):
                writer.add_scalar(tag, value, step)
    return len(results["cells"])


def cell_title(cell: Mapping[str, Any]) -> str:
    """A cell's labels and seed in a few words."""
    return ", ".join([*cell["labels"].values(), f"seed {cell['seed']}"])


def scalars(cell: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Every (tag, value, round) of a cell: training as it went, leakage by attack, epsilon and bytes at the end."""
    last = 0
    for row in cell["training"]:
        last = row["round"]
        for name in ("accuracy", "loss"):
            if row.get(name) is not None:
                yield f"training/{name}", row[name], last
    for attack in cell["attacks"]:
        found: dict[str, list[float]] = {}
        for victim in attack["victims"]:
            for metric, values in victim["figures"].items():
                kept = values if isinstance(values, list) else [values]
                found.setdefault(metric, []).extend(value for value in kept if value is not None)
        for metric, values in found.items():
            if values:
                yield f"{attack['name']}/{metric}.mean", sum(values) / len(values), attack["round"]
                yield f"{attack['name']}/{metric}.worst", WORST.get(metric, max)(values), attack["round"]
    for attack in cell.get("inferences", ()):
        for metric, figure in attack["figures"].items():
            if figure.get("value") is not None:
                yield f"{attack['name']}/{metric}", figure["value"], attack["round"]
    if (cell["privacy"] or {}).get("epsilon") is not None:
        yield "epsilon", cell["privacy"]["epsilon"], last
    for name, value in cell["cost"].items():
        if isinstance(value, int | float):
            yield f"cost/{name}", value, last
