import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attacks import Knowledge, NotApplicable, Observation, reconstruct
from attacks.analytic import rank_one
from attacks.metrics import label_accuracy, match, psnr
from tests.attacks.conftest import delta, gradient, mlp, noised, pick

UNIT = (0.0, 1.0)
ONE = Knowledge(input_shape=(64,), num_classes=10, batch_size=1)


def attack(model, update, know=ONE, kind="gradient", contributors=1):
    return reconstruct("analytic", Observation(model, update, kind, contributors), know)


def test_reads_one_digit_from_its_gradient_on_200_seeds(digits):
    worst = torch.inf
    for seed in range(200):
        model = mlp(seed)
        x, y, _ = pick(digits, seed)
        claim = attack(model, gradient(model, x, y))
        worst = min(worst, float(psnr(claim.inputs, x, UNIT)))
        assert claim.labels.tolist() == y.tolist()
    assert worst >= 100


def test_data_that_float32_does_not_hold_exactly_is_read_too():
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        x, y = torch.rand((1, 64), generator=draw), torch.tensor([seed % 10])
        model = mlp(seed)
        assert psnr(attack(model, gradient(model, x, y)).inputs, x, UNIT) >= 100


@pytest.mark.parametrize("learning_rate", [0.01, 0.1])
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_reads_one_digit_from_a_delta_of_unknown_learning_rate(digits, learning_rate, steps):
    for seed in range(15):
        model = mlp(seed)
        x, y, _ = pick(digits, seed)
        claim = attack(model, delta(model, x, y, learning_rate, steps), kind="delta")
        assert psnr(claim.inputs, x, UNIT) >= 90
        assert claim.labels.tolist() == y.tolist()


@pytest.mark.parametrize("granted", [None, UNIT])
def test_client_noise_degrades_it_as_published_or_less(digits, granted):
    know = Knowledge(input_shape=(64,), num_classes=10, batch_size=1, value_range=granted)
    medians = {}
    for z in (1e-3, 1e-2, 5e-2, 1e-1):
        figures = []
        for seed in range(50):
            model = mlp(seed)
            x, y, generator = pick(digits, seed)
            claim = attack(model, noised(gradient(model, x, y), z, generator), know)
            figures.append(float(psnr(claim.inputs, x, UNIT)))
        medians[z] = float(torch.tensor(figures).median())
    assert medians[1e-3] > medians[1e-2] > medians[5e-2] > medians[1e-1]
    assert medians[1e-3] >= 42 - 3
    assert medians[1e-2] >= 14 - 3
    assert medians[1e-1] >= 7 - 3
    mean_image = float(psnr(digits[0].mean(0).expand_as(digits[0]), digits[0], UNIT).median())
    assert medians[5e-2] < mean_image


def test_rows_of_a_batch_come_back_once_each_best_first(digits):
    for seed in range(5):
        model = mlp(seed, hidden=512)
        x, y, _ = pick(digits, seed, count=4)
        know = Knowledge(input_shape=(64,), num_classes=10, batch_size=4)
        for kind, update in (
            ("gradient", gradient(model, x, y)),
            ("delta", delta(model, x, y, 0.05, 1)),
        ):
            claim = attack(model, update, know, kind)
            assert len(claim.inputs) <= 4
            assigned = match(claim.inputs, x)
            assert (psnr(claim.inputs[assigned], x, UNIT) > 60).all()
            assert claim.labels[assigned].tolist() == y.tolist()


def test_the_recovered_share_falls_with_the_batch_and_rises_with_the_width(digits):
    share = {}
    for hidden in (128, 1024):
        for batch in (4, 16, 64):
            found = 0.0
            for seed in range(4):
                model = mlp(seed, hidden)
                x, y, _ = pick(digits, seed, batch)
                know = Knowledge(input_shape=(64,), num_classes=10, batch_size=batch, value_range=UNIT)
                claim = attack(model, gradient(model, x, y), know)
                assert len(claim.inputs) <= batch
                assigned = match(claim.inputs, x)
                held = assigned >= 0
                found += float((psnr(claim.inputs[assigned[held]], x[held], UNIT) > 30).sum()) / batch / 4
            share[hidden, batch] = found
    for hidden in (128, 1024):
        assert share[hidden, 4] > share[hidden, 16] > share[hidden, 64]
    assert share[1024, 16] > share[128, 16] + 0.2
    assert share[128, 4] >= 0.9
    assert share[1024, 16] >= 0.83


def test_without_a_batch_size_only_rows_that_vouch_for_themselves_are_claimed(digits):
    model = mlp(3, hidden=512)
    x, y, _ = pick(digits, 3, count=3)
    know = Knowledge(input_shape=(64,), num_classes=10)
    claim = attack(model, gradient(model, x, y), know)
    nearest = torch.cdist(claim.inputs.double(), x.double()).square().min(1).values / 64
    assert len(claim.inputs) >= 3
    assert set(match(claim.inputs, x).tolist()) <= set(range(len(claim.inputs)))
    assert (nearest.sort().values[:3] < 1e-6).all()
    single = attack(model, gradient(model, x[:1], y[:1]), know)
    assert len(single.inputs) == 1
    assert psnr(single.inputs, x[:1], UNIT) > 100


def test_a_sum_over_clients_still_shows_rows_of_one_example(digits):
    model = mlp(5, hidden=1024)
    x, y, _ = pick(digits, 5, count=4)
    parts = [gradient(model, x[i : i + 1], y[i : i + 1]) for i in range(4)]
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    claim = attack(model, total, Knowledge((64,), 10, batch_size=4), contributors=4)
    assigned = match(claim.inputs, x)
    assert (psnr(claim.inputs[assigned], x, UNIT) > 60).all()
    assert label_accuracy(claim.labels, y) == 1


