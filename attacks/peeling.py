"""A batch read off the first dense layer one example at a time: what was read is subtracted, and more rows are free.

A row of the layer's gradient that one example alone activates holds that example (Phong et al. 2017, section 4). The
model then repeats this example's whole gradient, so it can be taken away, and rows that it shared with one other
example hold that one alone. Where the output layer reads this one, a row that all but one of a common group of examples
activate will do as well: at a trained model such rows abound, and lone ones are rare.

An example is believed where the gradient that the model gives for it fits the layer's:
taking it away lowers the rank by one (the low rank that Dimitrov et al. 2024, SPEAR, theorem 3.1, search exhaustively),
or leaves nothing of several rows.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn

from attacks.labels import mean_gradient_factor
from attacks.losses import LOSSES
from attacks.matching import local_steps
from attacks.probe import Dense, device_of, input_layer, output_layer, sandbox
from attacks.ranges import feature_box
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction

_FITS = 1e-4
"""An example explains what it should to within this part: true ones reach 1e-7 to 3e-5 in float32."""
_LONE_FIT = 3e-6
"""The same for an example of which a single row is evidence."""
_DUST = 1e-5
"""Rows below this part of the largest are the rounding of what was taken away."""
_ROUNDING = 1e-7
"""Singular values below this part of the largest are float32 rounding."""
_APART = 1e-3
"""Two claims differ by more than this part of their size, or are one."""
_GUESSES, _CANDIDATES = 4096, 2**14
"""Maps that are tried, and candidates that the best of them may give."""
_NUMBERS = 2**24
"""Numbers that one chunk of candidates may take."""


@dataclass(frozen=True)
class _Read:
    """Examples (k, d) in the layer's order of features, their labels, and what each leaves unexplained."""

    images: Tensor
    labels: Tensor
    errors: Tensor


class _Layer:
    """The layer's gradient summed over examples, and the model that gives any candidate's share of it, in float64."""

    def __init__(self, model: nn.Module, layer: Dense, order: Tensor, know: Knowledge) -> None:
        self.model, self.layer, self.order, self.know = model, layer, order, know
        self.box = feature_box(know.value_range, know.input_shape, order)
        self.spread = _spread(model, know, len(model.get_parameter(layer.weight)))

    def slopes(self, images: Tensor) -> Tensor:
        """The loss's gradient at the layer's outputs (classes, N, H) for each candidate (N, d) under each label."""
        flat = torch.empty_like(images)
        flat[:, self.order] = images
        written: list[Tensor] = []
        module = self.model.get_submodule(self.layer.name)
        handle = module.register_forward_hook(lambda _, read, wrote: written.append(wrote))
        outputs = self.model(flat.reshape(-1, *self.know.input_shape))
        handle.remove()
        found = []
        for label in range(self.know.num_classes):
            labels = torch.full((len(images),), label, device=images.device)
            loss = LOSSES[self.know.loss](outputs, labels) * len(images)
            found.append(torch.autograd.grad(loss, written[0], retain_graph=True)[0])
        return torch.stack(found)

    def share(self, read: _Read) -> Tensor:
        """The gradient (H, d + 1) of the examples read."""
        own = self.slopes(read.images)[read.labels, torch.arange(len(read.labels), device=read.labels.device)]
        return own.T @ _augmented(read.images)


def _spread(model: nn.Module, know: Knowledge, height: int) -> Tensor | None:
    """(H, classes - 1): the gradient at an active output of the layer is a combination of its row; None where unknown.

    Of a layer that the output layer reads, it is the differences of that one's weights: an example's gradients at the
    classes sum to zero.
    """
    last = output_layer(model, know)
    layer = None if last is None else model.get_submodule(last.name)
    if not isinstance(layer, nn.Linear) or layer.weight.shape != (know.num_classes, height):
        return None
    weight = layer.weight.detach()
    return (weight[1:] - weight[0]).T


def _augmented(images: Tensor) -> Tensor:
    return torch.cat([images, images.new_ones((len(images), 1))], 1)


