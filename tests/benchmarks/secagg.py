"""Secure aggregation: a round against its floor, against Flower's SecAgg+, and against its own cost model; Shamir.

    python -m tests.benchmarks.secagg [floor] [shamir] [model] [flower] [flower-100]

All figures are this process's CPU seconds, one thread. The floor is what the round's primitives alone would take, from
unit costs measured in bare loops over `cryptography` and numpy, before and after the round, none of it fedsim's code:
masks * d * c_mask + 2nk agreements + 2n key pairs + nk sealed shares + n * d * c_round, with masks = A(k+1) + A + Dk
for A alive and D dropped; `paper` adds nk + nt signature verifications. Flower's round is its own, unmodified, on plain
calls (see flower_secagg.py); its last row takes minutes.
"""

import os

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import logging
import sys
import time
from collections.abc import Callable

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crypto.parameters import find_graph
from crypto.secagg import PROFILES, RoundResult, simulate_round
from crypto.secagg.cost import Setting, predict
from crypto.secagg.units import measure_units
from crypto.shamir import share
from tests.benchmarks.flower_secagg import flower_round

WORDS = 1_000_000
FLOORS = {  # (n, k, t, d, dropped): bar of semi_honest, of paper
    (100, 22, 13, 1_000_000, 10): (1.3, 1.5),
    (1000, 48, 27, 100_000, 100): (1.5, 1.7),
}
PEERS = {(10, 1_000_000): 5, (30, 100_000): 30}
LONG_PEERS = {(100, 10_000): 150}
MODELLED = [
    (100, 22, 13, 100_000, 10),
    (300, 30, 17, 10_000, 30),
    (100, 99, 60, 1000, 10),
    (20, 19, 14, 300_000, 2),
    (1000, 48, 27, 10_000, 100),
]


