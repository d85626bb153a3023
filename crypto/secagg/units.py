"""What the parts of a round cost on this machine: CPU seconds, the median of several repeats."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from crypto import shamir
from crypto.encoding import Encoding
from crypto.keys import KeyPair, SigningKey, verify
from crypto.masks import add_masks
from crypto.secagg.messages import STAGES, Masked
from crypto.secagg.policy import Policy
from crypto.secagg.profiles import Profile
from crypto.secagg.round import simulate_round

_WORDS = 1_000_000
_SMALL, _LARGE = 8, 24
CALIBRATED_THRESHOLD = 2
"""The threshold of the small rounds behind `Units.stages`: what a larger one adds is counted apart."""


class Line(NamedTuple):
    """CPU seconds a client: ``fixed``, and ``each`` per neighbour."""

    fixed: float
    each: float


@dataclass(frozen=True)
class Units:
    """CPU seconds of the parts of a round of one profile, on the machine and at the load they were measured."""

    stages: Mapping[str, Mapping[str, Line]]
    """Stage -> party -> the work for one client but for its words: agreements, sealing, signatures, messages, calls."""
    verify: float
    reopen: float
    """Rebuilding one mask of a dropped client: an agreement and a cipher."""
    mask_word: float
    """One 32-bit word of one mask, expanded and added."""
    round_value: float
    """One value, checked and rounded."""
    write_word: float
    read_word: float
    """One 32-bit word of a masked vector: into its message; out of it and onto the total."""
    share_cell: float
    """Sharing both secrets, per holder and threshold."""
    combine_cell: float
    """Rebuilding one secret, per square of the threshold."""


def measure_units(profile: Profile) -> Units:
    """Time every part, in less than a CPU second: small rounds of ``profile`` in two sizes, words and shares alone."""
    signer, pair, peer = SigningKey(os.urandom(32)), KeyPair(os.urandom(32)), KeyPair(os.urandom(32)).public
    statement, keys = os.urandom(80), [os.urandom(32) for _ in range(8)]
    signature = signer.sign(statement)
    words, update = np.zeros(_WORDS, np.uint32), np.linspace(-1, 1, _WORDS, dtype=np.float32)
    encoding = Encoding(_WORDS, 1.0, 16, 1, 32)
    vector = Masked(bytes(16), 0, 0, words)
    written = vector.encode()

    def read() -> None:
        nonlocal words
        words += Masked.decode(written, client=0, stage="masked").vector(encoding)

    def reopen() -> None:
        add_masks(words[:16], [pair.agree(peer, statement)])

    return Units(
        stages=_lines(profile),
        verify=typical(lambda: verify(signer.public, signature, statement), 20),
        reopen=typical(reopen, 20),
        mask_word=typical(lambda: add_masks(words, keys), 1) / len(keys) / _WORDS,
        round_value=typical(lambda: encoding.encode(update, 1, keys[0]), 1) / _WORDS,
        write_word=typical(vector.encode, 1) / _WORDS,
        read_word=typical(read, 1) / _WORDS,
        share_cell=_slope(_share) / 2,  # twice as many holders as the threshold
        combine_cell=_slope(_combine),
    )


def typical(work: Callable[[], object], times: int, repeats: int = 9) -> float:
    """CPU seconds of one ``work``: the median over ``repeats`` of the mean over ``times``."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(times):
            work()
        taken.append((time.process_time() - start) / times)
    return statistics.median(taken)


def _lines(profile: Profile) -> dict[str, dict[str, Line]]:
    """What a stage takes a client, from complete graphs of two sizes and next to no words."""
    small, large = _per_client(_SMALL, profile), _per_client(_LARGE, profile)
    lines: dict[str, dict[str, Line]] = {stage: {} for stage in STAGES}
    for stage, party in small:
        each = (large[stage, party] - small[stage, party]) / (_LARGE - _SMALL)
        lines[stage][party] = Line(small[stage, party] - (_SMALL - 1) * each, each)
    return lines


def _per_client(clients: int, profile: Profile) -> dict[tuple[str, str], float]:
    updates = np.zeros((clients, 1), np.float32)
    lenient = replace(profile, policy=Policy(split_view=False))
    taken: dict[tuple[str, str], list[float]] = {(s, party): [] for s in STAGES for party in ("client", "server")}
    for _ in range(5):
        spent = simulate_round(updates, threshold=CALIBRATED_THRESHOLD, profile=lenient, clip=1.0).cpu_seconds
        for stage, party in taken:
            taken[stage, party].append(spent[stage][party] / clients)
    return {key: statistics.median(seconds) for key, seconds in taken.items()}


def _slope(work: Callable[[int], float], low: int = 8, high: int = 48) -> float:
    """Of ``work``, between two thresholds, over the square of the threshold."""
    return (work(high) - work(low)) / (high**2 - low**2)


def _share(threshold: int) -> float:
    secrets = np.zeros((2, shamir.SECRET_BYTES), np.uint8)
    return typical(lambda: shamir.share(secrets, 2 * threshold, threshold, os.urandom), 20)


def _combine(threshold: int) -> float:
    """Per secret, of a hundred with holders of their own."""
    secrets = np.zeros((100, shamir.SECRET_BYTES), np.uint8)
    shares = shamir.share(secrets, 2 * threshold, threshold, os.urandom)
    draw = np.random.default_rng(0)
    holders = np.array([draw.choice(2 * threshold, threshold, replace=False) for _ in secrets])
    given = np.take_along_axis(shares, holders[..., None], axis=1)
    return typical(lambda: shamir.combine(holders, given), 1) / len(secrets)
