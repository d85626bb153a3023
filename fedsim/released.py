"""How well the model serves as it is deployed: what the controls on its answers cost in accuracy."""

from typing import Any

from fedsim.experiment import Experiment
from fedsim.federation import Training
from fedsim.held import Records, comparable, joined
from fedsim.seeds import torch_generator
from fedsim.tasks.models import accuracy_and_loss


def releases(experiment: Experiment, training: Training) -> list[dict[str, Any]]:
    """Of each round's model that is attacked: its accuracy, and that of the labels that callers are told."""
    rows = []
    deployment, (inputs, labels) = experiment.scenario.deployment, experiment.test_data()
    for round, state in sorted(training.released.items()):
        model = experiment.initial_model()
        model.load_state_dict(dict(state))
        accuracy, loss = accuracy_and_loss(model, inputs, labels, experiment.loss_name)
        served = accuracy
        if deployment.access != "white_box" and experiment.loss_name == "cross_entropy":
            chance = torch_generator(experiment.seed, "service", "honest callers", round)
            honest = deployment.model_copy(update={"query_budget": None})
            told = honest.open(model, experiment.dataset.num_classes, chance, None).labels(inputs)
            served = float((told == labels).double().mean())
        trained, _ = accuracy_and_loss(model, *_private(experiment), experiment.loss_name)
        alike, _ = accuracy_and_loss(model, *comparable(experiment), experiment.loss_name)
        rows.append(
            {"round": round, "accuracy": accuracy, "loss": loss, "served": served, "gap": trained - alike,
             "access": deployment.access, "controls": [control.kind for control in deployment.controls]}
        )  # fmt: skip
    return rows


def _private(experiment: Experiment) -> Records:
    clients = range(experiment.scenario.federation.clients)
    return joined({client: experiment.client_data(client) for client in clients}, experiment.test_data())
