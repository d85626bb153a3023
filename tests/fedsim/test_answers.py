"""Evidence that controls on answers were on: measured on the deployment's own oracle, lacking where they fail."""

import json

import pytest
import torch
from torch import nn

from attacks import Oracle
from attacks.controls import LabelOnly, Noise, Rounding, Temperature, TopK
from fedsim import Deployment, Federation, Scenario, Task, run
from fedsim.answers import probe
from fedsim.check import check
from fedsim.conclusions import SHOWN, evidence
from fedsim.policy import Policy
from fedsim.proof import proofs_of
from fedsim.report.proven import shown_on
from fedsim.report.reading import Results

CLASSES = 5
POLICY = Policy(schema_version=1, leakage=[{"asset": "membership", "at_most": 1.0}])
EVERY = Deployment(
    access="top_k", top=2, controls=[Temperature(3.0), Noise(0.05), Rounding(2)], query_budget=300
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    layer = nn.Linear(4, CLASSES)
    with torch.no_grad():
        layer.weight.copy_(3 * torch.randn((CLASSES, 4), generator=torch.Generator().manual_seed(0)))
        layer.bias.zero_()
    return layer


def probed(deployment, model):
    inputs = torch.rand((256, 4), generator=torch.Generator().manual_seed(1))
    return json.loads(json.dumps(probe(deployment, model, CLASSES, inputs, torch.Generator().manual_seed(2))))


def lacking(deployment, found):
    stated = {"protocol": [], "deployment": deployment.model_dump(mode="json")}
    return {proof.defence: proof.lacking for proof in proofs_of(stated, {}, {"deployment": found}) if not proof.shown}


def test_every_control_is_measured_where_it_works_in_the_chain(model):
    found = probed(EVERY, model)
    assert list(found["controls"]) == ["1 temperature", "2 noise", "3 rounding", "4 top_k"]
    got = {place: told["measured"] for place, told in found["controls"].items()}
    assert got["1 temperature"] == pytest.approx(3.0, rel=1e-3)
    assert got["2 noise"] == pytest.approx(0.05, rel=0.15)
    assert (got["3 rounding"], got["4 top_k"]) == (2, 2)
    assert found["query_budget"] == {"set": 300, "answered": 256, "one_more_refused": True}
    assert lacking(EVERY, found) == {}


@pytest.mark.parametrize("std", [0.001, 0.02, 0.1])
def test_noise_is_told_apart_from_half_and_twice_as_much(model, std):
    def noised(std):
        return Deployment(access="confidences", controls=[Noise(std)])

    assert lacking(noised(std), probed(noised(std), model)) == {}
    for other in (std / 2, 2 * std):
        found = probed(noised(other), model)
        found["controls"]["1 noise"]["set"] = std
        assert "was measured" in lacking(noised(std), found)["noise"][0]


@pytest.mark.parametrize(
    ("deployment", "measured"),
    [
        (Deployment(access="label_only"), {"1 label_only": 1}),
        (Deployment(access="confidences", controls=[LabelOnly()]), {"1 label_only": 1}),
        (Deployment(access="rounded", decimals=3), {"1 rounding": 3}),
        (Deployment(access="top_k"), {"1 top_k": 3}),
        (Deployment(access="confidences", controls=[Noise(0.0)]), {"1 noise": 0.0}),
        (Deployment(access="confidences", controls=[Temperature(0.5)]), {"1 temperature": pytest.approx(0.5)}),
        (Deployment(access="confidences", query_budget=0), {}),
    ],
)
def test_each_control_alone_is_shown(model, deployment, measured):
    found = probed(deployment, model)
    assert {place: told["measured"] for place, told in found["controls"].items()} == measured
    assert lacking(deployment, found) == {}


@pytest.mark.parametrize("control", [Temperature, Noise, Rounding, TopK, LabelOnly])
def test_a_control_that_does_nothing_is_lacking(model, monkeypatch, control):
    monkeypatch.setattr(control, "perturb", lambda self, confidences, generator: confidences)
    deployed = Deployment(
        access="label_only" if control is LabelOnly else "top_k",
        controls=[Temperature(3.0), Noise(0.05), Rounding(2)],
    )
    assert set(lacking(deployed, probed(deployed, model))) >= {control.__dataclass_fields__["kind"].default}


def test_an_oracle_that_drops_its_controls_or_its_budget_is_lacking(model, monkeypatch):
    sound = Oracle.__init__

    def without(self, answering, **options):
        sound(self, answering, **{**options, "controls": (), "budget": None})

    monkeypatch.setattr(Oracle, "__init__", without)
    found = lacking(EVERY, probed(EVERY, model))
    assert set(found) == {"temperature", "noise", "rounding", "top_k", "query_budget"}
    assert found["noise"] == ("what it does to answers was not measured",)
    assert found["query_budget"] == ("one query past 300 was not seen to be refused",)


def test_evidence_that_is_missing_or_failed_is_lacking():
    assert set(lacking(EVERY, None)) == {"temperature", "noise", "rounding", "top_k", "query_budget"}
    assert lacking(Deployment(access="label_only"), {"failed": "RuntimeError: no"}) == {
        "label_only": ("could not be measured (RuntimeError: no)",)
    }


def test_twins_are_each_measured_and_the_report_shows_it(tmp_path):
    compared = {"open": Deployment(), "labels": Deployment(access="label_only", query_budget=100), "every": EVERY}
    made = Scenario(
        name="measured",
        task=Task(dataset="digits", model="softmax", test_fraction=0.6),
        federation=Federation(clients=2, rounds=1, batch_size=8),
        attacks=["loss_membership"],
        compare={"deployment": compared},
    )
    result = run(made, tmp_path / "run")
    found = {c["labels"]["deployment"]: result.results["evidence"][c["digest"]]["deployment"] for c in result.cells}
    assert found["open"] == {}
    assert list(found["labels"]["controls"]) == ["1 label_only"]
    assert found["every"]["query_budget"]["one_more_refused"]
    read = Results(result.results)
    words = {dict(setting)["deployment"]: shown_on(read, p, setting).word for p, setting in read.combinations}
    assert words == {"open": "no defence", "labels": "shown", "every": "shown"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Controls on answers, measured on the service itself" in page
    assert "one more is refused" in page
    rulings = {ruling.rule: ruling.passed for ruling in check(result.results, POLICY)}
    assert rulings["evidence of noise"]
    assert evidence(result.results)["every: noise"] == SHOWN
    for cell in result.cells:
        result.results["evidence"][cell["digest"]]["deployment"] = None
    assert {shown_on(read, p, setting).word for p, setting in read.combinations} == {"no defence", "lacking"}
    rulings = {ruling.rule: ruling.passed for ruling in check(result.results, POLICY)}
    assert not rulings["evidence of noise"]
    assert evidence(result.results)["every: noise"] == "not shown: what it does to answers was not measured"
