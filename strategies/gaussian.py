"""The Gaussian mechanism on named tensors: clip to an L2 norm, add noise, and measure what was done.

Everything is computed in float64 and rounded once, to the update's own type, after the noise was added: rounding is
then post-processing, and the sensitivity is exact whatever the type.
"""

import math
import secrets
from collections.abc import Iterable, MutableMapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

NoiseSource = Literal["seed", "os"]


def global_norm(tensors: Iterable[Tensor]) -> float:
    """The L2 norm over all entries of all tensors, in float64; scaled inside, so it does not overflow early."""
    flat = [tensor.detach().double().flatten() for tensor in tensors if tensor.numel()]
    largest = max((float(t.abs().max()) for t in flat), default=0.0)
    if largest == 0.0:
        return 0.0
    return largest * math.sqrt(sum(float((t / largest).square().sum()) for t in flat))


def clip_factor(norm: float, clip: float) -> float:
    """What to multiply by so that ``norm`` is at most ``clip``: exactly 1 below it, and for a norm of zero."""
    return 1.0 if norm <= clip else clip / norm


def noise(shape: torch.Size, std: float, source: NoiseSource, generator: torch.Generator) -> Tensor:
    """A float64 tensor of N(0, std^2) on the CPU, from ``generator`` or from the operating system's CSPRNG.

    A torch CPU generator takes only 32 bits of its seed: good for simulation, no secret. ``os`` inverts the normal
    distribution at 52 random bits per entry.
    """
    if std == 0.0:
        return torch.zeros(shape, dtype=torch.float64)
    if source == "os":
        bits = np.frombuffer(secrets.token_bytes(8 * shape.numel()), dtype=np.uint64) >> np.uint64(12)
        uniform = torch.from_numpy((bits.astype(np.float64) + 0.5) * 2.0**-52).reshape(shape)
        return torch.special.ndtri(uniform) * std
    return torch.randn(shape, generator=generator, dtype=torch.float64) * std


def witness(
    evidence: MutableMapping[str, float],
    prefix: str,
    *,
    norm_before: float,
    norm_after: float,
    noise_squares: float,
    coordinates: int,
) -> None:
    """Add one release to ``evidence``: largest norms, and the noise's root mean square over all releases so far.

    Keys, each behind ``prefix`` and a dot: ``releases``, ``norm_before``, ``norm_after`` (largest over releases),
    ``noise_std`` (measured as released minus clipped, its mean being known to be 0) and ``coordinates`` (of one
    release).
    """

    def earlier(key: str) -> float:
        return evidence.get(f"{prefix}.{key}", 0.0)

    releases = earlier("releases") + 1
    squares = earlier("noise_std") ** 2 * earlier("coordinates") * earlier("releases") + noise_squares
    evidence[f"{prefix}.releases"] = releases
    evidence[f"{prefix}.norm_before"] = max(earlier("norm_before"), norm_before)
    evidence[f"{prefix}.norm_after"] = max(earlier("norm_after"), norm_after)
    evidence[f"{prefix}.coordinates"] = float(coordinates)
    evidence[f"{prefix}.noise_std"] = math.sqrt(squares / (releases * coordinates)) if coordinates else 0.0
