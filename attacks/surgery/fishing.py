"""An output layer that lets only one class answer (Wen et al., ICML 2022, Fishing for User Data, section 3.1)."""

import copy

import torch
from torch import nn

from attacks.probe import output_layer
from attacks.surgery.planted import Planted
from attacks.view import Knowledge

_CERTAIN = 1e3
"""A lead in the logits at which the softmax of the class left behind is exactly zero in float32."""


def plant_fishing(model: nn.Module, know: Knowledge, target_class: int) -> Planted:
    """A copy of ``model`` in which only examples of ``target_class`` move anything before the output layer.

    The other classes' rows are zero and their biases far above the target's: an example of theirs has a slope of zero
    in every feature, one of the target class has the target's row. ``silent`` names what the others leave alone.
    Raises ValueError for a model that does not end in a dense layer with a bias, and for a class it does not have.
    """
    layer = output_layer(model, know)
    if layer is None or layer.bias is None:
        raise ValueError(f"model {type(model).__name__}: fishing needs a dense output layer with a bias")
    if not 0 <= target_class < know.num_classes:
        raise ValueError(f"target_class = {target_class}: the model tells classes 0 to {know.num_classes - 1} apart")
    crafted = copy.deepcopy(model)
    others = torch.arange(know.num_classes) != target_class
    with torch.no_grad():
        crafted.get_parameter(layer.weight)[others] = 0
        crafted.get_parameter(layer.bias)[others] += _CERTAIN
    silent = tuple(name for name, _ in model.named_parameters() if name not in layer.parameters)
    planted = {"kind": "fishing", "layer": layer.name, "silent": silent, "target_class": target_class}
    return Planted(crafted, planted)
