"""Who holds the secret key, which decides who reads what: the whole difference between these deployments."""

from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from crypto.he.contexts import Keys, SecretContext
from crypto.he.errors import CohortTooSmallError, KeyPolicyError
from crypto.he.vectors import decrypt
from crypto.he.wire import Ciphertext

Party = Literal["clients", "decryptor", "server", "nobody"]

DECRYPTION_LEAK = (
    "CKKS decryptions go back to the party that has the ciphertexts: they contain the encryption noise, from which the "
    "secret key follows (Li and Micciancio, Eurocrypt 2021). SEAL adds no flooding noise against it; BFV is exact and "
    "has no such leak."
)


@dataclass(frozen=True)
class KeyHolder:
    """One deployment of the key pair. ``says`` is what a review has to know of it."""

    name: str
    holder: Party
    seeded: bool
    """Whether clients may send seeded ciphertexts, which puts the secret key on every client."""
    server_gets_sum: bool
    """Whether the decrypted sum comes back to the server, which has the ciphertexts."""
    says: str
    flooded: bool = False
    """Whether decryptions carry noise of their own, which hides that of the ciphertexts."""

    def holders(self, *, seeded: bool = False) -> tuple[Party, ...]:
        """The parties with the secret key; raises KeyPolicyError for seeded ciphertexts where they are refused."""
        if seeded and not self.seeded:
            raise KeyPolicyError(
                f"seeded ciphertexts under {self.name}: need the secret key at every client, which this deployment "
                "keeps from them; send the full form"
            )
        if self.holder == "nobody":
            return ()
        return tuple(sorted({self.holder, "clients"})) if seeded else (self.holder,)

    def context_for(self, party: Party, keys: Keys, *, seeded: bool = False) -> bytes:
        """The context that ``party`` is given: with the secret key for ``holders`` alone."""
        return keys.secret if party in self.holders(seeded=seeded) else keys.public

    def findings(self, scheme: str) -> tuple[str, ...]:
        """What a review has to know of this deployment under ``scheme``, one statement each."""
        leaks = scheme == "ckks" and self.server_gets_sum and self.holder != "server" and not self.flooded
        return (self.says, *([DECRYPTION_LEAK] if leaks else []))


KEY_HOLDERS = {
    entry.name: entry
    for entry in (
        KeyHolder(
            "clients_share_key",
            "clients",
            seeded=True,
            server_gets_sum=False,
            says="All clients hold one secret key: a single client that sees another's ciphertext, by colluding with "
            "the server or on the wire, decrypts it. The server stays blind as long as no client helps it.",
        ),
        KeyHolder(
            "trusted_decryptor",
            "decryptor",
            seeded=False,
            server_gets_sum=True,
            says="A party beside the server decrypts sums of a minimum cohort. How many updates a ciphertext sums, and "
            "whose, is the server's word: a server that lies about it has single updates decrypted, and together with "
            "the decryptor it reads everything.",
        ),
        KeyHolder(
            "server_holds_key",
            "server",
            seeded=True,
            server_gets_sum=True,
            says="The server that collects the ciphertexts can decrypt each of them: encryption protects against "
            "eavesdroppers only, as transport encryption does.",
        ),
        KeyHolder(
            "threshold",
            "nobody",
            seeded=False,
            server_gets_sum=True,
            says="The key exists in shares alone, one at every client, and a sum opens once all of them help: one "
            "client that is silent leaves the round without a sum, one that refuses keeps every single update closed. "
            "How many updates a ciphertext sums, and whose, is the server's word, as with a trusted decryptor. Partial "
            "decryptions carry smudging noise, for which no simulation proof is known (ePrint 2025/395).",
            flooded=True,
        ),
    )
}
"""The deployments by name."""


def require_openable(total: Ciphertext, round: int, minimum_cohort: int, last_round: int | None) -> None:
    """What whoever decrypts asks of a sum before it does.

    Raises CohortTooSmallError below the minimum, KeyPolicyError for a round already answered or past.
    """
    if total.terms < minimum_cohort:
        raise CohortTooSmallError(f"a sum of {total.terms}: sums are opened of at least {minimum_cohort} updates")
    if last_round is not None and round <= last_round:
        raise KeyPolicyError(
            f"round {round}: round {last_round} has been answered; a second sum would reveal the difference"
        )


class TrustedDecryptor:
    """Decrypts one sum a round, of no fewer than ``minimum_cohort`` updates, and never a single update.

    One sum a round, because two sums over cohorts that differ in one client give that client's update away. The
    count is taken from the ciphertext as the server wrote it (see ``Ciphertext``): this holds against a server that
    follows the protocol.
    """

    def __init__(self, context: SecretContext, minimum_cohort: int) -> None:
        if not 2 <= minimum_cohort <= context.public.cohort:
            raise KeyPolicyError(
                f"minimum_cohort = {minimum_cohort}: must be from 2, below which the sum is one client's update, to "
                f"the context's cohort of {context.public.cohort}"
            )
        self.minimum_cohort = minimum_cohort
        self._context = context
        self._last_round: int | None = None

    def open(self, total: Ciphertext, round: int) -> NDArray[Any]:
        """The values of the sum of this round.

        Raises CohortTooSmallError below the minimum, KeyPolicyError for a round already answered or past, and what
        ``decrypt`` raises; a refused request decrypts nothing and leaves the round open.
        """
        require_openable(total, round, self.minimum_cohort, self._last_round)
        values = decrypt(self._context, total)
        self._last_round = round
        return values
