"""Secure aggregation as a defence: the server learns the sum over a cohort, and no client's own vector.

Bonawitz et al. (CCS 2017), Bell et al. (CCS 2020); the protocol itself is in ``crypto.secagg``.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from crypto.encoding import BITS_ALLOWED
from crypto.parameters import GraphParameters, InfeasibleParameters, find_complete, find_graph, find_modulus_bits
from crypto.secagg import PROFILES, Profile, Terms
from strategies.base import ClientContext, ClientUpdateError, Defence, Stage, Update

Mode = Literal["protocol", "ideal"]

FLOWER = "flower_1_41"
"""The profile that is Flower's own SecAgg+, run by ``strategies.flower_client`` and ``strategies.flower_server``."""
FLOWER_MODULUS_BITS = 32


@dataclass(frozen=True)
class SecureAggregation(Defence):
    """Masks each client's vector so that only the sum over the survivors opens.

    ``clip`` bounds each coordinate of an update, in its own units: one outside it is refused on the client, never cut
    silently. A coordinate is rounded stochastically, without bias, to one of 2**bits levels.
    """

    kind: Literal["secure_aggregation"] = "secure_aggregation"
    clip: float = 1.0
    bits: int = 16
    corrupt: float = 0.0
    """Fraction of the cohort that may collude with the server."""
    dropout: float = 0.0
    """Fraction of the cohort that may drop out without ending the round. Degree and threshold are found for both."""
    graph: Literal["complete", "sparse"] = "complete"
    """``sparse``: the smallest ring that is safe for these fractions (Bell et al.); it takes many clients."""
    neighbours: int | None = None
    """Even degree of the masking graph, in the place of the one found."""
    threshold: int | None = None
    """Shares that open a secret, in the place of the number found: the least that no split view of the survivors can
    reach twice, and on a ring at least as many as a client wants in a sum."""
    profile: str = "paper"
    """Which safeguards clients have (``crypto.secagg.profiles``), or ``flower_1_41``: Flower's own SecAgg+."""
    max_weight: int = 1
    """Largest weight (number of examples) of a client in a weighted mean; it travels inside the masked vector."""
    mode: Mode = "protocol"
    """``ideal`` lets a trusted party add the encoded vectors: the same sum, bit for bit, without the cryptography."""

    stage: ClassVar[Stage] = Stage.HIDE
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "revalidate_instances": "always"}

    def problems(self) -> list[str]:
        """Every invalid field."""
        checks = (
            (0 < self.clip < math.inf, f"clip = {self.clip}: must be positive and finite; try 1.0"),
            (
                self.bits in BITS_ALLOWED,
                f"bits = {self.bits}: must be from {BITS_ALLOWED.start} to {BITS_ALLOWED.stop - 1}; try 16",
            ),
            (self.max_weight >= 1, f"max_weight = {self.max_weight}: must be at least 1"),
            (
                self.profile in PROFILES or self.profile == FLOWER,
                f"profile = {self.profile!r}: is unknown; choose from {', '.join([*PROFILES, FLOWER])}",
            ),
            (
                self.profile != FLOWER or self.mode == "protocol",
                f"mode = {self.mode!r}: no trusted adder rounds as {FLOWER!r} does; use 'protocol'",
            ),
            (self.mode in ("protocol", "ideal"), f"mode = {self.mode!r}: must be 'protocol' or 'ideal'"),
            (
                self.neighbours is None or (self.neighbours >= 2 and self.neighbours % 2 == 0),
                f"neighbours = {self.neighbours}: must be even and at least 2; leave it out for the complete graph",
            ),
            (self.threshold is None or self.threshold >= 2, f"threshold = {self.threshold}: must be at least 2"),
            (0 <= self.corrupt < 1, f"corrupt = {self.corrupt}: a fraction of the cohort, from 0 to below 1"),
            (0 <= self.dropout < 1, f"dropout = {self.dropout}: a fraction of the cohort, from 0 to below 1"),
            (self.graph in ("complete", "sparse"), f"graph = {self.graph!r}: must be 'complete' or 'sparse'"),
        )
        return [reason for held, reason in checks if not held]

    def describe(self) -> str:
        """Protocol and profile, in words."""
        how = "added up by a trusted party (ideal)" if self.mode == "ideal" else f"masked (profile {self.profile})"
        weights = f"weighted by up to {self.max_weight} examples" if self.max_weight > 1 else "each client counted once"
        return (
            f"{self.bits}-bit encoding within ±{self.clip:g}, {how}: the server opens the cohort's sum alone, {weights}"
        )

    def cohort_problems(self, cohort: int) -> list[str]:
        """Why a round of ``cohort`` clients cannot run; empty when it can."""
        if self.problems():
            return []
        try:
            terms = self.terms(bytes(16), 1, cohort, 1)
        except InfeasibleParameters as error:
            return [f"{error}; ask more clients or change the parameters"]
        if self.profile == FLOWER:
            return self._flower_problems(terms)
        policy = self.safeguards.policy
        return policy.problems(terms) if policy is not None else []

    def _flower_problems(self, terms: Terms) -> list[str]:
        shares = terms.degree + 1
        checks = (
            (3 <= shares <= terms.clients, f"neighbours = {self.neighbours}: needs 2 to {terms.clients - 1}"),
            (
                2 <= terms.threshold < shares,
                f"threshold = {terms.threshold}: must be from 2 to {shares - 1}, one below the {shares} shares",
            ),
            (
                terms.clients << self.bits <= 1 << FLOWER_MODULUS_BITS,
                f"bits = {self.bits}: the sum over {terms.clients} clients could overflow {FLOWER_MODULUS_BITS} bits",
            ),
        )
        return [reason for held, reason in checks if not held]

    def protect(self, update: Update, context: ClientContext) -> Update:
        """Refuses: masking takes several messages, and an update must not leave outside of them."""
        raise ClientUpdateError(None, "the server asked for the update outside the secure-aggregation stages")

    @property
    def safeguards(self) -> Profile:
        """The clients' safeguards, by ``profile``; Flower's own clients have none of ours."""
        return PROFILES[self.profile]

    def demands(self, cohort: int) -> Profile:
        """The safeguards of a client that was named so many clients, and holds a lying server to what was agreed."""
        policy = self.safeguards.policy
        if policy is None or not policy.split_view:
            return self.safeguards
        agreed = self.terms(bytes(16), 1, cohort, 1)
        held = replace(
            policy, cohort=cohort, min_degree=agreed.degree, min_threshold=agreed.threshold, max_clip=self.clip
        )
        return replace(self.safeguards, policy=held)

    def _found(self, cohort: int) -> GraphParameters:
        """Degree and threshold for the fractions to be borne; raises InfeasibleParameters where none bear them."""
        sparse = self.graph == "sparse" and self.neighbours is None
        if sparse:
            policy = None if self.profile == FLOWER else self.safeguards.policy
            split = policy is not None and policy.split_view
            found = find_graph(cohort, self.corrupt, self.dropout, semi_malicious=split)
        else:
            degree = cohort - 1 if self.neighbours is None else self.neighbours
            found = find_complete(degree + 1, self.corrupt, self.dropout)
        threshold = self.threshold or max(found.threshold, self._least_sum(cohort, found.degree))
        return GraphParameters(found.degree, threshold)

    def _least_sum(self, cohort: int, degree: int) -> int:
        """On a ring, where the threshold is all that a client is sure of: the fewest survivors that it accepts."""
        if self.profile == FLOWER or degree >= cohort - 1:
            return 1
        return self.safeguards.policy.min_clients if self.safeguards.policy else 1

    def terms(self, session: bytes, round: int, cohort: int, dimension: int) -> Terms:
        """The parameters that the server proposes for one round; raises InfeasibleParameters where none fit."""
        graph = self._found(cohort)
        return Terms(
            session=session,
            round=round,
            client=0,
            clients=cohort,
            degree=graph.degree,
            threshold=graph.threshold,
            modulus_bits=find_modulus_bits(cohort, self.max_weight, self.bits),
            bits=self.bits,
            max_weight=self.max_weight,
            clip=self.clip,
            dimension=dimension,
        )


def flat(update: Update) -> NDArray[np.float32]:
    """The update as one vector, its entries in the order of their names."""
    vectors = [update[name].detach().cpu().reshape(-1) for name in sorted(update)]
    return torch.cat(vectors).to(torch.float32).numpy()


def unflat(vector: NDArray[np.float64], like: Update) -> Update:
    """The vector as an update of the names and shapes of ``like``."""
    result, start = {}, 0
    for name in sorted(like):
        size = like[name].numel()
        part = torch.from_numpy(np.ascontiguousarray(vector[start : start + size]))
        result[name] = part.reshape(like[name].shape).to(like[name].dtype)
        start += size
    return {name: result[name] for name in like}
