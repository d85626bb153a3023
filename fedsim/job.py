"""What an attack process receives."""

from dataclasses import dataclass

from attacks import Budget, Knowledge, Observation
from fedsim.truth import Victim


@dataclass(frozen=True)
class Job:
    """One attack on one round's victims. This is all that an attack process receives: no seed, no truth."""

    attack: str
    round: int
    whom: tuple[Victim, ...]
    victims: tuple[tuple[tuple[Observation, ...], Knowledge, int], ...]
    budget: Budget
    beside: bool = False
    """Whether this is on the sum that opens beside the clients' parts in clear, which another job is on."""
    of_battery: bool = False
    skipped: str = ""
    """Why the attack is not run after all."""

    @property
    def clients(self) -> tuple[int, ...]:
        """Each victim's client number; ``THE_SUM`` for a sum."""
        return tuple(victim.label for victim in self.whom)
