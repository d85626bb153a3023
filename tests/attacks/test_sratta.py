import copy

import pytest
import torch
from torch import nn

from attacks import Knowledge, NotApplicable, Observation, available, reconstruct
from attacks.losses import LOSSES
from tests.attacks.conftest import gradient, mlp, pick


def rounds(model, x, y, *, clients, batch, rate, count, draw):
    """What secure aggregation shows of FedAvg, and the model after it: one epoch a round at each client."""
    each = len(x) // clients
    for round in range(count):
        total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for client in range(clients):
            local = copy.deepcopy(model)
            order = client * each + torch.randperm(each, generator=draw)
            for chosen in order.split(batch):
                loss = LOSSES["cross_entropy"](local(x[chosen]), y[chosen])
                slopes = torch.autograd.grad(loss, list(local.parameters()))
                with torch.no_grad():
                    for parameter, slope in zip(local.parameters(), slopes, strict=True):
                        parameter -= rate * slope
            for (name, before), after in zip(model.named_parameters(), local.parameters(), strict=True):
                total[name] += after.detach() - before.detach()
        yield Observation(copy.deepcopy(model), total, "delta", contributors=clients, round=round + 1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter += total[name] / clients


def run(digits, seed, clients=5, each=10, count=10, width=1024):
    x, y, draw = pick(digits, seed, clients * each)
    seen = list(rounds(mlp(seed, width), x, y, clients=clients, batch=2, rate=0.5, count=count, draw=draw))
    know = Knowledge((64,), 10, value_range=(0.0, 1.0))
    claim = reconstruct("sratta", seen, know)
    error, owner = (torch.cdist(claim.inputs, x) / x.norm(dim=1)).min(1)
    return claim, error < 1e-3, owner // each


def test_wins_its_sanity_case():
    sanity = available()["sratta"].sanity()
    assert sanity.won(reconstruct("sratta", sanity.observation, sanity.knowledge))


def test_recovers_samples_from_sums_and_traces_some_to_a_common_client(digits):
    pairs = right = 0
    for seed in range(3):
        claim, true, client = run(digits, seed)
        assert true.sum() >= 10
        assert true.double().mean() >= 0.8
        for group in claim.groups[claim.groups >= 0].unique():
            members = (claim.groups == group).nonzero()[:, 0]
            pairs += len(members) - 1
            right += int((client[members] == client[members].mode().values).sum()) - 1
    assert pairs >= 10
    assert right >= 0.8 * pairs


def test_more_rounds_recover_more(digits):
    few, many = (int(run(digits, 4, count=count)[1].sum()) for count in (1, 10))
    assert many > few


def test_one_gradient_of_one_batch_is_a_round_too(digits):
    x, y, _ = pick(digits, 5, 4)
    model = mlp(5, 512)
    claim = reconstruct("sratta", Observation(model, gradient(model, x, y), "gradient"), Knowledge((64,), 10))
    assert (torch.cdist(x, claim.inputs).min(1).values < 1e-3).all()
    assert (claim.groups == -1).all()


def test_nothing_agreed_on_is_a_claim_of_nothing(digits):
    x, y, _ = pick(digits, 6, 64)
    model = mlp(6, 8)
    claim = reconstruct("sratta", Observation(model, gradient(model, x, y), "gradient"), Knowledge((64,), 10))
    assert len(claim.inputs) == 0
    assert "several together" in claim.notes[0]


def test_needs_a_biased_dense_layer_that_reads_the_input(digits):
    x, y, _ = pick(digits, 0, 2)
    model = nn.Sequential(nn.Linear(64, 16, bias=False), nn.ReLU(), nn.Linear(16, 10))
    with pytest.raises(NotApplicable, match="bias"):
        reconstruct("sratta", Observation(model, gradient(model, x, y), "gradient"), Knowledge((64,), 10))
