"""What the service could see of an attack in its query log, beside how often it would suspect an honest caller."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attacks.monitor import SIGNALS, Monitor, QueryLog, alarm_rate, alarms, calibrate, spread_of, thresholds_for
from attacks.oracle import put
from fedsim.query_log import digests, margins, signals, suspicion

CALLERS = 200
"""Honest callers that the thresholds are learnt from, and as many others that they are tried on."""
RATE = 0.05
"""Share of honest callers that may raise an alarm."""
MOST = 40
"""Inputs that an honest caller asks about, at most; with fewer in either half there is nothing to learn from."""


@dataclass(frozen=True)
class Watched:
    """The signals of an attack's queries with their thresholds, and the alarms that other honest callers raise.

    Where ``lacking`` says what honest inputs there are too few of, there are no thresholds, and no rate. A service's
    log also tells how many inputs were ``refused``, and how many requests (``refusals``).
    """

    signals: dict[str, float]
    thresholds: dict[str, float]
    alarms: tuple[str, ...]
    false_alarm_rate: float | None
    false_alarm_low: float | None
    false_alarm_high: float | None
    lacking: str | None = None
    refused: int | None = None
    refusals: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain fields for a result file."""
        return asdict(self)


def watched(log: QueryLog, model: nn.Module, honest: Tensor) -> Watched | None:
    """Hold the log against that of honest callers, who ask about 1 to 40 of the ``honest`` inputs each.

    The callers whose alarms are counted ask about other inputs than those that the thresholds are learnt from. None
    where confidences are not one row an input.
    """
    if not len(honest) or any(part.ndim != 2 for part in log.confidences):
        return None
    if lacking := _lacking(honest):
        return _against(Monitor({}, spread_of(honest)).signals(log), {}, (), lacking)
    known, others = _callers(model, honest)
    monitor = calibrate(known, RATE)
    return _against(monitor.signals(log), monitor.thresholds, [monitor.signals(other) for other in others])


def watched_file(path: Path, model: nn.Module, honest: Tensor) -> dict[str, Watched]:
    """The same of every caller in a service's log, whose signals rest on digests; raises LogBroken."""
    logged = suspicion(path)
    seen = {name: {key: own[key] for key in SIGNALS} for name, own in logged.items()}
    if lacking := _lacking(honest):
        found = {name: _against(own, {}, (), lacking) for name, own in seen.items()}
    else:
        known, others = ([_as_kept(log) for log in logs] for logs in _callers(model, honest))
        thresholds = thresholds_for(known, RATE)
        found = {name: _against(own, thresholds, others) for name, own in seen.items()}
    return {
        name: replace(own, refused=int(logged[name]["refused"]), refusals=int(logged[name]["refusals"]))
        for name, own in found.items()
    }


def _lacking(honest: Tensor) -> str | None:
    if len(honest) >= 2 * MOST:
        return None
    return f"{len(honest)} honest inputs: thresholds and their false alarms need {2 * MOST}; hold more out"


def _against(
    own: Mapping[str, float],
    thresholds: Mapping[str, float],
    others: Sequence[Mapping[str, float]],
    lacking: str | None = None,
) -> Watched:
    if lacking:
        return Watched(dict(own), {}, (), None, None, None, lacking)
    rate, (low, high) = alarm_rate(others, thresholds)
    raised = tuple(name for name, sounds in alarms(own, thresholds).items() if sounds)
    return Watched(dict(own), dict(thresholds), raised, rate, low, high)


def _as_kept(log: QueryLog) -> dict[str, float]:
    """The signals that a service's file would hold of these queries."""
    kept = [int(digest, 16) for digest in digests(torch.cat(log.inputs))]
    return signals(kept, margins(torch.cat(log.confidences)))


def _callers(model: nn.Module, honest: Tensor) -> tuple[list[QueryLog], list[QueryLog]]:
    """What two groups of honest callers asked, of either half of the inputs; each caller about some of its own."""
    draw, groups = torch.Generator().manual_seed(0), list[list[QueryLog]]()
    with torch.no_grad():
        told = put(model.eval(), honest).softmax(-1)
    for inputs, answers in zip(honest.chunk(2), told.chunk(2), strict=True):
        groups.append([])
        for _ in range(CALLERS):
            count = int(torch.randint(1, MOST + 1, (), generator=draw))
            chosen = torch.randperm(len(inputs), generator=draw)[:count]
            groups[-1].append(QueryLog())
            groups[-1][-1].record(inputs[chosen], answers[chosen])
    return groups[0], groups[1]
