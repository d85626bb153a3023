"""The service's query log: append-only JSON lines, chained by hash, without the inputs.

Of each input it keeps a digest of 64 bits that near-duplicates nearly share (Charikar 2002), and how far the model was
from a tie on it. That is enough for the signals of ``attacks.monitor``. A file beside it, NAME.head, holds how many
lines there are and the digest of the last, without which a log that was cut off at its end would look whole.
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
_REMEDY = "keep the file, and start another log"


class LogBroken(ValueError):
    """The log does not hold what was written: something was changed, cut out, or cut off at its end."""


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
        self.path, self._count, self._last = path, 0, _GENESIS
        for self._count, _ in enumerate(entries(path), 1):
            pass
        if self._count:
            self._last = hashlib.sha256(path.read_bytes().splitlines()[-1]).hexdigest()

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one line, and have it and the head on disk before the answer leaves."""
        line = json.dumps({**entry, "previous": self._last}, sort_keys=True).encode()
        _write(self.path, line + b"\n", os.O_APPEND)
        self._count, self._last = self._count + 1, hashlib.sha256(line).hexdigest()
        head = head_of(self.path)
        fresh = head.with_name(f"{head.name}.new")
        _write(fresh, json.dumps({"lines": self._count, "last": self._last}).encode(), os.O_TRUNC)
        os.replace(fresh, head)


def head_of(log: Path) -> Path:
    """The file that says how many lines a log has, and the digest of the last."""
    return log.with_name(f"{log.name}.head")


def _write(path: Path, content: bytes, how: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600)
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """Every line in order; raises LogBroken where the chain is, or where the log is shorter than its head says."""
    head = _head(
        path
    )  # before the log, which a service may lengthen meanwhile; it may lie one line behind a crash, too
    last, number = _GENESIS, 0
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else (), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            raise LogBroken(f"{path}: line {number} is no JSON; {_REMEDY}") from None
        if entry.get("previous") != last:
            raise LogBroken(
                f"{path}: line {number} does not follow line {number - 1}: changed, or a line is missing; {_REMEDY}"
            )
        last = hashlib.sha256(line).hexdigest()
        if number == head["lines"] and last != head["last"]:
            raise LogBroken(f"{path}: line {number} is not the one that {head_of(path).name} names; {_REMEDY}")
        yield entry
    if number < head["lines"]:
        raise LogBroken(f"{path}: {number} of at least {head['lines']} lines: the end was cut off; {_REMEDY}")
    if number and not head["lines"]:
        raise LogBroken(f"{path}: {head_of(path).name} is missing, so its end may be, too; {_REMEDY}")


def _head(log: Path) -> dict[str, Any]:
    place = head_of(log)
    if not place.exists():
        return {"lines": 0, "last": _GENESIS}
    try:
        told = json.loads(place.read_text())
        return {"lines": int(told["lines"]), "last": str(told["last"])}
    except (ValueError, KeyError, TypeError):
        raise LogBroken(f"{place}: does not say how many lines {log.name} has; {_REMEDY}") from None


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
    """Each caller's signals, how many inputs it was ``refused``, and in how many requests (``refusals``)."""
    seen: dict[str, dict[str, Any]] = {}
    for entry in entries(path):
        own = seen.setdefault(entry["caller"], {"digests": [], "margins": [], "refused": 0, "refusals": 0})
        own["digests"] += [int(digest, 16) for digest in entry["digests"]]
        own["margins"] += entry["margins"]
        own["refused"] += entry["inputs"] if entry["error"] else 0
        own["refusals"] += bool(entry["error"])
    return {
        caller: {
            **signals(own["digests"], own["margins"]),
            "refused": float(own["refused"]),
            "refusals": float(own["refusals"]),
        }
        for caller, own in seen.items()
    }
