"""Who masks with whom: everybody, or a k-regular Harary graph on a random ring (Bell et al., CCS 2020, section 3).

A client cannot tell a random ring from one that the server chose: the degrees that `crypto.parameters` finds assume the
first, and the lie `sybil_ring` shows the second, where as few colluders as a client has neighbours open its update.
"""

from collections.abc import Mapping, Sequence

from crypto.entropy import Entropy
from crypto.errors import InfeasibleParameters

Graph = Mapping[int, tuple[int, ...]]
"""Client -> its neighbours in ascending order, itself not among them."""


def complete(clients: Sequence[int]) -> Graph:
    """Every client is everyone's neighbour."""
    everyone = tuple(sorted(clients))
    return {u: tuple(v for v in everyone if v != u) for u in everyone}


def harary(ring: Sequence[int], degree: int) -> Graph:
    """Each client on ``ring`` is joined to the ``degree / 2`` nearest on either side.

    Raises InfeasibleParameters unless ``degree`` is even, at least 2 and below the number of clients.
    """
    n = len(ring)
    if degree % 2 or not 2 <= degree < n:
        raise InfeasibleParameters(f"degree = {degree}: a ring of {n} needs an even degree from 2 to {n - 1}")
    steps = [s for reach in range(1, degree // 2 + 1) for s in (reach, -reach)]
    return {u: tuple(sorted(ring[(at + s) % n] for s in steps)) for at, u in enumerate(ring)}


def random_graph(clients: Sequence[int], degree: int, entropy: Entropy) -> Graph:
    """The graph of one round: complete when ``degree`` reaches everybody, else Harary on a uniformly random ring."""
    if degree >= len(clients) - 1:
        return complete(clients)
    return harary(sorted(clients, key=lambda _: entropy(16)), degree)
