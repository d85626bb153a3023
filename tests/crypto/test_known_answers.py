"""The primitives against published vectors, and masks and a whole round against vectors frozen here."""

import hashlib

import numpy as np
import pytest

from crypto.entropy import FixedEntropy
from crypto.keys import KeyPair, SigningKey, derive, seal, unseal, verify
from crypto.masks import add_masks
from crypto.secagg import simulate_round
from crypto.shamir import combine, share

fromhex = bytes.fromhex


def test_x25519_rfc_7748_section_6_1():
    alice = KeyPair(fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = KeyPair(fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    shared = fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert alice.public == fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert bob.public == fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    assert alice.agree(bob.public, b"x") == bob.agree(alice.public, b"x") == derive(shared, b"x")


def test_hkdf_rfc_5869_case_3():
    assert derive(b"\x0b" * 22, b"") == fromhex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d")


@pytest.mark.parametrize(
    ("secret", "public", "message", "signature"),
    [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595b"
            "be24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb430"
            "2aeeb00d291612bb0c00",
        ),
    ],
)
def test_ed25519_rfc_8032_section_7_1(secret, public, message, signature):
    key = SigningKey(fromhex(secret))
    assert key.public == fromhex(public)
    assert key.sign(fromhex(message)) == fromhex(signature)
    assert verify(key.public, fromhex(signature), fromhex(message))
    assert not verify(key.public, fromhex(signature), fromhex(message) + b"!")


def test_aes_256_gcm_case_16_of_the_specification():
    key = fromhex("feffe9928665731c6d6a8f9467308308") * 2
    nonce, bound = fromhex("cafebabefacedbaddecaf888"), fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    plain = fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    sealed = fromhex(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    )
    assert seal(key, nonce, plain, bound) == sealed
    assert unseal(key, nonce, sealed, bound) == plain
    with pytest.raises(ValueError, match="authenticate"):
        unseal(key, nonce, sealed, bound[:-1] + b"\0")


@pytest.mark.parametrize(
    ("key", "block", "words"),
    [
        # SP 800-38A CTR from counter 0: AES of 0, then of 1 (the hash key and the tag of GCM's test case 13)
        ("00" * 32, 0, "dc95c078a2408989ad48a21492842087"),
        ("00" * 32, 1, "530f8afbc74536b9a963b4f1c4cb738b"),
        # NIST AESAVS KeySbox, 256 bits, count 0
        ("c47b0294dbbbee0fec4757f22ffeee3587ca4730c3d33b691df38bab076bc558", 0, "46f2fb342d6f0ab477476fc501242c5f"),
    ],
)
def test_a_mask_is_the_aes_256_counter_stream_from_zero(key, block, words):
    mask = np.zeros(8, np.uint32)
    add_masks(mask, [fromhex(key)])
    assert mask[4 * block : 4 * block + 4].astype("<u4").tobytes() == fromhex(words)


def test_frozen_mask_words():
    narrow, wide = np.zeros(16, np.uint32), np.zeros(8, np.uint64)
    add_masks(narrow, [bytes(range(32))])
    add_masks(wide, [bytes(range(32))])
    assert narrow.tolist() == FROZEN_WORDS
    assert wide.tobytes() == narrow.tobytes()


def test_frozen_shares():
    shares = share(np.arange(32, dtype=np.uint8)[None], 5, 3, FixedEntropy(b"shares"))
    assert hashlib.sha256(shares.tobytes()).hexdigest() == FROZEN_SHARES
    assert combine(np.array([[4, 0, 2]]), shares[:, [4, 0, 2]])[0].tolist() == list(range(32))


@pytest.mark.parametrize("profile", ["paper", "semi_honest"])
def test_frozen_transcript_of_a_round(profile):
    """Every byte of a round with drop-outs at three stages, under fixed entropy: a change of the wire shows here."""
    transcript = hashlib.sha256()

    def tap(stage, client, way, message):
        transcript.update(f"{stage}/{client}/{way}/".encode() + message)

    updates = np.linspace(-1, 1, 8 * 9, dtype=np.float32).reshape(8, 9)
    simulate_round(
        updates,
        neighbours=6,
        threshold=4,
        profile=profile,
        weights=[1, 2, 3, 4, 5, 6, 7, 8],
        dropped={"shares": [6], "masked": [2], "unmask": [4]},
        seed=1,
        entropy=FixedEntropy(b"round"),
        tap=tap,
    )
    assert transcript.hexdigest() == FROZEN_ROUNDS[profile]


FROZEN_WORDS = [
    *(3053490418, 3500099882, 1788539817, 2155294429, 2926992880, 3852450122, 832304806, 1026998856),
    *(3736452110, 3179490485, 900311048, 2576428056, 1398162386, 794853672, 2209586816, 1449000901),
]
FROZEN_SHARES = "d2407582cb3a02c53b9502228cfc72fe57c8e66c4a4bb6534116075fffa6d781"
FROZEN_ROUNDS = {
    "paper": "b9e178294edb7cc9a22fff23836e394db2a79c425068006315517b11955f2b9e",
    "semi_honest": "7811c8a41ad8a9ccc1952488d5ed840ab72485acded0dabab81f01f60c481eb2",
}
