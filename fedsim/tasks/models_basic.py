"""Models for any flat input: the simplest ones that leak."""

import itertools
import math
from collections.abc import Sequence

from torch import nn

from fedsim.tasks.data import Dataset
from fedsim.tasks.errors import TaskError

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU}


def softmax(dataset: Dataset) -> nn.Module:
    """Softmax regression: one linear layer on the flattened input."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(dataset.input_shape), dataset.num_classes))


def mlp(
    dataset: Dataset, *, hidden: Sequence[int] = (128,), activation: str = "relu", dropout: float = 0.0
) -> nn.Module:
    """Fully connected layers of ``hidden`` widths on the flattened input, with ``dropout`` after each."""
    if not 0 <= dropout < 1:
        raise TaskError("task.model_options.dropout", dropout, "no share of units below 1", "take 0 to 0.9")
    if activation not in ACTIVATIONS:
        raise TaskError(
            "task.model_options.activation", activation, "unknown name", f"allowed: {', '.join(ACTIVATIONS)}"
        )
    widths = [math.prod(dataset.input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation](), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(widths[-1], dataset.num_classes))
