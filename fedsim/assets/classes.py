"""What the classes look like, and the very inputs behind features that the deployment hands out."""

from collections.abc import Sequence

import numpy as np
import torch

from attacks import Claim, Knowledge, Targets
from attacks.features import features
from attacks.metrics import bootstrap_interval, cap, psnr
from fedsim.assets.case import Asset, Case, Figure, Key, Scored, share
from fedsim.evaluator import inversion_figures
from fedsim.held import joined, some, used
from fedsim.judge import judge_of
from fedsim.names import nearest
from fedsim.seeds import numpy_generator, torch_generator
from fedsim.tasks import TaskError

INSTANCES = 8
"""Records whose features are inverted where the scenario does not say."""


def _ask(case: Case) -> tuple[tuple[Targets, ...], Key]:
    """Every class that clients hold, ``targets`` times each."""
    assert case.model is not None
    held = joined(used(case.experiment, case.history, range(1, max(case.rounds) + 1)), case.experiment.test_data())
    labels = held[1].unique().repeat(case.attack.targets or 1)
    return (Targets(labels=labels),), {"labels": labels}


def _score(case: Case, know: Knowledge, key: Key, claims: Sequence[Claim]) -> Scored:
    """Judged by a model that the attacked one has nothing to do with; raises TaskError where there is none."""
    experiment, labels = case.experiment, key["labels"]
    assert case.model is not None
    claim = claims[0].inputs
    assert claim is not None
    judge = judge_of(experiment)
    private = joined(used(experiment, case.history, range(1, max(case.rounds) + 1)), experiment.test_data())
    found = inversion_figures(judge, case.model, claim, labels, private=private, public=know.public)
    baseline = found["baseline"]
    guess, name = baseline["chance"], "chance"
    if baseline.get("public_pick", 0.0) > guess:
        guess, name = baseline["public_pick"], "the public example that the model is surest of"
    figures = {
        "judged": share(judge.judged(claim, labels), guess, name),
        "convinced": _bare(found["convinced"], baseline["chance"], "chance"),
        "feature distance": _bare(
            found["feature_distance"], baseline.get("public_pick_feature_distance"), "the public example"
        ),
        "judge's accuracy": _bare(judge.accuracy, baseline["chance"], "chance"),
    }
    if experiment.dataset.modality != "image":
        return Scored(figures)
    pictures = {}
    for label in labels.unique().tolist():
        pictures[f"{label}/claim"] = claim[(labels == label).nonzero()[0, 0]]
        pictures[f"{label}/truth"] = private[0][private[1] == label].mean(0)
    return Scored(figures, pictures)


def _bare(value: float, guess: float | None, name: str) -> Figure:
    return {"value": value, "low": None, "high": None, "guess": guess, "guess_name": name if guess is not None else ""}


def _ask_features(case: Case) -> tuple[tuple[Targets, ...], Key]:
    """What the deployment's module makes of some of the clients' records; raises TaskError for no such module."""
    layer, experiment = case.experiment.scenario.deployment.features, case.experiment
    assert case.model is not None
    if layer is None:
        return (Targets(),), {}
    names = [name for name, _ in case.model.named_modules() if name]
    if layer not in names:
        raise TaskError("deployment.features", layer, "no module of the model", nearest(layer, names))
    held = joined(used(experiment, case.history, range(1, max(case.rounds) + 1)), experiment.test_data())
    draw = torch_generator(experiment.seed, "candidates", case.attack.name)
    inputs, _ = some(held, case.attack.targets or INSTANCES, draw)
    with torch.no_grad():
        given = features(case.model, layer, inputs)
    return (Targets(features=given, layer=layer),), {"inputs": inputs}


def _score_features(case: Case, know: Knowledge, key: Key, claims: Sequence[Claim]) -> Scored:
    """PSNR of each record's claim, beside the public mean's; the interval is over records."""
    experiment, truth, claim = case.experiment, key["inputs"], claims[0].inputs
    assert claim is not None
    mean = experiment.public_data()[0].mean(0, keepdim=True).expand_as(truth)
    own, guess = (cap(psnr(other, truth, experiment.dataset.value_range)) for other in (claim, mean))
    ends = bootstrap_interval(own, numpy_generator(experiment.seed, "bootstrap", case.attack.name), statistic=np.mean)
    figure = {"value": float(own.mean()), "low": ends[0], "high": ends[1], "guess": float(guess.mean()), "n": len(own)}
    return Scored({"psnr": {**figure, "guess_name": "the mean public record"}})


FEATURES = Asset("features", "psnr", _ask_features, _score_features)
CLASSES = Asset("classes", "judged", _ask, _score)
