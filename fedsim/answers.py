"""What the controls of a deployment were measured to do to answers: its own oracle, opened as attacks get it, asked."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attacks import QueryBudgetExceeded
from attacks.controls import Control
from fedsim.deployment import Deployment
from fedsim.experiment import Experiment
from fedsim.seeds import torch_generator

ASKED = 256
"""Inputs asked about, twice; held-out ones, again from the first where there are fewer."""
SIMULATED = 20
"""Pairs of answers that the noise as set is simulated with."""
SIGMAS = 6
"""Standard errors on either side of a measured noise."""
FINEST = 6
"""Decimal places that are told apart."""
SEEN = 1e-6
"""Confidences below this are too small to take a ratio of."""

Measure = Callable[[Any, list[Tensor], list[Tensor], torch.Generator], dict[str, Any]]
"""From a control, what it got and what it made of it at each of two asks, to what was ``set`` and ``measured``."""


def measured_controls(experiment: Experiment, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The evidence of a cell's deployment on its trained model; empty where there is nothing to show."""
    deployment = experiment.scenario.deployment
    if not deployment.protects:
        return {}
    chance = torch_generator(experiment.seed, "probe of the deployment")
    try:
        model = experiment.initial_model()
        model.load_state_dict(dict(state))
        inputs = experiment.test_data()[0]
        inputs = inputs[torch.arange(ASKED) % len(inputs)]
        return probe(deployment, model, experiment.dataset.num_classes, inputs, chance)
    except Exception as error:  # a model of one's own may answer in any shape; what was not measured is not shown
        return {"failed": f"{type(error).__name__}: {error}"}


def probe(
    deployment: Deployment, model: nn.Module, num_classes: int, inputs: Tensor, chance: torch.Generator
) -> dict[str, Any]:
    """Ask about ``inputs`` twice, then one query past the budget; ``controls`` are told in the order of their work."""
    seen: list[tuple[Control, Tensor, Tensor]] = []
    endless = deployment.model_copy(update={"query_budget": None})
    oracle = endless.open(model, num_classes, chance, None, lambda *step: seen.append(step))
    for _ in range(2):
        oracle.labels(inputs)
    once, again = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    controls = {
        f"{place} {control.kind}": MEASURES[control.kind](control, [got, got2], [made, made2], chance)
        for place, ((control, got, made), (_, got2, made2)) in enumerate(zip(once, again, strict=True), 1)
    }
    return {"controls": controls, **_budget(deployment, model, num_classes, inputs, chance)}


def _budget(
    deployment: Deployment, model: nn.Module, num_classes: int, inputs: Tensor, chance: torch.Generator
) -> dict[str, Any]:
    if deployment.query_budget is None:
        return {}
    oracle = deployment.open(model, num_classes, chance, None)
    answered = min(deployment.query_budget, len(inputs))
    if answered:
        oracle.labels(inputs[:answered])
    left = deployment.query_budget - answered
    try:
        oracle.labels(inputs[:1].expand(left + 1, *inputs.shape[1:]))  # refused by its length, before it is looked at
        refused = False
    except QueryBudgetExceeded:
        refused = True
    return {"query_budget": {"set": deployment.query_budget, "answered": answered, "one_more_refused": refused}}


def _temperature(control: Any, got: list[Tensor], made: list[Tensor], chance: torch.Generator) -> dict[str, Any]:
    """The least-squares ratio of log-confidences below the first, before and after."""
    before, after = got[0].double(), made[0].double()
    told = (before > SEEN) & (after > SEEN)
    x, y = ((p.clamp_min(SEEN).log() - p.amax(1, keepdim=True).log())[told] for p in (before, after))
    slope = float((x * y).sum() / x.square().sum()) if x.square().sum() > 0 else 0.0
    return {"set": control.value, "measured": 1 / slope if slope else None}


def _noise(control: Any, got: list[Tensor], made: list[Tensor], chance: torch.Generator) -> dict[str, Any]:
    """How far two answers to the same input lie apart, against a simulation of noise as set, cut and scaled alike."""
    apart = (made[0] - made[1]).double().square().mean(1)
    pairs = [[_noised(p.double(), control.std, chance) for p in got] for _ in range(SIMULATED)]
    simulated = torch.stack([(a - b).square().mean(1) for a, b in pairs]).mean(0)
    total = float(simulated.sum())
    if not total:
        return {"set": control.std, "measured": math.sqrt(float(apart.mean()) / 2)}
    ratio = float(apart.sum()) / total
    error = SIGMAS * float((apart - ratio * simulated).square().sum().sqrt()) / total
    low, value, high = (control.std * math.sqrt(max(0.0, r)) for r in (ratio - error, ratio, ratio + error))
    return {"set": control.std, "measured": value, "low": low, "high": high}


def _noised(confidences: Tensor, std: float, chance: torch.Generator) -> Tensor:
    """What the control promises, written down a second time: a control that adds nothing must not be its own judge."""
    noised = (confidences + std * torch.randn(confidences.shape, generator=chance, dtype=torch.float64)).relu()
    total = noised.sum(1, keepdim=True)
    return torch.where(total > 0, noised / total, 1 / confidences.shape[1])


def _rounding(control: Any, got: list[Tensor], made: list[Tensor], chance: torch.Generator) -> dict[str, Any]:
    """The fewest decimal places that all answers have; one more than can be told apart where there are more."""
    answers = torch.cat(made).double()
    exact = (d for d in range(FINEST + 1) if (answers - answers.round(decimals=d)).abs().max() < 10.0 ** -(FINEST + 1))
    return {"set": control.decimals, "measured": next(exact, FINEST + 1)}


def _shown(answers: list[Tensor]) -> int:
    """The most entries that are not zero in any row."""
    return int((torch.cat(answers) > 0).sum(1).max())


MEASURES: dict[str, Measure] = {
    "temperature": _temperature,
    "noise": _noise,
    "rounding": _rounding,
    "top_k": lambda control, got, made, chance: {"set": control.k, "measured": _shown(made)},
    "label_only": lambda control, got, made, chance: {"set": 1, "measured": _shown(made)},
}
