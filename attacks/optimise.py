"""The one loop of gradient matching: restarts of many victims side by side, the best chosen by its own objective."""

import contextlib
import functools
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from attacks.batch import Batch, Evaluate
from attacks.ilrg import restored_labels
from attacks.labels import label_counts_estimate, sign_rule_label
from attacks.matching import Matching, Victim, alike, gradient_of, prepare
from attacks.memory import out_of_memory
from attacks.registry import Case
from attacks.view import Budget, NotApplicable, Reconstruction

Job = tuple[int, int]
RECORD = 150
"""Steps from which recording the objective as a flat graph pays for itself."""
PATIENCE, GAIN = 100, 0.01
"""A restart stalls when so many evaluations lower its objective by less than this part."""
ROOM = 2**24
"""Numbers that the constants and points of the rows side by side may take."""


class Minimiser(Protocol):
    """K minimisations side by side: evaluate all ``points`` (K, D), ``tell`` the answers, repeat.

    ``steps`` (K,) counts the steps taken, ``stuck`` (K,) marks rows that cannot go on, ``broken`` (K,) those of them
    that met a number that is not finite.
    """

    @property
    def points(self) -> Tensor: ...
    @property
    def steps(self) -> Tensor: ...
    @property
    def stuck(self) -> Tensor: ...
    @property
    def broken(self) -> Tensor: ...
    def tell(self, values: Tensor, gradients: Tensor) -> None: ...
    def restart(self, rows: Tensor, starts: Tensor) -> None: ...
    def keep(self, rows: Tensor) -> None: ...


Start = Callable[[tuple[int, ...], int, int, torch.Generator], Tensor]
"""From the inputs' shape (B, *input_shape), a point's size, and how many of its leading columns are boxed in [0, 1]."""


def uniform_in_box(shape: tuple[int, ...], size: int, boxed: int, generator: torch.Generator) -> Tensor:
    """A start (size,): uniform over the value range in the ``boxed`` leading columns, standard normal in the others."""
    inside = torch.rand(boxed, generator=generator, dtype=torch.float64)
    return torch.cat([inside, torch.randn(size - boxed, generator=generator, dtype=torch.float64)])


def flat_colours(shape: tuple[int, ...], size: int, boxed: int, generator: torch.Generator) -> Tensor:
    """A start (size,): each image of several in one uniform colour; the rest, and a lone image, as ``uniform_in_box``.

    Two images of one class that start as noise look alike to the model, and end as mixtures of each other: colours
    tell them apart from the first step.
    """
    start = uniform_in_box(shape, size, boxed, generator)
    if len(shape) == 4 and shape[0] > 1:
        inputs = torch.Size(shape).numel()
        start[:inputs] = start[:inputs].reshape(shape)[:, :, :1, :1].expand(shape).flatten()
    return start


Pool = Callable[[Victim, Tensor, Tensor], Tensor]
"""From the best points (R, D) of a victim's restarts and their objectives (R,): the points (N, D) to claim one of."""


@dataclass(frozen=True)
class Recipe:
    """An attack by gradient matching, as its parts.

    ``minimiser`` takes the starts (K, D), the number of steps, and how many leading columns are boxed in [0, 1].
    ``iterations`` and ``restarts`` are the default budget, ``width`` is how many run side by side. At an objective of
    ``tolerance`` a victim is solved: its further restarts, which wait for the first where there is a tolerance, are
    not run. ``stalls`` ends a restart that gains too little. ``scale`` says that the size of the gradient matters,
    not its direction alone. ``pool`` makes the candidates for the claim from what the restarts found, else these are.
    """

    matching: Matching
    minimiser: Callable[[Tensor, int, int], Minimiser]
    iterations: int
    restarts: int
    tolerance: float = 0.0
    stalls: bool = False
    scale: bool = True
    width: int = 16
    start: Start = uniform_in_box
    pool: Pool | None = None


def match(
    cases: Sequence[Case], recipe: Recipe, budget: Budget, begin: Sequence[Tensor] | None = None
) -> list[Reconstruction | NotApplicable]:
    """Reconstruct every case; those that share an architecture run in one batch. ``budget.seconds`` is per victim.

    ``begin`` are inputs (B, *input_shape) for each case to start from, once, in place of the recipe's starts.
    """
    answers: dict[int, Reconstruction | NotApplicable] = {}
    groups: list[list[tuple[int, Case, Victim]]] = []
    for index, case in enumerate(cases):
        try:
            target = gradient_of(case.observation, case.knowledge, recipe.scale)
            labels = None if recipe.matching.joint else labels_of(case)
            victim = prepare(case, target, labels, recipe.matching)
        except NotApplicable as lacking:
            answers[index] = lacking
            continue
        home = next((group for group in groups if alike(group[0][2], victim)), None)
        if home is None:
            groups.append(home := [])
        home.append((index, case, victim))
    for group in groups:
        victims = [victim for _, _, victim in group]
        given = [victim.from_data(begin[index])[None] for index, _, victim in group] if begin else None
        found = _Search(victims, [case.generator for _, case, _ in group], recipe, budget, given).run()
        answers.update(zip((index for index, _, _ in group), found, strict=True))
    return [answers[index] for index in range(len(cases))]


