"""Proof that a control was on: what clients measured while protecting, and what crossed the wire."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from flwr.app import RecordDict

from attacks import Message, View
from crypto.secagg.evidence import uniformity
from crypto.secagg.wire import FRAME_BYTES


class EvidenceLog:
    """Collects, round by round, what each client's state says of its defences and of its CPU time.

    A client's state comes back to the experimenter with its context; it is never part of a message to the server.
    """

    def __init__(self) -> None:
        self._measured: dict[str, list[float]] = defaultdict(list)

    def note(self, clients: Sequence[int], states: Mapping[int, RecordDict]) -> None:
        """Take in the states of the clients that were asked in the round that just ended."""
        for client in clients:
            for name in ("evidence", "timings"):
                for key, value in states[client].metric_records.get(name, {}).items():
                    if not isinstance(value, list):
                        self._measured[f"{name}.{key}"].append(float(value))

    def summary(self, prefix: str) -> dict[str, dict[str, float]]:
        """Mean, least and greatest of each measurement over clients and rounds."""
        return {
            key.removeprefix(f"{prefix}."): {
                "mean": statistics.fmean(values),
                "min": min(values),
                "max": max(values),
                "count": len(values),
            }
            for key, values in sorted(self._measured.items())
            if key.startswith(f"{prefix}.")
        }


def measured(
    cause: str | None,
    view: View,
    log: EvidenceLog,
    timings: Mapping[str, float],
    protocol: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """What one training proved and took; ``cause`` says why it could not go on, ``protocol`` what its server states."""
    return {
        "cause": cause,
        "evidence": {
            "clients": log.summary("evidence"),
            "wire": on_the_wire(view),
            **({"protocol": dict(protocol)} if protocol else {}),
        },
        "timings": {**timings, "client": log.summary("timings")},
    }


def on_the_wire(view: View) -> dict[str, Any]:
    """What the view proves by itself: forms of the messages, and whether all clients of a round got the same model."""
    received = [m for m in _training(view) if m.direction == "received" and m.arrays]
    masked = [m.arrays["hidden"]["vector"] for m in received if m.form == "masked" and "vector" in m.arrays["hidden"]]
    sent: dict[int, set[str]] = defaultdict(set)
    for update in view.updates:
        sent[update.round].add(update.base)
    return {
        "forms": sorted({message.form for message in received}),
        **({"masked_byte_p_value": _uniformity(masked)} if masked else {}),
        "same_model_for_all": all(len(models) == 1 for models in sent.values()),
        "readable_updates": len(view.updates),
    }


def side_channels(view: View) -> list[dict[str, Any]]:
    """Everything that travelled beside the updates and tells the server something by itself."""
    seen: dict[tuple[str, str], Any] = {}
    for message in _training(view):
        if message.direction != "received":
            continue
        for record, entries in message.metrics.items():
            for name, value in entries.items():
                seen.setdefault((record, name), value)
    channels = [
        {
            "name": name,
            "where": record,
            "example": value,
            "says": _MEANING.get(name, "a number computed on private data"),
        }
        for (record, name), value in sorted(seen.items())
    ]
    buffers = sorted({name for update in view.updates for name in update.buffers})
    if buffers:
        says = "statistics of the private inputs, layer by layer; not covered by clipping or noise on the update"
        channels.append(
            {
                "name": ", ".join(buffers[:4]) + ("..." if len(buffers) > 4 else ""),
                "where": "buffers",
                "example": None,
                "says": says,
            }
        )
    return channels


_MEANING = {
    "num-examples": "how many examples the client used",
    "num_examples": "how many examples the client used",
    "train_loss": "how well the model already fits the client's data: a membership signal",
}


def bytes_on_the_wire(view: View) -> dict[str, float]:
    """Bytes per client and round, up and down, over all of a round's training messages."""
    sums: dict[str, Counter[tuple[int, int]]] = {"received": Counter(), "sent": Counter()}
    for message in _training(view):
        sums[message.direction][message.round, message.client] += message.bytes
    up, down = sums["received"].values(), sums["sent"].values()
    return {
        "bytes_up_per_client_round": statistics.fmean(up) if up else 0.0,
        "bytes_down_per_client_round": statistics.fmean(down) if down else 0.0,
    }


def _training(view: View) -> list[Message]:
    """The messages of training, whatever the protocol's stages, that were answered with no error."""
    return [m for m in view.messages if m.stage.split(".")[0] == "train" and not m.error]


def _uniformity(masked: Sequence[bytes]) -> float:
    """The p-value of all masked words, without their messages' headers, having uniform bytes: small means not."""
    return uniformity(np.concatenate([np.frombuffer(vector, np.uint8, offset=FRAME_BYTES) for vector in masked]))
