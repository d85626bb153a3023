"""Seeded symmetric ciphertexts: half the bytes, for whoever may hold the secret key.

Under the secret key the second polynomial of a ciphertext is uniform and independent of the message, so SEAL sends
the 64-byte seed that expands to it (SEAL 4, ``Encryptor::encrypt_symmetric`` and ``Serializable``). Once loaded it is
an ordinary ciphertext, and adds to any other under the same keys.
"""

import numpy as np
from numpy.typing import ArrayLike

from crypto.he.contexts import SecretContext
from crypto.he.errors import HEError
from crypto.he.vectors import decrypt, encrypt, encrypt_chunks
from crypto.he.wire import Ciphertext


def encrypt_seeded(context: SecretContext, values: ArrayLike) -> Ciphertext:
    """``values`` (d,) under the secret key, in half the bytes of ``encrypt``; raises ValueRangeError."""
    vector = context.public.packing.check(values)
    chunks = encrypt_chunks(context.public, vector, context.encryptor.encrypt_symmetric)
    return Ciphertext(context.public.digest, "seeded", len(vector), 1, chunks)


def check_forms_agree(context: SecretContext, values: ArrayLike) -> float:
    """The largest difference between both forms of ``values`` once decrypted; 0 for BFV.

    Raises HEError when it exceeds the parameters' stated error of two ciphertexts.
    """
    forms = (encrypt(context.public, values), encrypt_seeded(context, values))
    full, seeded = (decrypt(context, form) for form in forms)
    difference = float(np.abs(full - seeded).max())
    if difference > (allowed := context.public.parameters.sum_error(2)):
        raise HEError(f"seeded and full ciphertexts decrypt {difference:g} apart: more than the stated {allowed:g}")
    return difference
