"""The threat model: who attacks, by what means, and what it is granted besides its view."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fedsim.lies import adversary_problems
from fedsim.part import Part
from fedsim.planting import plant_by_name, planter_problems
from strategies.plants import Ascent, FeatureFishing, Fishing, Imprint, Inconsistency, Kernels, Traps

Plant = Annotated[
    Imprint | Kernels | Traps | Fishing | FeatureFishing | Inconsistency | Ascent, Field(discriminator="kind")
]
"""Everything that a server may plant in its model, told apart by ``kind``."""

Grant = Literal[
    "batch_size",
    "labels",
    "value_range",
    "learning_rate",
    "local_steps",
    "local_epochs",
    "local_batch_size",
    "public",
    "public_labels",
    "columns",
    "architecture",
    "epochs",
    "member_rate",
]
"""What a threat model may grant besides the view; the words are those of ``attacks.Knowledge``."""


class Adversary(Part):
    """Who attacks, and what the threat model grants besides the view."""

    kind: Literal["honest_but_curious", "malicious_protocol", "malicious_model", "eavesdropper", "sum_recipient"] = (
        "honest_but_curious"
    )
    knows: tuple[Grant, ...] = (
        "batch_size",
        "value_range",
        "learning_rate",
        "local_steps",
        "local_epochs",
        "local_batch_size",
        "public",
        "public_labels",
        "columns",
    )
    colluders: int = Field(0, ge=0)
    """Clients that help the server with all they hold; the last ones by number."""
    lie: str | None = None
    """``malicious_protocol``: what the server says in secure aggregation that is not so; ``crypto.secagg.lies``."""
    plant: Plant | None = None
    """``malicious_model``: what the server plants in the models of the rounds that are attacked; or its name."""
    victim: int = Field(0, ge=0)
    """The client whose update a lie, or a plant that is after one client, is to read."""

    across_rounds: bool = False
    """Whether it also solves the sums of rounds with different cohorts for single clients' updates."""

    @model_validator(mode="after")
    def _tells_a_lie_that_exists(self) -> Self:
        if problems := adversary_problems(self) + planter_problems(self):
            raise ValueError("; ".join(problems))
        return self

    @field_validator("plant", mode="before")
    @classmethod
    def _plant_by_name(cls, plant: Any) -> Any:
        return plant_by_name(plant)

    @field_validator("knows")
    @classmethod
    def _in_a_fixed_order(cls, knows: tuple[Grant, ...]) -> tuple[Grant, ...]:
        return tuple(sorted(set(knows)))
