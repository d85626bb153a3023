"""Label counts with repeats as a linear system of per-class residuals, also over several local steps.

The output bias gradient of a batch is the sum over its examples of p(x) - y, which depends on the label far more than
on anything else: with each class's mean residual as a column, the counts are the solution of a linear system (Ma et
al. 2023, iLRG, section 3.3, by pseudo-inverse). Public labelled data gives the columns, and how far an example strays
from them; over local steps, it gives them along a simulated client's path (Hu et al. 2024, RLU). Without it a class's
residual is read off the gradient, whose row over its bias entry is that class's mean feature.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from attacks.labels import mean_gradient_factor, whole_counts
from attacks.losses import LOSSES
from attacks.matching import local_steps
from attacks.probe import Dense, output_layer, sandbox
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction

_PUBLIC = 512
_ROUNDS = 4
"""Times that the counts are solved for again, with the noise and the path that they imply."""
_CONCENTRATIONS = (1.0, 10.0, 1000.0)
"""How near a client's class proportions lie to the public ones, as Dirichlet weight per class; evidence chooses."""
_ABSENT = 0.05
"""Examples that a class is taken to have at least, when the noise of the system is estimated."""


@dataclass(frozen=True)
class Residuals:
    """Per class the mean p - y (one column a class), its covariance, and the number of examples that told it."""

    means: Tensor
    spread: Tensor
    count: Tensor


def _sanity() -> Sanity:
    """Eight examples, five of one class, at a model that has begun to tell four blobs apart; public data granted."""
    draw = torch.Generator().manual_seed(5)
    centres = torch.rand((4, 8), generator=draw)
    model = nn.Linear(8, 4)
    with torch.no_grad():
        model.weight.copy_(2 * (centres - centres.mean(0)))
        model.bias.zero_()
    labels = torch.tensor([0, 1, 1, 1, 1, 1, 3, 3])
    inputs = centres[labels] + 0.05 * torch.randn((8, 8), generator=draw)
    public_labels = torch.arange(80) % 4
    public = centres[public_labels] + 0.05 * torch.randn((80, 8), generator=draw)
    loss = LOSSES["cross_entropy"](model(inputs), labels)
    names = [name for name, _ in model.named_parameters()]
    update = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    know = Knowledge((8,), 4, batch_size=8, public=public, public_labels=public_labels)
    return Sanity(
        Observation(model, update, "gradient"),
        know,
        Budget(),
        lambda claim: claim.labels is not None and claim.labels.tolist() == labels.tolist(),
    )


