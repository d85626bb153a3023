"""A sensitive attribute beside its imputation, and the model itself copied from its answers."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from attacks import Claim, Knowledge, Oracle, Targets, infer
from attacks.attribute_figures import g_mean, matthews, ppv_at
from attacks.metrics import bootstrap_interval
from fedsim.assets.case import Asset, Case, Figure, Key, Scored, share
from fedsim.attribute import attribute_targets
from fedsim.client import holdings
from fedsim.judge import judge_of
from fedsim.seeds import derive, numpy_generator, torch_generator
from fedsim.tasks import TaskError
from fedsim.tasks.models import accuracy_and_loss

TOP = 10
"""Records of which the attribute is claimed most, for the precision at the top."""

RAREST = ", rarest value"
"""Follows the name of a figure that is for two values where there are more: the one that fewest records asked about
have, against all others, since guessing the commonest never tells it."""


def _ask_attribute(case: Case) -> tuple[tuple[Targets, ...], Key]:
    """The sensitive column of records that clients hold; raises TaskError where there is none to infer, and where
    public records teach nothing of it, so that no figure would have its baseline."""
    experiment = case.experiment
    federation = experiment.scenario.federation
    held = torch.cat([holdings(own, federation) for own in experiment.division.clients])
    draw = torch_generator(experiment.seed, "candidates", case.attack.name)
    held = held[torch.randperm(len(held), generator=draw)][: case.attack.targets]
    targets, truth = attribute_targets(experiment.dataset, held)
    for whose, records, remedy in (
        ("public", experiment.division.public, "raise task.public_fraction"),
        ("clients'", held, "give clients more records"),
    ):
        if not len(records) or len(attribute_targets(experiment.dataset, records)[1].unique()) < 2:
            found = f"the same in all {len(records)}" if len(records) else "there are no"
            raise TaskError(
                "task.data_options.sensitive",
                experiment.dataset.sensitive,
                f"{found} {whose} records, which tell nothing of it",
                f"{remedy}, or declare a column that varies more",
            )
    return (targets,), {"targets": targets, "truth": truth}


def _score_attribute(case: Case, know: Knowledge, key: Key, claims: Sequence[Claim]) -> Scored:
    """Beside what public records alone tell of it, record by record (Jayaraman and Evans 2022)."""
    experiment, truth, scores = case.experiment, key["truth"], claims[0].scores.cpu().double()
    public, labels = experiment.public_data()
    base = Knowledge(know.input_shape, know.num_classes, public=public, public_labels=labels)
    assert case.model is not None
    silent = Oracle(case.model, num_classes=know.num_classes, access="label_only", budget=0)
    imputed = infer("attribute_imputation", silent, base, targets=key["targets"]).scores
    right, guessed = scores.argmax(1) == truth, imputed.argmax(1) == truth
    gained = (right.double() - guessed.double()).numpy()
    draw = numpy_generator(experiment.seed, "bootstrap", "attribute", case.attack.name)
    low, high = bootstrap_interval(gained, draw, statistic=np.mean)
    figures: dict[str, Figure] = {
        "advantage": {
            "value": float(gained.mean()), "low": low, "high": high, "guess": 0.0, "guess_name": "imputation",
            "n": len(truth),
        },
        "right": share(right, float(guessed.double().mean()), "imputation"),
    }  # fmt: skip
    several = scores.shape[1] > 2
    value = rarest(truth) if several else 1
    held, claimed, guesses = (truth == value).long(), against_rest(scores, value), against_rest(imputed, value)
    for name, of in (("MCC", matthews), ("G-mean", g_mean), (f"PPV at {TOP}", _precision)):
        figures[name + (RAREST if several else "")] = {
            "value": of(claimed, held), "low": None, "high": None, "guess": of(guesses, held),
            "guess_name": "imputation",
        }  # fmt: skip
    return Scored(figures, notes=tuple(claims[0].notes))


def rarest(truth: Tensor) -> int:
    """The value that fewest of the records have, of those that any has; the first where several do."""
    values, counts = truth.unique(return_counts=True)
    return int(values[counts.argmin()])


def against_rest(scores: Tensor, value: int) -> Tensor:
    """Scores (T, 2) of any other value, as the likeliest of them, and of ``value``."""
    own = torch.arange(scores.shape[1]) == value
    return torch.stack([scores[:, ~own].amax(1), scores[:, value]], 1)


def _precision(scores: Tensor, truth: Tensor) -> float:
    return ppv_at(scores, truth, min(TOP, len(truth)))


def _ask_copy(case: Case) -> tuple[tuple[Targets, ...], Key]:
    return (Targets(),), {}


def _score_copy(case: Case, know: Knowledge, key: Key, claims: Sequence[Claim]) -> Scored:
    """How often the copy answers as the model does on held-out inputs; and what inverting the copy shows."""
    experiment, stolen = case.experiment, claims[0].model
    assert case.model is not None
    assert stolen is not None
    inputs, labels = experiment.test_data()
    with torch.no_grad():
        own, copied = case.model(inputs).argmax(1), stolen(inputs).argmax(1)
    real, _ = accuracy_and_loss(case.model, inputs, labels, experiment.loss_name)
    commonest = float(own.bincount().max()) / len(own)
    figures = {
        "agreement": share(own == copied, commonest, "the class answered most"),
        "accuracy of the copy": share(copied == labels, float(labels.bincount().max()) / len(labels), "majority"),
        "accuracy of the model": {"value": real, "low": None, "high": None, "guess": None, "guess_name": ""},
    }
    try:
        judge = judge_of(experiment)
    except TaskError as without:
        return Scored(figures, notes=(f"the copy was not inverted: {without}",))
    classes = Targets(labels=torch.arange(know.num_classes))
    seed = derive(experiment.seed, "inversion of the copy", case.attack.name)
    open_copy = Oracle(stolen, num_classes=know.num_classes, access="white_box")
    shown = infer("model_inversion_white_box", open_copy, know, targets=classes, seed=seed)
    assert shown.inputs is not None
    assert classes.labels is not None
    figures["inverted copy judged"] = share(judge.judged(shown.inputs, classes.labels), 1 / know.num_classes, "chance")
    return Scored(figures, notes=tuple(claims[0].notes))


ATTRIBUTE = Asset("attribute", "advantage", _ask_attribute, _score_attribute)
COPY = Asset("model", "agreement", _ask_copy, _score_copy)
