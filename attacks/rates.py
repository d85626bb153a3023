"""How well scores tell members from the others: area under the curve, and true positives at few false ones.

Scores are (n,) tensors, higher for a claimed member. Every interval is 95 % and two-sided, over independent records.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm
from torch import Tensor

FPRS = (0.1, 0.01, 0.001)
FEWEST = 10
"""False positives that a rate must rest on, and members: fewer, and its threshold is one record's luck."""
_LEVEL = 0.95
_EDGE = 1e-9


class TooFew(ValueError):
    """There are too few members or non-members for the figure that was asked for; ``needed`` would do."""

    def __init__(self, who: str, held: int, needed: int, what: str) -> None:
        more = "hold more records out" if who == "non-members" else "train on more records, or ask about more"
        super().__init__(f"too few {who}: {held}, and {what} needs at least {needed}; {more}")
        self.who, self.held, self.needed, self.what = who, held, needed, what

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.who, self.held, self.needed, self.what)


@dataclass(frozen=True)
class Figure:
    """A figure with the two ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TruePositives:
    """The share of members claimed at a threshold that claims at most ``fpr`` of the non-members.

    The interval of ``rate`` is Clopper and Pearson's over the members; ``false`` is the false-positive rate really had,
    with its own. Chance is a ``rate`` of ``fpr``.
    """

    fpr: float
    rate: Figure
    false: Figure


@dataclass(frozen=True)
class Rates:
    """All figures of one attack. ``tpr`` holds, in the place of a rate that cannot be had, why it cannot.

    ``advantage`` is the largest true minus false positive rate (Yeom et al. 2018), its threshold chosen on the same
    scores: it is above zero even by chance.
    """

    members: int
    non_members: int
    auc: Figure
    advantage: float
    tpr: dict[float, TruePositives | TooFew]


def rates(members: Tensor, non_members: Tensor, fprs: Sequence[float] = FPRS) -> Rates:
    """Everything at once; raises TooFew without a single member or non-member, ValueError for a non-finite score."""

    def at(fpr: float) -> TruePositives | TooFew:
        try:
            return true_positives(members, non_members, fpr)
        except TooFew as refused:
            return refused

    return Rates(
        members=len(members),
        non_members=len(non_members),
        auc=auc(members, non_members),
        advantage=advantage(members, non_members),
        tpr={fpr: at(fpr) for fpr in fprs},
    )


def auc(members: Tensor, non_members: Tensor) -> Figure:
    """The chance that a member scores above a non-member, ties half; with Newcombe's score interval.

    Newcombe 2006, method 5, which stays inside [0, 1] and has width even for a perfect separation.
    """
    from sklearn.metrics import roc_auc_score  # takes a second to import

    scores, truth = _joined(members, non_members)
    value = float(roc_auc_score(truth, scores))
    pairs, half = len(members) * len(non_members), (len(members) + len(non_members)) / 2 - 1
    z = float(norm.ppf((1 + _LEVEL) / 2))

    def off(theta: float) -> float:
        spread = theta * (1 - theta) * (1 + half * (1 - theta) / (2 - theta) + half * theta / (1 + theta)) / pairs
        return float((value - theta) ** 2 - z**2 * spread)

    # Negative at the value, but for one of 0 or 1, where it touches zero.
    low = brentq(off, 0, min(value, 1 - _EDGE)) if value > _EDGE else 0.0
    high = brentq(off, max(value, _EDGE), 1) if value < 1 - _EDGE else 1.0
    return Figure(value, float(low), float(high))


def true_positives(members: Tensor, non_members: Tensor, fpr: float) -> TruePositives:
    """The share of members above the threshold that lets ``fpr`` of the non-members pass, at most.

    Raises TooFew where that would be fewer than ten non-members, or where there are fewer than ten members.
    """
    if not 0 < fpr < 1:
        raise ValueError(f"fpr = {fpr}: must be between 0 and 1")
    needed = int(np.ceil(FEWEST / fpr))
    if len(non_members) < needed:
        raise TooFew("non-members", len(non_members), needed, f"a rate at {fpr:.3g} false positives")
    if len(members) < FEWEST:
        raise TooFew("members", len(members), FEWEST, "a true-positive rate")
    _joined(members, non_members)
    falling = non_members.double().sort(descending=True).values
    threshold = falling[int(fpr * len(falling) + 1e-9)]
    return TruePositives(fpr, _share(members.double() > threshold), _share(falling > threshold))


def advantage(members: Tensor, non_members: Tensor) -> float:
    """The largest difference of true and false positive rate over all thresholds."""
    from sklearn.metrics import roc_curve  # takes a second to import

    scores, truth = _joined(members, non_members)
    false, true, _ = roc_curve(truth, scores)
    return float((true - false).max())


def _share(hits: Tensor) -> Figure:
    test = binomtest(int(hits.sum()), len(hits))
    interval = test.proportion_ci(_LEVEL, method="exact")
    return Figure(float(test.statistic), float(interval.low), float(interval.high))


def _joined(members: Tensor, non_members: Tensor) -> tuple[np.ndarray, np.ndarray]:
    for who, scores in (("members", members), ("non-members", non_members)):
        if scores.ndim != 1 or not scores.isfinite().all():
            raise ValueError(f"scores of {who}: need a vector of finite numbers, not shape {tuple(scores.shape)}")
        if not len(scores):
            raise TooFew(who, 0, 1, "any figure")
    both = np.concatenate([scores.detach().double().cpu().numpy() for scores in (members, non_members)])
    return both, np.repeat([1, 0], [len(members), len(non_members)])
