"""What a round costs at any size: exact bytes, and CPU seconds from unit costs measured on this machine.

A round of A survivors among n clients with k neighbours and D drop-outs after the shares does 2nk agreements, nk sealed
shares, (k + 1)A + A + Dk masks of d words and n roundings of d values (Bell et al., CCS 2020, section 3.4 counts the
same); the rest is messages, list rows and Shamir sharing. One client's cost at a million clients is thus what one
client costs here; the server's is a sum of small parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from crypto.keys import KEY_BYTES, SIGNATURE_BYTES
from crypto.secagg.messages import SEALED_BYTES, TERMS_BYTES
from crypto.secagg.profiles import Profile
from crypto.secagg.units import Units
from crypto.secagg.wire import FRAME_BYTES
from crypto.shamir import SHARE_BYTES


@dataclass(frozen=True)
class Setting:
    """A round to be costed; the ``dropped`` leave after their shares are out, and before their vectors are."""

    clients: int
    neighbours: int
    threshold: int
    dimension: int
    profile: Profile
    dropped: int = 0
    word_bytes: int = 4


@dataclass(frozen=True)
class Prediction:
    """CPU seconds, stage -> party, over all clients together; and bytes of all clients together."""

    cpu_seconds: dict[str, dict[str, float]]
    bytes_up: int
    bytes_down: int

    def total(self, party: str | None = None) -> float:
        """CPU seconds of one party over all stages, or of both."""
        return sum(sum(by.values()) if party is None else by[party] for by in self.cpu_seconds.values())


def predict(setting: Setting, units: Units) -> Prediction:
    """The cost of ``setting`` by counting its parts."""
    s, u = setting, units
    n, k, t, d, dead = s.clients, s.neighbours, s.threshold, s.dimension, s.dropped
    alive, signed, consistent = n - dead, s.profile.signed, s.profile.consistency
    width = s.word_bytes / 4  # units are of 32-bit words
    mask = u.stream + d * width * u.mask_word
    left = k * alive / max(1, n - 1)  # survivors among a dropped client's neighbours
    owners = (alive if s.profile.double_mask else 0) + dead
    distinct = owners if k < n - 1 else min(owners, 2)
    rebuild = owners * u.combine + distinct * t * t * u.combine_cell
    unmasking = ((alive if s.profile.double_mask else 0) + dead * left) * mask
    reopen = dead * (2 * u.key_pair + left * u.agreement)
    each = u.message + u.call
    cpu = {
        "advertise": {
            "client": n * (2 * u.key_pair + each + signed * u.sign),
            "server": n * 2 * u.message,
        },
        "shares": {
            "client": n * (k * (u.agreement + u.seal + 2 * u.row + signed * u.verify) + each)
            + n * (u.share + (k + 1) * t / 2 * u.share_cell),
            "server": n * (u.message + 2 * k * u.row),
        },
        "masked": {
            "client": alive * (k * (u.unseal + u.agreement + u.row) + (k + 1) * mask + each)
            + alive * d * (u.round_value + width * u.write_word),
            "server": n * (u.message + k * u.row) + alive * d * width * u.read_word,
        },
        "consistency": {
            "client": consistent * alive * (u.sign + each),
            "server": consistent * alive * u.message,
        },
        "unmask": {
            "client": alive * (2 * k * u.row + each + consistent * (t - 1) * u.verify),
            "server": alive * (3 * k * u.row + u.message) + rebuild + reopen + unmasking + d * width * u.read_word,
        },
    }
    up, down = _bytes(s)
    return Prediction(cpu, up, down)


def _bytes(s: Setting) -> tuple[int, int]:
    n, k, alive = s.clients, s.neighbours, s.clients - s.dropped
    around = 1 + k * (alive - 1) / max(1, n - 1)  # survivors among a survivor's neighbours, and itself
    keys = 2 * KEY_BYTES + s.profile.signed * SIGNATURE_BYTES
    sealed = 4 + SEALED_BYTES
    asked = alive * (k + 1) if s.profile.double_mask else round(alive * (k + 1 - around))
    up = n * (FRAME_BYTES + keys) + n * (FRAME_BYTES + KEY_BYTES + k * sealed)
    up += alive * (FRAME_BYTES + s.dimension * s.word_bytes)
    up += alive * (FRAME_BYTES + 4) + asked * (4 + SHARE_BYTES)
    down = n * (FRAME_BYTES + TERMS_BYTES) + n * (FRAME_BYTES + 1 + k * (4 + keys))
    down += n * (FRAME_BYTES + k * sealed)
    down += alive * (FRAME_BYTES + 12 + 4 * (k + 1))
    if s.profile.consistency:
        up += alive * (FRAME_BYTES + SIGNATURE_BYTES)
        down += alive * (FRAME_BYTES + 4 + math.ceil(n / 8))
        down += round(alive * around) * (4 + SIGNATURE_BYTES)
    return up, down
