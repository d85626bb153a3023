"""Flower records as plain values: tensors, numbers, digests, and how many bytes they take."""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.constant import SType
from torch import Tensor

State = Mapping[str, Tensor]
Form = Literal["plain", "masked", "ciphertext"]

MASKED = "fedsim.masked"
"""Serialisation type of a vector that opens only in the sum over its cohort."""
ENCODED = "fedsim.encoded"
"""Serialisation type of a vector that only a trusted party may see, to add it."""
CIPHERTEXT = "fedsim.ciphertext"
"""Serialisation type of a homomorphic ciphertext."""


class Reader:
    """Reads ArrayRecords; records that share their bytes, as broadcasts do, are read once and share the tensors."""

    def __init__(self) -> None:
        self._read: dict[tuple[int, ...], tuple[str, State]] = {}
        self._alive: list[list[bytes]] = []

    def read(self, record: ArrayRecord) -> tuple[str, State]:
        """The record's sha256 digest and its entries as tensors."""
        key = tuple(id(array.data) for array in record.values())
        if key not in self._read:
            self._alive.append([array.data for array in record.values()])  # an id names bytes only while they live
            tensors = {name: torch.from_numpy(array.numpy()) for name, array in record.items()}
            self._read[key] = digest(record), tensors
        return self._read[key]


def form_of(record: ArrayRecord) -> Form:
    """What the arrays are to whoever holds the message: numbers in the clear, a masked vector, or ciphertext."""
    types = {array.stype for array in record.values()}
    if types <= {SType.NUMPY}:
        return "plain"
    return "masked" if types <= {MASKED} else "ciphertext"


def plain(records: Mapping[str, MetricRecord] | Mapping[str, ConfigRecord]) -> dict[str, dict[str, Any]]:
    """Metric or config records as dictionaries that share nothing with them."""
    return {
        name: {key: list(value) if isinstance(value, list) else value for key, value in record.items()}
        for name, record in records.items()
    }


def numbers(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Every number in the metrics by its name: ``loss``, ``losses[0]``; ``record.loss`` where two records share it."""
    found: dict[str, float] = {}
    for record, entries in metrics.items():
        for key, value in entries.items():
            items = [(f"{key}[{i}]", v) for i, v in enumerate(value)] if isinstance(value, list) else [(key, value)]
            for name, number in items:
                found[f"{record}.{name}" if name in found else name] = float(number)
    return found


def payload_bytes(content: RecordDict) -> int:
    """Bytes of names and values: arrays as serialised, numbers 8 each; Flower's envelope is not counted."""
    total = 0
    for name, record in content.items():
        total += len(name.encode())
        for key, value in record.items():
            total += len(key.encode()) + sum(map(_size, value if isinstance(value, list) else [value]))
    return total


def _size(value: Any) -> int:
    if isinstance(value, Array):
        return len(value.data)
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytes) else 8


def digest(record: ArrayRecord) -> str:
    """SHA-256, in hexadecimal, over names, types, shapes and bytes, in the record's order."""
    digest = hashlib.sha256()
    for name, array in record.items():
        digest.update(f"{name}|{array.dtype}|{array.shape}|{len(array.data)}|".encode())
        digest.update(array.data)
    return digest.hexdigest()
