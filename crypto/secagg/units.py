"""What the parts of a round cost on this machine: CPU seconds, the median of several repeats."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from crypto import shamir
from crypto.encoding import Encoding
from crypto.keys import KeyPair, SigningKey, seal, unseal, verify
from crypto.masks import add_masks, keystream
from crypto.secagg import binding
from crypto.secagg.client import Client
from crypto.secagg.identity import Identity, enrol
from crypto.secagg.messages import Endorsement, Inbox, Masked, Terms
from crypto.secagg.profiles import PROFILES
from crypto.secagg.wire import Message
from crypto.shamir import SHARE_BYTES

_WORDS = 1_000_000
_PEERS = 64
M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Units:
    """CPU seconds of the parts of a round, on the machine and at the load they were measured."""

    key_pair: float
    agreement: float
    seal: float
    unseal: float
    sign: float
    verify: float
    stream: float
    """Setting up one mask's cipher."""
    mask_word: float
    """One word of one mask, expanded and added."""
    round_value: float
    """One value, checked and rounded."""
    write_word: float
    read_word: float
    """One word of a masked vector: into its message; out of it and onto the total."""
    message: float
    """A short message, written and read."""
    call: float
    """What a client does in a stage beside all the others: checks, hashes, state."""
    row: float
    """One row of a list in a message, written and read."""
    share: float
    share_cell: float
    """Sharing both secrets among twice the threshold: fixed, and per square of the threshold."""
    combine: float
    combine_cell: float
    """Rebuilding one secret: fixed, and per square of the threshold (none where all owners have the same holders)."""


def measure_units() -> Units:
    """Time every part, in less than a CPU second."""
    pairs = [KeyPair(os.urandom(32)) for _ in range(_PEERS)]
    signers = [SigningKey(os.urandom(32)) for _ in range(_PEERS)]
    peers = [KeyPair(os.urandom(32)).public for _ in range(_PEERS)]
    context, plain, statement = os.urandom(32), bytes(2 * SHARE_BYTES), bytes(120)
    keys = [pair.agree(peer, context) for pair, peer in zip(pairs, peers, strict=True)]
    key, signed = keys[0], [(signer.public, signer.sign(statement)) for signer in signers]
    places = [(binding.share_nonce(0, i), binding.share_bound(context, 0, i)) for i in range(_PEERS)]
    sealed = [seal(key, nonce, plain, bound) for key, (nonce, bound) in zip(keys, places, strict=True)]
    words, update = np.zeros(_WORDS, np.uint32), np.linspace(-1, 1, _WORDS, dtype=np.float32)
    encoding = Encoding(_WORDS, 1.0, 16, 1, 32)
    vector = Masked(bytes(16), 0, 0, words)
    written = vector.encode()

    def read() -> None:
        nonlocal words
        words += Masked.decode(written, client=0, stage="masked").vector(encoding)

    def agree() -> None:
        for i, (pair, peer) in enumerate(zip(pairs, peers, strict=True)):
            pair.agree(peer, binding.key_info(context, i, _PEERS, b"mask"))

    def seal_all() -> None:
        for i, key in enumerate(keys):
            seal(key, binding.share_nonce(0, i), plain, binding.share_bound(context, 0, i))

    def unseal_all() -> None:
        for i, (key, text) in enumerate(zip(keys, sealed, strict=True)):
            unseal(key, binding.share_nonce(0, i), text, binding.share_bound(context, 0, i))

    def verify_all() -> None:
        for public, signature in signed:
            verify(public, signature, statement)

    short = Endorsement(bytes(16), 0, 0, signed[0][1])
    message = typical(lambda: _cross(short), 200)
    rows = Inbox(bytes(16), 0, 0, tuple(enumerate(sealed)))
    key_pair = typical(lambda: KeyPair(os.urandom(32)), 100)
    share, share_cell = _line(_share, 8, 48)
    combine, combine_cell = _line(_combine, 8, 48)
    return Units(
        key_pair=key_pair,
        agreement=typical(agree, 2) / _PEERS,
        seal=typical(seal_all, 5) / _PEERS,
        unseal=typical(unseal_all, 5) / _PEERS,
        sign=typical(lambda: [signer.sign(statement) for signer in signers], 1) / _PEERS,
        verify=typical(verify_all, 1) / _PEERS,
        stream=typical(lambda: keystream(key), 300),
        mask_word=typical(lambda: add_masks(words, [key] * 8), 1) / 8 / _WORDS,
        round_value=typical(lambda: encoding.encode(update, 1, key), 1) / _WORDS,
        write_word=typical(vector.encode, 1) / _WORDS,
        read_word=typical(read, 1) / _WORDS,
        message=message,
        call=_call() - 2 * key_pair - message,
        row=(typical(lambda: dict(_cross(rows).sealed), 20) - message) / _PEERS,
        share=share,
        share_cell=share_cell,
        combine=combine,
        combine_cell=combine_cell,
    )


def typical(work: Callable[[], object], times: int, repeats: int = 15) -> float:
    """CPU seconds of one ``work``: the median over ``repeats`` of the mean over ``times``."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(times):
            work()
        taken.append((time.process_time() - start) / times)
    return statistics.median(taken)


def _call() -> float:
    """A client's whole first stage without signing."""
    terms = Terms(bytes(16), 0, 0, 100, 22, 13, 32, 16, 1, 1.0, _WORDS).encode()
    me = enrol(1, os.urandom)[0]
    return typical(lambda: Client(0, PROFILES["semi_honest"], Identity(me.signing_key)).advertise(terms), 50)


def _cross(message: M) -> M:
    return type(message).decode(message.encode(), client=0, stage=message.stage)


def _line(work: Callable[[int], float], low: int, high: int) -> tuple[float, float]:
    """Intercept and slope of ``work``, at thresholds ``low`` and ``high``, over the square of the threshold."""
    first, second = work(low), work(high)
    slope = (second - first) / (high**2 - low**2)
    return first - slope * low**2, slope


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
    return typical(lambda: shamir.combine(holders, given), 1) / 100
