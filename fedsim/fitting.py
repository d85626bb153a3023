"""Whether noise on an update fits in the range that masking encodes; where it cannot, every client fails each round."""

import math
from typing import TYPE_CHECKING

from fedsim.costs import parameters_of
from fedsim.tasks import TaskError
from strategies.client_dp import ClientDP
from strategies.secure_aggregation import FLOWER, SecureAggregation

if TYPE_CHECKING:
    from fedsim.experiment import Experiment

RARE = 1e-3
"""A client whose update fits in fewer than so many of its rounds gives no sum that a run could be read from."""


def check_noise_fits(experiment: "Experiment") -> None:
    """Refuse noise on whole updates that alone leaves the encoding's range in nearly every round.

    What the client holds does not matter: the chance that an update and noise fit is largest where the update is zero,
    since Gaussian noise is symmetric and has one peak. Flower's own protocol cuts values to its range.
    """
    protocol = experiment.scenario.protocol
    noisy = next(((i, d) for i, d in enumerate(protocol) if isinstance(d, ClientDP) and d.level == "client"), None)
    masked = next(((i, d) for i, d in enumerate(protocol) if isinstance(d, SecureAggregation)), None)
    if noisy is None or masked is None or masked[1].profile == FLOWER or not noisy[1].noise_multiplier:
        return
    (at, noise), (index, aggregation), count = noisy, masked, parameters_of(experiment)
    deviation = noise.clip * noise.noise_multiplier
    if _chance(aggregation.clip / deviation) ** count >= RARE:
        return
    # By the union bound, noise leaves this range in fewer than RARE of the rounds; no coordinate is above the norm.
    enough = noise.clip + deviation * math.sqrt(2 * math.log(2 * count / RARE))
    raise TaskError(
        f"protocol[{index}].clip",
        aggregation.clip,
        f"protocol[{at}].noise_multiplier = {noise.noise_multiplier:g} adds noise of standard deviation {deviation:g} "
        f"to each of {count:,} values, so that nearly every update holds one outside the clip, and is refused by its "
        "own client",
        f"set at least {_up(enough):g}, or less noise",
    )


def _chance(bound: float) -> float:
    """That a standard normal variable lies within ``bound`` of zero."""
    return math.erf(bound / math.sqrt(2))


def _up(value: float) -> float:
    """To two digits, never below the value."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(value / unit) * unit, 12)
