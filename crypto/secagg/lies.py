"""Try a lie: every one takes a victim's update out of the weak profile that it fits, and is refused by `paper`."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import crypto.secagg.setup_lies
import crypto.secagg.survivor_lies  # noqa: F401  (both register their lies)
from crypto.entropy import Entropy
from crypto.errors import SecAggError
from crypto.secagg.client import Client
from crypto.secagg.identity import enrol
from crypto.secagg.lying import LIES, Accomplice, Lie
from crypto.secagg.profiles import Profile
from crypto.secagg.round import carry, make_terms, rounding_seed


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to: the ``loot`` (d,), a sum over the ``exposed``, or the error that stopped it."""

    loot: NDArray[np.float64] | None = None
    exposed: tuple[int, ...] = ()
    stopped: SecAggError | None = None


def attempt(
    name: str,
    *rounds: NDArray[np.float32],
    profile: Profile,
    threshold: int,
    victim: int = 0,
    neighbours: int | None = None,
    bits: int = 16,
    seed: int = 0,
    entropy: Entropy = os.urandom,
) -> Outcome:
    """Try the lie ``name`` on unchanged clients of ``profile``; ``rounds``: the updates (n, d) of its rounds."""
    kind = LIES[name]
    if len(rounds) != kind.rounds:
        raise ValueError(f"{name} takes the updates of {kind.rounds} rounds, not of {len(rounds)}")
    clip = max(float(np.abs(updates).max()) for updates in rounds)
    terms = make_terms(rounds[0], neighbours, threshold, bits, clip, None, entropy)
    identities = enrol(terms.clients, entropy)
    server: Lie | None = None
    try:
        for updates in rounds:
            sent = updates.copy()
            others = [i for i in range(terms.clients) if i != victim]
            if kind.others_zero:
                sent[others] = 0
            known = {i: terms.encoding.encode(sent[i], 1, rounding_seed(seed, 0, i)) for i in others}
            server = kind(terms, profile, victim, known=known, earlier=server, entropy=entropy)
            corrupt = server.recruits()
            clients = [
                (Accomplice if i in corrupt else Client)(i, profile, identity, entropy)
                for i, identity in enumerate(identities)
            ]
            server.accomplices = {c.index: c for c in clients if isinstance(c, Accomplice)}
            carry(server, clients, sent, seed=seed, model_hash=server.model_hash_of)
        assert server is not None
        return Outcome(server.loot(), server.exposed())
    except SecAggError as stopped:
        return Outcome(stopped=stopped)
