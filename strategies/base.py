"""What a defence is: a half on the client, a half on the server, and the evidence that it was on."""

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from attacks.losses import Loss

Update = dict[str, Tensor]
"""Parameter name -> tensor: a gradient, or local weights minus the weights that were sent."""


class Stage(IntEnum):
    """Where a defence stands in the onion; the client goes through the stages in this order, the server back."""

    CHECK = 0
    PERTURB = 1
    ENCODE = 2
    HIDE = 3


class ClientUpdateError(ValueError):
    """A client's update must not be sent; ``tensor`` names the entry, None where it is not one entry's fault."""

    def __init__(self, tensor: str | None, reason: str) -> None:
        super().__init__(reason if tensor is None else f"update[{tensor!r}]: {reason}")
        self.tensor = tensor
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tensor, self.reason)


@dataclass(frozen=True)
class ClientContext:
    """What one defence gets on one client in one round.

    ``generator`` is a CPU generator for this defence alone. ``evidence`` is filled in with what was measured; it is
    the experimenter's and never goes into a message.
    """

    round: int
    client: int
    generator: torch.Generator
    evidence: MutableMapping[str, float] = field(default_factory=dict)


class LocalGradient(Protocol):
    """How a defence that acts inside the local update computes the gradient of one step.

    Takes a batch (B, *input_shape), (B, ...), B >= 0, and returns a gradient per trainable parameter, scaled as the
    mean over ``expected_batch_size`` examples.
    """

    def __call__(
        self,
        model: nn.Module,
        loss: Loss,
        inputs: Tensor,
        labels: Tensor,
        expected_batch_size: float,
        context: ClientContext,
    ) -> Update: ...


class Defence(Protocol):
    """One layer around an update. Implementations are frozen dataclasses with a literal ``kind``."""

    stage: ClassVar[Stage]
    kind: str
    """The name that scenarios use, and the prefix of this defence's evidence."""

    def problems(self) -> list[str]:
        """Every invalid field as ``field = value: reason; remedy``; empty when there is none."""
        return []

    def describe(self) -> str:
        """What is done to an update, in words that follow "before it leaves a client:"."""
        ...

    @property
    def reproducible(self) -> bool:
        """Whether the same seed gives the same messages."""
        return True

    @property
    def local_gradient(self) -> LocalGradient | None:
        """What the local update must use instead of autograd, or None."""
        return None

    def protect(self, update: Update, context: ClientContext) -> Update:
        """The client's half: what is sent in place of ``update``, which stays untouched."""
        ...

    def reveal(self, update: Update) -> Update:
        """The server's half: undo what can be undone."""
        return update
