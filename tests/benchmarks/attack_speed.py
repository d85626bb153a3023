"""Reconstructions per CPU second beside PyPI ``breaching``: inverting gradients on the same victims, in one run.

``python -m tests.benchmarks.attack_speed [VICTIMS]``, default 8; 64 is the whole benchmark, an hour of the peer. It is
given our weight of total variation, and a quarter of the victims with its own. Every victim gets 4 restarts of 2000
iterations at a sigmoid LeNet, on one thread; both choose a restart by their own objective. Ours spends a part of its
iterations on the search, and of the rest what it needs on refining what it found. Victims and restarts run side by side
here, one after another there. CPU seconds, since other programs may share the machine.
"""

import statistics
import sys
import time

import torch
from torch import Tensor

from attacks import Budget
from attacks.inverting import LONE
from attacks.metrics import psnr
from tests.attacks.pictures import attack, photo
from tests.benchmarks.beside import BUILD, attack_by_peer, save, set_up_peer

ITERATIONS, RESTARTS = 2000, 4
WANTED = 5.0
"""Times the reconstructions per CPU second, at a median PSNR that is no worse."""


def decibels(claim: Tensor, truth: Tensor) -> float:
    """PSNR of one claimed image."""
    return float(psnr(claim, truth, (0.0, 1.0)))


def main() -> None:
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    python = set_up_peer()
    victims = [photo("lenet", seed) for seed in range(1000, 1000 + count)]
    files = [save(BUILD / f"speed_{i}.npz", "lenet", v.obs, v.label) for i, v in enumerate(victims)]
    attack("inverting_gradients", victims[:1], Budget(iterations=160, restarts=1))  # torch's own first-use costs

    start = time.process_time()
    _, ours, _ = attack("inverting_gradients", victims, Budget(iterations=ITERATIONS, restarts=RESTARTS))
    seconds = time.process_time() - start
    print(f"{count} photographs, {RESTARTS} restarts of {ITERATIONS} iterations, torch {torch.__version__}", flush=True)
    print(f"{'':36}{'CPU s each':>12}{'median PSNR':>13}{'ours':>8}")
    print(f"{'inverting_gradients':36}{seconds / count:12.2f}{statistics.median(ours):13.2f}", flush=True)
    for name, tv, some in (("with our weight", LONE.matching.tv, count), ("as it ships", None, max(1, count // 4))):
        theirs = attack_by_peer(python, files[:some], "invertinggradients", ITERATIONS, RESTARTS, tv)
        cost = statistics.mean(t.seconds for t in theirs) / (seconds / count)
        found = statistics.median(decibels(t.claim, v.image) for t, v in zip(theirs, victims, strict=False))
        same = statistics.median(ours[:some])
        met = "met" if cost >= WANTED and same >= found else "not met"
        what = f"breaching, {name}, {some} of them"
        each = statistics.mean(t.seconds for t in theirs)
        print(f"{what:36}{each:12.2f}{found:13.2f}{same:8.2f}{cost:8.1f}x   {met}", flush=True)


if __name__ == "__main__":
    main()
