"""Servers that lie to Flower 1.41's SecAgg+ clients, between Flower's own workflow and them.

Each lie goes by the name of the one to our clients. Flower's clients have no policy, no signed keys, no survivor rules
and no consistency round; what they do check is the order of the stages, which stops a second unmask request
(``late_message``), and they make fresh keys in every round, which stops ``mask_reuse``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Protocol, cast

import numpy as np
from flwr.app import ConfigRecord, Message
from flwr.common import bytes_to_ndarray
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_extract,
    get_parameters_shape,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import (
    pseudo_rand_gen,
    share_keys_plaintext_concat,
    share_keys_plaintext_separate,
)
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)
from numpy.typing import NDArray

from strategies.secure_aggregation import FLOWER_MODULUS_BITS

MODULUS = 1 << FLOWER_MODULUS_BITS


class Channel(Protocol):
    """What Flower's workflow uses of a Grid."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]: ...


class FlowerLie:
    """Passes on what the workflow says, bent, and keeps what gives the victim away."""

    modulus: ClassVar[int] = MODULUS

    def __init__(self, inner: Channel, victim: int) -> None:
        """``victim``: its node id."""
        self.inner, self.victim = inner, victim
        self.public_keys: dict[int, bytes] = {}
        self.neighbours: list[int] = []
        self.masked: list[NDArray[np.int64]] = []
        self.seed_shares: dict[int, dict[bytes, None]] = {}
        self.key_shares: dict[int, dict[bytes, None]] = {}
        self._listed_alive: dict[int, int] = {}

    def bend(self, stage: str, node: int, spoken: ConfigRecord) -> None:
        """Change what a client is told, in place."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """One exchange of the workflow's."""
        messages = list(messages)
        for message in messages:
            node, spoken = message.metadata.dst_node_id, _spoken(message)
            stage = cast(str, spoken[Key.STAGE])
            self.bend(stage, node, spoken)
            if stage == Stage.COLLECT_MASKED_VECTORS and node == self.victim:
                self.neighbours = list(cast(list[int], spoken[Key.SOURCE_LIST]))
            if stage == Stage.UNMASK:
                self._listed_alive[node] = len(cast(list[int], spoken[Key.ACTIVE_NODE_ID_LIST]))
        replies = list(self.inner.send_and_receive(messages, timeout=timeout))
        for reply in replies:
            if not reply.has_error():
                self.hear(reply.metadata.src_node_id, _spoken(reply))
        return replies

    def hear(self, sender: int, spoken: ConfigRecord) -> None:
        """Keep public keys, the victim's masked vector, and all shares."""
        if Key.PUBLIC_KEY_1 in spoken:
            self.public_keys[sender] = cast(bytes, spoken[Key.PUBLIC_KEY_1])
        if Key.MASKED_PARAMETERS in spoken and sender == self.victim:
            self.masked = [bytes_to_ndarray(part) for part in cast(list[bytes], spoken[Key.MASKED_PARAMETERS])]
        if Key.SHARE_LIST in spoken:
            alive = self._listed_alive[sender]
            owners, shares = cast(list[int], spoken[Key.NODE_ID_LIST]), cast(list[bytes], spoken[Key.SHARE_LIST])
            for place, (owner, share) in enumerate(zip(owners, shares, strict=True)):
                kept = self.seed_shares if place < alive else self.key_shares
                kept.setdefault(owner, {})[share] = None

    def seed(self) -> bytes:
        """The seed of the victim's own mask."""
        return combine_shares(list(self.seed_shares[self.victim]))

    def shared_key(self, peer: int) -> bytes:
        """The seed of the mask between the victim and a neighbour: here from the victim's key."""
        return _agreed(combine_shares(list(self.key_shares[self.victim])), self.public_keys[peer])

    def bare(self) -> list[NDArray[np.int64]]:
        """The victim's words without its masks."""
        shapes = get_parameters_shape(self.masked)
        words = parameters_subtraction(self.masked, pseudo_rand_gen(self.seed(), MODULUS, shapes))
        for peer in self.neighbours:
            unmask = parameters_subtraction if self.victim > peer else parameters_addition
            words = unmask(words, pseudo_rand_gen(self.shared_key(peer), MODULUS, shapes))
        return words

    def loot(self, clip: float, levels: int) -> NDArray[np.float64]:
        """The victim's update (d,), to one of ``levels`` steps over [-clip, clip]; ValueError where shares lack."""
        if not self.masked:
            raise ValueError("no masked vector was received")
        try:
            words = self.bare()
        except KeyError as missing:
            raise ValueError(f"no share or key of node {missing} was received") from None
        factor, vectors = factor_extract(parameters_mod(words, self.modulus))
        if not 0 < factor <= levels:
            raise ValueError("masks are left: too few shares were received")
        return dequantize(vectors, clip, levels)[0] * (levels / factor)


