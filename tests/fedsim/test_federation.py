"""The honest federation, against hand-written gradient descent."""

import pytest
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedsim import ClientDP, Federation, Scenario, Task
from fedsim.apps import client_app
from fedsim.client import batches
from fedsim.experiment import Experiment
from fedsim.federation import TrainingFailed, cohort, federate, roll_call
from fedsim.grids import InlineGrid
from fedsim.truth import truth_of
from strategies.recorder import RecordingGrid


def experiment(**federation):
    task = {"dataset": "digits", "model": "softmax"}
    return Experiment(Scenario(name="x", task=task, federation=Federation(**{"clients": 3, **federation})))


def trained(made, app=client_app):
    grid = InlineGrid(app, made.scenario.federation.clients, {"scenario": made.scenario.model_dump_json()})
    return federate(grid, made, roll_call(grid, made.scenario.federation.clients))


@pytest.mark.parametrize("weighted", [True, False])
def test_one_fedsgd_round_is_one_step_on_the_mean_gradient(weighted):
    made = experiment(batch_size=5, learning_rate=0.5, weighted=weighted)
    model = made.initial_model().train()
    gradients, sizes = [], []
    for client in range(3):
        truth = truth_of(made, 1, client)
        loss = F.cross_entropy(model(truth.inputs), truth.labels)
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
        sizes.append(len(truth.labels) if weighted else 1)
    state = trained(made).state
    for index, (name, start) in enumerate(model.named_parameters()):
        mean = sum(size * g[index] for size, g in zip(sizes, gradients, strict=True)) / sum(sizes)
        torch.testing.assert_close(state[name], (start - 0.5 * mean).detach(), rtol=1e-4, atol=1e-6)


def test_fedavg_with_one_client_is_plain_sgd():
    made = experiment(clients=1, algorithm="fedavg", batch_size=100, local_epochs=2, learning_rate=0.2)
    inputs, labels = made.client_data(0)
    model = made.initial_model().train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.2)
    for step in batches(len(labels), made.scenario.federation, made.seed, 1, 0):
        optimiser.zero_grad()
        F.cross_entropy(model(inputs[step]), labels[step]).backward()
        optimiser.step()
    state = trained(made).state
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(state[name], parameter.detach(), rtol=1e-4, atol=1e-6)


def test_fedavg_learns():
    history = trained(experiment(algorithm="fedavg", batch_size=16, rounds=3, learning_rate=0.5)).history
    assert history[0]["accuracy"] < 0.3
    assert history[-1]["accuracy"] > 0.8


