"""Running a scenario: train every cell, attack what its server saw, score against the truth, write the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.cells import Engine, Machine, attack_cells, preflight
from fedsim.publish import environment, gather, publish
from fedsim.report.progress import Progress
from fedsim.scenario import Cell, Scenario
from fedsim.store import RunFolder, StoreError, exclusive, read_json
from fedsim.twins import train_all


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
                if row.get("lie"):
                    continue  # clients that refuse a lie do what they should
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
    command: str | None = None,
) -> Result:
    """Run every cell of ``scenario`` and write ``results.json``, ``report.html`` and the figures into ``out``.

    ``out`` defaults to ``runs/NAME``. With ``resume``, cells that the folder holds are not run again unless they
    failed. With ``truth`` False the truth is left out; successful reconstructions and the raw updates are still
    clients' data. ``command`` is what the report says to type for the same run. Bad input raises before anything on
    disk is touched: TaskError, StoreError or GridError, each with one line that says what to change.
    """
    cells, machine = scenario.cells(), Machine(engine, address)
    with Progress(quiet) as progress:
        progress.stage("checking data and models", len(cells))
        experiments = [preflight(cell, progress) for cell in cells]
        machine.grid(experiments[0])  # an engine that cannot start is refused here
        path = Path(out) if out else default_out(scenario)
        with exclusive(path):
            folder = RunFolder.begin(path, scenario, resume=resume, truth=truth)
            planned = list(zip(cells, experiments, strict=True))
            untrained = [pair for pair in planned if lacks(folder, pair[0], "measured.json")]
            for pair in planned:
                if pair not in untrained:
                    folder.check_same(pair[1])
            todo = [pair for pair in planned if lacks(folder, pair[0], "cell.json")]
            progress.stage("training", sum(cell.scenario.federation.rounds for cell, _ in untrained))
            train_all(folder, untrained, machine, progress)
            attack_cells(folder, todo, machine, progress, truth=folder.truth)
            return conclude(folder, scenario, engine, command, progress)


def conclude(folder: RunFolder, scenario: Scenario, engine: str, command: str | None, progress: Progress) -> Result:
    """Write the results and the report of a run whose cells are all there.

    Raises StoreError where cells failed and an earlier, whole run of the scenario would be lost to this one.
    """
    progress.stage("writing the report", 1)
    results = gather(folder, scenario, environment(engine, [command] if command else []))
    result = Result(folder.path, results)
    if result.problems and folder.replaces:
        folder.discard()
        raise StoreError(f"{'; '.join(result.problems)} (the earlier run in {folder.path} is kept as it was)")
    publish(folder.settle(), results)
    progress.advance()
    return result


def lacks(folder: RunFolder, cell: Cell, file: str) -> bool:
    """Whether a cell is still to do: the folder does not hold it as far as ``file``, or its training failed."""
    stored = folder.cell(cell.digest) / file
    return not stored.exists() or read_json(stored)["cause"] is not None


def default_out(scenario: Scenario) -> Path:
    """``runs/NAME``; where that already holds another scenario, the name with this one's digest."""
    path = Path("runs") / scenario.name.replace(" ", "-")
    taken = (path / "scenario.json").exists() and RunFolder.scenario_of(path).digest != scenario.digest
    return path.with_name(f"{path.name}-{scenario.digest[:8]}") if taken else path