def spent(work: Callable[[], object], times: int = 1, repeats: int = 7) -> float:
    """CPU seconds of one ``work``: the least over repeats, so that the floor is low."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(times):
            work()
        taken.append((time.process_time() - start) / times)
    return min(taken)


def bare_units() -> dict[str, float]:
    """Unit costs of the floor, in loops that do nothing else."""
    key, other = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key().public_bytes_raw()
    signer, message = Ed25519PrivateKey.generate(), bytes(120)
    public, signature = signer.public_key().public_bytes_raw(), signer.sign(message)
    words, update = np.zeros(WORDS, np.uint32), np.linspace(-1, 1, WORDS, dtype=np.float32)
    block = 1 << 15
    zeros, buffer = bytes(4 * block), np.empty(4 * block + 16, np.uint8)
    fresh = buffer[: 4 * block].view(np.uint32)

    def stream() -> object:
        return Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor()

    def mask() -> None:
        cipher = stream()
        for start in range(0, WORDS, block):
            part = words[start : start + block]
            cipher.update_into(zeros[: part.nbytes], buffer)
            np.add(part, fresh[: len(part)], out=part)

    def stochastic_round() -> None:
        cipher = stream()
        for start in range(0, WORDS, block // 2):
            part = update[start : start + block // 2]
            level = np.multiply(part, 32767.5, dtype=np.float64)
            level += 32767.5
            draws = np.frombuffer(cipher.update(bytes(4 * len(part))), np.uint32)
            level += np.multiply(draws, 2.0**-32, dtype=np.float64)
            words[start : start + block // 2] = level.astype(np.int64).view(np.uint64)

    def agree() -> bytes:
        secret = key.exchange(X25519PublicKey.from_public_bytes(other))
        return HKDF(SHA256(), 32, None, bytes(48)).derive(secret)

    return {
        "mask": spent(mask) / WORDS,
        "round": spent(stochastic_round) / WORDS,
        "agreement": spent(agree, 100),
        "key pair": spent(lambda: X25519PrivateKey.generate().public_key().public_bytes_raw(), 100),
        "seal": spent(lambda: AESGCM(bytes(32)).encrypt(bytes(12), bytes(78), bytes(40)), 200),
        "verify": spent(lambda: Ed25519PublicKey.from_public_bytes(public).verify(signature, message), 50),
    }


def floor(units: dict[str, float], n: int, k: int, t: int, d: int, dropped: int, profile: str) -> float:
    alive = n - dropped
    masks = alive * (k + 1) + alive + dropped * k
    seconds = masks * d * units["mask"] + 2 * n * k * units["agreement"] + 2 * n * units["key pair"]
    seconds += n * k * units["seal"] + n * d * units["round"]
    return seconds + (n * k + n * t) * units["verify"] * (profile == "paper")


def our_round(updates: np.ndarray, k: int, t: int, dropped: int, profile: str) -> tuple[float, RoundResult]:
    """CPU seconds of a whole call, and its result; the sum is checked."""
    start = time.process_time()
    result = simulate_round(
        updates,
        neighbours=None if k == len(updates) - 1 else k,
        threshold=t,
        profile=profile,
        clip=1.0,
        dropped={"masked": list(range(dropped))},
    )
    seconds = time.process_time() - start
    error = np.abs(result.sum - updates[dropped:].sum(0, dtype=np.float64)).max()
    if error > 2 * len(updates) / (1 << 16):
        raise AssertionError(f"the sum is off by {error}")
    return seconds, result


def uniform(n: int, d: int) -> np.ndarray:
    return (
        np.random.default_rng(0).uniform(-1, 1, (n, d)).astype(np.float32)
        if n * d < 2e7
        else np.concatenate([np.random.default_rng(i).random((1, d), np.float32) for i in range(n)])
    )


def show_floors() -> None:
    print("\nagainst the floor                               round s   floor s   ratio   bar")
    for (n, k, t, d, dropped), bars in FLOORS.items():
        updates = uniform(n, d)
        for profile, bar in zip(("semi_honest", "paper"), bars, strict=True):
            before = bare_units()
            seconds, _ = our_round(updates, k, t, dropped, profile)
            after = bare_units()
            units = {name: min(before[name], after[name]) for name in before}
            least = floor(units, n, k, t, d, dropped, profile)
            name = f"{profile} n={n} k={k} t={t} d={d:.0e} D={dropped}"
            print(f"{name:46} {seconds:8.2f}  {least:8.2f}  {seconds / least:6.2f}  {bar:4}", flush=True)
    print("units: " + ", ".join(f"{name} {cost * 1e6:.3g} us" for name, cost in units.items()))


def show_flower(peers: dict[tuple[int, int], int]) -> None:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    print(
        "\nagainst Flower's SecAgg+         Flower s  semi_honest s  ratio  bar  paper s  ratio  bytes up a parameter"
    )
    for (n, d), bar in peers.items():
        updates, t = uniform(n, d), n // 2 + 1
        theirs, their_bytes = flower_round(updates, shares=1.0, threshold=t / n)
        ours, result = our_round(updates, n - 1, t, 0, "semi_honest")
        signed, _ = our_round(updates, n - 1, t, 0, "paper")
        our_bytes = result.cost.bytes_up["masked"] / n / d
        print(
            f"n={n} d={d:.0e} t={t} complete graph {theirs:8.2f}  {ours:13.3f}  {theirs / ours:5.0f}  {bar:3}"
            f"  {signed:7.3f}  {theirs / signed:5.0f}  {their_bytes:.2f} and {our_bytes:.2f}",
            flush=True,
        )


def show_shamir() -> None:
    secrets = np.random.default_rng(0).integers(0, 256, (100, 32), dtype=np.uint8)
    ours = spent(lambda: share(secrets, 100, 67, os.urandom), repeats=9) / len(secrets)
    secret = secrets[0].tobytes()
    theirs = spent(lambda: [Shamir.split(67, 100, secret[i : i + 16]) for i in (0, 16)], repeats=3)
    print(
        f"\nShamir, 32 bytes, n=100 t=67, a secret: {ours * 1e6:.0f} us, pycryptodome {theirs * 1e3:.0f} ms,", end=" "
    )
    print(f"ratio {theirs / ours:.0f}, bar 1000")


def show_model() -> None:
    print("\ncost model                                   measured s  predicted s  ratio (bar 0.8 to 1.2)")
    for n, k, t, d, dropped in MODELLED:
        for profile in ("semi_honest", "paper"):
            units = measure_units(PROFILES[profile])
            _, result = our_round(uniform(n, d), k, t, dropped, profile)
            measured = sum(sum(parties.values()) for parties in result.cpu_seconds.values())
            expected = predict(Setting(n, k, t, d, PROFILES[profile], dropped), units).total()
            name = f"{profile} n={n} k={k} d={d} D={dropped}"
            print(f"{name:44} {measured:10.3f}  {expected:11.3f}  {expected / measured:.2f}")
    print("\nextrapolated, d=1e6, 5 % corrupt, 5 % drop out, 12 bits: client s and MB up, server s")
    for n in (10**4, 10**5, 10**6):
        for profile, semi_malicious in (("semi_honest", False), ("paper", True)):
            graph = find_graph(n, 0.05, 0.05, semi_malicious=semi_malicious)
            setting = Setting(n, graph.degree, graph.threshold, 10**6, PROFILES[profile], n // 20)
            cost = predict(setting, measure_units(PROFILES[profile]))
            client, server = cost.total("client") / n, cost.total("server")
            print(f"{profile} n={n:.0e} k={graph.degree} t={graph.threshold}".ljust(40), end=" ")
            print(f"{client:.3f}  {cost.bytes_up / n / 1e6:.2f}  {server:.0f}")


SHOWS: dict[str, Callable[[], None]] = {
    "floor": show_floors,
    "shamir": show_shamir,
    "model": show_model,
    "flower": lambda: show_flower(PEERS),
    "flower-100": lambda: show_flower(LONG_PEERS),
}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or SHOWS:
        SHOWS[chosen]()
