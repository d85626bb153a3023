"""The command line: ``fedsim run``, ``attack``, ``report``, ``list``; scenario scripts take the flags of ``run``."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from attacks import available
from fedsim.again import attack_again, report_again
from fedsim.dry_run import forecast
from fedsim.grids import GridError
from fedsim.report.terminal import print_summary
from fedsim.run import Engine, Result, run
from fedsim.scenario import Scenario, explain
from fedsim.scripts import ScriptError, available_scripts, load_scenario
from fedsim.store import StoreError
from fedsim.tasks import DATASETS, MODELS, PARTITIONS, TaskError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

BAD_INPUT = 2
INTERRUPTED = 130

EngineFlag = Annotated[Engine, typer.Option(help="Where clients and attacks run.")]
AddressFlag = Annotated[str | None, typer.Option(help="Join this Ray cluster (host:port) instead of starting one.")]
SeedFlag = Annotated[list[int] | None, typer.Option(help="Replace the scenario's seeds; may be given several times.")]
OutFlag = Annotated[Path | None, typer.Option(help="The run folder; default runs/NAME.")]
ResumeFlag = Annotated[bool, typer.Option("--resume", help="Go on from the cells that the run folder already holds.")]
DryFlag = Annotated[bool, typer.Option("--dry-run", help="Say what would run, against whom and at what cost.")]
NoTruthFlag = Annotated[bool, typer.Option("--no-truth", help="Do not write clients' data to disk, nor into pictures.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", help="Print nothing but problems.")]


def _one_line(error: Exception) -> list[str]:
    if isinstance(error, ValidationError):
        return explain(error)
    return [" ".join(str(error).split())]


def refuses_bad_input(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what users can mend into one line each and exit code 2; anything else stays a traceback."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (ValidationError, ScriptError, StoreError, TaskError, GridError) as error:
            for line in _one_line(error):
                typer.echo(f"error: {line}", err=True)
            raise typer.Exit(BAD_INPUT) from None

    return guarded


@app.command("run")
@refuses_bad_input
def run_command(
    scenario: Annotated[str, typer.Argument(help="A scenario's name (fedsim list), a script, or a TOML file.")],
    engine: EngineFlag = "inline",
    address: AddressFlag = None,
    seed: SeedFlag = None,
    out: OutFlag = None,
    resume: ResumeFlag = False,
    dry_run: DryFlag = False,
    no_truth: NoTruthFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Run a scenario and write its report."""
    asked = load_scenario(scenario)
    if seed:
        asked = Scenario(**{**asked.model_dump(mode="json"), "seeds": seed})
    if dry_run:
        typer.echo(forecast(asked, engine))
        return
    try:
        result = run(asked, out, engine=engine, address=address, resume=resume, truth=not no_truth, quiet=quiet)
    except KeyboardInterrupt:
        where = f" --out {out}" if out else ""
        typer.echo(f"interrupted; finished cells are kept. Go on with: fedsim run {scenario}{where} --resume", err=True)
        # Threads of an attack or of Ray may still be busy; the user has asked to be gone now.
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    _finish(result, quiet)


def _finish(result: Result, quiet: bool) -> None:
    if not quiet:
        print_summary(result.results, Console(), result.out / "report.html")
    for problem in result.problems:
        typer.echo(f"error: {problem}", err=True)
    if result.problems:
        raise typer.Exit(BAD_INPUT)


@app.command("attack")
@refuses_bad_input
def attack_command(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    attack: Annotated[str, typer.Option(help="The attack to run on the stored views (fedsim list).")],
    round: Annotated[
        list[int] | None, typer.Option(help="Rounds to attack; default those that the run attacked.")
    ] = None,
    victims: Annotated[int | None, typer.Option(help="Clients of each round to attack.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps per restart.")] = None,
    restarts: Annotated[int | None, typer.Option(help="Restarts per victim.")] = None,
    engine: EngineFlag = "inline",
    address: AddressFlag = None,
    quiet: QuietFlag = False,
) -> None:
    """Attack the stored views of a run with another attack, without training again."""
    budget = {"iterations": iterations, "restarts": restarts}
    _finish(
        attack_again(
            folder, attack, rounds=round, victims=victims, budget=budget, engine=engine, address=address, quiet=quiet
        ),
        quiet,
    )


@app.command("report")
@refuses_bad_input
def report_command(folder: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Write the report of a run folder again from its results."""
    typer.echo(report_again(folder))


@app.command("list")
def list_command() -> None:
    """List scenarios, attacks, data sets, models and partitions."""
    console = Console()
    table = Table("attack", "rung", "needs", "works on", "recovers", "paper", title="Attacks")
    for name, attack in available().items():
        kinds = "nothing but public data" if not attack.needs.update else " or ".join(attack.needs.kinds)
        works_on = kinds + (" (sums too)" if attack.needs.sums else "")
        table.add_row(
            name, attack.needs.rung, ", ".join(attack.needs.knowledge) or "-", works_on, attack.claim, attack.paper
        )
    console.print(table)
    for title, names in (
        ("Scenarios", available_scripts()),
        ("Data sets", DATASETS),
        ("Models", MODELS),
        ("Partitions", PARTITIONS),
    ):
        console.print(f"[bold]{title}[/]: {', '.join(sorted(names))}")


def main(script: str | None = None) -> None:
    """Start the command line. A scenario script passes its ``__file__``, and so takes the flags of ``fedsim run``."""
    app(["run", script, *sys.argv[1:]] if script else None)
