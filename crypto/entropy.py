"""Where secret randomness comes from: the operating system, unless a test injects its own."""

from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Entropy = Callable[[int], bytes]
"""``entropy(n)`` returns n fresh secret bytes; ``os.urandom`` everywhere but in tests."""


class FixedEntropy:
    """Reproducible bytes from an AES-256-CTR stream, for frozen test vectors only: not secret, not fresh."""

    def __init__(self, seed: bytes) -> None:
        self._stream = Cipher(algorithms.AES(seed.ljust(32, b"\0")[:32]), modes.CTR(bytes(16))).encryptor()

    def __call__(self, count: int) -> bytes:
        return self._stream.update(bytes(count))
