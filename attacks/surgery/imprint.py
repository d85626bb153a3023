"""An imprint layer in front of any model (Fowl et al., ICLR 2022, Robbing the Fed, section 3).

Every row measures the input along one direction and is active above its own threshold, so that rows of neighbouring
thresholds differ by the examples that fall between them, and by nothing else.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor, nn

from attacks.losses import LOSSES
from attacks.probe import sandbox
from attacks.surgery.planted import Planted

BLOCK = "imprint"
_TIED = 1e-12
"""Two public examples whose measurements differ by less than this part of their spread tie."""
_FINENESS = 8
"""Points per bin at which the smoothed distribution is evaluated before it is inverted."""


class Imprint(nn.Module):
    """Adds to its input one direction times the sum of ``k`` rectified measurements of it.

    All rows feed the same sum, so the loss has the same slope in each row that an example activates. A finite ``top``
    cuts every row off there: then a row is moved by the examples of its own bin alone.
    """

    def __init__(self, features: int, rows: int, top: float) -> None:
        super().__init__()
        self.top = top
        self.bins = nn.Linear(features, rows)
        self.spread = nn.Linear(1, features)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (B, *input_shape) to outputs of the same shape."""
        active = self.bins(x.flatten(1)).clamp(0, self.top)
        return x + self.spread(active.sum(1, keepdim=True)).reshape(x.shape)


def _random_direction(features: int, generator: torch.Generator) -> Tensor:
    return torch.randn(features, generator=generator, dtype=torch.float64)


def _mean_direction(features: int, generator: torch.Generator) -> Tensor:
    return torch.ones(features, dtype=torch.float64)


DIRECTIONS: dict[str, Callable[[int, torch.Generator], Tensor]] = {"random": _random_direction, "mean": _mean_direction}
"""What the rows measure: a random projection, or the mean brightness as published (which ties on coarse data)."""


def plant_imprint(
    model: nn.Module,
    public: Tensor,
    *,
    bins: int,
    generator: torch.Generator,
    num_classes: int,
    loss: str = "cross_entropy",
    direction: Literal["random", "mean"] = "random",
    hats: bool = False,
    change: float = 0.1,
    slope: float = 1.0,
) -> Planted:
    """A copy of ``model`` behind an imprint of ``bins`` rows, thresholds at the quantiles of ``public`` (N, *shape).

    ``change`` is the root mean square of what the layer adds to an input, as a part of the public data's own spread.
    ``slope`` is that of the loss of one example in an active row: rows can be scaled down and the sum up
    without changing what the model computes, so its size is the server's free choice. ``hats`` gives every bin a row
    of its own, which needs no differences and so bears more noise. Raises ValueError for fewer
    than two bins or public examples, and for inputs that are not numbers.
    """
    if bins < 2 or len(public) < 2:
        raise ValueError(f"bins = {bins}, {len(public)} public examples: an imprint needs at least two of each")
    if not public.is_floating_point():
        raise ValueError("public: an imprint measures numbers, these inputs are token ids")
    flat = public.flatten(1).double().cpu()
    along = DIRECTIONS[direction](flat.shape[1], generator)
    along = along / along.norm()
    measured = flat @ along
    edges = torch.as_tensor(smooth_quantiles(measured.numpy(), bins))
    block = Imprint(flat.shape[1], bins, 1.0 if hats else math.inf)
    widths = edges.diff(append=2 * edges[-1:] - edges[-2:-1]) if hats else torch.ones(bins)
    push = torch.randn(flat.shape[1], generator=generator, dtype=torch.float64)
    with torch.no_grad():
        block.bins.weight.copy_(along / widths[:, None])
        block.bins.bias.copy_(-edges / widths)
        block.spread.weight.copy_(push[:, None])
        block.spread.bias.zero_()
    first = next(model.parameters())
    planted = nn.Sequential(OrderedDict([(BLOCK, block.to(first)), ("model", copy.deepcopy(model))]))
    planted.train(model.training)
    _centre(block, public.to(first), change)
    _rescale(planted, block, public.to(first), num_classes, loss, generator, slope)
    form = "separate" if hats else "cumulative"
    return Planted(planted, {"kind": "imprint", "layer": f"{BLOCK}.bins", "rows": form}, _ties(measured))


def smooth_quantiles(values: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """``bins`` ascending thresholds with equal mass between them under a kernel-smoothed distribution of ``values``.

    The first lies below all mass. Each value spreads over the distance to its neighbours (a Gaussian as wide as the
    distance to the sqrt(N)-th nearest, Loftsgaarden and Quesenberry 1965), so that more bins than values still hold
    about equal mass: linear interpolation between order statistics doubles the collisions.
    """
    ordered = np.sort(values)
    reach = max(1, round(len(ordered) ** 0.5))
    gaps = np.partition(np.abs(ordered[:, None] - ordered), min(reach, len(ordered) - 1), axis=1)
    width = np.maximum(gaps[:, min(reach, len(ordered) - 1)] / 2, 1e-9 * (np.ptp(ordered) + 1))
    grid = np.linspace((ordered - 6 * width).min(), (ordered + 6 * width).max(), max(4000, _FINENESS * bins))
    mass = np.mean([ndtr((grid - value) / w) for value, w in zip(ordered, width, strict=True)], axis=0)
    thresholds = np.interp(np.arange(bins) / bins, mass, grid)
    thresholds[0] = grid[0] - np.ptp(grid)
    return thresholds


def _centre(block: Imprint, public: Tensor, change: float) -> None:
    """Scale what the layer adds to ``change`` of the data's spread, around zero."""
    with torch.no_grad():
        added = block(public) - public
        factor = change * public.std() / (added - added.mean(0)).square().mean().sqrt()
        block.spread.weight.mul_(factor)
        block.spread.bias.copy_(-factor * added.mean(0).flatten())


def _rescale(
    planted: nn.Module,
    block: Imprint,
    public: Tensor,
    num_classes: int,
    loss: str,
    generator: torch.Generator,
    slope: float,
) -> None:
    """Trade the rows' scale against the sum's until the loss of a public example has the wanted slope in a row."""
    labels = torch.randint(num_classes, (len(public),), generator=generator).to(public.device)
    with sandbox(planted) as twin:
        twin_block = twin.get_submodule(BLOCK)
        sums: list[Tensor] = []
        twin_block.get_submodule("spread").register_forward_hook(lambda _, read, wrote: sums.append(read[0]))
        value = LOSSES[loss](twin(public), labels) * len(public)
        slopes = torch.autograd.grad(value, sums[0])[0]
    if not slopes.any():
        return
    gain = slope / float(slopes.square().mean().sqrt())
    with torch.no_grad():
        block.bins.weight.div_(gain)
        block.bins.bias.div_(gain)
        block.top /= gain
        block.spread.weight.mul_(gain)


def _ties(measured: Tensor) -> tuple[str, ...]:
    ordered = measured.sort().values
    near = ordered.diff() <= _TIED * (ordered[-1] - ordered[0])
    tied = int((torch.cat([near, near[:1] & False]) | torch.cat([near[:1] & False, near])).sum())
    if not tied:
        return ()
    return (
        f"{tied} of {len(measured)} public examples measure the same as another: examples that tie share a bin "
        "whatever their number, so expect less than (1 - 1/bins)^(n - 1); choose another direction",
    )
