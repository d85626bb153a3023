"""Attribute inference: the one column of a record that the adversary does not hold, from how the model answers.

What the other columns tell without the model, the imputation baseline, stands beside every figure.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.inference import Claim, InferenceNeeds, InferenceSanity, Targets, inference
from attacks.oracle import Oracle
from attacks.view import Budget, Knowledge

ASKED = ("inputs", "labels", "column", "values")


class UnusableAttribute(ValueError):
    """The sensitive attribute is absent or constant: there is nothing to infer."""


def candidates(targets: Targets) -> Tensor:
    """The records (T, K, features) with the unknown column set to each value it may have."""
    assert targets.inputs is not None  # the four are checked by the registry
    assert targets.column is not None
    assert targets.values is not None
    if not len(targets.column):
        raise UnusableAttribute("column = (): name the feature positions of the sensitive attribute")
    width = targets.inputs.shape[1]
    if not all(0 <= place < width for place in targets.column):
        raise UnusableAttribute(
            f"column = {targets.column}: the records have features 0 to {width - 1}; name some of these"
        )
    if targets.values.shape[1:] != (len(targets.column),):
        raise UnusableAttribute(
            f"values of shape {tuple(targets.values.shape)}: give rows of {len(targets.column)}, a number for each of "
            f"column = {targets.column}"
        )
    if bool(targets.inputs[:, [j for j in range(width) if j not in targets.column]].isnan().any()):
        raise UnusableAttribute(
            f"inputs: features beside column = {targets.column} are unknown; hide that column alone"
        )
    if len(targets.values.unique(dim=0)) < 2:
        raise UnusableAttribute(f"values = {targets.values.tolist()}: constant; give two values or more")
    tried = targets.inputs[:, None].repeat(1, len(targets.values), 1)
    tried[:, :, list(targets.column)] = targets.values.to(tried)
    return tried


def values_of(inputs: Tensor, targets: Targets) -> Tensor:
    """Which of the values (N,) each complete record (N, features) has: the nearest one."""
    assert targets.column is not None
    assert targets.values is not None
    return torch.cdist(inputs[:, list(targets.column)].double(), targets.values.double()).argmin(1)


def _trusted(source: Oracle, targets: Targets) -> tuple[Tensor, Tensor]:
    """For each target and value, the confidence in the record's true label, and that in the label answered, negative
    where that is wrong: (T, K) each."""
    tried = candidates(targets)
    assert targets.labels is not None
    shown = source.confidences(tried.flatten(0, 1)).unflatten(0, tried.shape[:2])
    true = shown.gather(2, targets.labels[:, None, None].expand(-1, tried.shape[1], 1))[..., 0]
    most = shown.max(2)
    return true, torch.where(most.indices == targets.labels[:, None], most.values, -most.values)


def _others(inputs: Tensor, labels: Tensor, targets: Targets, classes: int) -> Tensor:
    """What is known of records besides the attribute: the other columns, and the class one-hot."""
    assert targets.column is not None
    rest = torch.ones(inputs.shape[1], dtype=torch.bool)
    rest[list(targets.column)] = False
    return torch.cat([inputs[:, rest].double(), F.one_hot(labels, classes).double()], 1)


def predicted(known: Tensor, values: Tensor, wanted: Tensor, count: int) -> Tensor:
    """Probabilities (T, count) of each value for ``wanted`` (T, F), learnt from ``known`` (N, F) with ``values``."""
    # Late: it takes seconds, and brings pandas along.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seen = values.unique()
    probability = torch.zeros((len(wanted), count), dtype=torch.float64)
    if len(seen) == 1:
        probability[:, seen[0]] = 1
        return probability
    learner = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    learner.fit(known.numpy(), values.numpy())
    probability[:, seen] = torch.from_numpy(learner.predict_proba(wanted.numpy()))
    return probability


def _imputed(know: Knowledge, targets: Targets) -> Tensor:
    """Probabilities (T, K) of each value from public records alone."""
    assert know.public is not None
    assert know.public_labels is not None
    assert targets.inputs is not None
    assert targets.labels is not None
    tried = candidates(targets)
    values = values_of(know.public, targets)
    if len(values.unique()) < 2:
        raise UnusableAttribute(
            f"knowledge.public: the attribute is the same in all {len(values)} records, so that no baseline can be "
            "learnt from them; grant records in which it varies"
        )
    known = _others(know.public, know.public_labels, targets, know.num_classes)
    wanted = _others(targets.inputs, targets.labels, targets, know.num_classes)
    return predicted(known, values, wanted, tried.shape[1])


def _marginal(know: Knowledge, targets: Targets, count: int) -> Tensor:
    """How frequent each value (count,) is among public records; equally, where none are granted."""
    if know.public is None:
        return torch.full((count,), 1 / count, dtype=torch.float64)
    seen = values_of(know.public, targets).bincount(minlength=count).double() + 1
    return seen / seen.sum()


def _case(access: str) -> InferenceSanity:
    """A linear model whose answer hangs on the unknown column: 60 records of either value, labelled by it."""
    draw = torch.Generator().manual_seed(2)
    truth = torch.arange(60) % 2
    inputs = torch.cat([torch.rand((60, 2), generator=draw), truth[:, None].float()], 1)
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.1, 0.0, -4.0], [0.0, 0.1, 4.0]]))
        layer.bias.copy_(torch.tensor([2.0, -2.0]))
    hidden = inputs.clone()
    hidden[:, 2] = torch.nan
    asked = Targets(inputs=hidden, labels=truth, column=(2,), values=torch.tensor([[0.0], [1.0]]))
    know = Knowledge((3,), 2, public=inputs.clone(), public_labels=truth)

    def won(claim: Claim) -> bool:
        return float((claim.scores.argmax(1) == truth).double().mean()) > 0.9

    return InferenceSanity(Oracle(layer, num_classes=2, access=access), know, asked, Budget(), won)


@inference(
    "attribute_imputation",
    paper="Jayaraman and Evans, CCS 2022: the baseline without the model",
    claim="the sensitive attribute, from public records alone: no question is asked",
    needs=InferenceNeeds("L0", "oracle", "label_only", ("public", "public_labels"), ASKED),
    cost="closed form",
    stopped_by="nothing: it asks the model nothing",
    sanity=lambda: _case("label_only"),
)
def imputation(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """Logistic regression of the attribute on the other columns and the class."""
    return Claim(_imputed(knowledge, targets))


@inference(
    "attribute_map",
    paper="Fredrikson, Lantz, Jha, Lin, Page and Ristenpart, USENIX Security 2014, algorithm 1",
    claim="the sensitive attribute: the value most likely given the confidence in the record's class",
    needs=InferenceNeeds("L1", "oracle", "rounded", (), ASKED),
    cost="closed form",
    stopped_by="answers without confidences, or a limit on questions",
    sanity=lambda: _case("confidences"),
)
def maximum_a_posteriori(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """Confidence in the true class times the value's frequency in public data."""
    before = source.queries
    true, _ = _trusted(source, targets)
    return Claim(true * _marginal(knowledge, targets, true.shape[1]), source.queries - before)


