"""What is hashed, signed and bound: every byte string that two parties must form alike."""

import hashlib
import struct

from crypto.secagg.messages import Terms
from crypto.secagg.profiles import Profile

_PAIR = struct.Struct("<II")


def context(profile: Profile, terms: Terms, model_hash: bytes) -> bytes:
    """32 bytes that enter every key and signature of the round: its terms and the model it started from."""
    if not profile.fresh_keys:
        return hashlib.sha256(b"fedsim secagg").digest()
    bound = terms.common() + model_hash if profile.bound_terms else terms.session + terms.round.to_bytes(8, "little")
    return hashlib.sha256(b"fedsim secagg" + bound).digest()


def key_info(context: bytes, one: int, other: int, purpose: bytes) -> bytes:
    """The HKDF info of the key that two clients share for ``purpose``: alike for both."""
    return context + _PAIR.pack(min(one, other), max(one, other)) + purpose


def share_nonce(source: int, target: int) -> bytes:
    """The GCM nonce from ``source`` to ``target``: their key seals one message in each direction."""
    return _PAIR.pack(source, target) + bytes(4)


def share_bound(context: bytes, source: int, target: int) -> bytes:
    """What sealed shares are bound to."""
    return context + _PAIR.pack(source, target)


def advert_statement(context: bytes, client: int, mask_key: bytes, share_key: bytes) -> bytes:
    """What a client signs about its keys."""
    return b"fedsim advert" + context + client.to_bytes(4, "little") + mask_key + share_key


def survivor_statement(context: bytes, alive: frozenset[int]) -> bytes:
    """What a client signs about the survivor set."""
    listed = b"".join(client.to_bytes(4, "little") for client in sorted(alive))
    return b"fedsim survivors" + context + hashlib.sha256(listed).digest()


def seed_commitment(seed: bytes) -> bytes:
    """A hash of a self-mask seed: hides its 256 bits, and lets a wrong reconstruction be told from it."""
    return hashlib.sha256(b"fedsim seed" + seed).digest()
