"""Crafted models, as a scenario asks for them: where they can be planted, and the server that sends them."""

from typing import TYPE_CHECKING, Any

import torch
from flwr.app import ArrayRecord
from torch import Tensor, nn

from attacks.inference import Targets
from attacks.surgery.front import INNER, behind_front
from attacks.view import Knowledge
from fedsim.names import nearest
from fedsim.seeds import torch_generator
from fedsim.tasks import TaskError
from strategies.homomorphic import Homomorphic
from strategies.malicious import MaliciousServer
from strategies.plants import PLANTS, Crafted, Site
from strategies.secure_aggregation import SecureAggregation

if TYPE_CHECKING:
    from fedsim.experiment import Experiment
    from fedsim.scenario import Scenario
    from fedsim.threat import Adversary

PLANTER = "malicious_model"
"""The kind of adversary that sends crafted models."""


def plant_by_name(plant: Any) -> Any:
    """A plant given by its name, as its fields; raises ValueError for a name that is unknown."""
    kind = plant if isinstance(plant, str) else plant.get("kind") if isinstance(plant, dict) else None
    if kind is not None and kind not in PLANTS:
        raise ValueError(f"{kind!r}: unknown; {nearest(str(kind), PLANTS)}")
    return {"kind": plant} if isinstance(plant, str) else plant


def planter_problems(adversary: "Adversary") -> list[str]:
    """What is wrong with the plant by itself."""
    plant = adversary.plant
    if (adversary.kind == PLANTER) != (plant is not None):
        shown = None if plant is None else plant.kind
        return [f"kind = {adversary.kind!r}, plant = {shown!r}: {PLANTER!r} plants, and no other kind does; set both"]
    return [] if plant is None else [f"plant.{problem}" for problem in plant.problems()]


def plant_problems(scenario: "Scenario") -> list[str]:
    """Why this scenario's plant cannot work in its federation and protocol."""
    adversary, clients = scenario.adversary, scenario.federation.clients
    plant = adversary.plant
    if plant is None:
        return []
    problems = []
    if plant.one_victim and adversary.victim >= clients - adversary.colluders:
        honest = clients - adversary.colluders - 1
        problems.append(f"adversary.victim = {adversary.victim}: must be an honest client, from 0 to {honest}")
    if plant.public and not ("public" in adversary.knows and scenario.task.public_fraction):
        problems.append(
            f"adversary.plant = {plant.kind!r}: is set on public data; grant 'public' and leave task.public_fraction"
        )
    for defence in scenario.protocol:
        if isinstance(defence, Homomorphic) and defence.keys == "clients_share_key":
            if late := sorted(round for round in scenario.attacked_rounds if round > 1):
                problems.append(
                    f"attacks.rounds = {late}: clients that share the key keep their own copy of the model after "
                    "round 1, and look at no other; attack round 1, or choose other keys"
                )
            if adversary.colluders and (plant.one_victim or plant.kind == "kernels"):
                problems.append(
                    f"adversary.plant = {plant.kind!r}: what a model for each client adds once a client gives its key "
                    "away is not modelled; set colluders = 0"
                )
    return problems


def announced(scenario: "Scenario", agreed: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """The architecture that the server announces: the agreed one, or behind the layer that its plant needs."""
    front = front_of(scenario, input_shape)
    return behind_front(agreed, *front) if front else agreed


def front_of(scenario: "Scenario", input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Inputs and rows of the layer that the plant puts in front; empty where there is none."""
    federation, plant = scenario.federation, scenario.adversary.plant
    rows = plant.rows(federation.cohort or federation.clients) if plant else 0
    return (torch.Size(input_shape).numel(), rows) if rows else ()


def malicious_server(experiment: "Experiment") -> MaliciousServer | None:
    """The server that plants in the rounds that are attacked; None where the scenario's server does not plant."""
    adversary = experiment.scenario.adversary
    if adversary.plant is None:
        return None
    return MaliciousServer(
        adversary.plant,
        victim=adversary.victim,
        rounds=experiment.scenario.attacked_rounds,
        front=front_of(experiment.scenario, experiment.dataset.input_shape),
        craft=lambda round, cohort, arrays: craft(experiment, round, cohort, arrays),
    )


def craft(experiment: "Experiment", round: int, cohort: tuple[int, ...], arrays: ArrayRecord) -> Crafted:
    """The models of a round whose honest model is ``arrays``; raises ValueError where they have no place."""
    adversary, federation = experiment.scenario.adversary, experiment.scenario.federation
    assert adversary.plant is not None
    model = experiment.initial_model()
    model.load_state_dict(arrays.to_torch_state_dict())
    rounds = tuple(sorted(experiment.scenario.attacked_rounds))
    site = Site(
        model=model.get_submodule(INNER) if front_of(experiment.scenario, experiment.dataset.input_shape) else model,
        know=_known(experiment),
        cohort=cohort,
        victim=adversary.victim,
        batch=federation.batch_size,
        generator=torch_generator(experiment.seed, "adversary", "plant", round),
        suspects=suspects(experiment)[0] if adversary.plant.asks() else None,
        rounds=rounds,
        round=round if round in rounds else rounds[0],
    )
    return adversary.plant.craft(site)


def suspects(experiment: "Experiment") -> tuple[Targets, Tensor]:
    """The records that the plant asks about: the victim's and held-out ones; and which are the victim's (T,)."""
    from fedsim.held import candidates  # late: what is held is an experiment's, and an experiment's model is announced

    adversary = experiment.scenario.adversary
    assert adversary.plant is not None
    held, count = experiment.client_data(adversary.victim), adversary.plant.asks()
    return candidates(experiment, held, count, "suspects", adversary.victim, client=adversary.victim)


def first_models(experiment: "Experiment") -> Crafted | None:
    """What the server would send in the first round; None where it does not plant.

    Raises TaskError for a model without a place for the plant.
    """
    plant = experiment.scenario.adversary.plant
    if plant is None:
        return None
    federation = experiment.scenario.federation
    cohort = tuple(range(federation.cohort or federation.clients))
    try:
        return craft(experiment, 1, cohort, ArrayRecord(dict(experiment.initial_model().state_dict())))
    except ValueError as error:
        remedy = "choose another plant or another task"
        raise TaskError("adversary.plant", plant.kind, str(error), remedy) from None


def _known(experiment: "Experiment") -> Knowledge:
    """What the server knows when it plants: nothing that is private."""
    dataset, knows = experiment.dataset, experiment.scenario.adversary.knows
    public, labels = experiment.public_data()
    granted = "public" in knows and len(public) > 0
    return Knowledge(
        dataset.input_shape,
        dataset.num_classes,
        value_range=dataset.value_range,
        loss=experiment.loss_name,
        public=public if granted else None,
        public_labels=labels if granted and "public_labels" in knows else None,
    )


def planting_words(scenario: "Scenario") -> str:
    """What the server does, as the threat model's first sentence."""
    adversary = scenario.adversary
    assert adversary.plant is not None
    aim = f", to read client {adversary.victim}" if adversary.plant.one_victim else ""
    hidden = any(isinstance(defence, SecureAggregation | Homomorphic) for defence in scenario.protocol)
    kept = ", and otherwise runs the protocol as agreed" if hidden else ""
    return (
        f"The server sends crafted models in the rounds that are attacked{aim} ({adversary.plant.kind}){kept}. "
        f"It sends {adversary.plant.describe()}. Clients train what they are sent; the server throws the result away."
    )
