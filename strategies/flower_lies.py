"""A server that lies to Flower 1.41's SecAgg+ clients, between Flower's own workflow and them."""

from collections.abc import Iterable, Mapping
from typing import Protocol, cast

import numpy as np
from flwr.app import ConfigRecord, Message
from flwr.common import bytes_to_ndarray
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_extract,
    get_parameters_shape,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key
from numpy.typing import NDArray

from strategies.secure_aggregation import FLOWER_MODULUS_BITS

MODULUS = 1 << FLOWER_MODULUS_BITS


class Channel(Protocol):
    """What Flower's workflow uses of a Grid."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]: ...


class FlowerBothLists:
    """Name the victim active and dead in one unmask message: its neighbours open both of its masks.

    The workflow gets the answers as if it had asked honestly, so that the round goes on to the honest sum.
    """

    def __init__(self, inner: Channel, victim: int) -> None:
        """``victim``: its node id."""
        self.inner, self.victim = inner, victim
        self.public_keys: dict[int, bytes] = {}
        self.neighbours: list[int] = []
        self.masked: list[NDArray[np.int64]] = []
        self.seed_shares: list[bytes] = []
        self.key_shares: list[bytes] = []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Pass on what the workflow says, with the victim in both lists, and keep what gives it away."""
        messages = list(messages)
        stage = _spoken(messages[0])[Key.STAGE]
        for message in messages:
            spoken = _spoken(message)
            if stage == Stage.COLLECT_MASKED_VECTORS and message.metadata.dst_node_id == self.victim:
                self.neighbours = list(cast(list[int], spoken[Key.SOURCE_LIST]))
            if stage == Stage.UNMASK and self.victim in cast(list[int], spoken[Key.ACTIVE_NODE_ID_LIST]):
                spoken[Key.DEAD_NODE_ID_LIST] = [*cast(list[int], spoken[Key.DEAD_NODE_ID_LIST]), self.victim]
        replies = list(self.inner.send_and_receive(messages, timeout=timeout))
        for reply in replies:
            if not reply.has_error():
                self._hear(_spoken(reply), reply.metadata.src_node_id)
        return replies

    def _hear(self, spoken: ConfigRecord, sender: int) -> None:
        if Key.PUBLIC_KEY_1 in spoken:
            self.public_keys[sender] = cast(bytes, spoken[Key.PUBLIC_KEY_1])
        if Key.MASKED_PARAMETERS in spoken and sender == self.victim:
            self.masked = [bytes_to_ndarray(part) for part in cast(list[bytes], spoken[Key.MASKED_PARAMETERS])]
        if Key.SHARE_LIST in spoken:
            owners, shares = cast(list[int], spoken[Key.NODE_ID_LIST]), cast(list[bytes], spoken[Key.SHARE_LIST])
            if owners.count(self.victim) == 2:
                self.seed_shares.append(shares[owners.index(self.victim)])
                self.key_shares.append(shares[-1])
                spoken[Key.NODE_ID_LIST], spoken[Key.SHARE_LIST] = owners[:-1], shares[:-1]

    def loot(self, clip: float, levels: int) -> NDArray[np.float64]:
        """The victim's update (d,), to one of ``levels`` steps over [-clip, clip]; ValueError where shares lack."""
        if not (self.masked and self.seed_shares):
            raise ValueError("no masked vector, or no share of its masks, was received")
        seed, key = combine_shares(self.seed_shares), combine_shares(self.key_shares)
        shapes = get_parameters_shape(self.masked)
        words = parameters_subtraction(self.masked, pseudo_rand_gen(seed, MODULUS, shapes))
        for peer in self.neighbours:
            shared = generate_shared_key(bytes_to_private_key(key), bytes_to_public_key(self.public_keys[peer]))
            unmask = parameters_subtraction if self.victim > peer else parameters_addition
            words = unmask(words, pseudo_rand_gen(shared, MODULUS, shapes))
        factor, vectors = factor_extract(parameters_mod(words, MODULUS))
        return dequantize(vectors, clip, levels)[0] * (levels / factor)


FLOWER_LIES: Mapping[str, type[FlowerBothLists]] = {"both_lists": FlowerBothLists}
"""The lies that are told to Flower's clients, by the name of the lie to ours."""


def _spoken(message: Message) -> ConfigRecord:
    return message.content.config_records[RECORD_KEY_CONFIGS]
