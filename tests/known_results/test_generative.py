"""What a federated variational autoencoder gives away, and what a generative prior adds to gradient matching.

``pytest -m slow -s`` prints the table. Seeds fixed beforehand; nothing was tuned on them.
"""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from attacks import Oracle, Targets, infer, reconstruct
from attacks.autoencoder import autoencoder
from attacks.losses import LOSSES
from attacks.metrics import bootstrap_interval, psnr
from attacks.prior import nearest_public
from attacks.rates import auc
from fedsim.client import batches, local_update, plain_gradient
from fedsim.scenario import Federation
from fedsim.tasks import split
from fedsim.tasks.models import accuracy_and_loss
from tests.known_results.ground import UNIT, Knowledge, Observation, build_model, draw, load_dataset, matched, row

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SEEDS = range(5)
ROUNDS = 40
MEMBERSHIP = ("generative_membership", "generative_membership_distance", "generative_membership_calibrated")


@functools.cache
def world(held, seed):
    """Data, its division, and a VAE after forty rounds of FedAvg over four clients of ``held`` digits each."""
    torch.set_num_threads(1)
    data = replace(load_dataset("digits", {}, 0), loss="elbo")
    parts = split(data, clients=4, kind="iid", options={}, test_fraction=0.2, public_fraction=0.2, seed=seed)
    federation = Federation(
        algorithm="fedavg", clients=4, rounds=ROUNDS, batch_size=16, local_epochs=5, learning_rate=0.03
    )
    model = build_model("vae", data, {}, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number in range(1, ROUNDS + 1):
            state, moves = {n: t.clone() for n, t in model.state_dict().items()}, []
            for client, own in enumerate(parts.clients):
                x, y = data.inputs[own[:held]], data.labels[own[:held]]
                steps = batches(len(y), federation, seed, number, client)
                model.load_state_dict(state)
                loss = LOSSES["elbo"]
                moves.append(local_update(model, x, y, steps, federation, loss, plain_gradient(loss)).update)
            model.load_state_dict({n: t + torch.stack([m[n] for m in moves]).mean(0) for n, t in state.items()})
    members = torch.cat([own[:held] for own in parts.clients])
    return data, parts, model.eval(), members


def means(figures):
    low, high = bootstrap_interval(figures, np.random.default_rng(0), statistic=np.mean)
    return f"mean {np.mean(figures):.3f} [{low:.3f}, {high:.3f}]"


@pytest.mark.parametrize("held", [25, 50, 269])
def test_membership_in_a_federated_vae(held):
    found = {name: [] for name in MEMBERSHIP}
    losses = []
    for seed in SEEDS:
        data, parts, model, members = world(held, seed)
        x = torch.cat([data.inputs[members], data.inputs[parts.test]])
        know = Knowledge(data.input_shape, 10, value_range=UNIT, loss="elbo", public=data.inputs[parts.public])
        oracle = Oracle(model, num_classes=10, access="white_box")
        losses.append([accuracy_and_loss(model, part, part, "elbo")[1] for part in x.split([len(members), 360])])
        for name in MEMBERSHIP:
            scores = infer(name, oracle, know, targets=Targets(x), seed=seed).scores
            found[name].append(auc(scores[: len(members)], scores[len(members) :]).value)
    print("   loss on members, on others:", np.mean(losses, 0).round(2))
    for name, figures in found.items():
        row(f"VAE, {4 * held} digits, {name}: AUC", figures, "guessing .5")
        print("   ", means(figures))
    assert held == 269 or np.mean(found["generative_membership"]) > 0.5


@pytest.mark.parametrize("held", [25, 269])
def test_latent_search_beside_a_model_of_public_data(held):
    """The lower half of digits whose upper half is known: mean squared error over it."""
    gains = {"members": [], "others": []}
    for seed in SEEDS:
        data, parts, model, members = world(held, seed)
        public = data.inputs[parts.public]
        know = Knowledge(data.input_shape, 10, value_range=UNIT, loss="elbo")
        low, high = torch.zeros(data.input_shape), torch.ones(data.input_shape)
        other = autoencoder(public, low, high, torch.Generator().manual_seed(seed))
        for who, chosen in (("members", members[:100]), ("others", parts.test[:100])):
            truth, asked = data.inputs[chosen], data.inputs[chosen].clone()
            asked[:, :, 4:] = torch.nan
            errors = []
            for searched in (model, other):
                oracle = Oracle(searched, num_classes=10, access="white_box")
                claim = infer("latent_search", oracle, know, targets=Targets(asked), seed=seed)
                errors.append(float((claim.inputs - truth)[:, :, 4:].square().mean()))
            near = nearest_public(truth[:, :, :4], public[:, :, :4])
            likest = public[[int((public[:, :, :4] == half).flatten(1).all(1).nonzero()[0]) for half in near]]
            errors.append(float((likest - truth)[:, :, 4:].square().mean()))
            gains[who].append(errors)
    for who, figures in gains.items():
        for name, each in zip(
            ("federated VAE", "public VAE", "nearest public upper half"), np.transpose(figures), strict=True
        ):
            row(f"lower half of {who}, {4 * held} digits trained on, {name}: squared error", each, "-")
        print(
            "   federated below the better of both:",
            means(np.min(np.transpose(figures)[1:], 0) - np.transpose(figures)[0]),
        )


def photographs(seed, noise):
    """Four photographs behind one gradient of an untrained ConvNet, of norm 1 and noised, and 245 public ones."""
    torch.set_num_threads(1)
    data = load_dataset("photos", {}, 0)
    x, y, others, generator = draw(data, seed, 4)
    public = others[:245]
    model = build_model("convnet", data, {}, seed)
    slopes = torch.autograd.grad(LOSSES["cross_entropy"](model(x), y), list(model.parameters()))
    norm = torch.stack([slope.square().sum() for slope in slopes]).sum().sqrt()
    update = {
        name: slope / norm + noise * torch.randn(slope.shape, generator=generator)
        for (name, _), slope in zip(model.named_parameters(), slopes, strict=True)
    }
    know = Knowledge(data.input_shape, 6, batch_size=4, labels=y, value_range=UNIT, public=public)
    return x, public, Observation(model, update, "gradient"), know


@pytest.mark.parametrize("noise", [0.0, 1e-3, 1e-2])
def test_a_generative_prior_beside_inverting_gradients(noise):
    names = ("inverting_gradients", "generative_latent_inversion", "generative_gradient_inversion")
    found, guesses = {name: [] for name in names}, {"mean": [], "nearest public": []}
    for seed in SEEDS:
        x, public, obs, know = photographs(seed, noise)
        for name in names:
            claim = reconstruct(name, obs, know, seed=seed)
            found[name].append(float(matched(claim, x).mean()))
        guesses["mean"].append(float(psnr(public.mean(0).expand_as(x), x, UNIT).mean()))
        guesses["nearest public"].append(float(psnr(nearest_public(x, public), x, UNIT).mean()))
    beside = ", ".join(f"{name} {np.mean(figures):.1f}" for name, figures in guesses.items())
    for name, figures in found.items():
        row(f"4 photographs, ConvNet, noise {noise:g} a coordinate, {name}: mean dB", figures, beside)
        print("   ", means(figures), "over inverting_gradients:", means(np.subtract(figures, found[names[0]])))
    if noise == 1e-3:
        assert np.mean(found["generative_latent_inversion"]) > np.mean(found["inverting_gradients"])