def read_batch(obs: Observation, know: Knowledge, deadline: float = inf) -> Reconstruction:
    """The examples that vouch for themselves, in the order of the rounds in which they were freed.

    Raises NotApplicable where the scale of a single example's gradient is unknown, or there is no such layer.
    """
    size, factor = know.batch_size, mean_gradient_factor(obs, know)
    if size is None:
        raise NotApplicable("batch_size", "L5")
    if factor is None:
        raise NotApplicable("learning_rate", "L5")
    if obs.kind == "delta" and len(local_steps(know)) > 1:
        raise NotApplicable("one local step (several move the model between examples)", "L7")
    found, order = input_layer(obs.model, know)
    if found.bias is None:
        raise NotApplicable(f"a bias on the first fully connected layer ({found.name} has none)", "L10")
    if missing := [name for name in found.parameters if name not in obs.update]:
        raise NotApplicable(f"the update of {' and '.join(missing)}", "L4")
    rows = torch.cat([obs.update[found.weight], obs.update[found.bias][:, None]], 1)
    rows = rows.detach().to(device_of(obs.model), torch.float64) * (size * factor)
    with sandbox(obs.model) as twin:
        read = _peel(_Layer(twin.double(), found, order, know), rows, size, deadline)
    flat = torch.empty_like(read.images)
    flat[:, order] = read.images
    return Reconstruction(
        flat.reshape(-1, *know.input_shape).to(next(obs.model.parameters())),
        read.labels.cpu(),
        read.errors.cpu(),
        notes=(f"{len(flat)} of {size} examples vouch for themselves",),
    )


def _peel(layer: _Layer, rows: Tensor, size: int, deadline: float) -> _Read:
    read = _Read(rows.new_empty((0, rows.shape[1] - 1)), rows.new_empty(0, dtype=torch.long), rows.new_empty(0))
    rest, least = rows, _DUST * rows.norm(dim=1).max()
    while len(read.images) < size and time.monotonic() < deadline:
        live = rest.norm(dim=1) > least
        for source in _SOURCES:
            fresh = _vouched(layer, source(layer, rest[live], live), rest, live, read, size)
            if len(fresh.images):
                break
        else:
            break
        read = _Read(*(torch.cat(pair) for pair in zip(_parts(read), _parts(fresh), strict=True)))
        rest = rows - layer.share(read)
    return read


def _parts(read: _Read) -> tuple[Tensor, Tensor, Tensor]:
    return read.images, read.labels, read.errors


def _lone_rows(layer: _Layer, rows: Tensor, live: Tensor) -> Tensor:
    """Each row as if one example alone had activated it."""
    return rows[:, :-1] / rows[:, -1:]


