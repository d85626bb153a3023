"""The two halves of a cell: training it over a grid, and attacking what the server saw of that."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from attacks import NotApplicable, inferences
from fedsim.answers import measured_controls
from fedsim.assess import Claims, jobs, perform, prove
from fedsim.assets import asset_of
from fedsim.attribute import sensitive_place
from fedsim.audited import audited
from fedsim.client import batches
from fedsim.costs import costs_of, parameters_of
from fedsim.detection import Detections
from fedsim.encryption import deploy, require_installed
from fedsim.evidence import EvidenceLog, bytes_on_the_wire, measured, side_channels
from fedsim.experiment import Experiment
from fedsim.federation import Training, TrainingFailed, federate, recording
from fedsim.fitting import check_noise_fits
from fedsim.grids import LocalGrid, map_tasks, one_thread, open_grid
from fedsim.guarantee import guarantee
from fedsim.inferred import inference_outcome
from fedsim.job import Job
from fedsim.lies import who_stopped
from fedsim.outcome import attack_outcome, baseline_pictures
from fedsim.plan import not_run, silent
from fedsim.planting import first_models
from fedsim.protection import protection
from fedsim.questions import Answer, Asked, Question, answer, questions
from fedsim.released import releases
from fedsim.report.progress import Progress
from fedsim.residue import residue
from fedsim.scenario import Attack, Cell
from fedsim.store import (
    RunFolder,
    load_tensors,
    load_training,
    load_view,
    read_json,
    save_tensors,
    save_training,
    write_json,
)
from fedsim.tasks import TaskError
from fedsim.vantage import Run, adversary_view
from strategies.dpsgd import refusals
from strategies.stack import Stack

Engine = Literal["inline", "ray"]
CLIENT_APP = "fedsim.apps:client_app"


@dataclass(frozen=True)
class Machine:
    """Where clients and attacks run."""

    engine: Engine
    address: str | None = None

    def grid(self, experiment: Experiment) -> LocalGrid:
        """A grid of the experiment's clients. The scenario, seed included, reaches them here and in no message."""
        config = {"scenario": experiment.scenario.model_dump_json()}
        return open_grid(self.engine, CLIENT_APP, experiment.scenario.federation.clients, config, address=self.address)


def preflight(cell: Cell, progress: Progress) -> Experiment:
    """Load the data, split it and build the model, so that what cannot work is refused before work starts."""
    require_installed(cell.scenario)
    experiment = Experiment(cell.scenario)
    held = [len(experiment.client_data(client)[1]) for client in range(cell.scenario.federation.clients)]
    _check_weights(experiment, held)
    check_noise_fits(experiment)
    asked = [asset_of(attack.name) for attack in cell.scenario.attacks if attack.name in inferences()]
    if any(asset is not None and asset.name == "attribute" for asset in asked):
        sensitive_place(experiment.dataset)
    first_models(experiment)
    model = experiment.initial_model().train()
    if Stack(cell.scenario.protocol).local_gradient and (reasons := refusals(model)):
        raise TaskError("task.model", cell.scenario.task.model, "; ".join(reasons), "or protect whole clients instead")
    progress.advance()
    return experiment


def _check_weights(experiment: Experiment, held: Sequence[int]) -> None:
    """Refuse a bound on weights below what a client weighs: each of its rounds would end without a sum."""
    scenario = experiment.scenario
    steps = (batches(count, scenario.federation, experiment.seed, 1, client) for client, count in enumerate(held))
    heaviest = max(len(torch.cat(positions).unique()) for positions in steps)
    for index, defence in enumerate(scenario.protocol):
        most = getattr(defence, "max_weight", 1)
        if 1 < most < heaviest:
            reason = f"a client uses {heaviest} examples in a round, and would be refused"
            remedy = f"set at least {heaviest}, or 1 to count clients alike"
            raise TaskError(f"protocol[{index}].max_weight", most, reason, remedy)


