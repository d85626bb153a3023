"""Lies about who survived, so that more shares are opened than the sum needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from crypto.errors import (
    AlreadyUnmasked,
    InconsistentSurvivors,
    OverlappingSets,
    PolicyViolation,
    TooFewSurvivors,
)
from crypto.secagg import opening
from crypto.secagg.lying import Lie, lie
from crypto.secagg.messages import Masked, Survivors, Terms, UnmaskRequest
from crypto.secagg.server import Outbox


class OpensBoth(Lie):
    """Gets shares of both of the victim's secrets, by whatever it makes `request` ask for."""

    def loot(self) -> NDArray[np.float64]:
        seed_shares, key_shares = opening.by_owner(self.unmaskings)
        threshold, victim = self.terms.threshold, self.victim
        seed = opening.recover([victim], seed_shares, self.circle, threshold, self.is_seed)[victim]
        key = opening.recover([victim], key_shares, self.circle, threshold, self.is_mask_key)[victim]
        peers = [u for u in self.graph[victim] if u in self.shares]
        return self.unmasked_by(opening.pairwise_keys(key, victim, peers, self.adverts, self._context), seed)


@lie("both_lists", breaks="no_consistency", refused=OverlappingSets)
class BothLists(OpensBoth):
    """List the victim as survivor and as dropped in one request: its neighbours open both of its masks."""

    def request(self, client: int) -> UnmaskRequest:
        honest = super().request(client)
        return replace(honest, dead=tuple(sorted({*honest.dead, *self.near(client)})))


@lie("split_view", breaks="no_consistency", refused=PolicyViolation)
class SplitView(OpensBoth):
    """With a threshold of half the holders, tell one half that the victim survived and the other that it dropped."""

    @classmethod
    def bend(cls, terms: Terms) -> Terms:
        return replace(terms, threshold=(terms.degree + 1) // 2)

    def request(self, client: int) -> UnmaskRequest:
        honest = super().request(client)
        if client in self.told_alive() or client == self.victim:
            return honest
        alive = tuple(u for u in honest.alive if u != self.victim)
        return replace(honest, alive=alive, dead=tuple(sorted({*honest.dead, *self.near(client)})))

    def told_alive(self) -> list[int]:
        """The victim gives one share of its own seed; so many of its neighbours give the rest."""
        return list(self.graph[self.victim])[: self.terms.threshold - 1]


@lie("forged_dropouts", breaks="no_consistency", refused=TooFewSurvivors)
class ForgedDropouts(Lie):
    """Declare everybody dropped but the victim and the client asked, until the sum is the victim's vector."""

    def survivor_sets(self) -> Outbox:
        return {
            u: self._for(Survivors, u, clients=self.terms.clients, alive=frozenset((u, self.victim)))
            for u in self.survivors
        }

    def request(self, client: int) -> UnmaskRequest:
        honest = super().request(client)
        alive = tuple(u for u in honest.alive if u in (client, self.victim))
        dead = tuple(u for u in (*honest.alive, *honest.dead) if u not in alive)
        return replace(honest, alive=alive, dead=tuple(sorted(dead)))

    def loot(self) -> NDArray[np.float64]:
        seed_shares, key_shares = opening.by_owner(self.unmaskings)
        threshold, victim = self.terms.threshold, self.victim
        seed = opening.recover([victim], seed_shares, self.circle, threshold, self.is_seed)[victim]
        peers = [u for u in self.graph[victim] if u in self.shares]
        keys = opening.recover(peers, key_shares, self.circle, threshold, self.is_mask_key)
        pairs = {u: opening.pairwise_keys(keys[u], u, [victim], self.adverts, self._context)[victim] for u in peers}
        return self.unmasked_by(pairs, seed)


@lie("scattered_dropouts", breaks="semi_honest", refused=InconsistentSurvivors)
class ScatteredDropouts(Lie):
    """Tell each client of few enough drop-outs to pass, of others each: the sum shrinks far below the threshold."""

    def reports(self) -> dict[int, set[int]]:
        """Client -> whom it is told has dropped: each a threshold of times, none by more than its teller can bear."""
        told: dict[int, set[int]] = {u: set() for u in self.survivors}
        for target in sorted(self.survivors - {self.victim}):
            able = [u for u in self.graph[target] if u in told and self.bears(u, told[u])]
            tellers = sorted(able, key=lambda u: len(told[u]))[: self.terms.threshold]
            if len(tellers) == self.terms.threshold:
                for teller in tellers:
                    told[teller].add(target)
        return told

    def bears(self, teller: int, told: set[int]) -> bool:
        """Whether a client's circle stays at the threshold if one more of it is said to have dropped."""
        return sum(u in self.survivors for u in self.circle(teller)) - len(told) > self.terms.threshold

    def exposed(self) -> tuple[int, ...]:
        return tuple(sorted(self.survivors.difference(*self.reports().values())))

    def survivor_sets(self) -> Outbox:
        told, everyone = self.reports(), frozenset(self.survivors)
        return {
            u: self._for(Survivors, u, clients=self.terms.clients, alive=everyone - told[u]) for u in self.survivors
        }

    def request(self, client: int) -> UnmaskRequest:
        honest, gone = super().request(client), self.reports()[client]
        alive = tuple(u for u in honest.alive if u not in gone)
        return replace(honest, alive=alive, dead=tuple(sorted({*honest.dead, *gone})))

    def loot(self) -> NDArray[np.float64]:
        seed_shares, key_shares = opening.by_owner(self.unmaskings)
        kept, threshold = self.exposed(), self.terms.threshold
        gone = sorted(self.survivors.difference(kept))
        seeds = opening.recover(kept, seed_shares, self.circle, threshold, self.is_seed)
        keys = opening.recover(gone, key_shares, self.circle, threshold, self.is_mask_key)
        pairs = {
            (u, w): key
            for w in gone
            for u, key in opening.pairwise_keys(
                keys[w], w, [u for u in self.graph[w] if u in kept], self.adverts, self._context
            ).items()
        }
        words = np.zeros_like(self.total)
        for u in kept:
            words += self.arrived[u]
        opening.remove_masks(words, seeds.values(), pairs, self.terms.modulus_bits)
        return self.floats(words, len(kept))


@lie("late_message", breaks="single_mask", refused=AlreadyUnmasked)
class LateMessage(Lie):
    """Call the victim dropped, open its key, and then read its vector, which was only late."""

    asked_again = False

    def take_masked(self, client: int, message: Masked) -> None:
        super().take_masked(client, message)
        if client == self.victim:
            self.survivors.remove(client)
            self.total -= self.captured

    def request(self, client: int) -> UnmaskRequest:
        honest = super().request(client)
        if not self.asked_again:
            return honest
        return replace(honest, alive=tuple(sorted({*honest.alive, *self.near(client)})))

    def close_unmaskings(self) -> dict[int, bytes]:
        """A self mask is left: ask again, as if the victim had survived after all."""
        if self.asked_again or not self.profile.double_mask:
            return super().close_unmaskings()
        self.asked_again = True
        return self._enter("unmask", self.requests())

    def loot(self) -> NDArray[np.float64]:
        _, key_shares = opening.by_owner(self.unmaskings)
        victim = self.victim
        key = opening.recover([victim], key_shares, self.circle, self.terms.threshold, self.is_mask_key)[victim]
        peers = [u for u in self.graph[victim] if u in self.shares]
        return self.unmasked_by(opening.pairwise_keys(key, victim, peers, self.adverts, self._context), None)
