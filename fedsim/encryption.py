"""What homomorphic encryption changes around the round: keys before it, who can measure accuracy, what it proves."""

import statistics
from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp import Grid

from attacks import View
from crypto.he.errors import ThresholdUnavailableError
from crypto.he.presets import describe
from crypto.he.threshold import openfhe
from fedsim.client import carried_buffers, trainable
from fedsim.experiment import Experiment
from fedsim.parties import RECIPIENT, recipient_is_client
from fedsim.scenario import Scenario
from fedsim.sensitivity import sensitivity
from fedsim.tasks import TaskError
from strategies.federated import FederatedMean
from strategies.he_collusion import joint_view
from strategies.he_deployment import Deployment, all_alike, hand_out
from strategies.he_server import BlindMean, HomomorphicMean
from strategies.homomorphic import Homomorphic

WATCHED = 0
"""The client whose copy the experimenter opens to measure accuracy where the server holds no model."""


def encryption_of(scenario: Scenario) -> Homomorphic | None:
    """The protocol's homomorphic encryption, if it has one."""
    return next((defence for defence in scenario.protocol if isinstance(defence, Homomorphic)), None)


def require_installed(scenario: Scenario) -> None:
    """Raise TaskError where the key holder needs openfhe, and that cannot be imported."""
    defence = encryption_of(scenario)
    if defence is not None and defence.keys == "threshold":
        try:
            openfhe()
        except ThresholdUnavailableError as missing:
            remedy = "or choose another key holder"
            raise TaskError("protocol.keys", defence.keys, str(missing), remedy) from missing


def deploy(grid: Grid, experiment: Experiment, nodes: Mapping[int, int]) -> Deployment | None:
    """Hand out the keys that the protocol needs, over ``grid``, past the server and its record; None for no keys.

    Raises TaskError where the coordinates to encrypt cannot be chosen, HEError where a client takes no key.
    """
    federation, defence = experiment.scenario.federation, encryption_of(experiment.scenario)
    if defence is None:
        return None
    if 0 < defence.encrypted_fraction < 1:
        ranks = sensitivity(experiment, defence.sensitivity)
    else:
        ranks = all_alike(sum(p.numel() for p in trainable(experiment.initial_model()).values()))
    model = experiment.initial_model()
    beside = sum(model.state_dict()[name].numel() for name in carried_buffers(model))
    return hand_out(grid, nodes, defence, federation.cohort or federation.clients, ranks, beside)


def model_held(deployment: Deployment | None, strategy: FederatedMean, arrays: ArrayRecord) -> ArrayRecord:
    """The global model as its holder has it: the server's ``arrays``, or the watched client's copy.

    Raises HEError where that client cannot show it.
    """
    if not isinstance(strategy, BlindMean) or deployment is None:
        return arrays
    config = strategy.config(strategy.rounds[-1].round)
    return deployment.model_of(WATCHED, arrays, RecordDict({"config": config, **strategy.unseen(0)}))


def colluded(deployment: Deployment | None, scenario: Scenario, view: View) -> View:
    """The view that the adversary has: the server's, or what server and colluders read together."""
    defence = encryption_of(scenario)
    if deployment is None or defence is None or not scenario.adversary.colluders or not view.messages:
        return view
    if defence.holder.holder != "clients":
        return view
    accomplice = scenario.federation.clients - 1
    secret = deployment.secret_of(accomplice)
    return joint_view(view, secret, deployment.server, defence, scenario.attacked_rounds)


def colludes(scenario: Scenario, client: int) -> bool:
    """Whether a client gives the adversary what it holds: the last ones by number do, since attacks take their victims
    from the first.

    One holds the same key as all, so that further ones add nothing.
    """
    curious = int(scenario.adversary.kind == RECIPIENT and recipient_is_client(scenario))
    return client >= scenario.federation.clients - max(scenario.adversary.colluders, curious)


def protocol_evidence(strategy: FederatedMean) -> dict[str, Any]:
    """What a review has to know of the keys, and what the server's half measured; empty without encryption."""
    if not isinstance(strategy, HomomorphicMean):
        return {}
    defence, context, sealing = strategy.defence, strategy.keys.context, strategy.sealing
    chosen, clear = context.parameters, len(sealing.selection.clear)
    findings = list(defence.holder.findings(defence.scheme))
    if clear:
        findings.append(
            f"{clear:,} of {sealing.selection.size:,} coordinates of every client's update travel in clear"
            f"{', and its weight' if sealing.tells_weight else ''}: whoever sees a message reads them, key or no key."
        )
    holders: list[str] = [*defence.holder.holders(seeded=defence.seeded)]
    evidence = {
        "findings": findings,
        "parameters": describe(chosen),
        "security_bits": 128,
        "secret_key_at": holders or ["nobody, but a share at every client"],
        "server_holds_secret_key": strategy.keys.mistake is not None,
        "stated_error_of_a_sum": context.sum_error(),
        "rounding_step": sealing.rounding_step,
        "encrypted_parameters": len(sealing.selection.encrypted),
        "clear_parameters": clear,
    }
    if party := strategy.keys.decryptor:
        evidence["decryptor"] = {
            "bytes_in_per_round": statistics.fmean(party.bytes_in or [0]),
            "bytes_out_per_round": statistics.fmean(party.bytes_out or [0]),
            "cpu_seconds": party.cpu_seconds,
        }
    if isinstance(strategy, BlindMean):
        evidence["accuracy_measured_by"] = f"client {WATCHED}, whose copy is opened: the server holds no model"
    return evidence
