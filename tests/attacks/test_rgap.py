"""One example walked back through a chain of layers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attacks import Budget, Knowledge, NotApplicable, Observation, reconstruct
from attacks.chain import chain_of
from tests.attacks.conftest import delta, gradient, noised

SHAPE = (2, 8, 8)


def net(seed, bend=nn.Tanh, bias=True, channels=8, classes=4):
    """Two convolutions that leave 2 * 8 * 8 inputs fewer than their equations, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, channels, 3, 2, 1, bias=bias),
            bend(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=bias),
            bend(),
            nn.Flatten(),
            nn.Linear(channels * 16, classes, bias=bias),
        ).double()


def image(seed, batch=1):
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def walk(model, update, kind="gradient", **known):
    know = Knowledge(SHAPE, model[-1].out_features, **{"batch_size": 1, "value_range": (0.0, 1.0), **known})
    return reconstruct("rgap", Observation(model, update, kind), know)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bend", [nn.Tanh, nn.Sigmoid, lambda: nn.LeakyReLU(0.2), nn.Identity])
def test_every_pixel_and_the_label(bend, bias):
    model, x = net(0, bend, bias), image(1)
    claim = walk(model, gradient(model, x, torch.tensor([3])))
    assert not claim.inconclusive
    assert claim.labels.tolist() == [3]
    assert (claim.inputs - x).abs().max() < 1e-5
    assert claim.objective.item() < 1e-4


def test_a_bias_makes_up_for_an_unknown_learning_rate_and_without_one_it_is_asked_for():
    x, label = image(1), torch.tensor([1])
    biased, plain = net(0), net(0, bias=False)
    claim = walk(biased, delta(biased, x, label, 0.1, 1), "delta")
    assert (claim.inputs - x).abs().max() < 1e-5
    update = delta(plain, x, label, 0.1, 1)
    with pytest.raises(NotApplicable, match="learning_rate"):
        walk(plain, update, "delta")
    claim = walk(plain, update, "delta", learning_rate=0.1)
    assert (claim.inputs - x).abs().max() < 1e-5


def chains(draw):
    """A chain of one to three convolutions of random geometry and a dense layer, with the bends between."""
    side, channels, layers = 6, 1, []
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride, padding = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 2))
        if side + 2 * padding < kernel:
            continue
        wide, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
        if side + 2 * padding <= dilation * (kernel - 1):
            continue
        layers += [nn.Conv2d(channels, wide, kernel, stride, padding, dilation, bias=draw(st.booleans()))]
        layers += draw(st.sampled_from([[nn.Tanh()], [nn.LeakyReLU(0.1)], []]))
        channels, side = wide, (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, 3))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_chain_computes_what_the_model_does(data):
    model = chains(data.draw).double()
    x = torch.rand(1, 1, 6, 6, dtype=torch.float64)
    bends = {id(m): m for m in model if isinstance(m, nn.Tanh | nn.LeakyReLU)}
    at, after = x.flatten(), list(model)
    for layer in chain_of(model, Knowledge((1, 6, 6), 3, batch_size=1)):
        windows = torch.cat([at, at.new_zeros(1)])[layer.reads]
        at = layer.weight @ windows + (0 if layer.bias is None else layer.bias[:, None])
        module = after[int(layer.name) + 1] if int(layer.name) + 1 < len(after) else None
        if id(module) in bends:
            before, at = at, module(at).detach()
            assert torch.allclose(layer.bend.before(at), before)
            wanted = torch.func.vmap(torch.func.grad(module))(before.flatten()).reshape(at.shape)
            assert torch.allclose(layer.bend.slope(at), wanted)
        at = at.flatten()
    assert torch.allclose(at, model(x)[0])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_is_not_called_inconclusive_is_right(data):
    """Whatever the geometry: exact, open in part and said so, or not applicable."""
    model = chains(data.draw).double()
    x = 0.1 + 0.8 * torch.rand(1, 1, 6, 6, dtype=torch.float64)
    know = Knowledge((1, 6, 6), 3, batch_size=1, value_range=(0.0, 1.0))
    claim = tried(Observation(model, gradient(model, x, torch.tensor([0])), "gradient"), know)
    if isinstance(claim, NotApplicable):
        assert "follow from" in str(claim) or "the update of" in str(claim)  # of layers that read padding alone
    elif not claim.inconclusive:
        assert (claim.inputs - x).abs().max() < 1e-3


def tried(observation, know):
    try:
        return reconstruct("rgap", observation, know)
    except NotApplicable as lacking:
        return lacking


def test_a_first_layer_that_leaves_pixels_open_is_inconclusive():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 1, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(16, 4)).double()
    claim = walk(model, gradient(model, image(0), torch.tensor([0])))
    assert claim.inconclusive.startswith("rank: ")
    assert "of the 128 inputs of layer 0" in claim.inconclusive


def test_an_inner_layer_that_leaves_inputs_open_is_named():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 16, 3, 1, 1), nn.Tanh(), nn.Conv2d(16, 1, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(16, 4)
        ).double()
    with pytest.raises(NotApplicable, match="of the 1024 inputs of layer 2 follow from"):
        walk(model, gradient(model, image(0), torch.tensor([0])))


