"""Reading a planted imprint layer: neighbouring rows differ by the examples that fall between their thresholds."""

import torch
from scipy.stats import chi2
from torch import Tensor, nn

from attacks.losses import LOSSES
from attacks.probe import device_of
from attacks.ranges import bounds
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.surgery.imprint import plant_imprint
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction

_FALSE_ALARMS = 1e-2
"""Empty bins that may be taken for occupied ones, per layer."""
_QUIET = 0.05
"""The part of the bins that is taken to be empty before anything is known; where fewer are, weak examples are lost."""
_ROUNDING = 8 * torch.finfo(torch.float32).eps
"""Differences below this part of the rows that they are taken from are float32 rounding."""


def _sanity() -> Sanity:
    """Four examples that fall into bins of their own."""
    draw = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    public, truth = torch.rand((200, 1, 4, 4), generator=draw), torch.rand((4, 1, 4, 4), generator=draw)
    surgery = plant_imprint(model, public, bins=64, generator=draw, num_classes=3)
    loss = LOSSES["cross_entropy"](surgery.model(truth), torch.tensor([0, 1, 2, 0]))
    names = [name for name, _ in surgery.model.named_parameters()]
    update = dict(zip(names, torch.autograd.grad(loss, list(surgery.model.parameters())), strict=True))
    know = Knowledge((1, 4, 4), 3, batch_size=4, value_range=(0.0, 1.0), planted=surgery.planted)

    def won(claim: Reconstruction) -> bool:
        if claim.inputs is None:
            return False
        return bool((torch.cdist(truth.flatten(1), claim.inputs.flatten(1)).min(1).values < 1e-3).all())

    return Sanity(Observation(surgery.model, update, "gradient"), know, Budget(), won)


@attack(
    "imprint",
    paper="Fowl et al., ICLR 2022, Robbing the Fed, section 3",
    claim="every example that falls into a bin of its own, from one update or from a sum",
    needs=Needs(rung="L10", knowledge=("planted",), sums=True),
    cost="closed form",
    stopped_by="clients that check the model, or noise of a thousandth of the clip; secure aggregation does not",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction:
    """Closed form; claims the occupied bins, the clearest first, at most ``batch_size``."""
    obs, know = case.observation, case.knowledge
    rows, cumulative = _rows(obs, know)
    examples, noise = read(rows, cumulative)
    size = examples.norm(dim=1)
    # The example of a row is the row over its last entry, so that entry's share of noise is the claim's.
    doubt = noise / examples[:, -1].abs().clamp_min(torch.finfo(rows.dtype).tiny)
    occupied = (size > 0).nonzero().flatten()
    occupied = occupied[doubt[occupied].argsort(stable=True)]
    claimed = occupied if know.batch_size is None else occupied[: know.batch_size]
    if not len(claimed):
        note = "no bin of the planted layer rises above the noise"
        return Reconstruction(None, None, torch.full((1,), torch.nan), converged=False, diverged=1, notes=(note,))
    images = (examples[claimed, :-1] / examples[claimed, -1:]).reshape(-1, *know.input_shape)
    if know.value_range is not None:
        low, high = bounds(know.value_range, know.input_shape)
        images = images.clamp(low.to(images), high.to(images))
    return Reconstruction(
        images.to(next(obs.model.parameters())),
        None,
        doubt[claimed].cpu(),
        notes=(f"{len(occupied)} of {len(rows)} bins are occupied",),
    )


def _rows(obs: Observation, know: Knowledge) -> tuple[Tensor, bool]:
    """[weight | bias] update of the planted layer (k, d + 1) in float64, thresholds ascending; whether rows add up."""
    planted = know.planted or {}
    if planted.get("kind") != "imprint":
        raise NotApplicable(f"an imprint layer (planted: {planted.get('kind')})", "L10")
    name = planted["layer"]
    modules = dict(obs.model.named_modules())
    layer = modules.get(name)
    size = torch.Size(know.input_shape).numel()
    if not isinstance(layer, nn.Linear) or layer.bias is None or layer.in_features != size:
        raise NotApplicable(f"a dense layer {name!r} with a bias that reads the whole input", "L10")
    missing = [n for n in (f"{name}.weight", f"{name}.bias") if n not in obs.update]
    if missing:
        raise NotApplicable(f"the update of {' and '.join(missing)}", "L10")
    rows = torch.cat([obs.update[f"{name}.weight"], obs.update[f"{name}.bias"][:, None]], dim=1)
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    live = weight.any(1).nonzero().flatten()  # the others are bins of other clients' models
    if not len(live):
        raise NotApplicable(f"a row of {name!r} that measures something", "L10")
    scale = weight[live] @ weight[live[0]]
    order = live[(-bias[live] / scale).argsort(stable=True)]
    return rows.to(device_of(obs.model), torch.float64)[order], planted.get("rows", "cumulative") == "cumulative"


def read(rows: Tensor, cumulative: bool = True) -> tuple[Tensor, Tensor]:
    """Per bin the weighted sum (k, d + 1) of its examples, zero where none is evident, and its noise (k,) per entry.

    ``cumulative``: row i holds all examples above threshold i. Least squares under that: between two occupied bins
    all rows say the same and are averaged, above the last they say nothing; a bin's content is the step between two
    averages. Which bins are occupied is a chi-square test against the noise, which the quietest bins tell.
    """
    steps = rows - torch.cat([rows[1:], torch.zeros_like(rows[:1])]) if cumulative else rows
    energy = steps.square().sum(1)
    if cumulative:
        energy[-1] *= 2  # the last step is one row, the others are differences of two
    noise = _noise(energy, rows.shape[1])
    rounding = _ROUNDING * (rows.norm(dim=1) if cumulative else rows.norm(dim=1).max())
    above = chi2.isf(_FALSE_ALARMS / len(rows), rows.shape[1])
    occupied = steps.norm(dim=1) > torch.maximum(noise * above**0.5, rounding)
    if not cumulative:
        return steps * occupied[:, None], noise.expand(len(rows))
    ends = occupied.nonzero().flatten()
    # Segment s of rows ends at the s-th occupied bin; the rows above the last one hold no example at all.
    segment = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    segment[1:] = occupied[:-1].cumsum(0)
    count = torch.bincount(segment, minlength=len(ends) + 1).to(rows)
    means = torch.zeros((len(ends) + 1, rows.shape[1]), dtype=rows.dtype, device=rows.device)
    means.index_add_(0, segment, rows)
    means = means / count.clamp_min(1)[:, None]
    spread = noise.square() / 2 / count.clamp_min(1)
    means[len(ends)], spread[len(ends)] = 0, 0
    examples, doubt = torch.zeros_like(rows), torch.zeros_like(rows[:, 0])
    examples[ends] = means[:-1] - means[1:]
    doubt[ends] = (spread[:-1] + spread[1:]).sqrt()
    return examples, doubt


def _noise(energy: Tensor, width: int) -> Tensor:
    """The noise std per entry of steps whose squared norms (k,) are ``energy``, from those that hold nothing else.

    Starts at the quietest part, and takes in whatever the noise explains.
    """
    ordered = energy.sort().values
    quiet = max(1, round(_QUIET * len(ordered)))
    limit = chi2.isf(_FALSE_ALARMS / len(ordered), width) / width
    while True:
        variance = ordered[:quiet].mean() / width
        grown = int((ordered <= limit * width * variance).sum())
        if grown <= quiet:
            return variance.sqrt()
        quiet = grown
