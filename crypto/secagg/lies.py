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
from crypto.secagg.round import carry, make_terms

_MUTED = b"model without gradient"


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
            server = kind(terms, profile, victim, earlier=server, entropy=entropy)
            muted = [server.mutes(i) for i in range(terms.clients)]
            sent[muted] = 0
            clients = [
                (Accomplice if i in server.allies else Client)(i, profile, identity, entropy)
                for i, identity in enumerate(identities)
            ]
            hashes = [_MUTED if mute else b"" for mute in muted]
            carry(server, clients, sent, seed=seed, model_hash=hashes.__getitem__)
            server.confided = {c.index: c.confided for c in clients if isinstance(c, Accomplice) and c.confided}
        assert server is not None
        return Outcome(server.loot(), server.exposed())
    except SecAggError as stopped:
        return Outcome(stopped=stopped)
