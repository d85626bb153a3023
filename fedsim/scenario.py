"""The scenario: one experiment as a typed, validated, immutable object, whose digest is the run's identity."""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator

from attacks import available
from attacks.losses import LOSSES
from fedsim.battery import BATTERY, FAMILIES, in_its_rounds, on_model, rounds_read, spelled_out
from fedsim.deployment import Deployment
from fedsim.frozen import FrozenDict, Json, frozen
from fedsim.lies import collusion_problems, lie_problems
from fedsim.names import nearest
from fedsim.part import Part
from fedsim.parties import onlooker_problems
from fedsim.planting import plant_problems
from fedsim.regularisation import Regularisation
from fedsim.selection import Selection
from fedsim.threat import Adversary
from strategies.client_checks import ClientChecks
from strategies.client_dp import ClientDP
from strategies.homomorphic import Homomorphic
from strategies.secure_aggregation import SecureAggregation
from strategies.stack import Stack

Defence = Annotated[ClientChecks | ClientDP | SecureAggregation | Homomorphic, Field(discriminator="kind")]
"""Every defence that a protocol may hold, told apart by ``kind``."""


class Partition(Part):
    """How the private examples are spread over the clients, by flwr-datasets' partitioners."""

    kind: Literal["iid", "dirichlet", "shard", "pathological"] = "iid"
    options: Json = FrozenDict()
    """Passed to the partitioner: ``alpha``, ``num_shards_per_partition``, ``num_classes_per_partition``..."""


