"""What a service sees of an attack in its query log: three signals, with thresholds learnt from honest callers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor


@dataclass
class QueryLog:
    """One caller's queries in order: ``record`` serves as an oracle's ``watch``."""

    inputs: list[Tensor] = field(default_factory=list)
    confidences: list[Tensor] = field(default_factory=list)

    def record(self, inputs: Tensor, confidences: Tensor) -> None:
        """Append one request: inputs (N, *input_shape), and the model's own confidences (N, K)."""
        self.inputs.append(inputs.detach().clone())
        self.confidences.append(confidences.detach().clone())

    def __len__(self) -> int:
        return sum(len(part) for part in self.inputs)


_LOOK_BACK = 1000
"""Queries, the last ones of a log, that the signals of nearness look at."""
_NEAR = 0.05
"""Root mean square difference, as a share of the data's own spread, below which two inputs are near-duplicates."""
_MARGIN = 0.2
"""Lead of the first confidence over the second below which a query probes the boundary."""


def near_duplicates(log: QueryLog, spread: float) -> float:
    """Share of the queries that nearly repeat an earlier one; ``spread`` is the honest data's standard deviation."""
    seen = torch.cat(log.inputs).flatten(1)[-_LOOK_BACK:].double()
    if len(seen) < 2:
        return 0.0
    apart = torch.cdist(seen, seen) / seen.shape[1] ** 0.5
    earlier = torch.ones_like(apart, dtype=torch.bool).tril(-1)
    return float(((apart < _NEAR * spread) & earlier).any(1).double().mean())


def boundary_probing(log: QueryLog, spread: float) -> float:
    """Share of the queries that the model itself can hardly decide."""
    first, second = torch.cat(log.confidences)[-_LOOK_BACK:].topk(2, dim=1).values.unbind(1)
    return float((first - second < _MARGIN).double().mean())


def volume(log: QueryLog, spread: float) -> float:
    """How many queries there are: one who is out to use up a budget asks more than one who has a question."""
    return float(len(log))


SIGNALS: dict[str, Callable[[QueryLog, float], float]] = {
    "near_duplicates": near_duplicates,
    "boundary_probing": boundary_probing,
    "volume": volume,
}


@dataclass(frozen=True)
class Monitor:
    """Signals with the thresholds above which each sounds the alarm."""

    thresholds: dict[str, float]
    spread: float

    def signals(self, log: QueryLog) -> dict[str, float]:
        """Every signal of one caller's log; zeros for an empty one."""
        return {name: signal(log, self.spread) if len(log) else 0.0 for name, signal in SIGNALS.items()}

    def alarms(self, log: QueryLog) -> dict[str, bool]:
        """Which signals lie above what honest callers were seen to reach."""
        return alarms(self.signals(log), self.thresholds)


def alarms(signals: Mapping[str, float], thresholds: Mapping[str, float]) -> dict[str, bool]:
    """Which of one caller's signals lie above their thresholds."""
    return {name: signals[name] > threshold for name, threshold in thresholds.items()}


def thresholds_for(honest: Sequence[Mapping[str, float]], rate: float) -> dict[str, float]:
    """Thresholds that a share ``rate`` of the ``honest`` callers' signals would pass, over all signals together.

    Raises ValueError for fewer callers than one expected alarm a signal takes.
    """
    needed = int(np.ceil(len(SIGNALS) / rate))
    if len(honest) < needed:
        raise ValueError(f"{len(honest)} honest callers: a rate of {rate:g} over {len(SIGNALS)} signals needs {needed}")
    quantile = 1 - rate / len(SIGNALS)
    return {name: float(np.quantile([own[name] for own in honest], quantile, method="higher")) for name in SIGNALS}


def alarm_rate(
    honest: Sequence[Mapping[str, float]], thresholds: Mapping[str, float]
) -> tuple[float, tuple[float, float]]:
    """Share of honest callers on whom any signal sounds, with its exact 95 % interval (Clopper and Pearson 1934)."""
    if not honest:
        raise ValueError("no honest callers: a false-alarm rate of nobody has no meaning")
    rung = sum(any(alarms(own, thresholds).values()) for own in honest)
    interval = binomtest(rung, len(honest)).proportion_ci(0.95, method="exact")
    return rung / len(honest), (float(interval.low), float(interval.high))


def spread_of(inputs: Tensor) -> float:
    """The standard deviation of honest data (N, ...) within a feature, over all features together."""
    flat = inputs.flatten(1).double()
    return float((flat - flat.mean(0)).square().mean().sqrt())


def calibrate(honest: Sequence[QueryLog], rate: float) -> Monitor:
    """A monitor with ``thresholds_for`` the honest callers' logs, and the spread of what they asked.

    The rate on the same callers flatters: measure it on others with ``false_alarms``.
    """
    spread = spread_of(torch.cat([part for log in honest for part in log.inputs]))
    each = [{name: signal(log, spread) for name, signal in SIGNALS.items()} for log in honest]
    return Monitor(thresholds_for(each, rate), spread)


def false_alarms(monitor: Monitor, honest: Sequence[QueryLog]) -> tuple[float, tuple[float, float]]:
    """The ``alarm_rate`` of honest callers' logs."""
    return alarm_rate([monitor.signals(log) for log in honest], monitor.thresholds)
