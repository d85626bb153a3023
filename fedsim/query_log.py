"""The service's query log: append-only JSON lines, chained by hash, without the inputs.

Of each input it keeps a digest of 64 bits that near-duplicates nearly share (Charikar 2002), and how far the model was
from a tie on it. That is enough for the signals of ``attacks.monitor``.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BITS = 64
NEAR = 3
"""Bits in which the digests of near-duplicates differ, at most."""
MARGIN = 0.2
"""Lead of the first confidence over the second below which a query probes the boundary."""
LOOK_BACK = 1000
"""Inputs, a caller's last ones, that the signals of nearness look at."""
_GENESIS = "0" * 64


class LogBroken(ValueError):
    """A line of the log does not follow from the one before it: something was changed, or cut out."""


def digests(inputs: Tensor) -> list[str]:
    """Of each input (N, ...) the signs of 64 random projections, its own mean taken out, as 16 hex digits."""
    flat = inputs.detach().double().flatten(1)
    draw = torch.Generator().manual_seed(BITS)
    projections = torch.randn(flat.shape[1], BITS, generator=draw, dtype=torch.float64)
    signs = ((flat - flat.mean(1, keepdim=True)) @ projections > 0).tolist()
    return [f"{int(''.join('01'[bit] for bit in row), 2):016x}" for row in signs]


def margins(confidences: Tensor) -> list[float]:
    """The model's own lead (N,) of its first confidence over its second, to two places."""
    best = confidences.topk(min(2, confidences.shape[1]), dim=1).values
    return [round(float(row[0] - row[-1]), 2) for row in best]


class QueryFile:
    """The log of one service; an existing file goes on where it ended, if it is whole."""

    def __init__(self, path: Path) -> None:
        self.path, self._last = path, _GENESIS
        for _ in entries(path):
            pass
        if path.exists() and (lines := path.read_bytes().splitlines()):
            self._last = hashlib.sha256(lines[-1]).hexdigest()

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one line, and have it on disk before the answer leaves."""
        line = json.dumps({**entry, "previous": self._last}, sort_keys=True).encode()
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, line + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        self._last = hashlib.sha256(line).hexdigest()


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """Every line in order; raises LogBroken where the chain is."""
    last = _GENESIS
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else (), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            raise LogBroken(f"{path}: line {number} is no JSON; keep the file, and start another log") from None
        if entry.get("previous") != last:
            raise LogBroken(
                f"{path}: line {number} does not follow line {number - 1}: changed, or a line is missing; keep the "
                "file, and start another log"
            )
        last = hashlib.sha256(line).hexdigest()
        yield entry


def signals(known: Sequence[int], leads: Sequence[float]) -> dict[str, float]:
    """The signals of ``attacks.monitor`` from the digests and margins of what one caller was answered, in order."""
    known, asked = known[-LOOK_BACK:], len(known)
    near = sum(any((known[i] ^ known[j]).bit_count() <= NEAR for j in range(i)) for i in range(len(known)))
    close = sum(margin < MARGIN for margin in leads[-LOOK_BACK:])
    return {
        "volume": float(asked),
        "near_duplicates": near / len(known) if known else 0.0,
        "boundary_probing": close / len(known) if known else 0.0,
    }


def suspicion(path: Path) -> dict[str, dict[str, float]]:
    """Each caller's signals, and how many inputs it was ``refused``."""
    seen: dict[str, dict[str, Any]] = {}
    for entry in entries(path):
        own = seen.setdefault(entry["caller"], {"digests": [], "margins": [], "refused": 0})
        own["digests"] += [int(digest, 16) for digest in entry["digests"]]
        own["margins"] += entry["margins"]
        own["refused"] += entry["inputs"] if entry["error"] else 0
    return {
        caller: {**signals(own["digests"], own["margins"]), "refused": float(own["refused"])}
        for caller, own in seen.items()
    }
