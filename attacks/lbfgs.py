"""L-BFGS with a strong-Wolfe line search for many independent problems at once, one evaluation of all at a time."""

import torch
from torch import Tensor

ARMIJO, WOLFE = 1e-4, 0.9
TRIALS = 25
GROWTH = 4.0
CURVATURE = 1e-12
PAIRS, NUMBERS = (20, 200), 2**20
"""Pairs kept: many, for gradient matching is badly conditioned, but no more numbers a row than NUMBERS."""


class LBFGS:
    """Minimises K problems side by side: evaluate all at ``points``, ``tell`` the answers, repeat.

    Every row keeps its own step, bracket and memory, so one row's line search never waits for another's. The
    direction is the compact form of Byrd, Nocedal, Schnabel 1994 (theorem 2.3); the bracket keeps an end with the
    lowest value and a falling slope, as in Nocedal and Wright 2006, algorithm 3.6. ``starts`` is (K, D).
    """

    def __init__(self, starts: Tensor, memory: int | None = None) -> None:
        rows, size = starts.shape
        memory = memory or max(PAIRS[0], min(PAIRS[1], NUMBERS // size))
        zero, none = starts.new_zeros(rows), torch.zeros(rows, dtype=torch.long, device=starts.device)
        self.memory = memory
        self.x = starts.clone()
        self.d, self.g = torch.zeros_like(starts), torch.zeros_like(starts)
        self.f, self.slope, self.t = zero.clone(), zero.clone(), zero.clone()
        self.ends = starts.new_zeros(rows, 6)  # low end, then high end: step, value, slope
        self.trials, self.steps, self.count = none.clone(), none.clone(), none.clone()
        self.fresh, self.stuck, self.broken = none == 0, none != 0, none != 0
        self.s, self.y = starts.new_zeros(rows, memory, size), starts.new_zeros(rows, memory, size)
        self.sy, self.yy = starts.new_zeros(rows, memory, memory), starts.new_zeros(rows, memory, memory)
        self.sg, self.yg = starts.new_zeros(rows, memory), starts.new_zeros(rows, memory)

    @property
    def points(self) -> Tensor:
        """Where each row wants its value and gradient next (K, D)."""
        return self.x + self.t[:, None] * self.d

    def restart(self, rows: Tensor, starts: Tensor) -> None:
        """Begin anew in ``rows`` from ``starts``."""
        fresh = LBFGS(starts, self.memory)
        for name, mine in self._state().items():
            mine[rows] = getattr(fresh, name)

    def keep(self, rows: Tensor) -> None:
        """Drop every row but ``rows``."""
        for name, mine in self._state().items():
            setattr(self, name, mine[rows])

    def _state(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def tell(self, values: Tensor, gradients: Tensor) -> None:
        """Take the values (K,) and gradients (K, D) at ``points``; a non-finite answer counts as a step too far."""
        finite = values.isfinite() & gradients.isfinite().all(1)
        slope = (gradients * self.d).sum(1)
        far = ~finite | (values > self.f + ARMIJO * self.t * self.slope) | (values >= self.ends[:, 1])
        accept = ~self.fresh & ~far & (slope.abs() <= -WOLFE * self.slope)
        self.broken |= self.fresh & ~finite
        moved = accept | self.fresh
        if accept.any():
            self._remember(accept, gradients)
        self.x = torch.where(accept[:, None], self.points, self.x)
        self.f = torch.where(moved, values, self.f)
        self.g = torch.where(moved[:, None], gradients, self.g)
        self.steps += accept
        self._bracket(far, finite, values, slope)
        failed = ~moved & (self.trials >= TRIALS)
        self.stuck |= self.broken | (failed & (self.count == 0))
        self.count = torch.where(failed, 0, self.count)
        if (moved | failed).any():
            self._aim(moved | failed)
        self.fresh = torch.zeros_like(self.fresh)

    def _bracket(self, far: Tensor, finite: Tensor, values: Tensor, slope: Tensor) -> None:
        """Shrink each row's bracket around a strong-Wolfe step by the trial just told, and choose the next trial."""
        trial = torch.stack([self.t, torch.where(finite, values, torch.inf), slope], 1)
        upper = (far | (slope > 0))[:, None]
        low = torch.where(upper, self.ends[:, :3], trial)
        high = torch.where(upper, trial, self.ends[:, 3:])
        self.ends = torch.cat([low, high], 1)
        self.t = torch.where(high[:, 0].isfinite(), _between(low, high), GROWTH * self.t)
        self.trials += 1

    def _remember(self, accept: Tensor, gradients: Tensor) -> None:
        """Replace the accepted rows' oldest pair by this step and gradient change, where the curvature is positive."""
        step, change = self.t[:, None] * self.d, gradients - self.g
        kept = (accept & ((step * change).sum(1) > CURVATURE * step.norm(dim=1) * change.norm(dim=1))).nonzero()[:, 0]
        at = self.count[kept] % self.memory
        sg, yg = _inner(self.s, gradients), _inner(self.y, gradients)
        # Of s^T y only the half where s is no younger than y is ever read.
        self.sy[kept, :, at], y_change = (sg - self.sg)[kept], (yg - self.yg)[kept]
        self.yy[kept, at], self.yy[kept, :, at] = y_change, y_change
        step, change, gradient = step[kept], change[kept], gradients[kept]
        self.s[kept, at], self.y[kept, at] = step, change
        self.sy[kept, at, at], self.yy[kept, at, at] = (step * change).sum(1), change.square().sum(1)
        sg[kept, at], yg[kept, at] = (step * gradient).sum(1), (change * gradient).sum(1)
        self.sg, self.yg = (torch.where(accept[:, None], new, old) for new, old in ((sg, self.sg), (yg, self.yg)))
        self.count[kept] += 1

    def _aim(self, rows: Tensor) -> None:
        """Give ``rows`` a new direction, and a first trial at its full length."""
        direction = -self._inverse_hessian_times_gradient()
        slope = (direction * self.g).sum(1)
        descends = (slope < 0) & (self.count > 0)
        self.count = torch.where(rows & ~descends, 0, self.count)
        direction = torch.where(descends[:, None], direction, -self.g)
        slope = torch.where(descends, slope, -self.g.square().sum(1))
        first = torch.where(descends, 1.0, self.g.norm(dim=1).reciprocal())  # without memory: a step of length one
        none = torch.zeros_like(slope)
        ends = torch.stack([none, self.f, slope, none + torch.inf, none + torch.inf, none], 1)
        self.d = torch.where(rows[:, None], direction, self.d)
        self.slope, self.t = torch.where(rows, slope, self.slope), torch.where(rows, first, self.t)
        self.ends = torch.where(rows[:, None], ends, self.ends)
        self.trials = torch.where(rows, 0, self.trials)

    def _inverse_hessian_times_gradient(self) -> Tensor:
        slots = torch.arange(self.memory, device=self.g.device)
        order = (self.count[:, None] + slots) % self.memory  # oldest first
        used = order < self.count[:, None]
        pairs = used[:, :, None] & used[:, None, :]
        sy, yy = (
            m.gather(1, order[:, :, None].expand_as(m)).gather(2, order[:, None, :].expand_as(m)) * pairs
            for m in (self.sy, self.yy)
        )
        last_sy, last_yy = sy[:, -1, -1], yy[:, -1, -1]
        gamma = torch.where(self.count > 0, last_sy / last_yy, 1.0)[:, None]
        upper = sy.triu() + torch.diag_embed((~used).to(sy.dtype))
        sg, yg = self.sg.gather(1, order) * used, self.yg.gather(1, order) * used
        u = torch.linalg.solve_triangular(upper, sg[:, :, None], upper=True)
        right = sy.diagonal(dim1=1, dim2=2)[:, :, None] * u + gamma[:, :, None] * (yy @ u - yg[:, :, None])
        v = torch.linalg.solve_triangular(upper.mT, right, upper=False)
        by_slot = torch.zeros_like(sg)
        along_s = by_slot.scatter(1, order, v[:, :, 0])
        along_y = by_slot.scatter(1, order, -gamma * u[:, :, 0])
        return gamma * self.g + torch.bmm(along_s[:, None], self.s)[:, 0] + torch.bmm(along_y[:, None], self.y)[:, 0]


def _inner(pairs: Tensor, vector: Tensor) -> Tensor:
    """Inner products (K, m) of the rows of ``pairs`` (K, m, D) with ``vector`` (K, D); as a row times a matrix, which
    is several times faster on a CPU than the matrix times a column."""
    return torch.bmm(vector[:, None], pairs.mT)[:, 0]


def _between(low: Tensor, high: Tensor) -> Tensor:
    """A step inside each bracket: the cubic through both ends' values and slopes, else the middle."""
    (a, fa, ga), (b, fb, gb) = low.unbind(1), high.unbind(1)
    width = b - a
    theta = ga + gb - 3 * (fb - fa) / width
    root = (theta.square() - ga * gb).clamp(min=0).sqrt()
    share = 1 - (gb + root - theta) / (gb - ga + 2 * root)
    share = torch.where(share.isfinite(), share, 0.5).clamp(0.1, 0.9)
    return a + share * width
