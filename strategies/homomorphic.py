"""Homomorphic aggregation as a defence: clients encrypt, the server adds what it cannot read.

Who can decrypt is who holds the secret key (``crypto.he.KEY_HOLDERS``); that decides everything a review asks.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from crypto.encoding import BITS_ALLOWED
from crypto.he import KEY_HOLDERS, PRESETS, KeyHolder, Parameters, threshold
from strategies.base import ClientContext, ClientUpdateError, Defence, Stage, Update

MEASURES = ("magnitude", "label")
"""How the sensitivity of a coordinate is measured, on public data alone."""


@dataclass(frozen=True)
class Homomorphic(Defence):
    """Encrypts each client's vector so that only sums need to be decrypted.

    ``clip`` and ``bits`` concern ``bfv`` alone, which sums integers: a coordinate outside the clip is refused on the
    client, one inside is rounded stochastically, without bias, to one of 2**bits levels.
    """

    kind: Literal["homomorphic"] = "homomorphic"
    scheme: Literal["ckks", "bfv"] = "ckks"
    """``ckks`` sums reals within a stated error, ``bfv`` sums rounded values exactly."""
    keys: Literal["clients_share_key", "trusted_decryptor", "threshold", "server_holds_key"] = "clients_share_key"
    preset: str | None = None
    """Encryption parameters by name (``crypto.he.PRESETS``); None takes the scheme's own."""
    seeded: bool = False
    """Half the bytes, under the secret key: refused where clients do not hold it."""
    clip: float = 1.0
    bits: int | None = None
    """None takes as many as the plain modulus holds for the cohort and its weights."""
    max_weight: int = 1
    """Largest weight (number of examples) of a client in a weighted mean, it travels encrypted; 1 counts all alike."""
    minimum_cohort: int = 2
    """``trusted_decryptor`` and ``threshold``: the fewest updates whose sum is opened."""
    encrypted_fraction: float = 1.0
    """The most sensitive part of the coordinates, which is encrypted; the others travel in clear (FedML-HE)."""
    sensitivity: Literal["magnitude", "label"] = "magnitude"

    stage: ClassVar[Stage] = Stage.HIDE
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "revalidate_instances": "always"}

    def problems(self) -> list[str]:
        """Every invalid field."""
        fitting = [name for name, preset in PRESETS.items() if preset.scheme == self.scheme]
        holder = KEY_HOLDERS.get(self.keys)
        checks = (
            (self.scheme in ("ckks", "bfv"), f"scheme = {self.scheme!r}: is unknown; choose 'ckks' or 'bfv'"),
            (holder is not None, f"keys = {self.keys!r}: is unknown; choose from {', '.join(KEY_HOLDERS)}"),
            (
                self.preset is None or self.preset in fitting,
                f"preset = {self.preset!r}: is no preset of {self.scheme}; choose from {', '.join(fitting)}",
            ),
            (
                not self.seeded or holder is None or holder.seeded,
                f"seeded = True: needs the secret key at every client, which {self.keys} keeps from them; set False",
            ),
            (
                self.keys != "threshold" or (self.scheme == "ckks" and self.preset is None),
                f"keys = 'threshold': comes with parameters of its own, not scheme = {self.scheme!r}, preset = "
                f"{self.preset!r}; leave both out",
            ),
            (0 < self.clip < math.inf, f"clip = {self.clip}: must be positive and finite; try 1.0"),
            (
                self.bits is None or self.bits in BITS_ALLOWED,
                f"bits = {self.bits}: must be from {BITS_ALLOWED.start} to {BITS_ALLOWED.stop - 1}; leave it out",
            ),
            (self.max_weight >= 1, f"max_weight = {self.max_weight}: must be at least 1"),
            (
                self.minimum_cohort >= 2,
                f"minimum_cohort = {self.minimum_cohort}: a sum of fewer than 2 is one client's update; ask at least 2",
            ),
            (
                0 <= self.encrypted_fraction <= 1,
                f"encrypted_fraction = {self.encrypted_fraction}: must be from 0 (all in clear) to 1 (all encrypted)",
            ),
            (
                self.sensitivity in MEASURES,
                f"sensitivity = {self.sensitivity!r}: is unknown; choose from {', '.join(MEASURES)}",
            ),
        )
        return [reason for held, reason in checks if not held]

    def cohort_problems(self, cohort: int) -> list[str]:
        """Why a round of ``cohort`` clients cannot run; empty when it can."""
        if self.problems():
            return []
        found = []
        if self.keys in ("trusted_decryptor", "threshold") and cohort < self.minimum_cohort:
            found.append(
                f"minimum_cohort = {self.minimum_cohort}: no sum of a cohort of {cohort} is opened; ask more clients"
            )
        # Room for one client: an integer level of the weight for bfv, one unit of it for ckks.
        room = self.parameters.largest_sum / cohort / self.max_weight
        most = min(int(room + 1).bit_length() - 1, BITS_ALLOWED[-1])
        if room < 1 or (self.scheme == "bfv" and (self.bits or 1) > most):
            field = f"bits = {self.bits}" if self.bits and room >= 1 else f"max_weight = {self.max_weight}"
            allowed = f"at most {most} bits fit" if room >= 1 else "nothing fits"
            found.append(
                f"{field}: sums of {cohort} clients' weighted values would overflow ({allowed}); lower the weights, "
                "the bits or the cohort"
            )
        return found

    def describe(self) -> str:
        """Scheme, key holder, what stays in clear and whose word weighs how much, in words."""
        measure = {
            "magnitude": "of coordinates that are largest in public examples' gradients",
            "label": "of coordinates that move most with the label in public examples' gradients",
        }[self.sensitivity]
        who = {
            "clients_share_key": "every client holds the key, and the server never holds the new model",
            "trusted_decryptor": f"a trusted party decrypts for the server sums of at least {self.minimum_cohort}",
            "threshold": f"all clients together open for the server sums of at least {self.minimum_cohort}",
            "server_holds_key": "the server holds the key and can decrypt each of them",
        }
        part = "" if self.encrypted_fraction == 1 else f" of the {100 * self.encrypted_fraction:g} % {measure}"
        weights = f"weighted by up to {self.max_weight} examples" if self.max_weight > 1 else "each client counted once"
        return f"{self.scheme.upper()} encryption{part}: {who[self.keys]}; {weights}"

    def protect(self, update: Update, context: ClientContext) -> Update:
        """Refuses: a ciphertext is no update, and an update must not leave unencrypted."""
        raise ClientUpdateError(None, "the server asked for the update outside the homomorphic stage")

    @property
    def parameters(self) -> Parameters:
        """The encryption parameters, by ``preset`` or ``scheme``."""
        return threshold.PARAMETERS if self.keys == "threshold" else PRESETS[self.preset or self.scheme]

    @property
    def holder(self) -> KeyHolder:
        """Who holds the secret key."""
        return KEY_HOLDERS[self.keys]
