"""The differential privacy that one trained cell gives, from the defences it ran and how training really went."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedsim.experiment import Experiment
from fedsim.observers import Observer, observers
from fedsim.privacy import PrivacyStatement, statement, touches_per_round
from strategies.client_dp import ClientDP
from strategies.homomorphic import Homomorphic
from strategies.secure_aggregation import SecureAggregation


@dataclass(frozen=True)
class Guarantee:
    """The statement against a server that reads every update and, under secure aggregation, who else sees what."""

    statement: PrivacyStatement
    observers: tuple[Observer, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The statement's fields, with the observers beside them."""
        caution = (
            "sums are accounted as if rounding came after the addition; the sum of rounded Gaussians is not exactly one"
        )
        fields = asdict(self.statement)
        if self.observers:
            fields["cautions"] = [*fields["cautions"], caution]
        return {**fields, "observers": [asdict(observer) for observer in self.observers]}


def guarantee(experiment: Experiment, history: Sequence[Mapping[str, Any]]) -> Guarantee | None:
    """The cell's privacy statement; None for a protocol without differential privacy, or if nothing was released.

    A client whose answer failed counts as one that released: the server may have read what it refused.
    """
    scenario = experiment.scenario
    federation = scenario.federation
    defence = next((d for d in scenario.protocol if isinstance(d, ClientDP)), None)
    if defence is None:
        return None
    took_part: dict[int, int] = {}
    for row in history:
        for client in {*row.get("answered", ()), *map(int, row.get("failed", ()))}:
            took_part[client] = took_part.get(client, 0) + 1
    if not took_part:
        return None
    held = [len(experiment.client_data(client)[1]) for client in range(federation.clients)]
    fewest = min(held)
    asked = federation.cohort or federation.clients
    stated = statement(
        defence,
        rounds=federation.rounds,
        participations=max(took_part.values()),
        units=federation.clients if defence.level == "client" else sum(held),
        sampling=f"{asked} of {federation.clients} clients without replacement in each round; batches of "
        f"{federation.batch_size} without replacement",
        touches=1
        if federation.algorithm == "fedsgd"
        else touches_per_round(
            local_epochs=federation.local_epochs,
            local_steps=federation.local_steps,
            steps_per_epoch=-(-fewest // min(federation.batch_size, fewest)),
        ),
    )
    aggregation = next((d for d in scenario.protocol if isinstance(d, SecureAggregation)), None)
    if any(isinstance(d, Homomorphic) and _hides(d) for d in scenario.protocol):
        stated = replace(stated, observer="the server, on one client's update, should its ciphertext be opened")
    if aggregation is None:
        return Guarantee(stated)
    stated = replace(stated, observer="the server, on one client's update, should its masks fail")
    summed = [len(row["answered"]) for row in history if row.get("answered")]
    if defence.level == "example" or not summed:
        return Guarantee(stated)  # noise inside local steps does not simply add up over clients
    return Guarantee(
        stated,
        observers(
            defence,
            aggregation,
            releases=stated.releases,
            cohort=asked,
            survivors=min(summed),
            colluders=scenario.adversary.colluders,
            enforced=not any(str(row.get("lie") or "").endswith("update was read") for row in history),
        ),
    )


def _hides(encryption: Homomorphic) -> bool:
    """Whether the server can read nothing of a client's ciphertext, and nothing travels beside it."""
    return encryption.keys != "server_holds_key" and encryption.encrypted_fraction == 1
