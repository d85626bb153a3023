"""What an inference attack is after: how it is asked, and how its claims are held against the truth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scipy.stats import binomtest
from torch import Tensor, nn

from attacks import Claim, Knowledge, Observation, Targets
from fedsim.experiment import Experiment
from fedsim.scenario import Attack
from fedsim.truth import Victim

Key = dict[str, Any]
"""The truth about a question's targets, as its asset's ``score`` reads it."""
Figure = dict[str, Any]
"""One figure: ``value`` with ``low`` and ``high``, beside ``guess``, what is had without the attack."""


@dataclass(frozen=True)
class Case:
    """One attack of a cell, before anybody is asked."""

    experiment: Experiment
    attack: Attack
    rounds: tuple[int, ...]
    history: Sequence[Mapping[str, Any]]
    model: nn.Module | None = None
    """The model after the round, in evaluation mode; None for an attack on updates."""
    observations: tuple[Observation, ...] = ()
    victims: tuple[Victim, ...] = ()


@dataclass(frozen=True)
class Scored:
    """Figures by name, and pictures by the end of their key."""

    figures: dict[str, Figure]
    pictures: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asset:
    """``headline`` is the figure that the verdict rests on: told where its interval lies above the guess."""

    name: str
    headline: str
    ask: Callable[[Case], tuple[tuple[Targets, ...], Key]]
    score: Callable[[Case, Knowledge, Key, Sequence[Claim]], Scored]


def share(hits: Tensor, guess: float, guess_name: str) -> Figure:
    """The share of ``hits`` (T,), booleans, with its exact 95 % interval (Clopper and Pearson 1934)."""
    count = int(hits.sum())
    interval = binomtest(count, len(hits)).proportion_ci(0.95, method="exact")
    return {
        "value": count / len(hits),
        "low": float(interval.low),
        "high": float(interval.high),
        "guess": guess,
        "guess_name": guess_name,
        "n": len(hits),
    }


def refused(reason: str, guess: float, guess_name: str) -> Figure:
    """The place of a figure that cannot be had, with the reason."""
    return {"value": None, "low": None, "high": None, "guess": guess, "guess_name": guess_name, "refused": reason}
