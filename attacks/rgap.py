"""One example walked back through a chain of layers, each layer's input by linear least squares.

Given the gradient at a layer's outputs, the layer's weight gradient is linear in its input; and so are those of its
outputs that what follows determined (Zhu and Blaschko 2021, R-GAP, section 3.2). Both together are solved for the
input, which tells the gradient at the outputs of the layer before, and so on down to the data. Published for a single
logit: with several, the last layer's input follows from all of them, and with a bias the scale of the update does not
matter.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.func import functional_call, grad

from attacks.chain import Linear, chain_of
from attacks.known_case import image_case
from attacks.labels import sign_rule_label
from attacks.losses import LOSSES
from attacks.matching import gradient_of, local_steps
from attacks.ranges import bounds
from attacks.registry import Case, Needs, attack, one_by_one
from attacks.still import still_copy
from attacks.view import Budget, NotApplicable, Reconstruction

_WIDEST = 6000
"""Inputs of one layer: its equations are folded into a triangle of this side, in minutes."""
_AT_ONCE = 2**26
"""Numbers in the equations that are folded at once."""
_OPERATIONS = 1e10
"""Additions and multiplications that a core does in a second, at the least."""
_EXPLAINS = 1e-2
"""Mismatch below which a claim explains the update."""
_LENGTHS, _TRIED, _FITS = (-12.0, 12.0), 4000, 1e-5
"""Logarithms of the last layer's input's length that are tried, how many, and the misfit of one that holds."""
_ROUNDING = 10.0
"""Singular values below this many times the update's precision, in parts of the largest, are rounding."""


