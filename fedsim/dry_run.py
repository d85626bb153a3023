"""What a run would do: whom it attacks under which threat model, and what it would take, before anything is spent."""

import os
import time
from collections import Counter

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from attacks import available
from fedsim.adversary import in_words, rung
from fedsim.assess import prove
from fedsim.cells import Engine
from fedsim.experiment import Experiment
from fedsim.scenario import Scenario
from strategies.wire import payload_bytes

ACTOR_MEBIBYTES = 450
"""Resident memory of one Ray actor with torch imported, measured."""


def forecast(scenario: Scenario, engine: Engine) -> str:
    """The forecast, as text. Data and model of the first cell are loaded, so that bad input is found here too."""
    cells = scenario.cells()
    first = Experiment(cells[0].scenario)
    model = first.initial_model()
    down = payload_bytes(RecordDict({"arrays": ArrayRecord(dict(model.state_dict())), "config": ConfigRecord()}))
    up = payload_bytes(RecordDict({"update": ArrayRecord({n: p.detach() for n, p in model.named_parameters()})}))
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
            "Threat model of the first cell:",
            *(f"  {sentence}" for sentence in in_words(cells[0].scenario)),
            "",
            f"Training: {asked} client updates. {first.dataset.name}: {sum(map(len, first.division.clients))} private "
            f"examples; model: {sum(p.numel() for p in model.parameters()):,} parameters.",
            f"Bytes: about {up:,} up, {down:,} down per client and round, {asked * (up + down) / 1e6:,.1f} MB in all.",
            f"Actors: {_actors(engine)}.",
            "Attacks, with a lower bound on their time from the small case that each must win:",
            *(
                f"  {name}: {count} victims, rung "
                f"{rung(cells[0].scenario, 1) if available()[name].needs.update else 'L0'}, "
                f"at least {count * _seconds_on_small_case(name):.0f} s on one core"
                for name, count in victims.items()
            ),
        ]
    )


def _actors(engine: Engine) -> str:
    if engine == "inline":
        return "none, clients and attacks run one after another in this process"
    cores = os.cpu_count() or 1
    return f"{cores} on this machine's {cores} cores, about {cores * ACTOR_MEBIBYTES:,} MiB in all"


def _seconds_on_small_case(name: str) -> float:
    started = time.perf_counter()
    prove(name)
    return time.perf_counter() - started
