"""What a deployed model gives away through whole scenarios: inversion per access level, and every control in one table.

``pytest -m slow -s`` prints the tables. Seeds fixed beforehand; no constant was chosen on them.
"""

import numpy as np
import pytest
import torch

from attacks import Knowledge, Oracle, Targets, infer
from attacks.rates import rates
from fedsim import (
    Adversary,
    Attack,
    ClientDP,
    Deployment,
    Federation,
    Noise,
    Rounding,
    Scenario,
    Task,
    Temperature,
    run,
)
from fedsim.client import holdings
from fedsim.experiment import Experiment
from fedsim.regularisation import Regularisation
from fedsim.selection import Selection
from fedsim.store import RunFolder, load_training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SEEDS = range(100, 105)
FEW = {
    "algorithm": "fedavg", "clients": 4, "rounds": 15, "batch_size": 8, "local_epochs": 5, "learning_rate": 0.1,
    "examples_per_client": 30,
}  # fmt: skip
"""So few examples, so often, that the model remembers them."""
DIGITS = {"dataset": "digits", "model": "mlp", "test_fraction": 0.7, "public_fraction": 0.1}
MEMBERS = ["loss_membership", "model_inversion_white_box"]
CONTROLS = {
    "none": {},
    "weight decay .01": {"federation": Federation(**FEW, regularisation=Regularisation(weight_decay=0.01))},
    "label smoothing .2": {"federation": Federation(**FEW, regularisation=Regularisation(label_smoothing=0.2))},
    "dropout .5": {"task": Task(**DIGITS, model_options={"dropout": 0.5})},
    "10 % outliers left out": {"task": Task(**DIGITS, selection=Selection(outliers=0.1))},
    "client DP, z = .3": {"protocol": [ClientDP(clip=1.0, noise_multiplier=0.3)]},
}
LONG = {**FEW, "rounds": 60, "learning_rate": 0.3, "examples_per_client": 60}
"""So long that the loss on public data rises again; settled on seeds 7 and 8."""
COPIED = {
    "none": (None, Selection()),
    "early stop after 1 round": (1, Selection()),
    "duplicates left out": (None, Selection(duplicates=0.0)),
    "both": (1, Selection(duplicates=0.0)),
}
"""What acts where there is something to act on: training that goes on too long, records that a client holds often."""
ANSWERS = {
    "none": (),
    "noise .1": (Noise(0.1),),
    "rounding to .1": (Rounding(1),),
    "temperature 10": (Temperature(10.0),),
    "noise .1, rounding to .1": (Noise(0.1), Rounding(1)),
}


def told(out, attacks, **more):
    """Rows by attack, and each seed's release, of one scenario over all seeds."""
    fields = {"task": Task(**DIGITS), "federation": Federation(**FEW), "adversary": Adversary(knows=["value_range"])}
    result = run(Scenario(name="deployed", attacks=attacks, seeds=SEEDS, audit=False, **{**fields, **more}), out)
    assert not result.problems
    releases = [cell["releases"][0] for cell in result.cells]
    return {row["attack"]: row for row in result.results["inference_summary"]}, releases


def said(row):
    figure = row["figures"].get(row["headline"])
    return f"{figure['value']:.3f} [{figure['low']:.2f}, {figure['high']:.2f}]" if figure else str(row["statuses"])


@pytest.mark.parametrize("control", CONTROLS)
def test_controls_on_training_and_data(tmp_path, control):
    rows, releases = told(tmp_path / "run", MEMBERS, **CONTROLS[control])
    accuracy, gap = (np.mean([release[key] for release in releases]) for key in ("accuracy", "gap"))
    print(
        f"\n{control}: accuracy {accuracy:.3f}, gap {gap:+.3f}", *(f"{name} {said(row)}" for name, row in rows.items())
    )
    assert control != "none" or rows["loss_membership"]["told"]


