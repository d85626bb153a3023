"""Gradient matching inside a generative prior: among what public data of the task make likely, and then by pixel.

The prior is that of model inversion (``attacks.generative``): principal components of the public data. Any other with
``dimension`` and ``decode`` fits, such as ``attacks.autoencoder``.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from attacks.generative import Prior, prior_for
from attacks.inverting import RECIPE
from attacks.known_case import SIDE, image_case
from attacks.matching import Matching
from attacks.objectives import cosine
from attacks.optimise import Recipe, match
from attacks.refining import refine
from attacks.registry import Case, Needs, Sanity, attack
from attacks.view import Budget, NotApplicable, Reconstruction

ITERATIONS, RESTARTS = 250, 4
LIKELY = 1e-3
"""Weight of the codes' mean square beside the cosine; found, like the prior, on other photographs than the figures'."""


def in_codes(prior: Prior) -> Recipe:
    """Inverting gradients over the codes of ``prior``."""
    matching = Matching(cosine, tv=RECIPE.matching.tv, prior=prior, likely=LIKELY)
    return Recipe(matching, RECIPE.minimiser, ITERATIONS, RESTARTS, scale=False, width=RECIPE.width)


def likely_inputs(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
    """The likely inputs of each case; those with the same public data share a prior, and so run in one batch."""
    answers: dict[int, Reconstruction | NotApplicable] = {}
    by_public: dict[int, list[int]] = {}
    for index, case in enumerate(cases):
        if case.knowledge.loss == "next_token":
            answers[index] = NotApplicable("continuous inputs (this model takes tokens)", "L8")
        else:
            by_public.setdefault(id(case.knowledge.public), []).append(index)
    for places in by_public.values():
        recipe = in_codes(prior_for(cases[places[0]].knowledge))
        answers.update(zip(places, match([cases[place] for place in places], recipe, budget), strict=True))
    return [answers[index] for index in range(len(cases))]


def _sanity() -> Sanity:
    """The blob, where public data are forty others of its kind."""
    case = image_case(nn.ReLU(), Budget(iterations=300, restarts=2))
    draw, line = torch.Generator().manual_seed(6), torch.linspace(-1, 1, SIDE)
    down, across = (torch.rand((2, 40, 1), generator=draw) - 0.5).unbind(0)
    blobs = torch.exp(-2 * ((line - down) ** 2)[:, :, None] - 2 * ((line - across) ** 2)[:, None, :])[:, None]
    return dataclasses.replace(case, knowledge=dataclasses.replace(case.knowledge, public=blobs))


@attack(
    "generative_latent_inversion",
    paper="Li, Zhang, Liu and Liu, CVPR 2022 (GGL), with principal components for the GAN",
    claim="likely inputs behind one update or a sum of few, noised ones too; their details are lost",
    needs=Needs(rung="L8", knowledge=("batch_size", "public"), sums=True),
    cost="seconds",
    stopped_by="sums over several clients, noise as large as the gradient, or no public data of the kind",
    sanity=_sanity,
)
def latent(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
    """The codes alone."""
    return likely_inputs(cases, budget)


@attack(
    "generative_gradient_inversion",
    paper="Jeon et al., NeurIPS 2021 (GIAS), with principal components for the GAN and pixels for its weights",
    claim="the inputs behind one update or a sum of few, begun at what public data make likely",
    needs=Needs(rung="L8", knowledge=("batch_size", "public"), sums=True),
    cost="seconds",
    stopped_by="sums over several clients, noise of a few hundredths of the gradient, or large batches",
    sanity=_sanity,
)
def latent_then_pixels(cases: Sequence[Case], budget: Budget) -> list[Reconstruction | NotApplicable]:
    """The codes, then inverting gradients from there; each stage, and refining, has a third of the budget's seconds."""
    third = dataclasses.replace(budget, seconds=budget.seconds and budget.seconds / 3)
    answers = likely_inputs(cases, third)
    begun = [(index, found) for index, found in enumerate(answers) if isinstance(found, Reconstruction)]
    begun = [(index, found) for index, found in begun if found.inputs is not None]
    known = [dataclasses.replace(cases[index].knowledge, labels=found.labels) for index, found in begun]
    again = [dataclasses.replace(cases[i], knowledge=own) for (i, _), own in zip(begun, known, strict=True)]
    starts = [found.inputs for _, found in begun if found.inputs is not None]
    pixels = refine(again, match(again, RECIPE, third, starts), RECIPE, third)
    for (index, found), better in zip(begun, pixels, strict=True):
        if isinstance(better, Reconstruction):
            steps = found.iterations + better.iterations
            answers[index] = dataclasses.replace(better, iterations=steps) if better.converged else found
    return answers