class Task(Part):
    """Data, model and loss. ``dataset`` and ``model`` are registered names, paths, or dotted paths of your own."""

    dataset: str = "digits"
    data_options: Json = FrozenDict()
    model: str = "mlp"
    model_options: Json = FrozenDict()
    loss: str | None = None
    """A name from ``attacks.losses``; None takes the data set's own."""
    partition: Partition = Partition()
    selection: Selection = Selection()
    """Which of its records each client leaves out before it trains."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """Held out to measure accuracy; no client trains on it."""
    public_fraction: float = Field(0.2, ge=0, lt=1)
    """The adversary's public data: same distribution, disjoint from every client's."""

    @model_validator(mode="after")
    def _fractions_leave_private_data(self) -> Self:
        if self.test_fraction + self.public_fraction >= 1:
            raise ValueError(
                f"test_fraction + public_fraction = {self.test_fraction + self.public_fraction:g}: "
                "nothing is left for the clients; keep the sum below 1"
            )
        return self


class Federation(Part):
    """Who trains, on how much, how often."""

    algorithm: Literal["fedsgd", "fedavg"] = "fedsgd"
    """``fedsgd`` clients send the gradient of one batch; ``fedavg`` clients send trained minus received weights."""
    clients: int = Field(4, ge=1)
    cohort: int | None = Field(None, ge=1)
    """Clients asked in each round; None asks all."""
    rounds: int = Field(1, ge=1)
    batch_size: int = Field(1, ge=1)
    local_epochs: int = Field(1, ge=1)
    local_steps: int | None = Field(None, ge=1)
    """``fedavg`` only: stop each client after so many batches in a round."""
    examples_per_client: int | None = Field(None, ge=1)
    """Keep only so many of each client's examples."""
    learning_rate: float = Field(0.1, gt=0)
    server_learning_rate: float = Field(1.0, gt=0)
    regularisation: Regularisation = Regularisation()
    weighted: bool = True
    """Weight the mean by each client's number of examples."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that an asked client leaves in a round."""
    dropout_stage: Literal["advertise", "shares", "masked", "consistency", "unmask"] = "masked"
    """Under secure aggregation, the stage from which a client that leaves is silent."""

    @model_validator(mode="after")
    def _cohort_fits(self) -> Self:
        problems = []
        if self.cohort is not None and self.cohort > self.clients:
            problems.append(
                f"cohort = {self.cohort}: larger than the federation of {self.clients} clients; "
                f"ask at most {self.clients}"
            )
        if self.algorithm == "fedsgd" and (self.local_steps is not None or self.local_epochs != 1):
            problems.append(
                "local_steps/local_epochs: fedsgd sends one gradient; leave them out or set algorithm = 'fedavg'"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


class AttackBudget(Part):
    """How hard each attack may try on one victim; None leaves it to the attack."""

    iterations: int | None = Field(None, ge=1)
    restarts: int | None = Field(None, ge=1)
    seconds: float | None = Field(None, gt=0)
    """Wall seconds; a run that hits this limit is not reproducible to the last digit."""
    compile: bool = False
    """Gradient matching through ``torch.compile``: pays for searches of many minutes; needs a C++ compiler."""


class Attack(Part):
    """One attack on the views of chosen rounds, or on the model after them.

    Round 1 is attacked on the untrained model. Where a scenario leaves ``rounds`` out, an attack on the model takes
    the last one, and an inference from updates all of them together.
    """

    name: str
    rounds: tuple[int, ...] = (1,)
    victims: int = Field(1, ge=1)
    """So many clients of the round's cohort, the first by number."""
    targets: int | None = Field(None, ge=1)
    """Inference: so many members, and others, to tell apart, or claims for each class; None takes every record, and
    one claim a class."""
    budget: AttackBudget = AttackBudget()
    """Of the battery: iterations and restarts are each attack's, the seconds are shared out among the searches."""
    without: tuple[str, ...] = ()
    """Battery: attacks to leave out."""


class Scenario(Part):
    """One experiment. ``compare`` maps a field, or a dotted path such as ``federation.batch_size``, to labelled
    values; the product of all axes, over all seeds, gives the cells of the run."""

    name: str = Field(min_length=1, pattern=r"^[\w .,:+-]+$")
    task: Task = Task()
    federation: Federation = Federation()
    protocol: tuple[Defence, ...] = ()
    adversary: Adversary = Adversary()
    deployment: Deployment = Deployment()
    audit: bool | None = None
    """Whether canaries measure the epsilon that client DP claims; None does so where it takes seconds."""
    attacks: tuple[Attack, ...] = Field((Attack(name="analytic"),), min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    compare: Annotated[dict[str, dict[str, Any]] | None, AfterValidator(frozen)] = None

    @field_validator("task", mode="before")
    @classmethod
    def _task_by_name(cls, task: Any) -> Any:
        return {"dataset": task} if isinstance(task, str) else task

    @field_validator("adversary", mode="before")
    @classmethod
    def _adversary_by_name(cls, adversary: Any) -> Any:
        return {"kind": adversary} if isinstance(adversary, str) else adversary

    @field_validator("attacks", mode="before")
    @classmethod
    def _attacks_by_name(cls, attacks: Any, info: ValidationInfo) -> Any:
        if not isinstance(attacks, list | tuple):
            return attacks
        rounds = getattr(info.data.get("federation"), "rounds", 1)
        given = [a.model_dump(exclude_unset=True) if isinstance(a, Attack) else a for a in attacks]
        return tuple(in_its_rounds(a, a, rounds) if isinstance(a, Mapping) else a for a in spelled_out(given))

    @field_validator("seeds", mode="before")
    @classmethod
    def _one_seed(cls, seeds: Any) -> Any:
        return (seeds,) if isinstance(seeds, int) else seeds

    @model_validator(mode="after")
    def _everything_fits(self) -> Self:
        problems = Stack(self.protocol).problems()
        for index, defence in enumerate(self.protocol):
            if isinstance(defence, SecureAggregation | Homomorphic):
                cohort = self.federation.cohort or self.federation.clients
                problems += [f"protocol[{index}].{problem}" for problem in defence.cohort_problems(cohort)]
            if (
                isinstance(defence, Homomorphic)
                and 0 < defence.encrypted_fraction < 1
                and not self.task.public_fraction
            ):
                problems.append(
                    "task.public_fraction = 0: the coordinates to encrypt are chosen on public data; leave some"
                )
        problems += collusion_problems(self) + lie_problems(self) + plant_problems(self) + onlooker_problems(self)
        if self.task.loss is not None and self.task.loss not in LOSSES:
            problems.append(f"task.loss = {self.task.loss!r}: unknown; choose one of {sorted(LOSSES)}")
        for index, attack in enumerate(self.attacks):
            known = [BATTERY, *FAMILIES, *available()]
            if attack.name not in known:
                problems.append(f"attacks.{index}.name = {attack.name!r}: unknown; {nearest(attack.name, known)}")
            problems += [
                f"attacks.{index}.without = {name!r}: unknown; {nearest(name, available())}"
                for name in attack.without
                if name not in available()
            ]
            if attack.without and attack.name != BATTERY:
                problems.append(f"attacks.{index}.without: only the battery leaves attacks out; drop it")
            late = [r for r in attack.rounds if not 1 <= r <= self.federation.rounds]
            if late or not attack.rounds:
                problems.append(
                    f"attacks.{index}.rounds = {attack.rounds}: the federation has rounds 1 to "
                    f"{self.federation.rounds}; name some of these"
                )
        if self.federation.regularisation.early_stop is not None and not self.task.public_fraction:
            problems.append("federation.regularisation.early_stop: is told by public data; leave some, or drop it")
        if len({attack.name for attack in self.attacks}) < len(self.attacks):
            problems.append("attacks: the same attack is named twice; give it several rounds instead")
        if self.audit and self.compare is None and not _claims_epsilon(self):
            problems.append(NOTHING_TO_AUDIT)
        if len(set(self.seeds)) < len(self.seeds):
            problems.append(f"seeds = {self.seeds}: a seed is named twice, which would count its result twice")
        if problems:
            raise ValueError("; ".join(problems))
        if self.compare is not None:
            self._check_axes(self.compare)
            self._check_each_cell_differs()
            if self.audit and not any(_claims_epsilon(cell.scenario) for cell in self.cells()):
                raise ValueError(NOTHING_TO_AUDIT)
        return self

    def _check_axes(self, compare: Mapping[str, Mapping[str, Any]]) -> None:
        for axis, labels in compare.items():
            if axis.split(".")[0] not in {"task", "federation", "protocol", "adversary", "deployment", "attacks"}:
                raise ValueError(
                    f"compare.{axis}: compare task, federation, protocol, adversary, deployment or attacks"
                )
            if not labels:
                raise ValueError(f"compare.{axis}: has no values; name at least one, or leave the axis out")

    def _check_each_cell_differs(self) -> None:
        known: dict[str, Mapping[str, str]] = {}
        for cell in self.cells():
            if (twin := known.setdefault(cell.digest, cell.labels)) != cell.labels:
                raise ValueError(
                    f"compare: {twin} and {dict(cell.labels)} are the same experiment, which would count twice; "
                    "leave one out"
                )

    def cells(self) -> tuple["Cell", ...]:
        """The experiments to run: each combination of compared values with each seed."""
        axes = self.compare or {}
        plain = self.model_dump(mode="json", exclude={"compare", "seeds"})
        cells = []
        for combination in itertools.product(*(labels.items() for labels in axes.values())):
            changed = _copy(plain)
            for axis, (_, value) in zip(axes, combination, strict=True):
                _replace(changed, axis, _copy(value))
            if '"client_dp"' not in json.dumps(changed["protocol"]) and changed["audit"]:
                changed["audit"] = None  # asked for where a compared protocol claims an epsilon, not here
            labels = dict(zip(axes, (label for label, _ in combination), strict=True))
            try:
                cells += [Cell(labels, Scenario(**changed, seeds=(seed,))) for seed in self.seeds]
            except ValidationError as error:
                raise ValueError(f"compare {labels}: " + "; ".join(explain(error))) from None
        return tuple(cells)

    @property
    def attacked_rounds(self) -> frozenset[int]:
        """Rounds of which the view must keep the arrays."""
        return frozenset(kept for attack in self.attacks for kept in rounds_read(attack.name, attack.rounds))

    @property
    def released_rounds(self) -> frozenset[int]:
        """Rounds after which the model itself is attacked."""
        return frozenset(round for attack in self.attacks if on_model(attack.name) for round in attack.rounds)

    @property
    def digest(self) -> str:
        """SHA-256 over every field: two runs with the same digest are the same experiment."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Read the same fields from a TOML file."""
        return cls(**tomllib.loads(path.read_text()))


@dataclass(frozen=True)
class Cell:
    """One combination of compared values with one seed; ``scenario`` has that seed alone and no ``compare``."""

    labels: Mapping[str, str]
    scenario: Scenario

    @property
    def seed(self) -> int:
        """The cell's only seed."""
        return self.scenario.seeds[0]

    @property
    def digest(self) -> str:
        """Identity of the cell, whichever scenario it belongs to."""
        return self.scenario.digest


NOTHING_TO_AUDIT = (
    "audit = True: canaries measure the epsilon that client DP claims, and no protocol here has any; add ClientDP to "
    "protocol, or to one that is compared, or leave audit out"
)


def _claims_epsilon(scenario: Scenario) -> bool:
    return any(isinstance(defence, ClientDP) for defence in scenario.protocol)


def explain(error: ValidationError) -> list[str]:
    """One line a problem: the field, the value, what is wrong with it."""
    lines = []
    for problem in error.errors():
        if problem["type"] == "too_short" and len(problem["input"]) >= problem["ctx"]["min_length"]:
            continue  # it lacks but the items that are wrong themselves, each of which has its own line
        where = ".".join(str(part) for part in problem["loc"])
        reason = problem["msg"].removeprefix("Value error, ")
        value = problem["input"]
        shown = f" = {value!r}" if where and isinstance(value, str | int | float | bool | None) else ""
        lines.append(f"{where}{shown}: {reason}" if where else reason)
    return lines


def _copy(plain: Any) -> Any:
    return json.loads(json.dumps(plain))


def _replace(plain: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        if not isinstance(plain.get(parent), dict):
            raise ValueError(f"compare.{path}: no such field in the scenario")
        plain = plain[parent]
    plain[last] = value
