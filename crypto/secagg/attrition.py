"""Who must stay for a sum to open: the protocol's own rules about drop-outs, for a trusted adder that keeps to them."""

from collections.abc import Collection, Mapping

from crypto.entropy import Entropy
from crypto.errors import TooFewClients
from crypto.graph import Graph, random_graph
from crypto.secagg.messages import STAGES, Terms
from crypto.secagg.profiles import Profile


def survivors(terms: Terms, profile: Profile, leaves_at: Mapping[int, str], ring: Entropy) -> frozenset[int]:
    """The clients in the sum of a round in which each client of ``leaves_at`` is silent from a stage on.

    ``ring`` draws the masking graph, as `crypto.secagg.Server` does. Raises TooFewClients where the server, or clients
    that keep to ``profile``, would let no sum open.
    """
    if strangers := set(leaves_at.values()).difference(STAGES):
        raise ValueError(f"no such stage: {', '.join(sorted(strangers))}")
    gone = {client: STAGES.index(stage) for client, stage in leaves_at.items()}
    staying = {
        stage: frozenset(u for u in range(terms.clients) if gone.get(u, len(STAGES)) > at)
        for at, stage in enumerate(STAGES)
    }
    if len(staying["advertise"]) < terms.threshold:
        raise TooFewClients(None, "advertise", f"{len(staying['advertise'])} keys: the threshold is {terms.threshold}")
    graph = random_graph(sorted(staying["advertise"]), terms.degree, ring)
    for stage in ("shares", "masked", "consistency") if profile.consistency else ("shares", "masked"):
        if not staying[stage]:
            raise TooFewClients(None, stage, "nobody answered as the protocol asks")
        _require(terms, graph, staying[stage], staying[stage], stage)
    alive, sharing = staying["masked"], staying["shares"]
    least = profile.policy.min_clients if profile.policy and profile.survivor_rules else 1
    if len(alive) < least:
        raise TooFewClients(None, "unmask", f"{len(alive)} survivors: clients demand at least {least}")
    masking = {u for u in sharing - alive if alive.intersection(graph[u])}
    _require(terms, graph, masking | alive if profile.double_mask else masking, staying["unmask"], "unmask")
    return alive


def _require(terms: Terms, graph: Graph, owners: Collection[int], present: frozenset[int], stage: str) -> None:
    """A threshold of the circle of each of ``owners`` must be ``present``."""
    for owner in sorted(owners):
        left = len(present.intersection(graph[owner])) + (owner in present)
        if left < terms.threshold:
            reason = f"{left} left around client {owner}: the threshold is {terms.threshold}"
            raise TooFewClients(None, stage, reason)
