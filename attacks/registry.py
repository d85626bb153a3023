"""The attacks by name: what each needs, where it was published, and how to run it on a view's observations."""

import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from attacks.memory import naming_memory
from attacks.view import Budget, Kind, Knowledge, NotApplicable, Observation, Reconstruction, generator

Cost = Literal["closed form", "seconds", "minutes"]
"""What one victim takes at the default budget, on one core and the models that ship."""

COSTS: tuple[Cost, ...] = ("closed form", "seconds", "minutes")
"""The costs, cheapest first."""


@dataclass(frozen=True)
class Needs:
    """The least that an attack can start from: ``knowledge`` fields, kinds of update, one client or a sum.

    With ``history`` the attack reads all rounds up to the one attacked, not that one alone.
    """

    rung: str
    knowledge: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ("gradient", "delta")
    sums: bool = False
    update: bool = True
    history: bool = False
    of_deltas: tuple[str, ...] = ()
    """Knowledge that it needs besides where the update is a delta."""

    @property
    def works_on(self) -> str:
        """The source, in words."""
        kinds = " or ".join(self.kinds) if self.update else "nothing but public data"
        return kinds + (" (sums too)" if self.sums else "")


@dataclass(frozen=True)
class Case:
    """One victim: its observations in round order, the knowledge granted, and a generator for this attack alone."""

    observations: tuple[Observation, ...]
    knowledge: Knowledge
    generator: torch.Generator

    @property
    def observation(self) -> Observation:
        """The only, or the latest, observation."""
        return self.observations[-1]


@dataclass(frozen=True)
class Sanity:
    """A small case that the attack must win before its failure elsewhere means anything.

    ``won`` looks at the claim on the case; the truth of a sanity case is synthetic and known to this object alone.
    """

    observation: Observation
    knowledge: Knowledge
    budget: Budget
    won: Callable[[Reconstruction], bool]


class Solve(Protocol):
    """Many victims in one call, so that an attack may batch them; the answers come in the order of the cases."""

    def __call__(self, cases: Sequence[Case], budget: Budget) -> Sequence[Reconstruction | NotApplicable]: ...


@dataclass(frozen=True)
class Attack:
    """One registered attack."""

    name: str
    paper: str
    claim: str
    needs: Needs
    cost: Cost
    stopped_by: str
    solve: Solve
    sanity: Callable[[], Sanity] | None


_ATTACKS: dict[str, Attack] = {}


def one_by_one(solve: Callable[[Case, Budget], Reconstruction | NotApplicable]) -> Solve:
    """The ``Solve`` that takes one victim after another; a NotApplicable that is raised becomes that one's answer."""

    @functools.wraps(solve)
    def solve_all(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
        answers: list[Reconstruction | NotApplicable] = []
        for case in cases:
            try:
                answers.append(solve(case, budget))
            except NotApplicable as lacking:
                answers.append(lacking)
        return answers

    return solve_all


def attack(
    name: str,
    *,
    paper: str,
    claim: str,
    needs: Needs,
    cost: Cost,
    stopped_by: str,
    sanity: Callable[[], Sanity] | None = None,
) -> Callable[[Solve], Solve]:
    """Register ``solve``; ``claim`` says in one sentence what it recovers, ``stopped_by`` what stops it."""

    def register(solve: Solve) -> Solve:
        if name in _ATTACKS:
            raise ValueError(f"attack {name!r} is registered twice")
        _ATTACKS[name] = Attack(name, paper, claim, needs, cost, stopped_by, solve, sanity)
        return solve

    return register


def reconstructions() -> Mapping[str, Attack]:
    """Every attack that rebuilds data from an update, by name."""
    return dict(sorted(_ATTACKS.items()))


def check(needs: Needs, observations: Sequence[Observation], knowledge: Knowledge) -> None:
    """Raise NotApplicable naming the first thing that ``needs`` asks for and the case lacks."""
    if needs.update and not observations:
        raise NotApplicable("an update that the adversary can read", needs.rung)
    for name in needs.knowledge:
        if getattr(knowledge, name) is None:
            raise NotApplicable(name, needs.rung)
    for observation in observations:
        if observation.kind not in needs.kinds:
            raise NotApplicable(f"a {' or '.join(needs.kinds)} (the view holds a {observation.kind})", needs.rung)
        if observation.contributors > 1 and not needs.sums:
            raise NotApplicable(f"one client's update (this is a sum over {observation.contributors})", needs.rung)
        for name in needs.of_deltas if observation.kind == "delta" else ():
            if getattr(knowledge, name) is None:
                raise NotApplicable(name, needs.rung)
        broken = [n for n, t in observation.update.items() if not torch.isfinite(t).all()]
        if broken and needs.update:
            raise NotFinite(f"a finite update (non-finite values in {broken}: the client's training diverged)", "L4")


class NotFinite(NotApplicable, ValueError):
    """An update that no attack can read, for it is broken: of several victims that one's answer alone."""


def reconstruct(
    name: str,
    obs: Observation | Sequence[Observation],
    know: Knowledge,
    *,
    seed: int = 0,
    budget: Budget | None = None,
) -> Reconstruction:
    """Run attack ``name`` on one victim; ``obs`` is one Observation, or one client's over several rounds.

    Raises KeyError for an unknown name, NotApplicable where the case lacks what the attack needs (for a non-finite
    update one that is a ValueError too), MemoryError where memory runs out, ValueError for what contradicts itself.
    Deterministic given ``seed``; the caller's model and global generators stay untouched.
    """
    claim = reconstruct_many(name, [(obs, know, seed)], budget=budget)[0]
    if isinstance(claim, NotApplicable):
        raise claim
    return claim


def reconstruct_many(
    name: str,
    victims: Sequence[tuple[Observation | Sequence[Observation], Knowledge, int]],
    *,
    budget: Budget | None = None,
) -> list[Reconstruction | NotApplicable]:
    """Run attack ``name`` on many victims (observations, knowledge, seed), batched where the attack can batch.

    What one of them lacks, or that its update is not finite, is its own answer.
    """
    if name not in _ATTACKS:
        close = difflib.get_close_matches(name, _ATTACKS, n=3)
        raise KeyError(f"attack {name!r} is unknown; nearest: {close or sorted(_ATTACKS)}")
    chosen = _ATTACKS[name]
    answers: list[Reconstruction | NotApplicable | None] = []
    cases: list[Case] = []
    for obs, know, seed in victims:
        observations = (obs,) if isinstance(obs, Observation) else tuple(obs)
        try:
            check(chosen.needs, observations, know)
        except NotApplicable as lacking:
            answers.append(lacking)
            continue
        answers.append(None)
        cases.append(Case(observations, know, generator(seed)))
    with naming_memory(name):
        solved = iter(chosen.solve(cases, budget or Budget()) if cases else ())
    return [next(solved) if answer is None else answer for answer in answers]
