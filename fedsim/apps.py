"""The only Flower glue: the ClientApp and ServerApp that every engine runs, ``flwr run .`` included."""

import time
from pathlib import Path
from typing import cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from attacks.losses import LOSSES
from fedsim.client import GradientOf, batches, local_update, plain_gradient
from fedsim.evidence import EvidenceLog, measured
from fedsim.experiment import Experiment, experiment_from_config
from fedsim.federation import federate, roll_call
from fedsim.seeds import derive, torch_generator
from fedsim.store import RunFolder, save_training
from strategies.base import ClientContext
from strategies.client_mod import defence_mod, evidence_of
from strategies.federated import DROPPED_OUT
from strategies.recorder import RecordingGrid
from strategies.stack import Stack


def _stack_of(context: Context) -> Stack:
    return Stack(experiment_from_config(context.run_config).scenario.protocol)


def _noise_of(message: Message, context: Context, purpose: str) -> torch.Generator:
    """A client's own generator; its seed reaches clients through the run's configuration, never through a message."""
    round, client = _round(message), int(context.node_config["partition-id"])
    seed = experiment_from_config(context.run_config).seed
    return torch_generator(seed, "round", round, "client", client, purpose)


def _round(message: Message) -> int:
    return cast(int, message.content.config_records["config"]["round"])


def _gradient_of(experiment: Experiment, message: Message, context: Context) -> GradientOf:
    """Autograd's gradient, or that of the defence which acts inside the local update."""
    private = _stack_of(context).local_gradient
    if private is None:
        return plain_gradient(LOSSES[experiment.loss_name])
    kind, gradient = private
    loss, expected = LOSSES[experiment.loss_name], experiment.scenario.federation.batch_size
    own = ClientContext(
        _round(message),
        int(context.node_config["partition-id"]),
        _noise_of(message, context, kind),
        evidence_of(context),
    )
    return lambda model, inputs, labels: gradient(model, loss, inputs, labels, expected, own)


client_app = ClientApp()


@client_app.train(mods=[defence_mod(_stack_of, _noise_of)])
def train(message: Message, context: Context) -> Message:
    """One client's round: load what it holds, train from the weights received, answer with the update."""
    started = time.process_time()
    experiment = experiment_from_config(context.run_config)
    federation, seed = experiment.scenario.federation, experiment.seed
    round, client = _round(message), int(context.node_config["partition-id"])
    chance = torch.rand((), generator=torch_generator(seed, "round", round, "client", client, "dropout"))
    if float(chance) < federation.dropout:
        return Message(Error(DROPPED_OUT, "dropped out"), reply_to=message)
    model = experiment.initial_model()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    inputs, labels = experiment.client_data(client)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "round", round, "client", client, "dropout layers"))
        trained = local_update(
            model,
            inputs,
            labels,
            batches(len(labels), federation, seed, round, client),
            federation,
            LOSSES[experiment.loss_name],
            _gradient_of(experiment, message, context),
        )
    content = RecordDict(
        {
            "update": ArrayRecord(trained.update),
            "metrics": MetricRecord({"num-examples": trained.num_examples, "train_loss": trained.loss}),
        }
    )
    if trained.buffers:
        content["buffers"] = ArrayRecord(trained.buffers)
    context.state["timings"] = MetricRecord({"train_cpu_seconds": time.process_time() - started})
    return Message(content, reply_to=message)


@client_app.query("partition")
def partition(message: Message, context: Context) -> Message:
    """Say which partition this node holds: Flower's node ids do not tell."""
    held = ConfigRecord({"id": int(context.node_config["partition-id"])})
    return Message(RecordDict({"partition": held}), reply_to=message)


server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Train over the grid that Flower gives; leave the server's view in the folder ``out``, for ``fedsim attack``."""
    experiment = experiment_from_config(context.run_config)
    scenario = experiment.scenario
    recorder = RecordingGrid(grid, keep=scenario.attacked_rounds.__contains__)
    nodes = roll_call(recorder, scenario.federation.clients)
    recorder.partition_of = {node: client for client, node in nodes.items()}.__getitem__
    training = federate(recorder, experiment, nodes)
    if out := str(context.run_config.get("out", "")):
        view = recorder.view(experiment.initial_model())
        place = RunFolder.open(Path(out), scenario).cell(scenario.digest)
        save_training(place, experiment, training, view, measured(None, view, EvidenceLog(), {}))
