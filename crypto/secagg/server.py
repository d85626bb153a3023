"""The server of one round: collects each stage's messages, relays what clients owe each other, and opens the sum.

`start` gives the first messages, `receive` takes one answer, `advance` closes the stage and gives the next messages;
whoever has not answered by then has dropped out. A message that is wrong in any way raises a SecAggError and changes
nothing. What goes out at each stage is one small method, so that a lying server (`crypto.secagg.lies`) is a subclass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crypto.entropy import Entropy
from crypto.errors import BadShare, DuplicateMessage, MalformedMessage, TooFewClients, UnknownClient, WrongStage
from crypto.graph import Graph, random_graph
from crypto.keys import KeyPair
from crypto.masks import Words
from crypto.secagg import binding, opening
from crypto.secagg.messages import (
    Advert,
    Endorsement,
    Inbox,
    Masked,
    Neighbour,
    Roster,
    Shares,
    Survivors,
    Terms,
    Unmasking,
    UnmaskRequest,
)
from crypto.secagg.profiles import Profile
from crypto.secagg.wire import Message

Outbox = Mapping[int, Message]
Stage = tuple[type[Message], Callable[[int, Any], None], Callable[[], dict[int, bytes]]]
M = TypeVar("M", bound=Message)


class Server:
    """The honest server. After the last `advance`, `total` is the modular sum over `survivors`."""

    def __init__(
        self,
        terms: Terms,
        profile: Profile,
        model_hash: bytes = b"",
        entropy: Entropy = os.urandom,
        ring: Entropy | None = None,
    ) -> None:
        """``terms`` as every client is to see them, whatever their ``client``; ``model_hash``: of the model sent.

        ``ring`` draws the masking graph, which decides what drop-outs cost; None takes ``entropy``.
        """
        self.terms, self.profile = terms, profile
        self.stage = "advertise"
        self.graph: Graph = {}
        self.adverts: dict[int, Advert] = {}
        self.shares: dict[int, Shares] = {}
        self.survivors: set[int] = set()
        self.endorsements: dict[int, bytes] = {}
        self.unmaskings: dict[int, Unmasking] = {}
        self.total: Words = np.zeros(terms.encoding.length, terms.encoding.word)
        self._context = binding.context(profile, terms, model_hash)
        self._entropy, self._ring = entropy, ring or entropy
        self._due: set[int] = set(range(terms.clients))
        self._answered: set[int] = set()
        self._stages: dict[str, Stage] = {
            "advertise": (Advert, self.take_advert, self.close_adverts),
            "shares": (Shares, self.take_shares, self.close_shares),
            "masked": (Masked, self.take_masked, self.close_masked),
            "consistency": (Endorsement, self.take_endorsement, self.close_endorsements),
            "unmask": (Unmasking, self.take_unmasking, self.close_unmaskings),
        }

    def start(self) -> dict[int, bytes]:
        """The terms, for every client."""
        return self._send(self.offers())

    def receive(self, client: int, message: bytes) -> None:
        """Take ``client``'s answer of this stage. Raises a SecAggError naming it, and keeps nothing, if it is wrong."""
        if self.stage not in self._stages:
            raise WrongStage(client, self.stage, "the round is over")
        kind, take, _ = self._stages[self.stage]
        if client not in self._due:
            raise UnknownClient(client, self.stage, "not a client from whom a message is due")
        if client in self._answered:
            raise DuplicateMessage(client, self.stage, "has already answered")
        session, round = self.terms.session, self.terms.round
        take(client, kind.decode(message, client=client, stage=self.stage, session=session, round=round))
        self._answered.add(client)

    def advance(self) -> dict[int, bytes]:
        """Close the stage: the next stage's messages, none at the end. Raises TooFewClients, or BadShare at the end."""
        self._due, self._answered = self._answered, set()
        return self._stages[self.stage][2]()

    def result(self) -> tuple[NDArray[np.float64], int]:
        """The survivors' weighted sum in data units, and the sum of their weights, once the round is over."""
        if self.stage != "done":
            raise WrongStage(None, self.stage, "the sum is not open")
        try:
            return self.terms.encoding.decode(self.total, len(self.survivors))
        except ValueError as problem:
            raise BadShare(None, "unmask", str(problem)) from None

    # What goes out: who is whose neighbour, and each stage's messages by recipient.

    def offers(self) -> Outbox:
        return {client: replace(self.terms, client=client) for client in range(self.terms.clients)}

    def neighbourhoods(self) -> Graph:
        return random_graph(sorted(self.adverts), self.terms.degree, self._ring)

    def rosters(self) -> Outbox:
        known = {u: Neighbour(u, a.mask_key, a.share_key, a.signature) for u, a in self.adverts.items()}
        return {
            u: self._for(Roster, u, neighbours=tuple(known[v] for v in neighbours))
            for u, neighbours in self.graph.items()
        }

    def inboxes(self) -> Outbox:
        mail: dict[int, list[tuple[int, bytes]]] = {u: [] for u in self.adverts}
        for owner in sorted(self.shares):
            for holder, sealed in self.shares[owner].sealed:
                mail[holder].append((owner, sealed))
        return {u: self._for(Inbox, u, sealed=tuple(mail[u])) for u in self.shares}

    def survivor_sets(self) -> Outbox:
        shown = frozenset(self.survivors)
        return {u: self._for(Survivors, u, clients=self.terms.clients, alive=shown) for u in self.survivors}

    def requests(self) -> Outbox:
        asked = self.endorsements if self.profile.consistency else self.survivors
        return {u: self.request(u) for u in asked}

    def request(self, client: int) -> UnmaskRequest:
        """The honest question to one survivor: seeds of the survivors around it, keys of the dropped."""
        circle = [u for u in self.circle(client) if u in self.shares]
        alive = tuple(u for u in circle if u in self.survivors)
        dead = tuple(u for u in circle if u not in self.survivors)
        signed = tuple((u, self.endorsements[u]) for u in alive if u in self.endorsements)
        return self._for(UnmaskRequest, client, alive=alive, dead=dead, endorsements=signed)

    def circle(self, client: int) -> list[int]:
        """The holders of a client's shares, ascending: its neighbours and itself."""
        return sorted([*self.graph[client], client])

    # What comes in.

    def take_advert(self, client: int, message: Advert) -> None:
        if bool(message.signature) != self.profile.signed:
            raise MalformedMessage(client, "advertise", "keys are signed in one profile and not in the other")
        self.adverts[client] = message

    def take_shares(self, client: int, message: Shares) -> None:
        if tuple(holder for holder, _ in message.sealed) != self.graph[client]:
            raise UnknownClient(client, "shares", "the shares are not for exactly this client's neighbours")
        self.shares[client] = message

    def take_masked(self, client: int, message: Masked) -> None:
        try:
            self.total += message.vector(self.terms.encoding)
        except ValueError as problem:
            raise MalformedMessage(client, "masked", str(problem)) from None
        self.survivors.add(client)

    def take_endorsement(self, client: int, message: Endorsement) -> None:
        self.endorsements[client] = message.signature

    def take_unmasking(self, client: int, message: Unmasking) -> None:
        asked = self.request(client)
        seeds = asked.alive if self.profile.double_mask else ()
        if tuple(u for u, _ in message.seeds) != seeds or tuple(u for u, _ in message.keys) != asked.dead:
            raise UnknownClient(client, "unmask", "the shares are not those that were asked for")
        self.unmaskings[client] = message

    # How a stage closes.

    def close_adverts(self) -> dict[int, bytes]:
        if len(self.adverts) < self.terms.threshold:
            raise TooFewClients(None, "advertise", f"{len(self.adverts)} keys: the threshold is {self.terms.threshold}")
        self.graph = self.neighbourhoods()
        return self._enter("shares", self.rosters())

    def close_shares(self) -> dict[int, bytes]:
        self._require(self.shares, self.shares)
        return self._enter("masked", self.inboxes())

    def close_masked(self) -> dict[int, bytes]:
        self._require(self.survivors, self.survivors)
        if self.profile.consistency:
            return self._enter("consistency", self.survivor_sets())
        return self._enter("unmask", self.requests())

    def close_endorsements(self) -> dict[int, bytes]:
        self._require(self.endorsements, self.endorsements)
        return self._enter("unmask", self.requests())

    def close_unmaskings(self) -> dict[int, bytes]:
        self.open()
        return self._enter("done", {})

    def open(self) -> None:
        """Turn the masked total into the sum of the survivors' vectors."""
        seed_shares, key_shares = opening.by_owner(self.unmaskings)
        owners = sorted(self.survivors) if self.profile.double_mask else []
        seeds = opening.recover(owners, seed_shares, self.circle, self.terms.threshold, self.is_seed)
        dead = {u: [v for v in self.graph[u] if v in self.survivors] for u in self.shares if u not in self.survivors}
        masking = [u for u, peers in dead.items() if peers]
        keys = opening.recover(masking, key_shares, self.circle, self.terms.threshold, self.is_mask_key)
        pairs = {
            (survivor, u): key
            for u in masking
            for survivor, key in opening.pairwise_keys(keys[u], u, dead[u], self.adverts, self._context).items()
        }
        opening.remove_masks(self.total, seeds.values(), pairs, self.terms.modulus_bits)

    def is_seed(self, owner: int, secret: bytes) -> bool:
        return binding.seed_commitment(secret) == self.shares[owner].commitment

    def is_mask_key(self, owner: int, secret: bytes) -> bool:
        return KeyPair(secret).public == self.adverts[owner].mask_key

    def _require(self, present: Mapping[int, object] | set[int], of: Mapping[int, object] | set[int]) -> None:
        """Somebody, and a threshold of every client's circle, must still be there."""
        if not of:
            raise TooFewClients(None, self.stage, "nobody answered as the protocol asks")
        for client in of:
            left = sum(u in present for u in self.circle(client))
            if left < self.terms.threshold:
                reason = f"{left} left around client {client}: the threshold is {self.terms.threshold}"
                raise TooFewClients(None, self.stage, reason)

    def _for(self, kind: type[M], client: int, **fields: Any) -> M:
        return kind(self.terms.session, self.terms.round, client, **fields)

    def _enter(self, stage: str, messages: Outbox) -> dict[int, bytes]:
        self.stage, self._due = stage, set(messages)
        return self._send(messages)

    def _send(self, messages: Outbox) -> dict[int, bytes]:
        return {client: messages[client].encode() for client in sorted(messages)}
