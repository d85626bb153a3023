"""One client's updates of several rounds, matched by the same inputs: noise that each round draws anew averages out."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.absolute import RECIPE
from attacks.known_case import image_case
from attacks.objectives import Gradient, absolute
from attacks.optimise import labels_of
from attacks.refining import match_and_refine
from attacks.registry import Case, Needs, Sanity, attack, one_by_one
from attacks.view import Budget, NotApplicable, Observation, Reconstruction

LATEST = 32
"""So many rounds are matched at most; each costs what a round alone costs."""


def _likelihood(outputs: Tensor, labels: Tensor) -> Tensor:
    """Less the mean over examples of the log-probabilities (B, N) that ``labels`` (B, N) mark with ones."""
    return -(outputs * labels).sum(1).mean()


class _Rounds(nn.Module):
    """The models of several rounds as one: log-probabilities (B, rounds x classes); each has a gradient of its own."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(copy.deepcopy(model) for model in models)

    def forward(self, inputs: Tensor) -> Tensor:
        """What each round's model makes of the same inputs."""
        return torch.cat([model(inputs).log_softmax(1) for model in self.models], 1)


def apart(gradient: Gradient, target: Gradient) -> Tensor:
    """The mean over rounds of ``absolute``: each round has a scale of its own, for clipping gives it one."""
    found = []
    for round in sorted({name.split(".")[1] for name in target}):
        names = [name for name in target if name.split(".")[1] == round]
        found.append(absolute({n: gradient[n] for n in names}, {n: target[n] for n in names}))
    return torch.stack(found).mean()


def _sanity() -> Sanity:
    """The one blob, whatever the number of rounds."""
    return image_case(nn.ReLU(), Budget(iterations=400))


@attack(
    "matching_over_rounds",
    paper="Geiping et al., NeurIPS 2020, eq. 4, summed over rounds; on averaging, Tramèr et al., NeurIPS 2020",
    claim="the inputs that a client used in every round, behind noise that is drawn anew in each",
    needs=Needs(rung="L5", knowledge=("batch_size",), history=True),
    cost="minutes",
    stopped_by="secure aggregation, noise that stays above the gradient over all rounds, or other examples each round",
    sanity=_sanity,
)
@one_by_one
def solve(case: Case, budget: Budget) -> Reconstruction | NotApplicable:
    """As ``absolute_matching``, for all rounds at once; it takes the client's examples to be the same in each."""
    know, seen = case.knowledge, [obs for obs in case.observations[-LATEST:] if _moved(obs.update)]
    if know.loss != "cross_entropy":
        raise NotApplicable(f"a loss of classes (this one is {know.loss})", "L5")
    if not seen:
        raise NotApplicable("an update that is not zero", "L4")
    labels = labels_of(case)
    signs = {"gradient": 1.0, "delta": -1.0}
    update = {
        f"models.{place}.{name}": signs[obs.kind] * tensor
        for place, obs in enumerate(seen)
        for name, tensor in obs.update.items()
    }
    together = Observation(_Rounds([obs.model for obs in seen]), update, "gradient")
    smoothing = RECIPE.matching.tv / len(seen) ** 0.5  # as the noise that it is there against
    matching = dataclasses.replace(RECIPE.matching, distance=apart, loss=_likelihood, tv=smoothing)
    recipe = dataclasses.replace(RECIPE, matching=matching)
    marked = F.one_hot(labels, know.num_classes).to(next(together.model.parameters())).repeat(1, len(seen))
    granted = dataclasses.replace(know, labels=marked, num_classes=marked.shape[1])
    claim = match_and_refine([Case((together,), granted, case.generator)], recipe, budget)[0]
    if isinstance(claim, NotApplicable):
        return claim
    notes = (*claim.notes, f"{len(seen)} rounds were taken to hold the same {know.batch_size} examples")
    return dataclasses.replace(claim, labels=labels, notes=notes)


def _moved(update: Mapping[str, Tensor]) -> bool:
    return any(bool(tensor.any()) for tensor in update.values())
