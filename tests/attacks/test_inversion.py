import pytest
import torch
from torch import nn

from attacks import Budget, Knowledge, NotApplicable, Oracle, QueryBudgetExceeded, Targets, infer, inferences
from attacks.autoencoder import autoencoder
from attacks.evolution import Evolution
from attacks.features import features
from attacks.generative import leading, principal, smooth
from attacks.metrics import psnr

BY_ACCESS = {
    "white_box": "model_inversion_white_box",
    "confidences": "model_inversion_confidences",
    "top_k": "model_inversion_confidences",
    "rounded": "model_inversion_confidences",
    "label_only": "model_inversion_labels",
}
UNIT = torch.zeros(1, 8, 8).double(), torch.ones(1, 8, 8).double()
KNOW = Knowledge((1, 8, 8), 10, value_range=(0.0, 1.0))
CLASSES = Targets(labels=torch.arange(10))


def fitted(images, labels, steps=300):
    """Softmax regression by full gradient descent: no chance but that of the data."""
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    optimiser = torch.optim.Adam(layer.parameters(), 0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(layer(images), labels).backward()
        optimiser.step()
    return nn.Sequential(nn.Flatten(), layer).eval()


@pytest.fixture(scope="module")
def halves(digits):
    """A model of the first half of the digits, and the nearest mean of the second half as a judge."""
    images, labels = digits
    means = torch.stack([images[900:][labels[900:] == digit].mean(0) for digit in range(10)])
    return fitted(images[:900], labels[:900]), means


def judged(claim, means):
    return torch.cdist(claim.inputs.flatten(1), means).argmin(1) == torch.arange(10)


@pytest.mark.parametrize("name", [*dict.fromkeys(BY_ACCESS.values()), "model_inversion_generative"])
def test_wins_its_sanity_case(name):
    case = inferences()[name].sanity()
    assert case.won(infer(name, case.source, case.knowledge, targets=case.targets, budget=case.budget))


@pytest.mark.parametrize("access", BY_ACCESS)
def test_class_means_of_other_digits_recognise_what_each_access_level_gives(halves, access):
    model, means = halves
    asked = Oracle(model, num_classes=10, access=access)
    claim = infer(BY_ACCESS[access], asked, KNOW, targets=CLASSES)
    assert claim.inputs.shape == (10, 1, 8, 8)
    assert (claim.inputs >= 0).all()
    assert (claim.inputs <= 1).all()
    assert judged(claim, means).sum() >= 6  # chance: 1
    assert claim.queries == asked.queries
    assert (claim.queries > 0) == (access != "white_box")


@pytest.mark.parametrize("access", BY_ACCESS)
def test_is_the_same_for_the_same_seed_and_leaves_the_global_generator_alone(halves, access):
    state = torch.random.get_rng_state()
    budget = Budget(iterations=5)
    one, two = (
        infer(BY_ACCESS[access], Oracle(halves[0], num_classes=10, access=access), KNOW, targets=CLASSES, budget=budget)
        for _ in range(2)
    )
    assert torch.equal(one.inputs, two.inputs)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("access", ["confidences", "label_only"])
def test_the_search_ends_before_the_first_query_that_the_budget_would_refuse(halves, access):
    asked = Oracle(halves[0], num_classes=10, access=access, budget=2000)
    claim = infer(BY_ACCESS[access], asked, KNOW, targets=CLASSES)
    assert asked.refused == 0
    assert asked.queries <= 2000
    assert any("query budget ended the search" in note for note in claim.notes)
    spent = Oracle(halves[0], num_classes=10, access=access, budget=0)
    with pytest.raises(QueryBudgetExceeded):
        infer(BY_ACCESS[access], spent, KNOW, targets=CLASSES)


def test_asks_for_the_access_it_needs(halves):
    with pytest.raises(NotApplicable, match="access white_box"):
        infer("model_inversion_white_box", Oracle(halves[0], num_classes=10), KNOW, targets=CLASSES)
    labels = Oracle(halves[0], num_classes=10, access="label_only")
    with pytest.raises(NotApplicable, match="access rounded"):
        infer("model_inversion_confidences", labels, KNOW, targets=CLASSES)
    with pytest.raises(NotApplicable, match="takes tokens"):
        infer("model_inversion_labels", labels, Knowledge((8,), 10, loss="next_token"), targets=CLASSES)


def test_a_class_that_no_draw_shows_is_told_and_scored_nothing():
    never = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        never[1].weight.zero_()
        never[1].bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    know = Knowledge((1, 8, 8), 3, value_range=(0.0, 1.0))
    asked = Oracle(never, num_classes=3, access="label_only")
    claim = infer("model_inversion_labels", asked, know, targets=Targets(labels=torch.arange(3)))
    assert claim.notes[:2] == ("no draw from the prior was labelled 0", "no draw from the prior was labelled 2")
    assert claim.scores[0] == claim.scores[2] == 0
    assert claim.scores[1] > 0


def test_evolution_finds_the_bottom_of_a_stretched_bowl_by_ranks_alone():
    centre = torch.linspace(-1, 1, 10).repeat(3, 1)
    search = Evolution(torch.zeros(3, 10), 0.5, torch.Generator().manual_seed(0))
    scales = torch.logspace(0, 2, 10)
    for _ in range(300):
        asked = search.ask()
        values = ((asked - centre[:, None]).square() * scales).sum(2)
        search.tell(values.argsort(1).argsort(1))
    assert (search.mean - centre).abs().max() < 1e-2


def test_the_smooth_prior_spans_every_image_and_gives_low_frequencies_most(digits):
    prior = smooth(*UNIT)
    assert prior.dimension == 64
    images = digits[0][:20].unflatten(1, (1, 8, 8))
    codes = (images - prior.mean).flatten(1) @ torch.linalg.pinv(prior.basis)
    assert torch.allclose(prior.decode(codes), images, atol=1e-4)
    flat = leading(prior, 1).decode(torch.tensor([[0.1]]))
    assert torch.allclose(flat, flat.mean(), atol=1e-6)
    drawn = prior.decode(torch.randn((2000, 64), generator=torch.Generator().manual_seed(0)))
    assert abs(float(drawn.std(0).mean()) - 0.25) < 0.05


def test_principal_components_of_many_examples_are_theirs_and_of_few_leave_all_directions_open(digits):
    images = digits[0].unflatten(1, (1, 8, 8))
    prior = principal(images, *UNIT)
    assert torch.allclose(prior.basis.T @ prior.basis, digits[0].T.cov(), atol=6e-3)
    few = principal(images[:5], *UNIT)
    assert torch.linalg.matrix_rank(few.basis) == 64


def test_the_autoencoder_draws_what_resembles_its_public_data(digits):
    images = digits[0].unflatten(1, (1, 8, 8))
    prior = autoencoder(images[:900], *UNIT, torch.Generator().manual_seed(0))
    drawn = prior.decode(torch.randn((50, prior.dimension), generator=torch.Generator().manual_seed(1)))
    nearest = torch.cdist(drawn.flatten(1), images[900:].flatten(1)).min(1).values
    noise = torch.rand((50, 64), generator=torch.Generator().manual_seed(1))
    assert nearest.mean() < 0.7 * torch.cdist(noise, images[900:].flatten(1)).min(1).values.mean()


def test_a_generator_of_other_peoples_digits_shows_what_the_model_was_taught(digits, halves):
    model, means = halves
    know = Knowledge((1, 8, 8), 10, value_range=(0.0, 1.0), public=digits[0][900:].unflatten(1, (1, 8, 8)))
    asked = Oracle(model, num_classes=10, access="white_box")
    claim = infer("model_inversion_generative", asked, know, targets=CLASSES)
    assert judged(claim, means).sum() >= 8
    with pytest.raises(NotApplicable, match="public"):
        infer("model_inversion_generative", asked, KNOW, targets=CLASSES)


def test_features_of_the_first_layer_give_the_image_and_those_of_the_last_do_not(digits):
    images = digits[0][:5].unflatten(1, (1, 8, 8))
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((torch.rand(parameter.shape, generator=generator) - 0.5) / 4)
    asked = Oracle(model, num_classes=10, access="white_box")
    median = {}
    for layer in ("1", "3"):
        with torch.no_grad():
            given = Targets(features=features(model, layer, images), layer=layer)
        median[layer] = float(
            psnr(infer("feature_inversion", asked, KNOW, targets=given).inputs, images, (0, 1)).median()
        )
    assert median["1"] > 30
    assert median["3"] < 16
    with pytest.raises(ValueError, match="layer = 'head': no such module; one of 0, 1, 2, 3"):
        infer("feature_inversion", asked, KNOW, targets=Targets(features=torch.zeros(1, 2), layer="head"))
    with pytest.raises(NotApplicable, match="features of the layer's shape"):
        infer("feature_inversion", asked, KNOW, targets=Targets(features=torch.zeros(5, 2), layer="1"))