def labels_of(case: Case) -> Tensor:
    """The labels granted, else by the sign rule for a batch of one, else as counts estimated for a larger batch.

    Public labels make these estimates better, at a trained model and over local steps most of all. Any labels do for a
    model that generates and takes none.
    """
    obs, know = case.observation, case.knowledge
    if know.loss == "elbo":
        return torch.zeros(know.batch_size or 1, dtype=torch.long)
    if know.labels is not None:
        return know.labels
    if know.loss == "next_token":
        raise NotApplicable("one label per example (this loss, next_token, has one per token)", "L5")
    if know.batch_size != 1:
        if know.public is not None and know.public_labels is not None:
            with contextlib.suppress(NotApplicable):
                return restored_labels(case)
        return label_counts_estimate(obs, know, case.generator)
    label = sign_rule_label(obs, know)
    if label is None:
        raise NotApplicable("labels (no dense output layer to read one from)", "L6")
    return torch.tensor([label])


class _Rows:
    """Restarts that run side by side: each row's job (victim, restart), its minimiser, and the best it has seen.

    The best is the value measured at the point that is kept, never at the one before or after a step.
    """

    def __init__(self, jobs: list[Job], starts: Tensor, minimiser: Minimiser) -> None:
        self.jobs, self.minimiser = jobs, minimiser
        self.live = [True] * len(jobs)
        self.points = starts.clone()
        self.values = starts.new_full((len(jobs),), math.inf)
        self.first = starts.new_full((len(jobs),), math.nan)
        self.marks = self.values.clone()
        self.seen = torch.zeros(len(jobs), dtype=torch.long, device=starts.device)

    def step(self, evaluate: Evaluate) -> None:
        points = self.minimiser.points
        values, gradients = evaluate(points)
        better = values < self.values
        self.values = torch.where(better, values, self.values)
        self.points = torch.where(better[:, None], points, self.points)
        self.first = torch.where(self.first.isnan(), values, self.first)
        self.seen += 1
        self.minimiser.tell(values, gradients)

    def stalled(self) -> Tensor:
        """Which rows (K,) end a stretch of PATIENCE evaluations that gained too little."""
        due = self.seen % PATIENCE == 0
        slow = due & (self.values > (1 - GAIN) * self.marks)
        self.marks = torch.where(due, self.values, self.marks)
        return slow

    def restart(self, rows: list[int], jobs: list[Job], starts: Tensor) -> None:
        at = torch.tensor(rows, device=starts.device)
        for row, job in zip(rows, jobs, strict=True):
            self.jobs[row] = job
        self.minimiser.restart(at, starts)
        self.points[at], self.values[at], self.first[at] = starts, math.inf, math.nan
        self.marks[at], self.seen[at] = math.inf, 0

    def keep_live(self) -> None:
        rows = [row for row, live in enumerate(self.live) if live]
        at = torch.tensor(rows, device=self.points.device)
        self.minimiser.keep(at)
        for name in ("points", "values", "first", "marks", "seen"):
            setattr(self, name, getattr(self, name)[at])
        self.jobs, self.live = [self.jobs[row] for row in rows], [True] * len(rows)


