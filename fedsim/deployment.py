"""How the trained model is deployed: what a caller may ask of it, how often, and what is done to its answers."""

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from attacks import Oracle
from attacks.controls import Control, LabelOnly, Noise, Rounding, Tap, Temperature, TopK
from attacks.monitor import QueryLog
from attacks.oracle import coarsening
from fedsim.part import Part
from fedsim.words import counted, listed

OutputControl = Annotated[Noise | Rounding | Temperature | TopK | LabelOnly, Field(discriminator="kind")]
"""Everything that may be done to answers before they leave the service, told apart by ``kind``."""

ACCESS_WORDS = {
    "white_box": "has the model itself, weights included",
    "confidences": "is told the confidence in every class",
    "top_k": "is told the largest confidences alone",
    "rounded": "is told rounded confidences",
    "label_only": "is told the label alone",
}
"""What a caller gets at each access level."""


class Deployment(Part):
    """The access that attacks on the finished model get. The default is that of whoever holds the model itself."""

    access: Literal["white_box", "confidences", "top_k", "rounded", "label_only"] = "white_box"
    query_budget: int | None = Field(None, ge=0)
    """Inputs that one caller is answered; what is asked beyond is refused, and counted."""
    controls: tuple[OutputControl, ...] = ()
    """Perturbations of the answers, in order."""
    top: int = Field(3, ge=1)
    """Confidences shown at ``top_k``; to be set at no other level."""
    decimals: int = Field(1, ge=1)
    """Places of the confidences at ``rounded``; to be set at no other level."""
    features: str | None = None
    """The module whose outputs on clients' records leave them, as in split learning; feature inversion reads these."""

    @model_validator(mode="after")
    def _controls_have_a_hold(self) -> Self:
        problems = [f"controls.{i}.{p}" for i, control in enumerate(self.controls) for p in control.problems()]
        if self.access == "white_box" and (self.controls or self.query_budget is not None):
            problems.append(
                "access = 'white_box': whoever holds the weights is bound by no control and no budget; leave these "
                "out, or set access = 'confidences'"
            )
        for name, level in (("top", "top_k"), ("decimals", "rounded")):
            value = getattr(self, name)
            if self.access != level and value != type(self).model_fields[name].default:
                problems.append(
                    f"{name} = {value}: has no hold at access = {self.access!r}; leave it out, or set {level!r}"
                )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def protects(self) -> bool:
        """Whether callers are told less than every confidence, or are answered only so often."""
        return self.access not in ("white_box", "confidences") or bool(self.controls) or self.query_budget is not None

    @property
    def in_order(self) -> tuple[Control, ...]:
        """Everything that is done to an answer: the controls, then the level's own coarsening."""
        return (*self.controls, *coarsening(self.access, self._options))

    @property
    def _options(self) -> dict[str, int | None]:
        return {
            "top": self.top if self.access == "top_k" else None,
            "decimals": self.decimals if self.access == "rounded" else None,
        }

    def open(
        self,
        model: nn.Module,
        num_classes: int,
        generator: torch.Generator,
        log: QueryLog | None,
        tap: Tap | None = None,
    ) -> Oracle:
        """The model behind exactly this access; what is asked goes to ``log``, what controls do to ``tap``."""
        return Oracle(
            model,
            num_classes=num_classes,
            access=self.access,
            budget=self.query_budget,
            controls=self.controls,
            generator=generator,
            **self._options,
            watch=log.record if log is not None else None,
            tap=tap,
        )

    def describe(self) -> str:
        """The deployment as one sentence."""
        done = [control.kind.replace("_", " ") for control in self.controls]
        told = [
            f"A caller of the finished model {ACCESS_WORDS[self.access]}",
            f"after {listed(done)}" if done else "",
            f"for at most {counted(self.query_budget, 'input')}" if self.query_budget is not None else "",
        ]
        return ", ".join(filter(None, told)) + "."
