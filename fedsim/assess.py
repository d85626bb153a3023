"""Attacking stored views: which victims, what each attack receives, and what it claims."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from attacks import (
    Budget,
    NotApplicable,
    Observation,
    Reconstruction,
    View,
    available,
    infer,
    reconstruct_many,
    reconstructions,
)
from attacks.inference import InferenceSanity
from attacks.view import Update
from fedsim.adversary import knowledge_for
from fedsim.battery import BATTERY
from fedsim.experiment import Experiment
from fedsim.job import Job
from fedsim.plan import everything, left_out, rationed
from fedsim.scenario import Attack
from fedsim.seeds import derive
from fedsim.truth import Victim, truth_of

Observed = Callable[[Victim], tuple[Observation, ...]]
"""What the view holds of a victim."""


@dataclass(frozen=True)
class Claims:
    """What came back for each victim: a reconstruction, or why there is none; and whether the attack proved itself."""

    answers: tuple[Reconstruction | NotApplicable, ...] = ()
    error: str | None = None
    sanity: bool | None = None


def jobs(experiment: Experiment, view: View, attacks: Sequence[Attack]) -> list[Job]:
    """The attacks to run on one cell's view, each on the first of the round's victims; a battery is all of them."""
    planned: list[Job] = []
    observed = functools.cache(functools.partial(_observed, view))
    named = {attack.name for attack in attacks}
    for attack in attacks:
        for round in attack.rounds:
            if attack.name == BATTERY:
                each = [attack.model_copy(update={"name": name}) for name in everything()]
                mine = [job for member in each for job in _jobs_of(experiment, view, member, round, observed)]
                planned += rationed(mine, left_out(attack.without, named), attack.budget.seconds)
            elif attack.name in reconstructions():
                planned += _jobs_of(experiment, view, attack, round, observed)
    return planned


def _jobs_of(experiment: Experiment, view: View, attack: Attack, round: int, observed: Observed) -> list[Job]:
    """One attack on a round: on its victims, and on the sum that is open beside them."""
    adversary = experiment.scenario.adversary
    aim = adversary.victim if adversary.plant is not None and adversary.plant.one_victim else None
    whom = [v for v in victims_of(view, round) if aim is None or v.clients == (aim,)][: attack.victims]
    planned = [_job(experiment, view, attack, round, whom, observed)]
    if beside := sum_beside(view, round) if reconstructions()[attack.name].needs.update else ():
        planned.append(replace(_job(experiment, view, attack, round, beside, observed), beside=True))
    return planned


def _job(
    experiment: Experiment, view: View, attack: Attack, round: int, whom: Sequence[Victim], observed: Observed
) -> Job:
    if reconstructions()[attack.name].needs.history:
        whom = [_with_history(view, victim) for victim in whom]
    victims = tuple(
        (
            tuple(seen for own in victim.rounds for seen in observed(own)),
            knowledge_for(
                experiment,
                truth_of(experiment, round, *victim.clients, earlier=victim.earlier),
                view.planted.get(round),
            ),
            derive(experiment.seed, "attack", attack.name, "round", round, "client", victim.label),
        )
        for victim in whom
    )
    return Job(attack.name, round, tuple(whom), victims, Budget(**attack.budget.model_dump()))


def victims_of(view: View, round: int) -> tuple[Victim, ...]:
    """Whom a round can be attacked on: the clients whose update is readable, else the smallest sum.

    Where nothing is readable every client asked is a victim, so that attacks get to say what they lack. A sum is no
    victim where the view does not tell whose it is: its truth would be another's.
    """
    updates = [update for update in view.updates if update.round == round]
    if alone := sorted({update.client for update in updates if update.client is not None}):
        return tuple(Victim(round, (client,)) for client in alone)
    if updates:
        return _smallest_sum(view, updates)
    asked = sorted({m.client for m in view.messages if m.round == round and m.direction == "sent"})
    return tuple(Victim(round, (client,)) for client in asked)


def sum_beside(view: View, round: int) -> tuple[Victim, ...]:
    """The smallest sum of a round of which clients' updates are readable in part alone; none where one is whole."""
    updates = [update for update in view.updates if update.round == round]
    alone = [update for update in updates if update.client is not None]
    if not alone or not all(update.partial for update in alone):
        return ()
    return _smallest_sum(view, [update for update in updates if update.client is None and update.contributors > 1])


def _smallest_sum(view: View, updates: Sequence[Update]) -> tuple[Victim, ...]:
    sums = [(update.contributors, update.clients or _contributors(view, update.round)) for update in updates]
    known = [clients for contributors, clients in sums if contributors == len(clients)]
    return tuple(Victim(updates[0].round, clients) for clients in sorted(known, key=len)[:1])


def _with_history(view: View, victim: Victim) -> Victim:
    """The victim with the earlier rounds in which the same clients stand behind one observation."""
    earlier = (other for round in range(1, victim.round) for other in victims_of(view, round))
    return replace(victim, earlier=tuple(other.round for other in earlier if other.clients == victim.clients))


def _contributors(view: View, round: int) -> tuple[int, ...]:
    """The clients that handed in a hidden vector in time; where even that stays hidden, all that answered."""
    answers = [m for m in view.messages if m.round == round and m.direction == "received" and m.error is None]
    hidden = [m for m in answers if m.form != "plain"]
    return tuple(sorted({m.client for m in hidden or answers}))


def _observed(view: View, victim: Victim) -> tuple[Observation, ...]:
    """What the view holds of a victim; a sum, even one over a single client, is under no client's number."""
    own = tuple(view.observations(victim.round, victim.label)) if len(victim.clients) == 1 else ()
    sums = (o for o in view.observations(victim.round) if o.client is None)
    return own or tuple(o for o in sums if o.contributors == len(victim.clients))


def perform(job: Job) -> Claims:
    """Run one attack; what it refuses or breaks on is an answer too."""
    if job.skipped:
        return Claims()
    try:
        answers = reconstruct_many(job.attack, job.victims, budget=job.budget)
    except Exception as error:  # an attack of one's own may break in any way, and must not end the run
        return Claims(error=f"{type(error).__name__}: {error}")
    return Claims(answers=tuple(answers))


@functools.cache
def prove(name: str) -> bool | None:
    """Run the attack on the small case that it must win, once in a process; None for an attack that has none."""
    make = available()[name].sanity
    if make is None:
        return None
    case = make()
    try:
        if isinstance(case, InferenceSanity):
            return case.won(infer(name, case.source, case.knowledge, targets=case.targets, budget=case.budget))
        claim = reconstruct_many(name, [(case.observation, case.knowledge, 0)], budget=case.budget)[0]
    except Exception:  # whatever it breaks on, it did not win
        return False
    return isinstance(claim, Reconstruction) and case.won(claim)
