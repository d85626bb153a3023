"""Differential privacy under secure aggregation, by who looks: noise that every client adds counts only as far as it
is sure to be in what the observer sees."""

import math
from dataclasses import dataclass

from fedsim.privacy import epsilons
from strategies.client_dp import ClientDP
from strategies.secure_aggregation import SecureAggregation

GUARANTEED = "the server, on the sum, guaranteed"
"""The observer whose epsilon a client can rely on under secure aggregation."""


@dataclass(frozen=True)
class Observer:
    """One observer's epsilon. ``noise_of`` is how many clients' noise it cannot take away."""

    observer: str
    sees: str
    noise_of: int
    noise_multiplier: float
    """Standard deviation of that noise, over the clip norm times the unit's weight."""
    epsilon: float | None
    epsilon_rdp: float | None
    assumes: str


def observers(
    defence: ClientDP,
    aggregation: SecureAggregation,
    *,
    releases: int,
    cohort: int,
    survivors: int,
    colluders: int,
    enforced: bool = True,
) -> tuple[Observer, ...]:
    """The three observers of a client-level guarantee over ``releases`` rounds of a ``cohort``.

    ``survivors`` is the smallest number of clients in any round's sum, ``colluders`` how many clients tell the server
    their noise. The guarantee that a client can rely on counts only the survivors that the protocol enforces, its
    threshold, of which all colluders may be part, and none of them where the threshold was not ``enforced``, since
    the server read one client's vector alone; after the run, the survivors that there really were.
    """
    threshold = aggregation.terms(bytes(16), 1, cohort, 1).threshold if enforced else 1
    trusted = "" if aggregation.profile == "paper" else ", and the server keeps to the protocol"
    if aggregation.mode == "ideal":
        trusted = ", and so is the party that adds"
    rows = (
        (
            "the server, on one update",
            "one client's noised update, should its masks fail",
            1,
            "nothing but this client",
        ),
        (
            GUARANTEED,
            "sums over at least the threshold of clients",
            max(1, threshold - colluders),
            f"{max(0, threshold - colluders - 1)} other survivors of the least possible {threshold} are honest"
            + trusted,
        ),
        (
            "the server, on the sum, as it was",
            "the sums that this run opened",
            max(1, survivors - colluders),
            f"all of the {survivors} survivors but {colluders} colluders are honest",
        ),
        ("an outsider", "the models after every round", max(1, survivors), f"all {survivors} survivors are honest"),
    )
    return tuple(_row(defence, aggregation, releases, *row) for row in rows)


def _row(
    defence: ClientDP, aggregation: SecureAggregation, releases: int, who: str, sees: str, noise_of: int, assumes: str
) -> Observer:
    # The unit may have the largest weight and the others the least, so that their noise weighs the least.
    z = defence.noise_multiplier * math.sqrt(1 + (noise_of - 1) / aggregation.max_weight**2)
    pld, rdp = epsilons(z, releases, defence.delta)
    return Observer(who, sees, noise_of, z, pld, rdp, assumes)
