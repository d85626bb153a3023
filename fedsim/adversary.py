"""The adversary made concrete: which facts the threat model hands it, on which rung that puts it, in words."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from attacks import Knowledge
from fedsim.client import update_kind
from fedsim.experiment import Experiment
from fedsim.lies import opening_words
from fedsim.parties import opening, sees
from fedsim.planting import planting_words
from fedsim.scenario import Scenario
from fedsim.tasks import Column, Dataset
from fedsim.truth import Truth
from fedsim.words import KNOWLEDGE, counted, listed

_FACTS: dict[str, Callable[[Experiment, Truth], Any]] = {
    "batch_size": lambda experiment, truth: len(truth.labels),
    "labels": lambda experiment, truth: truth.labels.clone(),
    "value_range": lambda experiment, truth: experiment.dataset.value_range,
    "learning_rate": lambda experiment, truth: experiment.scenario.federation.learning_rate,
    "local_steps": lambda experiment, truth: truth.steps,
    "local_epochs": lambda experiment, truth: experiment.scenario.federation.local_epochs,
    "local_batch_size": lambda experiment, truth: experiment.scenario.federation.batch_size,
    "public": lambda experiment, truth: _some(experiment.public_data()[0]),
    "public_labels": lambda experiment, truth: _some(experiment.public_data()[1]),
    "columns": lambda experiment, truth: _schema(experiment.dataset),
    "architecture": lambda experiment, truth: experiment.initial_model(),
    "epochs": lambda experiment, truth: _epochs(experiment, truth.round),
    "member_rate": lambda experiment, truth: truth.member_rate,
}
"""How each grantable fact is found. ``labels`` and ``batch_size`` are private: granting them is the scenario's
choice, and the rung tells it. ``columns`` is a table's public schema, which who builds the model has to know."""


def _some(public: Tensor) -> Tensor | None:
    """Public data; without a single example, nothing is granted."""
    return public if len(public) else None


def _schema(dataset: Dataset) -> tuple[Column, ...] | None:
    """A table's columns, numbers where none are declared; None for what is no table."""
    if dataset.modality != "tabular":
        return None
    return dataset.columns or tuple(Column(str(i), "numeric") for i in range(dataset.inputs.shape[1]))


def _epochs(experiment: Experiment, rounds: int) -> int:
    """How often an example was trained on in so many rounds, on average over a client's, and at least once."""
    federation = experiment.scenario.federation
    held = [len(experiment.client_data(client)[1]) for client in range(federation.clients)]
    asked = rounds * (federation.cohort or federation.clients) / federation.clients
    if update_kind(federation) == "gradient":
        seen = asked * sum(min(federation.batch_size, own) / own for own in held) / len(held)
    elif federation.local_steps is not None:
        seen = asked * sum(federation.local_steps * min(federation.batch_size, own) / own for own in held) / len(held)
    else:
        seen = asked * federation.local_epochs
    return max(1, round(seen))


ABOUT_UPDATES = frozenset({"batch_size", "labels", "local_steps"})
"""Facts about the examples behind one update, which say nothing of the finished model."""


def knowledge_for(
    experiment: Experiment, truth: Truth, planted: Mapping[str, Any] | None = None, *, of_model: bool = False
) -> Knowledge:
    """Exactly the facts that the scenario grants about one victim, and the architecture's fixed ones; and what the
    adversary itself ``planted`` in the round's model. ``of_model`` leaves out what only updates are about."""
    dataset = experiment.dataset
    names = [name for name in experiment.scenario.adversary.knows if not (of_model and name in ABOUT_UPDATES)]
    granted: dict[str, Any] = {name: _FACTS[name](experiment, truth) for name in names}
    return Knowledge(
        input_shape=dataset.input_shape,
        num_classes=dataset.num_classes,
        loss=experiment.loss_name,
        planted=planted,
        **granted,
    )


SMALL_COHORT = 5
"""A sum over fewer clients than this hides each of them only among a few."""


def rung(scenario: Scenario, round: int, contributors: int = 1) -> str:
    """Where the adversary stands on the assumption ladder: L2 (the sum of many) to L7 (one example's clean gradient).

    A sum over one is that client's own update.
    """
    if scenario.adversary.lie is not None:
        return "L10"
    if scenario.adversary.plant is not None:
        return scenario.adversary.plant.rung
    if contributors > 1:
        return "L2" if contributors >= SMALL_COHORT else "L3"
    federation, knows = scenario.federation, set(scenario.adversary.knows)
    if federation.algorithm == "fedsgd" and federation.batch_size == 1 and round == 1:
        return "L7"
    if "labels" in knows:
        return "L6"
    return "L5" if knows & {"learning_rate", "local_steps", "local_epochs", "batch_size"} else "L4"


CALLS = "The adversary calls the finished model, or holds it; no attack reads a message of the training."
"""The first sentence where the model alone is attacked."""


def in_words(scenario: Scenario) -> list[str]:
    """The threat model as sentences, for the report and for ``--dry-run``."""
    federation, knows, colluders = scenario.federation, scenario.adversary.knows, scenario.adversary.colluders
    asked = federation.cohort or federation.clients
    sent = "the gradient of one batch" if federation.algorithm == "fedsgd" else "trained minus received weights"
    stack = ", then ".join(defence.describe() for defence in scenario.protocol)
    curious = scenario.adversary.lie is None and scenario.adversary.plant is None
    calls_alone = curious and bool(scenario.released_rounds) and not scenario.attacked_rounds
    return [
        CALLS
        if calls_alone
        else opening(scenario)
        or (opening_words(scenario) if scenario.adversary.plant is None else planting_words(scenario)),
        f"In each of {counted(federation.rounds, 'round')} the server asks {asked} of "
        f"{counted(federation.clients, 'client')}; each sends {sent}, at most "
        f"{counted(federation.batch_size, 'example')} in a batch.",
        f"Before an update leaves a client: {stack}." if stack else "Updates cross the wire as they are.",
        "The adversary knows the kind of task and of input, and the loss." if calls_alone else sees(scenario),
        f"It is also told {listed([KNOWLEDGE[fact] for fact in knows])}." if knows else "It is told nothing else.",
        *([f"{counted(colluders, 'client')} of the federation help it with all they hold."] if colluders else []),
        "It does not see any other client's memory, any random seed, or which examples a client used."
        if colluders
        else "It does not see any client's memory, any random seed, or which examples a client used.",
        *([scenario.deployment.describe()] if scenario.released_rounds else []),
    ]
