"""The client of one round: Bonawitz et al. (CCS 2017) figure 4, on the neighbours of Bell et al. (CCS 2020).

Each call takes the server's message of one stage and returns the answer, as bytes; out of order, twice, or against
what the client demands, it raises a SecAggError and the client never answers in this round again. A `Client` pickles
(its secrets with it), so that it can wait for the next stage wherever its owner keeps state.
"""

from __future__ import annotations

import os
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from crypto import shamir
from crypto.entropy import Entropy
from crypto.errors import (
    AlreadyUnmasked,
    BadKey,
    BadRoster,
    BadShare,
    BadSignature,
    BadUpdate,
    TooFewSurvivors,
    UnknownClient,
    WrongStage,
)
from crypto.keys import KEY_BYTES, seal, unseal, verify
from crypto.masks import Words, add_masks
from crypto.secagg import binding, survivors
from crypto.secagg.identity import Identity, RoundSecrets
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

M = TypeVar("M", bound=Message)
STEPS = {"advertise": "advertise", "shares": "share", "masked": "mask", "consistency": "endorse", "unmask": "unmask"}
"""Stage -> the method of a `Client` that answers the server's message of that stage."""


class Client:
    """Client ``index`` of one round, with the safeguards of ``profile``. Its repr shows no secret."""

    def __init__(self, index: int, profile: Profile, identity: Identity, entropy: Entropy = os.urandom) -> None:
        self.index, self.profile, self.identity = index, profile, identity
        self._entropy = entropy
        self._next = "advertise"
        self._terms: Terms
        self._context: bytes
        self._secrets: RoundSecrets
        self._roster: dict[int, Neighbour] = {}
        self._share_keys: dict[int, bytes] = {}
        self._held: dict[int, bytes] = {}  # owner -> its shares: of its mask key, then of its seed
        self._survivors: survivors.Survived

    def __repr__(self) -> str:
        return f"Client({self.index}, {self.profile.name!r}, next={self._next!r})"

    @property
    def terms(self) -> Terms:
        """The terms that this client has accepted."""
        return self._terms

    def abort(self) -> None:
        """End the round for this client: it answers nothing more in it."""
        self._next = "aborted"

    def advertise(self, message: bytes, model_hash: bytes = b"") -> bytes:
        """Terms -> Advert. ``model_hash``: of the model this client received, computed by the client itself."""
        self._enter("advertise")
        terms = Terms.decode(message, client=self.index, stage="advertise")
        if self.profile.policy is not None:
            self.profile.policy.check(terms)
        if self.index >= terms.clients:
            raise UnknownClient(self.index, "advertise", f"not one of {terms.clients} clients")
        self._terms, self._context = terms, binding.context(self.profile, terms, model_hash)
        if self.profile.fresh_keys:
            self.identity.enter(self.index, terms.session, terms.round)
            self._secrets = RoundSecrets.generate(self._entropy)
        else:
            self._secrets = self.identity.keep(self._entropy)
        keys = self._secrets.mask_key.public, self._secrets.share_key.public
        signature = b""
        if self.profile.signed:
            signature = self.identity.signing_key.sign(binding.advert_statement(self._context, self.index, *keys))
        self._next = "shares"
        return Advert(terms.session, terms.round, self.index, *keys, signature).encode()

    def share(self, message: bytes) -> bytes:
        """Roster -> Shares: agree with every neighbour and share out both secrets among them."""
        roster = self._read(Roster, message)
        self._check_roster(roster)
        self._roster = {neighbour.client: neighbour for neighbour in roster.neighbours}
        circle = sorted([*self._roster, self.index])
        secrets = np.frombuffer(self._secrets.mask_key.secret + self._secrets.seed, np.uint8).reshape(2, KEY_BYTES)
        try:
            shares = shamir.share(secrets, len(circle), self._terms.threshold, self._entropy)
        except ValueError as problem:
            raise BadRoster(self.index, "shares", str(problem)) from None
        for_each = shares.swapaxes(0, 1).reshape(len(circle), -1)
        sealed = []
        for holder, pair in zip(circle, for_each, strict=True):
            if holder == self.index:
                self._held[self.index] = pair.tobytes()
                continue
            key = self._share_keys[holder] = self._agree(holder, self._roster[holder].share_key, b"share")
            bound = binding.share_bound(self._context, self.index, holder)
            sealed.append((holder, seal(key, binding.share_nonce(self.index, holder), pair.tobytes(), bound)))
        self._next = "masked"
        commitment = binding.seed_commitment(self._secrets.seed)
        return Shares(self._terms.session, self._terms.round, self.index, commitment, tuple(sealed)).encode()

    def mask(
        self, message: bytes, update: NDArray[np.float32], weight: int = 1, rounding: bytes | None = None
    ) -> bytes:
        """Inbox -> Masked: the encoded update under the self mask and one mask per neighbour that shared.

        ``rounding`` seeds the stochastic rounding (32 bytes, this vector only); None draws it from the entropy.
        """
        inbox = self._read(Inbox, message)
        if len(inbox.sealed) + 1 < self._terms.threshold:
            raise TooFewSurvivors(self.index, "masked", f"{len(inbox.sealed)} neighbours shared: below the threshold")
        for owner, sealed in inbox.sealed:
            self._held[owner] = self._open(owner, sealed)
        try:
            words = self._terms.encoding.encode(update, weight, rounding or self._entropy(KEY_BYTES))
        except ValueError as problem:
            raise BadUpdate(self.index, "masked", str(problem)) from None
        self._hide(words, [owner for owner, _ in inbox.sealed])
        del self._secrets, self._share_keys  # only shares of them are needed from here on
        self._next = "consistency" if self.profile.consistency else "unmask"
        return Masked(self._terms.session, self._terms.round, self.index, words).encode()

    def endorse(self, message: bytes) -> bytes:
        """Survivors -> Endorsement: sign the one survivor set that this client will open shares for."""
        shown = self._read(Survivors, message)
        self._survivors = survivors.accept(shown, self._terms, self.profile, self._roster, self._held)
        statement = binding.survivor_statement(self._context, shown.alive)
        self._next = "unmask"
        signature = self.identity.signing_key.sign(statement)
        return Endorsement(self._terms.session, self._terms.round, self.index, signature).encode()

    def unmask(self, message: bytes) -> bytes:
        """UnmaskRequest -> Unmasking: seed shares of survivors, key shares of the dropped, never both of one client."""
        if self._next == "done" and self.profile.survivor_rules:
            raise AlreadyUnmasked(self.index, "unmask", "a second unmask request in one round")
        if self._next == "done":
            self._next = "unmask"
        request = self._read(UnmaskRequest, message)
        if self.profile.survivor_rules:
            survivors.check_request(request, self._terms, self.profile, self._held)
        if self.profile.consistency:
            survivors.check_endorsed(request, self._survivors, self._terms, self._context, self.identity.directory)
        self._next = "done"
        opened = request.alive if self.profile.double_mask else ()
        seeds = tuple((u, self._held[u][shamir.SHARE_BYTES :]) for u in opened if u in self._held)
        keys = tuple((u, self._held[u][: shamir.SHARE_BYTES]) for u in request.dead if u in self._held)
        return Unmasking(self._terms.session, self._terms.round, self.index, seeds, keys).encode()

    def _enter(self, stage: str) -> None:
        """Only the stage that is due may be entered; until it succeeds, no other is due."""
        if self._next != stage:
            raise WrongStage(self.index, stage, f"{self._next!r} is due")
        self.abort()

    def _read(self, kind: type[M], message: bytes) -> M:
        self._enter(kind.stage)
        terms = self._terms
        return kind.decode(message, client=self.index, stage=kind.stage, session=terms.session, round=terms.round)

    def _agree(self, peer: int, public: bytes, purpose: bytes) -> bytes:
        pair = self._secrets.share_key if purpose == b"share" else self._secrets.mask_key
        try:
            return pair.agree(public, binding.key_info(self._context, self.index, peer, purpose))
        except ValueError as problem:
            raise BadKey(self.index, "shares", f"the key of client {peer}: {problem}") from None

    def _open(self, owner: int, sealed: bytes) -> bytes:
        if owner not in self._roster:
            raise UnknownClient(self.index, "masked", f"shares of client {owner}, which is no neighbour")
        bound = binding.share_bound(self._context, owner, self.index)
        try:
            return unseal(self._share_keys[owner], binding.share_nonce(owner, self.index), sealed, bound)
        except ValueError:
            reason = f"the shares of client {owner} do not open: damaged, or made for other terms or another model"
            raise BadShare(self.index, "masked", reason) from None

    def _hide(self, words: Words, neighbours: list[int]) -> None:
        """Add the masks: a pair's mask with plus at the lower index and minus at the higher, so that it cancels."""
        plus: list[bytes] = []
        minus: list[bytes] = []
        for peer in neighbours:
            key = self._agree(peer, self._roster[peer].mask_key, b"mask")
            (plus if self.index < peer else minus).append(key)
        if self.profile.double_mask:
            plus.append(self._secrets.seed)
        add_masks(words, plus, minus, self._terms.modulus_bits)

    def _check_roster(self, roster: Roster) -> None:
        known = [neighbour.client for neighbour in roster.neighbours]
        if self.index in known or any(client >= self._terms.clients for client in known):
            raise BadRoster(self.index, "shares", "a neighbour is this client itself or takes no part in the round")
        if not self._terms.threshold - 1 <= len(known) <= self._terms.degree:
            raise BadRoster(self.index, "shares", f"{len(known)} neighbours: below the threshold or above the degree")
        own = self._secrets.mask_key.public, self._secrets.share_key.public
        keys = [key for n in roster.neighbours for key in (n.mask_key, n.share_key)]
        if len({*keys, *own}) != len(keys) + 2:
            raise BadRoster(self.index, "shares", "a public key appears twice")
        if self.profile.signed:
            for client, mask_key, share_key, signature in roster.neighbours:
                statement = binding.advert_statement(self._context, client, mask_key, share_key)
                if not verify(self.identity.directory.get(client, b""), signature, statement):
                    raise BadSignature(self.index, "shares", f"the keys of client {client} are not signed by it")
