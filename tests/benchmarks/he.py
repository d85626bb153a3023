"""Homomorphic aggregation by preset and form: bytes, CPU seconds, and error; one thread.

    python -m tests.benchmarks.he

Seconds are the process's CPU time for 1e6 parameters, messages included: encrypting ends with bytes, adding reads two
messages and writes one, decrypting reads one. Rounds over all rows alternate, so that the machine's other load falls
on all alike; the first is left out, the figure is the median. The error is the largest of the mean of 100 clients
(8,192 coordinates, standard normal, clipped at 6 for BFV) against the mean of what was encrypted: for BFV the
quantised values. ``ckks-single`` is the default with one value a slot, as NVFlare and TenSEAL fill them: what is gained
beside it comes of the chain alone. The last row is what NVFlare runs: TenSEAL's own vectors and serialisation.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tenseal

from crypto.he.contexts import SecretContext, generate_keys, open_secret
from crypto.he.presets import CKKS, PRESETS, Parameters
from crypto.he.quantised import encoding_for, quantise
from crypto.he.seeded import encrypt_seeded
from crypto.he.vectors import add, decrypt, encrypt, mean
from crypto.he.wire import Ciphertext

PARAMETERS, COHORT, COORDINATES, ROUNDS, CLIP = 1_000_000, 100, 8192, 5, 6.0
SINGLE = CKKS(8192, (60, 60), 40, values_per_slot=1)
BYTES = {"ckks full": 33, "ckks seeded": 16.5, "ckks-single full": 33, "ckks-single seeded": 16.5, "bfv full": 22}
SPEED = {"ckks full": 1.2, "ckks-single full": 1.2, "ckks seeded": 3.0, "ckks-single seeded": 3.0}


@dataclass
class Row:
    """One preset and form, and what was measured."""

    name: str
    encrypt: Callable[[Any], Any]
    add: Callable[[Any, Any], Any]
    decrypt: Callable[[Any], Any]
    mean: Callable[[list[Any]], np.ndarray]
    values: Callable[[int, int], np.ndarray]
    about: str
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"encrypt": [], "add": [], "decrypt": []})
    bytes_per_parameter: float = 0.0

    def measure(self) -> None:
        vector = self.values(0, PARAMETERS)
        made = self.timed("encrypt", lambda: self.encrypt(vector))
        total = self.timed("add", lambda: self.add(made, made))
        self.timed("decrypt", lambda: self.decrypt(total))
        self.bytes_per_parameter = len(made) / PARAMETERS

    def timed(self, what: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        done = work()
        self.seconds[what].append(time.process_time() - start)
        return done

    def median(self, what: str) -> float:
        return statistics.median(self.seconds[what][1:])

    def error(self) -> float:
        """The largest error of the mean of a full cohort."""
        vectors = [self.values(client, COORDINATES) for client in range(COHORT)]
        return float(np.abs(self.mean([self.encrypt(v) for v in vectors]) - np.mean(vectors, axis=0)).max())


def normal(client: int, size: int) -> np.ndarray:
    return np.random.default_rng([7, client]).standard_normal(size)


def row(preset: str, parameters: Parameters, form: str) -> Row:
    context = open_secret(generate_keys(parameters, COHORT).secret)
    public = context.public

    def quantised(client: int, size: int) -> np.ndarray:
        update = np.clip(normal(client, size), -CLIP, CLIP).astype(np.float32)
        return quantise(encoding_for(public, size, CLIP), update, 1, bytes([client]) * 32)

    def read(data: bytes) -> Ciphertext:
        return Ciphertext.from_bytes(data, public)

    def make(source: SecretContext, vector: np.ndarray) -> bytes:
        made = encrypt(source.public, vector) if form == "full" else encrypt_seeded(source, vector)
        return made.to_bytes()

    return Row(
        f"{preset} {form}",
        lambda vector: make(context, vector),
        lambda a, b: add(public, [read(a), read(b)]).to_bytes(),
        lambda total: decrypt(context, read(total)),
        lambda messages: mean(context, add(public, [read(m) for m in messages])),
        quantised if parameters.scheme == "bfv" else normal,
        f"{parameters.scheme.upper():<5} {parameters.degree:>6} {list(parameters.chain)!s:<18}",
    )


def nvflare_as_shipped() -> Row:
    """``ts.ckks_vector`` under its default public-key encryption, cut to the slot count."""
    parameters = PRESETS["ckks-nvflare"]
    scheme = tenseal.SCHEME_TYPE.CKKS
    context = tenseal.context(scheme, parameters.degree, coeff_mod_bit_sizes=list(parameters.chain), n_threads=1)
    context.global_scale = 2.0**parameters.scale_bits

    class Message(list):
        def __len__(self) -> int:
            return sum(len(chunk) for chunk in self)

    def cut(vector: np.ndarray) -> list[np.ndarray]:
        return [vector[start : start + parameters.capacity] for start in range(0, len(vector), parameters.capacity)]

    def make(vector: np.ndarray) -> Message:
        return Message(tenseal.ckks_vector(context, chunk.tolist()).serialize() for chunk in cut(vector))

    def total(*messages: Message) -> Message:
        loaded = (
            [tenseal.ckks_vector_from(context, chunk) for chunk in column] for column in zip(*messages, strict=True)
        )
        return Message(sum(column[1:], start=column[0]).serialize() for column in loaded)

    def read(message: Message) -> np.ndarray:
        return np.concatenate([tenseal.ckks_vector_from(context, chunk).decrypt() for chunk in message])

    return Row(
        "NVFlare's own calls",
        make,
        total,
        read,
        lambda messages: read(total(*messages)) / len(messages),
        normal,
        f"CKKS  {parameters.degree:>6} {list(parameters.chain)!s:<18}",
    )


def main() -> None:
    compared = {"ckks-nvflare", "ckks-tutorial"}
    rows = [
        row(preset, parameters, form)
        for preset, parameters in {**PRESETS, "ckks-single": SINGLE}.items()
        for form in ("full", "seeded")
        if form == "full" or preset not in compared
    ]
    rows.append(nvflare_as_shipped())
    for _ in range(ROUNDS):
        for each in rows:
            each.measure()
    print(f"{'preset and form':<20} scheme degree {'chain':<18} {'B/param':>7} {'encrypt s':>9} {'add s':>6} "
          f"{'decrypt s':>9} {'error':>8}")  # fmt: skip
    for each in rows:
        figures = [each.median(what) for what in ("encrypt", "add", "decrypt")]
        print(f"{each.name:<20} {each.about} {each.bytes_per_parameter:>7.2f} {figures[0]:>9.3f} {figures[1]:>6.3f} "
              f"{figures[2]:>9.3f} {each.error():>8.1e}", flush=True)  # fmt: skip
    found = {each.name: each for each in rows}
    for name, most in BYTES.items():
        print(f"{name}: {found[name].bytes_per_parameter:.2f} bytes per parameter; at most {most} wanted")
    reference, shipped = (found[name].median("encrypt") for name in ("ckks-nvflare full", "NVFlare's own calls"))
    for name, least in SPEED.items():
        taken = found[name].median("encrypt")
        print(
            f"{name}: encrypts {reference / taken:.2f} times faster than NVFlare's preset on the same code, "
            f"{shipped / taken:.2f} times faster than NVFlare's own calls; at least {least} wanted"
        )


if __name__ == "__main__":
    main()