def planted(place, seed):
    """The digits with copies in clients' hands alone: of each class a client keeps the first half of its records, and
    holds the first of these in place of every other one. No label moves, so that nor does the split."""
    plain = Experiment(Scenario(name="plain", task=Task(**DIGITS), federation=Federation(**LONG), seeds=[seed]))
    inputs, often = plain.dataset.inputs.clone(), []
    for own in plain.division.clients:
        held = holdings(own, plain.scenario.federation)
        for label in range(10):
            mine = held[plain.dataset.labels[held] == label]
            if len(others := mine[(len(mine) + 1) // 2 :]):
                inputs[others] = inputs[mine[0]].clone()
                often.append(int(mine[0]))
    np.savez(place, x=inputs.numpy(), y=plain.dataset.labels.numpy())
    return plain.dataset.inputs[often], plain.dataset.labels[often]


def told_of_copied(scenario, out, records, labels):
    """The area under the curve of the loss on the records that were held often, beside held-out ones."""
    cell = scenario.cells()[0]
    experiment = Experiment(cell.scenario)
    training = load_training(RunFolder.open(out, scenario).cell(cell.digest))
    model = experiment.initial_model()
    model.load_state_dict(dict(training.state))
    others = experiment.test_data()
    asked = Targets(torch.cat([records, others[0]]), torch.cat([labels, others[1]]))
    oracle = Oracle(model, num_classes=10, access="confidences")
    scores = infer("loss_membership", oracle, Knowledge((1, 8, 8), 10), targets=asked).scores
    area = rates(scores[: len(labels)], scores[len(labels) :], ()).auc
    return len(training.history) - 1, experiment.left_out(), (area.value, area.low, area.high)


@pytest.mark.parametrize("control", COPIED)
def test_controls_that_need_something_to_act_on(tmp_path, control):
    early, selection = COPIED[control]
    federation = Federation(**LONG, regularisation=Regularisation(early_stop=early))
    figures, ended, left = [], [], []
    for seed in SEEDS:
        data, out = tmp_path / f"{seed}.npz", tmp_path / f"run-{seed}"
        copied = planted(data, seed)
        scenario = Scenario(
            name="deployed", task=Task(**{**DIGITS, "dataset": str(data)}, selection=selection), federation=federation,
            adversary=Adversary(knows=["value_range"]), attacks=MEMBERS, seeds=[seed],
        )  # fmt: skip
        result = run(scenario, out)
        rows = {row["attack"]: row["figures"][row["headline"]] for row in result.results["inference_summary"]}
        rounds, kept, area = told_of_copied(scenario, out, *copied)
        each = [[rows[attack][end] for end in ("value", "low", "high")] for attack in MEMBERS]
        release = result.cells[0]["releases"][0]
        figures.append([release["accuracy"], release["gap"], *each[0], *area, *each[1]])
        ended.append(rounds)
        left.append(kept["duplicates"])
    accuracy, gap, *rest = np.mean(figures, axis=0)
    said = [f"{v:.3f} [{low:.2f}, {high:.2f}]" for v, low, high in np.reshape(rest, (3, 3))]
    print(
        f"\n{control}: {np.mean(ended):.0f} rounds {ended}, {np.mean(left):.0f} of 240 left out, accuracy "
        f"{accuracy:.3f}, gap {gap:+.3f}, AUC {said[0]}, of those held often {said[1]}, judged {said[2]}"
    )
    assert all((rounds < LONG["rounds"]) == (early is not None) for rounds in ended)
    assert all((copies > 0) == (selection.duplicates is not None) for copies in left)


@pytest.mark.parametrize("controls", ANSWERS)
def test_controls_on_answers(tmp_path, controls):
    deployed = Deployment(access="confidences", controls=ANSWERS[controls])
    attacks = ["loss_membership", "model_inversion_confidences", "model_extraction"]
    rows, releases = told(tmp_path / "run", attacks, deployment=deployed)
    served = np.mean([release["served"] for release in releases])
    print(f"\n{controls}: as served {served:.3f}", *(f"{name} {said(row)}" for name, row in rows.items()))
    assert controls != "none" or rows["model_inversion_confidences"]["told"]


@pytest.mark.parametrize("access", ["white_box", "confidences", "top_k", "rounded", "label_only"])
@pytest.mark.parametrize("dataset", ["digits", "faces"])
def test_inversion_at_each_access_level(tmp_path, dataset, access):
    kinds = {"white_box": "model_inversion_white_box", "label_only": "model_inversion_labels"}
    attack = kinds.get(access, "model_inversion_confidences")
    rows, releases = told(
        tmp_path / "run",
        [Attack(name=attack, targets=3)],
        task=Task(dataset=dataset, model="softmax", test_fraction=0.4, public_fraction=0.1),
        federation=Federation(algorithm="fedavg", clients=4, rounds=10, batch_size=16, learning_rate=0.1),
        deployment=Deployment(access=access),
    )
    accuracy = np.mean([release["accuracy"] for release in releases])
    row = rows[attack]
    print(f"\n{dataset}, {access}: accuracy {accuracy:.2f}, judged {said(row)}, {row['queries']:.0f} queries")
    assert dataset != "digits" or access != "white_box" or row["figures"]["judged"]["value"] >= 0.8
