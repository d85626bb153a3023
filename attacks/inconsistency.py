"""One client's update out of a secure sum: the others were sent a model that answers with zeros."""

import torch
from torch import nn

from attacks.alone import read_alone
from attacks.losses import LOSSES
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.surgery.inconsistency import plant_silence
from attacks.view import Budget, Knowledge, NotApplicable, Observation, Reconstruction


def target_update(obs: Observation, know: Knowledge) -> Observation:
    """The target's own update as far as the sum shows it: the parameters in which all others are silent.

    ``obs.model`` must be the model that the target was sent. Raises NotApplicable where nothing was planted, or no
    silent parameter is in the view.
    """
    planted = know.planted or {}
    if planted.get("kind") != "inconsistency":
        raise NotApplicable(f"models that silence the other clients (planted: {planted.get('kind')})", "L10")
    alone = {name: obs.update[name] for name in planted["silent"] if name in obs.update}
    if not alone:
        raise NotApplicable("the update of a parameter in which the other clients are silent", "L10")
    return Observation(obs.model, alone, obs.kind, round=obs.round, client=planted.get("target"))


def _sanity() -> Sanity:
    """One target among four clients, of whom the other three got a muted model."""
    draw = torch.Generator().manual_seed(12)
    model = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    know = Knowledge((10,), 4, batch_size=1)
    muted = plant_silence(model, know, target=0)
    truth = torch.rand((4, 10), generator=draw)
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for client, sent in enumerate((model, muted.model, muted.model, muted.model)):
        loss = LOSSES["cross_entropy"](sent(truth[client : client + 1]), torch.tensor([client]))
        gradients = torch.autograd.grad(loss, list(sent.parameters()))
        for (name, _), gradient in zip(sent.named_parameters(), gradients, strict=True):
            total[name] += gradient
    know = Knowledge((10,), 4, batch_size=1, planted=muted.planted)

    def won(claim: Reconstruction) -> bool:
        return claim.inputs is not None and bool((claim.inputs[0] - truth[0]).square().mean() < 1e-10)

    return Sanity(Observation(model, total, "gradient", contributors=4), know, Budget(), won)


@attack(
    "model_inconsistency",
    paper="Pasquini, Francati, Ateniese, CCS 2022, Eluding Secure Aggregation, section 4",
    claim="one chosen client's inputs from the sum over any number of clients",
    needs=Needs(rung="L10", knowledge=("planted",), sums=True),
    cost="closed form",
    stopped_by="clients that bind the model to their masks; secure aggregation alone does not",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction | NotApplicable:
    """The target's update out of the sum, then in closed form; by gradient matching where there is no closed form."""
    alone = Case((target_update(case.observation, case.knowledge),), case.knowledge, case.generator)
    return read_alone(alone, budget)
