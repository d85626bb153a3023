"""What needs no secret key, alike under one key pair and under a joint public key: open, encrypt, add."""

from collections.abc import Sequence

from numpy.typing import ArrayLike

from crypto.he import frame, vectors
from crypto.he.contexts import PublicContext, open_public
from crypto.he.threshold import JOINT, JointContext, open_joint
from crypto.he.wire import Ciphertext

AnyContext = PublicContext | JointContext


def open_context(data: bytes) -> AnyContext:
    """The context in ``data``; raises what ``open_public`` and ``open_joint`` do."""
    return open_joint(data) if frame.kind_of(data) == JOINT else open_public(data)


def encrypt(context: AnyContext, values: ArrayLike) -> Ciphertext:
    """``values`` (d,) under the public key; raises ValueRangeError."""
    return context.encrypt(values) if isinstance(context, JointContext) else vectors.encrypt(context, values)


def add(context: AnyContext, ciphertexts: Sequence[Ciphertext]) -> Ciphertext:
    """The sum; raises what ``vectors.add`` does, before anything is added."""
    return context.add(ciphertexts) if isinstance(context, JointContext) else vectors.add(context, ciphertexts)
