"""Who holds which examples: the clients, the experimenter's test set and the adversary's public data."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsim.seeds import derive, numpy_generator
from fedsim.tasks.data import Dataset
from fedsim.tasks.errors import TaskError
from fedsim.tasks.names import check_options, unknown


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint index tensors (int64) into a data set: one per client, the held-out test set, the public data."""

    clients: tuple[Tensor, ...]
    test: Tensor
    public: Tensor


@dataclass(frozen=True)
class _Kind:
    """A partitioner of flwr-datasets by class name, with defaults where ours differ; ``iid`` alone needs no label."""

    partitioner: str
    by_label: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)


PARTITIONS: dict[str, _Kind] = {
    "iid": _Kind("IidPartitioner", by_label=False),
    "dirichlet": _Kind("DirichletPartitioner", defaults={"alpha": 0.5, "min_partition_size": 1}),
    "shard": _Kind("ShardPartitioner", defaults={"num_shards_per_partition": 2}),
    "pathological": _Kind(
        "PathologicalPartitioner",
        defaults={"num_classes_per_partition": 2, "class_assignment_mode": "first-deterministic"},
    ),
}
"""The options of a kind are those of its flwr-datasets class."""


def split(
    dataset: Dataset,
    *,
    clients: int,
    kind: str,
    options: Mapping[str, Any],
    test_fraction: float,
    public_fraction: float,
    seed: int,
) -> Split:
    """Set test and public examples aside (classes in proportion), then partition the rest over ``clients``.

    Deterministic given the seed. Raises TaskError for an unknown kind or option, fractions that leave nothing, and
    a partition that leaves a client without examples or needs class labels that the data lack.
    """
    if kind not in PARTITIONS:
        raise unknown("task.partition.kind", kind, PARTITIONS)
    if clients < 1:
        raise TaskError("federation.clients", clients, "a federation needs a client", "set it to 1 or more")
    for name, fraction in (("task.test_fraction", test_fraction), ("task.public_fraction", public_fraction)):
        if not 0 <= fraction < 1:
            raise TaskError(name, fraction, "not a fraction of the data", "set it in [0, 1)")
    order = _stratified_order(dataset, seed)
    test, public = (math.ceil(round(f * len(order), 6)) for f in (test_fraction, public_fraction))
    rest = order[test + public :]
    if len(rest) < clients:
        raise TaskError(
            "federation.clients",
            clients,
            f"{len(rest)} of {len(order)} examples are left for them after {test} for test and {public} public ones",
            f"use at most {max(len(rest), 1)} clients, more data or smaller fractions",
        )
    rest = numpy_generator(seed, "partition", "order").permutation(rest)
    parts = _partition(dataset, rest, clients, kind, options, seed)
    return Split(
        clients=tuple(torch.from_numpy(part) for part in parts),
        test=torch.from_numpy(order[:test]),
        public=torch.from_numpy(order[test : test + public]),
    )


def _stratified_order(dataset: Dataset, seed: int) -> np.ndarray:
    """All indices in a random order in which every leading slice holds the classes in about their proportions."""
    generator = numpy_generator(seed, "split")
    shuffled = generator.permutation(len(dataset))
    if dataset.labels.ndim != 1:
        return shuffled
    labels = dataset.labels.numpy()[shuffled]
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        position[members] = (np.arange(len(members)) + generator.random(len(members))) / len(members)
    return shuffled[np.argsort(position, kind="stable")]


def _partition(
    dataset: Dataset, rest: np.ndarray, clients: int, kind: str, options: Mapping[str, Any], seed: int
) -> list[np.ndarray]:
    # Late: it imports pandas, pyarrow and seaborn, which takes seconds.
    from datasets import Dataset as Table
    from flwr_datasets import partitioner as flower

    chosen = PARTITIONS[kind]
    make = getattr(flower, chosen.partitioner)
    given: dict[str, Any] = {"num_partitions": clients}
    columns: dict[str, Any] = {"index": rest}
    if chosen.by_label:
        if dataset.labels.ndim != 1:
            raise TaskError("task.partition.kind", kind, f"{dataset.name} has no class labels", "use 'iid'")
        given |= {"partition_by": "label", "seed": derive(seed, "partition", kind)}
        columns["label"] = dataset.labels.numpy()[rest]
    chosen_options = {**chosen.defaults, **options}
    check_options("task.partition.options", chosen_options, make, given=frozenset(given))
    try:
        with warnings.catch_warnings():
            # It warns of every attempt that it repeats; what fails for good is raised.
            warnings.simplefilter("ignore")
            parts = make(**chosen_options, **given)
            parts.dataset = Table.from_dict(columns)
            indices = [np.asarray(parts.load_partition(i)["index"], dtype=np.int64) for i in range(clients)]
    except (ValueError, TypeError, AssertionError) as error:
        raise TaskError(
            "task.partition",
            {"kind": kind, **chosen_options},
            f"no such partition gives {clients} clients examples ({error})",
            "use fewer clients, or milder options",
        ) from error
    empty = [client for client, part in enumerate(indices) if not len(part)]
    if empty:
        raise TaskError(
            "task.partition",
            {"kind": kind, **chosen_options},
            f"{len(empty)} of {clients} clients get no example, the first is client {empty[0]}",
            "use fewer clients, or milder options",
        )
    return indices
