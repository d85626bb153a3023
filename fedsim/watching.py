"""What the service could see of an attack in its query log, beside how often it would suspect an honest caller."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attacks.monitor import QueryLog, calibrate, false_alarms
from attacks.oracle import put

CALLERS = 60
"""Honest callers that the thresholds are learnt from, and as many others that they are tried on."""
RATE = 0.05
"""Share of honest callers that may raise an alarm."""
MOST = 40
"""Inputs that an honest caller asks about, at most."""


@dataclass(frozen=True)
class Watched:
    """The signals of an attack's queries with their thresholds, and the alarms that other honest callers raise."""

    signals: dict[str, float]
    thresholds: dict[str, float]
    alarms: tuple[str, ...]
    false_alarm_rate: float
    false_alarm_low: float
    false_alarm_high: float

    def as_dict(self) -> dict[str, Any]:
        """Plain fields for a result file."""
        return asdict(self)


def watched(log: QueryLog, model: nn.Module, honest: Tensor) -> Watched | None:
    """Hold the log against that of honest callers, who ask about 1 to 40 of the ``honest`` inputs each.

    The callers whose alarms are counted ask about other inputs than those that the thresholds are learnt from. None
    with fewer than two honest inputs, and where confidences are not one row an input.
    """
    if len(honest) < 2 or any(part.ndim != 2 for part in log.confidences):
        return None
    known, others = honest.chunk(2)
    draw = torch.Generator().manual_seed(0)
    monitor = calibrate(_callers(model, known, draw), RATE)
    rate, (low, high) = false_alarms(monitor, _callers(model, others, draw))
    raised = tuple(name for name, sounds in monitor.alarms(log).items() if sounds)
    return Watched(monitor.signals(log), dict(monitor.thresholds), raised, rate, low, high)


def _callers(model: nn.Module, inputs: Tensor, draw: torch.Generator) -> list[QueryLog]:
    """What honest callers asked, each about inputs of its own."""
    with torch.no_grad():
        answers, logs = put(model.eval(), inputs).softmax(-1), list[QueryLog]()
    for _ in range(CALLERS):
        count = int(torch.randint(1, MOST + 1, (), generator=draw))
        chosen = torch.randperm(len(inputs), generator=draw)[:count]
        logs.append(QueryLog())
        logs[-1].record(inputs[chosen], answers[chosen])
    return logs
