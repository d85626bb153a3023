"""The truth: what the attacked clients really trained on. Only scoring opens it; no attack ever receives it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedsim.client import batches
from fedsim.experiment import Experiment


@dataclass(frozen=True)
class Truth:
    """One client's examples behind one round's update: ``inputs`` (B, ...), ``labels`` (B,), each example once."""

    round: int
    client: int
    inputs: Tensor
    labels: Tensor
    steps: int


def truth_of(experiment: Experiment, round: int, client: int) -> Truth:
    """Derive again, from the seed, which examples the client used."""
    inputs, labels = experiment.client_data(client)
    steps = batches(len(labels), experiment.scenario.federation, experiment.seed, round, client)
    used = torch.cat(steps).unique()
    return Truth(round, client, inputs[used], labels[used], len(steps))
