"""Reading planted trap weights: rows that one example alone activates hold that example."""

import torch
from torch import nn

from attacks import analytic
from attacks.losses import LOSSES
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.surgery.traps import plant_traps
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction


def _sanity() -> Sanity:
    """A batch of eight on 128 traps."""
    draw = torch.Generator().manual_seed(4)
    model = nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    public, truth = torch.rand((200, 20), generator=draw), torch.rand((8, 20), generator=draw)
    know = Knowledge((20,), 3, batch_size=8, value_range=(0.0, 1.0), public=public)
    surgery = plant_traps(model, know, batch=8, generator=draw)
    loss = LOSSES["cross_entropy"](surgery.model(truth), torch.arange(8) % 3)
    names = [name for name, _ in surgery.model.named_parameters()]
    update = dict(zip(names, torch.autograd.grad(loss, list(surgery.model.parameters())), strict=True))
    know = Knowledge((20,), 3, batch_size=8, value_range=(0.0, 1.0), planted=surgery.planted)

    def won(claim: Reconstruction) -> bool:
        if claim.inputs is None:
            return False
        return int((torch.cdist(truth, claim.inputs).min(1).values < 1e-3).sum()) >= 6

    return Sanity(Observation(surgery.model, update, "gradient"), know, Budget(), won)


@attack(
    "trap_weights",
    paper="Boenisch et al., EuroS&P 2023, When the Curious Abandon Honesty, section 5",
    claim="every example of a batch that owns a row of the planted traps",
    needs=Needs(rung="L9", knowledge=("planted",), sums=True),
    cost="closed form",
    stopped_by="clients that check the model they were sent, noise, or large sums",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction | NotApplicable:
    """Closed form, by the evidence that rows hold one example; claims at most ``batch_size`` images."""
    kind = (case.knowledge.planted or {}).get("kind")
    if kind != "traps":
        raise NotApplicable(f"trap weights (planted: {kind})", "L9")
    return analytic.solve([case], budget)[0]