def _beside_a_pattern(layer: _Layer, rows: Tensor, live: Tensor) -> Tensor:
    """Rows less what they would hold if the same examples activated them as activate many others.

    Where the output layer reads this one, rows that the same examples activate are one linear map of its weights. A row
    that one more example activates, or one less, is off by that example alone. The map is guessed from a few rows at a
    time; the guesses that fit most rows are kept.
    """
    if layer.spread is None or len(rows) <= layer.spread.shape[1]:
        return rows[:0, :-1]
    spread, few = layer.spread[live], layer.spread.shape[1]
    narrow = rows @ torch.linalg.svd(rows, full_matrices=False)[2][: layer.know.batch_size].T
    draws = min(_GUESSES, max(1, 2 * _NUMBERS // narrow.numel()))
    if few == 1:
        drawn = narrow.norm(dim=1).argsort(descending=True, stable=True)[:draws, None]
    else:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.rand((draws, len(rows)), generator=generator).topk(few).indices.to(rows.device)
    maps, singular = torch.linalg.solve_ex(spread[drawn], narrow[drawn])
    off = (narrow - spread @ maps).norm(dim=2) / narrow.norm(dim=1)
    fits = (off < _FITS) & (singular == 0)[:, None]
    best = fits.sum(1).argsort(descending=True, stable=True)[: max(1, _CANDIDATES // len(rows))]
    found = []
    for own in fits[best].unique(dim=0):
        if own.any():
            gaps = (rows - spread @ torch.linalg.lstsq(spread[own], rows[own]).solution)[~own]
            found.append(gaps[:, :-1] / gaps[:, -1:])
    return torch.cat([rows[:0, :-1], *found])


_SOURCES: tuple[Callable[[_Layer, Tensor, Tensor], Tensor], ...] = (_lone_rows, _beside_a_pattern)
"""Where candidates come from, cheapest first."""


def _vouched(layer: _Layer, images: Tensor, rest: Tensor, live: Tensor, read: _Read, size: int) -> _Read:
    """The candidates that vouch for themselves, best first, each once and none read before."""
    images = images[images.isfinite().all(1)]
    if layer.box is not None:
        outside = (images - images.clamp(*layer.box)).norm(dim=1)
        images = images[outside <= _FITS * images.norm(dim=1)].clamp(*layer.box)
    if not len(images):
        return _Read(images, read.labels[:0], read.errors[:0])
    judged = _judged(layer, images, rest, live, size - len(read.images))
    errors, labels = (torch.cat(part) for part in zip(*judged, strict=True))
    kept: list[int] = []
    for k in errors.argsort(stable=True).tolist():
        if errors[k] >= _FITS or len(read.images) + len(kept) == size:
            break
        others = torch.cat([read.images, images[kept]])
        if not ((others - images[k]).norm(dim=1) <= _APART * images[k].norm()).any():
            kept.append(k)
    return _Read(images[kept], labels[kept], errors[kept])


def _judged(layer: _Layer, images: Tensor, rest: Tensor, live: Tensor, left: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Per chunk of candidates what the better evidence leaves unexplained, and the label under which it does."""
    columns, sizes, right = torch.linalg.svd(rest, full_matrices=False)
    whole = int((sizes > _ROUNDING * sizes[0]).sum()) >= left
    for part in images.split(max(1, _NUMBERS // (layer.know.num_classes * len(rest)))):
        slopes, inputs = layer.slopes(part), _augmented(part)
        errors = _by_rows(slopes[..., live], inputs, rest[live])
        if whole:
            errors = torch.minimum(errors, _by_rank(slopes, inputs, columns[:, :left], sizes[:left], right[:left]))
        yield errors.nan_to_num(nan=inf).min(0)


def _by_rank(slopes: Tensor, inputs: Tensor, columns: Tensor, sizes: Tensor, right: Tensor) -> Tensor:
    """How far (classes, N) taking each candidate away is from lowering the rank of what is left by one.

    It does where its gradient lies in the span of the columns, its input in that of the rows, and their product
    through the inverse is one (Wedderburn).
    """
    seen = slopes @ columns
    beside = (slopes - seen @ columns.T).norm(dim=2) / slopes.norm(dim=2)
    outside = (inputs - inputs @ right.T @ right).norm(dim=1) / inputs.norm(dim=1)
    product = (seen * (inputs @ right.T / sizes)).sum(2)
    return torch.maximum(torch.maximum(beside, (product - 1).abs()), outside)


def _by_rows(slopes: Tensor, inputs: Tensor, rows: Tensor) -> Tensor:
    """What (classes, N) each candidate leaves of the row that it explains best, where it explains enough of them."""
    sizes = rows.norm(dim=1)
    gap = sizes**2 - 2 * slopes * (inputs @ rows.T) + slopes**2 * inputs.square().sum(1)[:, None]
    left = (gap.clamp_min(0).sqrt() / sizes).nan_to_num(nan=inf)
    best = left.min(2).values
    enough = ((left < _FITS).sum(2) > 1) | (best < _LONE_FIT)
    return torch.where(enough, best, inf)


def _sanity() -> Sanity:
    """Six examples through 48 rows, of which hardly any is one example's before others are taken away."""
    draw = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    truth, labels = torch.rand((6, 3, 2, 2), generator=draw), torch.tensor([0, 1, 1, 2, 3, 3])
    names = [name for name, _ in model.named_parameters()]
    slopes = torch.autograd.grad(LOSSES["cross_entropy"](model(truth), labels), list(model.parameters()))
    know = Knowledge((3, 2, 2), 4, batch_size=6, value_range=(0.0, 1.0))

    def won(claim: Reconstruction) -> bool:
        if claim.inputs is None or len(claim.inputs) < 6:
            return False
        return bool((torch.cdist(truth.flatten(1), claim.inputs.flatten(1)).min(1).values < 1e-3).all())

    return Sanity(Observation(model, dict(zip(names, slopes, strict=True)), "gradient"), know, Budget(), won)


@attack(
    "peeling",
    paper="Phong et al., IEEE TIFS 2017, section 4, repeated on what is left; test after Dimitrov et al., NeurIPS 2024",
    claim="a whole batch behind one step at a first dense layer with a bias, example by example and exactly",
    needs=Needs(rung="L5", knowledge=("batch_size",), of_deltas=("learning_rate",), sums=True),
    cost="closed form",
    stopped_by="any noise or rounding beyond float32's, several local steps, or more examples than rows tell apart",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction:
    """Closed form in rounds; claims only what vouches for itself, so that what it claims is hardly ever wrong."""
    deadline = time.monotonic() + (budget.seconds or inf)
    return read_batch(case.observation, case.knowledge, deadline)
