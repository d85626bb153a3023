"""Inversion of trained models at every access level, extraction, and attribute inference beside imputation.

``pytest -m slow -s`` prints the table. Seeds fixed beforehand; the attacks' constants were found on other splits.
"""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from attacks import ACCESS, Knowledge, Oracle, Targets, infer
from attacks.attribute_figures import g_mean, matthews, ppv_at
from attacks.controls import LabelOnly, Noise, Rounding, Temperature, TopK
from attacks.extraction import agreement
from attacks.features import features
from attacks.metrics import bootstrap_interval, psnr
from attacks.monitor import QueryLog, calibrate, false_alarms
from fedsim.attribute import attribute_targets
from fedsim.evaluator import inversion_figures, train_evaluator
from fedsim.seeds import torch_generator
from fedsim.tasks import split
from fedsim.tasks.models import accuracy_and_loss
from tests.known_results.ground import UNIT, build_model, load_dataset, row

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SEEDS = range(5)
NAMES = dict.fromkeys(ACCESS, "model_inversion_confidences") | {
    "white_box": "model_inversion_white_box",
    "label_only": "model_inversion_labels",
}
JUDGES = {"digits": 0.3, "faces": 0.4}
"""Share of the examples set aside to train the judge on."""


def trained(data, name, seed, inputs, labels, steps=600):
    """Model ``name`` after ``steps`` Adam steps on the private examples, and in evaluation mode."""
    model, generator = build_model(name, data, {}, seed), torch_generator(seed, "target")
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (64,), generator=generator)
        optimiser.zero_grad()
        F.cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
        optimiser.step()
    return model.eval().requires_grad_(False)


@functools.cache
def world(dataset, name, seed):
    """Data, its division, the attacked model, and a judge trained on examples that this model never saw."""
    data = load_dataset(dataset, {}, 0)
    parts = split(
        data, clients=1, kind="iid", options={}, test_fraction=JUDGES[dataset], public_fraction=0.2, seed=seed
    )
    private = parts.clients[0]
    model = trained(data, name, seed, data.inputs[private], data.labels[private])
    return data, parts, model, train_evaluator(data, parts.test, private, seed)


@functools.cache
def inverted(dataset, name, access, seed, public=False, controls=()):
    """Figures of one inversion of every class, three times each; ``public`` grants what it says, without labels."""
    data, parts, model, judge = world(dataset, name, seed)
    private = data.inputs[parts.clients[0]], data.labels[parts.clients[0]]
    granted = data.inputs[parts.public] if public else None
    know = Knowledge(data.input_shape, data.num_classes, value_range=UNIT, public=granted)
    labels = torch.arange(data.num_classes).repeat(3)
    oracle = Oracle(
        model, num_classes=data.num_classes, access=access, controls=controls, generator=torch_generator(seed, "noise")
    )
    claim = infer(NAMES[oracle.access], oracle, know, targets=Targets(labels=labels), seed=seed)
    figures = inversion_figures(judge, model, claim.inputs, labels, private=private, public=granted)
    return figures | {"queries": claim.queries / len(labels)}


def judged(*key, **options):
    return [inverted(*key, seed, **options)["judged"] for seed in SEEDS]


def means(figures):
    low, high = bootstrap_interval(figures, np.random.default_rng(0), statistic=np.mean)
    return f"{np.mean(figures):.2f} [{low:.2f}, {high:.2f}]"


@pytest.mark.parametrize("name", ["softmax", "mlp", "convnet"])
@pytest.mark.parametrize("dataset", ["digits", "faces"])
def test_inversion_at_every_access_level(dataset, name):
    chance = 0.1 if dataset == "digits" else 0.5
    for access in ACCESS:
        figures = [inverted(dataset, name, access, seed) for seed in SEEDS]
        distance = np.median([f["feature_distance"] for f in figures])
        queries = np.mean([f["queries"] for f in figures])
        convinced = np.mean([f["convinced"] for f in figures])
        beside = f"convinced {convinced:.2f}, distance {distance:.2f}, {queries:.0f} queries"
        row(f"{dataset}, {name}, {access}: judged ({beside})", judged(dataset, name, access), f"chance {chance}")
        print("   mean:", means(judged(dataset, name, access)))
        against = np.subtract(judged(dataset, name, "white_box"), judged(dataset, name, access))
        print("   white box gives more by:", means(against))
    assert all(judge >= 0.85 for judge in (world(dataset, name, seed)[3].accuracy for seed in SEEDS))
    if (dataset, name) == ("digits", "softmax"):
        assert np.mean(judged(dataset, name, "white_box")) >= 0.8


