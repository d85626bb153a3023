"""A server that lies in the protocol: what a lie is, and the registry of lies.

A `Lie` is a `Server` that sends something else at one stage or keeps something back; it speaks to unchanged clients
through unchanged messages. It reaches its victim's update unless a client stops it with an error.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from crypto.entropy import Entropy
from crypto.errors import BadShare, SecAggError, TooFewClients, WrongStage
from crypto.keys import KEY_BYTES
from crypto.masks import Words, add_masks
from crypto.secagg.client import Client
from crypto.secagg.messages import Masked, Terms
from crypto.secagg.profiles import Profile
from crypto.secagg.server import Server
from crypto.shamir import SHARE_BYTES


@dataclass(frozen=True)
class Confided:
    """What a colluding client tells the server: its encoded vector, and by client its masks' keys and seed shares."""

    words: Words
    mask_keys: Mapping[int, bytes]
    seed_shares: Mapping[int, bytes]


class Accomplice(Client):
    """A client that plays its part and tells the server all that it holds."""

    confided: Confided | None = None
    """What it tells, once it has sent its masked vector."""

    def mask(
        self, message: bytes, update: NDArray[np.float32], weight: int = 1, rounding: bytes | None = None
    ) -> bytes:
        rounding = rounding or self._entropy(KEY_BYTES)
        mask_keys = {peer: self._agree(peer, n.mask_key, b"mask") for peer, n in self._roster.items()}
        masked = super().mask(message, update, weight, rounding)
        seed_shares = {owner: both[SHARE_BYTES:] for owner, both in self._held.items()}
        self.confided = Confided(self.terms.encoding.encode(update, weight, rounding), mask_keys, seed_shares)
        return masked


class Lie(Server):
    """A lying server after ``victim``. Subclasses override what goes out, and say in ``loot`` what they got."""

    name: ClassVar[str]
    claim: ClassVar[str]
    breaks: ClassVar[tuple[str, ...]]
    """Profiles it succeeds against."""
    refused: ClassVar[type[SecAggError] | None]
    """The error with which a client of profile `paper` stops it; None: no protocol does."""
    rounds: ClassVar[int] = 1
    opens_sum: ClassVar[bool] = False
    """Whether the honest sum opens too; the victim is what this server is after."""
    muted_model: ClassVar[bool] = False
    """Whether it sends some clients a model whose update is zero."""
    by_seat: ClassVar[bool] = False
    """Whether the colluding clients must be the victim's only neighbours."""

    def __init__(
        self,
        terms: Terms,
        profile: Profile,
        victim: int,
        *,
        earlier: Lie | None = None,
        model_hash: bytes = b"",
        entropy: Entropy = os.urandom,
        ring: Entropy | None = None,
    ) -> None:
        """``earlier``: this server's previous round."""
        super().__init__(self.bend(terms), profile, model_hash, entropy, ring)
        self.victim, self.earlier = victim, earlier
        self.allies: Sequence[int] = self.recruits()
        """The clients that collude with this server; by default those that it needs."""
        self.confided: dict[int, Confided] = {}
        """What each of them told it, filled in as the round goes."""
        self.arrived: dict[int, Words] = {}
        self.weight = 1
        """The weights behind the loot, added up, once it has been read."""

    def recruits(self) -> tuple[int, ...]:
        """The clients that must collude for this lie to work."""
        return ()

    @classmethod
    def bend(cls, terms: Terms) -> Terms:
        """The terms that this server offers instead."""
        return terms

    def mutes(self, client: int) -> bool:
        """Whether this server sends ``client`` a model whose update is zero."""
        return False

    @property
    def captured(self) -> Words:
        """The victim's masked vector, as it arrived."""
        return self.arrived[self.victim]

    def exposed(self) -> tuple[int, ...]:
        """The clients whose vectors, added up, the loot is."""
        return (self.victim,)

    def near(self, client: int) -> tuple[int, ...]:
        """The victim, if ``client`` holds its shares: only then may a request name it."""
        return (self.victim,) if self.victim in self.circle(client) else ()

    @abstractmethod
    def loot(self) -> NDArray[np.float64]:
        """What the server learned, times its weight, in data units. Raises SecAggError where it learned nothing."""

    def advance(self) -> dict[int, bytes]:
        if self.stage in ("advertise", "shares", "masked") and self.victim not in self._answered:
            raise TooFewClients(None, self.stage, f"client {self.victim}, the victim of {self.name}, has not answered")
        return super().advance()

    def take_masked(self, client: int, message: Masked) -> None:
        super().take_masked(client, message)
        self.arrived[client] = message.vector(self.terms.encoding)

    def open(self) -> None:
        """The shares that a lie asks for need not open the sum."""
        if self.opens_sum:
            super().open()

    def result(self) -> tuple[NDArray[np.float64], int]:
        if not self.opens_sum:
            raise WrongStage(None, self.stage, f"no sum opens: the server told the lie {self.name}")
        return super().result()

    def strip(self, plus: Sequence[bytes], minus: Sequence[bytes]) -> NDArray[np.float64]:
        """The victim's update: its vector without the masks that it added (``plus``) and subtracted (``minus``)."""
        words = self.captured.copy()
        add_masks(words, minus, plus, self.terms.modulus_bits)
        return self.floats(words)

    def unmasked_by(self, keys: Mapping[int, bytes], seed: bytes | None) -> NDArray[np.float64]:
        """The victim's update, from the ``keys`` of its masks with each neighbour and its self-mask ``seed``."""
        plus = [key for peer, key in keys.items() if self.victim < peer]
        minus = [key for peer, key in keys.items() if self.victim > peer]
        return self.strip([*plus, seed] if seed else plus, minus)

    def floats(self, words: Words, contributors: int = 1) -> NDArray[np.float64]:
        try:
            update, self.weight = self.terms.encoding.decode(words, contributors)
        except ValueError as problem:
            raise BadShare(None, "unmask", f"masks are left: {problem}") from None
        return update


LIES: dict[str, type[Lie]] = {}


def lie(
    name: str, *, breaks: str | Sequence[str], refused: type[SecAggError] | None
) -> Callable[[type[Lie]], type[Lie]]:
    """Register a `Lie`; its docstring's first line is its claim."""

    def register(cls: type[Lie]) -> type[Lie]:
        cls.name, cls.refused = name, refused
        cls.breaks = (breaks,) if isinstance(breaks, str) else tuple(breaks)
        cls.claim = (cls.__doc__ or "").strip().splitlines()[0]
        LIES[name] = cls
        return cls

    return register
