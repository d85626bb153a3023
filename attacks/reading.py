"""Which dense layers of a language model read one token alone, or a token with those before it: found by running it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.probe import device_of, sandbox, trace
from attacks.view import Knowledge, NotApplicable

CHUNK = 2**22
"""Numbers that one pass over candidate texts may hold at the layer that is read."""


@dataclass(frozen=True)
class Reader:
    """Dense layers with one common input (..., T, d): the module that comes first, and the weights of all."""

    first: str
    weights: tuple[str, ...]


@dataclass(frozen=True)
class Readers:
    """What reads a token by itself (with its position), and what reads it with those before it but none after it."""

    alone: Reader
    causal: tuple[Reader, ...]


def readers(model: nn.Module, know: Knowledge, update: Mapping[str, Tensor]) -> Readers:
    """The dense layers whose gradient was seen, by what their input at a position hangs on.

    Raises NotApplicable where the model takes no tokens, or no layer reads them one by one.
    """
    length = know.input_shape[-1]
    if len(know.input_shape) != 1 or not any(isinstance(module, nn.Embedding) for module in model.modules()):
        raise NotApplicable("a model that reads tokens through an embedding", "L4")
    draw = torch.Generator().manual_seed(0)
    texts = torch.randint(vocabulary_of(model), (3, length), generator=draw)
    place = length // 2
    texts[1, : place + 1] = texts[0, : place + 1]  # differs behind the place alone
    texts[2, place] = texts[0, place]  # differs everywhere else
    with sandbox(model) as twin:
        _, calls = trace(twin.eval(), texts.to(device_of(model)))
    names = {id(p): name for name, p in model.named_parameters()}
    alone: list[tuple[Tensor, str, str]] = []
    causal: list[tuple[Tensor, str, str]] = []
    for name, seen in calls.items():
        weight = names.get(id(model.get_submodule(name).weight), "")
        read = seen[0][0]
        if len(seen) != 1 or weight not in update or read.ndim != 3 or read.shape[1] != length:
            continue
        if torch.equal(read[0, place], read[2, place]):
            alone.append((read, name, weight))
        elif _close(read[0, place], read[1, place]):
            causal.append((read, name, weight))
    if not alone:
        raise NotApplicable("the gradient of a dense layer that reads each token by itself (query, key, value)", "L4")
    return Readers(_together(alone)[0], tuple(_together(causal)))


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def _together(layers: list[tuple[Tensor, str, str]]) -> list[Reader]:
    """Layers that read the very same input, as one reader."""
    found: list[tuple[Tensor, Reader]] = []
    for read, name, weight in layers:
        for i, (known, reader) in enumerate(found):
            if known.shape == read.shape and torch.equal(known, read):
                found[i] = (known, Reader(reader.first, (*reader.weights, weight)))
                break
        else:
            found.append((read, Reader(name, (weight,))))
    return [reader for _, reader in found]


def vocabulary_of(model: nn.Module) -> int:
    """The number of token ids: rows of the first embedding."""
    return next(module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding))


class _Enough(Exception):
    """The layer has been read: the rest of the forward pass is not needed."""


def inputs_of(model: nn.Module, layer: str, texts: Tensor) -> Tensor:
    """What ``layer`` reads (N, T, d) for texts (N, T), without dropout; the model is left as it was."""
    read: list[Tensor] = []

    def stop(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        read.append(arguments[0])
        raise _Enough

    with sandbox(model) as twin, torch.no_grad():
        twin.eval().get_submodule(layer).register_forward_pre_hook(stop)
        wide = twin.get_parameter(f"{layer}.weight").shape[1] * texts.shape[1]
        for part in texts.to(device_of(model)).split(max(1, CHUNK // wide)):
            try:
                twin(part)
            except _Enough:
                continue
    return torch.cat(read)


def by_token_and_place(model: nn.Module, layer: str, length: int) -> Tensor:
    """What a layer that reads tokens one by one gets for each token at each position (vocabulary, T, d)."""
    return inputs_of(model, layer, torch.arange(vocabulary_of(model))[:, None].expand(-1, length))
