"""What the protocol should have cost by the counting of its parts, beside what it did; and at cohorts no one simulates.

Secure aggregation is counted by ``crypto.secagg.cost`` from unit costs measured in this process. Everything else is
linear: a client's work does not depend on the others, the server's is one answer after another.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from crypto.errors import InfeasibleParameters
from crypto.parameters import find_graph, find_modulus_bits
from crypto.secagg import PROFILES, STAGES
from crypto.secagg.cost import Setting, predict
from crypto.secagg.units import Units, measure_units
from fedsim.client import trainable
from fedsim.experiment import Experiment
from fedsim.federation import Training
from strategies.homomorphic import Homomorphic
from strategies.secure_aggregation import FLOWER, SecureAggregation

COHORTS = (10**4, 10**5, 10**6)
CORRUPT, DROPOUT = 0.05, 0.05
"""Fractions of the clients that the extrapolated parameters tolerate, and of those who drop out there."""


@cache
def units_of(profile: str) -> Units:
    """Unit costs of a profile on this machine: measured once a process."""
    return measure_units(PROFILES[profile])


def cost_model(experiment: Experiment, training: Training, clients: Mapping[str, float]) -> dict[str, Any]:
    """Predicted beside measured, and both at large cohorts; ``clients`` are their CPU seconds over all rounds."""
    scenario, rows = experiment.scenario, [row for row in training.history if row["round"]]
    size = sum(p.numel() for p in trainable(experiment.initial_model()).values())
    defence = next((d for d in scenario.protocol if isinstance(d, SecureAggregation)), None)
    if defence is None:
        return {"extrapolated": _linear(scenario.protocol, rows, clients, training.server_cpu)}
    if defence.profile == FLOWER:
        return {"not_modelled": "Flower's own protocol"}
    units = units_of(defence.profile)
    model: dict[str, Any] = {"extrapolated": [_at(defence, n, size, units) for n in COHORTS]}
    if defence.mode == "ideal":
        return {**model, "not_compared": "a trusted adder stood in for the protocol"}
    return {**model, **_compared(scenario.federation.dropout_stage, defence, rows, size, clients, training, units)}


def _compared(
    leaving: str,
    defence: SecureAggregation,
    rows: Sequence[Mapping[str, Any]],
    size: int,
    clients: Mapping[str, float],
    training: Training,
    units: Units,
) -> dict[str, Any]:
    """CPU seconds of the protocol's own stages over the whole run: counted, and measured."""
    if any(row["aborted"] or row["failed"] or row["lie"] for row in rows):
        return {"not_compared": "a round was not played to its end as agreed"}
    if leaving != "masked" and any(row["dropped"] for row in rows):
        return {"not_compared": f"clients left at stage {leaving!r}; the model counts those who leave at 'masked'"}
    predicted = {"client": 0.0, "server": 0.0}
    bare, up, down = 0.0, 0, 0
    for row in rows:
        setting = setting_of(defence, len(row["cohort"]), size, len(row["dropped"]))
        cost = predict(setting, units)
        for party in predicted:
            predicted[party] += cost.total(party)
        bare += predict(setting_of(defence, len(row["cohort"]), 0, len(row["dropped"])), units).total()
        up, down = up + cost.bytes_up, down + cost.bytes_down
    asked = sum(len(row["cohort"]) for row in rows)
    measured = {
        "client": sum(clients.get(stage, 0.0) for stage in STAGES),
        "server": sum(training.server_cpu.get(stage, 0.0) for stage in STAGES),
    }
    return {
        "cpu_seconds": {"predicted": predicted, "measured": measured},
        "predicted_over_measured": sum(predicted.values()) / sum(measured.values()),
        "independent_of_model_size": bare / sum(predicted.values()),
        "bytes_per_client_round": {"up": up / asked, "down": down / asked},
    }


def setting_of(defence: SecureAggregation, cohort: int, size: int, dropped: int = 0) -> Setting:
    """One round of the scenario's own parameters over updates of ``size`` entries."""
    terms = defence.terms(bytes(16), 1, cohort, size)
    return Setting(
        cohort,
        terms.degree,
        terms.threshold,
        terms.encoding.length,
        defence.safeguards,
        dropped,
        terms.encoding.word.itemsize,
    )


def _at(defence: SecureAggregation, clients: int, size: int, units: Units) -> dict[str, Any]:
    """A round of so many clients, on the masking graph that is safe for them."""
    policy = defence.safeguards.policy
    split_view = policy is not None and policy.split_view
    try:
        graph = find_graph(clients, CORRUPT, DROPOUT, semi_malicious=split_view)
        width = find_modulus_bits(clients, defence.max_weight, defence.bits) // 8
    except InfeasibleParameters as refusal:
        return {"clients": clients, "refused": str(refusal)}
    words = size + (defence.max_weight > 1)
    dropped = int(DROPOUT * clients)
    cost = predict(Setting(clients, graph.degree, graph.threshold, words, defence.safeguards, dropped, width), units)
    return {
        "clients": clients,
        "neighbours": graph.degree,
        "threshold": graph.threshold,
        "bytes_up": cost.bytes_up / clients,
        "bytes_down": cost.bytes_down / clients,
        "client_cpu_seconds": cost.total("client") / clients,
        "server_cpu_seconds": cost.total("server"),
    }


def _linear(
    protocol: Sequence[Any],
    rows: Sequence[Mapping[str, Any]],
    clients: Mapping[str, float],
    server: Mapping[str, float],
) -> list[dict[str, Any]]:
    asked, answered = sum(len(row["cohort"]) for row in rows), sum(len(row["answered"]) for row in rows)
    own = sum(spent for stage, spent in clients.items() if stage != "train") / asked
    each = sum(server.values()) / max(1, answered)
    encryption = next((d for d in protocol if isinstance(d, Homomorphic)), None)
    found: list[dict[str, Any]] = []
    for n in COHORTS:
        problems = encryption.cohort_problems(n) if encryption else []
        figures = {"client_cpu_seconds": own, "server_cpu_seconds": each * n}
        found.append({"clients": n, **({"refused": "; ".join(problems)} if problems else figures)})
    return found