def test_public_data_of_the_classes_give_them_away_without_any_inversion():
    figures = [inverted("digits", "softmax", "white_box", seed, public=True) for seed in SEEDS]
    row("digits, softmax, white box with public data: judged", [f["judged"] for f in figures], "the row below")
    row("the public example that the model is surest of", [f["baseline"]["public_pick"] for f in figures], "-")
    assert np.mean([f["judged"] for f in figures]) >= 0.8


CONTROLS = {
    "none": (),
    "temperature 10": (Temperature(10.0),),
    "noise .1": (Noise(0.1),),
    "noise .3": (Noise(0.3),),
    "rounding to .1": (Rounding(1),),
    "top 1": (TopK(1),),
    "noise .1, rounding to .1": (Noise(0.1), Rounding(1)),
    "label only": (LabelOnly(),),
}


@pytest.mark.parametrize("what", CONTROLS)
def test_controls_and_what_they_cost(what):
    controls, kept = CONTROLS[what], []
    for seed in SEEDS:
        data, parts, model, _ = world("digits", "mlp", seed)
        service = Oracle(model, num_classes=10, controls=controls, generator=torch_generator(seed, "users"))
        kept.append(float((service.labels(data.inputs[parts.test]) == data.labels[parts.test]).double().mean()))
    figures = judged("digits", "mlp", "confidences", controls=controls)
    row(f"digits, mlp, control {what}: judged (accuracy left {np.mean(kept):.3f})", figures, "chance .1")
    assert what != "none" or np.mean(figures) > 0.5


def callers(model, images, count, seed):
    """Logs of honest callers: each asks about one to forty pictures of its own."""
    draw, logs = torch_generator(seed, "callers"), []
    for _ in range(count):
        logs.append(QueryLog())
        asked = torch.randperm(len(images), generator=draw)[: int(torch.randint(1, 41, (), generator=draw))]
        Oracle(model, num_classes=10, watch=logs[-1].record).labels(images[asked])
    return logs


def test_what_the_service_sees_of_each_attack():
    rates = []
    for seed in range(3):
        data = load_dataset("digits", {}, 0)
        order = torch.randperm(len(data), generator=torch_generator(seed, "order"))
        private, others = order[:900], order[900:]
        model = trained(data, "softmax", seed, data.inputs[private], data.labels[private])
        monitor = calibrate(callers(model, data.inputs[others[:450]], 300, seed), 0.05)
        rate, interval = false_alarms(monitor, callers(model, data.inputs[others[450:]], 300, 100 + seed))
        rates.append(rate)
        print(f"   seed {seed}: honest callers alarmed {rate:.3f} {interval}, thresholds {monitor.thresholds}")
        know, targets = Knowledge(data.input_shape, 10, value_range=UNIT), Targets(labels=torch.arange(10))
        for name, access in [*zip(NAMES.values(), NAMES, strict=True), ("model_extraction", "confidences")][1:]:
            log = QueryLog()
            oracle = Oracle(model, num_classes=10, access=access, watch=log.record)
            infer(name, oracle, know, targets=targets, seed=seed)
            signals = {signal: round(value, 3) for signal, value in monitor.signals(log).items()}
            print(f"   {name} at {access}: {signals}, alarms {[s for s, on in monitor.alarms(log).items() if on]}")
            assert monitor.alarms(log)["volume"]
    row("digits, softmax: share of honest callers on whom an alarm sounds", rates, "calibrated for .05")


