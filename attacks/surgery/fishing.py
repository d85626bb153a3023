"""An output layer that lets one class answer, or one example of it (Wen et al., ICML 2022, Fishing for User Data)."""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from attacks.probe import Dense, output_layer, trace
from attacks.surgery.planted import Planted
from attacks.view import Knowledge

_CERTAIN = 1e3
"""A lead in the logits at which the softmax of the class left behind is exactly zero in float32."""
_FOLDS = 5
"""Parts of the public data; the feature that scores one part is found on the others."""


def plant_fishing(model: nn.Module, know: Knowledge, target_class: int) -> Planted:
    """A copy of ``model`` in which only examples of ``target_class`` move what lies before the output layer.

    The other classes' rows are zero and their biases far above the target's: an example of theirs has a slope of zero
    in every feature, one of the target class has the target's row (section 3.1). ``silent`` names what the others
    leave alone.
    Raises ValueError for a model that does not end in a dense layer with a bias, and for a class it does not have.
    """
    layer = _fishable(model, know, target_class)
    crafted = copy.deepcopy(model)
    others = torch.arange(know.num_classes) != target_class
    with torch.no_grad():
        weight, bias = (crafted.get_parameter(name) for name in layer.parameters)
        weight[others] = 0
        bias[others] += _CERTAIN
    return Planted(crafted, {"kind": "fishing", **_remembered(model, layer, target_class)})


def plant_feature_fishing(
    model: nn.Module, know: Knowledge, target_class: int, *, among: int, sharpness: float = 30.0
) -> Planted:
    """A copy of ``model`` in which one example in ``among`` of ``target_class`` answers: the least like its class.

    The target's logit is a feature minus a cut, and no other row has weights (section 3.2). An example of the target
    answers below the cut, one of another class above it: so the feature is what tells the class from the others best
    (Fisher's discriminant, shrunk), and the cut its quantile 1 / ``among``, both on ``know.public`` by its labels.
    One of n examples is then alone below it with probability n q (1 - q)^(n - 1), .39 at n = 8. ``sharpness`` is the
    logit at a distance of the class's standard deviation. Raises ValueError as ``plant_fishing`` does, for a model
    that reads texts, and for public data with fewer than two examples of the class or of the others.
    """
    layer = _fishable(model, know, target_class)
    if know.public is None or know.public_labels is None:
        raise ValueError("knowledge.public, public_labels: the feature and its cut are set on them; grant both")
    own = (know.public_labels == target_class).cpu().numpy()
    fewest = int(min(own.sum(), (~own).sum()))
    if fewest < 2:
        raise ValueError(
            f"target_class = {target_class}: the cut takes two public examples of it and two of others; "
            f"there are {own.sum()} and {(~own).sum()}"
        )
    public = know.public.to(model.get_parameter(layer.weight).device)
    features = trace(model, public)[1][layer.name][0][0]
    if features.ndim != 2:
        raise ValueError(f"model {type(model).__name__}: answers at every place of a text; fish for a class alone")
    row, cut, noisy = _feature(features, own, among)
    crafted = copy.deepcopy(model)
    with torch.no_grad():
        weight, bias = (crafted.get_parameter(name).zero_() for name in layer.parameters)
        weight[target_class] = sharpness * row
        bias[target_class] = math.log(know.num_classes - 1) - sharpness * cut  # even odds at the cut
    note = f"{noisy:.1%} of the public examples of other classes lie above the cut, where they answer too"
    planted = {"kind": "feature_fishing", **_remembered(model, layer, target_class)}
    return Planted(crafted, planted, (note,))


def _feature(features: Tensor, own: np.ndarray, among: int) -> tuple[Tensor, float, float]:
    """The feature, the cut in standard deviations of the class, and the share of the others above the cut.

    Examples are scored by the feature that the other folds give: on its own examples a feature flatters itself.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # together they take a second to import
    from sklearn.model_selection import cross_val_predict

    read = features.double().cpu().numpy()
    finder = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    folds = min(_FOLDS, int(own.sum()), int((~own).sum()))
    scores = cross_val_predict(finder, read, own, cv=folds, method="decision_function")
    finder.fit(read, own)
    spread, cut = scores[own].std(), np.quantile(scores[own], 1 / among)
    row = torch.as_tensor(finder.coef_[0] / spread).to(features)
    return row, float((cut - finder.intercept_[0]) / spread), float((scores[~own] > cut).mean())


def _fishable(model: nn.Module, know: Knowledge, target_class: int) -> Dense:
    """The output layer; ValueError where there is none to fish with, or it does not know the class."""
    layer = output_layer(model, know)
    if layer is None or layer.bias is None:
        raise ValueError(f"model {type(model).__name__}: fishing needs a dense output layer with a bias")
    if layer.parametrised:
        raise ValueError(f"model {type(model).__name__}: fishing writes to {layer.name}, which is parametrised")
    if not 0 <= target_class < know.num_classes:
        raise ValueError(f"target_class = {target_class}: the model tells classes 0 to {know.num_classes - 1} apart")
    return layer


def _remembered(model: nn.Module, layer: Dense, target_class: int) -> dict[str, object]:
    """What the server must know again to read the answers."""
    silent = tuple(name for name, _ in model.named_parameters() if name not in layer.parameters)
    return {"layer": layer.name, "silent": silent, "target_class": target_class}
