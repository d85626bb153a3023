"""The one loop of gradient matching: restarts of many victims side by side, the best chosen by its own objective."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from attacks.labels import label_counts_estimate, sign_rule_label
from attacks.matching import Batch, Evaluate, Matching, Victim, alike, gradient_of, prepare
from attacks.registry import Case
from attacks.view import Budget, NotApplicable, Reconstruction

Job = tuple[int, int]
RECORD = 150
"""Steps from which recording the objective as a flat graph pays for itself."""


class Minimiser(Protocol):
    """K minimisations side by side: evaluate all ``points`` (K, D), ``tell`` the answers, repeat.

    ``steps`` (K,) counts the steps taken, ``stuck`` (K,) marks rows that cannot go on.
    """

    steps: Tensor
    stuck: Tensor

    @property
    def points(self) -> Tensor: ...
    def tell(self, values: Tensor, gradients: Tensor) -> None: ...
    def restart(self, rows: Tensor, starts: Tensor) -> None: ...
    def keep(self, rows: Tensor) -> None: ...


@dataclass(frozen=True)
class Recipe:
    """An attack by gradient matching, as its parts.

    ``start`` draws (D,) numbers in unit coordinates; ``minimiser`` takes the starts (K, D), the number of steps, and
    how many leading columns are boxed in [0, 1]. A victim is solved, and its other restarts end, at an objective of
    ``tolerance``. ``iterations`` and ``restarts`` are the default budget; ``width`` is how many run side by side.
    """

    matching: Matching
    minimiser: Callable[[Tensor, int, int], Minimiser]
    start: Callable[[int, torch.Generator], Tensor]
    iterations: int
    restarts: int
    tolerance: float = 0.0
    scale: bool = True
    width: int = 16


def match(cases: Sequence[Case], recipe: Recipe, budget: Budget) -> list[Reconstruction | NotApplicable]:
    """Reconstruct every case; those that share an architecture run in one batch. ``budget.seconds`` is per victim."""
    answers: dict[int, Reconstruction | NotApplicable] = {}
    groups: list[list[tuple[int, Case, Victim]]] = []
    for index, case in enumerate(cases):
        try:
            target = gradient_of(case.observation, case.knowledge, recipe.scale)
            labels = None if recipe.matching.joint else labels_of(case)
            victim = prepare(case, target, labels, recipe.matching.dtype)
        except NotApplicable as lacking:
            answers[index] = lacking
            continue
        home = next((group for group in groups if alike(group[0][2], victim)), None)
        if home is None:
            groups.append(home := [])
        home.append((index, case, victim))
    for group in groups:
        generators = [case.generator for _, case, _ in group]
        found = _Search([victim for _, _, victim in group], generators, recipe, budget).run()
        answers.update(zip((index for index, _, _ in group), found, strict=True))
    return [answers[index] for index in range(len(cases))]


def labels_of(case: Case) -> Tensor:
    """The labels granted, else by the sign rule for a batch of one, else as counts estimated for a larger batch."""
    obs, know = case.observation, case.knowledge
    if know.labels is not None:
        return know.labels
    if know.batch_size != 1:
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

    def step(self, evaluate: Evaluate) -> None:
        points = self.minimiser.points
        values, gradients = evaluate(points)
        better = values < self.values
        self.values = torch.where(better, values, self.values)
        self.points = torch.where(better[:, None], points, self.points)
        self.first = torch.where(self.first.isnan(), values, self.first)
        self.minimiser.tell(values, gradients)

    def restart(self, rows: list[int], jobs: list[Job], starts: Tensor) -> None:
        at = torch.tensor(rows, device=starts.device)
        for row, job in zip(rows, jobs, strict=True):
            self.jobs[row] = job
        self.minimiser.restart(at, starts)
        self.points[at], self.values[at], self.first[at] = starts, math.inf, math.nan

    def keep_live(self) -> None:
        rows = [row for row, live in enumerate(self.live) if live]
        at = torch.tensor(rows, device=self.points.device)
        self.minimiser.keep(at)
        self.points, self.values, self.first = self.points[at], self.values[at], self.first[at]
        self.jobs, self.live = [self.jobs[row] for row in rows], [True] * len(rows)


class _Search:
    """All restarts of victims that share an architecture: a queue feeds a bounded number of rows."""

    def __init__(
        self, victims: Sequence[Victim], generators: Sequence[torch.Generator], recipe: Recipe, budget: Budget
    ) -> None:
        self.victims, self.recipe = victims, recipe
        self.iterations = budget.iterations or recipe.iterations
        self.restarts = budget.restarts or recipe.restarts
        self.deadline = time.monotonic() + (budget.seconds or math.inf) * len(victims)
        self.batch = Batch(victims, recipe.matching)
        starts = [[recipe.start(self.batch.size, g) for _ in range(self.restarts)] for g in generators]
        self.starts = torch.stack([torch.stack(own) for own in starts]).to(victims[0].low)
        self.best = self.starts.clone()
        self.diverged = torch.zeros(len(victims), self.restarts, dtype=torch.bool)
        self.ran = torch.zeros(len(victims), self.restarts, dtype=torch.bool)
        self.steps = [0] * len(victims)

    def run(self) -> list[Reconstruction]:
        """Descend from every start until solved or out of budget; then one claim per victim."""
        queue = deque((v, r) for r in range(self.restarts) for v in range(len(self.victims)))
        jobs = [queue.popleft() for _ in range(min(self.recipe.width, len(queue)))]
        starts = torch.stack([self.starts[job] for job in jobs])
        rows = _Rows(jobs, starts, self.recipe.minimiser(starts, self.iterations, self._boxed()))
        while any(rows.live):
            evaluate = self.batch.bind([v for v, _ in rows.jobs], record=self.iterations >= RECORD)
            over = self._until_one_is_over(rows, evaluate)
            solved = {rows.jobs[k][0] for k in over if rows.values[k] <= self.recipe.tolerance}
            late = time.monotonic() > self.deadline
            queue = deque() if late else deque(job for job in queue if job[0] not in solved)
            ended = [k for k, live in enumerate(rows.live) if live and (k in over or rows.jobs[k][0] in solved)]
            for k in ended:
                self._bank(rows, k)
                rows.live[k] = False
            self._refill(rows, ended, queue)
        return [self._claim(index) for index in range(len(self.victims))]

    def _until_one_is_over(self, rows: _Rows, evaluate: Evaluate) -> set[int]:
        """Step all rows until some are solved, stuck or out of steps, or time is up; which."""
        live = torch.tensor(rows.live, device=rows.points.device)
        while True:
            rows.step(evaluate)
            minimiser = rows.minimiser
            over = (rows.values <= self.recipe.tolerance) | minimiser.stuck | (minimiser.steps >= self.iterations)
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
        """Keep what row ``k`` found; without progress from a finite start it counts as diverged."""
        victim, restart = job = rows.jobs[k]
        self.best[job] = rows.points[k]
        self.diverged[job] = not bool(rows.values[k] < rows.first[k]) and bool(rows.minimiser.stuck[k])
        self.ran[victim, restart] = True
        self.steps[victim] += int(rows.minimiser.steps[k])

    def _boxed(self) -> int:
        return self.victims[0].inputs_size if self.victims[0].boxed else 0

    def _claim(self, index: int) -> Reconstruction:
        """The restart whose objective, measured at what is returned, is least among those that did not diverge."""
        victim, ran = self.victims[index], self.ran[index]
        points = victim.project(self.best[index, ran])
        values, _ = self.batch.bind([index] * len(points))(points)
        values = torch.where(self.diverged[index, ran].to(values.device) | values.isnan(), math.inf, values)
        diverged = int(values.isinf().sum())
        chosen = int(values.argmin())
        failed = diverged == len(values)
        labels = (
            None if failed and self.recipe.matching.joint else victim.labels_at(points[chosen], self.recipe.matching)
        )
        return Reconstruction(
            inputs=None if failed else victim.to_data(points[chosen]).to(victim.returns),
            labels=labels,
            objective=values[chosen].reshape(1),
            converged=not failed,
            diverged=diverged,
            iterations=self.steps[index],
            notes=victim.notes + self.batch.notes,
        )


def normal(size: int, generator: torch.Generator) -> Tensor:
    """A start (size,) of standard normal numbers, as deep leakage takes them."""
    return torch.randn(size, generator=generator, dtype=torch.float64)
