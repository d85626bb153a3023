"""Generative models and priors: what is remembered is told, what is missing is named, what is likely is found."""

import dataclasses

import pytest
import torch

from attacks import Budget, Knowledge, NotApplicable, Observation, Oracle, Targets, infer, inferences, reconstruct
from attacks.autoencoder import autoencoder
from attacks.batch import Batch
from attacks.generative import leading, prior_for, smooth
from attacks.generative_matching import in_codes
from attacks.losses import LOSSES
from attacks.matching import prepare
from attacks.registry import Case
from attacks.view import generator
from tests.attacks.conftest import gradient, mlp
from tests.attacks.pictures import photo

UNIT = (0.0, 1.0)
ON_MODELS = [
    "generative_membership",
    "generative_membership_distance",
    "generative_membership_calibrated",
    "latent_search",
]


@pytest.mark.parametrize("name", ON_MODELS)
def test_a_model_that_knows_its_records_by_heart_tells_them(name):
    case = inferences()[name].sanity()
    claim = infer(name, case.source, case.knowledge, targets=case.targets, budget=case.budget)
    assert case.won(claim)
    again = infer(name, case.source, case.knowledge, targets=case.targets, budget=case.budget)
    assert torch.equal(claim.scores, again.scores)


@pytest.mark.parametrize("name", ON_MODELS)
def test_a_classifier_and_a_service_without_weights_are_told_apart(name):
    know = Knowledge((64,), 10, value_range=UNIT, public=torch.rand(20, 64))
    targets = Targets(torch.rand(3, 64))
    with pytest.raises(NotApplicable, match="a model that generates"):
        infer(name, Oracle(mlp(0), num_classes=10, access="white_box"), know, targets=targets)
    with pytest.raises(NotApplicable, match="access white_box"):
        infer(name, Oracle(mlp(0), num_classes=10), know, targets=targets)


def test_latent_search_leaves_what_is_known_and_reads_nothing_else():
    case = inferences()["latent_search"].sanity()
    asked = case.targets.inputs
    claim = infer("latent_search", case.source, case.knowledge, targets=case.targets, budget=Budget(iterations=3))
    known = ~asked.isnan()
    assert torch.equal(claim.inputs[known], asked[known])
    assert claim.inputs.isfinite().all()


def test_nats_are_those_of_the_closed_form():
    draw = torch.Generator().manual_seed(0)
    low, high = torch.zeros(1, 2, 2), torch.full((1, 2, 2), 4.0)
    x = 4 * torch.rand((5, 1, 2, 2), generator=draw)
    model = autoencoder(x, low, high, draw, latent=3, hidden=8, steps=2)
    noise = torch.randn((5, 3), generator=draw)
    centre, logscale = model.encode(x)
    rebuilt = model.decode(centre + logscale.exp() * noise) / 4
    cross = torch.nn.functional.binary_cross_entropy(rebuilt, x / 4, reduction="none").flatten(1).sum(1)
    code = torch.distributions.Normal(centre, logscale.exp())
    divergence = torch.distributions.kl_divergence(code, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(model.nats(x, noise), torch.stack([cross, divergence], 1))
    assert LOSSES["elbo"](model.nats(x, noise), None) == model.nats(x, noise).sum(1).mean()


def test_points_of_a_prior_are_codes_and_any_prior_fits():
    victim = photo("lenet", 101)  # smooth: a slope foretells the next value
    know = dataclasses.replace(victim.know, public=victim.public, labels=victim.label)
    case = Case((victim.obs,), know, generator(0))
    low, high = torch.zeros(3, 32, 32), torch.ones(3, 32, 32)
    vae = autoencoder(victim.public, low, high, generator(0), latent=4, hidden=8, steps=2)
    for prior in (leading(prior_for(know), 12), smooth(low.double(), high.double()), vae):
        matching = in_codes(prior).matching
        ready = prepare(case, victim.obs.update, victim.label, matching)
        points = torch.randn((2, prior.dimension), generator=generator(1))
        torch.testing.assert_close(ready.to_data(points)[:, 0], prior.decode(points))
        batch = Batch([ready], matching)
        assert not batch.notes
        values, slopes = batch.bind([0, 0])(points)
        size = slopes.norm(dim=1)
        gained = values - batch.bind([0, 0])(points - 1e-2 * slopes / size[:, None])[0]
        torch.testing.assert_close(gained, 1e-2 * size, rtol=0.1, atol=0.0)


def test_pixels_follow_the_codes_and_never_worsen_the_objective():
    victim = photo("convnet", 101)
    know = dataclasses.replace(victim.know, public=victim.public)
    names = ("generative_latent_inversion", "generative_gradient_inversion")
    codes, pixels = (reconstruct(n, victim.obs, know, budget=Budget(iterations=60, restarts=1)) for n in names)
    assert pixels.objective < codes.objective
    assert pixels.iterations > codes.iterations
    assert pixels.labels.tolist() == victim.label.tolist()


def test_public_data_are_asked_for(digits):
    x, y = digits[0][:1], digits[1][:1]
    know = Knowledge((64,), 10, batch_size=1, value_range=UNIT)
    with pytest.raises(NotApplicable, match="public"):
        reconstruct("generative_gradient_inversion", Observation(mlp(0), gradient(mlp(0), x, y), "gradient"), know)
