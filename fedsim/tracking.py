"""A finished run handed to the tools that teams track experiments with: MLflow and TensorBoard, both optional."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedsim.difference import flat
from fedsim.store import StoreError

REMEDY = "install it with: pip install -e '.[tracking]'"
ARTEFACTS = ("report.html", "results.json")


def log_to_mlflow(folder: Path, results: Mapping[str, Any], uri: str) -> int:
    """Log every cell as an MLflow run under the scenario's name: settings, accuracy by round, leakage, report.

    Returns how many runs were logged; cells that this experiment holds are left as they are. Raises StoreError where
    MLflow is not installed or its server refuses.
    """
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise StoreError(f"mlflow = {uri!r}: MLflow is not installed; {REMEDY}") from None
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        name = str(results["scenario"]["name"])
        held = client.get_experiment_by_name(name)
        experiment = held.experiment_id if held else client.create_experiment(name)
        logged = 0
        for cell in results["cells"]:
            if client.search_runs([experiment], f"tags.digest = '{cell['digest']}'"):
                continue
            tags = {"digest": cell["digest"], "status": cell["status"], "fedsim": str(results["fedsim"])}
            run = client.create_run(experiment, run_name=cell_title(cell), tags=tags).info.run_id
            for key, value in [*cell["labels"].items(), ("seed", cell["seed"])]:
                client.log_param(run, key, value)
            for key, value in flat(results["scenario"]):
                if not key.startswith(("compare", "seeds")):
                    client.log_param(run, f"scenario.{key}", str(value)[:500])
            for tag, value, step in scalars(cell):
                client.log_metric(run, tag, value, step=step)
            for artefact in ARTEFACTS:
                client.log_artifact(run, str(folder / artefact))
            client.set_terminated(run, "FINISHED" if cell["status"] == "done" else "FAILED")
            logged += 1
        return logged
    except MlflowException as error:
        raise StoreError(f"mlflow = {uri!r}: {' '.join(str(error).split())}") from None


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
                yield f"{attack['name']}/{metric}.worst", max(values), attack["round"]
    if (cell["privacy"] or {}).get("epsilon") is not None:
        yield "epsilon", cell["privacy"]["epsilon"], last
    for name, value in cell["cost"].items():
        if isinstance(value, int | float):
            yield f"cost/{name}", value, last
