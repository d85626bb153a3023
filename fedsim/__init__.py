"""fedsim: what can the server of a federation learn about its clients' data, under which protocol, at what cost."""

import os
from importlib.util import find_spec
from pathlib import Path

from fedsim.mistakes import leaving_on_interrupt, tell_in_a_line

# Flower reads this when it is imported; a simulator for privacy reviews does not phone home.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray would print advice of its own between our lines: on a change to come, and on workers that we replace.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^A worker died or was killed")

for _name in ("strategies", "attacks", "crypto"):
    _found, _wanted = find_spec(_name), Path(__file__).resolve().parents[1] / _name
    if _found is None or Path(_found.origin or "").resolve().parent != _wanted:
        raise ImportError(
            f"fedsim needs its own package '{_name}' from {_wanted}, but Python finds "
            f"{_found and _found.origin}; uninstall the other package or run from fedsim's checkout"
        )

with leaving_on_interrupt():
    from attacks.controls import LabelOnly, Noise, Rounding, Temperature, TopK
    from fedsim.cli import main
    from fedsim.deployment import Deployment
    from fedsim.regularisation import Regularisation
    from fedsim.run import Result, run
    from fedsim.scenario import (
        Adversary,
        Attack,
        AttackBudget,
        Federation,
        Partition,
        Scenario,
        Task,
    )
    from fedsim.selection import Selection
    from strategies.client_checks import ClientChecks
    from strategies.client_dp import ClientDP
    from strategies.homomorphic import Homomorphic
    from strategies.plants import Ascent, FeatureFishing, Fishing, Imprint, Inconsistency, Kernels, Traps
    from strategies.secure_aggregation import SecureAggregation

tell_in_a_line()

__all__ = [
    "Adversary",
    "Ascent",
    "Attack",
    "AttackBudget",
    "ClientChecks",
    "ClientDP",
    "Deployment",
    "FeatureFishing",
    "Federation",
    "Fishing",
    "Homomorphic",
    "Imprint",
    "Inconsistency",
    "Kernels",
    "LabelOnly",
    "Noise",
    "Partition",
    "Regularisation",
    "Result",
    "Rounding",
    "Scenario",
    "SecureAggregation",
    "Selection",
    "Task",
    "Temperature",
    "TopK",
    "Traps",
    "main",
    "run",
]
