"""Microsoft SEAL as TenSEAL exposes it (``tenseal.sealapi``), and its objects as bytes.

``tenseal.sealapi`` is used in place of TenSEAL's vectors: it has the seeded symmetric form, starts no threads,
makes no Galois or relinearisation keys, and does not warn about long vectors on the terminal.
It saves to paths alone, so a file in memory stands between; no key touches a disk where the system has ``memfd``.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from crypto.he.errors import CorruptMessageError, ParameterError
from crypto.he.presets import CKKS, Parameters

SECURITY_BITS = 128
"""Classical security that SEAL enforces, by the table of the HomomorphicEncryption.org standard (2018)."""

_HEADER, _SIZE = 16, slice(8, 16)  # SEAL 4: Serialization::SEALHeader and its field `size`


def api() -> Any:
    """The module ``tenseal.sealapi``, imported when first needed."""
    import tenseal.sealapi as sealapi

    return sealapi


def build(parameters: Parameters) -> Any:
    """The SEALContext for these parameters; raises ParameterError when SEAL refuses them at ``SECURITY_BITS``."""
    seal = api()
    scheme = seal.SCHEME_TYPE.CKKS if isinstance(parameters, CKKS) else seal.SCHEME_TYPE.BFV
    try:
        chosen = seal.EncryptionParameters(scheme)
        chosen.set_poly_modulus_degree(parameters.degree)
        chosen.set_coeff_modulus(seal.CoeffModulus.Create(parameters.degree, list(parameters.chain)))
        if not isinstance(parameters, CKKS):
            chosen.set_plain_modulus(parameters.plain_modulus)
        context = seal.SEALContext(chosen, True, getattr(seal.SEC_LEVEL_TYPE, f"TC{SECURITY_BITS}"))
    except (RuntimeError, ValueError, TypeError) as refusal:
        raise ParameterError(f"{parameters}: {refusal}") from None
    if not context.parameters_set():
        raise ParameterError(f"{parameters}: {context.parameters_error_message()}")
    if not context.using_keyswitching():
        raise ParameterError(f"{parameters}: needs two primes or more, the last of which never travels")
    if not isinstance(parameters, CKKS) and not context.first_context_data().qualifiers().using_batching:
        raise ParameterError(f"{parameters}: plain_modulus must be a prime that is 1 modulo {2 * parameters.degree}")
    return context


class Scratch:
    """One reusable file through which SEAL objects become bytes and come back."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self._path = path

    def save(self, value: Any) -> bytes:
        """The bytes of any SEAL object that can be saved."""
        value.save(self._path)
        return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)

    def load(self, value: Any, context: Any, data: bytes | memoryview) -> Any:
        """``value`` filled from ``data``; raises CorruptMessageError unless all of it is one valid object."""
        if len(data) < _HEADER or int.from_bytes(data[_SIZE], "little") != len(data):
            raise CorruptMessageError("message: a part is not one SEAL object of the length it states")
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)
        try:
            value.load(context, self._path)
        except (RuntimeError, ValueError) as refusal:
            raise CorruptMessageError(f"message: SEAL refuses a {type(value).__name__}: {refusal}") from None
        return value


@contextmanager
def scratch() -> Iterator[Scratch]:
    """A file in memory where the system has them, else a private temporary file; it is gone afterwards."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("seal")
        try:
            yield Scratch(descriptor, f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return
    descriptor, path = tempfile.mkstemp()
    try:
        yield Scratch(descriptor, path)
    finally:
        os.close(descriptor)
        os.unlink(path)
