import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attacks import Knowledge, NotApplicable, Observation, reconstruct
from attacks.labels import label_counts_estimate, sign_rule_label, whole_counts
from attacks.metrics import label_accuracy
from tests.attacks.conftest import delta, gradient, mlp, noised, pick


def know(batch, **granted):
    return Knowledge(input_shape=(64,), num_classes=10, batch_size=batch, **granted)


def overlap(digits, granted, *, seeds=10, batch=64, kind="gradient", epochs=0, drop=()):
    total = 0.0
    for seed in range(seeds):
        model = mlp(seed)
        x, y, generator = pick(digits, seed, batch)
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(epochs):
            chosen = torch.randint(len(digits[0]), (64,), generator=generator)
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(digits[0][chosen]), digits[1][chosen]).backward()
            optimiser.step()
        update = gradient(model, x, y) if kind == "gradient" else delta(model, x, y, 0.1, 1)
        update = {name: t for name, t in update.items() if name not in drop}
        claim = reconstruct("label_counts", Observation(model, update, kind), know(batch, **granted))
        assert claim.inputs is None
        assert len(claim.labels) == batch
        total += label_accuracy(claim.labels, y) / seeds
    return total


def test_counts_of_64_before_training(digits):
    assert overlap(digits, {}) >= 0.95
    assert overlap(digits, {"value_range": (0.0, 1.0)}) >= 0.95
    assert overlap(digits, {"public": digits[0][:200]}) >= 0.95


def test_counts_from_one_local_step(digits):
    public = digits[0][:200]
    assert overlap(digits, {"public": public, "learning_rate": 0.1}, kind="delta") >= 0.95
    # Without the learning rate the scale is a guess: better than a draw from the public labels (.80), no more.
    assert overlap(digits, {"public": public}, kind="delta") > 0.8


def test_counts_from_the_weights_alone(digits):
    assert overlap(digits, {"public": digits[0][:200]}, drop=("3.bias",)) >= 0.95


def test_a_trained_model_says_less(digits):
    untrained = overlap(digits, {"value_range": (0.0, 1.0)}, seeds=4)
    assert overlap(digits, {"value_range": (0.0, 1.0)}, seeds=4, epochs=200) < untrained - 0.2


@pytest.mark.parametrize("kind", ["gradient", "delta"])
def test_sign_rule_names_the_label_of_one_example_and_survives_noise(digits, kind):
    for seed in range(100):
        model = mlp(seed)
        x, y, generator = pick(digits, seed)
        update = gradient(model, x, y) if kind == "gradient" else delta(model, x, y, 0.1, 5)
        assert sign_rule_label(Observation(model, update, kind), know(1)) == int(y)
        assert sign_rule_label(Observation(model, noised(update, 0.01, generator), kind), know(1)) == int(y)


@pytest.mark.parametrize("kept", [("2.weight",), ("2.bias",), ("2.weight", "2.bias")])
def test_sign_rule_works_from_either_parameter_and_signed_activations(kept):
    for seed in range(30):
        draw = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(8, 12), nn.Sigmoid(), nn.Linear(12, 2))
        x, y = torch.rand((1, 8), generator=draw), torch.tensor([seed % 2])
        update = {name: t for name, t in gradient(model, x, y).items() if name in kept}
        assert sign_rule_label(Observation(model, update, "gradient"), Knowledge((8,), 2)) == int(y)


def test_sign_rule_has_no_answer_without_an_output_layer_or_update(digits):
    x, y, _ = pick(digits, 0)
    model = nn.Sequential(nn.Linear(64, 10), nn.LogSoftmax(1))
    assert sign_rule_label(Observation(model, gradient(model, x, y), "gradient"), know(1)) is None
    model = mlp(0)
    zero = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    assert sign_rule_label(Observation(model, zero, "gradient"), know(1)) is None
    assert sign_rule_label(Observation(model, {}, "gradient"), know(1)) is None


def test_never_more_labels_than_examples_however_loud_the_noise(digits):
    for batch in (1, 2, 5):
        for z in (1e-3, 1e-1, 10.0):
            model = mlp(batch)
            x, y, generator = pick(digits, batch, batch)
            obs = Observation(model, noised(gradient(model, x, y), z, generator), "gradient")
            labels = label_counts_estimate(obs, know(batch), torch.Generator().manual_seed(0))
            assert labels.shape == (batch,)
            assert labels.dtype == torch.long


def test_a_sum_over_clients_is_counted_as_one_batch(digits):
    model = mlp(8)
    x, y, _ = pick(digits, 8, 16)
    parts = [gradient(model, x[i : i + 4], y[i : i + 4]) for i in range(0, 16, 4)]
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    claim = reconstruct("label_counts", Observation(model, total, "gradient", contributors=4), know(16))
    assert label_accuracy(claim.labels, y) >= 0.9


def test_what_it_cannot_read_is_not_applicable(digits):
    x, y, _ = pick(digits, 0, 2)
    model = nn.Sequential(nn.Linear(64, 10), nn.LogSoftmax(1))
    with pytest.raises(NotApplicable, match="output layer"):
        reconstruct("label_counts", Observation(model, gradient(model, x, y), "gradient"), know(2))
    with pytest.raises(NotApplicable, match="batch_size"):
        reconstruct("label_counts", Observation(mlp(0), gradient(mlp(0), x, y), "gradient"), know(None))
    with pytest.raises(NotApplicable, match="one label per example"):
        reconstruct("label_counts", Observation(mlp(0), {}, "gradient"), know(2, loss="next_token"))


def test_a_zero_update_is_divergence():
    model = mlp(0)
    zero = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    claim = reconstruct("label_counts", Observation(model, zero, "gradient"), know(4))
    assert not claim.converged
    assert claim.labels is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1e6).map(lambda share: round(share, 6)), min_size=1, max_size=20), st.integers(1, 500))
def test_whole_counts_add_up_and_stay_within_one_of_their_share(raw, total):
    counts = whole_counts(torch.tensor(raw, dtype=torch.float64), total)
    assert int(counts.sum()) == total
    assert (counts >= 0).all()
    if sum(raw) > 0:
        assert (counts - torch.tensor(raw, dtype=torch.float64) * total / sum(raw)).abs().max() <= 1 + 1e-6