@inference(
    "attribute_confidence",
    paper="Mehnaz, Dibbo, Kabir, Li and Bertino, USENIX Security 2022 (CSMIA)",
    claim="the sensitive attribute: the value with which the model is right, and surest",
    needs=InferenceNeeds("L1", "oracle", "rounded", (), ASKED),
    cost="closed form",
    stopped_by="answers without confidences, or a limit on questions",
    sanity=lambda: _case("confidences"),
)
def confidence_score(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """Among right answers the surest, among wrong ones the least sure: the paper's three cases in one order."""
    before = source.queries
    _, signed = _trusted(source, targets)
    return Claim(signed, source.queries - before)


@inference(
    "attribute_label_only",
    paper="Mehnaz, Dibbo, Kabir, Li and Bertino, USENIX Security 2022 (LOMIA)",
    claim="the sensitive attribute, from labels: learnt on the records that one value alone explains",
    needs=InferenceNeeds("L1", "oracle", "label_only", (), ASKED),
    cost="seconds",
    stopped_by="a limit on questions; answering with labels alone does not",
    sanity=lambda: _case("label_only"),
)
def label_only(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """Equal scores, and a note, where no record is explained by one value alone: the attack then claims nothing."""
    before, tried = source.queries, candidates(targets)
    assert targets.inputs is not None
    assert targets.labels is not None
    count = tried.shape[1]
    right = source.labels(tried.flatten(0, 1)).unflatten(0, tried.shape[:2]) == targets.labels[:, None]
    alone = right.sum(1) == 1
    queries = source.queries - before
    if not alone.any():
        scores = torch.full((len(tried), count), 1 / count, dtype=torch.float64)
        return Claim(scores, queries, notes=("no record is explained by one value alone",))
    others = _others(targets.inputs, targets.labels, targets, knowledge.num_classes)
    scores = predicted(others[alone], right[alone].int().argmax(1), others, count)
    scores[alone] = right[alone].double()
    told = f"{int(alone.sum())} of {len(alone)} records are explained by one value alone"
    return Claim(scores, queries, notes=(told,))


@inference(
    "attribute_weighted",
    paper="Jayaraman and Evans, CCS 2022: imputation and the model together",
    claim="the sensitive attribute: what public records say of it, weighed by the model's confidence",
    needs=InferenceNeeds("L1", "oracle", "rounded", ("public", "public_labels"), ASKED),
    cost="closed form",
    stopped_by="answers without confidences; then what public records say remains",
    sanity=lambda: _case("confidences"),
)
def weighted(
    source: Oracle, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """The strongest of the family: what it gains over imputation is what the model gives away."""
    before = source.queries
    true, _ = _trusted(source, targets)
    return Claim(true * _imputed(knowledge, targets), source.queries - before)
