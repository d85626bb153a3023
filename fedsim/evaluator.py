"""The judge of an inversion: a model of its own, trained on private data that the attacked model never saw.

What the attacked model says of a claim is no evidence: every adversarial pattern convinces it.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsim.seeds import torch_generator
from fedsim.tasks import Dataset, TaskError, build_model
from fedsim.tasks.models import accuracy_and_loss

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {"image": ("convnet", {}), "tabular": ("mlp", {"hidden": [64]})}
"""The judge's model, by the data's modality."""
STEPS, BATCH, RATE, DECAY = 600, 64, 3e-3, 1e-2
NOISE = 0.1
"""Standard deviation of the noise it is trained under, in data units: claims are no camera pictures."""


@dataclass(frozen=True)
class Evaluator:
    """A trained judge; ``accuracy`` is its own, on private examples that it was not trained on."""

    model: nn.Module
    accuracy: float

    def judged(self, claims: Tensor, labels: Tensor) -> Tensor:
        """Whether it takes each claim (T, *input_shape) for the class ``labels`` (T,) that it should show."""
        with torch.no_grad():
            return self.model(claims).argmax(1) == labels

    def features(self, inputs: Tensor) -> Tensor:
        """What its last layer reads (N, F)."""
        seen: list[Tensor] = []
        last = [module for module in self.model.modules() if isinstance(module, nn.Linear)][-1]
        handle = last.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        try:
            with torch.no_grad():
                self.model(inputs)
        finally:
            handle.remove()
        return seen[0].flatten(1)


def train_evaluator(dataset: Dataset, train: Tensor, check: Tensor, seed: int) -> Evaluator:
    """A judge trained on the examples ``train`` of ``dataset`` (indices), its accuracy measured on ``check``.

    Deterministic given the seed. Raises TaskError for text, and where a class is missing among ``train``.
    """
    if dataset.modality not in ARCHITECTURES:
        reason = f"no evaluator for {dataset.modality}"
        raise TaskError("task.dataset", dataset.name, reason, "invert models of pictures or tables")
    inputs, labels = dataset.inputs[train], dataset.labels[train]
    missing = sorted(set(range(dataset.num_classes)) - set(labels.tolist()))
    if missing:
        names = ", ".join(dataset.class_names[label] for label in missing)
        raise TaskError("task.test_fraction", len(train), f"no example of {names} to train a judge on", "raise it")
    name, options = ARCHITECTURES[dataset.modality]
    generator = torch_generator(seed, "evaluator", "batches")
    model = build_model(name, dataset, options, seed)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    for _ in range(STEPS):
        chosen = torch.randint(len(inputs), (BATCH,), generator=generator)
        noised = inputs[chosen] + NOISE * torch.randn((BATCH, *dataset.input_shape), generator=generator)
        optimiser.zero_grad()
        F.cross_entropy(model(noised), labels[chosen]).backward()
        optimiser.step()
    model.eval().requires_grad_(False)
    return Evaluator(model, accuracy_and_loss(model, dataset.inputs[check], dataset.labels[check], dataset.loss)[0])


def feature_distance(evaluator: Evaluator, claims: Tensor, labels: Tensor, inputs: Tensor, classes: Tensor) -> Tensor:
    """How far each claim (T,) lies from the private examples of its class, in the judge's features.

    Distance to the nearest of ``inputs`` with that class in ``classes``, over the median distance of those examples
    to their own nearest other: about 1 for one more real example.
    """
    claimed = evaluator.features(claims)
    distances = torch.empty(len(claims), dtype=torch.float64)
    for label in labels.unique():
        real = evaluator.features(inputs[classes == label]).double()
        among = torch.cdist(real, real).fill_diagonal_(torch.inf).min(1).values.median()
        mine = labels == label
        distances[mine] = torch.cdist(claimed[mine].double(), real).min(1).values / among
    return distances


def inversion_figures(
    evaluator: Evaluator,
    attacked: nn.Module,
    claims: Tensor,
    labels: Tensor,
    *,
    private: tuple[Tensor, Tensor],
    public: Tensor | None = None,
) -> dict[str, Any]:
    """The figures of one inversion, each beside what it would be without one.

    ``judged``: share of claims that the evaluator takes for their class; ``convinced``: share that the attacked model
    does, which proves nothing; ``feature_distance``: median. Baselines: ``chance``; and, where the adversary holds
    ``public`` examples, the one that the attacked model is surest of for each class, handed in as it is.
    """
    with torch.no_grad():
        figures: dict[str, Any] = {
            "judged": float(evaluator.judged(claims, labels).double().mean()),
            "convinced": float((attacked(claims).argmax(1) == labels).double().mean()),
            "feature_distance": float(feature_distance(evaluator, claims, labels, *private).median()),
            "evaluator_accuracy": evaluator.accuracy,
            "baseline": {"chance": 1 / evaluator.model(claims[:1]).shape[1]},
        }
        if public is not None and len(public):
            picked = public[attacked(public).softmax(1).argmax(0)[labels]]
            figures["baseline"] |= {
                "public_pick": float(evaluator.judged(picked, labels).double().mean()),
                "public_pick_feature_distance": float(feature_distance(evaluator, picked, labels, *private).median()),
            }
    return figures
