"""What a run leaves for its readers: results.json, the report and, after a sweep, the database of the same figures."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fedsim.adversary import in_words
from fedsim.database import update_database
from fedsim.inferred import summarise_inferences
from fedsim.outcome import summarise
from fedsim.report import write_report
from fedsim.scenario import Scenario
from fedsim.store import SCHEMA_VERSION, RunFolder, as_json, load_tensors, read_json, write_json

PACKAGES = (
    "fedsim-leakage",
    "flwr",
    "ray",
    "torch",
    "numpy",
    "tenseal",
    "dp-accounting",
    "scikit-learn",
    "scikit-image",
)


def gather(folder: RunFolder, scenario: Scenario, environment: Mapping[str, Any]) -> dict[str, Any]:
    """The content of results.json, from the finished cells in the scenario's order."""
    cells, evidence, timings = [], {}, {}
    for cell in scenario.cells():
        place = folder.cell(cell.digest)
        cells.append({**read_json(place / "cell.json"), "threat_model": in_words(cell.scenario)})
        measured = read_json(place / "measured.json")
        evidence[cell.digest], timings[cell.digest] = measured["evidence"], measured["timings"]
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": scenario.model_dump(mode="json"),
        "digest": scenario.digest,
        "fedsim": version("fedsim-leakage"),
        "axes": {axis: list(labels) for axis, labels in (scenario.compare or {}).items()},
        "cells": cells,
        "summary": as_json(summarise(scenario, cells)),
        "inference_summary": as_json(summarise_inferences(cells)),
        "evidence": evidence,
        "timings": timings,
        "environment": dict(environment),
    }


def publish(folder: RunFolder, results: dict[str, Any]) -> None:
    """Write results.json, the report and its figures; a database that a sweep left there must tell the same."""
    pictures: dict[str, Tensor] = {}
    for cell in results["cells"]:
        for name in ("truth", "pictures"):
            pictures |= load_tensors(folder.cell(cell["digest"]) / f"{name}.safetensors")
    write_json(folder.path / "results.json", results)
    write_report(results, {key: np.asarray(tensor.double()) for key, tensor in pictures.items()}, folder.path)
    update_database(folder.path, results)


def environment(engine: str, commands: Sequence[str] = ()) -> dict[str, Any]:
    """Versions, machine, date and what was typed: what a rerun may differ in."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "engine": engine,
        "commands": list(commands),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "packages": versions,
    }


def processor() -> str:
    """The processor's model, on whose type figures repeat bit for bit; empty where the system does not say."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