@attack(
    "ilrg",
    paper="Ma et al., ICLR 2023, Instance-wise Batch Label Restoration; Hu et al. 2024 (RLU) for several steps",
    claim="how many examples of each class a batch holds, repeats included, also at a trained model",
    needs=Needs(rung="L5", knowledge=("batch_size",), of_deltas=("learning_rate",), sums=True),
    cost="closed form",
    stopped_by="noise, or keeping the output layer's gradient hidden",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction:
    """The objective is the part of the bias gradient that the counts leave unexplained."""
    return _solve(case)


def restored_labels(case: Case) -> Tensor:
    """The labels (B,) of one case, sorted; NotApplicable where the update does not hold them."""
    labels = _solve(case).labels
    if labels is None:
        raise NotApplicable("an update that is not zero", "L4")
    return labels


def _solve(case: Case) -> Reconstruction:
    obs, know = case.observation, case.knowledge
    if know.loss == "next_token":
        raise NotApplicable("one label per example (this loss has one per token)", "L5")
    layer = output_layer(obs.model, know)
    if layer is None or layer.bias is None or layer.bias not in obs.update:
        raise NotApplicable("the update of a dense output layer with a bias", "L4")
    factor = mean_gradient_factor(obs, know)
    if factor is None:
        raise NotApplicable("learning_rate", "L5")
    total = know.batch_size or 1
    slope = obs.update[layer.bias].detach().double().cpu() * factor * total
    if not slope.any():
        note = "the update is zero: it holds no label"
        return Reconstruction(None, None, torch.full((1,), torch.nan), converged=False, diverged=1, notes=(note,))
    if know.public is None or know.public_labels is None:
        means = _from_gradient(obs, layer)
        raw, note = _pseudo_inverse(means, slope, total), "no public labels: classes' residuals from the gradient"
    else:
        raw, means = _with_public(case, slope)
        note = f"classes' residuals from {min(len(know.public), _PUBLIC)} public examples"
    left = float((slope - means @ raw).norm() / slope.norm())
    counts = whole_counts(raw, total)
    labels = torch.arange(know.num_classes).repeat_interleave(counts)
    return Reconstruction(None, labels, torch.tensor([left]), notes=(note,))


def _from_gradient(obs: Observation, layer: Dense) -> Tensor:
    """Columns p - y of each class, at the mean feature that its row of the weight gradient shows (Ma et al., eq. 6)."""
    assert layer.bias is not None
    layer.require_plain()
    if layer.weight not in obs.update:
        raise NotApplicable(f"the update of {layer.weight}", "L4")
    own = obs.model.get_parameter(layer.weight), obs.model.get_parameter(layer.bias)
    weight, bias = (parameter.detach().double().cpu() for parameter in own)
    rows, divisor = (obs.update[name].detach().double().cpu() for name in (layer.weight, layer.bias))
    features = rows / torch.where(divisor == 0, torch.full_like(divisor, math.inf), divisor)[:, None]
    outputs = features @ weight.T + bias
    return outputs.softmax(1).T - torch.eye(len(bias), dtype=torch.float64)


def _pseudo_inverse(means: Tensor, slope: Tensor, total: int) -> Tensor:
    """Non-negative least squares for the counts, which sum to ``total``."""
    matrix = torch.cat([means, torch.ones((1, means.shape[1]), dtype=means.dtype)])
    wanted = torch.cat([slope, slope.new_full((1,), total)])
    return torch.from_numpy(nnls(matrix.numpy(), wanted.numpy())[0])


def _with_public(case: Case, slope: Tensor) -> tuple[Tensor, Tensor]:
    """The counts (classes,) as the mean of their posterior, and the columns that they were solved with."""
    obs, know = case.observation, case.knowledge
    assert know.public is not None
    assert know.public_labels is not None
    chosen = torch.randperm(len(know.public), generator=case.generator)[:_PUBLIC]
    parameter = next(obs.model.parameters())
    inputs, labels = know.public[chosen].to(parameter), know.public_labels[chosen].to(parameter.device)
    total = know.batch_size or 1
    seen = torch.bincount(labels.cpu(), minlength=know.num_classes).double() + 1
    share = seen / seen.sum()
    steps = local_steps(know) if obs.kind == "delta" else ((0, total),)
    counts = share * total
    with sandbox(obs.model) as twin:
        start = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
        for _ in range(_ROUNDS):
            twin.load_state_dict(start)
            path = [_residuals(twin, inputs, labels, know.num_classes)]
            if len(steps) > 1:
                path = _walk(twin, inputs, labels, counts, steps, know, case.generator)
            found = Residuals(*(torch.stack(part).mean(0) for part in zip(*(_parts(r) for r in path), strict=True)))
            counts = _posterior(found, slope, share, total, counts)
    return counts, found.means


def _parts(found: Residuals) -> tuple[Tensor, Tensor, Tensor]:
    return found.means, found.spread, found.count


def _walk(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    counts: Tensor,
    steps: Sequence[tuple[int, int]],
    know: Knowledge,
    generator: torch.Generator,
) -> list[Residuals]:
    """The residuals at each local step of a client that holds public examples in these proportions."""
    weights = (
        counts.clamp_min(_ABSENT)[labels.cpu()] / torch.bincount(labels.cpu(), minlength=len(counts))[labels.cpu()]
    )
    path = []
    for begin, end in steps:
        path.append(_residuals(model, inputs, labels, know.num_classes))
        batch = torch.multinomial(weights, end - begin, replacement=True, generator=generator).to(inputs.device)
        loss = LOSSES[know.loss](model(inputs[batch]), labels[batch])
        parameters = [p for p in model.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            for parameter, downhill in zip(parameters, slopes, strict=True):
                parameter.sub_(downhill, alpha=know.learning_rate or 0.0)
    return path


@torch.no_grad()
def _residuals(model: nn.Module, inputs: Tensor, labels: Tensor, classes: int) -> Residuals:
    """Each class's p - y over its public examples; of a class without any, that of all examples, moved to its label."""
    probabilities = model(inputs).double().softmax(1).cpu()
    one_hot = torch.eye(classes, dtype=torch.float64)
    own = labels.cpu()
    whole = torch.cov(probabilities.T)
    means, spread = [], []
    for index in range(classes):
        of_class = probabilities[own == index]
        means.append((of_class if len(of_class) else probabilities).mean(0) - one_hot[index])
        spread.append(torch.cov(of_class.T) if len(of_class) > 1 else whole)
    count = torch.bincount(own, minlength=classes).double().clamp_min(1)
    return Residuals(torch.stack(means, 1), torch.stack(spread), count)


def _posterior(found: Residuals, slope: Tensor, share: Tensor, total: int, counts: Tensor) -> Tensor:
    """The counts given the gradient: Gaussian, with examples that stray from their class and a Dirichlet prior.

    The prior's concentration is the one under which the gradient is likeliest.
    """
    held = counts.clamp_min(_ABSENT)
    noise = torch.einsum("c,cij->ij", held + held.square() / found.count, found.spread)
    noise += torch.eye(len(noise), dtype=noise.dtype) * (1e-6 * slope.square().mean() + 1e-12)
    expected, classes = share * total, len(share)
    best = (-math.inf, expected)
    for each in _CONCENTRATIONS:
        weight = each * classes
        prior = total * (total + weight) / (1 + weight) * (torch.diag(share) - share[:, None] * share)
        covariance = found.means @ prior @ found.means.T + noise
        gap = slope - found.means @ expected
        solved = torch.linalg.solve(covariance, gap)
        evidence = -0.5 * float(gap @ solved + torch.linalg.slogdet(covariance)[1])
        if evidence > best[0]:
            best = evidence, expected + prior @ found.means.T @ solved
    return best[1].clamp_min(0)
