"""DP-SGD's gradient against a loop over single examples, and its refusals."""

import math

import pytest
import torch
from torch import nn

from attacks.losses import cross_entropy, next_token
from strategies.base import ClientContext, ClientUpdateError
from strategies.client_dp import ClientDP
from strategies.dpsgd import MICROBATCH, NotPerExample, PrivateGradient, per_example_gradients, refusals

BATCH = MICROBATCH + 5


class TinyTransformer(nn.Module):
    """Causal, with the output tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 11)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.block(self.embedding(tokens), src_mask=mask, is_causal=True))


def image_case():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    g = torch.Generator().manual_seed(1)
    return model, cross_entropy, torch.randn(BATCH, 3, 8, 8, generator=g), torch.arange(BATCH) % 5


def text_case():
    tokens = torch.randint(0, 11, (BATCH, 6), generator=torch.Generator().manual_seed(2))
    return TinyTransformer(), next_token, tokens, tokens


def by_loop(model, loss, inputs, labels):
    names, parameters = zip(*model.named_parameters(), strict=True)
    rows = [torch.autograd.grad(loss(model(x[None]), y[None]), parameters) for x, y in zip(inputs, labels, strict=True)]
    return {name: torch.stack([row[i] for row in rows]) for i, name in enumerate(names)}


def context(seed=0):
    return ClientContext(1, 0, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", [image_case, text_case])
def test_per_example_gradients_equal_a_loop(case):
    model, loss, inputs, labels = case()
    model, inputs = model.double(), inputs.double() if inputs.is_floating_point() else inputs
    ours = per_example_gradients(model, loss, inputs, labels, dict(model.named_parameters()))
    for name, theirs in by_loop(model, loss, inputs, labels).items():
        assert torch.allclose(ours[name], theirs, rtol=1e-6, atol=1e-9), name


@pytest.mark.parametrize("case", [image_case, text_case])
def test_each_example_is_clipped_by_its_whole_gradient_and_the_sum_divided_by_the_expected_size(case):
    model, loss, inputs, labels = case()
    rows = by_loop(model, loss, inputs, labels)
    norms = torch.stack([g.flatten(1).square().sum(1) for g in rows.values()]).sum(0).sqrt()
    clip = float(norms.median())
    ctx = context()
    ours = PrivateGradient("dp", clip, 0.0)(model, loss, inputs, labels, 100.0, ctx)
    for name, g in rows.items():
        kept = g * (clip / norms).clamp(max=1.0).reshape(-1, *[1] * (g.dim() - 1))
        assert torch.allclose(ours[name], kept.sum(0) / 100.0, rtol=1e-5, atol=1e-7), name
        assert ours[name].dtype == model.get_parameter(name).dtype
    assert ctx.evidence["dp.norm_before"] == pytest.approx(float(norms.max()), rel=1e-5)
    assert ctx.evidence["dp.norm_after"] <= clip * (1 + 1e-6)


def test_one_example_moves_the_sum_by_at_most_the_clip_norm():
    model, loss, inputs, labels = image_case()
    rule = PrivateGradient("dp", 0.01, 0.0)
    whole = rule(model, loss, inputs, labels, 1.0, context())
    for absent in range(0, BATCH, 7):
        kept = torch.arange(BATCH) != absent
        without = rule(model, loss, inputs[kept] * 1.0, labels[kept], 1.0, context())
        moved = math.sqrt(sum(float((whole[n] - without[n]).double().square().sum()) for n in whole))
        assert moved <= 0.01 * (1 + 1e-3)


def test_the_noise_is_on_the_sum_and_measured_over_all_steps():
    model, loss, inputs, labels = nn.Sequential(nn.Flatten(), nn.Linear(192, 100)), *image_case()[1:]
    ctx, rule = context(), PrivateGradient("dp", 2.0, 1.5)
    clean = PrivateGradient("dp", 2.0, 0.0)(model, loss, inputs, labels, 10.0, context())
    noisy = [rule(model, loss, inputs, labels, 10.0, ctx) for _ in range(2)]
    drawn = [torch.cat([(step[n] - clean[n]).flatten() for n in step]) for step in noisy]
    n = drawn[0].numel()
    assert not torch.equal(*drawn)
    for one in drawn:
        assert abs(float(one.std()) / 0.3 - 1) < 5 / math.sqrt(2 * n)
    assert ctx.evidence["dp.releases"] == 2
    assert ctx.evidence["dp.coordinates"] == n
    assert ctx.evidence["dp.noise_std"] == pytest.approx(10 * float(torch.cat(drawn).square().mean().sqrt()), rel=1e-4)


def test_an_empty_batch_gives_noise_alone():
    model, loss, inputs, labels = image_case()
    ctx = context()
    sent = PrivateGradient("dp", 1.0, 1.0)(model, loss, inputs[:0], labels[:0], 8.0, ctx)
    assert all(torch.isfinite(g).all() and g.abs().sum() > 0 for g in sent.values())
    assert ctx.evidence["dp.norm_before"] == 0.0


def test_the_same_generator_gives_the_same_gradient_and_the_model_keeps_its_state():
    model, loss, inputs, labels = image_case()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, again, other = (
        ClientDP(level="example").local_gradient(model, loss, inputs, labels, 8.0, context(s)) for s in (1, 1, 2)
    )
    assert all(torch.equal(first[n], again[n]) and not torch.equal(first[n], other[n]) for n in first)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_frozen_parameters_take_no_part():
    model, loss, inputs, labels = image_case()
    model[0].requires_grad_(False)
    sent = PrivateGradient("dp", 1.0, 1.0)(model, loss, inputs, labels, 8.0, context())
    assert set(sent) == {n for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(4),
        nn.SyncBatchNorm(4),
        nn.BatchNorm2d(4, track_running_stats=False).eval(),
        nn.InstanceNorm2d(4, track_running_stats=True),
    ],
)
def test_layers_that_mix_examples_are_refused_with_the_reason(layer):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), layer, nn.Flatten(), nn.Linear(144, 5))
    (problem,) = refusals(model)
    assert "model.1" in problem
    assert "GroupNorm" in problem
    _, loss, inputs, labels = image_case()
    with pytest.raises(NotPerExample, match="does not bound that example's influence"):
        PrivateGradient("dp", 1.0, 1.0)(model, loss, inputs, labels, 8.0, context())


def test_frozen_batch_statistics_are_fine():
    assert refusals(nn.Sequential(nn.BatchNorm2d(4), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4)).eval()) == []


def test_a_non_finite_gradient_is_named():
    model, loss, inputs, labels = image_case()
    inputs[3] = math.nan
    with pytest.raises(ClientUpdateError, match="non-finite gradient"):
        PrivateGradient("dp", 1.0, 1.0)(model, loss, inputs, labels, 8.0, context())


def test_a_batch_size_of_zero_cannot_be_expected():
    model, loss, inputs, labels = image_case()
    with pytest.raises(ValueError, match="expected_batch_size = 0"):
        PrivateGradient("dp", 1.0, 1.0)(model, loss, inputs, labels, 0, context())


def test_level_client_leaves_the_local_gradient_alone():
    assert ClientDP().local_gradient is None
