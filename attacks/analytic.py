"""Reading inputs off the first fully connected layer, without any search.

A row of its weight gradient is the row's bias gradient times the input (Phong et al. 2017, section 4; Geiping et al.
2020, proposition 3.1), and so is a sum of such rows over local steps on one example: neither the learning rate nor
the number of steps is needed. Of a batch, rows that only one example activates hold that example alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.labels import mean_gradient_factor, sign_rule_label
from attacks.losses import LOSSES
from attacks.probe import Dense, device_of, input_layer, sandbox
from attacks.ranges import feature_box
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction

_SAME = 1e-5
"""Two rows whose images differ by less than this part of their size hold the same image: far above the rounding of
float32, far below the difference between two mixtures of the same examples."""
_DISTINCT = 1e-3
"""Two claims differ by more than this part of their size, or are one image that rounding or noise set apart."""
_EXPLAINED = 1e-3
"""A row whose bias gradient the model repeats to within this part of it, given the row's image, holds that image."""
_ROUNDS = 100


@dataclass(frozen=True)
class _Candidate:
    """An image (d,), the rows that agree on it, how far out of range it lies, what the model cannot explain of it."""

    image: Tensor
    rows: Tensor
    outside: float
    mismatch: float
    label: int | None

    def evident(self) -> bool:
        """Whether it vouches for itself: several rows give it, or the model repeats its row from it."""
        return len(self.rows) > 1 or self.mismatch < _EXPLAINED


def rank_one(rows: Tensor, box: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, float]:
    """The x (d,) for which g [x, 1]^T fits ``rows`` (H, d + 1) best over all g, and the part of their norm unexplained.

    Least squares over all rows at once: the leading singular pair. Under noise its last entry, the divisor, is noise
    in part; how much follows from the other singular values (spiked model, Benaych-Georges and Nadakuditi 2012,
    section 3.1), and the ratio is that of the posterior moments. With a ``box`` (low, high) it is the constrained
    least-squares solution, by alternating exact steps.
    """
    height, width = rows.shape
    _, values, right = torch.linalg.svd(rows, full_matrices=False)
    leading = right[0]
    noise = float(values[1:].square().sum()) / max((height - 1) * (width - 1), 1)
    true = _overlap(float(values[0] ** 2), noise, height, width)
    divisor = true * leading[-1] ** 2 + (1 - true) / width
    image = true * leading[:-1] * leading[-1] / divisor
    if box is not None:
        image = image.clamp(*box)
        for _ in range(_ROUNDS):
            before, direction = image, torch.cat([image, image.new_ones(1)])
            scale = rows @ direction / direction.square().sum()
            if not scale.any():
                break
            image = (rows[:, :-1].T @ scale / scale.square().sum()).clamp(*box)
            if torch.allclose(image, before, rtol=0, atol=1e-9):
                break
    direction = torch.cat([image, image.new_ones(1)])
    fitted = torch.outer(rows @ direction, direction) / direction.square().sum()
    return image, float((rows - fitted).norm() / rows.norm())


def _overlap(energy: float, noise: float, height: int, width: int) -> float:
    """Squared cosine between the leading right singular vector and the true one; 0 where noise alone explains it."""
    excess = energy - (height + width) * noise
    root = excess**2 - 4 * height * width * noise**2
    if excess <= 0 or root <= 0:
        return 0.0
    spike = (excess + root**0.5) / 2
    return (spike**2 - height * width * noise**2) / (spike * (spike + height * noise))


def _sanity() -> Sanity:
    """A batch of one, through a layer that has dead rows."""
    draw = torch.Generator().manual_seed(11)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    truth = torch.rand((1, 3, 2, 2), generator=draw)
    loss = LOSSES["cross_entropy"](model(truth), torch.tensor([2]))
    names = [name for name, _ in model.named_parameters()]
    update = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    know = Knowledge(input_shape=(3, 2, 2), num_classes=3, batch_size=1)

    def won(claim: Reconstruction) -> bool:
        if claim.inputs is None or claim.labels is None:
            return False
        return claim.labels.tolist() == [2] and bool((claim.inputs - truth).square().mean() < 1e-10)

    return Sanity(Observation(model, update, "gradient"), know, Budget(), won)


