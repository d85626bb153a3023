"""The policy file: what must hold of a run for its conclusion to stand, as typed, validated thresholds."""

import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from attacks import available
from fedsim.leakage import SCALES
from fedsim.names import nearest
from fedsim.scenario import explain
from fedsim.words import RUNGS

SHARES = ("rebuilt", "identified")
"""Metrics of every modality: the share of examples rebuilt, and of examples told from the pool they came from."""


class PolicyError(ValueError):
    """A policy file that cannot be used; one line for each problem."""


class Rule(BaseModel):
    """A part of a policy: immutable, and closed to rules that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Leakage(Rule):
    """The most that attacks may show, at a rung of the assumption ladder and below it."""

    asset: Literal[
        "examples",
        "labels",
        "sensitive",
        "membership",
        "source",
        "property",
        "classes",
        "features",
        "attribute",
        "model",
    ] = "examples"
    metric: str = "rebuilt"
    """Of ``examples``: the data's own metric (``psnr`` in dB, ``columns``, ``tokens``), ``rebuilt`` or ``identified``.
    Of labels and the sensitive column, the share told right is judged; of what inference attacks are after, their
    headline figure (area under the curve, share judged right, advantage over imputation, agreement)."""
    at_most: float
    """Held against the upper end of the 95 % interval where there is one."""
    up_to: str = "L11"
    """Attacks at this rung, and at all that grant less, are judged."""
    attacks: tuple[str, ...] = ()
    """These must have been run to the end; none asks for one attack at least."""

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        metrics = (*sorted(scale.metric for scale in SCALES.values()), *SHARES)
        problems = []
        if self.metric not in metrics:
            problems.append(f"metric = {self.metric!r}: unknown; {nearest(self.metric, metrics)}")
        if self.up_to not in RUNGS:
            problems.append(f"up_to = {self.up_to!r}: no rung; choose one of {', '.join(RUNGS)}")
        for name in self.attacks:
            if name not in available():
                problems.append(f"attacks: {name!r} is unknown; {nearest(name, available())}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Policy(Rule):
    """Everything that a run must show. That every defence was on is asked always."""

    schema_version: Literal[1]
    where: dict[str, str] = {}
    """The settings judged: axis of ``compare`` to label. Baselines for comparison stay out of a policy's reach."""
    max_epsilon: float | None = Field(None, gt=0)
    min_cohort: int | None = Field(None, ge=1)
    """The fewest clients behind anything that the server can read."""
    min_accuracy: float | None = Field(None, ge=0, le=1)
    min_seeds: int | None = Field(None, ge=1)
    leakage: tuple[Leakage, ...] = ()

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.leakage:
            raise ValueError("leakage: a policy without a leakage threshold would pass what leaks; state one")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file; raises PolicyError with every problem in it."""
        try:
            return cls(**tomllib.loads(path.read_text()))
        except OSError as error:
            raise PolicyError(f"policy = {path}: cannot be read ({error.strerror}); name a TOML file") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PolicyError(f"policy = {path}: is no TOML ({error}); mend the file") from None
        except ValidationError as error:
            problems = []
            for line, problem in zip(explain(error), error.errors(), strict=True):
                known = Leakage.model_fields if "leakage" in problem["loc"] else cls.model_fields
                strange = problem["type"] == "extra_forbidden"
                problems.append(f"{line}; {nearest(str(problem['loc'][-1]), known)}" if strange else line)
            raise PolicyError(f"policy = {path}: " + "; ".join(problems)) from None
