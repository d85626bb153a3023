"""What a prediction service does to its answers before they leave it: one small rule each, applied in order."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Control(Protocol):
    """One perturbation of confidences (N, K); ``access`` is the finest level that is left behind it."""

    access: ClassVar[str]

    @property
    def kind(self) -> str:
        """The name that a scenario uses for it."""

    def problems(self) -> list[str]:
        """Every invalid field: ``field = value: reason; remedy``."""

    def perturb(self, confidences: Tensor, generator: torch.Generator) -> Tensor:
        """The confidences (N, K) as the caller gets them; all chance comes from ``generator``."""


@dataclass(frozen=True)
class Temperature:
    """Flatten the answers: softmax of log-confidences over ``value``. The label stays; so does all but precision."""

    value: float
    kind: Literal["temperature"] = "temperature"
    access: ClassVar[str] = "confidences"

    def problems(self) -> list[str]:
        """A temperature is positive, and finite: no answer is left of one without end."""
        fits = 0 < self.value < math.inf
        return [] if fits else [f"value = {self.value}: must be positive and finite; 1 changes nothing"]

    def perturb(self, confidences: Tensor, generator: torch.Generator) -> Tensor:
        """Confidences to the power 1/value, summing to one again."""
        return (confidences.clamp_min(torch.finfo(confidences.dtype).tiny).log() / self.value).softmax(1)


@dataclass(frozen=True)
class Noise:
    """Add Gaussian noise of standard deviation ``std`` to each confidence, afresh for each query.

    Asking again and taking the mean undoes it; a budget is what makes that costly.
    """

    std: float
    kind: Literal["noise"] = "noise"
    access: ClassVar[str] = "confidences"

    def problems(self) -> list[str]:
        """A standard deviation is not negative, and finite: no answer is left under noise without end."""
        fits = 0 <= self.std < math.inf
        return [] if fits else [f"std = {self.std}: must not be negative, and finite; 0 adds none"]

    def perturb(self, confidences: Tensor, generator: torch.Generator) -> Tensor:
        """Noised, cut at zero, and scaled to sum to one."""
        drawn = torch.randn(confidences.shape, generator=generator, dtype=confidences.dtype)
        noised = (confidences + self.std * drawn).clamp_min(0)
        total = noised.sum(1, keepdim=True)
        return torch.where(total > 0, noised / total.clamp_min(1e-12), torch.full_like(noised, 1 / noised.shape[1]))


@dataclass(frozen=True)
class Rounding:
    """Round each confidence to ``decimals`` places; the answers need not sum to one any more."""

    decimals: int = 1
    kind: Literal["rounding"] = "rounding"
    access: ClassVar[str] = "rounded"

    def problems(self) -> list[str]:
        """At least one place is left."""
        return [] if self.decimals >= 1 else [f"decimals = {self.decimals}: must be 1 or more; else use label_only"]

    def perturb(self, confidences: Tensor, generator: torch.Generator) -> Tensor:
        """Rounded to the nearest step."""
        return confidences.round(decimals=self.decimals)


@dataclass(frozen=True)
class TopK:
    """Show the ``k`` largest confidences alone; the others read zero."""

    k: int = 3
    kind: Literal["top_k"] = "top_k"
    access: ClassVar[str] = "top_k"

    def problems(self) -> list[str]:
        """At least one confidence is shown."""
        return [] if self.k >= 1 else [f"k = {self.k}: must be 1 or more; else use label_only"]

    def perturb(self, confidences: Tensor, generator: torch.Generator) -> Tensor:
        """All but the ``k`` largest of each row set to zero."""
        kept = confidences.topk(min(self.k, confidences.shape[1]), dim=1)
        return torch.zeros_like(confidences).scatter(1, kept.indices, kept.values)


@dataclass(frozen=True)
class LabelOnly:
    """Answer with the label alone."""

    kind: Literal["label_only"] = "label_only"
    access: ClassVar[str] = "label_only"

    def problems(self) -> list[str]:
        """It has no fields."""
        return []

    def perturb(self, confidences: Tensor, generator: torch.Generator) -> Tensor:
        """One at the largest confidence, zero elsewhere."""
        return F.one_hot(confidences.argmax(1), confidences.shape[1]).to(confidences.dtype)


Tap = Callable[[Control, Tensor, Tensor], None]
"""Handed a control, the confidences that it got, and what it made of them."""


def perturbed(
    confidences: Tensor, controls: Sequence[Control], generator: torch.Generator, tap: Tap | None = None
) -> Tensor:
    """The confidences (N, K) after every control, in order."""
    for control in controls:
        got, confidences = confidences, control.perturb(confidences, generator)
        if tap is not None:
            tap(control, got, confidences)
    return confidences
