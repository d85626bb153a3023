"""Using a finished run again: another attack on its stored views, or its report, without training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attacks import available
from fedsim.battery import BATTERY, on_model
from fedsim.cells import Engine, Machine, attack_cells, preflight
from fedsim.difference import load_results
from fedsim.names import nearest
from fedsim.publish import environment, gather, publish
from fedsim.report.progress import Progress
from fedsim.run import Result
from fedsim.scenario import Attack, AttackBudget, Scenario
from fedsim.search_path import add_folders
from fedsim.store import RunFolder, StoreError, exclusive, read_json


def attack_again(
    folder: Path | str,
    attack: str,
    *,
    rounds: Sequence[int] | None = None,
    victims: int | None = None,
    budget: Mapping[str, Any] | None = None,
    engine: Engine = "inline",
    address: str | None = None,
    quiet: bool = True,
    command: str | None = None,
) -> Result:
    """Run ``attack`` on the views that a run folder holds, and publish its results with it.

    Rounds and victims default to those that the scenario attacked: of others a run keeps neither arrays nor model.
    """
    path = Path(folder)
    scenario = RunFolder.scenario_of(path)
    known = [BATTERY, *available()]
    if attack not in known:
        raise StoreError(f"attack = {attack!r}: unknown; {nearest(attack, known)}")
    held = sorted(scenario.released_rounds if on_model(attack) else _viewed(scenario))
    if not held:
        raise StoreError(
            f"attack = {attack!r}: the run kept {'no model' if on_model(attack) else 'no round'} to attack; name such "
            "an attack in the scenario and run again"
        )
    chosen = sorted(set(rounds)) if rounds else held
    if missing := [round for round in chosen if round not in held]:
        raise StoreError(f"round = {missing}: the views hold rounds {held} only; attack those or run again")
    asked = Attack(
        name=attack,
        rounds=tuple(chosen),
        victims=max(planned.victims for planned in scenario.attacks) if victims is None else victims,
        budget=AttackBudget(**(budget or {})),
    )
    with exclusive(path):
        run_folder = RunFolder.open(path, scenario)
        add_folders(run_folder.folders)
        with Progress(quiet) as progress:
            cells = [c for c in scenario.cells() if (run_folder.cell(c.digest) / "measured.json").exists()]
            if not cells:
                raise StoreError(f"{path}: holds no trained cell; run the scenario first")
            progress.stage("loading views", len(cells))
            todo = [(cell, preflight(cell, progress)) for cell in cells]
            for _, experiment in todo:
                run_folder.check_same(experiment)
            with_truth = all((run_folder.cell(cell.digest) / "truth.safetensors").exists() for cell in cells)
            machine = Machine(engine, address)
            attack_cells(run_folder, todo, machine, progress, truth=with_truth, extra=[asked])
            typed = [*_typed_before(path), command] if command else _typed_before(path)
            results = gather(run_folder, scenario, environment(engine, typed))
            publish(run_folder, results)
    return Result(path, results)


def _viewed(scenario: Scenario) -> set[int]:
    return {round for planned in scenario.attacks if not on_model(planned.name) for round in planned.rounds}


def _typed_before(path: Path) -> list[str]:
    results = path / "results.json"
    return list(read_json(results)["environment"].get("commands", [])) if results.exists() else []


def report_again(folder: Path | str) -> Path:
    """Write ``report.html`` again from what the run folder holds."""
    path = Path(folder)
    scenario = RunFolder.scenario_of(path)
    with exclusive(path):
        publish(RunFolder.open(path, scenario), dict(load_results(path)))
    return path / "report.html"
