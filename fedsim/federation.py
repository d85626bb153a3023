"""The federation: the round, from cohort to accuracy, over any Flower grid."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray
from torch import Tensor, nn

from crypto.entropy import Entropy
from crypto.he import HEError
from fedsim.client import carried_buffers, trainable, update_kind
from fedsim.encryption import encryption_of, model_held, protocol_evidence
from fedsim.experiment import Experiment
from fedsim.lies import lies_told, muting, server_of
from fedsim.parties import EAVESDROPPER, RECIPIENT
from fedsim.planting import malicious_server
from fedsim.regularisation import Patience
from fedsim.scenario import Scenario
from fedsim.seeds import torch_generator
from fedsim.tasks import accuracy_and_loss
from strategies.client_checks import BulletinBoard, ClientChecks
from strategies.differencing import differenced
from strategies.federated import FederatedMean
from strategies.he_deployment import Deployment
from strategies.he_threshold import SERVERS
from strategies.ideal import IdealAggregation
from strategies.opened import Opened
from strategies.recorder import RecordingGrid
from strategies.secagg_server import enrol
from strategies.secure_aggregation import FLOWER, SecureAggregation
from strategies.stack import Stack

DIVERGED = 1e3
"""Training counts as diverged once the loss is so many times that of the untrained model, or not a number."""


class TrainingFailed(RuntimeError):
    """A run that cannot go on, with the round and the reason; it is named, and never scored as protection."""


@dataclass(frozen=True)
class Training:
    """How training went: one row a round (round 0 is the untrained model), and the final weights."""

    history: tuple[Mapping[str, Any], ...]
    state: Mapping[str, Tensor]
    opened: tuple[Opened, ...] = ()
    """What the protocol let the server read of hidden updates."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """What the server's side of the protocol proves by itself, for the evidence."""
    server_cpu: Mapping[str, float] = field(default_factory=dict)
    """CPU seconds of the server's side, stage by stage, over all rounds."""
    means: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    """Round -> a sample of the mean that the server got (``strategies.sample``)."""
    strategy: FederatedMean | None = field(default=None, repr=False, compare=False)
    """The server's side itself, for what other parties hold of it; it is not stored."""
    planted: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Round -> what the server planted in its models, as it must remember it to read the answers."""
    released: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    """Round -> the model's state after it, of the rounds after which the model itself is attacked."""


def federate(
    grid: Grid,
    experiment: Experiment,
    nodes: Mapping[int, int],
    on_round: Callable[[Mapping[str, Any]], None] = lambda row: None,
    deployment: Deployment | None = None,
) -> Training:
    """Train for the scenario's rounds over ``grid``; ``nodes`` maps partition ids to node ids.

    ``deployment`` holds the keys of a homomorphic protocol (``fedsim.encryption.deploy``).
    Raises TrainingFailed where no client can be used in a round or the model diverges.
    """
    scenario, model = experiment.scenario, experiment.initial_model()
    strategy = strategy_for(experiment, nodes, deployment)
    planter = malicious_server(experiment)
    arrays = ArrayRecord(dict(model.state_dict()))
    history, released = [{"round": 0, **_evaluate(model, experiment)}], dict[int, dict[str, Tensor]]()
    on_round(history[0])
    early = scenario.federation.regularisation.early_stop
    patience = Patience(early) if early is not None else None
    for round in range(1, scenario.federation.rounds + 1):
        try:
            if planter is None:
                moved, metrics = strategy.train_round(grid, round, arrays)
            else:
                moved, metrics = planter.train_round(strategy, grid, round, arrays)
            arrays = moved or arrays
            model.load_state_dict(model_held(deployment, strategy, arrays).to_torch_state_dict())
        except HEError as error:
            raise TrainingFailed(f"round {round}: {type(error).__name__}: {error}") from error
        record = asdict(strategy.rounds[-1])
        record["failed"] = {str(client): reason for client, reason in record["failed"].items()}
        if moved is None and record["aborted"] is None:
            raise TrainingFailed(f"round {round} ended without a usable client: {_reasons(record)}")
        row = {**record, **(metrics or {}), **_evaluate(model, experiment)}
        history.append(row)
        on_round(row)
        if round in scenario.released_rounds:
            released[round] = {name: t.clone() for name, t in model.state_dict().items()}
        stops = patience is not None and patience.exhausted(_public_loss(model, experiment))
        if not all(torch.isfinite(t).all() for t in model.state_dict().values()) or not (
            row["loss"] <= DIVERGED * max(1.0, history[0]["loss"])
        ):
            raise TrainingFailed(
                f"training diverged in round {round} (loss {row['loss']}); lower federation.learning_rate = "
                f"{scenario.federation.learning_rate:g} or the noise"
            )
        if stops:
            break
    state = {name: t.clone() for name, t in model.state_dict().items()}
    released |= {round: state for round in scenario.released_rounds if round not in released}
    protocol = {**protocol_evidence(strategy), **lies_told(strategy)}
    if planter is not None:
        protocol |= planter.evidence(strategy)
    isolated = differenced(strategy.opened) if scenario.adversary.across_rounds else []
    opened, spent = (*strategy.opened, *isolated), dict(strategy.clock.seconds)
    planted = dict(planter.planted) if planter else {}
    return Training(tuple(history), state, opened, protocol, spent, dict(strategy.means), strategy, planted, released)


