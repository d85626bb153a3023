"""The cocktail party: the inputs behind a first fully connected layer, told apart because images are not Gaussian.

The layer's gradient, also a sum over clients, is a mixture of all inputs: G = A X. Independent component analysis finds
the unmixing (Kariyappa et al. 2023, section 3). Their contrast works on pixels, which different images share; here it
works on differences of neighbouring pixels, which are sparse and hardly correlated between images, and which are
mixed by the same A. Sign and scale follow from the bias gradient, which is the same mixture of ones.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.losses import LOSSES
from attacks.probe import Dense, device_of, input_layer
from attacks.ranges import bounds
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction

_ROUNDING = 1e-6
"""Singular values below this part of the largest are float32 rounding."""
_SHARPNESS = 4.0
"""Of the heavy-tailed density 1 / (1 + 4 y^2) that differences of pixels, of unit variance, are taken to follow."""
_WARM_UP, _POLISH, _RESTARTS = 60, 200, 3


def blocks(count: int, side: int, draw: torch.Generator) -> Tensor:
    """Pictures (count, 1, side, side) of a few overlapping grey rectangles."""
    images = torch.zeros((count, 1, side, side))
    for image in images:
        for _ in range(4):
            top, left = torch.randint(side - 3, (2,), generator=draw).tolist()
            height, width = torch.randint(3, side, (2,), generator=draw).tolist()
            image[0, top : top + height, left : left + width] = torch.rand((), generator=draw)
    return images


def _sanity() -> Sanity:
    """The sum of two clients' gradients, over two pictures each."""
    draw = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.rand(parameter.shape, generator=draw) - 0.1)
    truth, labels = blocks(4, 16, draw), torch.tensor([0, 1, 2, 3])
    names = [name for name, _ in model.named_parameters()]
    loss = 2 * LOSSES["cross_entropy"](model(truth), labels)
    update = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    know = Knowledge((1, 16, 16), 4, batch_size=4, value_range=(0.0, 1.0))

    def won(claim: Reconstruction) -> bool:
        if claim.inputs is None:
            return False
        error = torch.cdist(truth.flatten(1), claim.inputs.flatten(1)).square().min(1).values / 256
        return bool((error < 1e-2).all())

    return Sanity(Observation(model, update, "gradient", contributors=2), know, Budget(), won)


