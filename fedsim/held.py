"""What the clients' training really used, and candidates drawn among it and beside it: the truth of membership."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attacks import Targets
from fedsim.client import batches
from fedsim.experiment import Experiment
from fedsim.seeds import torch_generator
from fedsim.selection import selected

Records = tuple[Tensor, Tensor]
"""Inputs (N, ...) and labels (N,)."""


def used(
    experiment: Experiment,
    history: Sequence[Mapping[str, Any]],
    rounds: Collection[int],
    clients: Collection[int] | None = None,
) -> dict[int, Records]:
    """What each of ``clients`` (None: all) trained on in ``rounds`` in which it answered, each record once."""
    federation, positions = experiment.scenario.federation, dict[int, list[Tensor]]()
    for row in history:
        if row["round"] in rounds:
            for client in row.get("answered", row.get("cohort", ())):
                if clients is None or client in clients:
                    held = len(experiment.client_data(client)[1])
                    steps = batches(held, federation, experiment.seed, row["round"], client)
                    positions.setdefault(client, []).extend(steps)
    found = {}
    for client in sorted(positions):
        inputs, labels = experiment.client_data(client)
        chosen = torch.cat(positions[client]).unique()
        found[client] = (inputs[chosen], labels[chosen])
    return found


def joined(records: Mapping[int, Records], like: Records) -> Records:
    """All clients' records as one; none of the shape of ``like`` where there are none."""
    parts = list(records.values()) or [(like[0][:0], like[1][:0])]
    return torch.cat([inputs for inputs, _ in parts]), torch.cat([labels for _, labels in parts])


def some(records: Records, most: int | None, generator: torch.Generator) -> Records:
    """At most so many of the records, drawn at random; all of them in their order where ``most`` is None."""
    if most is None or most >= len(records[1]):
        return records
    chosen = torch.randperm(len(records[1]), generator=generator)[:most]
    return records[0][chosen], records[1][chosen]


def candidates(
    experiment: Experiment, members: Records, most: int | None, *path: int | str, client: int | None = None
) -> tuple[Targets, Tensor]:
    """Members and held-out records, at most ``most`` of each, shuffled; and which of them are members (T,).

    A record is asked about once, however many copies of it were trained on, and one that was is nowhere held out.
    """
    generator = torch_generator(experiment.seed, "candidates", *path)
    held_out = comparable(experiment)
    first = _first(torch.cat([members[0], held_out[0]]))
    own, others = first.split([len(members[1]), len(held_out[1])])
    inside = some((members[0][own], members[1][own]), most, generator)
    outside = some((held_out[0][others], held_out[1][others]), most, generator)
    inputs, labels = torch.cat([inside[0], outside[0]]), torch.cat([inside[1], outside[1]])
    order = torch.randperm(len(labels), generator=generator)
    return Targets(inputs[order], labels[order], client=client), (torch.arange(len(labels)) < len(inside[1]))[order]


def comparable(experiment: Experiment) -> Records:
    """The held-out records that a client would train on: selection would else tell members by their looks alone."""
    inputs, labels = experiment.test_data()
    kept, _, _ = selected(inputs, labels, experiment.scenario.task.selection)
    return inputs[kept], labels[kept]


def _first(inputs: Tensor) -> Tensor:
    """Which of ``inputs`` (N, ...) are no copy of an earlier one: (N,) booleans."""
    _, which = inputs.flatten(1).unique(dim=0, return_inverse=True)
    places = torch.arange(len(inputs))
    earliest = torch.full((len(inputs),), len(inputs)).scatter_reduce(0, which, places, "amin")
    return earliest[which] == places