def strategy_for(
    experiment: Experiment, nodes: Mapping[int, int], deployment: Deployment | None = None
) -> FederatedMean:
    """The server's side of the scenario's protocol.

    Raises TrainingFailed for a homomorphic protocol without keys.
    """
    scenario, seed, model = experiment.scenario, experiment.seed, experiment.initial_model()
    federation = scenario.federation
    gradients = update_kind(federation) == "gradient"
    rate = federation.server_learning_rate
    common: dict[str, Any] = {
        "kind": update_kind(federation),
        "stack": Stack(scenario.protocol),
        "cohort_of": lambda round: cohort(scenario, seed, round),
        "nodes": nodes,
        "step_size": -rate * federation.learning_rate if gradients else rate,
        "weighted": federation.weighted,
    }
    hidden: dict[str, Any] = {"parameters": list(trainable(model)), "buffers": carried_buffers(model)}
    if aggregation := aggregation_of(scenario):
        if aggregation.profile != FLOWER:
            hidden["ring_of"] = ring_of(seed)
        return server_of(scenario, aggregation, muting(experiment), **hidden, **common)
    if encryption := encryption_of(scenario):
        if deployment is None:
            raise TrainingFailed("a homomorphic protocol needs its keys: pass what fedsim.encryption.deploy returns")
        return SERVERS[encryption.keys](keys=deployment.server, **hidden, **common)
    return FederatedMean(**common)


def aggregation_of(scenario: Scenario) -> SecureAggregation | None:
    """The protocol's secure aggregation, if it has one."""
    return next((defence for defence in scenario.protocol if isinstance(defence, SecureAggregation)), None)


def recording(grid: Grid, scenario: Scenario, nodes: Mapping[int, int]) -> RecordingGrid:
    """``grid`` as the server is to use it: recorded, with a trusted adder or the clients' board where the protocol has
    one.

    Under secure aggregation the clients first get their key directory, past the server and its record.
    """
    aggregation = aggregation_of(scenario)
    if aggregation is not None:
        enrol(grid, nodes)
    clients = {node: client for client, node in nodes.items()}
    if any(isinstance(defence, ClientChecks) and defence.consistency for defence in scenario.protocol):
        grid = BulletinBoard(grid, clients)
    return RecordingGrid(
        _with_adder(grid, scenario),
        partition_of=clients.__getitem__,
        keep=_kept(scenario).__contains__,
    )


def _with_adder(grid: Grid, scenario: Scenario) -> Grid:
    aggregation = aggregation_of(scenario)
    if aggregation is None or aggregation.mode != "ideal":
        return grid
    return IdealAggregation(grid, aggregation.safeguards, ring_of(scenario.seeds[0]))


def ring_of(seed: int) -> Callable[[int], Entropy]:
    """Draws a round's masking graph, which the server may know but the scenario must repeat: it decides, with
    drop-outs, whether a sum opens."""

    def of_round(round: int) -> Entropy:
        generator = torch_generator(seed, "round", round, "masking graph")
        return lambda count: bytes(torch.randint(256, (count,), generator=generator).tolist())

    return of_round


def _kept(scenario: Scenario) -> Collection[int]:
    """The rounds of which the adversary needs the arrays; with a shared key it follows the model from the first on."""
    attacked, encryption = scenario.attacked_rounds, encryption_of(scenario)
    if scenario.adversary.kind == EAVESDROPPER:
        return attacked | {round + 1 for round in attacked}
    opens = scenario.adversary.colluders or scenario.adversary.kind == RECIPIENT
    follows = encryption is not None and opens and encryption.holder.holder == "clients"
    return range(1, max(attacked, default=0) + 1) if follows else attacked


def cohort(scenario: Scenario, seed: int, round: int) -> list[int]:
    """The clients asked in a round: drawn without replacement, known from the seed alone."""
    federation = scenario.federation
    drawn = torch.randperm(federation.clients, generator=torch_generator(seed, "round", round, "cohort"))
    return sorted(drawn[: federation.cohort or federation.clients].tolist())


def roll_call(grid: Grid, clients: int) -> dict[int, int]:
    """Ask every node which partition it holds: Flower's node ids are random, partitions are not."""
    messages = [
        Message(RecordDict(), dst_node_id=node, message_type="query.partition", group_id="0")
        for node in grid.get_node_ids()
    ]
    nodes: dict[int, int] = {}
    for reply in grid.send_and_receive(messages):
        if reply.has_error():
            raise TrainingFailed(f"a client could not start: {reply.error.reason}")
        nodes[cast(int, reply.content.config_records["partition"]["id"])] = reply.metadata.src_node_id
    if sorted(nodes) != list(range(clients)):
        raise TrainingFailed(
            f"the federation has {len(nodes)} nodes, the scenario {clients} clients; start as many nodes as clients"
        )
    return nodes


def _public_loss(model: nn.Module, experiment: Experiment) -> float:
    """What the server itself can measure, on data that nobody's privacy hangs on."""
    return accuracy_and_loss(model, *experiment.public_data(), experiment.loss_name)[1]


def _evaluate(model: nn.Module, experiment: Experiment) -> dict[str, float]:
    inputs, labels = experiment.test_data()
    accuracy, loss = accuracy_and_loss(model, inputs, labels, experiment.loss_name)
    return {"accuracy": accuracy, "loss": loss}


def _reasons(record: Mapping[str, Any]) -> str:
    parts = [f"client {client}: {reason}" for client, reason in record["failed"].items()]
    if record["dropped"]:
        parts.append(f"{len(record['dropped'])} dropped out")
    return "; ".join(parts) or "nobody was asked"
