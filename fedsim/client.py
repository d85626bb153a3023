"""What a client computes in a round, in plain torch: which examples it uses, and the update that these give."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.losses import Loss
from attacks.view import Kind
from fedsim.scenario import Federation
from fedsim.seeds import torch_generator

GradientOf = Callable[[nn.Module, Tensor, Tensor], Mapping[str, Tensor]]
"""How one batch gives a gradient, by the name of each parameter that is trained: plainly, or clipped and noised."""


@dataclass(frozen=True)
class LocalUpdate:
    """One client's answer before any defence: what it would put on the wire in a federation without protection."""

    kind: Kind
    update: dict[str, Tensor]
    buffers: dict[str, Tensor]
    num_examples: int
    loss: float


def update_kind(federation: Federation) -> Kind:
    """``gradient`` under FedSGD, ``delta`` (local minus received weights) under FedAvg."""
    return "gradient" if federation.algorithm == "fedsgd" else "delta"


def holdings(indices: Tensor, federation: Federation) -> Tensor:
    """The examples that a client really holds: its partition, cut to ``examples_per_client``."""
    return indices[: federation.examples_per_client]


def batches(held: int, federation: Federation, seed: int, round: int, client: int) -> list[Tensor]:
    """Positions, in the client's ``held`` examples, of each local step's batch; the same wherever it is asked.

    FedSGD draws one batch without replacement. FedAvg shuffles once per epoch; with ``local_steps`` it goes on
    through further epochs until it has made so many steps.
    """
    generator = torch_generator(seed, "round", round, "client", client, "batches")
    size = min(federation.batch_size, held)
    if federation.algorithm == "fedsgd":
        return [torch.randperm(held, generator=generator)[:size]]
    steps: list[Tensor] = []
    wanted = federation.local_steps or federation.local_epochs * -(-held // size)
    while len(steps) < wanted:
        steps += torch.randperm(held, generator=generator).split(size)
    return steps[:wanted]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training moves, by name; the others neither change nor travel back."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def carried_buffers(model: nn.Module) -> list[str]:
    """The buffers that training changes and a mean of which makes sense, by name: running statistics, no counters."""
    state = model.state_dict()
    return [name for name, buffer in model.named_buffers() if name in state and buffer.is_floating_point()]


def plain_gradient(loss: Loss) -> GradientOf:
    """The gradient of the mean loss over the batch; zero where the loss does not depend on a parameter."""

    def gradient(model: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        names, parameters = zip(*trainable(model).items(), strict=True)
        value = loss(model(inputs), labels)
        gradients = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        return dict(zip(names, gradients, strict=True))

    return gradient


def local_update(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    steps: Sequence[Tensor],
    federation: Federation,
    loss: Loss,
    gradient_of: GradientOf,
) -> LocalUpdate:
    """Train ``model`` in place on the client's examples and return the update.

    ``steps`` are the positions of each batch. The loss is that of the first batch at the received weights.
    """
    model.train()
    trained = trainable(model)
    received = {name: p.detach().clone() for name, p in trained.items()}
    with torch.no_grad():
        first = float(loss(_without_side_effects(model)(inputs[steps[0]]), labels[steps[0]]))
    if federation.algorithm == "fedsgd":
        update = dict(gradient_of(model, inputs[steps[0]], labels[steps[0]]))
    else:
        for step in steps:
            gradient = gradient_of(model, inputs[step], labels[step])
            with torch.no_grad():
                for name, parameter in trained.items():
                    parameter.sub_(federation.learning_rate * gradient[name])
        update = {name: p.detach() - received[name] for name, p in trained.items()}
    return LocalUpdate(
        kind=update_kind(federation),
        update={name: tensor.detach() for name, tensor in update.items()},
        buffers={name: buffer.detach().clone() for name, buffer in model.named_buffers()},
        num_examples=len(torch.cat(list(steps)).unique()),
        loss=first,
    )


def _without_side_effects(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model's forward pass in its present mode, leaving BatchNorm's running statistics as they were."""
    state = {**dict(model.named_parameters()), **{n: b.clone() for n, b in model.named_buffers()}}
    return lambda inputs: torch.func.functional_call(model, state, (inputs,))