class BothLists(FlowerLie):
    """Name the victim active and dead in one unmask message; the workflow goes on to the honest sum."""

    def bend(self, stage: str, node: int, spoken: ConfigRecord) -> None:
        if stage == Stage.UNMASK and self.victim in cast(list[int], spoken[Key.ACTIVE_NODE_ID_LIST]):
            spoken[Key.DEAD_NODE_ID_LIST] = [*cast(list[int], spoken[Key.DEAD_NODE_ID_LIST]), self.victim]

    def hear(self, sender: int, spoken: ConfigRecord) -> None:
        """The workflow gets the answer that it would have got to an honest question."""
        super().hear(sender, spoken)
        owners = cast(list[int], spoken.get(Key.NODE_ID_LIST, []))
        if owners.count(self.victim) == 2:
            spoken[Key.NODE_ID_LIST] = owners[:-1]
            spoken[Key.SHARE_LIST] = cast(list[bytes], spoken[Key.SHARE_LIST])[:-1]


class SplitView(FlowerLie):
    """Halve the threshold; tell one half of the neighbours that the victim is active, and the other that it is dead."""

    threshold = 0

    def bend(self, stage: str, node: int, spoken: ConfigRecord) -> None:
        if stage == Stage.SETUP:
            self.threshold = max(2, cast(int, spoken[Key.SHARE_NUMBER]) // 2)
            spoken[Key.THRESHOLD] = self.threshold
        told_alive = [self.victim, *self.neighbours[: self.threshold - 1]]
        if stage == Stage.UNMASK and node in self.neighbours and node not in told_alive:
            active = cast(list[int], spoken[Key.ACTIVE_NODE_ID_LIST])
            spoken[Key.ACTIVE_NODE_ID_LIST] = [u for u in active if u != self.victim]
            spoken[Key.DEAD_NODE_ID_LIST] = [*cast(list[int], spoken[Key.DEAD_NODE_ID_LIST]), self.victim]


class ForgedDropouts(FlowerLie):
    """Declare everybody dead but the victim, named as often as the threshold asks for active clients."""

    def bend(self, stage: str, node: int, spoken: ConfigRecord) -> None:
        if stage != Stage.UNMASK or node not in [self.victim, *self.neighbours]:
            return
        active = cast(list[int], spoken[Key.ACTIVE_NODE_ID_LIST])
        if self.victim in active:
            dead = cast(list[int], spoken[Key.DEAD_NODE_ID_LIST])
            spoken[Key.DEAD_NODE_ID_LIST] = [*dead, *(u for u in active if u != self.victim)]
            spoken[Key.ACTIVE_NODE_ID_LIST] = [self.victim] * len(active)

    def shared_key(self, peer: int) -> bytes:
        """From the neighbour's key."""
        return _agreed(combine_shares(list(self.key_shares[peer])), self.public_keys[self.victim])


class KeySubstitution(FlowerLie):
    """Give the victim the server's own keys as its neighbours': all its masks and shares are the server's to open."""

    def __init__(self, inner: Channel, victim: int) -> None:
        super().__init__(inner, victim)
        self._own: dict[int, tuple[bytes, bytes]] = {}
        self._for_shares = b""
        self._shares: list[bytes] = []

    def bend(self, stage: str, node: int, spoken: ConfigRecord) -> None:
        if node != self.victim:
            return
        if stage == Stage.SHARE_KEYS:
            for peer in [int(key) for key in spoken if key != Key.STAGE and int(key) != self.victim]:
                pairs = [generate_key_pairs() for _ in range(2)]
                self._own[peer] = private_key_to_bytes(pairs[0][0]), private_key_to_bytes(pairs[1][0])
                spoken[str(peer)] = [public_key_to_bytes(public) for _, public in pairs]
        if stage == Stage.COLLECT_MASKED_VECTORS:
            forged = {peer: share_keys_plaintext_concat(peer, self.victim, b"", b"") for peer in self._own}
            spoken[Key.SOURCE_LIST] = list(forged)
            spoken[Key.CIPHERTEXT_LIST] = [encrypt(self._box(peer), text) for peer, text in forged.items()]

    def hear(self, sender: int, spoken: ConfigRecord) -> None:
        """The shares that the victim meant for its neighbours are for the server."""
        super().hear(sender, spoken)
        if Key.PUBLIC_KEY_2 in spoken and sender == self.victim:
            self._for_shares = cast(bytes, spoken[Key.PUBLIC_KEY_2])
        if Key.DESTINATION_LIST in spoken and sender == self.victim:
            peers = cast(list[int], spoken[Key.DESTINATION_LIST])
            boxes = cast(list[bytes], spoken[Key.CIPHERTEXT_LIST])
            opened = [decrypt(self._box(peer), box) for peer, box in zip(peers, boxes, strict=True)]
            self._shares = [share_keys_plaintext_separate(text)[2] for text in opened]

    def _box(self, peer: int) -> bytes:
        return _agreed(self._own[peer][1], self._for_shares)

    def seed(self) -> bytes:
        return combine_shares(self._shares)

    def shared_key(self, peer: int) -> bytes:
        return _agreed(self._own[peer][0], self.public_keys[self.victim])


class ShrunkenCohort(FlowerLie):
    """Give the victim a round of its own: no neighbours, and a threshold of one."""

    def bend(self, stage: str, node: int, spoken: ConfigRecord) -> None:
        if stage == Stage.SETUP:  # one record serves all nodes
            spoken[Key.THRESHOLD] = 1
        if node != self.victim:
            return
        if stage == Stage.SHARE_KEYS:
            for peer in [key for key in spoken if key not in (Key.STAGE, str(self.victim))]:
                del spoken[peer]
        if stage == Stage.COLLECT_MASKED_VECTORS:
            spoken[Key.SOURCE_LIST], spoken[Key.CIPHERTEXT_LIST] = [], []
        if stage == Stage.UNMASK:
            spoken[Key.ACTIVE_NODE_ID_LIST], spoken[Key.DEAD_NODE_ID_LIST] = [self.victim], []

    def seed(self) -> bytes:
        """Every share of a threshold of one is the seed."""
        return combine_shares(list(self.seed_shares[self.victim])[:1])


class DegenerateModulus(FlowerLie):
    """Announce a modulus of two: masks drawn below one less are all zero, and one bit a coordinate arrives bare."""

    modulus = 2

    def bend(self, stage: str, node: int, spoken: ConfigRecord) -> None:
        if stage == Stage.SETUP:
            spoken[Key.MOD_RANGE], spoken[Key.TARGET_RANGE] = self.modulus, 1

    def loot(self, clip: float, levels: int) -> NDArray[np.float64]:
        """Of each coordinate -clip or clip, at random so that the mean is right."""
        return super().loot(clip, 1)

    def bare(self) -> list[NDArray[np.int64]]:
        return self.masked


FLOWER_LIES: Mapping[str, Callable[[Channel, int], FlowerLie]] = {
    "both_lists": BothLists,
    "split_view": SplitView,
    "forged_dropouts": ForgedDropouts,
    "key_substitution": KeySubstitution,
    "shrunken_cohort": ShrunkenCohort,
    "degenerate_modulus": DegenerateModulus,
}
"""The lies that are told to Flower's clients, by the name of the lie to ours."""


def _agreed(private: bytes, public: bytes) -> bytes:
    return generate_shared_key(bytes_to_private_key(private), bytes_to_public_key(public))


def _spoken(message: Message) -> ConfigRecord:
    return message.content.config_records[RECORD_KEY_CONFIGS]
