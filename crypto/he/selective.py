"""Selective encryption: the most sensitive coordinates travel encrypted, the rest in clear.

FedML-HE (Jin et al. 2023, section 2.4, "selective parameter encryption"). All clients encrypt the same coordinates,
and the set is public: what is derived from private updates tells the server where they are large. Take sensitivities
from public data, or combine the clients' maps under full encryption first, as FedML-HE does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crypto.he.errors import SelectionError


@dataclass(frozen=True)
class Selection:
    """Which of ``size`` coordinates are encrypted; both index arrays are sorted int64 and share no coordinate."""

    size: int
    encrypted: NDArray[np.int64] = field(repr=False)
    clear: NDArray[np.int64] = field(repr=False)

    def split(self, vector: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The values to encrypt and the values that travel in clear, of ``vector`` (size,)."""
        if vector.shape != (self.size,):
            raise SelectionError(f"vector of shape {vector.shape}: the selection is over ({self.size},)")
        return vector[self.encrypted], vector[self.clear]

    def followed_by(self, count: int) -> "Selection":
        """The selection with ``count`` more coordinates behind it: encrypted, unless nothing is."""
        more = np.arange(self.size, self.size + count)
        if not len(self.encrypted):
            return Selection(self.size + count, self.encrypted, np.append(self.clear, more))
        return Selection(self.size + count, np.append(self.encrypted, more), self.clear)

    def join(self, encrypted: NDArray[Any], clear: NDArray[Any]) -> NDArray[Any]:
        """The vector (size,) that ``split`` took apart."""
        if encrypted.shape != self.encrypted.shape or clear.shape != self.clear.shape:
            raise SelectionError(
                f"parts of shape {encrypted.shape} and {clear.shape}: expected {self.encrypted.shape} and "
                f"{self.clear.shape}"
            )
        vector = np.empty(self.size, np.result_type(encrypted, clear))
        vector[self.encrypted], vector[self.clear] = encrypted, clear
        return vector


def select(sensitivity: ArrayLike, fraction: float) -> Selection:
    """The ``fraction`` p of coordinates with the largest ``sensitivity`` (d,): ceil(p d) of them, so never fewer.

    Deterministic: of equals the lowest index is taken first. Raises SelectionError for p outside [0, 1] or a
    sensitivity that is negative or not finite.
    """
    if not 0 <= fraction <= 1:
        raise SelectionError(f"fraction = {fraction}: must be from 0 (all in clear) to 1 (all encrypted)")
    scores = _map(sensitivity)
    count = math.ceil(Fraction(repr(float(fraction))) * len(scores))  # the decimal that was written: 0.07 * 100 is 7
    order = np.argsort(-scores, kind="stable")
    return Selection(len(scores), np.sort(order[:count]), np.sort(order[count:]))


def label_sensitivity(jacobians: ArrayLike) -> NDArray[np.float64]:
    """FedML-HE's measure (d,): the mean over examples of how far a gradient coordinate moves with the label.

    ``jacobians`` (K, d) holds, for each example, d/dy of dl/dw: large where the gradient tells most of the label.
    """
    return _mean_magnitude(jacobians)


def magnitude_sensitivity(updates: ArrayLike) -> NDArray[np.float64]:
    """The mean magnitude (d,) of a coordinate over ``updates`` (K, d), best those of public data or of past rounds."""
    return _mean_magnitude(updates)


def combine(maps: Sequence[ArrayLike], weights: ArrayLike) -> NDArray[np.float64]:
    """The weighted mean (d,) of the clients' sensitivity maps, on which all of them agree."""
    shares = np.asarray(weights, dtype=np.float64)
    known = [_map(one) for one in maps]
    if not known or len({len(one) for one in known}) != 1 or shares.shape != (len(known),):
        raise SelectionError("maps: must be one or more, of one length, with one weight each")
    if not (shares >= 0).all() or not 0 < shares.sum() < math.inf:
        raise SelectionError(f"weights = {shares.tolist()}: must not be negative, and not all zero")
    return np.average(np.stack(known), axis=0, weights=shares)


def _mean_magnitude(rows: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise SelectionError(f"array of shape {values.shape}: expected one row of coordinates per example or update")
    return _map(np.abs(values).mean(0))


def _map(sensitivity: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(sensitivity, dtype=np.float64)
    if scores.ndim != 1 or not scores.size:
        raise SelectionError(f"sensitivity of shape {scores.shape}: must be a flat vector that is not empty")
    if not (np.isfinite(scores).all() and (scores >= 0).all()):
        raise SelectionError("sensitivity: must be finite and not negative in every coordinate")
    return scores
