"""What a protocol lets its server read, round by round: a sum, or of one client what is not hidden."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    base: str | Mapping[str, Tensor] | None = None
    """The model that it was computed on: the digest of one that was sent, or its state as far as the reader knows it;
    None for the first one that was sent in the round."""
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    """What stands in a client's buffers after its local training, where that was hidden with the update; a mean of
    it under a sum."""
    weight: float | None = None
    """The sum of the weights behind a weighted sum; None where every client counts once."""
