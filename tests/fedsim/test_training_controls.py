"""Controls on training and on the data that goes into it: each does what it says, and leaves a measurement of it."""

import pytest
import torch
from pydantic import ValidationError

from attacks.losses import LOSSES
from fedsim import Federation, Scenario, Task, run
from fedsim.experiment import Experiment
from fedsim.federation import federate
from fedsim.grids import open_grid
from fedsim.regularisation import Patience, Regularisation, decayed, training_loss
from fedsim.scenario import explain
from fedsim.selection import Selection, selected

FEDERATION = {"algorithm": "fedavg", "clients": 2, "rounds": 2, "batch_size": 10, "examples_per_client": 30}


def finished(**more):
    task = {"test_fraction": 0.5, **more.pop("task", {})}
    return Scenario(
        name="controls", task=Task(**task), federation=Federation(**{**FEDERATION, **more}), attacks=["loss_membership"]
    )


def test_each_control_is_measured_while_it_works(tmp_path):
    scenario = finished(
        task={"model_options": {"dropout": 0.5}, "selection": {"outliers": 0.1}},
        regularisation={"weight_decay": 0.1, "label_smoothing": 0.2},
    )
    result = run(scenario, tmp_path / "out")
    (evidence,) = result.results["evidence"].values()
    assert evidence["clients"]["dropout.zeroed"]["mean"] == pytest.approx(0.5, abs=0.1)
    assert evidence["clients"]["weight_decay.pull"]["min"] > 0
    assert evidence["clients"]["label_smoothing.loss_added"]["count"] == 4
    assert evidence["selection"] == {"held": 60, "duplicates": 0, "outliers": 6, "kept": 54}
    plain = run(finished(), tmp_path / "plain")
    (evidence,) = plain.results["evidence"].values()
    assert not any(name.split(".")[0] in ("dropout", "weight_decay") for name in evidence["clients"])
    assert evidence["selection"]["kept"] == 60


def trained(scenario):
    experiment = Experiment(scenario)
    grid = open_grid("inline", "fedsim.apps:client_app", 2, {"scenario": scenario.model_dump_json()})
    return federate(grid, experiment, {0: 1, 1: 2})


def test_weight_decay_shrinks_the_weights():
    size = {
        decay: sum(
            float(t.square().sum()) for t in trained(finished(regularisation={"weight_decay": decay})).state.values()
        )
        for decay in (0.0, 1.0)
    }
    assert size[1.0] < 0.8 * size[0.0]


def test_weight_decay_is_the_gradient_of_half_the_square():
    model, measured = torch.nn.Linear(3, 2), {}

    def slope(model, inputs, labels):
        return {name: torch.ones_like(p) for name, p in model.named_parameters()}

    found = decayed(slope, 0.5, measured)(model, None, None)
    assert torch.allclose(found["weight"], 1 + 0.5 * model.weight)
    norm = torch.cat([p.detach().flatten() for p in model.parameters()]).norm()
    assert measured["weight_decay.pull"] == pytest.approx(0.5 * float(norm), rel=1e-5)
    assert decayed(slope, 0.0, measured) is slope


def test_smoothing_is_torchs_and_off_is_the_loss_itself():
    outputs, labels = torch.randn((5, 4), generator=torch.Generator().manual_seed(1)), torch.arange(5) % 4
    smoothed = training_loss("cross_entropy", Regularisation(label_smoothing=0.3))(outputs, labels)
    assert smoothed == torch.nn.functional.cross_entropy(outputs, labels, label_smoothing=0.3)
    assert training_loss("cross_entropy", Regularisation()) is LOSSES["cross_entropy"]


def test_early_stop_ends_training_and_ships_the_model_that_there_is():
    assert [Patience(2).exhausted(loss) for loss in (1.0, 2.0)] == [False, False]
    patience = Patience(2)
    assert [patience.exhausted(loss) for loss in (1.0, 0.5, 0.6, 0.5, 0.1)] == [False, False, False, True, False]
    harsh = finished(rounds=30, learning_rate=2.0, local_epochs=5, regularisation={"early_stop": 1})
    ended = trained(harsh)
    assert len(ended.history) < 31
    assert all(torch.equal(ended.released[30][name], tensor) for name, tensor in ended.state.items())


def test_early_stop_needs_public_data():
    with pytest.raises(ValidationError) as caught:
        finished(task={"public_fraction": 0}, regularisation={"early_stop": 1})
    assert any("public data" in line for line in explain(caught.value))


def test_copies_and_strangers_are_left_out():
    draw = torch.Generator().manual_seed(2)
    inputs, labels = torch.rand((12, 1, 4, 4), generator=draw), torch.arange(12) % 2
    inputs[7], labels[7] = inputs[3], labels[3]
    inputs[8], labels[8] = inputs[2] + 0.001, labels[2]
    inputs[5] += 9
    kept, copies, strange = selected(inputs, labels, Selection(duplicates=0))
    assert (copies, strange) == (1, 0)
    assert 7 not in kept
    kept, copies, strange = selected(inputs, labels, Selection(duplicates=0.02, outliers=0.1))
    assert (copies, strange) == (2, 1)
    assert set(range(12)) - set(kept.tolist()) == {5, 7, 8}
    labels[7] = 1 - labels[3]
    assert 7 in selected(inputs, labels, Selection(duplicates=0))[0]
    assert torch.equal(selected(inputs, labels, Selection())[0], torch.arange(12))


def test_of_texts_only_exact_copies_are_left_out():
    tokens = torch.tensor([[1, 2, 3], [1, 2, 3], [1, 2, 4], [9, 9, 9]])
    kept, copies, strange = selected(tokens, tokens, Selection(duplicates=5.0, outliers=0.5))
    assert (kept.tolist(), copies, strange) == ([0, 2, 3], 1, 0)


def test_a_share_of_units_that_cannot_be_dropped_is_refused():
    from fedsim.tasks import TaskError

    with pytest.raises(TaskError, match="no share of units below 1"):
        Experiment(finished(task={"model_options": {"dropout": 1.0}})).initial_model()
