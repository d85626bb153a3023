"""Which dense layers read the data and write the logits, found by running the model: never by name or position."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.memory import out_of_memory
from attacks.ranges import bounds
from attacks.view import Knowledge, NotApplicable


@dataclass(frozen=True)
class Dense:
    """A fully connected layer: its module name and the names of its parameters (``bias`` None where it has none).

    Of a parametrised layer (``weight_norm`` and the like) a weight is made anew at each call from parameters of other
    names: its name here is then that of the attribute, which no update holds, and ``parametrised`` says which.
    """

    name: str
    weight: str
    bias: str | None
    parametrised: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameter names, weight first."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def require_plain(self) -> None:
        """Raise NotApplicable for a parametrised layer: what makes its weight has no gradient that is a product with
        what the layer read."""
        if self.parametrised:
            raise NotApplicable(f"a plain {' and '.join(self.parametrised)} in {self.name} (it is parametrised)", "L10")


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters live."""
    return next(model.parameters()).device


@contextmanager
def sandbox(model: nn.Module) -> Iterator[nn.Module]:
    """A copy of the model, in the mode it had, that draws from no global generator the caller can notice."""
    device = device_of(model)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield copy.deepcopy(model)


def proxies(know: Knowledge, count: int, model: nn.Module, generator: torch.Generator) -> Tensor:
    """Random inputs (count, *input_shape): tokens for a language model, else uniform in the range or normal."""
    shape = (count, *know.input_shape)
    if know.loss == "next_token":
        return torch.randint(know.num_classes, shape, generator=generator).to(device_of(model))
    if know.value_range is None:
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    else:
        low, high = bounds(know.value_range, know.input_shape)
        drawn = low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
    return drawn.to(next(model.parameters()))


def input_layer(model: nn.Module, know: Knowledge) -> tuple[Dense, Tensor]:
    """The dense layer that reads the whole input, and ``order`` (d,): its feature j is flat input ``order[j]``.

    Raises NotApplicable where no ``nn.Linear`` is fed by the input itself, flattened in whatever order, or it is
    parametrised.
    """
    if know.loss == "next_token":
        raise NotApplicable("continuous inputs (this model reads tokens)", "L10")
    size = torch.Size(know.input_shape).numel()
    # The first probe tells every coordinate from every other, so that sorting finds the order; the second checks it.
    distinct = torch.arange(size, dtype=torch.float64) / size
    other = torch.rand(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probe = torch.stack([distinct, other]).to(next(model.parameters()))
    _, calls = trace(model, probe.reshape(2, *know.input_shape))
    for name, seen in calls.items():
        if len(seen) != 1 or seen[0][0].shape != probe.shape:
            continue
        read = seen[0][0]
        order = torch.empty(size, dtype=torch.long, device=read.device)
        order[read[0].argsort()] = probe[0].argsort()
        if torch.equal(read, probe[:, order]):
            layer = _dense(model, name)
            layer.require_plain()
            return layer, order
    raise NotApplicable("a fully connected layer that reads the input itself", "L10")


def output_layer(model: nn.Module, know: Knowledge) -> Dense | None:
    """The dense layer whose output is the model's, or None; ValueError where that is not ``num_classes`` wide."""
    generator = torch.Generator().manual_seed(0)
    outputs, calls = trace(model, proxies(know, 2, model, generator))
    if know.loss != "elbo" and outputs.shape[-1:] != (know.num_classes,):
        raise ValueError(
            f"num_classes = {know.num_classes}: the model's output for 2 examples is of shape {tuple(outputs.shape)}; "
            f"pass num_classes = {outputs.shape[-1] if outputs.ndim else 1}, or the model that was trained"
        )
    for name, seen in calls.items():
        if len(seen) == 1 and seen[0][1].shape == outputs.shape and torch.equal(seen[0][1], outputs):
            return _dense(model, name)
    return None


def _dense(model: nn.Module, name: str) -> Dense:
    names = {id(p): n for n, p in model.named_parameters()}
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    own = {kind: tensor for kind, tensor in (("weight", layer.weight), ("bias", layer.bias)) if tensor is not None}
    found = {kind: names.get(id(tensor), f"{name}.{kind}") for kind, tensor in own.items()}
    made = tuple(kind for kind, tensor in own.items() if id(tensor) not in names)
    return Dense(name, found["weight"], found.get("bias"), made)


def trace(model: nn.Module, inputs: Tensor) -> tuple[Tensor, dict[str, list[tuple[Tensor, Tensor]]]]:
    """The model's outputs, and for each dense layer what it read and wrote at each of its calls."""
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {}
    with sandbox(model) as twin, torch.no_grad():
        for name, module in twin.named_modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(
                    lambda _, read, wrote, name=name: calls.setdefault(name, []).append((read[0], wrote))
                )
        try:
            outputs = twin(inputs)
        except (RuntimeError, IndexError) as error:
            if out_of_memory(error):
                raise
            wanted = f"a model that takes {inputs.dtype} inputs of shape {tuple(inputs.shape[1:])}"
            raise NotApplicable(f"{wanted} ({str(error).splitlines()[0]})", "L0") from error
    if not isinstance(outputs, Tensor):
        raise NotApplicable(f"a model that puts out one tensor (this one gives a {type(outputs).__name__})", "L0")
    return outputs, calls
