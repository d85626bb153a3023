"""What the known results share: seeds fixed beforehand, the data's split, shares above 30 dB, and a table row."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from attacks import Budget, Knowledge, NotApplicable, Observation, Reconstruction
from attacks.metrics import bootstrap_interval, match, psnr
from fedsim.tasks import load_dataset
from fedsim.tasks.data import Dataset
from fedsim.tasks.models import build_model

UNIT = (0.0, 1.0)

ROWS: list[str] = []
"""The rows of this run's table, in the order of the tests."""

__all__ = [
    "ROWS",
    "Budget",
    "Knowledge",
    "Observation",
    "build_model",
    "draw",
    "key",
    "load_dataset",
    "matched",
    "quantised",
    "row",
]


def draw(dataset: Dataset, seed: int, count: int) -> tuple[Tensor, Tensor, Tensor, torch.Generator]:
    """Private inputs and labels, disjoint public inputs, and the generator that told them apart."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(dataset), generator=generator)
    return dataset.inputs[order[:count]], dataset.labels[order[:count]], dataset.inputs[order[count:]], generator


def matched(claim: Reconstruction | NotApplicable, truth: Tensor) -> Tensor:
    """Decibels (B,) of each true image's claim; minus infinity where there is none."""
    found = torch.full((len(truth),), -torch.inf, dtype=torch.float64)
    if isinstance(claim, Reconstruction) and claim.inputs is not None:
        assigned = match(claim.inputs, truth)
        held = assigned >= 0
        found[held] = psnr(claim.inputs[assigned[held]], truth[held], UNIT)
    return found


def quantised(update: Mapping[str, Tensor], bits: int, clip: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Fixed point of ``bits`` bits over [-clip, clip], rounded at random without bias; zero stays zero."""
    step = 2 * clip / 2**bits
    return {
        name: ((t.double().clamp(-clip, clip) / step + torch.rand(t.shape, generator=generator)).floor() * step)
        for name, t in update.items()
    }


def summed(updates: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The sum over clients, as secure aggregation shows it, in float32."""
    return {name: torch.stack([u[name].double() for u in updates]).sum(0).float() for name in updates[0]}


def row(what: str, figures: Sequence[float], bar: str) -> str:
    """A line of the table: the median, its interval over seeds, every figure, and the bar.

    Name and number of seeds stand for the row: ValueError where they are taken, for it would replace another's figures.
    """
    low, high = bootstrap_interval(figures, np.random.default_rng(0))
    each = ", ".join(f"{figure:.3g}" for figure in figures)
    line = f"| {what} | {np.median(figures):.3g} [{low:.3g}, {high:.3g}] | {bar} | {each} |"
    if key(line) in map(key, ROWS):
        raise ValueError(f"row {what!r}: is taken; name what sets this one apart")
    print(line)
    ROWS.append(line)
    return line


def key(line: str) -> tuple[str, int]:
    """What a line of the table is about, and over how many seeds."""
    cells = line.strip("| ").split(" | ")
    return cells[0], cells[-1].count(",")
