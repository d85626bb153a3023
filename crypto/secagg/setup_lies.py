"""Lies told before a vector is masked: about keys, terms, models, rounds and who sits in the cohort."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from crypto import shamir
from crypto.errors import BadShare, BadSignature, PolicyViolation, ReplayedRound
from crypto.graph import Graph, harary
from crypto.keys import seal, unseal
from crypto.secagg import binding, opening
from crypto.secagg.identity import RoundSecrets
from crypto.secagg.lying import Lie, lie
from crypto.secagg.messages import Inbox, Masked, Roster, Terms
from crypto.secagg.profiles import PROFILES
from crypto.secagg.server import Outbox


@lie("key_substitution", breaks="semi_honest", refused=BadSignature)
class KeySubstitution(Lie):
    """Give the victim the server's own keys as its neighbours': every mask and share is then the server's to open."""

    impostors: dict[int, RoundSecrets]

    def rosters(self) -> Outbox:
        honest = dict(super().rosters())
        roster = honest[self.victim]
        assert isinstance(roster, Roster)
        self.impostors = {n.client: RoundSecrets.generate(self._entropy) for n in roster.neighbours}
        fakes = tuple(
            n._replace(
                mask_key=self.impostors[n.client].mask_key.public, share_key=self.impostors[n.client].share_key.public
            )
            for n in roster.neighbours
        )
        return {**honest, self.victim: replace(roster, neighbours=fakes)}

    def inboxes(self) -> Outbox:
        """The victim's mail is the impostors'; to everybody else it has dropped out."""
        honest = {
            u: replace(box, sealed=tuple(row for row in box.sealed if row[0] != self.victim))
            for u, box in super().inboxes().items()
            if isinstance(box, Inbox)
        }
        forged = []
        for peer in self.impostors:
            bound = binding.share_bound(self._context, peer, self.victim)
            nonce = binding.share_nonce(peer, self.victim)
            forged.append((peer, seal(self.share_key(peer), nonce, bytes(2 * shamir.SHARE_BYTES), bound)))
        return {**honest, self.victim: self._for(Inbox, self.victim, sealed=tuple(forged))}

    def share_key(self, peer: int) -> bytes:
        info = binding.key_info(self._context, peer, self.victim, b"share")
        return self.impostors[peer].share_key.agree(self.adverts[self.victim].share_key, info)

    def take_masked(self, client: int, message: Masked) -> None:
        super().take_masked(client, message)
        if client == self.victim:
            self.survivors.remove(client)

    def close_masked(self) -> dict[int, bytes]:
        return {}

    def loot(self) -> NDArray[np.float64]:
        shares: dict[int, bytes] = {}
        for peer, sealed in self.shares[self.victim].sealed:
            bound = binding.share_bound(self._context, self.victim, peer)
            both = unseal(self.share_key(peer), binding.share_nonce(self.victim, peer), sealed, bound)
            shares[peer] = both[shamir.SHARE_BYTES :]
        seed = opening.recover([self.victim], {self.victim: shares}, self.circle, self.terms.threshold, self.is_seed)
        info = {peer: binding.key_info(self._context, peer, self.victim, b"mask") for peer in self.impostors}
        public = self.adverts[self.victim].mask_key
        keys = {peer: secrets.mask_key.agree(public, info[peer]) for peer, secrets in self.impostors.items()}
        return self.unmasked_by(keys, seed[self.victim])


@lie("degenerate_modulus", breaks="server_chosen_parameters", refused=PolicyViolation)
class DegenerateModulus(Lie):
    """Announce a modulus of one: masks drawn below it are all zero."""

    @classmethod
    def bend(cls, terms: Terms) -> Terms:
        return replace(terms, modulus_bits=0)

    def loot(self) -> NDArray[np.float64]:
        return self.floats(self.captured)


