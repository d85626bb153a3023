"""What a single-seed scenario fixes before anyone trains: data, split, first model. Clients and server rebuild it
from the scenario alone, so that no data set ever travels."""

import copy
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from attacks.losses import Loss
from fedsim.client import holdings
from fedsim.planting import announced
from fedsim.regularisation import training_loss
from fedsim.scenario import Scenario
from fedsim.scripts import load_scenario
from fedsim.seeds import derive
from fedsim.selection import selected
from fedsim.tasks import Dataset, Split, TaskError, build_model, load_dataset, split

log = logging.getLogger("flwr")


@dataclass(frozen=True)
class Experiment:
    """One cell made concrete. ``scenario`` has exactly one seed."""

    scenario: Scenario

    @property
    def seed(self) -> int:
        """The only seed; everything random derives from it."""
        return self.scenario.seeds[0]

    @cached_property
    def dataset(self) -> Dataset:
        """The task's data, loaded once a process."""
        task = self.scenario.task
        data = load_dataset(task.dataset, task.data_options, derive(self.seed, "dataset"))
        if task.loss is not None and (task.loss == "next_token") != (data.loss == "next_token"):
            reason = f"does not fit the labels of {data.name}"
            raise TaskError("task.loss", task.loss, reason, f"leave it out, which means {data.loss!r}")
        return data if task.loss is None else replace(data, loss=task.loss)

    @cached_property
    def division(self) -> Split:
        """Who holds which examples: clients, held-out test, the adversary's public data."""
        task = self.scenario.task
        return split(
            self.dataset,
            clients=self.scenario.federation.clients,
            kind=task.partition.kind,
            options=task.partition.options,
            test_fraction=task.test_fraction,
            public_fraction=task.public_fraction,
            seed=derive(self.seed, "split"),
        )

    @property
    def loss_name(self) -> str:
        """The loss trained on, by its name in ``attacks.losses``."""
        return self.dataset.loss

    @cached_property
    def _first_model(self) -> nn.Module:
        task = self.scenario.task
        return build_model(task.model, self.dataset, task.model_options, derive(self.seed, "model"))

    def agreed_model(self) -> nn.Module:
        """A fresh copy of the untrained model as everybody agreed on it."""
        return copy.deepcopy(self._first_model)

    def initial_model(self) -> nn.Module:
        """A fresh copy of the untrained model as the server announces it: the agreed one, unless it is malicious."""
        return announced(self.scenario, self.agreed_model(), self.dataset.input_shape)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what every figure rests on: the examples, who holds which of them, and the untrained model."""
        examples = (self.dataset.inputs, self.dataset.labels)
        division = (*self.division.clients, self.division.test, self.division.public)
        digest = hashlib.sha256()
        for tensor in (*examples, *division, *self._first_model.state_dict().values()):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def client_data(self, client: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels that client ``client`` holds."""
        inputs, labels = self._held(client)
        kept, *_ = selected(inputs, labels, self.scenario.task.selection)
        return inputs[kept], labels[kept]

    def _held(self, client: int) -> tuple[Tensor, Tensor]:
        held = holdings(self.division.clients[client], self.scenario.federation)
        return self.dataset.inputs[held], self.dataset.labels[held]

    def left_out(self) -> dict[str, int]:
        """How many records all clients hold, and how many they left out before training, counted on the records."""
        chosen = [
            selected(*self._held(c), self.scenario.task.selection) for c in range(self.scenario.federation.clients)
        ]
        kept, copies, strange = (sum(column) for column in zip(*((len(k), d, o) for k, d, o in chosen), strict=True))
        return {"held": kept + copies + strange, "duplicates": copies, "outliers": strange, "kept": kept}

    @property
    def training_loss(self) -> Loss:
        """What clients minimise: the task's loss, smoothed where the scenario says so."""
        return training_loss(self.loss_name, self.scenario.federation.regularisation)

    def test_data(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels that no client holds."""
        return self.dataset.inputs[self.division.test], self.dataset.labels[self.division.test]

    def public_data(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels that the adversary may hold, disjoint from every client's."""
        return self.dataset.inputs[self.division.public], self.dataset.labels[self.division.public]


def experiment_from_config(config: Mapping[str, Any]) -> Experiment:
    """The experiment that a Flower run's configuration names: ``scenario`` is JSON, a script, or a scenario's name."""
    return _experiment(str(config["scenario"]))


@lru_cache(maxsize=4)
def _experiment(text: str) -> Experiment:
    """Kept, since one process plays many clients over many rounds."""
    if text.lstrip().startswith("{"):
        return Experiment(Scenario.model_validate_json(text))
    first, *others = load_scenario(text).cells()
    if others:
        where = ", ".join([*first.labels.values(), f"seed {first.seed}"])
        log.warning("This run is of the first cell alone (%s); `fedsim run` also runs the other %d", where, len(others))
    return Experiment(first.scenario)
