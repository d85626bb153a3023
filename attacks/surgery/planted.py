"""The product of a surgery: the model to send, and what the server must remember about it."""

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Planted:
    """A crafted ``model`` to send, ``planted`` for ``Knowledge.planted``, and warnings about its yield in ``notes``."""

    model: nn.Module
    planted: dict[str, Any]
    notes: tuple[str, ...] = ()
