"""Victims with a photograph each: crop, model and attack seed follow from one number, fixed before any attack ran."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks import Knowledge, Observation, reconstruct_many
from attacks.metrics import psnr
from fedsim.tasks.images import photos
from fedsim.tasks.models_image import convnet, lenet
from tests.attacks.conftest import gradient

BUILDERS = {"lenet": lenet, "convnet": convnet}


@dataclass(frozen=True)
class Photo:
    """One victim: the truth, what the attack is given, and a fifth of the other crops as public data."""

    image: Tensor
    label: Tensor
    obs: Observation
    know: Knowledge
    seed: int
    public: Tensor


def photo(model: str, seed: int) -> Photo:
    """A crop of photograph ``seed`` modulo six at an untrained model."""
    data = photos(0)
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = BUILDERS[model](data)
    own = (data.labels == seed % data.num_classes).nonzero()[:, 0]
    at = own[int(torch.randint(len(own), (1,), generator=draw))]
    image, label = data.inputs[at, None], data.labels[at, None]
    know = Knowledge(input_shape=(3, 32, 32), num_classes=data.num_classes, batch_size=1, value_range=(0.0, 1.0))
    others = (torch.arange(len(data)) != at).nonzero()[:, 0]
    public = data.inputs[others[torch.randperm(len(others), generator=draw)[: len(data) // 5]]]
    return Photo(image, label, Observation(net, gradient(net, image, label), "gradient"), know, seed, public)


def attack(name, victims, budget=None):
    """Claims, and the decibels and label verdict of each."""
    claims = reconstruct_many(name, [(v.obs, v.know, v.seed) for v in victims], budget=budget)
    decibels = [float(psnr(c.inputs, v.image, (0.0, 1.0))) for c, v in zip(claims, victims, strict=True)]
    right = [c.labels.tolist() == v.label.tolist() for c, v in zip(claims, victims, strict=True)]
    return claims, decibels, right
