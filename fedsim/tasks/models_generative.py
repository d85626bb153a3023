"""Models that generate: they learn what inputs look like, and take no labels."""

import math

import torch
from torch import nn

from attacks.autoencoder import Autoencoder
from attacks.fitting import perceptron
from attacks.ranges import bounds
from fedsim.tasks.data import Dataset
from fedsim.tasks.errors import TaskError


def vae(dataset: Dataset, *, latent: int = 16, hidden: int = 128) -> nn.Module:
    """A variational autoencoder with one dense layer of ``hidden`` units each way; trained with ``loss = 'elbo'``."""
    if dataset.modality == "text":
        raise TaskError("task.model", "vae", f"it takes numbers, {dataset.name} is text", "use 'transformer'")
    size = math.prod(dataset.input_shape)
    low, high = bounds(dataset.value_range, dataset.input_shape)
    # ``build_model`` lends the global generator, as to any layer.
    encoder = perceptron([size, hidden, 2 * latent], torch.default_generator)
    decoder = perceptron([latent, hidden, size], torch.default_generator)
    return Autoencoder(encoder, decoder, latent, low, high)
