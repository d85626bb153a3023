"""What a deployed model gives away through whole scenarios: inversion per access level, and every control in one table.

``pytest -m slow -s`` prints the tables. Seeds fixed beforehand; no constant was chosen on them.
"""

import numpy as np
import pytest

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
from fedsim.regularisation import Regularisation
from fedsim.selection import Selection

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
    "early stop after 1 round": {"federation": Federation(**FEW, regularisation=Regularisation(early_stop=1))},
    "near-duplicates left out": {"task": Task(**DIGITS, selection=Selection(duplicates=0.3))},
    "10 % outliers left out": {"task": Task(**DIGITS, selection=Selection(outliers=0.1))},
    "client DP, z = .3": {"protocol": [ClientDP(clip=1.0, noise_multiplier=0.3)]},
}
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