@attack(
    "rgap",
    paper="Zhu and Blaschko, ICLR 2021, R-GAP: Recursive Gradient Attack on Privacy, section 3",
    claim="one example at a chain of convolutions whose layers give as many equations as they have inputs",
    needs=Needs(rung="L5", knowledge=("batch_size",)),
    cost="closed form",
    stopped_by="batches larger than one, layers wider than what follows tells (pooling, few channels), or noise",
    sanity=lambda: image_case(nn.LeakyReLU(0.2), Budget()),
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction:
    """Closed form in float64; the objective is the relative mismatch of the claim's own gradient.

    Of the budget only the seconds matter: no layer is begun after them.
    """
    obs, know = case.observation, case.knowledge
    if know.batch_size != 1 or len(local_steps(know)) > 1:
        raise NotApplicable("one local step on a batch of one (what several give adds up)", "L7")
    if know.loss != "cross_entropy":
        raise NotApplicable(f"logits under cross-entropy (the loss is {know.loss})", "L10")
    layers = chain_of(obs.model, know)
    given = {name: tensor for name, tensor in obs.update.items() if tensor.any()}
    if missing := [layer.weight_name for layer in layers if layer.weight_name not in given]:
        raise NotApplicable(f"the update of {' and '.join(missing)}", "L4")
    label = sign_rule_label(obs, know) if know.labels is None else int(know.labels[0])
    if label is None:
        raise NotApplicable("labels (no dense output layer to read one from)", "L6")
    shown = gradient_of(obs, know, scale=layers[-1].bias_name not in given)
    seen = {name: tensor.double().cpu() for name, tensor in shown.items() if name in given}
    return _solve(case, layers, seen, label, time.monotonic() + (budget.seconds or math.inf))


def _solve(
    case: Case, layers: Sequence[Linear], seen: Mapping[str, Tensor], label: int, deadline: float
) -> Reconstruction:
    know, labels = case.knowledge, torch.tensor([label])
    precision = _ROUNDING * max(torch.finfo(tensor.dtype).eps for tensor in case.observation.update.values())
    low, high = bounds(know.value_range or (0, 1), know.input_shape)
    found, lacking = list[tuple[float, Tensor, _Rank]](), list[NotApplicable]()
    for start in _above(layers[-1], seen, label):
        try:
            inputs, solved = _walk_back(layers, seen, start, ((low + high) / 2).flatten(), precision, deadline)
        except _OutOfTime as late:
            return Reconstruction(None, labels, torch.ones(1), inconclusive=str(late))
        except NotApplicable as rank:
            lacking.append(rank)
            continue
        inputs = inputs.reshape(1, *know.input_shape)
        found.append((_mismatch(case, inputs, labels, seen), inputs, solved))
    if not found:
        raise lacking[0]
    mismatch, inputs, solved = min(found, key=lambda one: one[0])
    doubts = [
        "" if solved.whole else f"rank: {solved}; the rest is left at the middle of the range",
        "" if mismatch < _EXPLAINS else f"{mismatch:.0%} of the update is left unexplained, by noise or other steps",
        "" if sum(one[0] < _EXPLAINS for one in found) < 2 else "two inputs explain the update",
    ]
    return Reconstruction(
        (inputs if know.value_range is None else inputs.clamp(low, high)).to(next(case.observation.model.parameters())),
        labels,
        torch.tensor([mismatch]),
        notes=(f"the claim's own gradient is the one seen, up to {mismatch:.1g} of it",),
        inconclusive="; ".join(filter(None, doubts)),
    )


class _OutOfTime(Exception):
    """The budget ends before the next layer is solved."""


@dataclass(frozen=True)
class _Rank:
    """How many of the ``unknowns`` that ``layer`` reads follow from its ``equations``."""

    layer: str
    rank: int
    equations: int
    unknowns: int

    @property
    def whole(self) -> bool:
        return self.rank == self.unknowns

    def __str__(self) -> str:
        return f"{self.rank} of the {self.unknowns} inputs of layer {self.layer} follow from {self.equations} equations"


def _walk_back(
    layers: Sequence[Linear],
    seen: Mapping[str, Tensor],
    start: tuple[Tensor, Tensor],
    middle: Tensor,
    precision: float,
    deadline: float,
) -> tuple[Tensor, _Rank]:
    """The first layer's input (d,), near ``middle`` where it is open, and how much of it is not.

    ``start`` is the last layer's input and the slope at the logits. Raises NotApplicable where an inner layer's input
    stays open in part, for nothing before it follows then, and _OutOfTime.
    """
    *inner, last = layers
    inputs, slope = start
    rows = seen[last.weight_name].flatten(1)
    fitted = torch.outer(slope, inputs)
    scale = (rows * fitted).sum() / fitted.square().sum()
    after, solved = last, _Rank(last.name, last.size, rows.numel(), last.size)
    slope = slope[:, None]
    for layer in reversed(inner):
        if time.monotonic() + _seconds(layer) > deadline:
            raise _OutOfTime(f"the budget's seconds end before layer {layer.name}, which takes {_seconds(layer):.0f}")
        pulled = (after.weight.T @ slope).flatten()
        back = slope.new_zeros(after.size + 1).index_add(0, after.reads.flatten(), pulled)[:-1]
        outputs = inputs.reshape(len(layer.weight), -1)
        slope = back.reshape(outputs.shape) * layer.bend.slope(outputs)
        near = middle if layer is layers[0] else torch.zeros(layer.size, dtype=torch.float64)
        gradient = seen[layer.weight_name].flatten(1) / scale
        inputs, solved = _below(layer, slope, gradient, layer.bend.before(outputs), near, precision)
        if not solved.whole and layer is not layers[0]:
            raise NotApplicable(f"layers that can be walked back ({solved})", "L10")
        after = layer
    return inputs, solved


def _seconds(layer: Linear) -> float:
    """What folding the layer's equations takes on one core, at the most; nothing where they are refused as too many."""
    kernel, places = layer.reads.shape
    rows = min(len(layer.weight), places) * kernel + len(layer.weight) * places + layer.size
    return 2 * rows * layer.size**2 / _OPERATIONS if layer.size <= _WIDEST else 0.0


def _above(last: Linear, seen: Mapping[str, Tensor], label: int) -> list[tuple[Tensor, Tensor]]:
    """The last layer's input (R,), and the loss's slope at the logits (K,): softmax minus one-hot.

    Where no bias tells the input's length, the slope's formula does, for which several lengths may hold.
    """
    rows, bias = seen[last.weight_name].flatten(1), seen.get(last.bias_name)
    hot = torch.nn.functional.one_hot(torch.tensor(label), len(rows))
    offset = torch.zeros(len(rows), dtype=torch.float64) if last.bias is None else last.bias

    def slopes(inputs: Tensor) -> Tensor:
        return (inputs @ last.weight.T + offset).softmax(-1) - hot

    if bias is not None:
        inputs = rows.T @ bias / bias.square().sum()
        return [(inputs, slopes(inputs))]
    left, sizes, right = torch.linalg.svd(rows, full_matrices=False)
    sign = -1 if left[label, 0] > 0 else 1  # the label's slope is the only one below zero
    direction, shown = sign * right[0], sign * sizes[0] * left[:, 0]

    def misfit(logs: Tensor) -> Tensor:
        lengths = logs.exp()[..., None]
        return (lengths * slopes(lengths * direction) - shown).norm(dim=-1) / sizes[0]

    tried = torch.linspace(*_LENGTHS, _TRIED, dtype=torch.float64)
    seen_misfit = misfit(tried)
    lowest = (seen_misfit[1:-1] <= seen_misfit[:-2]) & (seen_misfit[1:-1] <= seen_misfit[2:])
    around = [(float(tried[i]), float(tried[i + 2])) for i in lowest.nonzero()[:, 0]]
    found = [_least(lambda log: float(misfit(torch.tensor(log, dtype=torch.float64))), ends) for ends in around]
    if not found:
        raise NotApplicable("a gradient that some length of the last layer's input explains", "L10")
    best = min(value for _, value in found)
    fitting = [math.exp(log) * direction for log, value in found if value <= max(best, _FITS)]
    return [(inputs, slopes(inputs)) for inputs in fitting]


def _least(function: Callable[[float], float], ends: tuple[float, float]) -> tuple[float, float]:
    """Where between the ends the function is least, and what it is there."""
    found = minimize_scalar(function, bounds=ends, method="bounded", options={"xatol": 1e-13})
    return float(found.x), float(found.fun)


def _below(
    layer: Linear, slope: Tensor, gradient: Tensor, before: Tensor, start: Tensor, precision: float
) -> tuple[Tensor, _Rank]:
    """The input (size,) nearest to ``start`` of a ``layer`` with ``gradient`` (O, R) and ``slope`` at outputs (O, P).

    ``before`` (O, P) holds the outputs that are known, NaN elsewhere. The gradients are taken over an orthonormal basis
    of the slopes: rows that repeat others count once.
    """
    basis, corner = torch.linalg.qr(slope)
    known = ~before.isnan()
    counts = corner.shape[0] * len(layer.reads), int(known.sum())
    if sum(counts) < layer.size:
        return start, _Rank(layer.name, sum(counts), sum(counts), layer.size)
    if layer.size > _WIDEST:
        raise NotApplicable(f"at most {_WIDEST} inputs to a layer ({layer.name} has {layer.size})", "L10")
    offset = before if layer.bias is None else before - layer.bias[:, None]
    by_gradient = _triangle(corner, layer.reads, basis.T @ gradient, layer.size)
    by_output = _triangle(layer.weight, layer.reads.T, offset, layer.size)
    rows = torch.linalg.qr(torch.cat([by_gradient, by_output]), mode="r").R
    system, wanted = rows[:, :-1], rows[:, -1:] - rows[:, :-1] @ start[:, None]
    found = torch.linalg.lstsq(system, wanted, rcond=precision, driver="gelsy")
    return start + found.solution[:, 0], _Rank(layer.name, int(found.rank), sum(counts), layer.size)


def _triangle(factors: Tensor, reads: Tensor, wanted: Tensor, size: int) -> Tensor:
    """A triangle (at most size + 1, size + 1), the last column wanted, with the least squares of all equations.

    Equation (a, b) is ``factors[a] @ input[reads[b]] = wanted[a, b]``, left out where that is NaN; ``reads`` is as in
    ``Linear``. All are divided by the length of their mean row.
    """
    folded = factors.new_zeros(0, size + 1)
    for some in torch.arange(len(factors)).split(max(_AT_ONCE // (len(reads) * size), 1)):
        rows = factors.new_zeros(len(some), len(reads), size + 1)
        rows[:, torch.arange(len(reads))[:, None], reads] = factors[some, None, :]
        rows[..., -1] = wanted[some]
        folded = torch.linalg.qr(torch.cat([folded, rows[~wanted[some].isnan()]]), mode="r").R
    mean = folded[:, :-1].square().sum() / (~wanted.isnan()).sum().clamp(min=1)
    return folded / mean.sqrt().clamp(min=1e-300)


def _mismatch(case: Case, inputs: Tensor, labels: Tensor, seen: Mapping[str, Tensor]) -> float:
    """The distance of the claim's gradient, at its best scale, from the one that was seen, in parts of the latter."""
    model = still_copy(case.observation.model)[0].double().cpu()

    def loss(at: Mapping[str, Tensor]) -> Tensor:
        return LOSSES[case.knowledge.loss](functional_call(model, dict(at), (inputs,)), labels)

    slopes = grad(loss)({name: parameter.detach() for name, parameter in model.named_parameters()})
    found, given = (torch.cat([part[name].flatten() for name in seen]) for part in (slopes, seen))
    return float(((found @ given / found.square().sum()) * found - given).norm() / given.norm())
