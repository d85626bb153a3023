"""What a malicious server can plant in the model that it sends, as options of a scenario."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import nn

from attacks.inference import Targets
from attacks.membership_updates import ascended
from attacks.surgery import (
    plant_feature_fishing,
    plant_fishing,
    plant_imprint,
    plant_silence,
    plant_traps,
    plant_whisper,
)
from attacks.surgery.front import NAME, behind_front
from attacks.view import Knowledge


@dataclass(frozen=True)
class Site:
    """Where a server plants: the clients' ``model`` with the weights of the round, what the server knows, and whom.

    ``batch`` is how many examples a client uses in a step; ``cohort`` the clients asked. ``suspects`` are the records
    that the server asks about in ``rounds``, one after another, of which this is ``round``.
    """

    model: nn.Module
    know: Knowledge
    cohort: tuple[int, ...]
    victim: int
    batch: int
    generator: torch.Generator
    suspects: Targets | None = None
    rounds: tuple[int, ...] = ()
    round: int = 1


@dataclass(frozen=True)
class Crafted:
    """The models of one round: ``common`` for everybody but the clients that get their ``own``.

    ``planted`` is for ``Knowledge.planted``. ``alone`` maps a client to the parameters in which a sum over the cohort
    holds nothing but that client's update.
    """

    common: nn.Module
    planted: Mapping[str, Any]
    own: Mapping[int, nn.Module] = field(default_factory=dict)
    alone: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Plant(Protocol):
    """One way to plant. Implementations are frozen dataclasses with a literal ``kind``."""

    rung: ClassVar[str]
    attack: ClassVar[str]
    """The attack that reads what was planted."""
    public: ClassVar[bool]
    """Whether it takes public data to plant."""
    one_victim: ClassVar[bool]
    """Whether it is after one client, the adversary's victim."""
    kind: str

    def problems(self) -> list[str]:
        """Every invalid field as ``field = value: reason; remedy``; empty when there is none."""
        ...

    def describe(self) -> str:
        """What is sent to whom, in words that follow "it sends"."""
        ...

    def rows(self, cohort: int) -> int:
        """Rows of the layer that the architecture gets in front of it; 0 where the architecture stays as agreed."""
        return 0

    def asks(self) -> int:
        """How many records of the victim it asks about, among as many of nobody; 0 for one that asks about none."""
        return 0

    def craft(self, site: Site) -> Crafted:
        """The models to send; raises ValueError for a model without a place for them."""
        ...


@dataclass(frozen=True)
class Imprint(Plant):
    """A layer in front whose rows differ by one bin each (Robbing the Fed); works on sums of any size."""

    kind: Literal["imprint"] = "imprint"
    bins: int = 256
    jitter: float = 0.0
    """Radians by which rows are turned apart, so that no two are parallel; 0.01 costs no yield on photographs."""
    slope: float = 1.0
    """Of an example's loss in an active row: how much of the update's range the rows fill."""

    rung: ClassVar[str] = "L10"
    attack: ClassVar[str] = "imprint"
    public: ClassVar[bool] = True
    one_victim: ClassVar[bool] = False
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def problems(self) -> list[str]:
        """Every invalid field."""
        return _wrong(
            (self.bins >= 2, f"bins = {self.bins}: must be at least 2; try 256"),
            (0 <= self.jitter < math.inf, f"jitter = {self.jitter}: must be at least 0; try 0.01"),
            (0 < self.slope < math.inf, f"slope = {self.slope}: must be positive and finite; try 1.0"),
        )

    def describe(self) -> str:
        """In words."""
        turned = f", no two of them parallel (turned by {self.jitter:g} radians)" if self.jitter else ""
        return f"every client the same model with an imprint layer of {self.bins} rows in front{turned}"

    def rows(self, cohort: int) -> int:
        """One a bin."""
        return self.bins

    def craft(self, site: Site) -> Crafted:
        """The same for all."""
        planted = _imprinted(site, self.bins, self.jitter, self.slope)
        return Crafted(planted.model, planted.planted, notes=planted.notes)


