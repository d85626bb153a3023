"""Encryption parameters for sums, by name.

A ring of ``degree`` N and a modulus ``chain`` (bits per prime). The last prime serves encryption with the public key
only; what travels is modulo the others, so every prime beyond the second costs bytes that a sum never uses.
SEAL refuses chains whose total exceeds the 128-bit table of the HomomorphicEncryption.org standard (2018).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from crypto.he.errors import ParameterError


@dataclass(frozen=True)
class CKKS:
    """Approximate sums of real vectors (Cheon, Kim, Kim, Song 2017): N/2 slots, fixed point with ``scale_bits``.

    A slot holds a complex number. Sums never mix its parts, so two values fit where products need one alone.
    """

    degree: int
    chain: tuple[int, ...]
    scale_bits: int
    values_per_slot: int = 2

    scheme: ClassVar[str] = "ckks"

    @property
    def capacity(self) -> int:
        """Values per ciphertext."""
        return self.degree // 2 * self.values_per_slot

    @property
    def largest_sum(self) -> float:
        """The largest magnitude a sum may have: scaled, a quarter of the first prime, where a half would wrap.

        The other half is for noise and for a slot's second value, which makes coefficients sqrt(2) larger at most.
        """
        return 2.0 ** (self.chain[0] - 2 - self.scale_bits)

    def sum_error(self, terms: int) -> float:
        """A bound on the error of a slot of a sum of ``terms`` ciphertexts, missed with probability below 1e-12.

        Dropping the last prime rounds both polynomials: with a ternary secret that is a variance of (1 + 2N/3) / 12
        a coefficient, N/2 times that in a slot (Cheon et al. 2017, section 5, for SEAL's public-key encryption); the
        noise itself (standard deviation 3.2) adds to it. In a slot it is multiplied by the secret's value there, so
        its tail is Laplace's: 20 standard deviations.
        """
        coefficient = (1 + 2 * self.degree / 3) / 12 + 3.2**2
        return 20 * math.sqrt(terms * self.degree / 2 * coefficient) / 2.0**self.scale_bits


@dataclass(frozen=True)
class BFV:
    """Exact sums of integers modulo ``plain_modulus`` (Fan, Vercauteren 2012), a prime that gives N slots."""

    degree: int
    chain: tuple[int, ...]
    plain_modulus: int

    scheme: ClassVar[str] = "bfv"

    @property
    def capacity(self) -> int:
        """Values per ciphertext."""
        return self.degree

    @property
    def largest_sum(self) -> int:
        """The largest integer that a sum may reach."""
        return self.plain_modulus - 1

    def sum_error(self, terms: int) -> float:
        """Zero: sums are exact."""
        return 0.0


Parameters = CKKS | BFV

PRESETS: dict[str, Parameters] = {
    "ckks": CKKS(8192, (60, 60), 40),
    "ckks-nvflare": CKKS(8192, (60, 40, 40), 40, values_per_slot=1),
    "ckks-tutorial": CKKS(8192, (60, 40, 40, 60), 40, values_per_slot=1),
    "bfv": BFV(4096, (36, 36, 37), 1032193),
}
"""``ckks`` and ``bfv`` are the ones to use; what NVFlare and TenSEAL's tutorial do by default is for comparison."""


def describe(parameters: Parameters) -> dict[str, Any]:
    """The parameters as JSON values; ``parse`` undoes it."""
    return {"scheme": parameters.scheme, **asdict(parameters), "chain": list(parameters.chain)}


def parse(described: Mapping[str, Any]) -> Parameters:
    """The parameters that ``describe`` wrote; raises ParameterError for anything else."""
    kinds = {kind.scheme: kind for kind in (CKKS, BFV)}
    found = dict(described)
    kind = kinds.get(str(found.pop("scheme", None)))
    if kind is None or set(found) != {field.name for field in fields(kind)}:
        raise ParameterError(f"encryption parameters {dict(described)!r}: unknown scheme or fields")
    chain = found.pop("chain")
    numbers = [*found.values(), *(chain if isinstance(chain, list) and chain else [None])]
    if not all(type(number) is int and number > 0 for number in numbers):
        raise ParameterError(f"encryption parameters {dict(described)!r}: every number must be a positive integer")
    if not 1 <= found.get("values_per_slot", 1) <= 2:
        raise ParameterError(f"encryption parameters {dict(described)!r}: a slot holds one value or two")
    return kind(chain=tuple(chain), **found)