def train_cell(folder: RunFolder, cell: Cell, experiment: Experiment, machine: Machine, progress: Progress) -> None:
    """Train one cell and store the server's view; a training that fails is stored with its cause."""
    place = folder.cell(cell.digest)
    grid = machine.grid(experiment)
    nodes = {client: client + 1 for client in grid.states}
    with one_thread():
        deployment = deploy(grid, experiment, nodes)
        recorder = recording(grid, cell.scenario, nodes)
    log, history, cause, training = EvidenceLog(), [], None, None
    detections = Detections()
    started = time.perf_counter()

    def on_round(row: Mapping[str, Any]) -> None:
        history.append(row)
        if row["round"]:
            log.note(row, grid.states)
            detections.note(row["round"], row["cohort"], grid.states)
            reached = "loss" if math.isnan(row["accuracy"]) else "accuracy"  # a model that generates has none
            progress.advance(text=f"round {row['round']}, {reached} {row[reached]:.2f}")

    try:
        with one_thread():
            training = federate(recorder, experiment, nodes, on_round, deployment)
    except TrainingFailed as failed:
        cause = str(failed)
        progress.advance(max(0, experiment.scenario.federation.rounds + 1 - len(history)), "failed")
    ended = Run(experiment, recorder, training, deployment) if training else None
    view = adversary_view(ended) if ended else recorder.view(experiment.initial_model())
    timings = {"training_seconds": time.perf_counter() - started}
    kept = training or Training(tuple(history), {})
    with one_thread():
        costs = costs_of(experiment, kept, log, bytes_on_the_wire(view)) if training else {}
    with one_thread():
        audit = audited(experiment, kept.history) if training else None
    if audit and audit.exceeded:
        cause = str(audit.exceeded)
    shown = residue(cell.scenario, kept.history, log.bare())
    protocol = {**kept.protocol, **({"what_sums_give_away": shown} if shown else {})}
    found = measured(cause, view, log, timings, protocol, costs)
    found["evidence"]["selection"] = experiment.left_out()
    with one_thread():
        found["evidence"]["deployment"] = measured_controls(experiment, training.state) if training else {}
    save_training(
        place, experiment, kept, view, {**found, "detection": detections.rows, "audit": audit and audit.as_dict()}
    )


def attack_cells(
    folder: RunFolder,
    todo: Sequence[tuple[Cell, Experiment]],
    machine: Machine,
    progress: Progress,
    *,
    truth: bool,
    extra: Sequence[Attack] | None = None,
) -> None:
    """Attack every cell's stored view; each cell is scored and stored as soon as its last attack is done.

    ``extra`` attacks take the place of the scenario's, and join what the cells already hold.
    """
    planned: list[tuple[int, Job | Asked]] = []
    for index, (cell, experiment) in enumerate(todo):
        place = folder.cell(cell.digest)
        if read_json(place / "measured.json")["cause"] is None:
            view = load_view(place, experiment.initial_model())
            attacks = extra or cell.scenario.attacks
            planned += [(index, job) for job in jobs(experiment, view, attacks)]
            planned += [(index, asked) for asked in questions(experiment, view, load_training(place), attacks)]
        else:
            store_cell(folder, cell, experiment, [], truth=truth, join=extra is not None)
    tasks = [work.question if isinstance(work, Asked) else work for _, work in planned]
    proven = prove_all({task.attack for task in tasks}, machine, progress)
    progress.stage("attacking", len(planned))
    waiting = Counter(index for index, _ in planned)
    done: dict[int, Claims | Answer] = {}

    def on_done(position: int, claims: Claims | Answer) -> None:
        index, task = planned[position][0], tasks[position]
        done[position] = replace(claims, sanity=proven[task.attack])
        waiting[index] -= 1
        progress.advance(text=f"{task.attack}, round {task.round}")
        if not waiting[index]:
            mine = [(work, done.pop(p)) for p, (i, work) in enumerate(planned) if i == index]
            store_cell(folder, *todo[index], mine, truth=truth, join=extra is not None)

    map_tasks(machine.engine, attacked_by, tasks, address=machine.address, on_done=on_done)


def attacked_by(task: Job | Question) -> Claims | Answer:
    """Run one attack of either kind."""
    return answer(task) if isinstance(task, Question) else perform(task)


def prove_all(names: set[str], machine: Machine, progress: Progress) -> dict[str, bool | None]:
    """Run each attack on the small case that it must win."""
    ordered = sorted(names)
    progress.stage("proving the attacks", len(ordered))
    results = map_tasks(
        machine.engine,
        prove,
        ordered,
        address=machine.address,
        on_done=lambda index, won: progress.advance(text=ordered[index]),
    )
    return dict(zip(ordered, results, strict=True))


