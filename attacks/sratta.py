"""Samples from sums of FedAvg updates over rounds, and which of them are of one client (Marchand et al. 2023, SRATTA).

A row of the first ReLU layer that one sample alone activates, in whatever client and local step, changes by a multiple
of [x, 1], so its quotient is the sample (section 4). Two neurons weigh a mixture differently: only a sample gives both
the same quotient. A row that holds two recovered samples, of which one was silent at the weights that the server sent,
says that the other one's client woke the neuron up locally: both are of one client (section 5).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.func import functional_call

from attacks.losses import LOSSES
from attacks.probe import Dense, device_of, input_layer
from attacks.ranges import feature_box
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction

_SHARP = 3e-3
"""A quotient that rounding blurs by more than this part of its size is not compared with others."""
_SLACK = 2.0
"""How many times the rounding of its two rows a difference may be before the quotients are two samples."""
_APART = 1e-2
"""Two samples differ by more than this part of their size."""
_PAIRS = 2**24
"""Numbers that the fits of a block of rows to all pairs of samples may take."""


@dataclass(frozen=True)
class _Round:
    """One round's live rows (n, d + 1), the weights that were sent (n, d + 1), the rounding (n,), neurons (n,)."""

    rows: Tensor
    sent: Tensor
    rounding: Tensor
    neurons: Tensor


def _sanity() -> Sanity:
    """The sum of two clients' updates after two local steps on one sample each."""
    draw = torch.Generator().manual_seed(7)
    model = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.rand(parameter.shape, generator=draw) - 0.3)
    truth, labels = torch.rand((4, 20), generator=draw), torch.tensor([0, 1, 2, 3])
    sent = {name: p.detach() for name, p in model.named_parameters()}
    update = {name: torch.zeros_like(weight) for name, weight in sent.items()}
    for client in range(2):
        local = dict(sent)
        for step in (0, 1):
            at = {name: weight.detach().requires_grad_() for name, weight in local.items()}
            own = slice(2 * client + step, 2 * client + step + 1)
            loss = LOSSES["cross_entropy"](functional_call(model, at, (truth[own],)), labels[own])
            slopes = torch.autograd.grad(loss, list(at.values()))
            local = {n: (w - 0.3 * slope).detach() for (n, w), slope in zip(at.items(), slopes, strict=True)}
        update = {name: total + local[name] - sent[name] for name, total in update.items()}

    def won(claim: Reconstruction) -> bool:
        if claim.inputs is None:
            return False
        error = torch.cdist(truth, claim.inputs).min(1).values
        return len(claim.inputs) <= len(truth) and int((error < 1e-3).sum()) >= 2

    know = Knowledge((20,), 4, value_range=(0.0, 1.0))
    return Sanity(Observation(model, update, "delta", contributors=2), know, Budget(), won)


