"""A small image or text behind a small model's gradient, for attacks to prove themselves on; known to no one else."""

import torch
from torch import Tensor, nn

from attacks.losses import LOSSES
from attacks.registry import Sanity
from attacks.view import Budget, Knowledge, Observation, Reconstruction

CLASSES, SIDE = 4, 8
WORDS, LENGTH = 50, 6
ERROR = 1e-2
"""Mean squared error (20 dB) below which the image counts as rebuilt."""


def image_case(activation: nn.Module, budget: Budget) -> Sanity:
    """An 8x8 grey blob of class 2 at a one-layer convolutional net with the given ``activation``, untrained."""
    draw = torch.Generator().manual_seed(5)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), activation, nn.Flatten(), nn.Linear(8 * SIDE * SIDE, CLASSES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    line = torch.linspace(-1, 1, SIDE)
    image = torch.exp(-2 * ((line[:, None] - 0.3) ** 2 + (line + 0.2) ** 2))[None, None]
    loss = LOSSES["cross_entropy"](model(image), torch.tensor([2]))
    names = [name for name, _ in model.named_parameters()]
    update = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))

    def won(claim: Reconstruction) -> bool:
        if claim.inputs is None or claim.labels is None:
            return False
        return claim.labels.tolist() == [2] and float((claim.inputs - image).square().mean()) < ERROR

    know = Knowledge(input_shape=(1, SIDE, SIDE), num_classes=CLASSES, batch_size=1, value_range=(0.0, 1.0))
    return Sanity(Observation(model, update, "gradient"), know, budget, won)


class TinyText(nn.Module):
    """Next-token logits (B, T, WORDS): one head of causal attention with a residual, then a two-layer perceptron."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(WORDS, dim), nn.Parameter(torch.zeros(LENGTH, dim))
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.head = nn.Linear(dim, WORDS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        x = x + self.position[: x.shape[1]]
        scores = self.query(x) @ self.key(x).mT / x.shape[-1] ** 0.5
        later = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool, device=x.device).triu(1)
        x = x + scores.masked_fill(later, -torch.inf).softmax(-1) @ self.value(x)
        return self.head(x + self.mlp(x))


def text_case() -> tuple[Observation, Knowledge, Tensor]:
    """The gradient of two texts of six words at an untrained model of 50 words, what is known of it, and the texts."""
    draw = torch.Generator().manual_seed(5)
    with torch.random.fork_rng(devices=[]):
        model = TinyText(32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * (torch.rand(parameter.shape, generator=draw) - 0.5))
    texts = torch.randperm(WORDS, generator=draw)[: 2 * LENGTH].reshape(2, LENGTH)
    slopes = torch.autograd.grad(LOSSES["next_token"](model(texts), texts), list(model.parameters()))
    update = {name: slope for (name, _), slope in zip(model.named_parameters(), slopes, strict=True)}
    know = Knowledge(input_shape=(LENGTH,), num_classes=WORDS, batch_size=2, loss="next_token")
    return Observation(model, update, "gradient"), know, texts
