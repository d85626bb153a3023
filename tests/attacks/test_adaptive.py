import pytest
import torch
from torch import nn

from attacks import Budget, Knowledge, NotApplicable, Observation, available, reconstruct
from attacks.adaptive import legible, shown
from attacks.metrics import psnr
from attacks.objectives import cosine, kept_cosine, wrong_signs
from tests.attacks.conftest import gradient, mlp, pick


def top(update, share):
    size = torch.cat([t.abs().flatten() for t in update.values()])
    least = size.sort(descending=True).values[int(share * len(size))]
    return {name: torch.where(t.abs() > least, t, torch.zeros_like(t)) for name, t in update.items()}


def test_wins_its_sanity_case():
    sanity = available()["adaptive"].sanity()
    assert sanity.won(reconstruct("adaptive", sanity.observation, sanity.knowledge, budget=sanity.budget))


def test_tells_defences_by_the_values(digits):
    x, y, _ = pick(digits, 0, 4)
    update = gradient(mlp(0), x, y)
    assert shown({name: t.sign() for name, t in update.items()})[1] is wrong_signs
    assert shown(top(update, 0.1))[1] is kept_cosine
    assert shown({"w": torch.arange(1.0, 9.0)})[1] is cosine


def convnet(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip


@pytest.mark.parametrize("build", [mlp, convnet])
@pytest.mark.parametrize("batch", [1, 4])
def test_dead_units_are_no_defence_and_a_defence_over_them_is_seen(digits, build, batch):
    few = 0
    for seed in range(6):
        x, y, draw = pick(digits, seed, batch)
        update = gradient(build(seed), x, y)
        few += sum(int(t.count_nonzero()) for t in update.values()) < sum(t.numel() for t in update.values()) / 2
        masked = {name: t * (torch.rand(t.shape, generator=draw) < 0.1) for name, t in update.items()}
        assert shown(legible(update))[1] is cosine
        assert shown(legible(top(update, 0.1)))[1] is kept_cosine
        assert shown(legible(masked))[1] is kept_cosine
    assert few or batch > 1


def test_what_encryption_adds_to_a_zero_does_not_hide_that_it_was_dropped(digits):
    x, y, _ = pick(digits, 0, 4)
    kept = top(gradient(mlp(0), x, y), 0.1)
    draw = torch.Generator().manual_seed(0)
    opened = {name: t + 1e-9 * torch.randn(t.shape, generator=draw) for name, t in kept.items()}
    assert shown(opened)[1] is cosine
    assert shown(legible(opened))[1] is kept_cosine


@pytest.mark.parametrize(("distance", "made"), [(kept_cosine, lambda t: t * (t.abs() > 1)), (wrong_signs, torch.sign)])
def test_the_true_gradient_matches_what_is_left_of_it(distance, made):
    draw = torch.Generator().manual_seed(0)
    true, other = ({"w": torch.randn(50, generator=draw)} for _ in "12")
    target = {"w": made(true["w"])}
    assert float(distance(true, target)) < 1e-6
    assert float(distance(other, target)) > 0.1


def test_signs_still_give_the_image_away(digits):
    x, y, _ = pick(digits, 3)
    model = mlp(3)
    signs = {name: t.sign() for name, t in gradient(model, x, y).items()}
    know = Knowledge((64,), 10, batch_size=1, labels=y, value_range=(0.0, 1.0))
    budget = Budget(iterations=300, restarts=1)
    found = [
        float(psnr(reconstruct(name, Observation(model, signs, "gradient"), know, budget=budget).inputs, x, (0.0, 1.0)))
        for name in ("adaptive", "inverting_gradients")
    ]
    assert found[0] > found[1]


def test_an_update_without_anything_in_it_is_not_applicable():
    know = Knowledge((64,), 10, batch_size=1)
    with pytest.raises(NotApplicable, match="an update that is not zero"):
        reconstruct("adaptive", Observation(mlp(0), {}, "gradient"), know)
