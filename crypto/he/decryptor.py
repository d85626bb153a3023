"""The trusted decryptor as a process of its own, which makes the keys: nobody else ever has the secret one.

    decryptor = Decryptor(PRESETS["ckks"], cohort=100, minimum_cohort=10)   # starts the process
    decryptor.public                                                        # for clients and server
    values = decryptor.open(total.to_bytes(), round=1)                      # the sum of a round

Both sides speak in messages (``frame``), each behind its length, over two pipes; the process ends with the object.
"""

import os
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from crypto.he import errors, frame, presets
from crypto.he.contexts import generate_keys, open_secret
from crypto.he.errors import HEError
from crypto.he.holders import TrustedDecryptor
from crypto.he.presets import Parameters
from crypto.he.wire import Ciphertext

START, OPEN, REFUSAL = "start", "open", "refusal"
_LENGTH = struct.Struct("<Q")
_PROGRAM = "import sys; from crypto.he.decryptor import serve; serve(sys.stdin.buffer, sys.stdout.buffer)"


class Decryptor:
    """The decryptor as the server reaches it. ``cpu_seconds`` are its own; sizes of messages are by sum opened.

    Raises ParameterError or KeyPolicyError for keys that cannot be, or a minimum that does not fit.
    """

    def __init__(self, parameters: Parameters, cohort: int, minimum_cohort: int) -> None:
        self.cpu_seconds = 0.0
        self.bytes_in: list[int] = []
        self.bytes_out: list[int] = []
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},
            start_new_session=True,  # an interrupt is for the run, which closes the pipes when it ends
        )
        weakref.finalize(self, _end, self._process)
        header = {"parameters": presets.describe(parameters), "cohort": cohort, "minimum_cohort": minimum_cohort}
        self.public = bytes(self._ask(START, header)[1][0])
        """The public context, for anyone."""

    def open(self, total: bytes, round: int) -> NDArray[Any]:
        """The values of the round's sum; raises HEError for what the decryptor refuses."""
        header, (values,) = self._ask(OPEN, {"round": round}, [total])
        self.cpu_seconds += header["cpu_seconds"]
        self.bytes_in.append(len(total))
        self.bytes_out.append(len(values))
        return np.frombuffer(values, header["type"])

    def _ask(
        self, kind: str, header: Mapping[str, Any], parts: Sequence[bytes] = ()
    ) -> tuple[dict[str, Any], list[memoryview]]:
        try:
            _write(cast(IO[bytes], self._process.stdin), frame.pack(kind, header, parts))
            answer = _read(cast(IO[bytes], self._process.stdout))
        except (OSError, EOFError):
            raise HEError("decryptor: its process has ended, and its key with it") from None
        if frame.kind_of(answer) == REFUSAL:
            said = frame.unpack(answer, REFUSAL)[0]
            raise getattr(errors, said["error"])(said["reason"])
        return frame.unpack(answer, kind)


def serve(incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    """The process's side: make keys as the first message asks, then open sums until the other side closes."""
    policy: TrustedDecryptor | None = None
    while True:
        try:
            message = _read(incoming)
        except EOFError:
            return
        started = time.process_time()
        try:
            if policy is None:
                wanted = frame.unpack(message, START)[0]
                keys = generate_keys(presets.parse(wanted["parameters"]), wanted["cohort"])
                secret = open_secret(keys.secret)
                policy = TrustedDecryptor(secret, wanted["minimum_cohort"])
                answer = frame.pack(START, {}, [keys.public])
            else:
                asked, (total,) = frame.unpack(message, OPEN)
                values = policy.open(Ciphertext.from_bytes(bytes(total), secret.public), asked["round"])
                spent = {"cpu_seconds": time.process_time() - started, "type": values.dtype.str}
                answer = frame.pack(OPEN, spent, [values.tobytes()])
        except HEError as refusal:
            answer = frame.pack(REFUSAL, {"error": type(refusal).__name__, "reason": str(refusal)}, [])
        _write(outgoing, answer)


def _write(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(_LENGTH.pack(len(message)) + message)
    pipe.flush()


def _read(pipe: IO[bytes]) -> bytes:
    """One message; raises EOFError where the other side has closed."""
    size = pipe.read(_LENGTH.size)
    message = pipe.read(_LENGTH.unpack(size)[0]) if len(size) == _LENGTH.size else b""
    if not message:
        raise EOFError
    return message


def _end(process: subprocess.Popen[bytes]) -> None:
    process.communicate()
