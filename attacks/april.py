"""The image behind one example's gradient at a vision transformer with learned positions, in closed form.

A position is added to a patch's embedding, so its gradient is the gradient at that embedding, which the update thereby
gives away (Lu et al. 2022, APRIL, proposition 2). They put it through the attention's weights; the embedding's own
weight gradient is the shorter way: it is the sum over patches of that gradient times the patch, a linear system for
all patches at once. It also holds for a sum over local steps on one example, of any learning rate.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.labels import sign_rule_label
from attacks.losses import LOSSES
from attacks.probe import sandbox
from attacks.ranges import bounds
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction

_ROUNDING = 1e-5
"""Singular values of the positions' gradient below this part of the largest are float32 rounding."""


@dataclass(frozen=True)
class _Embedding:
    """The patch embedding's ``weight``, the ``position`` parameter, its last ``count`` rows; feature -> flat input."""

    weight: str
    position: str
    count: int
    order: Tensor


class _Patches(nn.Module):
    """A transformer's first steps: patches of an 8x8 picture, embedded, plus positions, mixed by one nonlinearity."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.position = nn.Linear(16, 24), nn.Parameter(torch.zeros(4, 24))
        self.mix, self.head = nn.Linear(24, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.unflatten(-2, (2, 4)).unflatten(-1, (2, 4)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        outputs: Tensor = self.head(torch.tanh(self.mix(self.embedding(rows) + self.position)).mean(1))
        return outputs


def _sanity() -> Sanity:
    """One 8x8 picture in four patches."""
    draw = torch.Generator().manual_seed(2)
    with torch.random.fork_rng(devices=[]):
        model = _Patches()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    truth = torch.rand((1, 1, 8, 8), generator=draw)
    names = [name for name, _ in model.named_parameters()]
    loss = LOSSES["cross_entropy"](model(truth), torch.tensor([1]))
    update = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    know = Knowledge((1, 8, 8), 3, batch_size=1)

    def won(claim: Reconstruction) -> bool:
        return claim.inputs is not None and float((claim.inputs - truth).square().mean()) < 1e-6

    return Sanity(Observation(model, update, "gradient"), know, Budget(), won)


@attack(
    "april",
    paper="Lu et al., CVPR 2022, APRIL: Finding the Achilles' Heel on Privacy for Vision Transformers, proposition 2",
    claim="one example at a transformer with learned positions: exactly where it has no more patches than the rank",
    needs=Needs(rung="L5", knowledge=("batch_size",)),
    cost="closed form",
    stopped_by="batches larger than one, secure aggregation, or noise",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction:
    """Closed form; the objective is the part of the embedding's gradient that the patches leave unexplained."""
    obs, know = case.observation, case.knowledge
    if know.batch_size != 1:
        raise NotApplicable("a batch of one (positions add up over a batch)", "L7")
    found = _embedding(obs.model, know)
    if missing := [name for name in (found.weight, found.position) if name not in obs.update]:
        raise NotApplicable(f"the update of {' and '.join(missing)}", "L4")
    weight = obs.update[found.weight].detach().double()
    at_patches = obs.update[found.position].detach().double().reshape(-1, len(weight))[-found.count :]
    left, sizes, right = torch.linalg.svd(at_patches.T, full_matrices=False)
    rank = int((sizes > _ROUNDING * sizes[0]).sum()) if sizes[0] > 0 else 0
    if rank == 0:
        note = f"the update of {found.position} is zero: nothing to read"
        return Reconstruction(None, None, torch.full((1,), torch.nan), converged=False, diverged=1, notes=(note,))
    low, high = (
        bound.flatten().to(weight)[found.order] for bound in bounds(know.value_range or (0, 1), know.input_shape)
    )
    middle = ((low + high) / 2).reshape(found.count, -1)
    # Directions of the patches that the gradient does not show stay in the middle of the range.
    gap = weight - at_patches.T @ middle
    patches = middle + right[:rank].T @ ((left[:, :rank].T @ gap) / sizes[:rank, None])
    unexplained = float((weight - at_patches.T @ patches).norm() / weight.norm())
    read = patches.flatten()
    flat = torch.empty_like(read)
    flat[found.order] = read if know.value_range is None else read.clamp(low, high)
    label = sign_rule_label(obs, know)
    whole = "all patches follow from it" if rank == found.count else "the rest is left at the middle of the range"
    return Reconstruction(
        flat.reshape(1, *know.input_shape).to(next(obs.model.parameters())),
        None if label is None else torch.tensor([label]),
        torch.tensor([unexplained]),
        notes=(f"the positions' gradient has rank {rank} for {found.count} patches: {whole}",),
    )


def _embedding(model: nn.Module, know: Knowledge) -> _Embedding:
    """The dense layer that reads the input patch by patch, and the parameter that is added to what it writes.

    Found by running the model. Raises NotApplicable where there is none.
    """
    size = torch.Size(know.input_shape).numel()
    probe = torch.arange(size, dtype=torch.float64) / size
    calls: dict[str, tuple[Tensor, Tensor]] = {}
    with sandbox(model) as twin:
        twin.eval()
        for name, module in twin.named_modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(lambda _, read, wrote, name=name: calls.update({name: (read[0], wrote)}))
        inputs = probe.to(next(twin.parameters())).reshape(1, *know.input_shape)
        try:
            outputs = twin(inputs)
        except (RuntimeError, IndexError) as error:
            raise NotApplicable("a model that takes this input as numbers", "L0") from error
        parameters = dict(twin.named_parameters())
        for name, (read, wrote) in calls.items():
            if (
                read.ndim != 3
                or read.numel() != size
                or not torch.equal(read.flatten().sort().values, inputs.flatten())
            ):
                continue
            candidates = {n: p for n, p in parameters.items() if p.ndim > 1 and p.shape[-2:-1] >= wrote.shape[-2:-1]}
            slopes = torch.autograd.grad(
                outputs.square().sum(), [wrote, *candidates.values()], allow_unused=True, materialize_grads=True
            )
            for position, slope in zip(candidates, slopes[1:], strict=True):
                if slope.shape[-1] != wrote.shape[-1] or slope.numel() < wrote.numel():
                    continue
                if torch.allclose(slope.reshape(-1, wrote.shape[-1])[-wrote.shape[-2] :], slopes[0][0], rtol=1e-4):
                    order = torch.empty(size, dtype=torch.long, device=read.device)
                    order[read.flatten().argsort()] = torch.arange(size, device=read.device)
                    return _Embedding(f"{name}.weight", position, wrote.shape[-2], order)
    raise NotApplicable("a dense patch embedding to which learned positions are added", "L10")
