"""The objective of gradient matching as numbers: many candidates of many victims, and the gradients, in one call."""

import copy
import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from attacks.first_order import differenced, ends_early
from attacks.losses import LOSSES
from attacks.matching import Constants, Matching, Victim
from attacks.memory import out_of_memory
from attacks.norms import strangeness
from attacks.objectives import total_variation

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]
Call = Callable[[Tensor, Constants], tuple[Tensor, Tensor]]
Slope = Callable[[Mapping[str, Tensor], Tensor, Tensor], Tensor]
Derive = Callable[[Slope, Mapping[str, Tensor], Tensor, Tensor], dict[str, Tensor]]

LEGIBLE = 160
"""Letters of a failure's own words that a note repeats."""


class Batch:
    """The objective of any rows of points over victims that share a forward pass.

    By vmap over double backward; for a model that vmap, or memory, cannot take, by a loop over the rows; for one
    without second derivatives, by differences of first ones, in float64 where the model takes that. With ``compile``,
    a recorded call goes through ``torch.compile`` where that can take it. ``notes`` says what fell back.
    """

    def __init__(self, victims: Sequence[Victim], matching: Matching, *, compile: bool = False) -> None:
        self.victims, self.matching, self.compile = victims, matching, compile
        first = victims[0]
        self.size = first.inputs_size + matching.joint * first.shape[0] * first.classes
        self.notes: tuple[str, ...] = ()
        self.loops = False
        self._recorded: dict[tuple[int, bool], Call] = {}
        self._derive: Derive = _autograd
        self._alone = victims
        middle = first.low.new_full((2, self.size), 0.5)
        try:
            self.bind([0, 0])(middle)
        except (RuntimeError, NotImplementedError, MemoryError) as error:
            reason = f"vmap cannot take this model ({textwrap.shorten(str(error), LEGIBLE)})"
            if out_of_memory(error):
                reason = "memory does not suffice for two"
            self.notes = (f"one candidate at a time: {reason}",)
        if not self._derives_twice(middle[0]):
            self._derive, self._alone = differenced, [_in_float64(victim) for victim in victims]
            told = "second derivatives by finite differences: the model has none of its own"
            try:
                _loop(self._alone[:1], middle[:1], matching, differenced)
            except (RuntimeError, NotImplementedError) as error:
                if out_of_memory(error):
                    raise
                self._alone = victims
                told += f", and takes {first.low.dtype} alone, so that they are coarse"
                # Of a model without first ones either, the error goes on.
                _loop(victims[:1], middle[:1], matching, differenced)
            self.notes += (told,)
        self.loops = bool(self.notes)

    def _derives_twice(self, point: Tensor) -> bool:
        at, first = point.clone().requires_grad_(), self.victims[0]
        try:
            value = _objective(first, first.constants, at, self.matching, _autograd)
            torch.autograd.grad(value, at, retain_graph=True)
        except (RuntimeError, NotImplementedError) as error:
            if out_of_memory(error):
                raise
            return False
        return not ends_early(value)

    def bind(self, owners: Sequence[int], *, record: bool = False) -> Evaluate:
        """Values (K,) and gradients (K, D) of points (K, D), point k being of victim ``owners[k]``.

        With ``record`` the call is traced once per K into a flat graph of operators: some tenths of a second, then
        about half the time per call.
        """
        if self.loops:
            return lambda points: _loop([self._alone[k] for k in owners], points, self.matching, self._derive)
        held = [self.victims[owner].constants for owner in owners]
        constants, shared = held[0], len(set(owners)) == 1
        if not shared:
            parts = zip(*held, strict=True)
            constants = tuple({name: torch.stack([own[name] for own in part]) for name in part[0]} for part in parts)

        def one(point: Tensor, constants: Constants) -> Tensor:
            return _objective(self.victims[0], constants, point, self.matching, _functional)

        key = (len(owners), shared)

        def alone(points: Tensor, constants: Constants) -> tuple[Tensor, Tensor]:
            gradient, value = grad_and_value(one)(points[0], constants)
            return gradient[None], value[None]

        call = self._recorded.get(key)
        if call is None:
            call = alone if len(owners) == 1 else vmap(grad_and_value(one), in_dims=(0, None if shared else 0))
        if record and key not in self._recorded:
            at = self.victims[0].low.new_full((len(owners), self.size), 0.5)
            graph = make_fx(call)(at, constants)
            graph.graph.eliminate_dead_code()
            graph.recompile()
            call = self._recorded[key] = self._compiled(graph, at, constants) if self.compile else graph

        def evaluate(points: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                gradients, values = call(points, constants)
            return values, gradients

        return evaluate

    def _compiled(self, graph: Call, at: Tensor, constants: Constants) -> Call:
        try:
            fast: Call = torch.compile(graph, dynamic=False)
            with torch.no_grad():
                fast(at, constants)
        except RuntimeError as error:
            self.compile = False
            self.notes += (f"not compiled: {textwrap.shorten(str(error), LEGIBLE)}",)
            return graph
        return fast


def _loop(victims: Sequence[Victim], points: Tensor, matching: Matching, derive: Derive) -> tuple[Tensor, Tensor]:
    """Values and gradients of each point for its victim, by plain autograd, which takes any model."""
    values, gradients = [], []
    for victim, row in zip(victims, points, strict=True):
        point = row.detach().to(victim.low.dtype).requires_grad_()
        value = _objective(victim, victim.constants, point, matching, derive)
        gradients.append(torch.autograd.grad(value, point)[0])
        values.append(value.detach())
    return torch.stack(values).to(points), torch.stack(gradients).to(points)


def _in_float64(victim: Victim) -> Victim:
    def wide(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: t.double() if t.is_floating_point() else t for name, t in tensors.items()}

    return dataclasses.replace(
        victim,
        model=copy.deepcopy(victim.model).double(),  # the hooks that fill ``seen`` come along
        parameters=wide(victim.parameters),
        buffers=wide(victim.buffers),
        target=wide(victim.target),
        statistics=wide(victim.statistics),
        low=victim.low.double(),
        high=victim.high.double(),
        rate=victim.rate.double(),
    )


def _objective(victim: Victim, constants: Constants, point: Tensor, matching: Matching, derive: Derive) -> Tensor:
    parameters, buffers, target, case = constants
    inputs = victim.to_data(point, case)
    labels = victim.logits(point).softmax(1) if matching.joint else case["labels"]

    def gradient(at: Mapping[str, Tensor], begin: int = 0, end: int | None = None) -> dict[str, Tensor]:
        def loss(matched: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            outputs = functional_call(victim.model, ({**parameters, **matched}, dict(buffers)), (x,))
            return (matching.loss or LOSSES[victim.loss])(outputs, y)

        return derive(loss, at, inputs[begin:end], labels[begin:end])

    received = {name: parameters[name] for name in target}
    if victim.schedule:
        found = _mean_over_steps(gradient, received, victim.schedule, case["rate"])
    else:
        found = gradient(received)
    value = matching.distance(found, target)
    if matching.tv and len(victim.shape) == 4:
        value = value + matching.tv * total_variation((inputs - case["low"]) / (case["high"] - case["low"]))
    if matching.likely:
        value = value + matching.likely * point[: victim.inputs_size].square().mean()
    if matching.norm and victim.statistics:
        functional_call(victim.model, (dict(parameters), dict(buffers)), (inputs,))  # fills ``seen`` at this level
        value = value + matching.norm * strangeness(victim.seen, case)
    return value


def _mean_over_steps(
    gradient: Callable[[Mapping[str, Tensor], int, int], dict[str, Tensor]],
    received: Mapping[str, Tensor],
    schedule: Sequence[tuple[int, int]],
    rate: Tensor,
) -> dict[str, Tensor]:
    """The mean gradient along the local steps that a client makes from the weights it received."""
    local, total = dict(received), {name: torch.zeros_like(start) for name, start in received.items()}
    for begin, end in schedule:
        step = gradient(local, begin, end)
        local = {name: weight - rate * step[name] for name, weight in local.items()}
        total = {name: before + step[name] for name, before in total.items()}
    return {name: summed / len(schedule) for name, summed in total.items()}


def _functional(loss: Slope, at: Mapping[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    gradient: dict[str, Tensor] = grad(loss)(dict(at), x, y)
    return gradient


def _autograd(loss: Slope, at: Mapping[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in at.items()}
    found = torch.autograd.grad(loss(leaves, x, y), list(leaves.values()), create_graph=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))
