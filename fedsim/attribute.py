"""The sensitive column of a task as targets of attribute inference, with the truth kept apart for scoring."""

import torch
from torch import Tensor

from attacks import Targets
from attacks.attribute import values_of
from fedsim.tasks import Dataset, TaskError


def sensitive_place(dataset: Dataset) -> tuple[tuple[int, ...], Tensor]:
    """The feature positions of the sensitive column, and its values (K, positions).

    Raises TaskError where none is declared, where it is no category, and where it is the same in every record.
    """
    if dataset.sensitive is None:
        raise TaskError(
            "task.dataset",
            dataset.name,
            "declares no sensitive column, so that there is no attribute to infer",
            "declare one: data_options sensitive = '<column>', or a data set that has one",
        )
    start = 0
    for column in dataset.columns:
        if column.name == dataset.sensitive:
            break
        start += column.width
    if column.kind != "categorical":
        reason = "a number; attribute inference is told categories apart"
        raise TaskError("task.data_options.sensitive", dataset.sensitive, reason, "give it as a category")
    place = tuple(range(start, start + column.width))
    held = dataset.inputs[:, list(place)].argmax(1).unique()
    if len(held) < 2:
        reason = f"the same in all records ({column.categories[int(held[0])]!r})"
        raise TaskError("task.data_options.sensitive", dataset.sensitive, reason, "declare a column that varies")
    return place, torch.eye(column.width)


def attribute_targets(dataset: Dataset, records: Tensor) -> tuple[Targets, Tensor]:
    """Targets with the sensitive column hidden for the examples ``records`` (indices), and its true values (T,)."""
    place, values = sensitive_place(dataset)
    complete = dataset.inputs[records]
    hidden = complete.clone()
    hidden[:, list(place)] = torch.nan
    targets = Targets(inputs=hidden, labels=dataset.labels[records], column=place, values=values)
    return targets, values_of(complete, targets)
