"""What each client leaves out before it trains: copies of what it has already, and records unlike all others."""

import torch
from pydantic import Field
from torch import Tensor

from fedsim.part import Part

EXACT = 1e-6
"""Root mean square difference below which two records are copies, in the data's own standard deviations."""


class Selection(Part):
    """Which of its own records a client trains on. The defaults keep all."""

    duplicates: float | None = Field(None, ge=0)
    """Leave out a record that is this near an earlier one of its class, as root mean square difference in standard
    deviations of the client's data; 0 leaves out exact copies."""
    outliers: float = Field(0.0, ge=0, lt=1)
    """Share left out, those farthest from the mean of their class."""


def selected(inputs: Tensor, labels: Tensor, selection: Selection) -> tuple[Tensor, int, int]:
    """Positions to keep, in order; and how many were left out as duplicates, and as outliers.

    A client knows no data but its own. Tokens have no distance that means anything: there only exact copies count.
    """
    keep, count = torch.ones(len(labels), dtype=torch.bool), len(labels)
    if count < 2 or (selection.duplicates is None and not selection.outliers):
        return torch.arange(count), 0, 0
    flat = inputs.double().flatten(1)
    spread = float((flat - flat.mean(0)).square().mean().sqrt()) or 1.0
    classes = labels if labels.ndim == 1 else torch.zeros(count, dtype=torch.int64)
    copies = 0
    if selection.duplicates is not None:
        near = EXACT if not inputs.is_floating_point() else max(EXACT, selection.duplicates)
        apart = torch.cdist(flat, flat) / flat.shape[1] ** 0.5 / spread
        twin = (apart <= near) & (classes[:, None] == classes[None])
        for position in range(1, count):
            keep[position] = not bool((twin[position, :position] & keep[:position]).any())
        copies = count - int(keep.sum())
    strange = int(selection.outliers * int(keep.sum())) if inputs.is_floating_point() else 0
    if strange:
        distance = torch.full((count,), -1.0, dtype=torch.float64)
        for label in classes[keep].unique():
            mine = keep & (classes == label)
            distance[mine] = (flat[mine] - flat[mine].mean(0)).norm(dim=1)
        keep[distance.argsort(descending=True, stable=True)[:strange]] = False
    return keep.nonzero()[:, 0], copies, strange
