"""Attacks on what federated learning shares: each runs on a bare ``nn.Module`` and an update, without the simulator."""

from attacks import (  # noqa: F401  each registers itself
    analytic,
    attribute,
    cocktail,
    dager,
    dlg,
    embeddings,
    extraction,
    features,
    fedavg,
    fishing,
    idlg,
    imprint,
    inconsistency,
    inversion,
    inversion_confidences,
    inversion_labels,
    inverting,
    labels,
    prior,
    sratta,
    traps,
)
from attacks.inference import Claim, Targets, available, infer, inferences
from attacks.oracle import ACCESS, AccessDenied, Oracle, OracleError, QueryBudgetExceeded, UnknownCaller
from attacks.registry import reconstruct, reconstruct_many, reconstructions
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
    "Claim",
    "Knowledge",
    "Message",
    "NotApplicable",
    "Observation",
    "Oracle",
    "OracleError",
    "QueryBudgetExceeded",
    "Reconstruction",
    "Targets",
    "UnknownCaller",
    "Update",
    "View",
    "available",
    "infer",
    "inferences",
    "reconstruct",
    "reconstruct_many",
    "reconstructions",
]
