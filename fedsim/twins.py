"""Cells that differ only in who attacks the model that comes out of it: trained once, and shared."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from fedsim.answers import measured_controls
from fedsim.cells import Machine, train_cell
from fedsim.experiment import Experiment
from fedsim.grids import one_thread
from fedsim.report.progress import Progress
from fedsim.scenario import Cell, Scenario
from fedsim.store import RunFolder, load_training, read_json, write_json

AFTER_TRAINING = {"deployment", "attacks"}
"""Fields of a scenario that no client and no server reads."""


def training_of(scenario: Scenario) -> str:
    """What fixes a training, and what is kept of it: equal for cells that can share one."""
    fields = scenario.model_dump(mode="json", exclude=AFTER_TRAINING)
    kept = [sorted(scenario.attacked_rounds), sorted(scenario.released_rounds)]
    return json.dumps([fields, kept], sort_keys=True)


def train_all(
    folder: RunFolder, cells: Sequence[tuple[Cell, Experiment]], machine: Machine, progress: Progress
) -> None:
    """Train every cell, or store what a twin of it already gave."""
    trained: dict[str, Path] = {}
    for cell, experiment in cells:
        place, key = folder.cell(cell.digest), training_of(cell.scenario)
        twin = trained.get(key)
        if twin is None or failed(twin):
            train_cell(folder, cell, experiment, machine, progress)
            trained[key] = place
        else:
            adopt(twin, place, experiment)
            progress.advance(cell.scenario.federation.rounds, "trained already, for another deployment")


def failed(place: Path) -> bool:
    """Whether the training that is stored there gave no model."""
    return read_json(place / "measured.json")["cause"] is not None


def adopt(twin: Path, place: Path, experiment: Experiment) -> None:
    """Store the training of ``twin``, which is not attacked yet, for another deployment, whose controls are measured.

    ``measured.json`` comes last.
    """
    place.mkdir(parents=True, exist_ok=True)
    for file in sorted(twin.iterdir()):
        if file.is_file() and file.name not in ("training.json", "measured.json"):
            shutil.copyfile(file, place / file.name)
    held = read_json(twin / "training.json")
    write_json(place / "training.json", {**held, "scenario": experiment.scenario.model_dump(mode="json")})
    measured = read_json(twin / "measured.json")
    with one_thread():
        measured["evidence"]["deployment"] = measured_controls(experiment, load_training(place).state)
    write_json(place / "measured.json", measured)
