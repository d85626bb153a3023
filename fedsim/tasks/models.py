"""The models by name, checked against the data before anything runs, and how well a model does."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attacks.autoencoder import Autoencoder
from attacks.losses import LOSSES
from fedsim.seeds import derive
from fedsim.tasks import models_attention, models_basic, models_generative, models_image
from fedsim.tasks.data import Dataset
from fedsim.tasks.errors import TaskError
from fedsim.tasks.names import check_options, resolve, unknown

MODELS: dict[str, Callable[..., nn.Module]] = {
    "convnet": models_image.convnet,
    "lenet": models_image.lenet,
    "mlp": models_basic.mlp,
    "resnet": models_image.resnet,
    "softmax": models_basic.softmax,
    "transformer": models_attention.transformer,
    "vae": models_generative.vae,
    "vit": models_attention.vit,
}
"""Name to builder; a builder takes the data set and its options by keyword."""


def build_model(name: str, dataset: Dataset, options: Mapping[str, Any], seed: int) -> nn.Module:
    """The untrained model ``name`` for ``dataset``, in training mode, its weights drawn from the seed.

    ``name`` is registered, or ``"package.module:name"`` of a class or function that takes ``options`` and gives an
    ``nn.Module``. Raises TaskError for an unknown name or option, and for a model that rejects the inputs, has
    nothing to train or whose outputs do not fit the labels. Leaves the global generator as it was.
    """
    builder, given = _builder(name, dataset)
    check_options("task.model_options", options, builder, given=frozenset(given))
    # Layers draw their weights from the global generator: lend them one and put its old state back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "model"))
        try:
            model = builder(**given, **options)
        except TaskError:
            raise
        except Exception as error:  # the user's options or code may raise anything
            reason = f"cannot be built with {dict(options)} ({type(error).__name__}: {error})"
            raise TaskError("task.model", name, reason, "mend task.model_options or the model") from error
        _check_fit(name, model, dataset)
    return model.train()


def _builder(name: str, dataset: Dataset) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    if name in MODELS:
        return MODELS[name], {"dataset": dataset}
    if ":" not in name:
        raise unknown("task.model", name, MODELS, "; or 'package.module:name' of your own")
    builder = resolve("task.model", name)
    if not callable(builder) or isinstance(builder, nn.Module):
        raise TaskError("task.model", name, "neither a class nor a function", "name one that makes the model")
    return builder, {}


def _check_fit(name: str, model: nn.Module, dataset: Dataset) -> None:
    if not isinstance(model, nn.Module):
        raise TaskError("task.model", name, f"makes a {type(model).__name__}", "make a torch.nn.Module")
    if not any(p.requires_grad for p in model.parameters()):
        raise TaskError("task.model", name, "no trainable parameter", "give a model that learns")
    inputs = dataset.inputs[[0, -1]]
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
    found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if isinstance(model, Autoencoder) != (dataset.loss == "elbo"):
        reason = f"loss {dataset.loss!r} is not what it trains on"
        raise TaskError("task.model", name, reason, "set task.loss = 'elbo' for a generative model, and for no other")
    wanted: tuple[int, ...] = {
        "next_token": (*inputs.shape, dataset.num_classes),
        "elbo": (len(inputs), 2),
    }.get(dataset.loss, (len(inputs), dataset.num_classes))
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

    Both are NaN for an empty set, and accuracy is NaN for a model that generates. Restores the model's mode.
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
    if loss == "elbo":
        return float("nan")
    guesses = outputs.argmax(-1)
    right = guesses[:, :-1] == labels[:, 1:] if loss == "next_token" else guesses == labels
    return float(right.float().mean())
