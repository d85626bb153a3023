"""The models by name, checked against the data before anything runs, and how well a model does."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attacks.losses import LOSSES
from fedsim.seeds import derive
from fedsim.tasks import models_basic, models_image
from fedsim.tasks.data import Dataset
from fedsim.tasks.errors import TaskError
from fedsim.tasks.names import check_options, unknown

MODELS: dict[str, Callable[..., nn.Module]] = {
    "softmax": models_basic.softmax,
    "mlp": models_basic.mlp,
    "lenet": models_image.lenet,
    "convnet": models_image.convnet,
}
"""Name to builder; a builder takes the data set and its options by keyword."""


def build_model(name: str, dataset: Dataset, options: Mapping[str, Any], seed: int) -> nn.Module:
    """The untrained model ``name`` for ``dataset``, in training mode, its weights drawn from the seed.

    Raises TaskError for an unknown name or option, and for a model that rejects the inputs, has nothing to train
    or whose outputs do not fit the labels. Leaves the global generators as they were.
    """
    if name not in MODELS:
        raise unknown("task.model", name, MODELS)
    builder = MODELS[name]
    check_options("task.model_options", options, builder, given=frozenset({"dataset"}))
    # Layers draw their weights from the global generator: lend them one and put the old state back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "model"))
        model = builder(dataset, **options)
        _check_fit(name, model, dataset)
    return model


def _check_fit(name: str, model: nn.Module, dataset: Dataset) -> None:
    if not any(p.requires_grad for p in model.parameters()):
        raise TaskError("task.model", name, "no trainable parameter", "give a model that learns")
    inputs = dataset.inputs[[0, -1]]
    mode = model.training
    try:
        with torch.no_grad():
            outputs = model.eval()(inputs)
    except Exception as error:
        raise TaskError(
            "task.model",
            name,
            f"rejects inputs of shape {tuple(inputs.shape)}: {error}",
            f"use a model for {dataset.modality} data of shape {dataset.input_shape}",
        ) from error
    finally:
        model.train(mode)
    wanted = (
        (*inputs.shape, dataset.num_classes) if dataset.loss == "next_token" else (len(inputs), dataset.num_classes)
    )
    found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if found != wanted:
        raise TaskError(
            "task.model",
            name,
            f"its output for {len(inputs)} examples is {found}, the labels of {dataset.name} need {wanted}",
            f"end it in logits for {dataset.num_classes} classes",
        )


@torch.no_grad()
def accuracy_and_loss(model: nn.Module, inputs: Tensor, labels: Tensor, loss: str) -> tuple[float, float]:
    """Accuracy in [0, 1] and mean loss in nats on (inputs, labels), in evaluation mode; of next tokens for text.

    Both are NaN for an empty set. Restores the model's mode.
    """
    if not len(inputs):
        return float("nan"), float("nan")
    mode = model.training
    model.eval()
    chunks = [
        (_hits(outputs := model(x), y, loss), float(LOSSES[loss](outputs, y)), len(x))
        for x, y in zip(inputs.split(256), labels.split(256), strict=True)
    ]
    model.train(mode)
    total = sum(n for *_, n in chunks)
    return sum(a * n for a, _, n in chunks) / total, sum(v * n for _, v, n in chunks) / total


def _hits(outputs: Tensor, labels: Tensor, loss: str) -> float:
    guesses = outputs.argmax(-1)
    right = guesses[:, :-1] == labels[:, 1:] if loss == "next_token" else guesses == labels
    return float(right.float().mean())
