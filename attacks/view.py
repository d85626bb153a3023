"""The adversary's vocabulary: what a party saw, what it was told besides, and what it claims from that."""

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attacks.columns import Column
from attacks.losses import LOSSES
from attacks.partial import without_hidden
from attacks.ranges import bounds

Kind = Literal["gradient", "delta"]
"""``gradient``: of the loss at the model that was sent. ``delta``: local weights minus the weights that were sent."""


@dataclass(frozen=True)
class Observation:
    """One update as an adversary holds it, with the model (weights included) that it was computed on.

    ``update`` maps parameter names to tensors of the parameters' shapes. With ``contributors`` above one it is
    the sum over that many clients, each times its weight; ``weight`` is the sum of these, None where all count once.
    ``buffers`` are the non-trainable arrays beside it (BatchNorm statistics after local training), ``side`` the
    numbers (``num_examples``, metrics).
    """

    model: nn.Module
    update: Mapping[str, Tensor]
    kind: Kind
    contributors: int = 1
    round: int | None = None
    client: int | None = None
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    side: Mapping[str, float] = field(default_factory=dict)
    weight: float | None = None

    @property
    def scale(self) -> float:
        """What turns the sum into the mean update: one over the weights behind it."""
        return 1.0 / (self.weight or self.contributors)

    def __post_init__(self) -> None:
        if self.kind not in ("gradient", "delta"):
            raise ValueError(f"kind = {self.kind!r}: must be 'gradient' or 'delta'")
        if self.contributors < 1:
            raise ValueError(f"contributors = {self.contributors}: must be at least 1")
        if odd := [f"{name} ({_type(t)})" for name, t in self.update.items() if not _numbers(t)]:
            raise ValueError(
                f"update holds {', '.join(odd)}: attacks differentiate, and take torch tensors of floating-point "
                "numbers alone; pass torch.as_tensor(array).float() for each"
            )
        shapes = {name: tuple(p.shape) for name, p in self.model.named_parameters()}
        strangers = sorted(set(self.update) - set(shapes))
        wrong = sorted(n for n in set(self.update) & set(shapes) if tuple(self.update[n].shape) != shapes[n])
        if strangers or wrong:
            raise ValueError(
                f"update does not fit the model: unknown names {strangers}, wrong shapes {wrong}; "
                "pass a dict from the model's parameter names to tensors of their shapes"
            )


@dataclass(frozen=True)
class Knowledge:
    """What the threat model grants besides the view; None means not granted.

    ``batch_size`` counts distinct examples behind the update, over all local steps. ``labels`` (B,) are
    unordered. ``value_range`` bounds inputs in data units (what ``model.forward`` takes), as scalars or as
    tensors/sequences over the first input axis. ``public`` is (N, *input_shape), ``public_labels`` (N,).
    ``batch_stats`` maps buffer names to the private batch's statistics. ``planted`` describes what a malicious
    server put into the model, e.g. ``{"kind": "imprint", "layer": "<module name>"}``. ``columns`` is the schema of a
    table: which inputs are numbers, and which are the one-hot blocks of categories. ``architecture`` is the model
    untrained, ``epochs`` how often each example was trained on over all rounds, and ``member_rate`` the share of the
    candidates that are members: what it takes to train models like the finished one.
    """

    input_shape: tuple[int, ...]
    num_classes: int
    batch_size: int | None = None
    labels: Tensor | None = None
    value_range: tuple[Any, Any] | None = None
    learning_rate: float | None = None
    local_steps: int | None = None
    local_epochs: int | None = None
    local_batch_size: int | None = None
    loss: str = "cross_entropy"
    batch_stats: Mapping[str, Tensor] | None = None
    public: Tensor | None = None
    public_labels: Tensor | None = None
    planted: Mapping[str, Any] | None = None
    columns: tuple[Column, ...] | None = None
    architecture: nn.Module | None = None
    epochs: int | None = None
    member_rate: float | None = None

    def __post_init__(self) -> None:
        if wrong := _contradictions(self):
            raise ValueError("knowledge: " + "; ".join(wrong))

    def granted(self) -> tuple[str, ...]:
        """Names of the optional facts that were granted."""
        fixed = {"input_shape", "num_classes", "loss"}
        return tuple(
            f.name for f in dataclasses.fields(self) if f.name not in fixed and getattr(self, f.name) is not None
        )


def _contradictions(know: Knowledge) -> list[str]:
    """What cannot be true of any federation, or not together: one line each, with the field, the value and a remedy."""
    counts = ("num_classes", "batch_size", "local_steps", "local_epochs", "local_batch_size", "epochs")
    wrong = [
        f"{name} = {value}: must be at least 1"
        + ("" if name == "num_classes" else "; leave it out where it is unknown")
        for name in counts
        if (value := getattr(know, name)) is not None and value < 1
    ]
    if not know.input_shape or min(know.input_shape) < 1:
        wrong.append(f"input_shape = {know.input_shape}: give the sizes of one example, each at least 1")
    if know.loss not in LOSSES:
        wrong.append(f"loss = {know.loss!r}: the losses that attacks know are {', '.join(LOSSES)}")
    if know.learning_rate is not None and not 0 < know.learning_rate < math.inf:
        wrong.append(f"learning_rate = {know.learning_rate}: must be positive; leave it out where it is unknown")
    if know.value_range is not None:
        try:
            bounds(know.value_range, know.input_shape)
        except ValueError as error:
            wrong.append(str(error))
    for name in ("labels", "public_labels") if know.loss != "elbo" else ():  # which trains on no label
        given = getattr(know, name)
        if given is not None and len(given) and not 0 <= int(given.min()) <= int(given.max()) < know.num_classes:
            wrong.append(
                f"{name} from {int(given.min())} to {int(given.max())}: with num_classes = {know.num_classes} they lie "
                f"between 0 and {know.num_classes - 1}; number the classes from 0, or correct num_classes"
            )
    if know.public is not None and tuple(know.public.shape[1:]) != tuple(know.input_shape):
        wrong.append(
            f"public of shape {tuple(know.public.shape)}: must be (N, *input_shape) = "
            f"{('N', *know.input_shape)}; reshape it, or correct input_shape"
        )
    if know.public is not None and know.public_labels is not None and len(know.public) != len(know.public_labels):
        wrong.append(f"public_labels: {len(know.public_labels)} for {len(know.public)} public examples; give one each")
    return wrong


