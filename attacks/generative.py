"""Where an inversion searches: codes that a prior decodes to inputs, standard normal where the prior is right.

Without public data the prior is smoothness alone; public data teach it their principal components, or a small
variational autoencoder (``attacks.autoencoder``; Zhang et al. 2020, GMI, with an autoencoder in place of the GAN).
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from scipy.fft import idctn
from torch import Tensor

from attacks.ranges import bounds
from attacks.view import Knowledge

SPREAD = 0.25
"""Standard deviation of an entry, in widths of its value range, where no public data tell it."""
SLOPE = 1.0
"""Natural images have amplitudes that fall about as one over frequency (Field 1987)."""
SPAN = 256
"""Most waves in which the public covariance is estimated."""


class Prior(Protocol):
    """A map from codes (N, dimension) to inputs (N, *input_shape), differentiable and inside the value range."""

    @property
    def dimension(self) -> int:
        """Numbers in a code."""

    def decode(self, codes: Tensor) -> Tensor:
        """Inputs in data units."""


@dataclass(frozen=True)
class Linear:
    """Inputs ``mean + codes @ basis``, cut to the range: a Gaussian with covariance basis^T basis."""

    mean: Tensor
    basis: Tensor
    low: Tensor
    high: Tensor

    @property
    def dimension(self) -> int:
        """Directions of the basis."""
        return len(self.basis)

    def decode(self, codes: Tensor) -> Tensor:
        """Inputs in data units."""
        mean, basis, low, high = (part.to(codes) for part in (self.mean, self.basis, self.low, self.high))
        return (mean + (codes @ basis).unflatten(1, mean.shape)).clamp(low, high)


def smooth(low: Tensor, high: Tensor) -> Linear:
    """No data at all: cosine waves whose amplitudes fall with frequency; for anything but images, every entry alone."""
    shape = low.shape
    waves = torch.eye(math.prod(shape), dtype=torch.float64)
    if len(shape) == 3:
        channels, height, width = shape
        cosines = torch.from_numpy(idctn(waves.reshape(-1, *shape).numpy(), axes=(2, 3), norm="ortho"))
        across, down = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        amplitude = (1 + (across**2 + down**2).sqrt()) ** -SLOPE
        amplitude = amplitude * (height * width / amplitude.square().sum()).sqrt()
        waves = cosines.flatten(1) * amplitude.repeat(channels, 1, 1).flatten()[:, None]
    basis = SPREAD * waves * (high - low).flatten()
    return Linear(((low + high) / 2).float(), basis.float(), low.float(), high.float())


def principal(public: Tensor, low: Tensor, high: Tensor) -> Linear:
    """The principal components of public examples (N, *input_shape), scaled by their standard deviations.

    The covariance is shrunk towards that of ``smooth``, which weighs as much as one example a direction: a handful
    of public examples must not confine the search to their own span.
    """
    waves = leading(smooth(low, high), SPAN)
    mean = public.double().mean(0)
    directions = waves.basis.double()
    codes = (public.double() - mean).flatten(1) @ torch.linalg.pinv(directions)
    examples, size = codes.shape
    covariance = (codes.T @ codes + size * torch.eye(size, dtype=torch.float64)) / (examples + size)
    variance, axes = torch.linalg.eigh(covariance)
    basis = variance.clamp_min(0).sqrt()[:, None] * (axes.T @ directions)
    return replace(waves, mean=mean.float(), basis=basis.float())


def prior_for(know: Knowledge) -> Linear:
    """The Gaussian prior that the knowledge supports: principal components of public data, or smoothness."""
    low, high = bounds(know.value_range or (0.0, 1.0), know.input_shape)
    return smooth(low, high) if know.public is None else principal(know.public, low, high)


def leading(prior: Linear, most: int) -> Linear:
    """The prior's broadest directions alone, ``most`` of them or fewer."""
    broadest = prior.basis.norm(dim=1).argsort(descending=True, stable=True)[:most]
    return replace(prior, basis=prior.basis[broadest])