class Transposed(nn.Module):
    """Channels last before the flatten, and the data layer registered after the head."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(24, 4)
        self.first = nn.Linear(3 * 4 * 4, 24)

    def forward(self, x):
        return self.head(self.first(x.permute(0, 2, 3, 1).flatten(1)).relu())


def test_the_layer_is_found_by_what_it_reads_and_its_order_undone():
    draw = torch.Generator().manual_seed(2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = Transposed()
    x, y = torch.rand((1, 3, 4, 4), generator=draw), torch.tensor([1])
    know = Knowledge((3, 4, 4), 4, batch_size=1, value_range=(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0])))
    claim = attack(model, gradient(model, x, y), know)
    assert psnr(claim.inputs, x, UNIT) > 100
    assert claim.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)), "reads the input itself"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 16, bias=False), nn.ReLU(), nn.Linear(16, 10)), "1 has none"),
    ],
)
def test_a_model_without_such_a_layer_is_not_applicable(model, reason):
    x, y = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(0)), torch.tensor([3])
    with pytest.raises(NotApplicable, match=reason) as refused:
        attack(model, gradient(model, x, y), Knowledge((1, 8, 8), 10, batch_size=1))
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


def test_a_layer_used_twice_or_missing_from_the_update_is_not_applicable(digits):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x):
            return self.layer(self.layer(x).relu())[:, :10]

    x, y, _ = pick(digits, 0)
    model = Twice()
    with pytest.raises(NotApplicable, match="reads the input itself"):
        attack(model, gradient(model, x, y))
    model = mlp(0)
    update = gradient(model, x, y)
    del update["1.bias"]
    with pytest.raises(NotApplicable, match=r"the update of 1\.bias"):
        attack(model, update)


def test_tokens_are_not_applicable():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(20, 10))
    with pytest.raises(NotApplicable, match="takes"):
        attack(model, {}, Knowledge((5,), 10, batch_size=1))


def test_one_case_that_does_not_apply_does_not_hide_the_others(digits):
    from attacks import reconstruct_many

    x, y, _ = pick(digits, 1)
    model, bare = mlp(1), nn.Sequential(nn.Linear(64, 10, bias=False))
    victims = [
        (Observation(bare, gradient(bare, x, y), "gradient"), ONE, 0),
        (Observation(model, gradient(model, x, y), "gradient"), ONE, 0),
    ]
    refused, claim = reconstruct_many("analytic", victims)
    assert isinstance(refused, NotApplicable)
    assert psnr(claim.inputs, x, UNIT) > 100


def test_a_zero_update_is_divergence_and_no_evidence(digits):
    model = mlp(0)
    zero = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    claim = attack(model, zero)
    assert not claim.converged
    assert claim.inputs is None
    assert claim.labels is None


def test_dead_rows_and_a_single_live_one_give_finite_claims(digits):
    x, y, _ = pick(digits, 4)
    model = mlp(4)
    with torch.no_grad():
        model[1].bias[1:] = -100.0
        model[1].bias[0] = 100.0
    claim = attack(model, gradient(model, x, y))
    assert psnr(claim.inputs, x, UNIT) > 100
    claim = attack(model, gradient(model, x, y), Knowledge((64,), 10, batch_size=5, value_range=UNIT))
    assert claim.inputs.isfinite().all()


def test_under_noise_a_batch_gives_at_most_its_size_finite_and_in_range(digits):
    for seed in range(5):
        model = mlp(seed)
        x, y, generator = pick(digits, seed, count=8)
        know = Knowledge((64,), 10, batch_size=8, value_range=UNIT)
        claim = attack(model, noised(gradient(model, x, y), 1e-2, generator), know)
        assert len(claim.inputs) == len(claim.labels) == len(claim.objective) == 8
        assert claim.inputs.min() >= 0
        assert claim.inputs.max() <= 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 12), width=st.integers(2, 12))
def test_rank_one_returns_the_factor_of_a_clean_product(seed, height, width):
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(width, generator=draw, dtype=torch.float64)
    g = torch.randn(height, generator=draw, dtype=torch.float64)
    rows = torch.outer(g, torch.cat([x, x.new_ones(1)]))
    for box in (None, (torch.zeros_like(x), torch.ones_like(x))):
        image, left = rank_one(rows, box)
        assert torch.allclose(image, x, atol=1e-9)
        assert left < 1e-9


def test_rank_one_in_a_box_is_the_constrained_optimum():
    draw = torch.Generator().manual_seed(7)
    low, high = torch.zeros(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    x = torch.tensor([0.0, 1.0, 0.5, 0.0, 1.0, 0.2], dtype=torch.float64)
    g = torch.randn(20, generator=draw, dtype=torch.float64)
    rows = torch.outer(g, torch.cat([x, x.new_ones(1)])) + 0.3 * torch.randn((20, 7), generator=draw).double()
    image, left = rank_one(rows, (low, high))
    for _ in range(200):
        other = (image + 0.05 * torch.randn(6, generator=draw, dtype=torch.float64)).clamp(low, high)
        direction = torch.cat([other, other.new_ones(1)])
        fitted = torch.outer(rows @ direction, direction) / direction.square().sum()
        assert (rows - fitted).norm() / rows.norm() >= left - 1e-9
