"""What a run would do: whom it attacks under which threat model, and what it would take, before anything is spent."""

import copy
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from attacks import Budget, Observation, inferences, reconstructions
from attacks.losses import LOSSES
from fedsim.adversary import in_words, knowledge_for, rung
from fedsim.assess import perform
from fedsim.assets import asset_of
from fedsim.battery import BATTERY, on_model
from fedsim.cells import Engine, preflight
from fedsim.client import batches, local_update, plain_gradient
from fedsim.experiment import Experiment
from fedsim.grids import one_thread
from fedsim.inferred import TOLD
from fedsim.job import Job
from fedsim.plan import everything
from fedsim.planting import first_models
from fedsim.report.progress import Progress
from fedsim.scenario import Attack, Cell, Scenario
from fedsim.truth import Truth, Victim
from fedsim.wire_forecast import wire_of
from fedsim.words import listed

ACTOR_MEBIBYTES = 450
"""Resident memory of one Ray actor with torch imported, measured."""
BASE_MEBIBYTES = 600
"""Resident memory of this process with torch, Flower and scikit-learn imported, measured."""
PATIENCE = 20.0
"""Seconds after which an attack is no longer timed to its end."""


def forecast(scenario: Scenario, engine: Engine) -> str:
    """The forecast, as text. Data and model of every cell are loaded, so that bad input is found here too."""
    cells = scenario.cells()
    first, *_ = [preflight(cell, Progress(quiet=True)) for cell in cells]
    model = first.initial_model()
    wire = {label: wire_of(cell.scenario, first) for label, cell in _by_protocol(cells).items()}
    up, down, _ = next(iter(wire.values()))
    federations = [cell.scenario.federation for cell in cells]
    asked = sum((f.cohort or f.clients) * f.rounds for f in federations)
    victims: Counter[str] = Counter()
    for cell in cells:
        for attack in cell.scenario.attacks:
            victims[attack.name] += attack.victims * len(attack.rounds)
    return "\n".join(
        [
            f"Scenario {scenario.name!r}, digest {scenario.digest[:12]}: {len(cells)} cells.",
            "",
            *_threat_models(cells),
            f"Training: {asked} client updates. {first.dataset.name}: {sum(map(len, first.division.clients))} private "
            f"examples; model: {sum(p.numel() for p in model.parameters()):,} parameters.",
            "Bytes per client and round, about:",
            *(
                f"  {label or 'this protocol'}: {up:,} up, {down:,} down{words}"
                for label, (up, down, words) in wire.items()
            ),
            f"  {_all_bytes(cells, wire) / 1e6:,.1f} MB in all.",
            f"Memory: about {_view_bytes(cells[0].scenario, up, down) / 2**20:,.0f} MiB for the view of one cell, "
            f"beside {BASE_MEBIBYTES} MiB for this process.",
            f"Actors: {_actors(engine)}.",
            "Attacks, timed on one client made of held-out data:",
            *(_attack_line(first, attack, victims[attack.name]) for attack in scenario.attacks),
        ]
    )


def _by_protocol(cells: Sequence[Cell]) -> dict[str, Cell]:
    """One cell for each protocol, by its label."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(cell.labels.get("protocol", ""), cell)
    return found


def _all_bytes(cells: Sequence[Cell], wire: Mapping[str, tuple[int, int, str]]) -> int:
    total = 0
    for cell in cells:
        federation, (up, down, _) = cell.scenario.federation, wire[cell.labels.get("protocol", "")]
        total += (federation.cohort or federation.clients) * federation.rounds * (up + down)
    return total


def _threat_models(cells: Sequence[Cell]) -> list[str]:
    """The first threat model, and how those of the other compared values differ from it."""
    models: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        under = models.setdefault(tuple(in_words(cell.scenario)), [])
        name = ", ".join(cell.labels.values())
        under += [name] if name not in under else []
    (first, names), *others = models.items()
    lines = [f"Threat model of {'; '.join(names)}:" if others else "Threat model:", *first]
    for sentences, names in others:
        lines += ["", f"Where it is {'; '.join(names)}:", *(s for s in sentences if s not in first)]
    return [line if not line or line.endswith(":") else f"  {line}" for line in [*lines, ""]]


def _attack_line(experiment: Experiment, attack: Attack, count: int) -> str:
    if attack.name in inferences():
        return _inference_line(experiment, attack)
    if attack.name == BATTERY:
        names = [name for name in everything() if name not in attack.without]
        return f"  {BATTERY}, {count} victims, cheapest first: {listed(names)}; not timed"
    seconds, stopped = _seconds_on_one_victim(experiment, attack)
    where = rung(experiment.scenario, attack.rounds[0]) if reconstructions()[attack.name].needs.update else "L0"
    bound = "at least" if stopped else "about"
    return f"  {attack.name}: {count} victims, rung {where}, {bound} {count * seconds:.0f} s on one core"


def _inference_line(experiment: Experiment, attack: Attack) -> str:
    """What an inference is about and from where; how long it takes hangs on the trained model, so it is not timed."""
    deployment, asset = experiment.scenario.deployment, asset_of(attack.name)
    rounds = listed([str(round) for round in attack.rounds])
    about = TOLD[asset.name] if asset else "nothing that a scenario asks"
    if not on_model(attack.name):
        return f"  {attack.name}: {about}, from the updates of rounds {rounds} together; not timed"
    budget = "" if deployment.query_budget is None else f", {deployment.query_budget:,} queries at most"
    after = f"the model after round {rounds}"
    return f"  {attack.name}: {about}, from {after} ({deployment.access.replace('_', ' ')}{budget}); not timed"


def _view_bytes(scenario: Scenario, up: int, down: int) -> int:
    """What the recorder holds: of each attacked round the broadcast and every update."""
    federation = scenario.federation
    return len(scenario.attacked_rounds) * (down + up * (federation.cohort or federation.clients))


def _actors(engine: Engine) -> str:
    if engine == "inline":
        return "none, clients and attacks run one after another in this process"
    cores = os.cpu_count() or 1
    return f"{cores} on this machine's {cores} cores, about {cores * ACTOR_MEBIBYTES:,} MiB in all"


def _seconds_on_one_victim(experiment: Experiment, attack: Attack) -> tuple[float, bool]:
    """Seconds that the attack takes on one client made of held-out data, and whether it was stopped early."""
    federation = experiment.scenario.federation
    inputs, labels = experiment.test_data()
    steps = batches(len(labels), federation.model_copy(update={"local_epochs": 1, "local_steps": 1}), 0, 1, 0)
    loss = LOSSES[experiment.loss_name]
    crafted, victim = first_models(experiment), experiment.scenario.adversary.victim
    model = crafted.own.get(victim, crafted.common) if crafted else experiment.initial_model()
    trained = local_update(copy.deepcopy(model), inputs, labels, steps, federation, loss, plain_gradient(loss))
    observation = Observation(model, trained.update, trained.kind)
    stand_in = Truth(1, 0, inputs[steps[0]], labels[steps[0]], 1)
    budget = Budget(**{**attack.budget.model_dump(), "seconds": min(attack.budget.seconds or PATIENCE, PATIENCE)})
    know = knowledge_for(experiment, stand_in, crafted.planted if crafted else None)
    started = time.perf_counter()
    job = Job(attack.name, 1, (Victim(1, (0,)),), (((observation,), know, 0),), budget)
    with one_thread():
        perform(job)
    taken = time.perf_counter() - started
    return taken, taken >= PATIENCE
