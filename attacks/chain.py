"""A network as a chain of linear maps and the functions between them: what a closed form can walk back along."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from attacks.view import Knowledge, NotApplicable

_SHUT = 1e-5
"""An output of a rectifier below this part of the layer's largest counts as zero: float32 rounding lies below it."""


@dataclass(frozen=True)
class Bend:
    """An elementwise function by its output: ``slope`` there, and the input ``before`` it (NaN where many give it)."""

    slope: Callable[[Tensor], Tensor]
    before: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Linear:
    """One linear map, a convolution or a dense layer, and the ``bend`` after it.

    Output (o, p) is ``bias[o] + weight[o] @ input[reads[:, p]]``: ``weight`` (O, R), ``reads`` (R, P) numbers of the
    flat input of ``size`` numbers, ``size`` itself for padding.
    """

    name: str
    weight_name: str
    bias_name: str
    weight: Tensor
    bias: Tensor | None
    reads: Tensor
    size: int
    bend: Bend


def _open(a: Tensor) -> Tensor:
    return a > _SHUT * a.abs().max()


def _rectifier(module: nn.Module) -> Bend:
    return Bend(lambda a: _open(a).to(a), lambda a: torch.where(_open(a), a, math.nan))


def _leaky(module: nn.Module) -> Bend:
    below = module.negative_slope
    assert isinstance(below, float)
    if below < 0:
        raise NotApplicable(f"functions that rise (a LeakyReLU of slope {below:g} falls)", "L10")
    if below == 0:
        return _rectifier(module)
    return Bend(lambda a: torch.where(a > 0, 1.0, below).to(a), lambda a: torch.where(a > 0, a, a / below))


def _sigmoid(module: nn.Module) -> Bend:
    edge = torch.finfo(torch.float64).eps
    return Bend(lambda a: a * (1 - a), lambda a: a.clamp(edge, 1 - edge).logit())


def _tanh(module: nn.Module) -> Bend:
    edge = 1 - torch.finfo(torch.float64).eps
    return Bend(lambda a: 1 - a.square(), lambda a: a.clamp(-edge, edge).atanh())


STRAIGHT = Bend(torch.ones_like, lambda a: a)
BENDS: dict[type[nn.Module], Callable[[nn.Module], Bend]] = {
    nn.ReLU: _rectifier,
    nn.LeakyReLU: _leaky,
    nn.Sigmoid: _sigmoid,
    nn.Tanh: _tanh,
}
_SILENT = (nn.Flatten, nn.Identity, nn.Dropout)
"""What changes no number of an example by itself: dropout's masks are not in the view, and it is taken to be off."""


def chain_of(model: nn.Module, know: Knowledge) -> list[Linear]:
    """The model's layers in their order, in float64; raises NotApplicable, naming the module that does not fit."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    shape, layers = know.input_shape, list[Linear]()
    for name, module in _flat("", model):
        if isinstance(module, nn.Conv2d | nn.Linear) and type(module) in (nn.Conv2d, nn.Linear):
            size = math.prod(shape)
            if isinstance(module, nn.Conv2d):
                reads, shape = _windows(name, module, shape)
            else:
                reads, shape = torch.arange(size)[:, None], (module.out_features,)
                if len(reads) != module.in_features:
                    raise NotApplicable(f"a chain: {name} does not read all that the layer before it writes", "L10")
            weight = module.weight.detach().double().flatten(1).cpu()
            bias = None if module.bias is None else module.bias.detach().double().cpu()
            bias_name = "" if module.bias is None else names[id(module.bias)]
            weight_name = names[id(module.weight)]
            layers.append(Linear(name, weight_name, bias_name, weight, bias, reads, size, STRAIGHT))
        elif type(module) in BENDS and layers and layers[-1].bend is STRAIGHT:
            last = layers.pop()
            layers.append(Linear(**{**vars(last), "bend": BENDS[type(module)](module)}))
        elif not isinstance(module, _SILENT):
            wanted = "a chain of convolutions, dense layers and ReLU, LeakyReLU, sigmoid or tanh"
            raise NotApplicable(f"{wanted} ({name or 'the model'} is a {type(module).__name__})", "L10")
    if len({layer.weight_name for layer in layers}) < len(layers):
        raise NotApplicable("layers that share no weight", "L10")
    if not layers or layers[-1].bend is not STRAIGHT or layers[-1].reads.shape[1] != 1:
        raise NotApplicable("a chain that ends in a dense layer whose outputs are the logits", "L10")
    return layers


def _flat(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if type(module).forward is nn.Sequential.forward:
        for inner, child in module._modules.items():  # named_children leaves out a module's second use
            assert child is not None
            yield from _flat(f"{name}.{inner}".removeprefix("."), child)
    else:
        yield name, module


def _windows(name: str, module: nn.Conv2d, shape: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """Which input each weight meets at each position, and the shape of what the convolution writes."""
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str) or len(shape) != 3:
        raise NotApplicable(f"a plain convolution of an image ({name}: groups, padding mode or input differ)", "L10")
    size, sides = math.prod(shape), [0, 0]
    numbers = torch.arange(1.0, size + 1, dtype=torch.float64).reshape(1, *shape)
    geometry = {k: getattr(module, k) for k in ("kernel_size", "dilation", "padding", "stride")}
    reads = unfold(numbers, **geometry)[0].long()
    for axis in (0, 1):
        reach = module.dilation[axis] * (module.kernel_size[axis] - 1)
        sides[axis] = (shape[axis + 1] + 2 * int(module.padding[axis]) - reach - 1) // module.stride[axis] + 1
    return torch.where(reads == 0, size, reads - 1), (module.out_channels, *sides)
