"""The protocol as an onion of defences: the client wraps an update from the first to the last, the server undoes it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from strategies.base import ClientContext, Defence, LocalGradient, Stage, Update


@dataclass(frozen=True)
class Stack:
    """An ordered, possibly empty, stack of defences; the empty one is the plain protocol."""

    defences: tuple[Defence, ...] = ()

    def problems(self) -> list[str]:
        """Everything wrong with the defences and with their order, each with field, value, reason and remedy."""
        found = [f"protocol[{i}].{problem}" for i, d in enumerate(self.defences) for problem in d.problems()]
        for i, (inner, outer) in enumerate(pairwise(self.defences), start=1):
            if outer.stage < inner.stage:
                found.append(
                    f"protocol[{i}] = {outer.kind!r}: comes after {inner.kind!r}, which leaves no plain numbers to "
                    f"{outer.stage.name.lower()}; put {outer.kind!r} first"
                )
        for kind, count in Counter(d.kind for d in self.defences).items():
            if count > 1:
                found.append(f"protocol = {count} x {kind!r}: a kind may stand in the stack once; keep one of them")
        hiding = [d.kind for d in self.defences if d.stage is Stage.HIDE]
        if len(set(hiding)) > 1:
            found.append(f"protocol = {' and '.join(map(repr, hiding))}: an update is hidden once; keep one of them")
        return found

    @property
    def reproducible(self) -> bool:
        """Whether the same seed gives the same messages."""
        return all(defence.reproducible for defence in self.defences)

    @property
    def local_gradient(self) -> tuple[str, LocalGradient] | None:
        """The kind of the defence that acts inside the local update and its gradient, or None."""
        return next(((d.kind, d.local_gradient) for d in self.defences if d.local_gradient is not None), None)

    @property
    def on_numbers(self) -> "Stack":
        """The defences that act on plain numbers, before anything is hidden."""
        return Stack(tuple(defence for defence in self.defences if defence.stage < Stage.HIDE))

    def protect(self, update: Update, context_for: Callable[[str], ClientContext]) -> Update:
        """What the client sends; ``context_for`` gives each defence, by its kind, its own context."""
        for defence in self.defences:
            update = defence.protect(update, context_for(defence.kind))
        return update

    def reveal(self, update: Update) -> Update:
        """What the server reads."""
        for defence in reversed(self.defences):
            update = defence.reveal(update)
        return update
