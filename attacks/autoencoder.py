"""A variational autoencoder: a prior trained on public data, and a generative model that a federation may train."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.fitting import fit, perceptron

LATENT, HIDDEN, STEPS, BATCH = 16, 128, 1500, 64


class CodeNoise(nn.modules.dropout._DropoutNd):
    """The normal draw of each code, in training mode; like dropout's masks, attacks that need a still model end it."""

    def forward(self, like: Tensor) -> Tensor:
        """Standard normal numbers from the global generator; zero in evaluation mode, where codes are their means."""
        return torch.randn_like(like) if self.training else torch.zeros_like(like)


class Autoencoder(nn.Module):
    """Kingma and Welling, ICLR 2014: ``encoder`` (N, size) to (N, 2 * dimension), ``decoder`` (N, dimension) to logits.

    It is a prior too (``dimension``, ``decode``): ``decode`` stretches the decoder's sigmoid over the value range, from
    ``low`` to ``high``, both of the inputs' shape.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, dimension: int, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.encoder, self.decoder, self.noise = encoder, decoder, CodeNoise()
        self.dimension = dimension
        self.low, self.high = low.float(), high.float()  # no buffers: the same for everybody, they need not travel

    def forward(self, inputs: Tensor) -> Tensor:
        """Nats (N, 2) of each input (N, *input_shape): of its reconstruction, and of its code beyond the prior."""
        return self._nats(inputs, self.noise)

    def nats(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """The same with the codes' draws (N, dimension) given; a row's sum is minus one draw of the ELBO."""
        return self._nats(inputs, lambda centre: noise)

    def _nats(self, inputs: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
        unit = self._unit(inputs).flatten(1)
        centre, logscale = self.encode(inputs)
        noise = draw(centre)
        rebuilt = self.decoder(centre + logscale.exp() * noise)
        cross = F.binary_cross_entropy_with_logits(rebuilt, unit, reduction="none").sum(1)
        divergence = 0.5 * (centre.square() + (2 * logscale).exp() - 2 * logscale - 1).sum(1)
        return torch.stack([cross, divergence], 1)

    def encode(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of each input's code, (N, dimension) each."""
        centre, logscale = self.encoder(self._unit(inputs).flatten(1)).chunk(2, 1)
        return centre, logscale

    def decode(self, codes: Tensor) -> Tensor:
        """Inputs in data units."""
        low, high = self.low.to(codes), self.high.to(codes)
        return low + (high - low) * self.decoder(codes).sigmoid().unflatten(-1, self.low.shape)

    def _unit(self, inputs: Tensor) -> Tensor:
        low, high = self.low.to(inputs), self.high.to(inputs)
        return ((inputs - low) / (high - low)).clamp(0, 1)


def autoencoder(
    public: Tensor,
    low: Tensor,
    high: Tensor,
    generator: torch.Generator,
    *,
    latent: int = LATENT,
    hidden: int = HIDDEN,
    steps: int = STEPS,
) -> Autoencoder:
    """One trained on public examples (N, *input_shape), with dense layers of ``hidden`` units."""
    size = torch.Size(low.shape).numel()
    encoder = perceptron([size, hidden, 2 * latent], generator)
    decoder = perceptron([latent, hidden, size], generator)
    model = Autoencoder(encoder, decoder, latent, low, high)
    examples = public.float()

    def loss(batch: Tensor) -> Tensor:
        noise = torch.randn((len(batch), latent), generator=generator)
        return model.nats(examples[batch], noise).sum(1).mean()

    fit(model, loss, len(examples), generator, steps=steps, batch=BATCH)
    return model.eval().requires_grad_(False)