@attack(
    "sratta",
    paper="Marchand et al., ICML 2023, SRATTA: Sample Re-ATTribution Attack of Secure Aggregation",
    claim="samples that a neuron of the first layer saw alone in some round's sum, and which of them share a client",
    needs=Needs(rung="L2", sums=True, history=True),
    cost="closed form",
    stopped_by="noise, sums in which no neuron sees one example alone, or a first layer of another kind",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction:
    """Closed form; all rounds' observations together. ``groups`` numbers the clients that samples were traced to."""
    know = case.knowledge
    layer, order = input_layer(case.observation.model, know)
    if layer.bias is None:
        raise NotApplicable(f"a bias on the first fully connected layer ({layer.name} has none)", "L10")
    missing = [n for n in layer.parameters if any(n not in obs.update for obs in case.observations)]
    if missing:
        raise NotApplicable(f"the update of {' and '.join(missing)}", "L4")
    rounds = [_read(obs, layer) for obs in case.observations]
    samples, blur = recover(rounds, feature_box(know.value_range, know.input_shape, order))
    if not len(samples):
        note = "no two neurons agree on a sample: each saw several together"
        return Reconstruction(torch.empty((0, *know.input_shape)), None, torch.empty(0), notes=(note,))
    edges = list(_shared_clients(rounds, samples))
    images = torch.empty_like(samples)
    images[:, order] = samples
    return Reconstruction(
        images.reshape(-1, *know.input_shape).to(next(case.observation.model.parameters())),
        None,
        blur.cpu(),
        groups=_components(edges, len(samples)),
        notes=(f"{len(samples)} samples from {len(rounds)} sums; {len(edges)} pairs traced to a common client",),
    )


def _read(obs: Observation, layer: Dense) -> _Round:
    weights = dict(obs.model.named_parameters())
    names = [(layer.weight, layer.bias or "")]
    sent, rows = (
        torch.cat([source[w].detach().double(), source[b].detach().double()[:, None]], 1).to(device_of(obs.model))
        for source in (weights, obs.update)
        for w, b in names
    )
    precision = torch.finfo(obs.update[layer.weight].dtype).eps
    # A delta is a difference of rounded weights, once for each client in a sum; a gradient is rounded as it is.
    size = rows.norm(dim=1) + (sent.norm(dim=1) if obs.kind == "delta" else 0)
    live = rows[:, -1] != 0
    step = _grid(rows) * rows.shape[1] ** 0.5
    rounding = (precision * size).clamp_min(step) * obs.contributors**0.5
    return _Round(rows[live], sent[live], rounding[live], live.nonzero()[:, 0])


def _grid(rows: Tensor) -> float:
    """The step of the fixed-point numbers that ``rows`` consist of, as secure aggregation adds them; 0 of others."""
    held = rows[rows != 0].abs()
    if not len(held):
        return 0.0
    parts = held / held.min()
    return float(held.min()) if bool(((parts - parts.round()).abs() < 1e-2).all()) else 0.0


def recover(rounds: Sequence[_Round], box: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Quotients (S, d) on which two neurons agree to within rounding, and how far rounding blurs each (S,)."""
    parts = []
    for one in rounds:
        quotient = one.rows[:, :-1] / one.rows[:, -1:]
        size = quotient.norm(dim=1)
        blur = one.rounding * (1 + size) / one.rows[:, -1].abs()
        sharp = blur < _SHARP * size
        if box is not None:
            sharp &= ((quotient >= box[0] - blur[:, None]) & (quotient <= box[1] + blur[:, None])).all(1)
        parts.append((quotient[sharp], blur[sharp], one.neurons[sharp]))
    found, blur, neurons = (torch.cat(part) for part in zip(*parts, strict=True))
    distance = torch.cdist(found, found, compute_mode="donot_use_mm_for_euclid_dist")
    agree = (distance < _SLACK * (blur[:, None] + blur)) & (neurons[:, None] != neurons)
    vouched = agree.any(1)
    near = distance < _APART * found.norm(dim=1)
    chosen: list[int] = []
    free = vouched.clone()
    for index in blur.argsort().tolist():
        if free[index]:
            chosen.append(index)
            free &= ~near[index]
    return found[chosen], blur[chosen]


def _shared_clients(rounds: Sequence[_Round], samples: Tensor) -> Iterator[tuple[int, int]]:
    """Pairs of samples that one row holds, of which exactly one could reach it at the weights that were sent."""
    atoms = torch.cat([samples, samples.new_ones((len(samples), 1))], dim=1)
    first, second = torch.triu_indices(len(atoms), len(atoms), 1, device=atoms.device)
    if not len(first):
        return
    gram, size = atoms @ atoms.T, atoms.norm(dim=1)
    own, shared, other = gram[first, first], gram[first, second], gram[second, second]
    determinant = own * other - shared.square()
    seen: set[tuple[int, int]] = set()
    for one in rounds:
        active = one.sent @ atoms.T > 0
        for block in torch.arange(len(one.rows), device=atoms.device).split(max(1, _PAIRS // len(first))):
            rows = one.rows[block]
            reads = rows @ atoms.T
            p, q = reads[:, first], reads[:, second]
            a, b = (other * p - shared * q) / determinant, (own * q - shared * p) / determinant
            left = (rows.square().sum(1, keepdim=True) - a * p - b * q).clamp_min(0).sqrt()
            least, pair = left.min(1)
            reach = torch.arange(len(rows), device=atoms.device)
            i, j = first[pair], second[pair]
            allowed = 10 * one.rounding[block] * size.max() + 1e-6 * rows.norm(dim=1)
            parts = torch.minimum(a[reach, pair].abs() * size[i], b[reach, pair].abs() * size[j])
            tells = (least < allowed) & (parts > 20 * allowed) & (active[block, i] != active[block, j])
            for edge in zip(i[tells].tolist(), j[tells].tolist(), strict=True):
                if edge not in seen:
                    seen.add(edge)
                    yield edge


def _components(edges: Sequence[tuple[int, int]], count: int) -> Tensor:
    """A number for each sample, the same for those that edges connect; -1 for one that no edge touches."""
    ends = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    graph = coo_array(([1] * len(edges), (ends[0].numpy(), ends[1].numpy())), shape=(count, count))
    groups = torch.from_numpy(connected_components(graph, directed=False)[1]).long()
    alone = torch.ones(count, dtype=torch.bool)
    alone[ends.flatten()] = False
    return torch.where(alone, torch.full_like(groups, -1), groups)
