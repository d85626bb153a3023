"""What clients can see of a crafted model: measured on each client beside the attack, and why one refuses to answer."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from flwr.app import ConfigRecord, Context, Message, RecordDict
from torch import nn

from attacks.detect import Finding, disagreement, examine
from fedsim.experiment import Experiment
from fedsim.seeds import derive
from fedsim.tasks import build_model
from strategies.client_checks import ClientChecks, agreement
from strategies.wire import digest

RECORD = "detection"
"""The record of ``Context.state`` that holds a client's findings: for the experimenter, in no message."""


def objection(experiment: Experiment, message: Message, context: Context, received: nn.Module) -> str | None:
    """Look at the ``received`` model as a client can, keep the findings for the experimenter, and say why this client
    does not answer; None where it does.

    Clients look where the protocol has checks; and where models are crafted, to tell what checks would have found.
    """
    scenario, round = experiment.scenario, cast(int, message.content.config_records["config"]["round"])
    checks = next((defence for defence in scenario.protocol if isinstance(defence, ClientChecks)), None)
    crafted = scenario.adversary.plant is not None and round in scenario.attacked_rounds
    if (checks is None and not crafted) or "arrays" not in message.content.array_records:
        return None
    client = int(context.node_config["partition-id"])
    findings = look(experiment, client, received, (checks or ClientChecks()).examples)
    context.state[RECORD] = ConfigRecord(
        {
            "round": round,
            "digest": digest(message.content.array_records["arrays"]),
            "findings": json.dumps([{**asdict(f), "suspicious": f.suspicious} for f in findings]),
        }
    )
    if checks is None:
        return None
    found = agreement(message, client)
    refused = checks.refusal([*([found] if found else []), *findings])
    return f"ModelRefused[{refused.signal}] at stage 'train', client {client}: {refused.says}" if refused else None


def look(experiment: Experiment, client: int, received: nn.Module, examples: int) -> tuple[Finding, ...]:
    """The signals of ``attacks.detect`` on a client's first ``examples``, beside a fresh model of the agreed kind.

    A client that holds one example compares it with itself, which is all that it can do.
    """
    task, dataset = experiment.scenario.task, experiment.dataset
    seed = derive(experiment.seed, "client", client, "trusted model")
    trusted = build_model(task.model, dataset, task.model_options, seed)
    inputs, labels = (tensor[:examples] for tensor in experiment.client_data(client))
    if len(inputs) == 1:
        inputs, labels = (tensor.repeat(2, *[1] * (tensor.ndim - 1)) for tensor in (inputs, labels))
    return examine(received, trusted, inputs, labels, experiment.loss_name)


class Detections:
    """Collects the findings of every round's clients; what all of them saw is one row a round and signal."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def note(self, round: int, clients: Sequence[int], states: Mapping[int, RecordDict]) -> None:
        """Take in what the clients asked in the round that just ended found in it."""
        held = {c: states[c].config_records[RECORD] for c in clients if RECORD in states[c].config_records}
        mine = {client: record for client, record in held.items() if record["round"] == round}
        if not mine:
            return
        hashes = disagreement({client: str(record["digest"]) for client, record in mine.items()})
        shared = {**asdict(hashes), "suspicious": hashes.suspicious}
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        found["model_hash"] = [shared] * len(mine)
        for record in mine.values():
            for finding in json.loads(str(record["findings"])):
                found[finding["signal"]].append(finding)
        for findings in found.values():
            most = max(findings, key=lambda finding: (finding["suspicious"], finding["value"]))
            alarmed = sum(finding["suspicious"] for finding in findings)
            self.rows.append({"round": round, **most, "alarmed": alarmed, "clients": len(findings)})
