"""Differential privacy that the client enforces itself: it trusts nobody beyond its own code.

Level ``client`` clips and noises the whole update once per round (the Gaussian mechanism in the local model; McMahan
et al. 2018 without a trusted server). Level ``example`` does so in every local step (DP-SGD, Abadi et al. 2016).
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch

from strategies.base import ClientContext, ClientUpdateError, Defence, LocalGradient, Stage, Update
from strategies.dpsgd import PrivateGradient
from strategies.gaussian import NoiseSource, clip_factor, global_norm, noise, witness

Level = Literal["client", "example"]


@dataclass(frozen=True)
class ClientDP(Defence):
    """Clip to ``clip`` (C, an L2 norm in the update's own units), then add N(0, (noise_multiplier * C)^2).

    Covers the floating-point entries of the update alone. Integer and boolean entries take no noise: they pass
    unchanged, stay out of the norm, and are counted as ``unprotected`` in the evidence.
    """

    kind: Literal["client_dp"] = "client_dp"
    clip: float = 1.0
    noise_multiplier: float = 1.0
    """sigma / C; 0 clips only, and then no epsilon holds."""
    level: Level = "client"
    """What the guarantee protects: all of a client's data at once, or one example."""
    noise_source: NoiseSource = "seed"
    """``os`` draws from the operating system's CSPRNG, and makes the run irreproducible."""
    delta: float = 1e-5
    """The delta at which epsilon is stated; below one over the number of protected units."""

    stage: ClassVar[Stage] = Stage.PERTURB
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "revalidate_instances": "always"}

    def problems(self) -> list[str]:
        """Every invalid field."""
        found = []
        if not 0 < self.clip < math.inf:
            found.append(f"clip = {self.clip}: the L2 bound on an update must be positive and finite; try 1.0")
        if not 0 <= self.noise_multiplier < math.inf:
            found.append(
                f"noise_multiplier = {self.noise_multiplier}: sigma / C must be finite and not negative; "
                "0 clips without noise"
            )
        if not 0 < self.delta < 1:
            found.append(
                f"delta = {self.delta}: Gaussian noise gives no guarantee at 0, and 1 says nothing; "
                "take less than one over the number of protected units, e.g. 1e-5"
            )
        for name, choices in (("level", get_args(Level)), ("noise_source", get_args(NoiseSource))):
            if getattr(self, name) not in choices:
                found.append(f"{name} = {getattr(self, name)!r}: is unknown; choose from {', '.join(choices)}")
        return found

    def describe(self) -> str:
        """Level, clip and noise, in words."""
        return f"{self.level}-level clipping to {self.clip:g} and noise of {self.noise_multiplier:g} times that"

    @property
    def reproducible(self) -> bool:
        """False with noise from the operating system."""
        return self.noise_source == "seed"

    @property
    def local_gradient(self) -> LocalGradient | None:
        """DP-SGD's gradient for level ``example``."""
        if self.level == "client":
            return None
        return PrivateGradient(self.kind, self.clip, self.noise_multiplier, self.noise_source)

    def protect(self, update: Update, context: ClientContext) -> Update:
        """The update to send; raises ClientUpdateError for a non-finite entry.

        With level ``example`` the local steps have protected it already; that they did is checked in the evidence.
        """
        for name, tensor in update.items():
            if tensor.is_complex():
                raise ClientUpdateError(name, "complex numbers have no clipping rule here; send real parts")
            if not torch.isfinite(tensor).all():
                raise ClientUpdateError(name, "is not finite: local training diverged; lower the learning rate")
        exposed = sum(t.numel() for t in update.values() if not t.is_floating_point())
        context.evidence[f"{self.kind}.unprotected"] = float(exposed)
        if self.level == "example":
            if not context.evidence.get(f"{self.kind}.releases"):
                raise ClientUpdateError(None, "level = 'example', but no local step used the private gradient")
            return dict(update)
        return self._release(update, context)

    def _release(self, update: Update, context: ClientContext) -> Update:
        private = {name: tensor.detach() for name, tensor in update.items() if tensor.is_floating_point()}
        before = global_norm(private.values())
        factor = clip_factor(before, self.clip)
        released, clipped, squares = dict(update), [], 0.0
        for name, tensor in private.items():
            kept = tensor.double() * factor
            drawn = noise(tensor.shape, self.noise_multiplier * self.clip, self.noise_source, context.generator)
            released[name] = (kept + drawn.to(tensor.device)).to(tensor.dtype)
            squares += float((released[name].double() - kept).square().sum())
            clipped.append(kept)
        witness(
            context.evidence,
            self.kind,
            norm_before=before,
            norm_after=global_norm(clipped),
            noise_squares=squares,
            coordinates=sum(tensor.numel() for tensor in clipped),
        )
        return released
