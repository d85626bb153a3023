"""How the server rebuilds opened secrets from shares and takes the masks they stand for off the total."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from crypto import shamir
from crypto.errors import BadShare, TooFewClients
from crypto.keys import KeyPair
from crypto.masks import Words, add_masks
from crypto.secagg import binding
from crypto.secagg.messages import Advert, Unmasking

Opened = Mapping[int, Mapping[int, bytes]]
"""Owner -> holder -> the owner's share that the holder gave."""


def by_owner(unmaskings: Mapping[int, Unmasking]) -> tuple[Opened, Opened]:
    """Sort what every holder gave by whose secret it is: (seed shares, key shares)."""
    seeds: dict[int, dict[int, bytes]] = {}
    keys: dict[int, dict[int, bytes]] = {}
    for holder, unmasking in unmaskings.items():
        for owner, share in unmasking.seeds:
            seeds.setdefault(owner, {})[holder] = share
        for owner, share in unmasking.keys:
            keys.setdefault(owner, {})[holder] = share
    return seeds, keys


def recover(
    owners: Sequence[int],
    opened: Opened,
    circle: Callable[[int], list[int]],
    threshold: int,
    genuine: Callable[[int, bytes], bool],
) -> dict[int, bytes]:
    """Every owner's 32-byte secret from ``threshold`` of its shares; ``circle`` lists an owner's holders in order.

    Raises TooFewClients when shares are missing, BadShare when a secret is not ``genuine``.
    """
    if not owners:
        return {}
    places, rows = [], []
    for owner in owners:
        given = opened.get(owner, {})
        chosen = [(place, given[holder]) for place, holder in enumerate(circle(owner)) if holder in given][:threshold]
        if len(chosen) < threshold:
            reason = f"{len(chosen)} shares of client {owner}'s secret: the threshold is {threshold}"
            raise TooFewClients(None, "unmask", reason)
        places.append([place for place, _ in chosen])
        rows.append(b"".join(share for _, share in chosen))
    shares = np.frombuffer(b"".join(rows), np.uint8).reshape(len(owners), threshold, shamir.SHARE_BYTES)
    try:
        secrets = shamir.combine(np.array(places), shares)
    except ValueError as problem:
        raise BadShare(None, "unmask", str(problem)) from None
    rebuilt = {owner: secret.tobytes() for owner, secret in zip(owners, secrets, strict=True)}
    for owner, secret in rebuilt.items():
        if not genuine(owner, secret):
            raise BadShare(owner, "unmask", "its shares rebuild another secret than it committed to")
    return rebuilt


def pairwise_keys(
    secret: bytes, owner: int, peers: Iterable[int], adverts: Mapping[int, Advert], context: bytes
) -> dict[int, bytes]:
    """The keys of the masks that ``owner``, whose secret mask key was opened, shares with each of ``peers``."""
    pair = KeyPair(secret)
    return {peer: pair.agree(adverts[peer].mask_key, binding.key_info(context, owner, peer, b"mask")) for peer in peers}


def remove_masks(
    total: Words, seeds: Iterable[bytes], pairs: Mapping[tuple[int, int], bytes], modulus_bits: int | None
) -> None:
    """Take self masks (``seeds``) and pairwise ones (``pairs``: (survivor, dropped) -> key) off ``total``, in place."""
    minus = [key for (survivor, dropped), key in pairs.items() if survivor < dropped]
    plus = [key for (survivor, dropped), key in pairs.items() if survivor > dropped]
    add_masks(total, plus, [*seeds, *minus], modulus_bits)
