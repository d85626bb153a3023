"""What sums give away whatever the protocol, told of each run in plain sentences: no profile is vouched for here."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedsim.scenario import Scenario
from fedsim.words import counted, listed
from strategies.base import Stage
from strategies.differencing import alone


def residue(scenario: Scenario, history: Sequence[Mapping[str, Any]], bare: Mapping[int, float]) -> list[str]:
    """The findings of one run whose server reads sums; none for a protocol that hides nothing.

    ``history`` has one row a round, ``bare`` maps rounds to the share of coordinates at which one client alone put
    something into the sum.
    """
    if not any(defence.stage == Stage.HIDE for defence in scenario.protocol):
        return []
    sums = [row["answered"] for row in history if row.get("answered") and not row.get("lie")]
    if not sums:
        return []
    return [_cohort(scenario, min(len(clients) for clients in sums)), *_differences(sums), *_coordinates(bare)]


def _cohort(scenario: Scenario, smallest: int) -> str:
    colluders = scenario.adversary.colluders
    told = f", of whom up to {colluders} help the server" if colluders else ""
    return (
        f"The smallest sum of this run is over {counted(smallest, 'client')}{told}. That the others are real, honest "
        "and many is nothing that secure aggregation proves: a server that asks few, fills seats with its own clients "
        "(sybils) or is told by the rest what they sent reads whoever is left. No profile stops it."
    )


def _differences(sums: Sequence[Sequence[int]]) -> list[str]:
    if len(sums) < 2:
        return []
    found = alone(sums)
    if not found:
        return [f"Subtracting the {len(sums)} sums of this run from each other leaves no client alone."]
    return [
        f"Subtracting the {len(sums)} sums of this run from each other leaves {listed([f'client {c}' for c in found])} "
        "alone: exactly as far as the other clients' updates do not change from round to round. No profile stops it."
    ]


def _coordinates(bare: Mapping[int, float]) -> list[str]:
    if not bare:
        return []
    round = max(bare, key=lambda one: bare[one])
    if not bare[round]:
        return ["At every coordinate that was looked at, at least two clients put something into the sum, or none did."]
    share = f"{100 * bare[round]:.2g} %"
    return [
        f"At {share} of the coordinates of round {round} one client alone put something into the sum, where it stands "
        "bare: neurons that only its data activate, rows of an embedding that only it uses. No profile stops it."
    ]