@lie("shrunken_cohort", breaks="server_chosen_parameters", refused=PolicyViolation)
class ShrunkenCohort(Lie):
    """Give every client a cohort of its own: no neighbours, and a threshold of one."""

    @classmethod
    def bend(cls, terms: Terms) -> Terms:
        return replace(terms, degree=0, threshold=1)

    def neighbourhoods(self) -> Graph:
        return dict.fromkeys(self.adverts, ())

    def loot(self) -> NDArray[np.float64]:
        seed_shares, _ = opening.by_owner(self.unmaskings)
        seed = opening.recover([self.victim], seed_shares, self.circle, self.terms.threshold, self.is_seed)
        return self.unmasked_by({}, seed[self.victim])


@lie("inconsistent_models", breaks="server_chosen_parameters", refused=BadSignature)
class InconsistentModels(Lie):
    """Send all but the victim a model whose update is zero (Pasquini et al., CCS 2022): the sum is the victim's."""

    muted_model = True
    opens_sum = True

    def mutes(self, client: int) -> bool:
        return client != self.victim

    def loot(self) -> NDArray[np.float64]:
        return self.floats(self.total, len(self.survivors))


@lie("mask_reuse", breaks="mask_reuse", refused=ReplayedRound)
class MaskReuse(Lie):
    """Run a round twice, with a model whose update is zero: the victim's first masked vector less its second is bare.

    In a weighted round the loot stays times the victim's weight, which cancels out of the words.
    """

    rounds = 2
    muted_model = True

    def mutes(self, client: int) -> bool:
        return self.earlier is not None

    def neighbourhoods(self) -> Graph:
        return self.earlier.graph if self.earlier else super().neighbourhoods()

    def loot(self) -> NDArray[np.float64]:
        assert self.earlier is not None
        if self.shares.keys() != self.earlier.shares.keys():
            raise BadShare(None, "masked", "other clients took part the second time: the masks do not cancel")
        encoding = self.terms.encoding
        signed = np.dtype(f"<i{self.captured.dtype.itemsize}")
        return (self.earlier.captured - self.captured)[: encoding.dimension].view(signed) * encoding.step


@lie("sybils", breaks=tuple(PROFILES), refused=None)
class Sybils(Lie):
    """Fill seats with clients that collude: the sum less their vectors is the victim's, or that of the few others."""

    opens_sum = True

    def recruits(self) -> tuple[int, ...]:
        return tuple(u for u in range(self.terms.clients) if u != self.victim)

    def exposed(self) -> tuple[int, ...]:
        return tuple(sorted(self.survivors.difference(self.confided)))

    def loot(self) -> NDArray[np.float64]:
        words = self.total.copy()
        for client in self.survivors.intersection(self.confided):
            words -= self.confided[client].words
        return self.floats(words, len(self.exposed()))


@lie("sybil_ring", breaks=tuple(PROFILES), refused=None)
class SybilRing(Lie):
    """Seat the victim among colluders on the ring: its neighbours alone hold all of its masks and shares."""

    by_seat = True

    def recruits(self) -> tuple[int, ...]:
        others = [u for u in range(self.terms.clients) if u != self.victim]
        return tuple(others[: self.terms.degree])

    def neighbourhoods(self) -> Graph:
        half, seats = self.terms.degree // 2, [u for u in self.allies if u in self.adverts][: self.terms.degree]
        rest = [u for u in self.adverts if u != self.victim and u not in seats]
        if not rest:
            return super().neighbourhoods()
        return harary([*seats[:half], self.victim, *seats[half:], *rest], self.terms.degree)

    def loot(self) -> NDArray[np.float64]:
        if strangers := set(self.graph[self.victim]).difference(self.confided):
            raise BadShare(None, "unmask", f"client {min(strangers)}, a neighbour of the victim, does not collude")
        near = {u: self.confided[u] for u in self.graph[self.victim]}
        shares = {u: told.seed_shares[self.victim] for u, told in near.items()}
        seed = opening.recover([self.victim], {self.victim: shares}, self.circle, self.terms.threshold, self.is_seed)
        keys = {u: told.mask_keys[self.victim] for u, told in near.items()}
        return self.unmasked_by(keys, seed[self.victim] if self.profile.double_mask else None)
