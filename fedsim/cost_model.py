"""What the protocol should have cost by the counting of its parts, beside what it did; and at cohorts no one simulates.

Secure aggregation is counted by ``crypto.secagg.cost`` from unit costs measured in this process. Everything else is
linear: a client's work does not depend on the others, the server's is one answer after another.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from flwr.app import ArrayRecord, RecordDict

from crypto.errors import InfeasibleParameters
from crypto.parameters import find_graph, find_modulus_bits
from crypto.secagg import PROFILES, STAGES
from crypto.secagg.cost import Setting, predict
from crypto.secagg.units import Units, measure_units
from fedsim.client import carried_buffers, trainable
from fedsim.experiment import Experiment
from fedsim.federation import Training
from strategies.homomorphic import Homomorphic
from strategies.secure_aggregation import FLOWER, SecureAggregation
from strategies.wire import payload_bytes

COHORTS = (10**4, 10**5, 10**6)
CORRUPT, DROPOUT = 0.05, 0.05
"""Fractions of the clients that the extrapolated parameters tolerate, and of those who drop out there."""


@cache
def units_of(profile: str) -> Units:
    """Unit costs of a profile on this machine: measured once a process."""
    return measure_units(PROFILES[profile])


def cost_model(
    experiment: Experiment, training: Training, clients: Mapping[str, float], wire: Mapping[str, Any]
) -> dict[str, Any]:
    """Predicted beside measured, and both at large cohorts.

    ``clients`` are their CPU seconds over all rounds, ``wire`` the bytes per client and round.
    """
    scenario, rows = experiment.scenario, [row for row in training.history if row["round"]]
    model_bytes, size = sizes_of(experiment)
    defence = next((d for d in scenario.protocol if isinstance(d, SecureAggregation)), None)
    if defence is None:
        return {"extrapolated": _linear(scenario.protocol, rows, clients, training.server_cpu, wire)}
    if defence.profile == FLOWER:
        return {"not_modelled": "Flower's own protocol"}
    units = units_of(defence.profile)
    larger = [_at(defence, n, size, units, model_bytes) for n in COHORTS]
    if defence.mode == "ideal":
        return {"extrapolated": larger, "not_compared": "a trusted adder stood in for the protocol"}
    compared = _compared(scenario.federation.dropout_stage, defence, rows, size, clients, training, units)
    if counted := compared.get("bytes"):
        counted["predicted"]["down"] += model_bytes * sum(len(row["cohort"]) for row in rows)
        counted["measured"] = {way: wire[f"bytes_{way}"] for way in ("up", "down")}
    return {"extrapolated": larger, **compared}


def sizes_of(experiment: Experiment) -> tuple[int, int]:
    """Bytes of the model as it is sent, and the values that a client hides: its update, and statistics beside it."""
    model = experiment.initial_model()
    state = model.state_dict()
    hidden = [*trainable(model), *carried_buffers(model)]
    return payload_bytes(RecordDict({"arrays": ArrayRecord(dict(state))})), sum(state[n].numel() for n in hidden)


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
    measured = {
        "client": sum(clients.get(stage, 0.0) for stage in STAGES),
        "server": sum(training.server_cpu.get(stage, 0.0) for stage in STAGES),
    }
    return {
        "cpu_seconds": {"predicted": predicted, "measured": measured},
        "predicted_over_measured": sum(predicted.values()) / sum(measured.values()),
        "independent_of_model_size": bare / sum(predicted.values()),
        "bytes": {"predicted": {"up": up, "down": down}},
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


def _at(defence: SecureAggregation, clients: int, size: int, units: Units, model_bytes: int) -> dict[str, Any]:
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
        "bytes_down": model_bytes + cost.bytes_down / clients,
        "client_cpu_seconds": cost.total("client") / clients,
        "server_cpu_seconds": cost.total("server"),
    }


def _linear(
    protocol: Sequence[Any],
    rows: Sequence[Mapping[str, Any]],
    clients: Mapping[str, float],
    server: Mapping[str, float],
    wire: Mapping[str, Any],
) -> list[dict[str, Any]]:
    asked, answered = sum(len(row["cohort"]) for row in rows), sum(len(row["answered"]) for row in rows)
    own = sum(spent for stage, spent in clients.items() if stage != "train") / asked
    each = sum(server.values()) / max(1, answered)
    encryption = next((d for d in protocol if isinstance(d, Homomorphic)), None)
    found: list[dict[str, Any]] = []
    for n in COHORTS:
        problems = encryption.cohort_problems(n) if encryption else []
        figures = {f"bytes_{way}": wire[f"bytes_{way}_per_client_round"] for way in ("up", "down")}
        figures |= {"client_cpu_seconds": own, "server_cpu_seconds": each * n}
        found.append({"clients": n, **({"refused": "; ".join(problems)} if problems else figures)})
    return found
