"""Inference attacks of a scenario: what each is asked about, and from what it may answer.

The question holds no truth and no seed of the experiment's; the key to it stays with the scoring code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attacks import Budget, Claim, Knowledge, NotApplicable, Observation, OracleError, Targets, View, infer, inferences
from attacks.monitor import QueryLog
from fedsim.adversary import knowledge_for, rung
from fedsim.assess import victims_of
from fedsim.assets import asset_of
from fedsim.assets.case import Case, Key
from fedsim.battery import on_model
from fedsim.deployment import Deployment
from fedsim.experiment import Experiment
from fedsim.federation import Training
from fedsim.scenario import Attack
from fedsim.seeds import derive
from fedsim.tasks import TaskError
from fedsim.truth import THE_SUM, Truth, Victim, truth_of
from fedsim.watching import Watched, watched


@dataclass(frozen=True)
class Service:
    """The finished model as a caller reaches it. ``noise`` seeds the controls' chance, which no caller knows."""

    model: nn.Module
    num_classes: int
    deployment: Deployment
    noise: int
    honest: Tensor
    """Inputs that honest callers ask about, to hold the attack's queries against."""


@dataclass(frozen=True)
class Question:
    """One inference attack on one model, or on updates: all that its process receives."""

    attack: str
    round: int
    """The model's, or the last whose updates are read."""
    source: Service | tuple[Observation, ...]
    knowledge: Knowledge
    targets: tuple[Targets, ...]
    """One claim is asked for each."""
    seed: int
    budget: Budget


@dataclass(frozen=True)
class Answer:
    """What came back: a claim for each targets, or why there is none; and what the service saw of it."""

    claims: tuple[Claim, ...] = ()
    status: str = "done"
    reason: str | None = None
    queries: int = 0
    refused: int = 0
    seen: Watched | None = None
    sanity: bool | None = None


@dataclass(frozen=True)
class Asked:
    """A question, with what scoring needs: the case, the truth about its targets, and where the adversary stands."""

    question: Question
    case: Case
    key: Key
    rung: str
    lacking: str | None = None
    """Why there is nothing to ask; the question is then not put."""


def questions(experiment: Experiment, view: View, training: Training, attacks: Sequence[Attack]) -> list[Asked]:
    """The inference attacks to run on one cell: one question for each model, and one for the updates of all rounds."""
    asked = []
    for attack in attacks:
        if attack.name not in inferences():
            continue
        if on_model(attack.name):
            asked += [_of_model(experiment, training, attack, round) for round in attack.rounds]
        else:
            asked.append(_of_updates(experiment, view, training, attack))
    return asked


def _of_model(experiment: Experiment, training: Training, attack: Attack, round: int) -> Asked:
    model = experiment.initial_model()
    model.load_state_dict(dict(training.released[round]))
    model.eval().requires_grad_(False)
    case = Case(experiment, attack, (round,), training.history, model)
    source = Service(
        model,
        experiment.dataset.num_classes,
        experiment.scenario.deployment,
        derive(experiment.seed, "service", attack.name, round),
        experiment.test_data()[0],
    )
    return _asked(case, source, Truth(round, THE_SUM, *_nothing(experiment), 0), of_model=True)


def _of_updates(experiment: Experiment, view: View, training: Training, attack: Attack) -> Asked:
    adversary = experiment.scenario.adversary
    aim = adversary.victim if adversary.plant is not None and adversary.plant.one_victim else None
    seen, whom = list[Observation](), dict[tuple[int, ...], Victim]()
    for round in attack.rounds:
        victims = victims_of(view, round)
        alone = [o for o in view.observations(round) if o.client is not None]
        seen += alone or [o for o in view.observations(round) if victims and o.contributors == len(victims[0].clients)]
        whom |= {victim.clients: victim for victim in victims if aim is None or victim.clients == (aim,)}
    victims = tuple(whom.values())[: attack.victims]
    case = Case(experiment, attack, attack.rounds, training.history, None, tuple(seen), victims)
    if not victims:
        return _asked(case, tuple(seen), Truth(max(attack.rounds), THE_SUM, *_nothing(experiment), 0))
    truth = truth_of(experiment, victims[0].round, *victims[0].clients)
    planted = [view.planted[round] for round in attack.rounds if round in view.planted]
    return _asked(case, tuple(seen), truth, planted[-1] if planted else None)


def _asked(
    case: Case, source: Service | tuple[Observation, ...], truth: Truth, planted: Any = None, *, of_model: bool = False
) -> Asked:
    """The question with its targets drawn; where there are none to draw, why."""
    experiment, name, round = case.experiment, case.attack.name, max(case.rounds)
    asset, targets, key, lacking = asset_of(name), tuple[Targets, ...](), Key(), None
    try:
        targets, key = asset.ask(case) if asset else ((Targets(),), {})
    except TaskError as without:
        lacking = str(without)
    if inside := key.get("inside"):
        truth = replace(truth, member_rate=float(torch.cat(inside).double().mean()))
    knowledge = knowledge_for(experiment, truth, planted, of_model=of_model)
    question = Question(
        name, round, source, knowledge, targets, derive(experiment.seed, "attack", name, "round", round),
        Budget(**case.attack.budget.model_dump()),
    )  # fmt: skip
    needs = inferences()[name].needs.rung
    contributors = max((len(victim.clients) for victim in case.victims), default=1)
    where = needs if of_model else rung(experiment.scenario, min(case.rounds), contributors)
    return Asked(question, case, key, where, lacking)


def _nothing(experiment: Experiment) -> tuple[Tensor, Tensor]:
    inputs, labels = experiment.test_data()
    return inputs[:0], labels[:0]


def answer(question: Question) -> Answer:
    """Run the attack; what it lacks, what the service refuses and what breaks are answers too."""
    log, oracle = QueryLog(), None
    source: Any = question.source
    if isinstance(question.source, Service):
        service = question.source
        chance = torch.Generator().manual_seed(service.noise)
        oracle = source = service.deployment.open(service.model, service.num_classes, chance, log)
    claims: list[Claim] = []
    status, reason = "done", None
    try:
        for number, targets in enumerate(question.targets):
            seed = derive(question.seed, number)
            claims.append(
                infer(question.attack, source, question.knowledge, targets=targets, seed=seed, budget=question.budget)
            )
    except NotApplicable as lacking:
        status, reason = "not_applicable", f"needs {lacking.missing} (rung {lacking.rung})"
    except OracleError as refused:
        status, reason = "refused", str(refused)
    except Exception as error:  # an attack of one's own may break in any way, and must not end the run
        status, reason = "failed", f"{type(error).__name__}: {error}"
    if oracle is None:
        return Answer(tuple(claims), status, reason)
    seen = None
    if oracle.queries and oracle.access != "white_box" and isinstance(question.source, Service):
        seen = watched(log, question.source.model, question.source.honest)
    return Answer(tuple(claims), status, reason, oracle.queries, oracle.refused, seen)
