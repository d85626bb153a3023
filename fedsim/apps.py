"""The only Flower glue: the ClientApp and ServerApp that every engine runs, ``flwr run .`` included."""

from pathlib import Path
from typing import cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedsim.client import GradientOf, batches, local_update, plain_gradient
from fedsim.detection import objection
from fedsim.encryption import colludes, deploy
from fedsim.evidence import EvidenceLog, measured
from fedsim.experiment import Experiment, experiment_from_config
from fedsim.federation import federate, recording, roll_call
from fedsim.regularisation import decayed, dropout_seen, smoothing_added
from fedsim.seeds import derive, torch_generator
from fedsim.store import RunFolder, save_training
from fedsim.vantage import Run, adversary_view
from strategies.base import ClientContext
from strategies.client_mod import defence_mod, evidence_of
from strategies.clock import round_of, timed
from strategies.federated import DROPPED_OUT
from strategies.flower_client import FlowerSecAggClient
from strategies.he_client import HomomorphicClient
from strategies.he_shares import ShareHolder
from strategies.homomorphic import Homomorphic
from strategies.malicious import announced_model
from strategies.sample import PLAIN, keep
from strategies.secagg_client import REFUSED, SecureAggregationClient
from strategies.secure_aggregation import SecureAggregation, flat
from strategies.stack import Stack


def _stack_of(message: Message, context: Context) -> Stack:
    """The protocol's stack; in the stages of one that hides updates itself, what comes before that."""
    stack = Stack(experiment_from_config(context.run_config).scenario.protocol)
    return stack.on_numbers if message.metadata.message_type.startswith(("train.sa_", "train.he_")) else stack


def _noise_of(message: Message, context: Context, purpose: str) -> torch.Generator:
    """A client's own generator; its seed reaches clients through the run's configuration, never through a message."""
    round, client = round_of(message), int(context.node_config["partition-id"])
    seed = experiment_from_config(context.run_config).seed
    return torch_generator(seed, "round", round, "client", client, purpose)


def _gradient_of(experiment: Experiment, message: Message, context: Context) -> GradientOf:
    """Autograd's gradient, or that of the defence which acts inside the local update."""
    private = _stack_of(message, context).local_gradient
    decay = experiment.scenario.federation.regularisation.weight_decay
    if private is None:
        return decayed(plain_gradient(experiment.training_loss), decay, evidence_of(context))
    kind, gradient = private
    loss, expected = experiment.training_loss, experiment.scenario.federation.batch_size
    own = ClientContext(
        round_of(message),
        int(context.node_config["partition-id"]),
        _noise_of(message, context, kind),
        evidence_of(context),
    )
    return decayed(
        lambda model, inputs, labels: gradient(model, loss, inputs, labels, expected, own), decay, evidence_of(context)
    )


def _drops_out(message: Message, context: Context) -> bool:
    """Whether the scenario's dropout takes this client out of this round."""
    experiment = experiment_from_config(context.run_config)
    round, client = round_of(message), int(context.node_config["partition-id"])
    generator = torch_generator(experiment.seed, "round", round, "client", client, "dropout")
    return float(torch.rand((), generator=generator)) < experiment.scenario.federation.dropout


def _leaves_at(message: Message, context: Context) -> str | None:
    """The stage of secure aggregation from which this client is silent in this round, if it drops out."""
    federation = experiment_from_config(context.run_config).scenario.federation
    return federation.dropout_stage if _drops_out(message, context) else None


def _secure_aggregation_of(context: Context) -> SecureAggregation:
    protocol = experiment_from_config(context.run_config).scenario.protocol
    return next(defence for defence in protocol if isinstance(defence, SecureAggregation))


def _homomorphic_of(context: Context) -> Homomorphic:
    protocol = experiment_from_config(context.run_config).scenario.protocol
    return next(defence for defence in protocol if isinstance(defence, Homomorphic))


def _colludes(context: Context) -> bool:
    return colludes(experiment_from_config(context.run_config).scenario, int(context.node_config["partition-id"]))


def train(message: Message, context: Context) -> Message:
    """One client's round: load what it holds, train from the weights received, answer with the update."""
    experiment = experiment_from_config(context.run_config)
    federation, seed = experiment.scenario.federation, experiment.seed
    round, client = round_of(message), int(context.node_config["partition-id"])
    if message.metadata.message_type == "train" and _drops_out(message, context):
        return Message(Error(DROPPED_OUT, "dropped out"), reply_to=message)
    model = announced_model(experiment.agreed_model(), message)
    inputs, labels = experiment.client_data(client)
    with timed(context, message, "train"), torch.random.fork_rng(devices=[]):
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        if reason := objection(experiment, message, context, model):
            return Message(Error(REFUSED, reason), reply_to=message)
        torch.manual_seed(derive(seed, "round", round, "client", client, "dropout layers"))
        steps, loss = batches(len(labels), federation, seed, round, client), experiment.training_loss
        gradient_of, measured = _gradient_of(experiment, message, context), evidence_of(context)
        smoothing_added(experiment.loss_name, loss, model, inputs[steps[0]], labels[steps[0]], measured)
        with dropout_seen(model, measured):
            trained = local_update(model, inputs, labels, steps, federation, loss, gradient_of)
    content = RecordDict(
        {
            "update": ArrayRecord(trained.update),
            "metrics": MetricRecord({"num-examples": trained.num_examples, "train_loss": trained.loss}),
        }
    )
    if trained.buffers:
        content["buffers"] = ArrayRecord(trained.buffers)
    return Message(content, reply_to=message)


def protected_train(message: Message, context: Context) -> Message:
    """``train`` behind the defences that act on plain numbers; a sample of its answer stays for the experimenter."""
    reply = defence_mod(_stack_of, _noise_of)(message, context, train)
    if not reply.has_error():
        update = dict(reply.content.array_records["update"].to_torch_state_dict())
        examples = cast(float, reply.content.metric_records["metrics"]["num-examples"])
        keep(context, PLAIN, round_of(message), flat(update), examples)
    return reply


client_app = ClientApp()
client_app.train()(protected_train)
SecureAggregationClient(protected_train, _secure_aggregation_of, _noise_of, _leaves_at, _colludes).register(client_app)
FlowerSecAggClient(protected_train, _secure_aggregation_of, _noise_of, _leaves_at).register(client_app)
HomomorphicClient(protected_train, _homomorphic_of, _noise_of, _drops_out, _colludes).register(client_app)
ShareHolder(_homomorphic_of, _drops_out).register(client_app)


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
    nodes = roll_call(grid, scenario.federation.clients)
    deployment = deploy(grid, experiment, nodes)
    recorder = recording(grid, scenario, nodes)
    training = federate(recorder, experiment, nodes, deployment=deployment)
    if out := str(context.run_config.get("out", "")):
        view = adversary_view(Run(experiment, recorder, training, deployment))
        place = RunFolder.open(Path(out), scenario).cell(scenario.digest)
        save_training(place, experiment, training, view, measured(None, view, EvidenceLog(), {}, training.protocol))
