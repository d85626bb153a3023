"""What a protocol lets its server read, round by round: a sum, or of one client what is not hidden."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from attacks.view import Kind


@dataclass(frozen=True)
class Opened:
    """The sum of one round over ``contributors`` clients, weighted where the protocol weights.

    With ``client`` it is that client's own update, with ``partial`` some coordinates of it: NaN stands for the others.
    """

    round: int
    kind: Kind
    arrays: Mapping[str, Tensor]
    contributors: int
    client: int | None = None
    partial: bool = False
    clients: tuple[int, ...] = ()
    """Whose updates a sum adds up; empty for all that took part in the round."""
