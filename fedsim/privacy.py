"""What differential privacy a run gives, with everything that a reader needs to believe the number.

Every release is a Gaussian mechanism whose inputs the observer may know to have taken part, so nothing is sampled in
the accounting and T releases at sensitivity D cost what one does at mu = sqrt(T) D / sigma.
"""

import math
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Literal

from strategies.client_dp import ClientDP

Relation = Literal["zero_out", "replace_one"]

RELATIONS: dict[Relation, tuple[float, str]] = {
    "zero_out": (1.0, "zero-out: the unit's contribution against a zero in its place (sensitivity C)"),
    "replace_one": (2.0, "replace-one: the unit's contribution against any other (sensitivity 2C)"),
}
"""Sensitivity in units of the clip norm, and what the relation says. Add-or-remove costs what zero-out does, but the
observer counts messages and examples, so a unit is never absent unseen."""

PLD_LIMIT = 100.0
"""Above this mu the discretised distribution overflows; the closed form, exact for Gaussians, takes its place."""


@dataclass(frozen=True)
class PrivacyStatement:
    """One guarantee. ``epsilon`` is None where none holds (no noise); each holds together with ``delta``."""

    unit: Literal["client", "example"]
    relation: str
    sampling: str
    delta: float
    rounds: int
    participations: int
    """Rounds in which the most asked client took part."""
    releases: int
    """Noised releases that one unit's data touches, over all its participations."""
    clip: float
    noise_multiplier: float
    epsilon: float | None
    """Over all releases: privacy loss distribution, an upper bound."""
    epsilon_rdp: float | None
    """The same by Renyi accounting: a looser upper bound, as a cross-check."""
    epsilon_one_release: float | None
    """Of a single release, which is all that an attack on one round sees."""
    epsilon_replace_one: float | None
    """Over all releases, for the stronger relation: any two values of the unit's data are hard to tell apart."""
    accountant: str
    observer: str
    trust: str
    amplification: str
    not_covered: str
    cautions: tuple[str, ...] = ()

    def __str__(self) -> str:
        bound = "no finite epsilon: no noise" if self.epsilon is None else f"epsilon {self.epsilon:.4g}"
        return (
            f"{bound} at delta {self.delta:g} per {self.unit}, {self.relation}, over {self.releases} releases in "
            f"{self.participations} of {self.rounds} rounds, seen by {self.observer}; amplification: "
            f"{self.amplification}; not covered: {self.not_covered}"
        )


def statement(
    defence: ClientDP,
    *,
    rounds: int,
    participations: int,
    units: int,
    sampling: str,
    touches: int = 1,
) -> PrivacyStatement:
    """The guarantee that ``defence`` gives against the server, which reads each client's update.

    ``participations`` is the largest number of rounds in which one client answered, ``units`` the number of protected
    units, ``sampling`` says in words how cohort and batches were drawn. ``touches`` bounds the local steps of one
    round that one example enters (see ``touches_per_round``); a whole client is released once a round.
    Raises ValueError for counts that cannot be.
    """
    if not 0 <= participations <= rounds or touches < 0 or units < 1:
        raise ValueError(
            f"participations = {participations}, rounds = {rounds}, touches = {touches}, units = {units}: "
            "need 0 <= participations <= rounds, touches >= 0 and units >= 1"
        )
    z, delta = defence.noise_multiplier, defence.delta
    releases = participations * (touches if defence.level == "example" else 1)
    pld, rdp = epsilons(z, releases, delta)
    one, _ = epsilons(z, min(releases, 1), delta)
    replace, _ = epsilons(z, releases, delta, "replace_one")
    return PrivacyStatement(
        unit=defence.level,
        relation=RELATIONS["zero_out"][1],
        sampling=sampling,
        delta=delta,
        rounds=rounds,
        participations=participations,
        releases=releases,
        clip=defence.clip,
        noise_multiplier=z,
        epsilon=pld,
        epsilon_rdp=rdp,
        epsilon_one_release=one,
        epsilon_replace_one=replace,
        accountant=f"dp-accounting {version('dp-accounting')}: {_method(z, releases)}, cross-checked by RDP",
        observer="the server, which reads every client's update",
        trust="the client's own code clips and noises; nothing is asked of the server or of other clients",
        amplification="none: the server picks the cohort, and local batches are accounted as if it knew them",
        not_covered="whatever travels beside the update (num-examples, metrics, buffers), and integer entries in it",
        cautions=_cautions(defence, units),
    )


def touches_per_round(*, local_epochs: int, local_steps: int | None, steps_per_epoch: int) -> int:
    """How many local steps of a round one example enters at most, when each epoch visits it once in shuffled order."""
    return local_epochs if local_steps is None else -(-local_steps // steps_per_epoch)


def epsilons(
    noise_multiplier: float, releases: int, delta: float, relation: Relation = "zero_out"
) -> tuple[float | None, float | None]:
    """Epsilon by privacy loss distribution and by RDP, of ``releases`` unsampled Gaussians at sigma / C.

    (None, None) stands for infinity. Replace-one doubles the sensitivity here: dp-accounting's RDP accountant ignores
    the relation for an unsampled Gaussian, its PLD accountant does not.
    """
    if releases == 0:
        return 0.0, 0.0
    if noise_multiplier == 0:
        return None, None
    return _account(_mu(noise_multiplier, releases, relation), delta)


def _mu(noise_multiplier: float, releases: int, relation: Relation = "zero_out") -> float:
    return RELATIONS[relation][0] * math.sqrt(releases) / noise_multiplier


def _method(noise_multiplier: float, releases: int) -> str:
    if noise_multiplier and releases and _mu(noise_multiplier, releases) > PLD_LIMIT:
        return "exact Gaussian closed form (Balle and Wang 2018)"
    return "PLD"


@cache
def _account(mu: float, delta: float) -> tuple[float, float]:
    import dp_accounting  # here, since it takes a second
    from dp_accounting.gaussian_mechanism import get_epsilon_gaussian
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    event = dp_accounting.GaussianDpEvent(1 / mu)
    rdp = float(RdpAccountant().compose(event).get_epsilon(delta))
    if mu > PLD_LIMIT:
        return float(get_epsilon_gaussian(1 / mu, delta)), rdp
    grid = 1e-4 * mu * max(1.0, mu / 10)  # keeps the number of grid points even over all mu
    return float(PLDAccountant(value_discretization_interval=grid).compose(event).get_epsilon(delta)), rdp


def _cautions(defence: ClientDP, units: int) -> tuple[str, ...]:
    found = ["noise is floating-point; the accounting is that of real numbers (Mironov 2012)"]
    if defence.noise_source == "seed":
        found.append("noise comes from the scenario's seed: it protects from those who do not hold the seed")
    if defence.delta * units >= 1:
        found.append(f"delta = {defence.delta:g} is not below 1/{units}: it allows one of {units} to be exposed whole")
    return tuple(found)
