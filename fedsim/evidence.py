"""Proof that a control was on: what clients measured while protecting, and what crossed the wire."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict
from numpy.typing import NDArray
from torch import Tensor

from attacks import Message, View
from crypto.secagg.evidence import uniformity
from crypto.secagg.residue import cohort_per_coordinate
from crypto.secagg.wire import FRAME_BYTES
from strategies.clock import CPU, ROUND
from strategies.sample import DECRYPTED, PLAIN, kept


class EvidenceLog:
    """Collects, round by round, what each client's state says of its defences, of its CPU time and of its update.

    A client's state comes back to the experimenter with its context; it is never part of a message to the server.
    """

    def __init__(self) -> None:
        self._measured: dict[str, list[float]] = defaultdict(list)
        self._plain: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        self._decrypted: dict[int, NDArray[np.float64]] = {}

    def note(self, row: Mapping[str, Any], states: Mapping[int, RecordDict]) -> None:
        """Take in the states of the clients that were asked in the round of ``row``, which just ended."""
        for client in row["cohort"]:
            state = states[client].metric_records
            spent = dict(state.get(CPU, {}))
            if spent.get(ROUND) != row["round"]:
                continue  # a client that left before it did anything; what its state says is an earlier round's
            measured = dict(state.get("evidence", {})) if "train" in spent else {}
            for name, record in ((CPU, spent), ("evidence", measured)):
                for key, value in record.items():
                    if key != ROUND and not isinstance(value, list):
                        self._measured[f"{name}.{key}"].append(float(value))
        self._note_samples(row, states)

    def _note_samples(self, row: Mapping[str, Any], states: Mapping[int, RecordDict]) -> None:
        def samples(name: str, clients: Iterable[int]) -> list[tuple[NDArray[np.float64], float]]:
            records = (states[client].array_records.get(name) for client in clients)
            return [found for record in records if record and (found := kept(record, row["round"]))]

        sent = samples(PLAIN, row["answered"])
        if sent and len(sent) == len(row["answered"]) and not row.get("lie"):
            vectors, examples = zip(*sent, strict=True)
            self._plain[row["round"]] = np.stack(vectors), np.array(examples)
        if decrypted := samples(DECRYPTED, states):
            self._decrypted[row["round"]] = decrypted[0][0]

    def largest_error(self, means: Mapping[int, NDArray[np.float64]], *, weighted: bool) -> float | None:
        """The largest distance, over rounds and sampled coordinates, of the protocol's mean from the plain one.

        ``means`` are the server's; where it has none, those that clients decrypted. None where no round has both.
        """
        got = {**self._decrypted, **means}
        errors = [
            float(np.abs(np.average(vectors, axis=0, weights=examples if weighted else None) - got[round]).max())
            for round, (vectors, examples) in self._plain.items()
            if round in got
        ]
        return max(errors, default=None)

    def bare(self) -> dict[int, float]:
        """Round -> the share of the sampled coordinates at which one client alone put something into the sum."""
        return {
            round: float((cohort_per_coordinate(vectors != 0) == 1).mean())
            for round, (vectors, _) in self._plain.items()
            if len(vectors) > 1
        }

    def cpu_seconds(self) -> dict[str, float]:
        """CPU seconds of all clients over all rounds, stage by stage."""
        spent = {key: values for key, values in self._measured.items() if key.startswith(f"{CPU}.")}
        return {key.removeprefix(f"{CPU}."): sum(values) for key, values in spent.items()}

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
    costs: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """What one training proved and took.

    ``cause`` says why it could not go on, ``protocol`` what its server states, ``costs`` what it took by stage.
    """
    return {
        "cause": cause,
        "evidence": {
            "clients": log.summary("evidence"),
            "wire": on_the_wire(view),
            **({"protocol": dict(protocol)} if protocol else {}),
            **costs,
        },
        "timings": {**timings, "client_cpu_seconds": log.summary(CPU)},
    }


def on_the_wire(view: View) -> dict[str, Any]:
    """What the view proves by itself: forms of the messages, and whether all clients of a round got the same model."""
    received = [m for m in _training(view) if m.direction == "received" and m.arrays]
    masked = [m.arrays["hidden"]["vector"] for m in received if m.form == "masked" and "vector" in m.arrays["hidden"]]
    return {
        "forms": sorted({message.form for message in received}),
        **({"masked_byte_p_value": _uniformity(masked)} if masked else {}),
        "same_model_for_all": _same_model_for_all(view),
        "readable_updates": len(view.updates),
    }


def _same_model_for_all(view: View) -> bool:
    """Whether each round's clients were sent one model, as far as the view holds what was sent."""
    first: dict[int, Mapping[str, Tensor]] = {}
    for message in _training(view):
        if message.direction == "sent" and "arrays" in message.arrays:
            sent = message.arrays["arrays"]
            one = first.setdefault(message.round, sent)
            if one is not sent and not all(torch.equal(one[name], tensor) for name, tensor in sent.items()):
                return False
    return True


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


def bytes_on_the_wire(view: View) -> dict[str, Any]:
    """Bytes of training, up and down: in all, stage by stage for one client in one round, and the sum of its stages.

    A stage's figure is the mean over those who took part in it: the sum is that of a client that stays to the end.
    """
    cost: dict[str, Any] = {}
    for way, direction in (("up", "received"), ("down", "sent")):
        stages: dict[str, list[int]] = defaultdict(list)
        for message in _training(view):
            if message.direction == direction:
                stages[message.stage.removeprefix("train.")].append(message.bytes)
        by_stage = {stage: statistics.fmean(sizes) for stage, sizes in stages.items()}
        cost[f"bytes_{way}"] = sum(map(sum, stages.values()))
        cost[f"bytes_{way}_per_client_round"] = sum(by_stage.values())
        cost[f"bytes_{way}_by_stage"] = by_stage
    return cost


def _training(view: View) -> list[Message]:
    """The messages of training, whatever the protocol's stages, that were answered with no error."""
    return [m for m in view.messages if m.stage.split(".")[0] == "train" and not m.error]


def _uniformity(masked: Sequence[bytes]) -> float:
    """The p-value of all masked words, without their messages' headers, having uniform bytes: small means not."""
    return uniformity(np.concatenate([np.frombuffer(vector, np.uint8, offset=FRAME_BYTES) for vector in masked]))
