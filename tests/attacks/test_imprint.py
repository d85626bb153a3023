import copy

import numpy as np
import pytest
import torch
from torch import nn

from attacks import Knowledge, NotApplicable, Observation, reconstruct
from attacks.imprint import read
from attacks.metrics import match, psnr
from attacks.surgery import plant_imprint
from attacks.surgery.imprint import smooth_quantiles
from tests.attacks.conftest import delta, gradient, mlp

UNIT = (0.0, 1.0)


def draw(digits, seed, count):
    """Private images and labels, public images, and the generator that told them apart."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(digits[0]), generator=generator)
    return digits[0][order[:count]], digits[1][order[:count]], digits[0][order[count:]], generator


def plant(public, generator, seed=0, bins=64, **options):
    return plant_imprint(mlp(seed), public, bins=bins, generator=generator, num_classes=10, **options)


def decibels(planted, update, x, kind="gradient", contributors=1, granted=UNIT):
    know = Knowledge((64,), 10, batch_size=len(x), value_range=granted, planted=planted.planted)
    claim = reconstruct("imprint", Observation(planted.model, update, kind, contributors), know)
    assert len(claim.inputs) <= len(x)
    assert (claim.objective.diff() >= 0).all()
    assigned = match(claim.inputs, x)
    found = torch.full((len(x),), -torch.inf, dtype=torch.float64)
    held = assigned >= 0
    found[held] = psnr(claim.inputs[assigned[held]], x[held], UNIT)
    return found


@pytest.mark.parametrize("hats", [False, True])
@pytest.mark.parametrize("bins", [64, 256])
def test_the_recovered_share_is_that_of_balls_alone_in_their_bins(digits, bins, hats):
    shares = []
    for seed in range(8):
        x, y, public, generator = draw(digits, seed, 64)
        planted = plant(public, generator, seed, bins, hats=hats)
        shares.append(float((decibels(planted, gradient(planted.model, x, y), x) > 30).double().mean()))
    theory = (1 - 1 / bins) ** 63
    assert theory - 0.12 <= np.mean(shares) <= theory + 0.05


def test_mean_brightness_of_coarse_images_ties_and_the_surgery_says_so(digits):
    x, y, public, generator = draw(digits, 1, 64)
    shares = {}
    for direction in ("random", "mean"):
        planted = plant(public, generator, bins=1000, direction=direction)
        shares[direction] = float((decibels(planted, gradient(planted.model, x, y), x) > 30).double().mean())
        assert any("measure the same" in note for note in planted.notes) == (direction == "mean")
    assert shares["mean"] < shares["random"] - 0.1


@pytest.mark.parametrize("hats", [False, True])
def test_small_noise_costs_at_most_a_few_images(digits, hats):
    levels = (0.0, 1e-7, 1e-5, 1e-4)
    found = dict.fromkeys(levels, 0.0)
    for seed in range(10):
        x, y, public, generator = draw(digits, seed, 8)
        planted = plant(public, generator, seed, 64, hats=hats)
        update = gradient(planted.model, x, y)
        for noise in levels:
            noisy = {n: t + noise * torch.randn(t.shape, generator=generator) for n, t in update.items()}
            found[noise] += float((decibels(planted, noisy, x) > 30).double().sum()) / 10
    assert found[0.0] >= 6
    assert min(found[1e-7], found[1e-5]) >= found[0.0] - 0.2
    assert found[1e-4] >= found[0.0] - 1


def test_the_sum_over_clients_is_read_like_one_batch(digits):
    x, y, public, generator = draw(digits, 2, 40)
    planted = plant(public, generator, bins=512)
    parts = [gradient(planted.model, x[i : i + 10], y[i : i + 10]) for i in range(0, 40, 10)]
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    pooled = decibels(planted, gradient(planted.model, x, y), x) > 30
    assert ((decibels(planted, total, x, contributors=4) > 30) == pooled).all()
    assert pooled.double().mean() > (1 - 1 / 512) ** 39 - 0.12


def test_a_delta_of_unknown_learning_rate_is_read_too(digits):
    x, y, public, generator = draw(digits, 3, 16)
    planted = plant(public, generator, bins=512)
    assert (decibels(planted, delta(planted.model, x, y, 0.05, 1), x, "delta") > 30).double().mean() >= 0.85


def test_the_surgery_leaves_the_model_alone_and_barely_changes_what_the_copy_computes(digits):
    _, _, public, generator = draw(digits, 4, 8)
    model = mlp(4)
    before = copy.deepcopy(model.state_dict())
    for hats in (False, True):
        planted = plant_imprint(
            model, public, bins=128, generator=generator, num_classes=10, hats=hats, change=0.01, slope=100.0
        )
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        with torch.no_grad():
            moved = planted.model(public) - model(public)
            assert moved.std() < 0.05 * model(public).std()
        block = planted.model.get_submodule("front")
        assert float((block(public) - public).detach().square().mean().sqrt() / public.std()) == pytest.approx(
            0.01, rel=0.05
        )


def test_it_stands_before_a_convolution_as_well():
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    public, x = torch.rand((300, 3, 8, 8), generator=generator), torch.rand((6, 3, 8, 8), generator=generator)
    planted = plant_imprint(model, public, bins=200, generator=generator, num_classes=5)
    update = gradient(planted.model, x, torch.arange(6) % 5)
    know = Knowledge((3, 8, 8), 5, planted=planted.planted)
    claim = reconstruct("imprint", Observation(planted.model, update, "gradient"), know)
    assert claim.inputs.shape[1:] == (3, 8, 8)
    assert (torch.cdist(x.flatten(1), claim.inputs.flatten(1)).min(1).values < 0.05).sum() >= 5


def test_more_bins_than_public_values_still_hold_equal_mass():
    generator = np.random.default_rng(0)
    seen, unseen = generator.standard_normal(250), generator.standard_normal(200_000)
    collisions = {}
    ordered = np.sort(seen)
    for name, thresholds in (
        ("smooth", smooth_quantiles(seen, 1000)),
        ("linear", np.quantile(ordered, np.arange(1000) / 1000)),
    ):
        held = np.bincount(np.searchsorted(thresholds, unseen), minlength=1001) / len(unseen)
        collisions[name] = 1000 * np.square(held).sum()
    assert collisions["smooth"] < 1.15
    assert collisions["smooth"] < collisions["linear"] - 0.3


def test_equal_rows_between_occupied_bins_are_averaged():
    generator = torch.Generator().manual_seed(7)
    contents = torch.zeros(60, 101, dtype=torch.float64)
    contents[[10, 45]] = torch.randn((2, 101), generator=generator, dtype=torch.float64)
    clean = contents.flip(0).cumsum(0).flip(0)
    errors, plain = [], []
    for _ in range(20):
        rows = clean + 0.01 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        examples, noise = read(rows)
        assert examples.norm(dim=1).nonzero().flatten().tolist() == [10, 45]
        errors.append(float((examples - contents)[[10, 45]].square().mean().sqrt()))
        plain.append(float(((rows[:-1] - rows[1:]) - contents[:-1])[[10, 45]].square().mean().sqrt()))
        assert 0.5 < errors[-1] / float(noise[[10, 45]].square().mean().sqrt()) < 2
    assert np.mean(errors) < 0.4 * np.mean(plain)


@pytest.mark.parametrize(
    ("planted", "missing"),
    [
        (None, "planted"),
        ({"kind": "traps", "layer": "1"}, r"an imprint layer \(planted: traps\)"),
        ({"kind": "imprint", "layer": "9"}, "a dense layer '9'"),
        ({"kind": "imprint", "layer": "3"}, "reads the whole input"),
    ],
)
def test_what_is_missing_is_named(digits, planted, missing):
    model = mlp(0)
    update = gradient(model, digits[0][:2], digits[1][:2])
    with pytest.raises(NotApplicable, match=missing):
        reconstruct("imprint", Observation(model, update, "gradient"), Knowledge((64,), 10, planted=planted))


def test_an_update_without_the_layer_and_one_that_is_zero(digits):
    x, y, public, generator = draw(digits, 5, 4)
    planted = plant(public, generator)
    know = Knowledge((64,), 10, planted=planted.planted)
    update = gradient(planted.model, x, y)
    update.pop("front.rows.bias")
    with pytest.raises(NotApplicable, match=r"the update of front\.rows\.bias"):
        reconstruct("imprint", Observation(planted.model, update, "gradient"), know)
    zero = {name: torch.zeros_like(p) for name, p in planted.model.named_parameters()}
    claim = reconstruct("imprint", Observation(planted.model, zero, "gradient"), know)
    assert claim.inputs is None
    assert not claim.converged


def test_senseless_surgery_is_refused(digits):
    _, _, public, generator = draw(digits, 6, 4)
    with pytest.raises(ValueError, match="bins = 1"):
        plant(public, generator, bins=1)
    with pytest.raises(ValueError, match="token ids"):
        plant((public * 16).long(), generator)
