"""The command line, a function a command; scenario scripts take the flags of ``fedsim run``."""

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from attacks import available
from attacks.registry import COSTS
from crypto.secagg import PROFILES
from fedsim.again import attack_again, report_again
from fedsim.callers import new_key
from fedsim.check import check, write_junit
from fedsim.difference import difference, load_results
from fedsim.dry_run import forecast
from fedsim.lies import CLAIMS
from fedsim.mistakes import BAD_INPUT, leave, mendable
from fedsim.names import nearest
from fedsim.policy import Policy, PolicyError
from fedsim.report.terminal import print_difference, print_summary, print_suspects
from fedsim.run import Engine, Result, run
from fedsim.scenario import Scenario
from fedsim.scripts import available_scripts, load_scenario, story
from fedsim.store import StoreError
from fedsim.tasks import DATASETS, MODELS, PARTITIONS
from fedsim.tracking import log_to_mlflow, log_to_tensorboard
from fedsim.words import facts_needed
from strategies.plants import PLANTS
from strategies.secure_aggregation import FLOWER

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

BROKEN = 1
"""The exit code of a run that breaks its policy."""

EngineFlag = Annotated[Engine, typer.Option(help="Where clients and attacks run.")]
AddressFlag = Annotated[str | None, typer.Option(help="Join this Ray cluster (host:port) instead of starting one.")]
SeedFlag = Annotated[list[int] | None, typer.Option(help="Replace the scenario's seeds; may be given several times.")]
OutFlag = Annotated[Path | None, typer.Option(help="The run folder; default runs/NAME.")]
ResumeFlag = Annotated[bool, typer.Option("--resume", help="Go on from the cells that the run folder already holds.")]
DryFlag = Annotated[bool, typer.Option("--dry-run", help="Say what would run, against whom and at what cost.")]
NoTruthFlag = Annotated[
    bool,
    typer.Option(
        "--no-truth",
        help="Leave the truth out of the run folder; successful reconstructions and the raw updates, "
        "which it still holds, are clients' data.",
    ),
]
QuietFlag = Annotated[bool, typer.Option("--quiet", help="Print nothing but problems.")]


