"""Models without second derivatives: matched by differences of first ones, and told so."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from attacks import Budget, Observation, Reconstruction, reconstruct
from attacks.batch import Batch
from attacks.candidates import directions, losses
from attacks.conditioning import conditioning
from attacks.first_order import differenced
from attacks.losses import LOSSES
from attacks.matching import Matching, gradient_of, local_steps, prepare
from attacks.metrics import match, psnr
from attacks.objectives import euclidean
from attacks.registry import Case
from attacks.view import generator
from tests.attacks.conftest import gradient
from tests.attacks.test_fedavg import UNIT, blobs, know, train


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @once_differentiable
    def backward(ctx, back):
        (x,) = ctx.saved_tensors
        return back * (1 - x.tanh() ** 2)


class Once(nn.Module):
    """A tanh as fused kernels are: a first derivative, and no second."""

    def forward(self, x):
        return _Once.apply(x)


class _OnceRelu(_Once):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    @once_differentiable
    def backward(ctx, back):
        (x,) = ctx.saved_tensors
        return back * (x > 0)


class OnceRelu(nn.Module):
    """The same of a rectifier, whose kinks lie dense in a wide layer."""

    def forward(self, x):
        return _OnceRelu.apply(x)


class Coarse(nn.Module):
    """A tanh with one derivative, on single precision alone."""

    def forward(self, x):
        if x.dtype != torch.float32:
            raise RuntimeError("expected scalar type Float")
        return _Once.apply(x)


class Fused(nn.Module):
    """Attention by PyTorch's own fused kernel, of which it has no second derivative."""

    def __init__(self):
        super().__init__()
        self.read, self.out = nn.Linear(8, 24), nn.Linear(64, 4)

    def forward(self, x):
        query, key, value = self.read(x.reshape(-1, 1, 8, 8)).chunk(3, -1)
        return self.out((value + nn.functional.scaled_dot_product_attention(query, key, value)).flatten(1))


class Never(nn.Module):
    """An activation through which nothing can be derived."""

    def forward(self, x):
        return _Lost.apply(x)


class _Lost(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.tanh()

    @staticmethod
    def backward(ctx, back):
        raise NotImplementedError("no derivative at all")


def net(activation, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), activation, nn.Flatten(), nn.Linear(512, 4))


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize(
    ("once", "twice", "dtype", "off"),
    [
        (Once, nn.Tanh, torch.float64, 1e-6),
        (Once, nn.Tanh, torch.float32, 1e-5),
        (OnceRelu, nn.ReLU, torch.float32, 1e-5),
        (Coarse, nn.Tanh, torch.float32, 1e-2),
    ],
)
def test_values_and_slopes_are_those_of_double_backward(joint, steps, once, twice, dtype, off):
    x, y = blobs(2), torch.tensor([0, 3])
    facts = know(y, rate=0.1, local_batch_size=1)
    update = train(net(twice()), x, y, 0.1, local_steps(facts))
    matching = Matching(euclidean, tv=0.01, joint=joint, simulate=steps, dtype=dtype)
    found = []
    for activation in (twice(), once()):
        case = Case((Observation(net(activation), update, "delta"),), facts, generator(0))
        victim = prepare(case, gradient_of(case.observation, facts, True), y, matching)
        batch = Batch([victim], matching)
        points = torch.rand((2, batch.size), generator=generator(1), dtype=torch.float64).to(dtype)
        found.append((batch.bind([0, 0])(points), batch.notes))
    ((values, slopes), none), ((other, differences), notes) = found
    assert not none
    assert any("second derivatives by finite differences" in note for note in notes)
    assert any("coarse" in note for note in notes) == (once is Coarse)
    torch.testing.assert_close(other, values, rtol=1e-5, atol=0.0)
    assert float((differences - slopes).norm() / slopes.norm()) < off


def test_nothing_that_flows_back_derives_to_nothing():
    model, x, y = net(Once()), blobs(1).requires_grad_(), torch.tensor([1])
    weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}

    def loss(at, x, y):
        return LOSSES["cross_entropy"](torch.func.functional_call(model, at, (x,)), y)

    slopes = differenced(loss, weights, x, y)
    (sum(t.sum() for t in slopes.values()) * 0.0).backward()
    assert not x.grad.any()


@pytest.mark.parametrize(
    ("name", "make"),
    [("inverting_gradients", lambda: net(Once())), ("idlg", lambda: net(Once())), ("idlg", Fused)],
)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_such_a_model_is_attacked_all_the_same(name, make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = make()
    x, y = blobs(1, seed=2), torch.tensor([1])
    facts = dataclasses.replace(know(y), learning_rate=None)
    obs = Observation(model, gradient(model, x, y), "gradient")
    claim = reconstruct(name, obs, facts, budget=Budget(iterations=200, restarts=1))
    assert float(psnr(claim.inputs[match(claim.inputs, x)], x, UNIT)) > 30
    assert any("finite differences" in note for note in claim.notes)


def test_a_model_without_any_derivative_is_an_error():
    model, y = net(Never()), torch.tensor([1])
    update = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    facts = dataclasses.replace(know(y), learning_rate=None)
    with pytest.raises(NotImplementedError, match="no derivative at all"):
        reconstruct("inverting_gradients", Observation(model, update, "gradient"), facts)


def test_how_far_such_a_gradient_pins_its_inputs_down_is_told_as_well():
    x, y = blobs(1, seed=2), torch.tensor([1])
    found = []
    for activation in (nn.Tanh(), Once()):
        model = net(activation, 1)
        obs = Observation(model, gradient(model, x, y), "gradient")
        found.append(conditioning(obs, know(y), Reconstruction(x, y, torch.zeros(1)), mismatch=1.5))
    exact, differences = found
    assert 0 < exact.undetermined < 1
    assert differences.largest == pytest.approx(exact.largest, rel=1e-5)
    assert differences.undetermined == pytest.approx(exact.undetermined, abs=0.02)


def test_membership_by_gradients_and_losses_takes_such_a_model_one_record_at_a_time():
    x, y = blobs(3), torch.tensor([0, 3, 1])
    tanh, once = net(nn.Tanh()), net(Once())
    names = [name for name, _ in tanh.named_parameters()]
    torch.testing.assert_close(
        directions(once, names, x, y, "cross_entropy"), directions(tanh, names, x, y, "cross_entropy")
    )
    torch.testing.assert_close(losses(once, x, y, "cross_entropy"), losses(tanh, x, y, "cross_entropy"))
