"""Many models of one architecture trained side by side, each on its own subset: the shadow models of an attack."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from attacks.losses import LOSSES
from attacks.probe import device_of
from attacks.view import NotApplicable

_CHUNK = 256
"""Examples that all models answer at once."""

State = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """How each shadow is trained: plain SGD over shuffled mini-batches."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"recipe.{name} = {getattr(self, name)}: must be positive")


@dataclass(frozen=True)
class Shadows:
    """Trained models: one module, and every model's parameters and buffers stacked along the first axis."""

    base: nn.Module
    state: State

    def outputs(self, inputs: Tensor) -> Tensor:
        """Every model's outputs (models, N, ...), in evaluation mode."""

        def one(state: State, x: Tensor) -> Tensor:
            answer: Tensor = functional_call(self.base, state, (x,))
            return answer

        with torch.no_grad():
            parts = [vmap(one, in_dims=(0, None))(self.state, part) for part in inputs.split(_CHUNK)]
        return torch.cat(parts, dim=1)

    def model(self, index: int) -> nn.Module:
        """One of the models by itself."""
        alone = copy.deepcopy(self.base)
        alone.load_state_dict({name: stacked[index] for name, stacked in self.state.items()})
        return alone


def membership(models: int, records: int, taken: int, generator: torch.Generator) -> Tensor:
    """Who trains on what, (models, records): each record is in exactly ``taken`` of the models, drawn at random.

    Both kinds of models are then there for every record (Carlini et al. 2022, section IV).
    """
    if not 0 < taken < models:
        raise ValueError(f"taken = {taken} of {models} models: each record must be in some of them, and not in all")
    return torch.rand(models, records, generator=generator).argsort(0).argsort(0) < taken


def train_shadows(
    architecture: nn.Module, inputs: Tensor, labels: Tensor, member: Tensor, recipe: Recipe, generator: torch.Generator
) -> Shadows:
    """Train one model for each row of ``member`` (models, N) on the marked records, all in one vectorised loop.

    Weights are drawn anew, as the layers draw them. Rows may differ in size: an epoch visits as many records as the
    smallest has, drawn anew each time. Raises NotApplicable for an architecture that mixes a batch's examples.
    """
    held = int(member.sum(1).min())
    if not held:
        raise ValueError("member: a row without a single record; every shadow model needs data to train on")
    base, state, trained = _fresh(architecture, len(member), generator)
    loss = LOSSES[recipe.loss]

    def objective(weights: State, fixed: State, x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(base, {**fixed, **weights}, (x,)), y)

    gradient = vmap(grad(objective))
    fixed = {name: tensor for name, tensor in state.items() if name not in trained}
    weights = {name: state[name] for name in trained}
    for _ in range(recipe.epochs):
        keys = torch.rand(member.shape, generator=generator).masked_fill(~member.cpu(), 2.0)
        for chosen in keys.argsort(1)[:, :held].to(inputs.device).split(recipe.batch_size, dim=1):
            slopes = gradient(weights, fixed, inputs[chosen], labels[chosen])
            weights = {
                name: weight - recipe.learning_rate * (slopes[name] + recipe.weight_decay * weight)
                for name, weight in weights.items()
            }
    return Shadows(base, {**fixed, **weights})


def _fresh(architecture: nn.Module, count: int, generator: torch.Generator) -> tuple[nn.Module, State, list[str]]:
    """The module, ``count`` untrained states stacked, and the names of those that training moves."""
    base = copy.deepcopy(architecture).eval()
    for name, module in base.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise NotApplicable(f"an architecture without batch statistics (model.{name} keeps them)", "L1")
    models = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        for _ in range(count):
            models.append(copy.deepcopy(base).cpu())
            for module in models[-1].modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
    parameters, buffers = stack_module_state(models)
    trained = [name for name, p in base.named_parameters() if p.requires_grad]
    device = device_of(architecture)
    return base, {name: t.detach().to(device) for name, t in {**parameters, **buffers}.items()}, trained
