"""Figures of attribute inference on a binary attribute: pure functions of scores and truth."""

import math

from torch import Tensor


def _margin(scores: Tensor) -> Tensor:
    """How much more value 1 is claimed than value 0, (T,)."""
    if scores.ndim != 2 or scores.shape[1] != 2:
        raise ValueError(f"scores of shape {tuple(scores.shape)}: these figures are for two values (T, 2)")
    return scores[:, 1].double() - scores[:, 0].double()


def _counts(scores: Tensor, truth: Tensor) -> tuple[int, int, int, int]:
    """True positives, true negatives, false positives, false negatives; ``truth`` (T,) is 0 or 1."""
    said, held = _margin(scores) > 0, truth == 1
    return int((said & held).sum()), int((~said & ~held).sum()), int((said & ~held).sum()), int((~said & held).sum())


def matthews(scores: Tensor, truth: Tensor) -> float:
    """Matthews' correlation in [-1, 1]; 0 where all claims, or all truths, are one value."""
    tp, tn, fp, fn = _counts(scores, truth)
    under = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / under if under else 0.0


def g_mean(scores: Tensor, truth: Tensor) -> float:
    """The geometric mean of sensitivity and specificity, in [0, 1]; nan where one value does not occur."""
    tp, tn, fp, fn = _counts(scores, truth)
    if not (tp + fn) * (tn + fp):
        return math.nan
    return math.sqrt(tp / (tp + fn) * tn / (tn + fp))


def ppv_at(scores: Tensor, truth: Tensor, k: int) -> float:
    """Share with value 1 among the ``k`` records of which it is claimed most; ties in the records' order."""
    if not 1 <= k <= len(truth):
        raise ValueError(f"k = {k}: there are {len(truth)} records")
    return float((truth[_margin(scores).argsort(descending=True, stable=True)[:k]] == 1).double().mean())