class _Search:
    """All restarts of victims that share an architecture: a queue feeds a bounded number of rows."""

    def __init__(
        self,
        victims: Sequence[Victim],
        generators: Sequence[torch.Generator],
        recipe: Recipe,
        budget: Budget,
        given: Sequence[Tensor] | None = None,
    ) -> None:
        first = victims[0]
        self.victims, self.recipe = victims, recipe
        self.iterations = budget.iterations or recipe.iterations
        self.restarts = 1 if given else budget.restarts or recipe.restarts
        self.deadline = time.monotonic() + (budget.seconds or math.inf) * len(victims)
        self.batch = Batch(victims, recipe.matching, compile=budget.compile)
        self.boxed = first.inputs_size if first.boxed else 0
        numbers = self.batch.size + sum(tensor.numel() for part in first.constants for tensor in part.values())
        self.width = max(1, min(recipe.width, ROOM // numbers))
        begin = functools.partial(recipe.start, first.shape, self.batch.size, self.boxed)
        starts = given or [torch.stack([begin(g) for _ in range(self.restarts)]) for g in generators]
        self.starts = torch.stack(list(starts)).to(first.low)
        self.solved: set[int] = set()
        self.best = self.starts.clone()
        self.diverged = torch.zeros(len(victims), self.restarts, dtype=torch.bool)
        self.ran = torch.zeros(len(victims), self.restarts, dtype=torch.bool)
        self.steps = [0] * len(victims)
        self.notes: tuple[str, ...] = ()

    def run(self) -> list[Reconstruction]:
        """Descend from every start until solved or out of budget; then one claim per victim."""
        first = [(victim, 0) for victim in range(len(self.victims))]
        rest = [(victim, restart) for restart in range(1, self.restarts) for victim in range(len(self.victims))]
        for wave in (first, rest) if self.recipe.tolerance else (first + rest,):
            queue = deque(job for job in wave if job[0] not in self.solved)
            if queue and (wave is not rest or time.monotonic() < self.deadline):
                self._descend_within_memory(queue)
        return [self._claim(index) for index in range(len(self.victims))]

    def _descend_within_memory(self, queue: deque[Job]) -> None:
        """Descend; where memory does not suffice, once more with half as many side by side, down to one."""
        wave = list(queue)
        while True:
            try:
                return self._descend(deque(job for job in wave if not self.ran[job] and job[0] not in self.solved))
            except (RuntimeError, MemoryError) as error:
                if self.width == 1 or not out_of_memory(error):
                    raise
            self.width //= 2
            self.notes = (f"memory sufficed for {self.width} candidates side by side",)

    def _descend(self, queue: deque[Job]) -> None:
        jobs = [queue.popleft() for _ in range(min(self.width, len(queue)))]
        starts = torch.stack([self.starts[job] for job in jobs])
        rows = _Rows(jobs, starts, self.recipe.minimiser(starts, self.iterations, self.boxed))
        record = self.iterations >= RECORD or self.batch.compile
        while any(rows.live):
            evaluate = self.batch.bind([victim for victim, _ in rows.jobs], record=record)
            over = self._until_one_is_over(rows, evaluate)
            self.solved |= {rows.jobs[k][0] for k in over if rows.values[k] <= self.recipe.tolerance}
            late = time.monotonic() > self.deadline
            queue = deque(job for job in queue if job[0] not in self.solved and not late)
            ended = [k for k, live in enumerate(rows.live) if live and (k in over or rows.jobs[k][0] in self.solved)]
            for k in ended:
                self._bank(rows, k)
                rows.live[k] = False
            self._refill(rows, ended, queue)

    def _until_one_is_over(self, rows: _Rows, evaluate: Evaluate) -> set[int]:
        """Step all rows until some are solved, stuck or out of steps, or time is up; which."""
        live = torch.tensor(rows.live, device=rows.points.device)
        while True:
            rows.step(evaluate)
            minimiser = rows.minimiser
            over = (rows.values <= self.recipe.tolerance) | minimiser.stuck | (minimiser.steps >= self.iterations)
            if self.recipe.stalls:
                over |= rows.stalled()
            if time.monotonic() > self.deadline:
                over = torch.ones_like(over)
            if (over & live).any():
                return set((over & live).nonzero()[:, 0].tolist())

    def _refill(self, rows: _Rows, free: list[int], queue: deque[Job]) -> None:
        """Give free rows the next jobs; with none left, halve the batch once half of it is idle."""
        jobs = [queue.popleft() for _ in range(min(len(free), len(queue)))]
        if jobs:
            at = free[: len(jobs)]
            rows.restart(at, jobs, torch.stack([self.starts[job] for job in jobs]))
            for k in at:
                rows.live[k] = True
        if 0 < 2 * sum(rows.live) <= len(rows.live):
            rows.keep_live()

    def _bank(self, rows: _Rows, k: int) -> None:
        """Keep what row ``k`` found; it diverged if it met a non-finite number, or got stuck without any progress."""
        job, minimiser = rows.jobs[k], rows.minimiser
        self.best[job], self.ran[job] = rows.points[k], True
        self.diverged[job] = minimiser.broken[k] | (minimiser.stuck[k] & ~(rows.values[k] < rows.first[k]))
        self.steps[job[0]] += int(minimiser.steps[k])

    def _values(self, index: int, points: Tensor) -> Tensor:
        """The objective (N,) of a victim's points (N, D), as many at once as memory had room for."""
        return torch.cat([self.batch.bind([index] * len(some))(some)[0] for some in points.split(self.width)])

    def _claim(self, index: int) -> Reconstruction:
        """The restart whose objective, measured at what is returned, is least among those that did not diverge."""
        victim, ran, matching = self.victims[index], self.ran[index], self.recipe.matching
        late = not ran.any()
        ran = ran if ran.any() else ran | (torch.arange(self.restarts) == 0)
        points = victim.project(self.best[index, ran])
        values = self._values(index, points)
        failed = self.diverged[index, ran].to(values.device) | ~values.isfinite()
        values = torch.where(failed, math.inf, values)
        if self.recipe.pool and not failed.all():
            points = self.recipe.pool(victim, points[~failed], values[~failed])
            values = self._values(index, points)
        chosen, lost = int(values.argmin()), bool(failed.all())
        return Reconstruction(
            inputs=None if lost else victim.to_data(points[chosen]).to(victim.returns),
            labels=None if lost and matching.joint else victim.labels_at(points[chosen], matching),
            objective=values[chosen].reshape(1),
            converged=not lost,
            diverged=int(failed.sum()),
            iterations=self.steps[index],
            notes=(
                *victim.notes,
                *self.batch.notes,
                *self.notes,
                *(("out of time before its first step",) if late else ()),
            ),
        )