def test_noise_shows_in_the_mismatch():
    model, x = net(0), image(1)
    clean = gradient(model, x, torch.tensor([0]))
    errors, mismatches = [], []
    for z in (0.0, 1e-6, 1e-3):
        claim = walk(model, noised(clean, z, torch.Generator().manual_seed(0)))
        errors.append((claim.inputs - x).abs().mean().item())
        mismatches.append(claim.objective.item())
    assert errors == sorted(errors)
    assert mismatches == sorted(mismatches)
    assert mismatches[-1] > 1e-3


def normed(model):
    return nn.Sequential(model[0], nn.BatchNorm2d(8), *model[1:]).double()


def pooled(model):
    return nn.Sequential(*model[:4], nn.AdaptiveAvgPool2d(4), *model[4:])


@pytest.mark.parametrize(("change", "named"), [(normed, "1 is a BatchNorm2d"), (pooled, "4 is a AdaptiveAvgPool2d")])
def test_what_is_no_such_chain_is_named(change, named):
    model = change(net(0)).eval()
    with pytest.raises(NotApplicable, match=named):
        walk(model, gradient(model, image(0), torch.tensor([0])))


def test_a_batch_of_two_and_two_steps_are_refused():
    model = net(0)
    for known in ({"batch_size": 2}, {"local_steps": 2}):
        with pytest.raises(NotApplicable, match="one local step on a batch of one"):
            walk(model, gradient(model, image(0, 2), torch.tensor([0, 1])), **known)


def test_what_a_laptop_cannot_solve_and_a_budget_that_ends_are_told():
    wide = nn.Sequential(nn.Conv2d(2, 200, 3, 1, 1), nn.Tanh(), nn.Flatten(), nn.Linear(200 * 64, 4))
    wide = nn.Sequential(wide[0], wide[1], nn.Conv2d(200, 200, 3, 1, 1), *wide[1:]).double()
    with pytest.raises(NotApplicable, match="at most 6000 inputs to a layer"):
        walk(wide, gradient(wide, image(0), torch.tensor([0])))
    model = net(0)
    obs = Observation(model, gradient(model, image(0), torch.tensor([0])), "gradient")
    claim = reconstruct("rgap", obs, Knowledge(SHAPE, 4, batch_size=1), budget=Budget(seconds=1e-9))
    assert claim.inputs is None
    assert "seconds end before layer 2" in claim.inconclusive


class Doubled(nn.Sequential):
    """Not what its parts say."""

    def forward(self, x):
        return 2 * super().forward(x)


def shared(model):
    bend = nn.ReLU()
    return nn.Sequential(model[0], bend, model[2], bend, *model[4:])


def test_a_function_that_is_used_twice_counts_twice():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = shared(net(0, channels=24))
    claim = walk(model, gradient(model, image(1), torch.tensor([0])))
    assert (claim.inputs - image(1)).abs().max() < 1e-5


@pytest.mark.parametrize(("change", "named"), [
    (lambda m: Doubled(*m), "the model is a Doubled"),
    (lambda m: nn.Sequential(m[0], nn.LeakyReLU(-0.3), *m[2:]), "LeakyReLU of slope -0.3 falls"),
    (lambda m: nn.Sequential(*m[:3], m[3], m[2], m[3], *m[4:]), "share no weight"),
    (lambda m: nn.utils.parametrizations.weight_norm(m[2]) and m, "2 is a ParametrizedConv2d"),
])  # fmt: skip
def test_what_the_parts_do_not_tell_is_named(change, named):
    model = change(net(0))
    with pytest.raises(NotApplicable, match=named):
        walk(model, gradient(model, image(0), torch.tensor([0])))


def test_a_claim_that_does_not_explain_the_update_is_inconclusive():
    model = net(0)
    update = gradient(model, image(0), torch.tensor([0]))
    assert not walk(model, update).inconclusive
    assert "of the update is left unexplained" in walk(model, update, labels=torch.tensor([2])).inconclusive
    noisy = noised(update, 0.01, torch.Generator().manual_seed(0))
    assert "of the update is left unexplained" in walk(model, noisy).inconclusive


def test_a_frozen_output_bias_is_none_to_read_from():
    model, x = net(0), image(1)
    update = delta(model, x, torch.tensor([3]), 0.1, 1)
    for frozen in ({k: v for k, v in update.items() if k != "5.bias"}, update | {"5.bias": torch.zeros(4).double()}):
        with pytest.raises(NotApplicable, match="learning_rate"):
            walk(model, frozen, "delta")
        claim = walk(model, frozen, "delta", learning_rate=0.1)
        assert claim.labels.tolist() == [3]
        assert (claim.inputs - x).abs().max() < 1e-5
    with pytest.raises(NotApplicable, match=r"the update of 2\.weight"):
        walk(model, update | {"2.weight": torch.zeros_like(update["2.weight"])}, "delta")


@pytest.mark.parametrize("seed", range(30))
def test_of_two_lengths_that_fit_the_last_layer_the_update_tells_which(seed):
    """With two classes and no bias, the slope's formula holds for a short input and for a long one."""
    model = net(seed, bias=False, classes=2)
    with torch.no_grad():
        model[5].weight *= 6
    claim = walk(model, gradient(model, image(seed), torch.tensor([seed % 2])))
    assert claim.inconclusive or (claim.inputs - image(seed)).abs().max() < 1e-4
    assert claim.inconclusive in ("", "two inputs explain the update")


def test_an_update_that_lacks_a_layer_is_named():
    model = net(0)
    update = gradient(model, image(0), torch.tensor([0]))
    del update["2.weight"]
    with pytest.raises(NotApplicable, match=r"the update of 2\.weight"):
        walk(model, update)
