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
IN_DECIBELS = ("psnr", "features")
"""The metric, and the asset of inference attacks, that are judged in dB; everything else is judged between 0 and 1."""


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
    metric: str | None = None
    """Of ``examples`` alone: the data's own metric (``psnr`` in dB, ``columns``, ``tokens``), ``identified``, or
    ``rebuilt``, which None stands for.
    Of labels and the sensitive column, the share told right is judged; of what inference attacks are after, their
    headline figure (area under the curve, share judged right, advantage over imputation, agreement)."""
    at_most: float
    """Held against the upper end of the 95 % interval where there is one."""
    up_to: str = "L11"
    """Attacks at this rung, and at all that grant less, are judged."""
    attacks: tuple[str, ...] = ()
    """These must have been run to the end; none asks for one attack at least."""

    @property
    def judged(self) -> str:
        """What is held against ``at_most``: a metric of examples, or the asset itself."""
        return self.asset if self.asset != "examples" else self.metric or "rebuilt"

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        metrics = (*sorted(scale.metric for scale in SCALES.values()), *SHARES)
        problems = []
        if self.metric is not None and self.asset != "examples":
            problems.append(
                f"metric = {self.metric!r}: means nothing for asset = {self.asset!r}, which has one figure of its own; "
                "leave metric out"
            )
        elif self.metric is not None and self.metric not in metrics:
            problems.append(f"metric = {self.metric!r}: unknown; {nearest(self.metric, metrics)}")
        elif self.judged not in IN_DECIBELS and not 0 <= self.at_most <= 1:
            problems.append(
                f"at_most = {self.at_most:g}: {self.judged} is a share, so that this would pass always or never; give "
                "a number between 0 and 1"
            )
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
    epsilon_against: str | None = None
    """Whose epsilon that is: an observer in the words of the report's table; None is the one that reads one update."""
    min_cohort: int | None = Field(None, ge=1)
    """The fewest clients behind anything that the server can read."""
    min_accuracy: float | None = Field(None, ge=0, le=1)
    min_seeds: int | None = Field(None, ge=1)
    leakage: tuple[Leakage, ...] = ()

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.leakage:
            raise ValueError("leakage: a policy without a leakage threshold would pass what leaks; state one")
        if self.epsilon_against is not None and self.max_epsilon is None:
            raise ValueError(
                f"epsilon_against = {self.epsilon_against!r}: judges nothing without max_epsilon; state that, or leave "
                "this out"
            )
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