def refuses_bad_input(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what users can mend into one line each and exit code 2, Ctrl-C into 130; the rest stays a traceback."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, RuntimeError) as error:
            if not (lines := mendable(error)):
                raise
            for line in lines:
                typer.echo(f"error: {line}", err=True)
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt:
            leave("interrupted")

    return guarded


def _typed(*words: str, **flags: Any) -> str:
    """The command line that asks for the same once more; flags at None or False are left out."""
    given = list(words)
    for name, value in flags.items():
        option = f"--{name.replace('_', '-')}"
        for item in value if isinstance(value, list) else [value]:
            given += [] if item in (None, False) else [option] if item is True else [option, str(item)]
    return shlex.join(["fedsim", *given])


def _nearby(path: str) -> str:
    """The path from here where it lies below, as ``python script.py`` gives an absolute one."""
    whole = Path(path).resolve()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else path


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
    where = {"engine": None if engine == "inline" else engine, "address": address, "out": out}
    typed = _typed("run", _nearby(scenario), seed=seed, **where, no_truth=no_truth, quiet=quiet)
    try:
        result = run(
            asked, out, engine=engine, address=address, resume=resume, truth=not no_truth, quiet=quiet, command=typed
        )
    except KeyboardInterrupt:
        leave(f"interrupted; finished cells are kept. Go on with: {typed} --resume")
    _finish(result, quiet)


@app.command("sweep")
@refuses_bad_input
def sweep_command(
    scenario: Annotated[str, typer.Argument(help="A scenario's name (fedsim list), a script, or a TOML file.")],
    address: AddressFlag = None,
    namespace: Annotated[str | None, typer.Option(help="The cluster's namespace to work in.")] = None,
    cpus_per_cell: Annotated[float, typer.Option(min=0.01, help="CPUs that Ray sets aside for each cell.")] = 1,
    gpus_per_cell: Annotated[float, typer.Option(min=0, help="GPUs that Ray sets aside for each cell.")] = 0,
    seed: SeedFlag = None,
    out: OutFlag = None,
    resume: ResumeFlag = False,
    dry_run: DryFlag = False,
    no_truth: NoTruthFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Run every cell of a scenario as a task of its own on Ray, and keep each as it finishes."""
    asked = load_scenario(scenario)
    if seed:
        asked = Scenario(**{**asked.model_dump(mode="json"), "seeds": seed})
    if dry_run:
        typer.echo(forecast(asked, "ray"))
        return
    from fedsim.sweep import sweep  # Ray takes a second to import

    place: dict[str, Any] = {"address": address, "namespace": namespace}
    place |= {"cpus_per_cell": cpus_per_cell, "gpus_per_cell": gpus_per_cell}
    typed = _typed("sweep", _nearby(scenario), seed=seed, **place, out=out, no_truth=no_truth, quiet=quiet)
    try:
        result = sweep(asked, out, **place, resume=resume, truth=not no_truth, quiet=quiet, command=typed)
    except KeyboardInterrupt:
        leave(f"interrupted; finished cells are kept. Go on with: {typed} --resume")
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
    result = attack_again(
        folder,
        attack,
        rounds=round,
        victims=victims,
        budget={"iterations": iterations, "restarts": restarts},
        engine=engine,
        address=address,
        quiet=quiet,
        command=_typed(
            "attack", str(folder), attack=attack, round=round, victims=victims, iterations=iterations, restarts=restarts
        ),
    )
    _finish(result, quiet)


@app.command("report")
@refuses_bad_input
def report_command(folder: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Write the report of a run folder again from its results."""
    typer.echo(report_again(folder))


@app.command("serve")
@refuses_bad_input
def serve_command(
    folder: Annotated[Path, typer.Argument(help="A finished run folder; its first cell's model is served.")],
    callers: Annotated[Path, typer.Option(help="TOML: roles with their deployment, callers with their keys' SHA-256.")],
    log: Annotated[Path, typer.Option(help="The append-only query log.")] = Path("queries.jsonl"),
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.")] = 8000,
) -> None:
    """Serve the trained model over HTTP to the callers on a list, each by its role."""
    from fedsim.serve import serve

    serve(folder, callers, log, host, port)


@app.command("watch")
@refuses_bad_input
def watch_command(
    folder: Annotated[Path, typer.Argument(help="The run folder whose model is served.")],
    log: Annotated[Path, typer.Option(help="The query log that the service keeps.")] = Path("queries.jsonl"),
) -> None:
    """Say which callers of the service look like attackers, and how often an honest one would."""
    from fedsim.serve import suspects

    print_suspects(suspects(folder, log), Console())


@app.command("key")
def key_command() -> None:
    """Make an API key, and the SHA-256 that the list of callers keeps of it."""
    key, digest = new_key()
    typer.echo(f"key: {key}\nkey_sha256: {digest}")


@app.command("diff")
@refuses_bad_input
def diff_command(
    a: Annotated[Path, typer.Argument(help="A run folder.")],
    b: Annotated[Path, typer.Argument(help="Another run folder.")],
) -> None:
    """Say what changed between two runs, and whether it is within noise."""
    print_difference(difference(load_results(a), load_results(b)), Console())


@app.command("check")
@refuses_bad_input
def check_command(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    policy: Annotated[Path, typer.Option(help="The policy, a TOML file.")],
    junit: Annotated[Path | None, typer.Option(help="Write the rulings as JUnit XML, too.")] = None,
) -> None:
    """Hold a run against a policy: exit code 1 where a rule is broken, 2 where the check cannot be made."""
    try:
        rulings = check(load_results(folder), Policy.load(policy), folder / "results.json")
    except (StoreError, PolicyError) as error:
        if junit:
            write_junit([], junit, str(error))
        raise
    if junit:
        write_junit(rulings, junit)
    for ruling in rulings:
        typer.echo(f"{'ok' if ruling.passed else 'BROKEN':6} {ruling.rule} ({ruling.setting}): {ruling.says}")
    broken = sum(not ruling.passed for ruling in rulings)
    typer.echo(f"{broken} of {len(rulings)} rules are broken" if broken else f"all {len(rulings)} rules hold")
    if broken:
        raise typer.Exit(BROKEN)


@app.command("track")
@refuses_bad_input
def track_command(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    mlflow: Annotated[str | None, typer.Option(help="An MLflow tracking URI, such as http://HOST:5000.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="A folder for TensorBoard's scalars.")] = None,
) -> None:
    """Hand a finished run to MLflow or TensorBoard."""
    results = load_results(folder)
    if mlflow is None and tensorboard is None:
        raise StoreError("track: nowhere to log to; name --mlflow URI, --tensorboard FOLDER, or both")
    if mlflow is not None:
        typer.echo(f"{log_to_mlflow(folder, results, mlflow)} runs logged to {mlflow}")
    if tensorboard is not None:
        typer.echo(f"{log_to_tensorboard(results, tensorboard)} runs written to {tensorboard}")


@app.command("list")
@refuses_bad_input
def list_command(
    kind: Annotated[str | None, typer.Argument(help="One kind alone, such as attacks; default all.")] = None,
) -> None:
    """List attacks, scenarios, data sets, models, partitions, protocols, and what servers may do that is not honest."""
    if kind not in (None, "attacks", "scenarios", *LISTS):
        raise StoreError(f"list = {kind!r}: unknown; {nearest(str(kind), ['attacks', 'scenarios', *LISTS])}")
    console = Console()
    if kind in (None, "attacks"):
        console.print("[bold]Attacks[/], cheapest first; the rung is the least that one can start from")
        console.print("\n".join(_attack_lines()), highlight=False)
    if kind in (None, "scenarios"):
        console.print("[bold]Scenarios[/], each a script to copy, and the question that it asks")
        for name, script in available_scripts().items():
            console.print(f"[bold]{name}[/]: {story(script)}", highlight=False)
    for name, (title, entries) in LISTS.items():
        if kind in (None, name):
            console.print(f"[bold]{title}[/]: {', '.join(sorted(entries()))}")


LISTS: Mapping[str, tuple[str, Callable[[], Iterable[str]]]] = {
    "datasets": ("Data sets", lambda: DATASETS),
    "models": ("Models", lambda: MODELS),
    "partitions": ("Partitions", lambda: PARTITIONS),
    "protocols": ("Profiles of secure aggregation", lambda: [*PROFILES, FLOWER]),
    "lies": ("Lies in secure aggregation", lambda: CLAIMS),
    "plants": ("What a malicious server plants", lambda: PLANTS),
}
"""What ``fedsim list`` names besides attacks and scenarios: its title, and where the names are."""


def _attack_lines() -> Iterator[str]:
    """Every attack, cheapest first: the least rung, the cost, what it works on, what it needs, and what stops it."""
    for name, attack in sorted(available().items(), key=lambda item: COSTS.index(item[1].cost)):
        needs = attack.needs
        yield f"[bold]{name}[/]: rung {needs.rung}, {attack.cost}, on {needs.works_on}"
        yield f"    recovers: {attack.claim}"
        facts = ", ".join(facts_needed(needs.knowledge, needs.of_deltas, {}))
        yield f"    knowing: {facts or 'nothing besides'}"
        yield f"    stopped by: {attack.stopped_by}"
        yield f"    {attack.paper}"


def main(script: str | None = None) -> None:
    """Start the command line. A scenario script passes its ``__file__``, and so takes the flags of ``fedsim run``."""
    app(["run", script, *sys.argv[1:]] if script else None)
