"""A trained model as its callers reach it: so much of each answer, and so many questions."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attacks.controls import Control, LabelOnly, Rounding, Tap, TopK, perturbed

ACCESS = ("white_box", "confidences", "top_k", "rounded", "label_only")
"""The access levels, falling."""

Answer = Callable[[Tensor], Tensor]
"""Inputs (N, *input_shape) in data units to confidences (N, K); one-hot where a service tells labels alone."""

_LEVELS: dict[str, tuple[str | None, Callable[..., Control]]] = {
    "top_k": ("top", TopK),
    "rounded": ("decimals", Rounding),
    "label_only": (None, LabelOnly),
}
"""Each level that coarsens answers: the option that it takes, and the control that it amounts to."""


def put(model: nn.Module, inputs: Tensor) -> Tensor:
    """The model's outputs for ``inputs``, moved to where and in what precision the model works."""
    first = next(model.parameters())
    outputs: Tensor = model(inputs.to(first) if inputs.is_floating_point() else inputs.to(first.device))
    return outputs


class OracleError(Exception):
    """A request that the oracle refused."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(vars(self).values())


class AccessDenied(OracleError):
    """The caller asked for more than its access level answers."""

    def __init__(self, asked: str, access: str) -> None:
        super().__init__(
            f"access denied: {asked} are not answered at access level {access!r}; ask for less, or be granted more"
        )
        self.asked, self.access = asked, access


class QueryBudgetExceeded(OracleError):
    """The request was refused whole: it asks for more than is left of the budget. What was refused is counted."""

    def __init__(self, asked: int, left: int, budget: int) -> None:
        super().__init__(
            f"query budget exceeded: {asked} queries asked, {left} of {budget} left; ask fewer, or raise query_budget"
        )
        self.asked, self.left, self.budget = asked, left, budget


class UnknownCaller(OracleError):
    """No such caller: the key or name is not on the deployment's list."""

    def __init__(self, caller: str) -> None:
        super().__init__(
            f"unknown caller {caller!r}: not on the list of this deployment; use a key that is, or be put on it"
        )
        self.caller = caller


class Oracle:
    """A model behind an access level, a query budget and output controls.

    ``answering`` is the model (logits (N, K), asked in evaluation mode), or any callable to confidences, such as a
    client of a remote service. ``controls`` perturb the answers in order, then the level's own coarsening (``top``
    confidences, 3 unless said; or ``decimals`` places, 1 unless said). ``watch`` is handed the inputs of each request
    that was not refused and the model's own confidences for them, as the service itself sees both; ``tap`` what each
    control got, and made of it. ``queries`` counts inputs that were answered, ``refused`` inputs past the budget; one
    on which the model fails is neither.
    """

    def __init__(
        self,
        answering: nn.Module | Answer,
        *,
        num_classes: int,
        access: str = "confidences",
        budget: int | None = None,
        controls: Sequence[Control] = (),
        generator: torch.Generator | None = None,
        top: int | None = None,
        decimals: int | None = None,
        watch: Callable[[Tensor, Tensor], None] | None = None,
        tap: Tap | None = None,
    ) -> None:
        if access not in ACCESS:
            raise ValueError(f"access = {access!r}: unknown level; allowed: {', '.join(ACCESS)}")
        if budget is not None and budget < 0:
            raise ValueError(f"budget = {budget}: must not be negative; leave it out for no limit")
        wrong = [f"{control.kind}.{problem}" for control in controls for problem in control.problems()]
        if wrong:
            raise ValueError("; ".join(wrong))
        if access == "white_box" and (controls or not isinstance(answering, nn.Module)):
            raise ValueError("access = 'white_box': needs the model itself, on which output controls have no hold")
        if access == "white_box" and budget is not None:
            raise ValueError(
                f"budget = {budget}: has no hold on who has the weights; leave it out, or set access = 'confidences'"
            )
        self._controls = (*controls, *coarsening(access, {"top": top, "decimals": decimals}))
        self._model = copy.deepcopy(answering).eval() if isinstance(answering, nn.Module) else None
        self._answer: Answer = self._model_answer if self._model is not None else answering
        self._generator = generator or torch.Generator().manual_seed(0)
        self._watch, self._tap = watch, tap
        self.access = max((access, *(control.access for control in controls)), key=ACCESS.index)
        self.num_classes, self.budget = num_classes, budget
        self.queries = self.refused = 0

    @property
    def left(self) -> int | None:
        """Queries left of the budget; None without one."""
        return None if self.budget is None else self.budget - self.queries

    @property
    def model(self) -> nn.Module:
        """A copy of the model in evaluation mode; raises AccessDenied but for white-box access."""
        if self.access != "white_box" or self._model is None:
            raise AccessDenied("weights", self.access)
        return copy.deepcopy(self._model)

    def confidences(self, inputs: Tensor) -> Tensor:
        """Confidences (N, K), as perturbed; raises AccessDenied at label_only and QueryBudgetExceeded.

        At ``top_k`` those that are not shown read zero; at ``rounded`` a row need not sum to one.
        """
        if self.access == "label_only":
            raise AccessDenied("confidences", self.access)
        return self._ask(inputs)[1]

    def labels(self, inputs: Tensor) -> Tensor:
        """The label (N,) of each input; ties in perturbed answers go to the model's own first among them."""
        own, shown = self._ask(inputs)
        return own.masked_fill(shown < shown.amax(1, keepdim=True), -1).argmax(1)

    def _ask(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        asked = len(inputs)
        if self.left is not None and asked > self.left:
            self.refused += asked
            raise QueryBudgetExceeded(asked, self.left, self.budget or 0)
        own = self._answer(inputs)
        shown = perturbed(own, self._controls, self._generator, self._tap)
        if self._watch is not None:
            self._watch(inputs.detach(), own)
        self.queries += asked  # only now: inputs on which the model fails are not answered, and cost nothing
        return own, shown

    def _model_answer(self, inputs: Tensor) -> Tensor:
        assert self._model is not None
        with torch.no_grad():
            return put(self._model, inputs).softmax(-1).to(inputs.device)


def coarsening(access: str, options: Mapping[str, int | None]) -> tuple[Control, ...]:
    """What the level itself does to answers; raises ValueError for an option that is wrong, or has no hold there."""
    option, level = _LEVELS.get(access, (None, None))
    for name, value in options.items():
        if value is not None and name != option:
            taker = next(other for other, (taken, _) in _LEVELS.items() if taken == name)
            raise ValueError(
                f"{name} = {value}: has no hold at access = {access!r}; leave it out, or set access = {taker!r}"
            )
    if level is None:
        return ()
    value = options[option] if option else None
    control = level() if value is None else level(value)
    if problems := control.problems():
        raise ValueError(f"{option} = {value}: {problems[0].partition(': ')[2]}")
    return (control,)