def store_cell(
    folder: RunFolder,
    cell: Cell,
    experiment: Experiment,
    attacked: Sequence[tuple[Job | Asked, Claims | Answer]],
    *,
    truth: bool,
    join: bool = False,
) -> None:
    """Score a cell's claims and store everything that the report needs of it; ``cell.json`` comes last.

    With ``join`` the outcomes are added to those that the cell holds, in the place of earlier ones of the same name.
    """
    place = folder.cell(cell.digest)
    cause, training = read_json(place / "measured.json")["cause"], load_training(place)
    view = load_view(place, experiment.initial_model())
    pictures: dict[str, Tensor] = baseline_pictures(experiment, cell)
    outcomes, inferred = [], []
    rebuilt = [(work, claims) for work, claims in attacked if isinstance(work, Job) and isinstance(claims, Claims)]
    for job, claims in rebuilt:
        outcome, shown = attack_outcome(experiment, cell, job, claims)
        if outcome["status"] == "not_applicable" and (stopped := who_stopped(training.history, job.round)):
            outcome["reason"] = f"{stopped}; {outcome['reason']}"
        outcomes.append(outcome)
        pictures.update(shown)
    for work, said in attacked:
        if isinstance(work, Asked) and isinstance(said, Answer):
            stem = f"{cell.digest}/{work.question.attack}/{work.question.round}"
            entry, shown = inference_outcome(work, said, stem)
            inferred.append(entry)
            pictures.update(shown)
    if not truth:
        for outcome in outcomes:
            for victim in outcome["victims"]:
                victim.get("rows", {}).pop("truth", None)
    held: dict[str, list[Any]] = {"attacks": [], "inferences": [], "not_run": []}
    if join:
        fresh = {(outcome["name"], outcome["round"]) for outcome in [*outcomes, *inferred]}
        if (place / "cell.json").exists():
            before = read_json(place / "cell.json")
            held = {kind: [o for o in before.get(kind, []) if (o["name"], o["round"]) not in fresh] for kind in held}
        pictures = load_tensors(place / "truth.safetensors") | load_tensors(place / "pictures.safetensors") | pictures
        tensors = load_tensors(place / "claims.safetensors")
    else:
        tensors = {}
    save_tensors(place / "claims.safetensors", tensors | claimed(rebuilt))
    truths = {key: tensor for key, tensor in pictures.items() if key.endswith("/truth")}
    save_tensors(place / "pictures.safetensors", {key: t for key, t in pictures.items() if key not in truths})
    if truth:
        save_tensors(place / "truth.safetensors", truths)
    given = guarantee(experiment, training.history)
    write_json(
        place / "cell.json",
        {
            "labels": dict(cell.labels),
            "seed": cell.seed,
            "digest": cell.digest,
            "modality": experiment.dataset.modality,
            "status": "failed" if cause else "done",
            "cause": cause,
            "data": experiment.dataset.note,
            "fingerprint": experiment.fingerprint,
            "training": list(training.history),
            "privacy": given.as_dict() if given else None,
            "audit": read_json(place / "measured.json").get("audit"),
            "detection": read_json(place / "measured.json").get("detection", []),
            "side_channels": side_channels(view),
            "cost": {**bytes_on_the_wire(view), "parameters": parameters_of(experiment)},
            "protection": protection(cell.scenario),
            "attacks": held["attacks"] + [outcome for outcome in outcomes if not silent(outcome)],
            "not_run": held["not_run"] + [not_run(outcome) for outcome in outcomes if silent(outcome)],
            "inferences": held["inferences"] + inferred,
            "releases": releases(experiment, training),
        },
    )


def claimed(attacked: Sequence[tuple[Job, Claims]]) -> dict[str, Tensor]:
    """What each attack claimed, by name, so that it can be looked at, or scored again, without attacking again."""
    tensors: dict[str, Tensor] = {}
    for job, claims in attacked:
        for client, claim in zip(job.clients, claims.answers, strict=False):
            if isinstance(claim, NotApplicable):
                continue
            stem = f"{job.attack}/{job.round}/{client}"
            parts = {"inputs": claim.inputs, "labels": claim.labels, "objective": claim.objective}
            tensors |= {f"{stem}/{name}": tensor.detach().cpu() for name, tensor in parts.items() if tensor is not None}
    return tensors
