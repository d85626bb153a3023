"""A view in which some coordinates of an update are hidden: the attack is given the others, and a model that has those.

Gradient matching needs no more than that: it differentiates with respect to the coordinates that it can compare. An
attack that reads a whole layer finds that layer missing, and says so.
"""

import copy
from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call


class PartlyHidden(nn.Module):
    """``inner`` with the known coordinates of some parameters as parameters of their own, ``known_0``, ``known_1``, ...

    ``masks`` maps parameter names to bool tensors of their shapes, true where a coordinate is known.
    """

    def __init__(self, inner: nn.Module, masks: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.inner = inner
        self.split = tuple(masks)
        for index, (name, mask) in enumerate(masks.items()):
            places = mask.flatten().nonzero()[:, 0]
            weights = inner.get_parameter(name).detach().flatten()
            self.register_buffer(f"places_{index}", places)
            self.register_parameter(f"known_{index}", nn.Parameter(weights[places]))

    def forward(self, *inputs: Tensor) -> Tensor:
        """What ``inner`` gives: hidden coordinates keep the weights that were sent."""
        weights = {}
        for index, name in enumerate(self.split):
            owner, _, leaf = name.rpartition(".")
            whole: Tensor = getattr(self.inner.get_submodule(owner), leaf)
            places: Tensor = getattr(self, f"places_{index}")
            known: Tensor = getattr(self, f"known_{index}")
            weights[name] = whole.flatten().scatter(0, places, known).reshape(whole.shape)
        outputs: Tensor = functional_call(self.inner, weights, inputs)
        return outputs


def without_hidden(model: nn.Module, arrays: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model and the update without the coordinates that are NaN in ``arrays``; parameters all hidden are left out.

    Parameters that are wholly known are under ``inner.<name>``, the known part (n,) of others under ``known_<i>``.
    """
    known = {name: ~tensor.isnan() for name, tensor in arrays.items()}
    split = {name: mask for name, mask in known.items() if mask.any() and not mask.all()}
    update = {f"inner.{name}": tensor for name, tensor in arrays.items() if known[name].all()}
    update |= {f"known_{i}": arrays[name][mask] for i, (name, mask) in enumerate(split.items())}
    wrapped = PartlyHidden(copy.deepcopy(model), split)
    wrapped.train(model.training)
    return wrapped, update
