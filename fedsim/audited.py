"""The canary audit of a run: made where it takes seconds, or where the scenario asks for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedsim.audit import TRIALS, Audit, audit_run
from fedsim.experiment import Experiment
from fedsim.guarantee import guarantee

CHEAP = 2e7
"""Numbers that canaries push through the defence in all, up to which an audit, of seconds, is made unasked."""
DEARER = {"client": 1, "example": 8}
"""How much longer a number takes, by what is protected: an example's passes through a gradient of its own."""


def audited(experiment: Experiment, history: Sequence[Mapping[str, Any]]) -> Audit | None:
    """The audit of a trained cell; None without a claim to audit, or where it is too dear and was not asked for."""
    wanted, given = experiment.scenario.audit, guarantee(experiment, history)
    if wanted is False or given is None or not given.statement.releases:
        return None
    size = sum(p.numel() for p in experiment.initial_model().parameters() if p.requires_grad)
    if wanted is None and TRIALS * given.statement.releases * size * DEARER[given.statement.unit] > CHEAP:
        return None
    return audit_run(experiment, history)
