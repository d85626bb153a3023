"""Keys and parameters as bytes, and opened once per process.

Two types, so that a server's code cannot be given a secret key by mistake: ``PublicContext`` has no place for one,
and ``open_public`` refuses bytes that carry one. Neither has Galois or relinearisation keys: sums need none.
Keys come from SEAL's generator, seeded by the operating system.
"""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn

from crypto.he import frame, presets, seal
from crypto.he.bfv import BFVPacking
from crypto.he.ckks import CKKSPacking
from crypto.he.errors import CorruptMessageError, ParameterError, SecretKeyExposedError
from crypto.he.presets import CKKS, Parameters

PUBLIC, SECRET = "public", "secret"
_OPEN = 8  # contexts kept open per process and type


@dataclass(frozen=True)
class Keys:
    """One key pair: ``public`` for anyone, ``secret`` for those who may decrypt (it contains ``public``)."""

    public: bytes = field(repr=False)
    secret: bytes = field(repr=False)


class _Live:
    """SEAL objects belong to one process; their bytes travel."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__}: stays in its process; send the bytes it was opened from")


class PublicContext(_Live):
    """Enough to encrypt and to add, never to decrypt.

    ``digest`` names the context in every ciphertext; ``cohort`` is the most ciphertexts that one sum may hold.
    """

    def __init__(self, data: bytes) -> None:
        header, parts = frame.unpack(data, PUBLIC)
        cohort = header.get("cohort")
        if set(header) != {"parameters", "cohort"} or len(parts) != 1 or not isinstance(header["parameters"], dict):
            raise CorruptMessageError("context: its fields are not those of a public context")
        if type(cohort) is not int or cohort < 1:
            raise ParameterError(f"cohort = {cohort!r}: must be a positive integer")
        self.parameters: Parameters = presets.parse(header["parameters"])
        self.cohort: int = cohort
        self.digest = hashlib.sha256(data).hexdigest()
        self.seal = seal.build(self.parameters)
        with seal.scratch() as file:
            key = file.load(seal.api().PublicKey(), self.seal, parts[0])
        self.encryptor: Any = seal.api().Encryptor(self.seal, key)
        self.packing: CKKSPacking | BFVPacking = (
            CKKSPacking(self.parameters, self.seal, cohort)
            if isinstance(self.parameters, CKKS)
            else BFVPacking(self.parameters, self.seal, cohort)
        )

    def sum_error(self) -> float:
        """The stated error of any slot of the sum of a whole cohort."""
        return self.parameters.sum_error(self.cohort)

    def __repr__(self) -> str:
        return f"PublicContext({self.parameters}, cohort={self.cohort}, digest={self.digest[:12]})"


class SecretContext(_Live):
    """What the holder of the secret key opens: decrypts, and may encrypt in the seeded symmetric form."""

    def __init__(self, data: bytes) -> None:
        _, parts = frame.unpack(data, SECRET)
        if len(parts) != 2:
            raise CorruptMessageError("context: its fields are not those of a secret context")
        self.public = open_public(bytes(parts[0]))
        with seal.scratch() as file:
            key = file.load(seal.api().SecretKey(), self.public.seal, parts[1])
        self.encryptor: Any = seal.api().Encryptor(self.public.seal, key)
        self.decryptor: Any = seal.api().Decryptor(self.public.seal, key)

    def __repr__(self) -> str:
        return f"SecretContext({self.public!r})"


def generate_keys(parameters: Parameters, cohort: int) -> Keys:
    """A fresh key pair for sums of at most ``cohort`` vectors; raises ParameterError for unsound parameters.

    ``cohort`` fixes the range of one client's values: ``parameters.largest_sum`` over it.
    """
    if cohort < 1 or parameters.largest_sum < cohort:
        raise ParameterError(f"cohort = {cohort}: must be from 1 to {int(parameters.largest_sum)} for {parameters}")
    context, api = seal.build(parameters), seal.api()
    generator = api.KeyGenerator(context)
    public_key = api.PublicKey()
    generator.create_public_key(public_key)
    header = {"parameters": presets.describe(parameters), "cohort": cohort}
    with seal.scratch() as file:
        public = frame.pack(PUBLIC, header, [file.save(public_key)])
        secret = frame.pack(SECRET, {}, [public, file.save(generator.secret_key())])
    return Keys(public, secret)


def open_public(data: bytes) -> PublicContext:
    """The public context in ``data``, opened once per process.

    Raises SecretKeyExposedError for bytes that carry a secret key, CorruptMessageError or ParameterError for others.
    """
    if carries_secret_key(data):
        raise SecretKeyExposedError("context: carries the secret key where only a public one may be; send Keys.public")
    return _open_public(data)


def open_secret(data: bytes) -> SecretContext:
    """The secret context in ``data``, opened once per process; raises CorruptMessageError or ParameterError."""
    return _open_secret(data)


def carries_secret_key(data: bytes) -> bool:
    """Whether there is a secret context in these bytes: what a server asserts of everything that reaches it."""
    return frame.holds(data, SECRET)


_open_public = lru_cache(_OPEN)(PublicContext)
_open_secret = lru_cache(_OPEN)(SecretContext)
