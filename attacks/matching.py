"""What gradient matching minimises, and a case made ready for it."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from attacks.columns import blocks_of, relaxed
from attacks.generative import Prior
from attacks.losses import Loss
from attacks.memory import out_of_memory
from attacks.norms import watch
from attacks.objectives import Distance
from attacks.ranges import bounds
from attacks.registry import Case
from attacks.still import still_copy
from attacks.view import Knowledge, NotApplicable, Observation

Constants = tuple[Mapping[str, Tensor], ...]


@dataclass(frozen=True)
class Matching:
    """What is minimised: ``distance`` between gradients plus ``tv`` times the candidate's total variation.

    A point is flat: the B inputs in unit coordinates (0 and 1 are the ends of the value range where that is
    known), or with ``prior`` their B codes, then with ``joint`` B x classes label logits. With ``simulate`` the
    candidate goes through the client's own local steps, else the update is taken for one gradient. With ``relax`` a
    table's categories are shares that sum to one.
    """

    distance: Distance
    tv: float = 0.0
    joint: bool = False
    simulate: bool = False
    relax: bool = False
    norm: float = 0.0
    """Weight of how far the candidate is from what ``statistics`` makes of the case."""
    prior: Prior | None = None
    likely: float = 0.0
    """Weight of the codes' mean square: of how unlikely the candidate is under ``prior``."""
    statistics: Callable[[Observation, Knowledge], Mapping[str, Tensor]] | None = None
    dtype: torch.dtype | None = None
    loss: Loss | None = None
    """What the matched gradient is of, in place of the client's loss, for models made to attack."""


@dataclass(frozen=True)
class Victim:
    """One case made ready: an own copy of the model, the gradient to match, the labels, and the box of its inputs."""

    model: nn.Module
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    target: dict[str, Tensor]
    labels: Tensor
    low: Tensor
    high: Tensor
    boxed: bool
    shape: tuple[int, ...]
    classes: int
    loss: str
    returns: torch.dtype
    notes: tuple[str, ...]
    rate: Tensor
    schedule: tuple[tuple[int, int], ...] = ()
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    seen: dict[str, Tensor] = field(default_factory=dict)
    blocks: tuple[tuple[int, int], ...] = ()
    prior: Prior | None = None

    @property
    def inputs_size(self) -> int:
        """Numbers in the inputs, or codes, of a point; what follows them are label logits."""
        return int(torch.Size(self.shape).numel()) if self.prior is None else self.shape[0] * self.prior.dimension

    @property
    def constants(self) -> Constants:
        """What differs between victims that share a forward pass."""
        box = {"labels": self.labels, "low": self.low, "high": self.high, "rate": self.rate, **self.statistics}
        return self.parameters, self.buffers, self.target, box

    @property
    def sizes(self) -> list[tuple[str, torch.Size, torch.dtype, torch.device]]:
        """Name, shape, type and place of every constant."""
        return [(name, t.shape, t.dtype, t.device) for part in self.constants for name, t in part.items()]

    def to_data(self, points: Tensor, box: Mapping[str, Tensor] | None = None) -> Tensor:
        """Inputs in data units (..., B, *input_shape) of points (..., D), in ``box`` where that is given."""
        own = points[..., : self.inputs_size]
        if self.prior is not None:
            codes = own.unflatten(-1, (self.shape[0], self.prior.dimension))
            return self.prior.decode(codes.flatten(0, -2)).unflatten(0, codes.shape[:-1])
        low, high = (self.low, self.high) if box is None else (box["low"], box["high"])
        return low + (high - low) * relaxed(own.unflatten(-1, self.shape), self.blocks)

    def from_data(self, inputs: Tensor) -> Tensor:
        """The point (D,) of inputs (B, *input_shape), where points are inputs alone."""
        return ((inputs.to(self.low) - self.low) / (self.high - self.low)).flatten()

    def logits(self, point: Tensor) -> Tensor:
        """The label logits (B, classes) of one joint point."""
        return point[self.inputs_size :].unflatten(0, (self.shape[0], self.classes))

    def labels_at(self, point: Tensor, matching: Matching) -> Tensor:
        """The labels (B,) that go with a point: its own, as optimised, or those that were given."""
        return self.logits(point).argmax(1) if matching.joint else self.labels

    def project(self, points: Tensor) -> Tensor:
        """The points with their inputs clipped to the value range, where that is known."""
        if not self.boxed:
            return points
        return torch.cat([points[..., : self.inputs_size].clamp(0, 1), points[..., self.inputs_size :]], -1)


def gradient_of(obs: Observation, know: Knowledge, scale: bool) -> dict[str, Tensor]:
    """The gradient that the update shows; from a delta its direction alone, or with ``scale`` divided by the step.

    Raises NotApplicable for a zero update, and for a delta whose learning rate is unknown but whose scale matters.
    """
    if not any(bool(t.any()) for t in obs.update.values()):
        raise NotApplicable("an update that is not zero", "L4")
    if obs.kind == "gradient":
        return dict(obs.update)
    if scale and know.learning_rate is None:
        raise NotApplicable("learning_rate", "L5")
    step = (know.learning_rate or 1.0) * len(local_steps(know))
    return {name: -delta / step for name, delta in obs.update.items()}