def test_epochs_visit_every_example_once():
    made = experiment(algorithm="fedavg", batch_size=7, local_epochs=2)
    steps = batches(30, made.scenario.federation, 0, 1, 0)
    first, second = torch.cat(steps[:5]), torch.cat(steps[5:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(30))
    assert first.tolist() != second.tolist()


def test_cohorts_are_drawn_from_the_seed_and_vary_by_round():
    scenario = Scenario(name="x", federation=Federation(clients=50, cohort=5, rounds=9))
    drawn = [tuple(cohort(scenario, 0, r)) for r in range(1, 10)]
    assert drawn == [tuple(cohort(scenario, 0, r)) for r in range(1, 10)]
    assert len(set(drawn)) == 9
    assert all(len(set(c)) == 5 for c in drawn)


def test_dropouts_are_recorded_and_left_out():
    history = trained(experiment(clients=10, dropout=0.4, rounds=4)).history
    dropped = [client for row in history[1:] for client in row["dropped"]]
    assert 4 <= len(dropped) <= 28
    assert all(sorted(row["dropped"] + row["answered"]) == row["cohort"] for row in history[1:])


def misbehaving(reply_for):
    app = ClientApp()

    @app.query("partition")
    def partition(message, context):
        return client_app(message, context)

    @app.train()
    def train(message, context):
        return reply_for(context.node_config["partition-id"], message, lambda: client_app(message, context))

    return app


def test_a_client_that_raises_is_named_and_never_averaged_in():
    def reply(client, message, honest):
        if client == 1:
            raise RuntimeError("disk on fire")
        return honest()

    row = trained(experiment(), misbehaving(reply)).history[1]
    assert row["answered"] == [0, 2]
    assert "disk on fire" in row["failed"]["1"]


def test_a_nan_is_named_and_never_averaged_in():
    def reply(client, message, honest):
        answer = honest()
        if client == 2:
            broken = {n: t * float("nan") for n, t in answer.content["update"].to_torch_state_dict().items()}
            content = RecordDict({"update": ArrayRecord(broken), "metrics": answer.content["metrics"]})
            return Message(content, reply_to=message)
        return answer

    result = trained(experiment(), misbehaving(reply))
    assert "not finite" in result.history[1]["failed"]["2"]
    assert all(torch.isfinite(tensor).all() for tensor in result.state.values())


def test_a_round_without_clients_ends_the_training():
    def reply(client, message, honest):
        return Message(Error(7, "gone home"), reply_to=message)

    with pytest.raises(TrainingFailed, match="round 1.*gone home"):
        trained(experiment(), misbehaving(reply))


def test_divergence_is_named():
    made = Experiment(
        Scenario(
            name="x",
            task=Task(dataset="digits", model="mlp"),
            federation=Federation(clients=2, rounds=9, algorithm="fedavg", batch_size=8, learning_rate=1e8),
        )
    )
    with pytest.raises(TrainingFailed, match="diverged|not finite"):
        trained(made)


def test_a_federation_with_too_few_nodes_is_refused():
    made = experiment()
    grid = InlineGrid(client_app, 2, {"scenario": made.scenario.model_dump_json()})
    with pytest.raises(TrainingFailed, match="2 nodes.*3 clients"):
        roll_call(grid, 3)


def test_noise_differs_by_client_and_round_and_repeats_with_the_seed():
    scenario = Scenario(
        name="x",
        task={"dataset": "digits", "model": "softmax"},
        federation=Federation(clients=2, rounds=2, learning_rate=1e-9),
        protocol=[ClientDP(noise_multiplier=5.0)],
    )
    first, second = trained(Experiment(scenario)), trained(Experiment(scenario))
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)
    assert first.history == second.history


def test_metrics_travel_with_every_update():
    made = experiment(batch_size=4)
    grid = InlineGrid(client_app, 3, {"scenario": made.scenario.model_dump_json()})
    seen = []
    send = grid.send_and_receive
    grid.send_and_receive = lambda messages, timeout=None: seen.extend(r := send(messages)) or r
    federate(grid, made, {0: 1, 1: 2, 2: 3})
    assert all(isinstance(reply.content["metrics"], MetricRecord) for reply in seen)
    assert [reply.content["metrics"]["num-examples"] for reply in seen] == [4, 4, 4]


class Partly(torch.nn.Module):
    """A frozen layer, a trained one, and one that nothing uses."""

    def __init__(self):
        super().__init__()
        self.fixed, self.head, self.spare = torch.nn.Linear(64, 16), torch.nn.Linear(16, 10), torch.nn.Linear(3, 3)
        self.fixed.requires_grad_(False)

    def forward(self, x):
        return self.head(torch.relu(self.fixed(x.flatten(1))))


@pytest.mark.parametrize("protocol", [[], [ClientDP(level="example", clip=1.0, noise_multiplier=0.0)]])
@pytest.mark.parametrize("algorithm", ["fedsgd", "fedavg"])
def test_frozen_and_unused_parameters_stay_as_they_were(algorithm, protocol):
    made = Experiment(
        Scenario(
            name="x",
            task=Task(dataset="digits", model="tests.fedsim.test_federation:Partly"),
            federation=Federation(clients=2, algorithm=algorithm, batch_size=4, learning_rate=0.5),
            protocol=protocol,
        )
    )
    before, after = made.initial_model().state_dict(), trained(made).state
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}
    grid = InlineGrid(client_app, 2, {"scenario": made.scenario.model_dump_json()})
    recorder = RecordingGrid(grid)
    federate(recorder, made, roll_call(recorder, 2))
    view = recorder.view(made.initial_model())
    (update, _) = view.updates
    assert set(update.arrays) == {"head.weight", "head.bias", "spare.weight", "spare.bias"}
