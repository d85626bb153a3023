"""What refining adds to a search of as many restarts and steps, and that noise does not turn it into a loss."""

import statistics

import pytest

from attacks import Budget
from attacks.absolute import RECIPE
from attacks.inverting import LONE, LONE_SEARCH
from attacks.optimise import match
from attacks.refining import match_and_refine
from tests.attacks.pictures import photo
from tests.attacks.test_refining import case_of, decibels
from tests.known_results.ground import row

BUDGET = Budget(iterations=1000, restarts=2)
KINDS = {"lenet": ("inverting_gradients", LONE, LONE_SEARCH), "convnet": ("absolute_matching", RECIPE, 1.0)}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("noise", [0, 0.001, 0.01, 0.1])
@pytest.mark.parametrize("net", list(KINDS))
def test_refining_beside_the_search_alone(net, noise):
    name, recipe, search = KINDS[net]
    victims = [photo(net, seed) for seed in range(3000, 3008)]
    searched = match([case_of(victim, noise) for victim in victims], recipe, BUDGET)
    refined = match_and_refine([case_of(victim, noise) for victim in victims], recipe, BUDGET, search)
    found = {
        "search alone": [decibels(claim, victim) for claim, victim in zip(searched, victims, strict=True)],
        "refined": [decibels(claim, victim) for claim, victim in zip(refined, victims, strict=True)],
    }
    for way, figures in found.items():
        row(f"{name}, {net}, 1 photo, noise of {noise} times the gradient's norm, {way} (dB)", figures, "-")
    assert statistics.median(found["refined"]) >= statistics.median(found["search alone"]) - 0.5
