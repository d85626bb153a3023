"""What a round costs at any size: exact bytes, and CPU seconds from unit costs measured on this machine.

A round of A survivors among n clients with k neighbours and D drop-outs after the shares does 2nk agreements, nk sealed
shares, (k + 1)A + A + Dk masks of d words and n roundings of d values (Bell et al., CCS 2020, section 3.4 counts the
same); the rest is messages and Shamir sharing. What goes with the neighbours alone comes from two small rounds; what
goes with words and thresholds is counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from crypto.keys import KEY_BYTES, SIGNATURE_BYTES
from crypto.secagg.messages import SEALED_BYTES, STAGES, TERMS_BYTES
from crypto.secagg.profiles import Profile
from crypto.secagg.units import CALIBRATED_THRESHOLD, Units
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
    alive, own = n - dead, int(s.profile.double_mask)
    width = s.word_bytes / 4  # units are of 32-bit words
    mask, read = d * width * u.mask_word, d * width * u.read_word
    cpu = {
        stage: {party: who * (line.fixed + k * line.each) for party, line in u.stages[stage].items()}
        for stage, who in zip(STAGES, (n, n, alive, alive, alive), strict=True)
    }
    cpu["shares"]["client"] += n * (k + 1) * t * u.share_cell
    cpu["masked"]["client"] += alive * ((k + own) * mask + d * (u.round_value + width * u.write_word))
    cpu["masked"]["server"] += alive * read
    if s.profile.consistency:
        cpu["unmask"]["client"] += alive * (t - CALIBRATED_THRESHOLD) * u.verify
    left = k * alive / max(1, n - 1)  # survivors among a dropped client's neighbours
    owners = alive * own + dead
    distinct = owners if k < n - 1 else min(owners, 2)  # on the complete graph all owners have the same holders
    rebuild = distinct * t * t * u.combine_cell
    cpu["unmask"]["server"] += rebuild + alive * own * mask + dead * left * (u.reopen + mask) + read
    up, down = wire_bytes(s)
    return Prediction(cpu, up, down)


def wire_bytes(setting: Setting) -> tuple[int, int]:
    """Bytes that all clients together send, and are sent: exact, but for which neighbours dropped out."""
    s = setting
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
