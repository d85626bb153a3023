"""What a client demands of the server's terms before it takes part: the server proposes, the client decides."""

import math
from dataclasses import dataclass

from crypto.encoding import BITS_ALLOWED
from crypto.errors import PolicyViolation
from crypto.secagg.messages import Terms


@dataclass(frozen=True)
class Policy:
    """The least a client accepts; every field is its own choice and none comes from the server."""

    min_clients: int = 3
    """Fewest clients in a round and in its survivor set: a sum of two shows each of them the other's update."""
    corrupt: float = 0.0
    """Fraction of its neighbours that may collude with the server."""
    split_view: bool = True
    """Demand 2t > holders + corrupt, so that no server shows two survivor sets and opens both masks of a client."""
    cohort: int | None = None
    """So many clients the server named to this one: the terms must be about them. None where it names none."""
    min_degree: int = 1
    min_threshold: int = 1
    max_clip: float = math.inf
    max_dimension: int = 1 << 32

    def problems(self, terms: Terms) -> list[str]:
        """Every way in which ``terms`` fall short: field, value, reason.

        On a ring a client sees of all survivors only those around it, and is sure of a threshold of them alone: the
        threshold must then be as large as the smallest sum that it accepts.
        """
        holders = terms.degree + 1
        corrupt = math.floor(self.corrupt * terms.degree)
        least = (holders + corrupt) // 2 + 1 if self.split_view else max(2, corrupt + 1)
        least = max(least, self.min_threshold, self.min_clients if terms.degree < terms.clients - 1 else 1)
        bits_ok = terms.bits in BITS_ALLOWED
        wraps = bits_ok and terms.clients * terms.max_weight * ((1 << terms.bits) - 1) >= 1 << terms.modulus_bits
        checks = (
            (
                terms.clients >= self.min_clients,
                f"clients = {terms.clients}: must be at least {self.min_clients}",
            ),
            (
                self.cohort in (None, terms.clients),
                f"clients = {terms.clients}: must be the {self.cohort} that the server named",
            ),
            (
                terms.degree >= self.min_degree,
                f"degree = {terms.degree}: must be at least {self.min_degree}, as agreed",
            ),
            (1 <= terms.degree < terms.clients, f"degree = {terms.degree}: must be from 1 to clients - 1"),
            (
                terms.degree == terms.clients - 1 or terms.degree % 2 == 0,
                f"degree = {terms.degree}: must be even unless everybody is a neighbour",
            ),
            (
                least <= terms.threshold <= holders,
                f"threshold = {terms.threshold}: must be from {least} to {holders} for {terms.degree} neighbours",
            ),
            (terms.modulus_bits in (32, 64), f"modulus_bits = {terms.modulus_bits}: must be a whole word, 32 or 64"),
            (bits_ok, f"bits = {terms.bits}: must be from {BITS_ALLOWED.start} to {BITS_ALLOWED.stop - 1}"),
            (terms.max_weight >= 1, f"max_weight = {terms.max_weight}: must be at least 1"),
            (
                not wraps,
                f"max_weight = {terms.max_weight}: the full sum could overflow {terms.modulus_bits} bits",
            ),
            (
                0 < terms.clip <= self.max_clip and (not bits_ok or terms.encoding.usable),
                f"clip = {terms.clip}: out of range",
            ),
            (1 <= terms.dimension <= self.max_dimension, f"dimension = {terms.dimension}: out of range"),
        )
        return [reason for held, reason in checks if not held]

    def check(self, terms: Terms) -> None:
        """Raise PolicyViolation naming everything that is wrong with ``terms``."""
        if problems := self.problems(terms):
            raise PolicyViolation(terms.client, terms.stage, "; ".join(problems))
