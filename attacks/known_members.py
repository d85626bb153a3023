"""A tiny federation whose members are known, for membership attacks to prove themselves on: synthetic, and in here."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attacks.inference import Claim, InferenceSanity, Targets
from attacks.losses import LOSSES
from attacks.oracle import Oracle
from attacks.view import Budget, Knowledge, Observation

FEATURES, CLASSES, HELD = 24, 4, 10
"""Records have little in common, so that each is remembered; every client holds ten."""
_LEAST = 0.75
"""The share of pairs, or of records, that the attack must order rightly; guessing has half of them, or fewer."""


def people(count: int, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Random inputs (count, 24) with random labels."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, FEATURES, generator=draw), torch.randint(CLASSES, (count,), generator=draw)


def network(seed: int = 4) -> nn.Module:
    """A small untrained classifier of theirs."""
    draw = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((torch.rand(parameter.shape, generator=draw) - 0.5) * 0.4)
    return model


def slope(model: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The gradient of the mean loss, by parameter name."""
    loss = LOSSES["cross_entropy"](model(inputs), labels)
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))


def trained(model: nn.Module, inputs: Tensor, labels: Tensor, steps: int, rate: float = 0.5) -> nn.Module:
    """A copy after ``steps`` of plain gradient descent on all the records."""
    local = copy.deepcopy(model)
    for _ in range(steps):
        down = slope(local, inputs, labels)
        with torch.no_grad():
            for name, parameter in local.named_parameters():
                parameter.sub_(rate * down[name])
    return local


def case(
    client: int | None = None, clients: int = 1, ascent: Callable[..., nn.Module] | None = None, rounds: int = 3
) -> InferenceSanity:
    """Each of ``clients`` sends a gradient of all that it holds in each round, on a model that the round's mean moves.

    Targets are the records of the first client and as many of nobody's; with more than one client and none asked
    about, those of all clients. With ``ascent`` every round's model was crafted on a third of the targets.
    """
    inputs, labels = people(HELD * (clients + 1))
    shares = list(zip(inputs.split(HELD), labels.split(HELD), strict=True))
    whose = client is None and clients > 1
    chosen = shares[:clients] if whose else [shares[0], shares[-1]]
    targets = Targets(torch.cat([x for x, _ in chosen]), torch.cat([y for _, y in chosen]), client=client)
    model, seen, asked = network(), [], {}
    for number in range(1, rounds + 1):
        sent = model
        if ascent is not None:
            assert targets.inputs is not None
            assert targets.labels is not None
            asked[number] = torch.arange(number - 1, len(targets.inputs), rounds).tolist()
            sent = ascent(model, targets.inputs[asked[number]], targets.labels[asked[number]])
        slopes = [slope(sent, x, y) for x, y in shares[:clients]]
        seen += [
            Observation(copy.deepcopy(sent), update, "gradient", round=number, client=index)
            for index, update in enumerate(slopes)
        ]
        model = copy.deepcopy(model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.sub_(0.5 * torch.stack([update[name] for update in slopes]).mean(0))
    planted = {"kind": "ascent", "rounds": asked} if ascent else None
    know = Knowledge(input_shape=(FEATURES,), num_classes=CLASSES, planted=planted)
    return InferenceSanity(tuple(seen), know, targets, Budget(), _knows_whose if whose else _orders)


def _orders(claim: Claim) -> bool:
    members, others = claim.scores[:HELD], claim.scores[HELD:]
    return bool((members[:, None] > others[None]).double().mean() > _LEAST)


def _knows_whose(claim: Claim) -> bool:
    owners = torch.arange(claim.scores.shape[1]).repeat_interleave(HELD)
    return bool((claim.scores.argmax(1) == owners).double().mean() > _LEAST)


def finished(access: str, knowledge: Sequence[str] = ()) -> InferenceSanity:
    """The finished model of one client that holds ten records, behind an oracle of the given ``access``.

    Targets are its ten and ten of nobody's; public data are another sixty. ``knowledge`` names what is granted.
    """
    inputs, labels = people(80)
    model = trained(network(), inputs[:HELD], labels[:HELD], 60)
    facts: dict[str, Any] = {
        "public": inputs[2 * HELD :],
        "public_labels": labels[2 * HELD :],
        "architecture": network(),
        "learning_rate": 0.5,
        "local_batch_size": HELD,
        "epochs": 60,
        "member_rate": 0.5,
        "value_range": (-3.0, 3.0),
    }
    know = Knowledge(input_shape=(FEATURES,), num_classes=CLASSES, **{name: facts[name] for name in knowledge})
    targets = Targets(inputs[: 2 * HELD], labels[: 2 * HELD])
    return InferenceSanity(Oracle(model, num_classes=CLASSES, access=access), know, targets, Budget(), _orders)


def with_property() -> InferenceSanity:
    """Ten gradients of batches of four, every other one of records that are shifted, which is no part of the task."""
    inputs, labels = people(240)
    holds = torch.arange(240) % 2 == 0
    inputs = inputs + 3.0 * holds[:, None] * (torch.arange(FEATURES) % 3 == 0)
    model, batches = network(), [torch.arange(start, start + 8, 2) for start in range(160, 240, 8)]
    # A batch of even numbers has the property throughout; the next one, moved by one, nowhere.
    seen = [slope(model, inputs[b + n % 2], labels[b + n % 2]) for n, b in enumerate(batches)]

    def won(claim: Claim) -> bool:
        having, lacking = claim.scores[::2], claim.scores[1::2]
        return bool((having[:, None] > lacking[None]).double().mean() > _LEAST)

    know = Knowledge((FEATURES,), CLASSES, batch_size=4, public=inputs[:160], public_labels=labels[:160])
    observed = tuple(Observation(model, update, "gradient", round=n) for n, update in enumerate(seen))
    return InferenceSanity(observed, know, Targets(holds=holds[:160]), Budget(iterations=60), won)
