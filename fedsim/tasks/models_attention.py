"""A small vision transformer and a small causal language model, with attention spelt out.

Fused attention has no second derivative, which gradient-matching attacks need; query, key and value are layers of
their own, so that an adversary reads their gradients apart.
"""

import math

import torch
from torch import Tensor, nn

from fedsim.tasks.data import Dataset
from fedsim.tasks.errors import TaskError
from fedsim.tasks.models_image import image_shape


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al., 2017) on (B, T, dim); ``causal`` hides later positions."""

    def __init__(self, dim: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(-2, -3) for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if self.causal:
            later = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        return self.out((scores.softmax(-1) @ value).transpose(-2, -3).flatten(-2))


class Block(nn.Module):
    """Attention, then a two-layer perceptron of four times the width, each on the normalised input and added to it."""

    def __init__(self, dim: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, causal)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before_attention(x))
        return x + self.mlp(self.before_mlp(x))


class VisionTransformer(nn.Module):
    """Linear patch embedding plus learned positions, blocks, mean over patches (Dosovitskiy et al., 2021)."""

    def __init__(self, shape: tuple[int, int, int], classes: int, patch: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.patch = patch
        self.embedding = nn.Linear(channels * patch * patch, dim)
        self.position = nn.Parameter(0.02 * torch.randn(height // patch * (width // patch), dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, causal=False) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.unflatten(-2, (-1, self.patch)).unflatten(-1, (-1, self.patch))  # (B, C, rows, p, columns, p)
        patches = rows.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, rows * columns, C * p * p)
        return self.head(self.norm(self.blocks(self.embedding(patches) + self.position)).mean(1))


class CausalTransformer(nn.Module):
    """Next-token logits (B, T, vocabulary) for token ids (B, T).

    An adversary who works on embeddings (B, T, dim) replaces ``embedding`` in a copy by the identity.
    """

    def __init__(self, vocabulary: int, length: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        self.position = nn.Parameter(0.02 * torch.randn(length, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, causal=True) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.embedding(tokens)
        return self.head(self.norm(self.blocks(embedded + self.position[: embedded.shape[1]])))


def vit(dataset: Dataset, *, patch: int | None = None, dim: int = 64, depth: int = 2, heads: int = 4) -> nn.Module:
    """A small vision transformer; ``patch`` is the side of a patch in pixels, by default the divisor nearest to 4."""
    shape = image_shape(dataset, "vit")
    _check_heads(dim, heads)
    side = math.gcd(*shape[1:])
    divisors = [d for d in range(1, side + 1) if side % d == 0]
    if patch is not None and patch not in divisors:
        raise TaskError("task.model_options.patch", patch, f"does not divide {shape[1:]}", f"use one of {divisors}")
    patch = patch or min(divisors, key=lambda divisor: abs(divisor - 4))
    return VisionTransformer(shape, dataset.num_classes, patch, dim, depth, heads)


def transformer(dataset: Dataset, *, dim: int = 64, depth: int = 2, heads: int = 4) -> nn.Module:
    """A small causal transformer for text."""
    if dataset.modality != "text":
        raise TaskError(
            "task.model", "transformer", f"it takes text, {dataset.name} is {dataset.modality}", "use 'mlp'"
        )
    _check_heads(dim, heads)
    return CausalTransformer(dataset.num_classes, dataset.input_shape[0], dim, depth, heads)


def _check_heads(dim: int, heads: int) -> None:
    if dim % heads:
        raise TaskError("task.model_options.heads", heads, f"does not divide dim = {dim}", "use a divisor of dim")
