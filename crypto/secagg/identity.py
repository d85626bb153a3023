"""What a client keeps from round to round: its signing key, the directory of the others', the rounds it has joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from crypto.entropy import Entropy
from crypto.errors import ReplayedRound
from crypto.keys import KEY_BYTES, KeyPair, SigningKey


@dataclass(frozen=True)
class RoundSecrets:
    """The secrets behind one round's masks and shares."""

    mask_key: KeyPair
    share_key: KeyPair
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, entropy: Entropy) -> RoundSecrets:
        return cls(KeyPair.generate(entropy), KeyPair.generate(entropy), entropy(KEY_BYTES))


@dataclass
class Identity:
    """A client as others know it. ``directory`` comes from a party that clients trust, never from the server."""

    signing_key: SigningKey
    directory: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    last_round: dict[bytes, int] = field(default_factory=dict, repr=False)
    kept: RoundSecrets | None = field(default=None, repr=False)

    def enter(self, client: int, session: bytes, round: int) -> None:
        """Note that ``round`` of ``session`` is joined; raises ReplayedRound unless it is later than any before."""
        if round <= self.last_round.get(session, -1):
            last = self.last_round[session]
            raise ReplayedRound(client, "advertise", f"round {round}: round {last} of this session was already joined")
        self.last_round[session] = round

    def keep(self, entropy: Entropy) -> RoundSecrets:
        """The secrets of a deployment that never renews them."""
        self.kept = self.kept or RoundSecrets.generate(entropy)
        return self.kept


def enrol(clients: int, entropy: Entropy) -> list[Identity]:
    """Identities of clients 0..clients-1, each knowing every public signing key."""
    keys = [SigningKey(entropy(KEY_BYTES)) for _ in range(clients)]
    directory = {client: key.public for client, key in enumerate(keys)}
    return [Identity(key, directory) for key in keys]
