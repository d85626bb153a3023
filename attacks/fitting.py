"""An attack's own small networks: weights and batches come from the attack's generator alone."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def perceptron(widths: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """Dense layers of ``widths`` with ReLU between, weights uniform within one over the root of the fan-in."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layer = nn.utils.skip_init(nn.Linear, before, after)  # else it would draw from the global generator
        reach = 1 / math.sqrt(before)
        for parameter in (layer.weight, layer.bias):
            nn.init.uniform_(parameter, -reach, reach, generator=generator)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fit(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    examples: int,
    generator: torch.Generator,
    *,
    steps: int,
    batch: int = 64,
    rate: float = 2e-3,
) -> None:
    """Adam on ``loss(positions)`` over random batches of ``examples`` positions, the rate falling to zero."""
    optimiser = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        positions = torch.randint(examples, (min(batch, examples),), generator=generator)
        optimiser.zero_grad()
        loss(positions).backward()
        optimiser.step()
        schedule.step()


def settle(model: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    """L-BFGS on the whole ``loss``, which is exact where it is convex."""
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=steps, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return float(value.detach())

    optimiser.step(closure)
