"""Bring your own table: CSV or Parquet with a declared schema."""

import csv
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fedsim.tasks.data import Column, Dataset
from fedsim.tasks.errors import TaskError
from fedsim.tasks.own_data import FIELD, existing, fingerprint
from fedsim.tasks.tabular import encode_table

Cells = dict[str, list[Any]]


def table(path: str, columns: Mapping[str, Any], label: str, sensitive: str | None = None) -> Dataset:
    """A .csv (with a header) or .parquet file; ``columns`` declares each input column, ``label`` names the class.

    A column is ``[low, high]`` (numeric, scaled to [0, 1] by this range), a list of category names, or
    ``"numeric"`` / ``"categorical"`` to take the range or the categories from the file. Classes are the label's
    values in order.
    """
    file = existing(path)
    cells = _parquet(path) if file.suffix == ".parquet" else _csv(path)
    for field, names in (("columns", list(columns)), ("label", [label])):
        for name in names:
            if name not in cells:
                offer = f"its columns: {', '.join(cells)}"
                raise TaskError(f"task.data_options.{field}", name, "not in the file", offer)
    if not columns or label in columns:
        raise TaskError("task.data_options.columns", list(columns), "needs inputs other than the label", "declare them")
    if not cells[label]:
        raise TaskError(FIELD, path, "no rows", "give one example a row")
    read = {name: _column(name, declared, cells[name]) for name, declared in columns.items()}
    schema = [column for column, _ in read.values()]
    class_names, labels = _classes(label, cells[label])
    return Dataset(
        name=path,
        modality="tabular",
        inputs=encode_table(schema, {name: values for name, (_, values) in read.items()}),
        labels=labels,
        class_names=class_names,
        value_range=(0.0, 1.0),
        columns=tuple(schema),
        sensitive=sensitive,
        note=f"{fingerprint(file)}; numeric columns scaled to [0, 1] by "
        + ", ".join(f"{c.name} {c.low:g}..{c.high:g}" for c in schema if c.kind == "numeric"),
    )


def _csv(path: str) -> Cells:
    try:
        with existing(path).open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file, strict=True)
    except (ValueError, csv.Error) as error:
        raise TaskError(FIELD, path, f"not a readable CSV ({error})", "store it as UTF-8 with a header") from error
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            reason = f"row {number} has {len(row)} cells, the header {len(header)}"
            raise TaskError(FIELD, path, reason, "mend the row: the file may be truncated")
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def _parquet(path: str) -> Cells:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(existing(path)).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise TaskError(FIELD, path, f"not a readable Parquet file ({error})", "write it anew") from error


def _column(name: str, declared: Any, cells: Sequence[Any]) -> tuple[Column, np.ndarray]:
    """The column as declared and its values: numbers, or indices into its categories."""
    field = f"task.data_options.columns.{name}"
    if declared == "numeric":
        numbers = _numbers(field, cells)
        return Column(name, "numeric", low=float(numbers.min()), high=_above(numbers.min(), numbers.max())), numbers
    if declared == "categorical":
        declared = sorted({str(cell) for cell in cells})
    if not isinstance(declared, (list, tuple)) or len(declared) < 1:
        remedy = "use [low, high], a list of categories, 'numeric' or 'categorical'"
        raise TaskError(field, declared, "not a column", remedy)
    if all(isinstance(bound, (int, float)) for bound in declared):
        return _ranged(field, name, declared, _numbers(field, cells))
    indices = {str(category): i for i, category in enumerate(declared)}
    for number, cell in enumerate(cells, 1):
        if str(cell) not in indices:
            raise TaskError(field, cell, f"row {number} is in none of the categories {list(indices)}", "declare it")
    return Column(name, "categorical", tuple(indices)), np.array([indices[str(cell)] for cell in cells])


def _ranged(field: str, name: str, bounds: Sequence[float], numbers: np.ndarray) -> tuple[Column, np.ndarray]:
    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise TaskError(field, bounds, "not a range", "give [low, high] with low < high")
    outside = np.flatnonzero((numbers < bounds[0]) | (numbers > bounds[1]))
    if len(outside):
        reason = f"row {outside[0] + 1} has {numbers[outside[0]]:g}"
        raise TaskError(field, bounds, reason, "widen the range or mend the row")
    return Column(name, "numeric", low=float(bounds[0]), high=float(bounds[1])), numbers


def _numbers(field: str, cells: Sequence[Any]) -> np.ndarray:
    for number, cell in enumerate(cells, 1):
        try:
            finite = math.isfinite(float(cell))
        except (TypeError, ValueError):
            finite = False
        if not finite:
            raise TaskError(
                field, cell, f"row {number} is no finite number", "drop or impute it, or declare categories"
            )
    return np.array([float(cell) for cell in cells])


def _above(low: float, high: float) -> float:
    """A constant column gets a range of one, so that it scales to zero."""
    return float(high if high > low else low + 1)


def _classes(label: str, cells: Sequence[Any]) -> tuple[tuple[str, ...], torch.Tensor]:
    """Class names in order (numbers by value, words by alphabet) and the class id of each row."""
    field = "task.data_options.label"
    blank = [number for number, cell in enumerate(cells, 1) if cell is None or not str(cell).strip()]
    if blank:
        raise TaskError(field, label, f"row {blank[0]} has no label", "drop the row or label it")
    try:
        numbers = [float(cell) for cell in cells]
    except (TypeError, ValueError):
        names = sorted({str(cell) for cell in cells})
        return tuple(names), torch.tensor([names.index(str(cell)) for cell in cells])
    if any(not number.is_integer() for number in numbers):
        wrong = next(n for n in numbers if not n.is_integer())
        raise TaskError(field, label, f"labels are not integers, such as {wrong}", "give class names or class ids")
    values = sorted(set(numbers))
    ids = {value: i for i, value in enumerate(values)}
    return tuple(f"{value:.0f}" for value in values), torch.tensor([ids[number] for number in numbers])
