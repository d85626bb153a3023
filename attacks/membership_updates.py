"""Membership told from updates: does a record's own gradient point along what a client sent?

Every statistic is the cosine of the record's gradient with the update, which needs neither the learning rate nor the
number of steps; the attacks differ in what they hold it against.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from attacks import known_members
from attacks.candidates import alignments, local_model, losses
from attacks.inference import Claim, InferenceNeeds, Targets, inference
from attacks.losses import LOSSES
from attacks.view import Budget, Knowledge, NotApplicable, Observation

_OTHERS = 2
"""Clients besides the target's that a round must hold for them to say what a non-member looks like."""

Observed = Sequence[Observation]


@inference(
    "gradient_alignment_membership",
    paper="Li, Li and Ribeiro 2022 (Effective passive membership inference attacks in federated learning)",
    claim="whether a record was in the batch behind an update",
    needs=InferenceNeeds("L4", "updates", sums=True),
    cost="seconds",
    stopped_by="noise of the size of the clip, or sums over very many examples",
    sanity=lambda: known_members.case(),
)
def gradient_alignment_membership(
    source: Observed, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """The mean cosine over the updates observed, of ``targets.client`` alone where that is set."""
    inputs, labels = records(targets)
    own = [o for o in source if targets.client is None or o.client == targets.client]
    if not own:
        raise NotApplicable(f"an update of client {targets.client}", "L4")
    return Claim(torch.stack([alignments(o, inputs, labels, knowledge.loss) for o in own]).mean(0))


@inference(
    "fed_mia",
    paper="Zhu et al. 2025 (FedMIA, CVPR; arXiv:2402.06289)",
    claim="whether a record is one client's, held against the other clients' updates over all rounds",
    needs=InferenceNeeds("L4", "updates", targets=("inputs", "labels", "client")),
    cost="seconds",
    stopped_by="secure aggregation, or noise of the size of the clip",
    sanity=lambda: known_members.case(client=0, clients=4),
)
def fed_mia(
    source: Observed, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """How far the client's cosine lies above the others', in their standard deviations, summed over rounds.

    The paper sums the chances of the one-tailed test; their normal scores add up without saturating. The deviation is
    one for all records of a round, since a few clients do not tell it for each.
    """
    scores = _against_others(source, knowledge, targets)
    return Claim(scores.sum(0) / math.sqrt(len(scores)))


@inference(
    "active_membership",
    paper="Nasr, Shokri and Houmansadr 2019 (gradient ascent by a malicious server)",
    claim="whether a record is one client's, after the server unlearned it in the model that it sent",
    needs=InferenceNeeds("L9", "updates", knowledge=("planted",), targets=("inputs", "labels", "client")),
    cost="seconds",
    stopped_by="clients that check the model, secure aggregation, or noise of the size of the clip",
    sanity=lambda: known_members.case(client=0, clients=4, ascent=ascended),
)
def active_membership(
    source: Observed, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """FedMIA's score over the rounds in which each record was ascended; 0, undecided, for a record that never was.

    ``knowledge.planted`` is ``{"kind": "ascent", "rounds": {round: positions in targets}}``, as ``ascended`` sent.
    """
    planted = knowledge.planted or {}
    if planted.get("kind") != "ascent":
        raise NotApplicable("planted, of kind 'ascent'", "L9")
    scores = _against_others(source, knowledge, targets)
    asked = torch.zeros(scores.shape, dtype=torch.bool)
    schedule = {int(number): list(places) for number, places in planted["rounds"].items()}  # a stored key is text
    for row, number in enumerate(_rounds(source, targets.client)):
        asked[row, schedule.get(number or 0, [])] = True
    count = asked.sum(0)
    missed = int((count == 0).sum())
    notes = (f"{missed} of {len(count)} records were never ascended",) if missed else ()
    return Claim((scores * asked.to(scores)).sum(0) / count.clamp_min(1).sqrt().to(scores), notes=notes)


@inference(
    "source_inference",
    paper="Hu et al. 2021 (Source inference attacks in federated learning)",
    claim="which client holds a record",
    needs=InferenceNeeds("L4", "updates"),
    cost="seconds",
    stopped_by="secure aggregation, or noise of the size of the clip",
    sanity=lambda: known_members.case(clients=4),
)
def source_inference(
    source: Observed, knowledge: Knowledge, targets: Targets, generator: torch.Generator, budget: Budget
) -> Claim:
    """For every client its mean over rounds (T, K), clients in rising order: a local model's smaller loss, which a
    delta gives away, or under FedSGD the cosine."""
    inputs, labels = records(targets)
    clients = sorted({o.client for o in source if o.client is not None})
    if len(clients) < 2:
        raise NotApplicable("updates of at least two clients, told apart", "L4")
    columns = []
    for client in clients:
        each = [
            alignments(o, inputs, labels, knowledge.loss)
            if o.kind == "gradient"
            else -losses(local_model(o), inputs, labels, knowledge.loss)
            for o in source
            if o.client == client
        ]
        columns.append(torch.stack(each).mean(0))
    return Claim(torch.stack(columns, 1), notes=(f"columns are clients {', '.join(map(str, clients))}",))


def ascended(
    model: nn.Module, inputs: Tensor, labels: Tensor, loss: str = "cross_entropy", *, rate: float = 0.3, steps: int = 5
) -> nn.Module:
    """The model to send in a round that asks about these records: their mean loss climbed ``steps`` times.

    A client that holds one of them pulls its loss down again, more than the others do. A handful of records a round is
    best: what many share, every client pulls down.
    """
    crafted = copy.deepcopy(model)
    moved = [p for p in crafted.parameters() if p.requires_grad]
    mode = crafted.training
    crafted.eval()
    for _ in range(steps):
        slopes = torch.autograd.grad(LOSSES[loss](crafted(inputs), labels), moved, materialize_grads=True)
        with torch.no_grad():
            for parameter, slope in zip(moved, slopes, strict=True):
                parameter.add_(rate * slope)
    return crafted.train(mode)


def records(targets: Targets) -> tuple[Tensor, Tensor]:
    """The candidates; ``infer`` has seen to it that they are there."""
    assert targets.inputs is not None
    assert targets.labels is not None
    return targets.inputs, targets.labels


def _rounds(source: Observed, client: int | None) -> list[int | None]:
    """Rounds in which the client and enough others were observed, in the order of the source."""
    there: Mapping[int | None, set[int | None]] = defaultdict(set)
    for o in source:
        there[o.round].add(o.client)
    return [number for number, clients in there.items() if client in clients and len(clients) > _OTHERS]


def _against_others(source: Observed, knowledge: Knowledge, targets: Targets) -> Tensor:
    """For each usable round and record (rounds, T), the target client's cosine in normal scores of the others'."""
    inputs, labels = records(targets)
    usable, scores = _rounds(source, targets.client), []
    if not usable:
        raise NotApplicable(f"rounds with updates of client {targets.client} and of two others, told apart", "L4")
    for number in usable:
        cosines = [
            (o.client, alignments(o, inputs, labels, knowledge.loss).double()) for o in source if o.round == number
        ]
        own = torch.stack([cosine for client, cosine in cosines if client == targets.client])
        null = torch.stack([cosine for client, cosine in cosines if client != targets.client])
        spread = ((null - null.mean(0)).square().sum() / (null.numel() - null.shape[1])).sqrt()
        scores.append((own.mean(0) - null.mean(0)) / spread.clamp_min(1e-12))
    return torch.stack(scores)