def _numbers(array: object) -> bool:
    return isinstance(array, Tensor) and (array.is_floating_point() or array.is_complex())


def _type(array: object) -> str:
    return str(array.dtype) if isinstance(array, Tensor) else f"{type(array).__module__}.{type(array).__name__}"


@dataclass(frozen=True)
class Budget:
    """How hard an attack may try: steps per restart, restarts, and wall seconds after which it must stop.

    Refining the best restart's claim may take ``iterations`` once more at each of five levels.
    None leaves the choice to the attack's own default. With ``compile`` a search runs its objective through
    ``torch.compile``: a minute or so at first, then fewer seconds a step.
    """

    iterations: int | None = None
    restarts: int | None = None
    seconds: float | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("iterations", "restarts", "seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:  # as nan is not either
                raise ValueError(f"budget.{name} = {value}: must be positive; leave it out for the default")


@dataclass(frozen=True)
class Reconstruction:
    """What an attack claims: ``inputs`` (B, *input_shape) in data units, ``labels`` (B,), its own ``objective``.

    ``objective`` (B,) or (1,) is the attack's loss, never computed from the truth. ``inputs`` is None for an
    attack that claims labels alone. ``diverged`` counts restarts that ended non-finite or without progress;
    a claim in which every restart diverged has ``converged`` False and is no evidence of protection. ``tokens`` (K,)
    are token ids, each once, that a text attack claims to occur somewhere in the batch. ``inconclusive`` says why
    what the claim lacks is no evidence of protection either; empty where it is.
    """

    inputs: Tensor | None
    labels: Tensor | None
    objective: Tensor
    converged: bool = True
    diverged: int = 0
    iterations: int = 0
    notes: tuple[str, ...] = ()
    tokens: Tensor | None = None
    inconclusive: str = ""
    groups: Tensor | None = None
    """(B,) of an attack on a sum that says whose its inputs are: equal numbers, one client; -1 where it cannot say."""


class NotApplicable(Exception):
    """The view or the knowledge lacks what the attack needs; ``missing`` names it, ``rung`` where it is granted."""

    def __init__(self, missing: str, rung: str) -> None:
        super().__init__(f"not applicable: needs {missing} (rung {rung})")
        self.missing = missing
        self.rung = rung

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.missing, self.rung)


@dataclass(frozen=True)
class Message:
    """One message as the party saw it on the wire.

    ``arrays``, ``metrics`` and ``configs`` are keyed by record name, then by entry. ``form`` says what the
    arrays are to this party: ``plain`` numbers, ``masked`` vectors or ``ciphertext`` bytes.
    """

    round: int
    client: int
    direction: Literal["sent", "received"]
    stage: str
    form: Literal["plain", "masked", "ciphertext"] = "plain"
    arrays: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bytes: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Update:
    """An update that the party can read: one client's, or the sum over ``contributors``, on broadcast ``base``.

    With ``partial`` it can read some coordinates alone; NaN stands for the others.
    """

    round: int
    client: int | None
    kind: Kind
    base: str
    arrays: Mapping[str, Tensor]
    contributors: int = 1
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    side: Mapping[str, float] = field(default_factory=dict)
    partial: bool = False
    clients: tuple[int, ...] = ()
    """Whose updates a sum adds up; empty for all that took part in the round."""
    weight: float | None = None
    """The sum of the weights behind a weighted sum; None where every client counts once."""


@dataclass(frozen=True)
class View:
    """The record of a whole run as one party saw it: the messages, and the updates that it can read from them.

    ``model`` is the architecture; ``broadcasts`` maps a digest to a state that was sent to clients.
    """

    party: str
    model: nn.Module
    broadcasts: Mapping[str, Mapping[str, Tensor]]
    messages: tuple[Message, ...]
    updates: tuple[Update, ...]
    planted: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """What this party itself planted in the models of a round, by round; ``Knowledge.planted`` of its attacks."""

    def observations(self, round: int | None = None, client: int | None = None) -> Iterator[Observation]:
        """Yield the observations that this view supports: none where there are only masked vectors or ciphertexts."""
        for update in self.updates:
            if (round is not None and update.round != round) or (client is not None and update.client != client):
                continue
            model = copy.deepcopy(self.model)
            model.load_state_dict(dict(self.broadcasts[update.base]), strict=False)
            known = without_hidden(model, update.arrays) if update.partial else (model, update.arrays)
            yield Observation(
                model=known[0],
                update=known[1],
                kind=update.kind,
                contributors=update.contributors,
                round=update.round,
                client=update.client,
                buffers=update.buffers,
                side=update.side,
                weight=update.weight,
            )


def generator(seed: int) -> torch.Generator:
    """A CPU generator of its own for one attack, so that no attack touches the global one."""
    return torch.Generator().manual_seed(seed)
