"""What a training took, by stage and party, and how exact its sums were: for the evidence, apart from the results."""

from collections.abc import Mapping
from typing import Any

from fedsim.client import trainable
from fedsim.cost_model import cost_model
from fedsim.evidence import EvidenceLog
from fedsim.experiment import Experiment
from fedsim.federation import Training
from fedsim.scenario import Scenario
from strategies.homomorphic import Homomorphic
from strategies.secure_aggregation import SecureAggregation


def costs_of(experiment: Experiment, training: Training, log: EvidenceLog, wire: Mapping[str, Any]) -> dict[str, Any]:
    """CPU seconds per client and round, and of the server per round; survivors; the largest error; the cost model.

    ``wire`` are the bytes of ``bytes_on_the_wire``.
    """
    rows = [row for row in training.history if row["round"]]
    asked = sum(len(row["cohort"]) for row in rows)
    survivors = [len(row["answered"]) for row in rows]
    clients, server = log.cpu_seconds(), training.server_cpu
    cost = {
        "client_cpu_seconds": {stage: spent / asked for stage, spent in clients.items()},
        "server_cpu_seconds": {stage: spent / len(rows) for stage, spent in server.items()},
        "largest_error": log.largest_error(training.means, weighted=weighted(experiment.scenario)),
        "asked": asked / len(rows),
        "fewest_in_a_sum": min(survivors),
        "most_in_a_sum": max(survivors),
        "rounds": len(rows),
        "rounds_without_a_sum": sum(row["aborted"] is not None for row in rows),
    }
    return {"cost": cost, "cost_model": cost_model(experiment, training, clients, wire)}


def weighted(scenario: Scenario) -> bool:
    """Whether the mean goes by each client's number of examples."""
    hiding = [d for d in scenario.protocol if isinstance(d, SecureAggregation | Homomorphic)]
    return hiding[0].max_weight > 1 if hiding else scenario.federation.weighted


def parameters_of(experiment: Experiment) -> int:
    """Entries of an update."""
    return sum(p.numel() for p in trainable(experiment.initial_model()).values())
