"""What a task's data is, whatever it came from: tensors in data units, and what a reader must know about them."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from attacks.columns import Column as Column
from fedsim.tasks.errors import TaskError

Modality = Literal["image", "tabular", "text"]
SMALLEST_SIDE = 3
"""Of an image in pixels: structural similarity compares windows of so many."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples in data units (what ``model.forward`` takes), valid by construction.

    ``inputs`` are (N, C, H, W) or (N, features) float32, or (N, T) int64 token ids for text; ``labels`` are (N,)
    int64, or the tokens themselves for text. ``value_range`` bounds the inputs: scalars, or one value per entry of
    the first input axis. ``secrets`` are phrases whose recovery can be counted. ``note`` states where the data comes
    from, its licence and its scaling, and is shown in the report. Raises TaskError for data that break this.
    """

    name: str
    modality: Modality
    inputs: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    value_range: tuple[Any, Any]
    loss: str = "cross_entropy"
    columns: tuple[Column, ...] = ()
    sensitive: str | None = None
    vocabulary: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    note: str = ""

    @property
    def num_classes(self) -> int:
        """Classes that a model must tell apart: the vocabulary for text."""
        return len(self.vocabulary) if self.modality == "text" else len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.inputs.shape[1:])

    def __len__(self) -> int:
        return len(self.inputs)

    def __post_init__(self) -> None:
        axes = {"image": 4, "tabular": 2, "text": 2}[self.modality]
        if self.inputs.ndim != axes or not self.inputs.numel():
            shape = {"image": "(N, C, H, W)", "tabular": "(N, features)", "text": "(N, T)"}[self.modality]
            self._refuse(
                f"inputs of shape {tuple(self.inputs.shape)}", f"{self.modality} data need shape {shape}, N >= 1"
            )
        wanted = torch.int64 if self.modality == "text" else torch.float32
        if self.inputs.dtype != wanted:
            self._refuse(f"inputs are {self.inputs.dtype}", f"convert them to {wanted}")
        if self.modality == "image" and min(self.input_shape[1:]) < SMALLEST_SIDE:
            height, width = self.input_shape[1:]
            self._refuse(
                f"images of {height}x{width} pixels",
                f"enlarge them to {SMALLEST_SIDE}x{SMALLEST_SIDE} or more, or give a table (N, features)",
            )
        broken = ~torch.isfinite(self.inputs.flatten(1)).all(1)
        if broken.any():
            first = int(broken.nonzero()[0])
            self._refuse(
                f"{int(broken.sum())} of {len(self)} examples hold NaN or infinity, the first at index {first}",
                "drop or impute them before loading",
            )
        self._check_labels()
        width = sum(column.width for column in self.columns)
        if self.columns and width != self.inputs.shape[1]:
            self._refuse(
                f"columns take {width} inputs, examples have {self.inputs.shape[1]}", "declare every column once"
            )
        if self.sensitive is not None and self.sensitive not in {c.name for c in self.columns}:
            self._refuse(f"sensitive column {self.sensitive!r} is not a column", "name one of the declared columns")

    def _check_labels(self) -> None:
        if self.labels.dtype != torch.int64:
            self._refuse(f"labels are {self.labels.dtype}, not integers", "give class ids 0, 1, ... as integers")
        shape = self.inputs.shape if self.modality == "text" else self.inputs.shape[:1]
        if self.labels.shape != shape:
            self._refuse(
                f"{tuple(self.labels.shape)} labels for inputs of shape {tuple(self.inputs.shape)}",
                "give exactly one label per example",
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= self.num_classes:
            self._refuse(
                f"labels run from {low} to {high}, but there are {self.num_classes} classes",
                f"use class ids 0 to {self.num_classes - 1}",
            )

    def _refuse(self, reason: str, remedy: str) -> None:
        raise TaskError("task.dataset", self.name, reason, remedy)