@attack(
    "analytic",
    paper="Phong et al., IEEE TIFS 2017, section 4; Geiping et al., NeurIPS 2020, proposition 3.1",
    claim="inputs of a first fully connected layer with a bias, exactly where a neuron sees one example alone",
    needs=Needs(rung="L4", sums=True),
    cost="closed form",
    stopped_by="sums over many examples, noise of a hundredth of the clip, or a first layer without a bias",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction:
    """Closed form; claims at most ``batch_size`` images, those that vouch for themselves first."""
    obs, know = case.observation, case.knowledge
    layer, order = input_layer(obs.model, know)
    rows = _rows(obs, layer)
    if not rows[:, :-1].any() or not rows[:, -1].any():
        note = f"the weight or the bias update of {layer.name} is zero: nothing to read"
        return Reconstruction(None, None, torch.full((1,), torch.nan), converged=False, diverged=1, notes=(note,))
    box = feature_box(know.value_range, know.input_shape, order)
    chosen = [] if know.batch_size == 1 else _disaggregate(obs, know, layer, order, rows, box)
    if chosen:
        fits = [rank_one(rows[candidate.rows], box) for candidate in chosen]
        labels: list[int | None] = [candidate.label for candidate in chosen]
        sure = sum(candidate.evident() for candidate in chosen)
        note = f"{sure} of {len(chosen)} candidates vouch for themselves"
        objective = [max(loss, candidate.mismatch) for (_, loss), candidate in zip(fits, chosen, strict=True)]
    else:
        fits = [rank_one(rows, box)]
        labels = [_single_label(obs, know, layer, order, fits[0][0], rows)]
        note = "" if know.batch_size == 1 else "no row vouches for itself: read as a batch of one"
        objective = [fits[0][1]]
    flat = torch.empty((len(fits), len(order)), dtype=rows.dtype, device=rows.device)
    flat[:, order] = torch.stack([image for image, _ in fits])
    inputs = flat.reshape(-1, *know.input_shape).to(next(obs.model.parameters()))
    known = None if None in labels else torch.tensor(labels)
    return Reconstruction(inputs, known, torch.tensor(objective), notes=(note,) if note else ())


def _rows(obs: Observation, layer: Dense) -> Tensor:
    """[weight | bias] update of the layer (H, d + 1) in float64; NotApplicable where either is not in the view."""
    if layer.bias is None:
        raise NotApplicable(f"a bias on the first fully connected layer ({layer.name} has none)", "L10")
    missing = [name for name in (layer.weight, layer.bias) if name not in obs.update]
    if missing:
        raise NotApplicable(f"the update of {' and '.join(missing)}", "L4")
    rows = torch.cat([obs.update[layer.weight], obs.update[layer.bias][:, None]], dim=1)
    return rows.to(device_of(obs.model), torch.float64)


def _single_label(
    obs: Observation, know: Knowledge, layer: Dense, order: Tensor, image: Tensor, rows: Tensor
) -> int | None:
    """The label of a batch of one: granted, by the sign rule, or that whose gradient fits the rows best."""
    if know.labels is not None and len(know.labels) == 1:
        return int(know.labels[0])
    label = sign_rule_label(obs, know)
    if label is None:
        everything = torch.arange(len(rows), device=rows.device)
        _, label = _explain(obs, know, layer, order, image[None], [everything], rows)[0]
    return label


def _disaggregate(
    obs: Observation, know: Knowledge, layer: Dense, order: Tensor, rows: Tensor, box: tuple[Tensor, Tensor] | None
) -> list[_Candidate]:
    """The images that single rows give, equal ones as one, best first, at most ``batch_size``.

    Without a granted ``batch_size``, only those that vouch for themselves.
    """
    bias = rows[:, -1]
    live = (bias.abs() > 1e-9 * bias.abs().max()).nonzero().flatten()
    if not len(live):
        return []
    live = live[bias[live].abs().argsort(descending=True, stable=True)]
    images = rows[live, :-1] / bias[live, None]
    close = torch.cdist(images, images) <= _SAME * images.norm(dim=1, keepdim=True)
    free = torch.ones(len(live), dtype=torch.bool, device=rows.device)
    leaders, members = [], []
    for lead in range(len(live)):
        if free[lead]:
            group = close[lead] & free
            group[lead] = True
            free &= ~group
            leaders.append(lead)
            members.append(live[group])
    images = images[leaders]
    explained = _explain(obs, know, layer, order, images, members, rows)
    found = []
    for image, group, (mismatch, label) in zip(images, members, explained, strict=True):
        outside = 0.0 if box is None else float((image - image.clamp(*box)).norm() / image.norm())
        found.append(_Candidate(image, group, outside if outside > _SAME else 0.0, mismatch, label))
    found.sort(key=lambda c: (not c.evident(), c.mismatch >= _EXPLAINED, -len(c.rows), c.outside, c.mismatch))
    chosen: list[_Candidate] = []
    for candidate in found:
        if len(chosen) == know.batch_size or (know.batch_size is None and not candidate.evident()):
            break
        apart = _DISTINCT * candidate.image.norm()
        if all((candidate.image - other.image).norm() > apart for other in chosen):
            chosen.append(candidate)
    return chosen


def _explain(
    obs: Observation,
    know: Knowledge,
    layer: Dense,
    order: Tensor,
    images: Tensor,
    members: Sequence[Tensor],
    rows: Tensor,
) -> list[tuple[float, int | None]]:
    """For each image the label with which the model repeats the bias update of its rows best, and the part it cannot.

    The scale of the update is the same for all; where it is not known, the most rows that agree on an image tell it.
    """
    repeated = _slopes(obs, know, layer, order, images, members)
    seen = [rows[group, -1] for group in members]
    factor = mean_gradient_factor(obs, know)
    if factor is not None and know.batch_size is not None:
        scale = 1.0 / (know.batch_size * factor)
    else:
        largest = max(range(len(members)), key=lambda i: len(members[i]))
        if len(members[largest]) == 1:
            return [(1.0, None)] * len(images)  # at some scale, any label repeats a lone row
        scale = _free_scale(repeated[largest], seen[largest])
    return [_best(r, s, scale) for r, s in zip(repeated, seen, strict=True)]


def _slopes(
    obs: Observation, know: Knowledge, layer: Dense, order: Tensor, images: Tensor, members: Sequence[Tensor]
) -> list[Tensor]:
    """Per image its loss by the layer's outputs at its rows (labels, rows), for every label that it might have."""
    flat = torch.empty_like(images)
    flat[:, order] = images
    sizes = [len(group) for group in members]
    owner = torch.arange(len(images), device=images.device).repeat_interleave(torch.tensor(sizes, device=images.device))
    written: list[Tensor] = []
    with sandbox(obs.model) as twin:
        twin.get_submodule(layer.name).register_forward_hook(lambda _, read, wrote: written.append(wrote))
        parameter = next(twin.parameters())
        outputs = twin(flat.reshape(-1, *know.input_shape).to(parameter))
        per_label = []
        for label in range(know.num_classes):
            labels = torch.full((len(images),), label, device=parameter.device)
            loss = LOSSES[know.loss](outputs, labels) * len(images)
            slope = torch.autograd.grad(loss, written[0], retain_graph=True)[0]
            per_label.append(slope[owner, torch.cat(list(members))].double())
    return list(torch.stack(per_label).split(sizes, dim=1))


def _free_scale(repeated: Tensor, seen: Tensor) -> float:
    """The scale of the label (labels, rows) that, at its own best scale, repeats what was seen (rows,) best."""
    scales = repeated @ seen / repeated.square().sum(1).clamp_min(torch.finfo(seen.dtype).tiny)
    return float(scales[_unexplained(scales[:, None] * repeated, seen).argmin()])


def _best(repeated: Tensor, seen: Tensor, scale: float) -> tuple[float, int]:
    """The part of what was seen that the best label leaves unexplained at this scale, and that label."""
    left = _unexplained(scale * repeated, seen)
    label = int(left.argmin())
    return float(left[label]), label


def _unexplained(repeated: Tensor, seen: Tensor) -> Tensor:
    # An image far out of range may overflow the model: it explains nothing.
    return ((seen - repeated).norm(dim=1) / seen.norm()).nan_to_num(nan=torch.inf)
