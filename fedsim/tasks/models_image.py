"""Small models for pictures. No in-place operations, so that attacks can differentiate twice and vectorise."""

import math
from collections.abc import Callable

from torch import nn

from fedsim.tasks.data import Dataset
from fedsim.tasks.errors import TaskError

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(math.gcd(8, channels), channels),
}


def lenet(dataset: Dataset) -> nn.Module:
    """The sigmoid LeNet of Zhu et al., Deep Leakage from Gradients (NeurIPS 2019): weights uniform in +-0.5."""
    channels, height, width = _image_shape(dataset, "lenet")
    sides = math.ceil(height / 4) * math.ceil(width / 4)
    model = nn.Sequential(
        nn.Conv2d(channels, 12, 5, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, stride=1, padding=2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(12 * sides, dataset.num_classes),
    )
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return model


def convnet(dataset: Dataset, *, norm: str = "none") -> nn.Module:
    """Three 3x3 convolutions of 16, 32 and 64 channels with ReLU, the last two of stride 2, and a linear layer."""
    channels, height, width = _image_shape(dataset, "convnet")
    layers: list[nn.Module] = []
    for before, after, stride in ((channels, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), _norm(norm, after), nn.ReLU()]
    sides = math.ceil(height / 4) * math.ceil(width / 4)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * sides, dataset.num_classes))


def _norm(name: str, channels: int) -> nn.Module:
    if name not in NORMS:
        raise TaskError("task.model_options.norm", name, "unknown name", f"allowed: {', '.join(NORMS)}")
    return NORMS[name](channels)


def _image_shape(dataset: Dataset, model: str) -> tuple[int, int, int]:
    if dataset.modality != "image":
        raise TaskError("task.model", model, f"it takes pictures, {dataset.name} is {dataset.modality}", "use 'mlp'")
    channels, height, width = dataset.input_shape
    return channels, height, width