@attack(
    "cocktail_party",
    paper="Kariyappa et al., ICML 2023, Cocktail Party Attack, section 3 (CPA-FC), on differences of pixels",
    claim="inputs of a first fully connected layer, from one update or from a sum, by their statistical independence",
    needs=Needs(rung="L2", sums=True),
    cost="seconds",
    stopped_by="more examples behind the sum than the first layer has neurons, or noise",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction:
    """Claims ``batch_size`` inputs, or where that is not granted as many as the gradient's rank."""
    obs, know = case.observation, case.knowledge
    layer, order = input_layer(obs.model, know)
    if layer.weight not in obs.update:
        raise NotApplicable(f"the update of {layer.weight}", "L4")
    mixed = torch.empty_like(obs.update[layer.weight], dtype=torch.float64, device=device_of(obs.model))
    mixed[:, order] = obs.update[layer.weight].to(mixed)
    signals = contrasts(mixed.unflatten(1, know.input_shape))
    left, sizes, _ = torch.linalg.svd(signals, full_matrices=False)
    rank = int((sizes > _ROUNDING * sizes[0]).sum()) if sizes[0] > 0 else 0
    if rank == 0:
        note = f"the update of {layer.weight} is zero: nothing to read"
        return Reconstruction(None, None, torch.full((1,), torch.nan), converged=False, diverged=1, notes=(note,))
    count = min(rank, know.batch_size or rank)
    whitening = (left[:, :count] / sizes[:count]).T * signals.shape[1] ** 0.5
    unmixing, loss, ran = _unmix(whitening @ signals, case.generator, budget)
    images = _scaled(unmixing @ whitening, mixed, obs, know, layer)
    notes = [f"{count} sources told apart, of a gradient of rank {rank}"]
    if know.batch_size is not None and know.batch_size > rank:
        notes.append(f"{know.batch_size} examples, but a gradient of rank {rank}: no linear unmixing gives all of them")
    return Reconstruction(
        images.reshape(-1, *know.input_shape).to(next(obs.model.parameters())),
        None,
        loss.cpu(),
        iterations=ran,
        notes=tuple(notes),
    )


def contrasts(inputs: Tensor) -> Tensor:
    """What the sources are told apart by (rows, n): neighbouring pixels' differences, or centred rows of no image."""
    if inputs.ndim != 4:
        flat = inputs.flatten(1)
        return flat - flat.mean(1, keepdim=True)
    return torch.cat([inputs.diff(dim=axis).flatten(1) for axis in (-1, -2) if inputs.shape[axis] > 1], dim=1)


def _unmix(signals: Tensor, generator: torch.Generator, budget: Budget) -> tuple[Tensor, Tensor, int]:
    """The unmixing (k, k) of white ``signals`` (k, n) that is most likely over the starts, and each source's loss.

    FastICA starts it (Hyvärinen 1999, symmetric); then maximum likelihood without the constraint that sources of a
    finite picture be exactly uncorrelated, which they are not.
    """
    count, deadline = len(signals), time.monotonic() + (budget.seconds or float("inf"))
    best: tuple[float, Tensor] | None = None
    polish, ran = budget.iterations or _POLISH, 0
    for _ in range(budget.restarts or _RESTARTS):
        if best is not None and time.monotonic() > deadline:
            break
        start = torch.randn((count, count), generator=generator, dtype=torch.float64).to(signals)
        unmixing, steps = _likeliest(_fast_ica(_orthogonal(start), signals), signals, polish)
        ran += steps
        value = float(_tails(unmixing, signals).sum() - torch.linalg.slogdet(unmixing)[1])
        if value == value and (best is None or value < best[0]):
            best = value, unmixing
    unmixing = _orthogonal(start) if best is None else best[1]
    return unmixing, _tails(unmixing, signals), ran


def _fast_ica(unmixing: Tensor, signals: Tensor) -> Tensor:
    """Fixed-point steps towards the largest negentropy, contrast -exp(-y^2 / 2)."""
    for _ in range(_WARM_UP):
        found = unmixing @ signals
        bell = torch.exp(-found.square() / 2)
        slope = ((1 - found.square()) * bell).mean(1, keepdim=True)
        unmixing = _orthogonal((found * bell) @ signals.T / signals.shape[1] - slope * unmixing)
    return unmixing


def _orthogonal(matrix: Tensor) -> Tensor:
    """The nearest orthogonal matrix."""
    left, _, right = torch.linalg.svd(matrix)
    return left @ right


def _tails(unmixing: Tensor, signals: Tensor) -> Tensor:
    """Each source's mean negative log density (k,), up to a constant."""
    return torch.log1p(_SHARPNESS * (unmixing @ signals).square()).mean(1)


def _likeliest(start: Tensor, signals: Tensor, iterations: int) -> tuple[Tensor, int]:
    """A local maximum of the likelihood, by L-BFGS; and the evaluations it took."""
    unmixing = start.clone().requires_grad_()
    solver = torch.optim.LBFGS([unmixing], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe")
    count = 0

    def closure() -> float:
        nonlocal count
        count += 1
        solver.zero_grad()
        loss = _tails(unmixing, signals).sum() - torch.linalg.slogdet(unmixing)[1]
        loss.backward()
        return loss.item()

    step: Callable[[Callable[[], float]], float] = solver.step
    step(closure)
    return unmixing.detach(), count


def _scaled(rows: Tensor, mixed: Tensor, obs: Observation, know: Knowledge, layer: Dense) -> Tensor:
    """The sources ``rows @ mixed`` (k, d) in data units: by the bias gradient, or else by the granted value range."""
    raw = rows @ mixed
    if layer.bias is not None and layer.bias in obs.update:
        scale = rows @ obs.update[layer.bias].to(mixed)
    elif know.value_range is None:
        raise NotApplicable("value_range (the first layer has no bias to tell sign and scale by)", "L4")
    else:
        peak = bounds(know.value_range, know.input_shape)[1].max().to(mixed)
        scale = raw.mean(1).sign() * raw.abs().amax(1) / peak
    images = raw / torch.where(scale == 0, torch.ones_like(scale), scale)[:, None]
    if know.value_range is None:
        return images
    low, high = (bound.flatten().to(images) for bound in bounds(know.value_range, know.input_shape))
    return images.clamp(low, high)
