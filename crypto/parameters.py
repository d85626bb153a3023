"""Degree, threshold and modulus that a round must have: found, or refused; never clamped.

The degree k and the threshold t follow Bell et al. (CCS 2020, sections 3 and 4) with the bounds that Google's
federated-compute uses; sigma is the statistical security, eta the correctness, both in bits.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from crypto.errors import InfeasibleParameters

_LN2 = math.log(2)


@dataclass(frozen=True)
class GraphParameters:
    """``degree`` neighbours per client, and the ``threshold`` of their shares that opens a secret."""

    degree: int
    threshold: int


def find_graph(
    clients: int, corrupt: float, dropout: float, *, semi_malicious: bool = False, sigma: int = 40, eta: int = 20
) -> GraphParameters:
    """The smallest even degree, with its least threshold, for fractions ``corrupt`` and ``dropout`` of the clients.

    Except with probability 2**-sigma the honest survivors stay connected and no client's corrupt neighbours reach the
    threshold; except with 2**-eta the survivors do. ``semi_malicious``: the server may show its clients different
    survivor sets, so that the threshold must exceed half the neighbours plus half the corrupt ones.
    Raises InfeasibleParameters when no degree below ``clients`` does it.
    """
    _check_fractions(clients, corrupt, dropout)
    bad, alive = math.floor(corrupt * clients), math.ceil((1 - dropout) * clients)
    lost = bad + math.floor(dropout * clients)
    for degree in range(2, clients, 2):
        if _log_disconnected(clients, lost, degree) >= -(sigma + 1) * _LN2:
            continue
        most_corrupt = _least_exceeding(clients, bad, degree, -(sigma + 1) * _LN2 - math.log(clients))
        limit = math.ceil((most_corrupt + degree - 1.25) / 2) if semi_malicious else most_corrupt
        threshold = limit + 1
        if threshold <= degree and _log_below(clients, alive, degree, threshold) <= -eta * _LN2 - math.log(clients):
            return GraphParameters(degree, threshold)
    raise InfeasibleParameters(
        f"{clients} clients with {corrupt:.0%} corrupt and {dropout:.0%} dropping out: no k-regular graph is safe and "
        "survives; tolerate fewer corrupt clients or drop-outs, or use the complete graph"
    )


def find_complete(clients: int, corrupt: float, dropout: float, *, split_view: bool = True) -> GraphParameters:
    """The complete graph and its least safe threshold (Bonawitz et al., CCS 2017, theorems 6.3 and 6.5).

    ``split_view`` (active server): 2t > n + corrupt; else t > corrupt. Feasible only if t clients survive.
    """
    _check_fractions(clients, corrupt, dropout)
    bad, alive = math.floor(corrupt * clients), clients - math.floor(dropout * clients)
    threshold = (clients + bad) // 2 + 1 if split_view else max(2, bad + 1)
    if threshold > alive:
        raise InfeasibleParameters(
            f"{clients} clients with {corrupt:.0%} corrupt need t = {threshold}, but only {alive} survive "
            f"a drop-out of {dropout:.0%}; needed: corrupt + 2 * dropout < 1"
        )
    return GraphParameters(clients - 1, threshold)


def find_modulus_bits(clients: int, max_weight: int, bits: int) -> int:
    """32 or 64: the narrower word in which the sum of every client's largest vector does not wrap."""
    if bits < 0:
        raise InfeasibleParameters(f"bits = {bits}: must not be negative")
    largest = clients * max_weight * ((1 << bits) - 1)
    for width in (32, 64):
        if largest < 1 << width:
            return width
    raise InfeasibleParameters(
        f"{clients} clients x weight {max_weight} x {bits} bits overflows 64 bits; lower the weights or the bits"
    )


def _check_fractions(clients: int, corrupt: float, dropout: float) -> None:
    if clients < 2:
        raise InfeasibleParameters(f"clients = {clients}: a sum hides a client only among at least 2")
    if not (0 <= corrupt < 1 and 0 <= dropout < 1):
        raise InfeasibleParameters(f"corrupt = {corrupt}, dropout = {dropout}: fractions from 0 to below 1")


def _log_disconnected(n: int, lost: int, degree: int) -> float:
    """log of the union bound n(n-k-1)/2 * C(lost, k) / C(n, k) on two runs of ``degree`` lost clients on the ring."""
    if lost < degree or n - degree - 1 <= 0:
        return -math.inf
    pairs = math.log(n) + math.log(n - degree - 1) - _LN2
    return pairs + float(gammaln(lost + 1) + gammaln(n - degree + 1) - gammaln(n + 1) - gammaln(lost - degree + 1))


def _log_hypergeometric(n: int, good: int, draws: int) -> NDArray[np.float64]:
    """log P[X = x] for x = 0..draws: good ones among ``draws`` without replacement from n with ``good`` good."""
    x = np.arange(draws + 1)
    possible = (x <= good) & (draws - x <= n - good)
    x = np.where(possible, x, np.clip(x, max(0, draws - (n - good)), min(good, draws)))
    value = _log_choose(good, x) + _log_choose(n - good, draws - x) - _log_choose(n, np.array(draws))
    return np.where(possible, value, -np.inf)


def _log_choose(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def _least_exceeding(n: int, bad: int, degree: int, log_bound: float) -> int:
    """The least t with log P[Hyp(n, bad, degree) > t] <= ``log_bound``."""
    upper = np.logaddexp.accumulate(_log_hypergeometric(n, bad, degree)[::-1])[::-1]  # log P[X >= x]
    return int(np.argmax(np.append(upper[1:], -np.inf) <= log_bound))


def _log_below(n: int, alive: int, degree: int, threshold: int) -> float:
    """log P[Hyp(n, alive, degree) < threshold]."""
    return float(logsumexp(_log_hypergeometric(n, alive, degree)[:threshold]))
