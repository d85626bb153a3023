import json
import math

import pytest
import torch

import fedsim
from attacks import Knowledge, Observation, Oracle, Targets, infer, reconstruct
from attacks.losses import LOSSES
from fedsim import Attack, Federation, Scenario, Task
from fedsim.client import plain_gradient
from fedsim.experiment import Experiment
from fedsim.tasks import TaskError, accuracy_and_loss, build_model, load_dataset

UNIT = (0.0, 1.0)


def scenario(**changed):
    task = Task(dataset="digits", model="vae", loss="elbo", model_options={"latent": 4, "hidden": 32})
    federation = Federation(
        algorithm="fedavg", clients=2, rounds=2, batch_size=16, examples_per_client=32, learning_rate=0.01
    )
    return Scenario(name="generates", task=task, federation=federation, attacks=[Attack(name="analytic")], **changed)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    return fedsim.run(scenario(), out=tmp_path_factory.mktemp("vae"))


def test_a_scenario_trains_it_and_tells_its_loss_in_accuracys_place(ran):
    rows = json.loads((ran.out / "results.json").read_text())["cells"][0]["training"]
    assert [row["accuracy"] for row in rows] == [None] * 3
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert not ran.problems
    assert "has no accuracy" in (ran.out / "report.html").read_text()


def test_no_attack_is_credited_with_labels_that_it_does_not_train_on(ran):
    assert all(row["labels_right"] is None for row in ran.summary)


def test_one_step_of_it_gives_an_input_away_as_any_dense_layer_does():
    single = Federation(algorithm="fedsgd", clients=2, batch_size=1)
    found = Experiment(scenario().model_copy(update={"federation": single}))
    inputs, labels = found.client_data(0)
    model = found.initial_model()
    with torch.random.fork_rng(devices=[]):
        update = plain_gradient(LOSSES[found.loss_name])(model, inputs[:1], labels[:1])
    know = Knowledge((1, 8, 8), 10, batch_size=1, value_range=UNIT, loss="elbo")
    claim = reconstruct("analytic", Observation(model, update, "gradient"), know)
    torch.testing.assert_close(claim.inputs, inputs[:1], atol=1e-4, rtol=0)


def test_inference_runs_on_the_model_that_a_federation_builds():
    found = Experiment(scenario())
    inputs, _ = found.client_data(0)
    know = Knowledge((1, 8, 8), 10, value_range=UNIT, loss="elbo")
    oracle = Oracle(found.initial_model(), num_classes=10, access="white_box")
    assert infer("generative_membership", oracle, know, targets=Targets(inputs[:5])).scores.shape == (5,)


def test_evaluation_draws_nothing_and_training_draws_codes():
    data = Experiment(scenario()).dataset
    model = build_model("vae", data, {}, 0)
    x, y = data.inputs[:8], data.labels[:8]
    state = torch.get_rng_state()
    accuracy, loss = accuracy_and_loss(model, x, y, "elbo")
    assert math.isnan(accuracy)
    assert accuracy_and_loss(model, x, y, "elbo")[1] == loss
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize(("model", "loss"), [("vae", None), ("mlp", "elbo")])
def test_model_and_loss_that_do_not_belong_together_are_refused(model, loss):
    task = Task(dataset="digits", model=model, loss=loss)
    with pytest.raises(TaskError, match=r"task\.loss = 'elbo' for a generative model"):
        Experiment(scenario().model_copy(update={"task": task})).initial_model()


def test_text_is_refused():
    with pytest.raises(TaskError, match="takes numbers"):
        build_model("vae", load_dataset("messages", {}, 0), {}, 0)
