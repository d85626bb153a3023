"""Attacks on what federated learning shares: each runs on a bare ``nn.Module`` and an update, without the simulator."""

from attacks import (  # noqa: F401  each registers itself
    analytic,
    dlg,
    fedavg,
    fishing,
    idlg,
    imprint,
    inconsistency,
    inverting,
    labels,
    prior,
    traps,
)
from attacks.oracle import ACCESS, AccessDenied, Oracle, OracleError, QueryBudgetExceeded, UnknownCaller
from attacks.registry import available, reconstruct, reconstruct_many
from attacks.view import (
    Budget,
    Knowledge,
    Message,
    NotApplicable,
    Observation,
    Reconstruction,
    Update,
    View,
)

__all__ = [
    "ACCESS",
    "AccessDenied",
    "Budget",
    "Knowledge",
    "Message",
    "NotApplicable",
    "Observation",
    "Oracle",
    "OracleError",
    "QueryBudgetExceeded",
    "Reconstruction",
    "UnknownCaller",
    "Update",
    "View",
    "available",
    "reconstruct",
    "reconstruct_many",
]