def local_steps(know: Knowledge) -> tuple[tuple[int, int], ...]:
    """Which examples (from, up to) each local step uses: epochs over the same batches, cut after ``local_steps``.

    The order is not in the view: examples are numbered as the client first met them, and later epochs are taken to
    repeat the first.
    """
    examples = know.batch_size or 1
    size = min(know.local_batch_size or examples, examples)
    epoch = tuple((begin, min(begin + size, examples)) for begin in range(0, examples, size))
    steps = know.local_steps or (know.local_epochs or 1) * len(epoch)
    return tuple(epoch[step % len(epoch)] for step in range(steps))


def prepare(case: Case, target: Mapping[str, Tensor], labels: Tensor | None, matching: Matching) -> Victim:
    """Ready one case; raises NotApplicable for a model that takes tokens, ValueError where outputs do not fit."""
    know, notes = case.knowledge, []
    if matching.joint and know.loss == "elbo":
        raise NotApplicable("labels to find beside the inputs (a model that generates takes none)", "L4")
    model, dropped = still_copy(case.observation.model)
    if dropped:
        notes.append("dropout is off in the copy that was attacked: its masks are not in the view")
    steps = local_steps(know)
    if case.observation.kind == "delta" and len(steps) > 1 and not matching.simulate:
        notes.append(f"{len(steps)} local steps were read as one step along their mean gradient")
    first = next(model.parameters())
    returns, device = first.dtype, first.device
    dtype = matching.dtype or returns
    model.to(dtype)
    batch = know.batch_size or 1
    low, high = bounds(know.value_range or (0.0, 1.0), know.input_shape)
    statistics = matching.statistics(case.observation, know) if matching.statistics else {}
    victim = Victim(
        model=model,
        parameters={n: p.detach() for n, p in model.named_parameters()},
        buffers={n: b.detach() for n, b in model.named_buffers()},
        target={n: t.to(device, dtype) for n, t in target.items()},
        labels=torch.zeros(batch, dtype=torch.long, device=device) if labels is None else labels.to(device),
        low=low.to(device, dtype),
        high=high.to(device, dtype),
        boxed=know.value_range is not None and matching.prior is None,
        shape=(batch, *know.input_shape),
        classes=know.num_classes,
        loss=know.loss,
        returns=returns,
        notes=tuple(notes),
        rate=torch.tensor(know.learning_rate or 0.0, dtype=dtype, device=device),
        schedule=steps if matching.simulate else (),
        blocks=blocks_of(know.columns or ()) if matching.relax else (),
        statistics={n: t.to(device, dtype) for n, t in statistics.items()},
        seen=watch(model) if statistics else {},
        prior=matching.prior,
    )
    if len(victim.labels) != batch:
        raise ValueError(f"labels: {len(victim.labels)} for batch_size = {batch}; pass one label per example")
    try:
        _probe(victim)
    except ValueError:
        if dtype == returns:
            raise
        narrow = prepare(case, target, labels, dataclasses.replace(matching, dtype=returns))
        return dataclasses.replace(narrow, notes=(*narrow.notes, f"matched in {returns}: the model takes no {dtype}"))
    return victim


def alike(a: Victim, b: Victim) -> bool:
    """Whether one forward pass serves both: the same architecture, and the same outputs with the weights exchanged."""
    described = [
        (type(v.model), repr(v.model), v.shape, v.classes, v.loss, v.boxed, v.sizes, v.schedule, v.blocks)
        for v in (a, b)
    ]
    if described[0] != described[1]:
        return False
    x = a.to_data(torch.full((a.inputs_size,), 0.5, dtype=a.low.dtype, device=a.low.device))
    with torch.no_grad():
        return torch.equal(functional_call(a.model, (b.parameters, b.buffers), (x,)), b.model(x))


def _probe(victim: Victim) -> None:
    """Run the model once on mid-range inputs, so that what does not fit is said in one line."""
    if victim.loss == "next_token":
        raise NotApplicable("continuous inputs (this model takes tokens)", "L5")
    inputs = victim.to_data(victim.low.new_full((victim.inputs_size,), 0.5))
    try:
        with torch.no_grad():
            outputs = victim.model(inputs)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        if any(isinstance(module, nn.Embedding) for module in victim.model.modules()) and "indices" in str(error):
            raise NotApplicable("continuous inputs (this model takes tokens)", "L5") from error
        raise ValueError(f"input_shape = {victim.shape[1:]}: the model does not take it ({error})") from error
    if not isinstance(outputs, Tensor):
        raise NotApplicable(f"a model that puts out one tensor (this one gives a {type(outputs).__name__})", "L0")
    if victim.loss != "elbo" and tuple(outputs.shape) != (victim.shape[0], victim.classes):
        raise ValueError(
            f"num_classes = {victim.classes}: the model's output for {victim.shape[0]} examples is of shape "
            f"{tuple(outputs.shape)}; it must be ({victim.shape[0]}, {victim.classes})"
        )