@dataclass(frozen=True)
class Kernels(Plant):
    """An imprint with rows of its own for each client, dead in all others' models (in the manner of LOKI).

    A sum then tells each example and whose it is. The layer has ``bins`` rows for every client of the cohort.
    """

    kind: Literal["kernels"] = "kernels"
    bins: int = 64
    jitter: float = 0.0
    slope: float = 1.0

    rung: ClassVar[str] = "L10"
    attack: ClassVar[str] = "imprint"
    public: ClassVar[bool] = True
    one_victim: ClassVar[bool] = False
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def problems(self) -> list[str]:
        """Every invalid field."""
        return Imprint(bins=self.bins, jitter=self.jitter, slope=self.slope).problems()

    def describe(self) -> str:
        """In words."""
        return f"each client a model of its own, in which only its own {self.bins} rows of a layer in front are alive"

    def rows(self, cohort: int) -> int:
        """``bins`` for each client."""
        return self.bins * cohort

    def craft(self, site: Site) -> Crafted:
        """A model for each client."""
        planted = _imprinted(site, self.bins, self.jitter, self.slope)
        rows = self.rows(len(site.cohort))
        features = torch.Size(site.know.input_shape).numel()
        dead = behind_front(site.model, features, rows)
        weight, bias = f"{NAME}.rows.weight", f"{NAME}.rows.bias"
        state = planted.model.state_dict()
        live_weight, live_bias = state.pop(weight), state.pop(bias)
        dead.load_state_dict(state, strict=False)
        with torch.no_grad():
            dead.get_parameter(bias).fill_(-1.0)
        own = {}
        for place, client in enumerate(site.cohort):
            own[client] = copy.deepcopy(dead)
            block = slice(place * self.bins, (place + 1) * self.bins)
            with torch.no_grad():
                own[client].get_parameter(weight)[block] = live_weight
                own[client].get_parameter(bias)[block] = live_bias
        alone = dict.fromkeys(site.cohort, (weight, bias))
        return Crafted(dead, planted.planted, own, alone, planted.notes)


@dataclass(frozen=True)
class Traps(Plant):
    """Rows of the model's own first dense layer that few examples activate (When the Curious Abandon Honesty)."""

    kind: Literal["traps"] = "traps"
    by: Literal["scale", "bias"] = "scale"
    rarity: int | None = None
    """Set the traps as for batches of so many: a row is then active on about one example in ``rarity``. None takes
    the federation's batch size; less is harder to see and catches less."""

    rung: ClassVar[str] = "L9"
    attack: ClassVar[str] = "trap_weights"
    public: ClassVar[bool] = True
    one_victim: ClassVar[bool] = False
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def problems(self) -> list[str]:
        """Every invalid field."""
        return _wrong(
            (self.by in ("scale", "bias"), f"by = {self.by!r}: must be 'scale' or 'bias'"),
            (self.rarity is None or self.rarity >= 2, f"rarity = {self.rarity}: must be at least 2; or leave it out"),
        )

    def describe(self) -> str:
        """In words."""
        rare = f", set as for batches of {self.rarity}" if self.rarity else ""
        return f"every client the same model, its first dense layer full of traps (by {self.by}{rare})"

    def craft(self, site: Site) -> Crafted:
        """The same for all."""
        batch = self.rarity or max(2, site.batch)
        planted = plant_traps(site.model, site.know, batch=batch, generator=site.generator, by=self.by)
        if planted.planted["layer"] == f"{NAME}.rows":
            raise ValueError(
                f"model {type(site.model).__name__}: has no dense layer that reads the input; "
                "plant 'imprint', which puts one in front"
            )
        return Crafted(planted.model, planted.planted, notes=planted.notes)


@dataclass(frozen=True)
class Fishing(Plant):
    """An output layer that lets the examples of one class answer, and no others (Fishing for User Data)."""

    kind: Literal["fishing"] = "fishing"
    target_class: int = 0

    rung: ClassVar[str] = "L9"
    attack: ClassVar[str] = "class_fishing"
    public: ClassVar[bool] = False
    one_victim: ClassVar[bool] = False
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def problems(self) -> list[str]:
        """Every invalid field."""
        return _wrong((self.target_class >= 0, f"target_class = {self.target_class}: must be at least 0"))

    def describe(self) -> str:
        """In words."""
        return f"every client the same model, whose output layer lets class {self.target_class} alone answer"

    def craft(self, site: Site) -> Crafted:
        """The same for all."""
        planted = plant_fishing(site.model, site.know, self.target_class)
        return Crafted(planted.model, planted.planted, notes=planted.notes)


@dataclass(frozen=True)
class FeatureFishing(Plant):
    """An output layer that lets one example of a class answer, the least like it (Fishing for User Data)."""

    kind: Literal["feature_fishing"] = "feature_fishing"
    target_class: int = 0
    among: int = 8
    """How many examples of the class are expected in what the server can read: an update, or a sum."""
    sharpness: float = 30.0
    """Of the cut: the logit at a distance of one standard deviation. More silences those nearer to the cut, and makes
    the update larger, which a clip undoes."""

    rung: ClassVar[str] = "L9"
    attack: ClassVar[str] = "feature_fishing"
    public: ClassVar[bool] = True
    one_victim: ClassVar[bool] = False
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def problems(self) -> list[str]:
        """Every invalid field."""
        return _wrong(
            (self.target_class >= 0, f"target_class = {self.target_class}: must be at least 0"),
            (self.among >= 2, f"among = {self.among}: must be at least 2; plant 'fishing' for a lone example"),
            (0 < self.sharpness < math.inf, f"sharpness = {self.sharpness}: must be positive and finite; try 30"),
        )

    def describe(self) -> str:
        """In words."""
        one = f"one example in {self.among} of class {self.target_class}"
        return f"every client the same model, whose output layer lets {one} alone answer"

    def craft(self, site: Site) -> Crafted:
        """The same for all."""
        planted = plant_feature_fishing(
            site.model, site.know, self.target_class, among=self.among, sharpness=self.sharpness
        )
        return Crafted(planted.model, planted.planted, notes=planted.notes)


