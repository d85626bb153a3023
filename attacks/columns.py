"""What a table's columns are: the schema that whoever builds a model for the table must know."""

from dataclasses import dataclass
from typing import Literal


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
