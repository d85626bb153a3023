"""What a protocol lets its server read, round by round: a sum."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from attacks.view import Kind


@dataclass(frozen=True)
class Opened:
    """The sum of one round over ``contributors`` clients, weighted where the protocol weights."""

    round: int
    kind: Kind
    arrays: Mapping[str, Tensor]
    contributors: int