@dataclass(frozen=True)
class Inconsistency(Plant):
    """The victim gets the live model, all others one that answers with nothing (Eluding Secure Aggregation)."""

    kind: Literal["inconsistency"] = "inconsistency"
    whisper: float = 0.0
    """What is left of the others' updates; 0 silences them, 1e-4 leaves no row of theirs without a gradient."""

    rung: ClassVar[str] = "L10"
    attack: ClassVar[str] = "model_inconsistency"
    public: ClassVar[bool] = False
    one_victim: ClassVar[bool] = True
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def problems(self) -> list[str]:
        """Every invalid field."""
        return _wrong((0 <= self.whisper < 1, f"whisper = {self.whisper}: must be from 0 (silence) to below 1"))

    def describe(self) -> str:
        """In words."""
        how = f"whose updates are {self.whisper:g} of what they would be" if self.whisper else "that answers with zeros"
        return f"its victim the model as it is, and every other client one {how}"

    def craft(self, site: Site) -> Crafted:
        """The silent model for all but the victim."""
        if self.whisper:
            planted = plant_whisper(site.model, site.know, self.whisper, site.victim)
        else:
            planted = plant_silence(site.model, site.know, site.victim)
        alone = {site.victim: tuple(planted.planted["silent"])}
        return Crafted(planted.model, planted.planted, {site.victim: site.model}, alone, planted.notes)


@dataclass(frozen=True)
class Ascent(Plant):
    """A model that unlearned a few records, which a client that holds one of them learns again (Nasr et al. 2019)."""

    kind: Literal["ascent"] = "ascent"
    records: int = 20
    """Records of the victim that the server asks about, among as many that nobody trains on."""
    rate: float = 0.3
    steps: int = 5
    """Of gradient ascent on a round's records, each at ``rate``."""

    rung: ClassVar[str] = "L9"
    attack: ClassVar[str] = "active_membership"
    public: ClassVar[bool] = False
    one_victim: ClassVar[bool] = True
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def problems(self) -> list[str]:
        """Every invalid field."""
        return _wrong(
            (self.records >= 1, f"records = {self.records}: must be at least 1; try 20"),
            (0 < self.rate < math.inf, f"rate = {self.rate}: must be positive and finite; try 0.3"),
            (self.steps >= 1, f"steps = {self.steps}: must be at least 1; try 5"),
        )

    def describe(self) -> str:
        """In words."""
        return f"every client the same model, which unlearned some of {2 * self.records} records that it asks about"

    def asks(self) -> int:
        """As set."""
        return self.records

    def craft(self, site: Site) -> Crafted:
        """The same for all; which records each round asks about was settled beforehand."""
        asked = site.suspects
        if asked is None or asked.inputs is None or asked.labels is None:
            raise ValueError("no records to ask about")
        count, rounds = len(asked.inputs), len(site.rounds)
        schedule = {round: list(range(place, count, rounds)) for place, round in enumerate(site.rounds)}
        planted = {"kind": self.kind, "rounds": schedule}
        if not schedule[site.round]:
            return Crafted(site.model, planted)
        chosen = schedule[site.round]
        inputs, labels = asked.inputs[chosen], asked.labels[chosen]
        sent = ascended(site.model, inputs, labels, site.know.loss, rate=self.rate, steps=self.steps)
        return Crafted(sent, planted)


PLANTS: dict[str, type[Plant]] = {
    plant.kind: plant for plant in (Imprint, Kernels, Traps, Fishing, FeatureFishing, Inconsistency, Ascent)
}
"""Every way to plant, by name."""


def _imprinted(site: Site, bins: int, jitter: float, slope: float) -> Any:
    know = site.know
    if know.public is None:
        raise ValueError("public: an imprint's thresholds are set on public data; leave some")
    return plant_imprint(
        site.model,
        know.public,
        bins=bins,
        generator=site.generator,
        num_classes=know.num_classes,
        loss=know.loss,
        jitter=jitter,
        slope=slope,
    )


def _wrong(*checks: tuple[bool, str]) -> list[str]:
    return [reason for held, reason in checks if not held]
