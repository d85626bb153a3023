"""Bring your own examples: arrays, a folder of pictures, a torch Dataset, text, a Hugging Face data set.

Whatever the source, problems are named with the file or example that has them. Nothing is unpickled.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedsim.search_path import find
from fedsim.tasks.data import Dataset, Modality
from fedsim.tasks.errors import TaskError
from fedsim.tasks.names import resolve
from fedsim.tasks.text import text_dataset

FIELD = "task.dataset"
EIGHT_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}


def existing(path: str) -> Path:
    """The file or folder at ``path``; TaskError if there is none."""
    found = find(path)
    if found is None:
        remedy = f"paths are relative to {Path.cwd()}, or else to the script's folder"
        raise TaskError(FIELD, path, "no such file or folder", remedy)
    return found


def fingerprint(path: Path) -> str:
    """What the report says about a user's file: its name and the start of its SHA-256."""
    return f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def from_arrays(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    *,
    layout: str = "chw",
    value_range: Sequence[Any] | None = None,
    class_names: Sequence[str] | None = None,
    note: str = "",
) -> Dataset:
    """A data set from x (N, features), (N, H, W) or (N, C, H, W) and class ids y (N,).

    Pictures of unsigned bytes are scaled to [0, 1]; other values are taken as they are. Without a declared
    ``value_range`` that is [0, 1] if it holds the data, and else the least and greatest value found (of each feature
    of a table).
    """
    if x.dtype.kind not in "buif":
        raise TaskError(FIELD, name, f"x holds {x.dtype}, not numbers", "store numbers")
    if x.ndim not in (2, 3, 4) or not x.size:
        raise TaskError(FIELD, name, f"x has shape {x.shape}", "use (N, features), (N, H, W) or (N, C, H, W), N >= 1")
    if layout not in ("chw", "hwc"):
        raise TaskError("task.data_options.layout", layout, "unknown layout", "use 'chw' or 'hwc'")
    if x.ndim == 4 and layout == "hwc":
        x = x.transpose(0, 3, 1, 2)
    elif x.ndim == 4 and x.shape[1] > 4 >= x.shape[3]:
        raise TaskError(
            FIELD, name, f"x of shape {x.shape} looks as if channels came last", "set data_options.layout = 'hwc'"
        )
    x = x[:, None] if x.ndim == 3 else x
    if x.dtype == np.uint8 and x.ndim == 4:
        x = x / 255.0
    labels = _class_ids(name, y)
    inputs = torch.tensor(x, dtype=torch.float32)
    modality: Modality = "tabular" if inputs.ndim == 2 else "image"
    classes = int(labels.max()) + 1
    if not class_names and classes > len(labels):
        reason = f"labels run up to {classes - 1}, which makes more classes than the {len(labels)} examples"
        raise TaskError(FIELD, name, reason, "number the classes 0, 1, ... or declare class_names")
    names = tuple(class_names) if class_names else tuple(str(i) for i in range(classes))
    bounds: tuple[Any, Any] = (0.0, 1.0)
    if inputs.min() < 0 or inputs.max() > 1:
        ends = (inputs.amin(0), inputs.amax(0)) if modality == "tabular" else (inputs.min(), inputs.max())
        bounds = _bounds(*ends)
        if value_range is None:
            note = f"{note}; value range taken from the data themselves, private ones included".removeprefix("; ")
    dataset = Dataset(name, modality, inputs, labels, names, bounds, note=note)
    return _within(dataset, value_range) if value_range is not None else dataset


def _class_ids(name: str, y: np.ndarray) -> torch.Tensor:
    whole = y.dtype.kind in "bui" or (y.dtype.kind == "f" and bool((y == np.floor(y)).all()))
    if not whole or y.ndim != 1 or not y.size:
        raise TaskError(
            FIELD,
            name,
            f"labels are {y.dtype} of shape {y.shape}, not integers of shape (N,)",
            "give class ids 0, 1, ...",
        )
    return torch.tensor(y.astype(np.int64))


