"""Attacking stored views: which victims, what each attack receives, and what it claims."""

from collections.abc import Sequence
from dataclasses import dataclass

from attacks import Budget, Knowledge, NotApplicable, Observation, Reconstruction, View, available, reconstruct_many
from fedsim.adversary import knowledge_for
from fedsim.experiment import Experiment
from fedsim.scenario import Attack
from fedsim.seeds import derive
from fedsim.truth import truth_of


@dataclass(frozen=True)
class Job:
    """One attack on one round's victims. This is all that an attack process receives: no seed, no truth."""

    attack: str
    round: int
    clients: tuple[int, ...]
    victims: tuple[tuple[tuple[Observation, ...], Knowledge, int], ...]
    budget: Budget


@dataclass(frozen=True)
class Claims:
    """What came back for each victim: a reconstruction, or why there is none; and whether the attack proved itself."""

    answers: tuple[Reconstruction | NotApplicable, ...] = ()
    error: str | None = None
    sanity: bool | None = None


def jobs(experiment: Experiment, view: View, attacks: Sequence[Attack]) -> list[Job]:
    """The attacks to run on one cell's view; the victims are the first clients of each round's cohort."""
    planned = []
    for attack in attacks:
        for round in attack.rounds:
            asked = sorted({m.client for m in view.messages if m.round == round and m.direction == "sent"})
            clients = tuple(asked[: attack.victims])
            victims = tuple(
                (
                    tuple(view.observations(round=round, client=client)),
                    knowledge_for(experiment, truth_of(experiment, round, client)),
                    derive(experiment.seed, "attack", attack.name, "round", round, "client", client),
                )
                for client in clients
            )
            planned.append(Job(attack.name, round, clients, victims, Budget(**attack.budget.model_dump())))
    return planned


def perform(job: Job) -> Claims:
    """Run one attack; what it refuses or breaks on is an answer too."""
    try:
        answers = reconstruct_many(job.attack, job.victims, budget=job.budget)
    except (ValueError, RuntimeError, ArithmeticError) as error:
        return Claims(error=f"{type(error).__name__}: {error}")
    return Claims(answers=tuple(answers))


def prove(name: str) -> bool | None:
    """Run the attack on the small case that it must win; None for an attack that has none."""
    make = available()[name].sanity
    if make is None:
        return None
    case = make()
    try:
        claim = reconstruct_many(name, [(case.observation, case.knowledge, 0)], budget=case.budget)[0]
    except (ValueError, RuntimeError, ArithmeticError):
        return False
    return isinstance(claim, Reconstruction) and case.won(claim)