@pytest.mark.parametrize("access", ["confidences", "rounded", "label_only"])
def test_extraction_and_inversion_of_the_stolen_model(access):
    agreed, accuracies, own, stolen = [], [], [], []
    for seed in SEEDS:
        data, parts, model, judge = world("digits", "mlp", seed)
        x, y = data.inputs[parts.test], data.labels[parts.test]
        know = Knowledge(data.input_shape, 10, value_range=UNIT)
        claim = infer(
            "model_extraction",
            Oracle(model, num_classes=10, access=access, budget=4000),
            know,
            targets=Targets(),
            seed=seed,
        )
        agreed.append(agreement(claim.model, x, model(x).argmax(1)))
        accuracies.append(accuracy_and_loss(claim.model, x, y, "cross_entropy")[0])
        own.append(accuracy_and_loss(model, x, y, "cross_entropy")[0])
        labels = torch.arange(10).repeat(3)
        copy = Oracle(claim.model, num_classes=10, access="white_box")
        shown = infer("model_inversion_white_box", copy, know, targets=Targets(labels=labels), seed=seed)
        stolen.append(float(judge.judged(shown.inputs, labels).double().mean()))
    row(f"digits, mlp, extraction from {access}, 4,000 queries: agreement", agreed, "majority class .1")
    row(f"the same, its accuracy from {access} (the attacked model: {np.mean(own):.3f})", accuracies, "-")
    row(f"white-box inversion of the model stolen from {access}: judged", stolen, "chance .1")
    assert np.mean(agreed) > 0.5


@pytest.mark.parametrize("layer", ["1", "3", "5", "7"])
def test_features_of_a_trained_convnet(layer):
    figures, guesses = [], []
    for seed in SEEDS:
        data, parts, model, _ = world("digits", "convnet", seed)
        images = data.inputs[parts.clients[0][:10]]
        know = Knowledge(data.input_shape, 10, value_range=UNIT)
        oracle = Oracle(model, num_classes=10, access="white_box")
        given = Targets(features=features(model, layer, images), layer=layer)
        figures.append(
            float(psnr(infer("feature_inversion", oracle, know, targets=given).inputs, images, UNIT).median())
        )
        mean = data.inputs[parts.public].mean(0).expand_as(images)
        guesses.append(float(psnr(mean, images, UNIT).median()))
    row(
        f"digits, convnet, features of module {layer}: median PSNR (dB)",
        figures,
        f"mean image {np.median(guesses):.1f}",
    )
    if layer == "1":
        assert np.median(figures) > np.median(guesses) + 10


ATTRIBUTES = {"breast_cancer": "mean texture", "wine": "malic_acid"}
ATTRIBUTE_ATTACKS = (
    "attribute_imputation",
    "attribute_map",
    "attribute_confidence",
    "attribute_label_only",
    "attribute_weighted",
)


def attribute(dataset, seed, members=True):
    """Each attack's figures (MCC, G-mean, PPV of the surest tenth) on the records that a model was trained on, or
    on records that it never saw."""
    data = load_dataset(dataset, {"sensitive": ATTRIBUTES[dataset]}, 0)
    parts = split(data, clients=1, kind="iid", options={}, test_fraction=0.2, public_fraction=0.3, seed=seed)
    held = parts.clients[0]
    model = trained(data, "mlp", seed, data.inputs[held], data.labels[held])
    targets, truth = attribute_targets(data, held if members else parts.test)
    know = Knowledge(
        data.input_shape,
        data.num_classes,
        public=data.inputs[parts.public],
        public_labels=data.labels[parts.public],
    )
    top, figures = max(1, len(truth) // 10), {}
    for name in ATTRIBUTE_ATTACKS:
        claim = infer(name, Oracle(model, num_classes=data.num_classes), know, targets=targets, seed=seed)
        figures[name] = matthews(claim.scores, truth), g_mean(claim.scores, truth), ppv_at(claim.scores, truth, top)
    return figures


@pytest.mark.parametrize("dataset", ATTRIBUTES)
def test_attribute_inference_beside_imputation(dataset):
    every = [attribute(dataset, seed) for seed in range(10)]
    guess = [figures["attribute_imputation"][0] for figures in every]
    for name in ATTRIBUTE_ATTACKS:
        mcc, gmean, ppv = zip(*(figures[name] for figures in every), strict=True)
        row(f"{dataset}, {ATTRIBUTES[dataset]}, {name}: MCC", mcc, "imputation")
        print(f"   G-mean {means(gmean)}, PPV of the surest tenth {means(ppv)}")
        print(f"   advantage over imputation in MCC {means(np.subtract(mcc, guess))}")
    strangers = [attribute(dataset, seed, members=False) for seed in range(10)]
    more = [figures["attribute_weighted"][0] - figures["attribute_imputation"][0] for figures in strangers]
    print("   attribute_weighted on records that the model never saw: advantage in MCC", means(more))
    assert np.mean(guess) > 0
