"""A whole round in this process: every client does all its own work, every message crosses as bytes."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crypto.entropy import Entropy
from crypto.errors import DuplicateMessage, UnknownClient, WrongStage
from crypto.masks import Words
from crypto.parameters import find_modulus_bits
from crypto.secagg.client import STEPS, Client
from crypto.secagg.identity import enrol
from crypto.secagg.messages import STAGES, Terms
from crypto.secagg.profiles import PROFILES, Profile
from crypto.secagg.server import Server

Tap = Callable[[str, int, str, bytes], None]
"""Told of every message: stage, client, "up" or "down", bytes."""


@dataclass
class Cost:
    """What a round took: bytes and CPU seconds per stage, over all clients together."""

    bytes_up: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    bytes_down: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    cpu_seconds: dict[str, dict[str, float]] = field(
        default_factory=lambda: {stage: {"client": 0.0, "server": 0.0} for stage in STAGES}
    )

    @contextmanager
    def timed(self, stage: str, party: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.cpu_seconds[stage][party] += time.process_time() - start


@dataclass(frozen=True)
class RoundResult:
    """The opened sum of ``survivors``: ``sum`` in data units (d,), ``weight`` the sum of their weights."""

    sum: NDArray[np.float64]
    weight: int
    survivors: tuple[int, ...]
    words: Words
    """The modular sum as opened, before dequantisation: equal, bit for bit, to the sum of the encoded vectors."""
    cost: Cost

    @property
    def bytes_up(self) -> int:
        """Bytes that all clients together sent."""
        return sum(self.cost.bytes_up.values())

    @property
    def bytes_down(self) -> int:
        return sum(self.cost.bytes_down.values())

    @property
    def cpu_seconds(self) -> dict[str, dict[str, float]]:
        """Stage -> party ("client": all together, "server") -> CPU seconds."""
        return self.cost.cpu_seconds


def simulate_round(
    updates: NDArray[np.float32],
    *,
    neighbours: int | None = None,
    threshold: int,
    bits: int = 16,
    dropped: Mapping[str, Sequence[int]] | None = None,
    profile: str | Profile = "paper",
    clip: float | None = None,
    weights: Sequence[int] | None = None,
    seed: int | None = None,
    entropy: Entropy = os.urandom,
    tap: Tap | None = None,
) -> RoundResult:
    """Sum the rows of ``updates`` (n, d), in [-clip, clip], through the protocol of ``profile``.

    ``neighbours`` None: the complete graph. ``dropped``: stage -> clients that send nothing from that stage on.
    ``clip`` None takes the largest absolute value over all updates, which no real client could know. ``weights``:
    whole numbers >= 0. ``seed`` fixes the stochastic rounding; keys and masks come from ``entropy`` regardless.
    Raises a SecAggError naming client and stage when the round ends without a sum, InfeasibleParameters when no
    modulus holds it.
    """
    if isinstance(profile, str) and profile not in PROFILES:
        raise ValueError(f"profile = {profile!r}: known are {', '.join(PROFILES)}")
    chosen = PROFILES[profile] if isinstance(profile, str) else profile
    terms = make_terms(updates, neighbours, threshold, bits, clip, weights, entropy)
    server = Server(terms, chosen, entropy=entropy)
    clients = [Client(i, chosen, identity, entropy) for i, identity in enumerate(enrol(terms.clients, entropy))]
    return run_round(server, clients, updates, weights, dropped, seed, tap)


def make_terms(
    updates: NDArray[np.float32],
    neighbours: int | None,
    threshold: int,
    bits: int,
    clip: float | None,
    weights: Sequence[int] | None,
    entropy: Entropy,
) -> Terms:
    """The terms of a single round over ``updates``, in a session of its own."""
    n, d = updates.shape
    if weights is not None and len(weights) != n:
        raise ValueError(f"{len(weights)} weights for {n} clients")
    given = () if weights is None else [math.ceil(w) for w in weights if math.isfinite(w)]
    max_weight = max([1 if all(w == 1 for w in given) else 2, *given])  # weights that differ travel with the vectors
    return Terms(
        session=entropy(16),
        round=0,
        client=0,
        clients=n,
        degree=n - 1 if neighbours is None else neighbours,
        threshold=threshold,
        modulus_bits=find_modulus_bits(n, max_weight, bits),
        bits=bits,
        max_weight=max_weight,
        clip=largest(updates) if clip is None else clip,
        dimension=d,
    )


def largest(updates: NDArray[np.float32]) -> float:
    """The largest finite magnitude, or 1 where there is none but zero."""
    top = 0.0
    for row in updates if updates.size else ():
        high = max(float(row.max()), -float(row.min()))
        if not math.isfinite(high):
            high = float(np.max(np.abs(row), where=np.isfinite(row), initial=0.0))
        top = max(top, high)
    return top or 1.0


def run_round(
    server: Server,
    clients: Sequence[Client],
    updates: NDArray[np.float32],
    weights: Sequence[int] | None = None,
    dropped: Mapping[str, Sequence[int]] | None = None,
    seed: int | None = None,
    tap: Tap | None = None,
) -> RoundResult:
    """One round between ``server`` and ``clients``, to the open sum."""
    cost = carry(server, clients, updates, weights, dropped, seed, tap)
    with cost.timed("unmask", "server"):
        total, weight = server.result()
    return RoundResult(total, weight, tuple(sorted(server.survivors)), server.total, cost)


def carry(
    server: Server,
    clients: Sequence[Client],
    updates: NDArray[np.float32],
    weights: Sequence[int] | None = None,
    dropped: Mapping[str, Sequence[int]] | None = None,
    seed: int | None = None,
    tap: Tap | None = None,
    model_hash: Callable[[int], bytes] = lambda client: b"",
) -> Cost:
    """Carry one round's messages between ``server`` and ``clients`` until the server has no more to say.

    ``model_hash``: of the model that a client received.
    """
    leaves_at = _leaving(dropped or {}, len(clients))
    cost = Cost()
    with cost.timed("advertise", "server"):
        outbox = server.start()
    while outbox:
        stage = server.stage
        for index, message in outbox.items():
            cost.bytes_down[stage] += len(message)
            if tap:
                tap(stage, index, "down", message)
            if STAGES.index(stage) >= leaves_at.get(index, len(STAGES)):
                continue
            with cost.timed(stage, "client"):
                if stage == "advertise":
                    answer = clients[index].advertise(message, model_hash(index))
                elif stage == "masked":
                    rounding = None if seed is None else rounding_seed(seed, server.terms.round, index)
                    weight = 1 if weights is None else weights[index]
                    answer = clients[index].mask(message, updates[index], weight, rounding)
                else:
                    answer = getattr(clients[index], STEPS[stage])(message)
            cost.bytes_up[stage] += len(answer)
            if tap:
                tap(stage, index, "up", answer)
            with cost.timed(stage, "server"):
                server.receive(index, answer)
        with cost.timed(stage, "server"):
            outbox = server.advance()
    return cost


def rounding_seed(seed: int, round: int, client: int) -> bytes:
    """The 32 bytes that fix a client's stochastic rounding in one round."""
    return hashlib.sha256(f"fedsim rounding/{seed}/{round}/{client}".encode()).digest()


def _leaving(dropped: Mapping[str, Sequence[int]], clients: int) -> dict[int, int]:
    """Client -> the stage, as a position in STAGES, from which it sends nothing."""
    leaves_at: dict[int, int] = {}
    for stage, who in dropped.items():
        for client in who:
            if stage not in STAGES:
                raise WrongStage(client, stage, f"no such stage; known: {', '.join(STAGES)}")
            if client not in range(clients):
                raise UnknownClient(client, stage, f"not one of {clients} clients")
            if client in leaves_at:
                raise DuplicateMessage(client, stage, "listed twice among the dropped")
            leaves_at[client] = STAGES.index(stage)
    return leaves_at