def _within(dataset: Dataset, value_range: Sequence[Any]) -> Dataset:
    field = "task.data_options.value_range"
    try:
        low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in value_range)
        shape = (-1,) + (1,) * (dataset.inputs.ndim - 2)
        inside = (dataset.inputs >= low.reshape(shape)) & (dataset.inputs <= high.reshape(shape))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(
            field, value_range, str(error), "give [low, high]: numbers, or a list each with one per channel or feature"
        ) from error
    if not inside.all():
        found = (float(dataset.inputs.min()), float(dataset.inputs.max()))
        raise TaskError(
            field, value_range, f"the data run from {found[0]:g} to {found[1]:g}", "widen it, or scale the data"
        )
    return dataclasses.replace(dataset, value_range=_bounds(low, high))


def _bounds(low: torch.Tensor, high: torch.Tensor) -> tuple[Any, Any]:
    return tuple(low.tolist()) if low.ndim else float(low), tuple(high.tolist()) if high.ndim else float(high)


def npz(
    path: str,
    layout: str = "chw",
    value_range: Sequence[Any] | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Arrays ``x`` and ``y`` of an .npz file, as ``from_arrays`` takes them."""
    file = existing(path)
    try:
        with np.load(file, allow_pickle=False) as stored:
            missing = [key for key in ("x", "y") if key not in stored.files]
            if missing:
                raise TaskError(FIELD, path, f"no array {missing[0]!r} among {stored.files}", "store x= and y=")
            x, y = stored["x"], stored["y"]
    except TaskError:
        raise
    except Exception as error:  # zip, zlib and numpy raise many kinds for a broken file
        raise TaskError(
            FIELD,
            path,
            f"not a readable .npz ({error})",
            "write it with numpy.savez(path, x=..., y=...), without objects",
        ) from error
    if len(x) != len(y):
        raise TaskError(FIELD, path, f"{len(x)} examples but {len(y)} labels", "give exactly one label per example")
    return from_arrays(
        path, x, y, layout=layout, value_range=value_range, class_names=class_names, note=fingerprint(file)
    )


def folder(path: str, size: int | None = None) -> Dataset:
    """Pictures in [0, 1]; the class is the subfolder. ``size`` cuts the centre square and scales it to size x size."""
    from PIL import Image

    root = existing(path)
    classes = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise TaskError(FIELD, path, "no subfolders", "put the pictures of each class into a subfolder of its name")
    suffixes = Image.registered_extensions()
    files = [sorted(f for f in c.rglob("*") if f.suffix.lower() in suffixes) for c in classes]
    for where, found in zip(classes, files, strict=True):
        if not found:
            raise TaskError(FIELD, path, f"class folder {where.name!r} holds no picture", "fill or remove it")
    pictures = [_picture(path, file, size) for group in files for file in group]
    shapes = {p.shape for p in pictures}
    if len(shapes) > 1:
        some = ", ".join("x".join(map(str, shape)) for shape in sorted(shapes)[:3])
        raise TaskError(FIELD, path, f"{len(shapes)} sizes of picture, such as {some}", "set data_options.size")
    x = np.stack(pictures)
    labels = np.repeat(np.arange(len(classes)), [len(group) for group in files])
    return from_arrays(
        path,
        x,
        labels,
        layout="hwc",
        class_names=[c.name for c in classes],
        note=f"{len(x)} pictures from folder {root.name}",
    )


def _picture(path: str, file: Path, size: int | None) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            mode, picture = opened.mode, ImageOps.exif_transpose(opened)
            picture = picture.convert("L" if mode in ("1", "L") else "RGB")
            if size is not None:
                picture = ImageOps.fit(picture, (size, size))
    except Exception as error:  # Pillow's decoders raise many kinds for a broken file
        raise TaskError(FIELD, path, f"{file.name} is no readable picture ({error})", "repair or remove it") from error
    if mode not in EIGHT_BIT:
        raise TaskError(FIELD, path, f"{file.name} has pixels of mode {mode}", "convert it to 8 bits a channel")
    return np.asarray(picture).reshape(picture.height, picture.width, -1)


def lines(
    path: str,
    field: str = "text",
    length: int = 16,
    vocabulary_size: int = 2000,
    secrets: Sequence[str] = (),
) -> Dataset:
    """One text a line (.txt), or the entry ``field`` of one JSON object a line (.jsonl)."""
    file = existing(path)
    try:
        rows = [row for row in file.read_text(encoding="utf-8").splitlines() if row.strip()]
    except UnicodeDecodeError as error:
        raise TaskError(FIELD, path, f"not UTF-8 text ({error})", "store it as UTF-8") from error
    if not rows:
        raise TaskError(FIELD, path, "no text", "give one text a line")
    if file.suffix == ".jsonl":
        rows = [_entry(path, number, row, field) for number, row in enumerate(rows, 1)]
    note = f"{fingerprint(file)}; one text a line, lower case"
    return text_dataset(path, rows, length=length, vocabulary_size=vocabulary_size, secrets=secrets, note=note)


def _entry(path: str, number: int, row: str, field: str) -> str:
    try:
        return str(json.loads(row)[field])
    except (ValueError, KeyError, TypeError) as error:
        raise TaskError(
            FIELD,
            path,
            f"text {number} is no JSON object with {field!r} ({error})",
            "mend it, or set data_options.field",
        ) from error


def torch_dataset(
    path: str,
    arguments: Mapping[str, Any] | None = None,
    layout: str = "chw",
    value_range: Sequence[Any] | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """``"package.module:name"``: a torch Dataset of (x, y) pairs, or a class or function that makes one.

    ``arguments`` are passed to it. A function may also return a fedsim Dataset, which is taken as it is.
    """
    source = resolve(FIELD, path)
    try:
        if not isinstance(source, torch.utils.data.Dataset):
            source = source(**(arguments or {}))
        if isinstance(source, Dataset):
            return source
        pairs = [source[i] for i in range(len(source))]
        x = np.stack([np.asarray(x) for x, _ in pairs])
        y = np.asarray([np.asarray(y) for _, y in pairs])
    except TaskError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise TaskError(
            FIELD,
            path,
            f"gives no (x, y) pairs of one shape ({type(error).__name__}: {error})",
            "name a torch Dataset whose x are arrays of one shape and whose y are class ids",
        ) from error
    return from_arrays(path, x, y, layout=layout, value_range=value_range, class_names=class_names, note=f"from {path}")


def hugging_face(
    name: str,
    split: str = "train",
    subset: str | None = None,
    input: str = "image",
    label: str = "label",
    length: int = 16,
    vocabulary_size: int = 2000,
) -> Dataset:
    """``"hf:<name>"`` through flwr-datasets, from the network or its cache: pictures, vectors or strings."""
    from flwr_datasets import FederatedDataset

    try:
        rows = FederatedDataset(dataset=name, subset=subset, partitioners={split: 1}).load_split(split)
    except Exception as error:  # the hub's client raises many kinds when offline or for an unknown name
        raise TaskError(
            FIELD, f"hf:{name}", f"cannot be loaded ({error})", "check the name, split, subset and the network"
        ) from error
    found = rows.column_names
    text = input in found and isinstance(rows[0][input], str)
    for option, column in (("input", input),) if text else (("input", input), ("label", label)):
        if column not in found:
            raise TaskError(f"task.data_options.{option}", column, "no such column", f"columns: {', '.join(found)}")
    note = f"Hugging Face data set {name}, split {split}"
    if text:
        return text_dataset(f"hf:{name}", rows[input], length=length, vocabulary_size=vocabulary_size, note=note)
    try:
        x = np.stack([np.asarray(value) for value in rows[input]])
    except ValueError as error:
        raise TaskError(FIELD, f"hf:{name}", f"{input!r} is not of one shape ({error})", "resize it first") from error
    names = getattr(rows.features[label], "names", None)
    return from_arrays(f"hf:{name}", x, np.asarray(rows[label]), layout="hwc", class_names=names, note=note)
