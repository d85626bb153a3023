"""Key agreement, sealing, signing (Bonawitz et al., CCS 2017, section 3): X25519, HKDF, AES-256-GCM, Ed25519."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crypto.entropy import Entropy

KEY_BYTES = 32
SIGNATURE_BYTES = 64
SEAL_OVERHEAD = 16


class KeyPair:
    """An X25519 key pair; pickles as its 32 secret bytes and never shows them."""

    __slots__ = ("_key", "_secret", "public")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._key = X25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, entropy: Entropy) -> KeyPair:
        return cls(entropy(KEY_BYTES))

    @property
    def secret(self) -> bytes:
        """The 32 raw secret bytes, to be shared out with Shamir's scheme."""
        return self._secret

    def agree(self, peer: bytes, info: bytes) -> bytes:
        """The 32-byte key shared with ``peer`` for the purpose in ``info`` (RFC 7748 section 6.1, RFC 5869).

        Raises ValueError when ``peer`` is not 32 bytes or is a low-order point (all-zero shared secret).
        """
        return derive(self._key.exchange(X25519PublicKey.from_public_bytes(peer)), info)

    def __reduce__(self) -> tuple[type[KeyPair], tuple[bytes]]:
        return KeyPair, (self._secret,)

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public.hex()[:16]}...)"


class SigningKey:
    """A client's long-lived Ed25519 key (RFC 8032); its public half is what the directory lists."""

    __slots__ = ("_key", "_secret", "public")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def __reduce__(self) -> tuple[type[SigningKey], tuple[bytes]]:
        return SigningKey, (self._secret,)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()[:16]}...)"


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` on ``message`` is by the holder of ``public``."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def derive(secret: bytes, info: bytes) -> bytes:
    """32 bytes by HKDF-SHA256 (RFC 5869) without salt."""
    return HKDF(hashes.SHA256(), KEY_BYTES, None, info).derive(secret)


def seal(key: bytes, nonce: bytes, plaintext: bytes, bound: bytes) -> bytes:
    """AES-256-GCM (SP 800-38D) of ``plaintext``, bound to the public ``bound``; a nonce is used once per key."""
    return AESGCM(key).encrypt(nonce, plaintext, bound)


def unseal(key: bytes, nonce: bytes, sealed: bytes, bound: bytes) -> bytes:
    """Undo ``seal``. Raises ValueError if a bit of the text, the nonce or ``bound`` differs."""
    try:
        return AESGCM(key).decrypt(nonce, sealed, bound)
    except InvalidTag:
        raise ValueError("the sealed text does not authenticate") from None
