"""Running a scenario: train every cell, attack what its server saw, score against the truth, write the report."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.cells import Engine, Machine, attack_cells, preflight, train_cell
from fedsim.experiment import Experiment
from fedsim.publish import gather, publish
from fedsim.report.progress import Progress
from fedsim.scenario import Cell, Scenario
from fedsim.store import RunFolder, StoreError


@dataclass(frozen=True)
class Result:
    """A finished run: the folder it lies in, and the content of its results.json."""

    out: Path
    results: Mapping[str, Any]

    @property
    def cells(self) -> list[Mapping[str, Any]]:
        """One entry a cell: training, privacy, side channels, cost, and what each attack recovered."""
        return list(self.results["cells"])

    @property
    def summary(self) -> list[Mapping[str, Any]]:
        """One row for each compared setting, attack and round, over all seeds."""
        return list(self.results["summary"])

    @property
    def problems(self) -> list[str]:
        """Everything that went wrong, one line each: failed cells, clients that could not be used, failed attacks."""
        lines = []
        for cell in self.cells:
            where = ", ".join([*cell["labels"].values(), f"seed {cell['seed']}"])
            if cell["cause"]:
                lines.append(f"{where}: {cell['cause']}")
            for row in cell["training"]:
                lines += [f"{where}: round {row['round']}, client {c}: {r}" for c, r in row.get("failed", {}).items()]
            lines += [f"{where}: {a['name']}: {a['reason']}" for a in cell["attacks"] if a["status"] == "failed"]
        return lines


def run(
    scenario: Scenario,
    out: Path | str | None = None,
    *,
    engine: Engine = "inline",
    address: str | None = None,
    resume: bool = False,
    truth: bool = True,
    quiet: bool = True,
) -> Result:
    """Run every cell of ``scenario`` and write ``results.json``, ``report.html`` and the figures into ``out``.

    ``out`` defaults to ``runs/NAME``. With ``resume``, cells that the folder already holds are not run again. With
    ``truth`` False nothing that clients hold is written. Bad input raises before anything on disk is touched:
    TaskError, StoreError or GridError, each with one line that says what to change.
    """
    cells, machine = scenario.cells(), Machine(engine, address)
    with Progress(quiet) as progress:
        progress.stage("checking data and models", len(cells))
        experiments = [preflight(cell, progress) for cell in cells]
        machine.grid(experiments[0])  # an engine that cannot start is refused here
        path = Path(out) if out else default_out(scenario)
        folder = RunFolder.begin(path, scenario, resume=resume)
        todo = _missing(folder, zip(cells, experiments, strict=True), "cell.json")
        untrained = _missing(folder, todo, "measured.json")
        progress.stage("training", sum(cell.scenario.federation.rounds for cell, _ in untrained))
        for cell, experiment in untrained:
            train_cell(folder, cell, experiment, machine, progress)
        attack_cells(folder, todo, machine, progress, truth=truth)
        progress.stage("writing the report", 1)
        results = gather(folder, scenario, engine)
        result = Result(path, results)
        if result.problems and folder.finished:
            folder.discard()
            raise StoreError(f"{'; '.join(result.problems)} (the earlier run in {path} is kept as it was)")
        publish(folder.settle(), results)
        progress.advance()
    return result


def _missing(folder: RunFolder, cells: Iterable[tuple[Cell, Experiment]], file: str) -> list[tuple[Cell, Experiment]]:
    """The cells that the folder does not hold as far as ``file``."""
    return [(cell, experiment) for cell, experiment in cells if not (folder.cell(cell.digest) / file).exists()]


def default_out(scenario: Scenario) -> Path:
    """``runs/NAME``; where that already holds another scenario, the name with this one's digest."""
    path = Path("runs") / scenario.name.replace(" ", "-")
    taken = (path / "scenario.json").exists() and RunFolder.scenario_of(path).digest != scenario.digest
    return path.with_name(f"{path.name}-{scenario.digest[:8]}") if taken else path
