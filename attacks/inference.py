"""Inference attacks by name: asked about given targets (was this record used, which value, whose?), they score."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from attacks.oracle import ACCESS, Oracle
from attacks.registry import Attack, Cost, Needs, check, reconstructions
from attacks.view import Budget, Kind, Knowledge, NotApplicable, Observation, generator

Source = Sequence[Observation] | Oracle


@dataclass(frozen=True)
class Targets:
    """What is asked about; which fields an attack reads, its ``needs.targets`` says.

    Membership: candidate records ``inputs`` (T, *input_shape) with ``labels`` (T,), held by ``client`` where one is
    meant. Inversion: class numbers as ``labels``. Attribute: records whose feature positions ``column`` are unknown
    (NaN), and the ``values`` (K, len(column)) they may have. Property: ``holds`` (N,) marks the public records that
    have it, and every observed update is a target. Feature inversion: ``features`` (T, ...) that module ``layer`` made.
    """

    inputs: Tensor | None = None
    labels: Tensor | None = None
    client: int | None = None
    column: tuple[int, ...] | None = None
    values: Tensor | None = None
    holds: Tensor | None = None
    features: Tensor | None = None
    layer: str | None = None


@dataclass(frozen=True)
class Claim:
    """What an inference attack claims.

    ``scores`` is (T,) or (T, K), one row per target: higher is more likely (a member, attribute value k, client k).
    ``queries`` counts what the oracle was asked. ``inputs`` (T, *input_shape) are an inversion's representatives,
    ``model`` an extraction's stolen model.
    """

    scores: Tensor
    queries: int = 0
    inputs: Tensor | None = None
    model: nn.Module | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class InferenceNeeds:
    """The least that an inference attack can start from: fields of knowledge and targets, updates or answers.

    ``access`` is the least that an oracle must grant. ``kinds`` and ``sums`` are about updates.
    """

    rung: str
    source: Literal["updates", "oracle"]
    access: str = "label_only"
    knowledge: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("inputs", "labels")
    kinds: tuple[Kind, ...] = ("gradient", "delta")
    sums: bool = False
    of_deltas: tuple[str, ...] = ()
    """Knowledge that it needs besides where the updates are deltas."""

    @property
    def works_on(self) -> str:
        """The source, in words."""
        if self.source == "oracle":
            return f"the model: {self.access.replace('_', ' ')}"
        return "updates: " + " or ".join(self.kinds) + (" (sums too)" if self.sums else "")


@dataclass(frozen=True)
class InferenceSanity:
    """A small synthetic case that the attack must win before its failure elsewhere means anything."""

    source: Source
    knowledge: Knowledge
    targets: Targets
    budget: Budget
    won: Callable[[Claim], bool]


class Infer(Protocol):
    """The attack itself; it must leave the source's models as they were, and draw from ``generator`` alone."""

    def __call__(
        self, source: Any, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
    ) -> Claim: ...


@dataclass(frozen=True)
class Inference:
    """One registered inference attack."""

    name: str
    paper: str
    claim: str
    needs: InferenceNeeds
    cost: Cost
    stopped_by: str
    solve: Infer
    sanity: Callable[[], InferenceSanity] | None


_INFERENCES: dict[str, Inference] = {}


def inference(
    name: str,
    *,
    paper: str,
    claim: str,
    needs: InferenceNeeds,
    cost: Cost,
    stopped_by: str,
    sanity: Callable[[], InferenceSanity] | None = None,
) -> Callable[[Infer], Infer]:
    """Register ``solve``; ``claim`` says in one sentence what it tells, ``stopped_by`` what stops it."""

    def register(solve: Infer) -> Infer:
        if name in available():
            raise ValueError(f"attack {name!r} is registered twice")
        _INFERENCES[name] = Inference(name, paper, claim, needs, cost, stopped_by, solve, sanity)
        return solve

    return register


def inferences() -> Mapping[str, Inference]:
    """Every inference attack by name."""
    return dict(sorted(_INFERENCES.items()))


def available() -> Mapping[str, Attack | Inference]:
    """Every attack by name, with the least it needs, its rung, its paper and what it works on."""
    both: dict[str, Attack | Inference] = {**reconstructions(), **_INFERENCES}
    return dict(sorted(both.items()))


def infer(
    name: str,
    source: Observation | Source,
    know: Knowledge,
    *,
    targets: Targets,
    seed: int = 0,
    budget: Budget | None = None,
) -> Claim:
    """Run inference attack ``name``; ``source`` is an Oracle, or observed updates in round order.

    Raises KeyError for an unknown name, NotApplicable where something that the attack needs is not there, ValueError
    for a non-finite update or targets that contradict each other. Deterministic given ``seed``.
    """
    if name not in _INFERENCES:
        close = difflib.get_close_matches(name, _INFERENCES, n=3)
        raise KeyError(f"inference attack {name!r} is unknown; nearest: {close or sorted(_INFERENCES)}")
    chosen = _INFERENCES[name]
    given = (source,) if isinstance(source, Observation) else source
    _check(chosen.needs, given, know, targets)
    claim = chosen.solve(given, know, targets, generator(seed), budget or Budget())
    if not torch.isfinite(claim.scores).all():
        raise ValueError(f"{name} claims scores that are not finite: the model that it was run on has diverged")
    return claim


def _check(needs: InferenceNeeds, source: Source, know: Knowledge, targets: Targets) -> None:
    updates = isinstance(source, Sequence)
    if updates != (needs.source == "updates"):
        wanted = "updates that the server can read" if needs.source == "updates" else "the finished model"
        raise NotApplicable(wanted, needs.rung)
    observed = source if isinstance(source, Sequence) else ()
    check(
        Needs(needs.rung, needs.knowledge, needs.kinds, needs.sums, updates, of_deltas=needs.of_deltas), observed, know
    )
    if not isinstance(source, Sequence) and ACCESS.index(source.access) > ACCESS.index(needs.access):
        raise NotApplicable(f"access {needs.access} (the model answers {source.access})", needs.rung)
    for field in needs.targets:
        if getattr(targets, field) is None:
            raise NotApplicable(f"targets.{field}", needs.rung)
    if targets.inputs is not None and targets.labels is not None and len(targets.inputs) != len(targets.labels):
        raise ValueError(f"targets: {len(targets.inputs)} inputs and {len(targets.labels)} labels; give one label each")
    told = targets.labels if know.loss == "cross_entropy" else None
    if told is not None and len(told) and not 0 <= int(told.min()) <= int(told.max()) < know.num_classes:
        raise ValueError(
            f"targets.labels from {int(told.min())} to {int(told.max())}: the model tells {know.num_classes} classes, "
            "numbered from 0; ask about these"
        )
