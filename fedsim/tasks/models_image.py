"""Small models for pictures. No in-place operations, so that attacks can differentiate twice and vectorise."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fedsim.tasks.data import Dataset
from fedsim.tasks.errors import TaskError

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(math.gcd(8, channels), channels),
}


def lenet(dataset: Dataset) -> nn.Module:
    """The sigmoid LeNet of Zhu et al., Deep Leakage from Gradients (NeurIPS 2019): weights uniform in +-0.5."""
    channels, height, width = image_shape(dataset, "lenet")
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
    channels, height, width = image_shape(dataset, "convnet")
    layers: list[nn.Module] = []
    for before, after, stride in ((channels, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), _norm(norm, after), nn.ReLU()]
    sides = math.ceil(height / 4) * math.ceil(width / 4)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * sides, dataset.num_classes))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al., 2016)."""

    def __init__(self, before: int, after: int, stride: int, norm: str) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=norm == "none"),
            _norm(norm, after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=norm == "none"),
            _norm(norm, after),
        )
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.convolutions(x) + self.shortcut(x))


class ResNet(nn.Module):
    """A 3x3 stem, one residual block per entry of ``widths`` (stride 2 from the second on), mean pooling."""

    def __init__(self, channels: int, num_classes: int, widths: Sequence[int], norm: str) -> None:
        super().__init__()
        stem = nn.Conv2d(channels, widths[0], 3, padding=1, bias=norm == "none")
        blocks = [
            ResidualBlock(widths[max(i - 1, 0)], width, 1 if i == 0 else 2, norm) for i, width in enumerate(widths)
        ]
        self.features = nn.Sequential(stem, _norm(norm, widths[0]), nn.ReLU(), *blocks)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


def resnet(dataset: Dataset, *, widths: Sequence[int] = (16, 32, 64), norm: str = "batch") -> nn.Module:
    """A small residual network; ``norm`` is 'batch', 'group' or 'none'."""
    channels, _, _ = image_shape(dataset, "resnet")
    return ResNet(channels, dataset.num_classes, widths, norm)


def _norm(name: str, channels: int) -> nn.Module:
    if name not in NORMS:
        raise TaskError("task.model_options.norm", name, "unknown name", f"allowed: {', '.join(NORMS)}")
    return NORMS[name](channels)


def image_shape(dataset: Dataset, model: str) -> tuple[int, int, int]:
    """Channels, height and width of a data set of pictures; TaskError for other data."""
    if dataset.modality != "image":
        raise TaskError(
            "task.model", model, f"it takes pictures, {dataset.name} is {dataset.modality}", "use a model for such data"
        )
    channels, height, width = dataset.input_shape
    return channels, height, width
