"""What a table's columns are: the schema that whoever builds a model for the table must know."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Column:
    """One column of a table: a single input if numeric, a one-hot block of inputs (in order) if categorical.

    A numeric input is (value - low) / (high - low): 0 stands for ``low`` and 1 for ``high`` in the column's own unit.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    categories: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0

    @property
    def width(self) -> int:
        """How many inputs the column takes."""
        return len(self.categories) if self.kind == "categorical" else 1


SHARP = 12.0
"""How decided a softmax over [0, 1] can be: at 12 the largest of five shares may reach 0.99997."""


def blocks_of(columns: Sequence[Column]) -> tuple[tuple[int, int], ...]:
    """Which inputs (from, up to) each categorical column takes."""
    ends = list(itertools.accumulate(column.width for column in columns))
    return tuple((e - c.width, e) for c, e in zip(columns, ends, strict=True) if c.kind == "categorical")


def relaxed(unit: Tensor, blocks: Sequence[tuple[int, int]]) -> Tensor:
    """Records (..., features) from coordinates in [0, 1]: each block of categories as shares that sum to one.

    Vero, Balunović, Dimitrov, Vechev 2023, section 4.1 (softmax structural prior).
    """
    if not blocks:
        return unit
    parts, at = [], 0
    for begin, end in blocks:
        parts += [unit[..., at:begin], (SHARP * unit[..., begin:end]).softmax(-1)]
        at = end
    return torch.cat([*parts, unit[..., at:]], -1)


def decided(unit: Tensor, blocks: Sequence[tuple[int, int]]) -> Tensor:
    """The coordinates with each block moved to the corner of its largest entry: one category, as sure as can be."""
    sure = unit.clone()
    for begin, end in blocks:
        block = unit[..., begin:end]
        sure[..., begin:end] = torch.zeros_like(block).scatter_(-1, block.argmax(-1, keepdim=True), 1.0)
    return sure
