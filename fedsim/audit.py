"""An audit of a run's differential privacy: canary clients, or canary examples, go through the defence that the run
used, and the epsilon that is seen to be lost stands beside the epsilon that was claimed."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedsim.canaries import Canaries, Estimate, one_run, one_shot
from fedsim.experiment import Experiment
from fedsim.guarantee import guarantee
from fedsim.seeds import derive, torch_generator
from strategies.base import ClientContext, Defence, LocalGradient
from strategies.client_dp import ClientDP

TRIALS = 1000
LOUD = 10.0
"""The norm of a canary before the defence clips it, in clip norms: a clip that is not enforced is then seen."""

Release = Callable[[Tensor, int, int], Tensor]
"""What leaves a client in one release: (contribution (d,), trial, release) -> (d,)."""


class ClaimExceeded(RuntimeError):
    """The run is seen to lose more privacy than it claims: the defence, or its accounting, is broken."""

    def __init__(self, method: str, low: float, claimed: float, delta: float) -> None:
        super().__init__(
            f"epsilon claimed = {claimed:.4g} at delta {delta:g}, but at least {low:.4g} was measured by {method}: "
            "the defence or its accounting is broken; trust no figure of this run"
        )
        self.method, self.low, self.claimed, self.delta = method, low, claimed, delta

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.method, self.low, self.claimed, self.delta)


@dataclass(frozen=True)
class Audit:
    """Two measurements of one mechanism beside the ``claimed`` epsilon; None claims no finite one.

    ``releases`` is how many each canary went through, ``dimension`` how many numbers each has.
    """

    claimed: float | None
    delta: float
    unit: str
    releases: int
    dimension: int
    estimate: Estimate
    bound: Estimate

    @property
    def exceeded(self) -> ClaimExceeded | None:
        """The first measurement whose lower end is above the claim, as the error that ``check`` raises."""
        if self.claimed is None:
            return None
        for found in (self.estimate, self.bound):
            if found.low > self.claimed:
                return ClaimExceeded(found.method, found.low, self.claimed, self.delta)
        return None

    def check(self) -> "Audit":
        """This audit; raises ClaimExceeded where it refutes the claim."""
        if error := self.exceeded:
            raise error
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain fields for a result file; an infinite epsilon is None there, as everywhere."""
        fields = asdict(self) | {"status": "failed" if self.exceeded else "done"}
        fields["cause"] = str(self.exceeded) if self.exceeded else None
        for name in ("estimate", "bound"):
            fields[name] = {k: None if v == math.inf else v for k, v in fields[name].items()}
        return fields


def audit_run(experiment: Experiment, history: Sequence[Mapping[str, Any]], *, trials: int = TRIALS) -> Audit | None:
    """Audit a trained cell's own defence, over as many releases as its statement counts, on its own model's shapes.

    None for a cell that claims nothing. The canaries draw from the cell's seed, apart from what any client drew.
    """
    given = guarantee(experiment, history)
    if given is None:
        return None
    defence = next(d for d in experiment.scenario.protocol if isinstance(d, ClientDP))
    shapes = {n: p.detach() for n, p in experiment.initial_model().named_parameters() if p.requires_grad}
    return audit(
        defence,
        shapes,
        claimed=given.statement.epsilon,
        delta=given.statement.delta,
        releases=given.statement.releases,
        trials=trials,
        seed=derive(experiment.seed, "audit"),
    )


def audit(
    defence: ClientDP,
    like: Mapping[str, Tensor],
    *,
    claimed: float | None,
    delta: float,
    releases: int,
    seed: int,
    trials: int = TRIALS,
) -> Audit:
    """Send ``trials`` canaries through ``defence`` as contributions of the names, shapes and types of ``like``.

    Each trial is a unit of its own (a client, or an example, as the defence protects), which contributes its direction
    in every release, with signs that sum to nothing where they can, so that noise used twice is seen; or, in the
    trials of the bound that a coin left out, zeros. Every release is the defence's real code on real tensors. Raises
    ClientUpdateError where the defence refuses a contribution.
    """
    if releases < 1 or trials < 2:
        raise ValueError(f"releases = {releases}, trials = {trials}: need a release, and two trials")
    dimension = sum(t.numel() for t in like.values() if t.is_floating_point())
    release = _of_clients(defence, like, seed) if defence.level == "client" else _of_examples(defence, seed)
    canaries = Canaries(trials, dimension, derive(seed, "directions"))
    coins = torch.rand(trials, generator=torch_generator(seed, "coins")) < 0.5
    signs = [1.0 if i % 2 == 0 else -1.0 for i in range(releases)]
    present, absent = [], []
    for trial, canary in enumerate(row for block in canaries for row in block):
        seen = sum(s * release(s * LOUD * defence.clip * canary, trial, i) for i, s in enumerate(signs))
        present.append(_alignment(canary, torch.as_tensor(seen)))
        if not coins[trial]:
            blank = torch.zeros_like(canary)
            seen = sum(s * release(blank, trial, i) for i, s in enumerate(signs))
            absent.append(_alignment(canary, torch.as_tensor(seen)))
    scores = torch.tensor(present, dtype=torch.float64)
    mixed = scores.clone()
    mixed[~coins] = torch.tensor(absent, dtype=torch.float64)
    return Audit(
        claimed=claimed,
        delta=delta,
        unit=defence.level,
        releases=releases,
        dimension=dimension,
        estimate=one_shot(scores, dimension, delta),
        bound=one_run(mixed, coins, delta),
    )


def _alignment(canary: Tensor, seen: Tensor) -> float:
    norm = float(seen.double().norm())
    return float(canary.double() @ seen.double()) / norm * math.sqrt(len(canary)) if norm else 0.0


def _of_clients(defence: Defence, like: Mapping[str, Tensor], seed: int) -> Release:
    """A client whose whole update is the canary; what it sends is read as one vector again."""

    def release(contribution: Tensor, trial: int, number: int) -> Tensor:
        rest, update = contribution, {}
        for name, tensor in like.items():
            if not tensor.is_floating_point():
                update[name] = tensor
                continue
            update[name], rest = rest[: tensor.numel()].view_as(tensor).to(tensor.dtype), rest[tensor.numel() :]
        sent = defence.protect(update, _context(defence.kind, seed, trial, number))
        return torch.cat([sent[n].flatten().double() for n, t in like.items() if t.is_floating_point()])

    return release


def _of_examples(defence: ClientDP, seed: int) -> Release:
    """An example whose gradient is the canary, alone in its batch: the loss is linear in the weights."""
    step: LocalGradient | None = defence.local_gradient
    assert step is not None

    def release(contribution: Tensor, trial: int, number: int) -> Tensor:
        model = nn.Linear(len(contribution), 1, bias=False, device="meta").to_empty(device="cpu")
        nn.init.zeros_(model.weight)
        context = _context(defence.kind, seed, trial, number)
        gradient = step(model, lambda outputs, _: outputs.sum(), contribution[None], torch.zeros(1), 1.0, context)
        return gradient["weight"].flatten().double()

    return release


def _context(kind: str, seed: int, trial: int, number: int) -> ClientContext:
    return ClientContext(number + 1, trial, torch_generator(seed, "round", number + 1, "client", trial, kind), {})
