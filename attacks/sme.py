"""The surrogate-model shortcut to a FedAvg update: one gradient at a point between the weights sent and returned.

Several local steps add up to one step along the gradient at some model on the way (Zhu et al. 2023, SME, section 4), so
that a candidate costs one gradient, not as many as the client made steps.
"""

import copy
import dataclasses

import torch
from torch import nn

from attacks.absolute import RECIPE
from attacks.known_case import image_case
from attacks.optimise import labels_of, match
from attacks.refining import match_and_refine
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.view import Budget, NotApplicable, Observation, Reconstruction

WAYS, TRIAL = (0.0, 0.5, 1.0), 0.1
"""Parts of the way at which the surrogate stands, and the part of the iterations that each gets to show its worth."""


def _sanity() -> Sanity:
    """One image, one step: every point on the way is as good."""
    case = image_case(nn.ReLU(), Budget(iterations=400, restarts=1))
    seen = case.observation
    update = {name: -1e-3 * slope for name, slope in seen.update.items()}
    return dataclasses.replace(case, observation=Observation(seen.model, update, "delta"))


@attack(
    "surrogate_model",
    paper="Zhu, Yao, Blaschko, ICML 2023, Surrogate Model Extension (SME), section 4",
    claim="the inputs behind several local steps, at the price of one gradient a candidate",
    needs=Needs(rung="L5", knowledge=("batch_size",), kinds=("delta",), sums=True),
    cost="seconds",
    stopped_by="secure aggregation, noise, or long local training",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction | NotApplicable:
    """Matching at the surrogate that matches best after a short search; the rate need not be known.

    The paper moves the surrogate along with the candidate; here it is one of three points.
    """
    state = case.generator.get_state()
    trial = Budget(
        max(1, round(TRIAL * (budget.iterations or RECIPE.iterations))), 1, budget.seconds and budget.seconds / 6
    )
    found = [match([_at(case, way, state)], RECIPE, trial)[0] for way in WAYS]
    scores = [claim.objective.item() if isinstance(claim, Reconstruction) else torch.inf for claim in found]
    best = WAYS[scores.index(min(scores))]
    rest = dataclasses.replace(budget, seconds=budget.seconds and budget.seconds / 2)
    claim = match_and_refine([_at(case, best, state)], RECIPE, rest)[0]
    if isinstance(claim, NotApplicable):
        return claim
    return dataclasses.replace(claim, notes=(*claim.notes, f"the surrogate stands at {best:g} of the way"))


def _at(case: Case, way: float, state: torch.Tensor) -> Case:
    """The case as one gradient at the model that is ``way`` of the way from the weights sent to those returned."""
    obs = case.observation
    model = copy.deepcopy(obs.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in obs.update:
                parameter.add_(obs.update[name].to(parameter), alpha=way / obs.contributors)
    slope = {name: -tensor for name, tensor in obs.update.items()}
    generator = torch.Generator()
    generator.set_state(state)
    seen = dataclasses.replace(obs, model=model, update=slope, kind="gradient")
    know = case.knowledge
    if know.labels is None and know.batch_size != 1:  # counted at the weights that were sent, where the scale is known
        know = dataclasses.replace(know, labels=labels_of(dataclasses.replace(case, generator=generator)))
        generator.set_state(state)
    return Case((seen,), know, generator)
