"""How a flat vector lies over the model: its trained parameters and, behind them, the buffers that travel along.

Buffers (BatchNorm's running statistics) are statistics of private inputs: they are hidden with the update. Counters
(whole numbers) stay on the client, and in the model what they were.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from strategies.base import Update
from strategies.secure_aggregation import flat, unflat

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """``parameters`` move by a step times the mean update, ``buffers`` by the mean of what they changed locally."""

    parameters: tuple[str, ...]
    buffers: tuple[str, ...] = ()

    @classmethod
    def told(cls, config: Mapping[str, Any]) -> "Layout":
        """The layout that a round's configuration names."""
        return cls(tuple(config["parameters"]), tuple(config["buffers"]))

    def vector(self, update: Update, buffers: State, received: State) -> NDArray[np.float32]:
        """A client's vector: its update, then how far each buffer moved from what was ``received``."""
        moved = {name: buffers[name] - received[name] for name in self.buffers}
        return np.concatenate([flat(update), flat(moved)]) if moved else flat(update)

    def update(self, vector: NDArray[np.float64], state: State) -> Update:
        """The part of a vector that is about parameters, in the shapes of ``state``."""
        return unflat(vector, {name: state[name] for name in self.parameters})

    def left(self, mean: NDArray[np.float64], state: State) -> Update:
        """What the buffers of ``state`` become by a ``mean`` vector."""
        changes = unflat(mean[self.size(state) :], {name: state[name] for name in self.buffers})
        return {name: state[name] + change for name, change in changes.items()}

    def move(self, state: dict[str, Tensor], step_size: float, mean: NDArray[np.float64]) -> None:
        """Move the model by one round's mean vector, in place."""
        buffers = self.left(mean, state)
        state.update({name: state[name] + step_size * tensor for name, tensor in self.update(mean, state).items()})
        state.update(buffers)

    def size(self, state: State) -> int:
        """How many values of a vector are parameters."""
        return sum(state[name].numel() for name in self.parameters)
