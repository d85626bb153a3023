"""The losses a federation may train on, by the name that scenario and knowledge use for them."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, classes) against class ids (B,), or against soft labels (B, classes)."""
    return F.cross_entropy(outputs, labels)


def next_token(outputs: Tensor, tokens: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, T, vocabulary) for the token that follows; ``tokens`` is the input (B, T)."""
    return F.cross_entropy(outputs[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def elbo(nats: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch of a generative model's nats (B, 2), of reconstruction and code; labels play no part."""
    return nats.sum(1).mean()


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "next_token": next_token, "elbo": elbo}
