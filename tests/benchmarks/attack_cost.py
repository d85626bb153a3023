"""Cost of one step of gradient matching, beside PyPI ``breaching`` on the same gradients, in the same run.

``python -m tests.benchmarks.attack_cost`` makes an environment for the peer under ``build/`` if there is none, saves
one LeNet gradient of a real photograph, and times both in turns: one thread each, CPU seconds, the least disturbed
of several turns. A step is one evaluation of the objective and its gradient, with all that goes with it; its cost is
the difference between a long and a short run over the difference in evaluations, so that set-up does not count.
"""

import time
from collections import defaultdict
from dataclasses import dataclass, replace

import torch

from attacks import Budget
from attacks.dlg import RECIPE as DLG
from attacks.inverting import RECIPE as INVERTING
from attacks.lbfgs import LBFGS
from attacks.optimise import Recipe, match
from attacks.registry import Case
from attacks.view import generator
from tests.attacks.pictures import Photo, photo
from tests.benchmarks.beside import BUILD, attack_by_peer, save, set_up_peer

TURNS = 4
ALONE, BATCHED = 1.2, 5.0
ALONE_LONGER = 500


@dataclass(frozen=True)
class Run:
    """A recipe of ours beside a configuration of the peer; lengths are of the short and the long run, in each's steps
    (the peer's L-BFGS makes 20 evaluations in one of its own)."""

    label: str
    recipe: Recipe
    config: str
    restarts: int
    ours: tuple[int, int]
    theirs: tuple[int, int]


RUNS = (
    Run("inverting_gradients", INVERTING, "invertinggradients", 32, (160, 460), (20, 320)),
    Run(
        "dlg, float32, 100 pairs",
        replace(
            DLG,
            matching=replace(DLG.matching, dtype=torch.float32),
            minimiser=lambda starts, iterations, boxed: LBFGS(starts, 100),
        ),
        "deepleakage",
        16,
        (160, 260),
        (1, 16),
    ),
    Run("dlg, as it ships", DLG, "deepleakage", 16, (200, 280), (1, 16)),
)


def our_run(victim: Photo, recipe: Recipe, restarts: int, length: int) -> tuple[float, int]:
    """CPU seconds and steps over all restarts, which never end early here."""
    endless = replace(recipe, tolerance=0.0, stalls=False)
    case = Case((victim.obs,), victim.know, generator(0))
    start = time.process_time()
    match([case], endless, Budget(iterations=length, restarts=restarts))
    return time.process_time() - start, restarts * length


def cost(short: list[tuple[float, int]], long: list[tuple[float, int]]) -> float:
    """Milliseconds a step, from the least disturbed short and long runs."""
    (low, few), (high, many) = min(short), min(long)
    return 1e3 * (high - low) / (many - few)


def main() -> None:
    torch.set_num_threads(1)
    python = set_up_peer()
    gradients = BUILD / "peer_gradients.npz"
    victim = photo("lenet", 0)
    save(gradients, "lenet", victim.obs, victim.label)
    our_run(victim, INVERTING, 1, 160)  # torch's own first-use costs
    print(f"LeNet, one 3x32x32 photograph, one thread, torch {torch.__version__}, CPU milliseconds a step and restart")
    print(f"wanted: {ALONE}x alone, {BATCHED}x with the restarts side by side; the peer's L-BFGS: float32, 100 pairs")
    print(f"{'attack':25}{'of breaching':>20}{'peer':>8}{'alone':>8}{'':>8}{'restarts':>10}{'each':>8}")
    for run in RUNS:
        timed: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
        for _ in range(TURNS):
            for end in (0, 1):
                told = attack_by_peer(python, [gradients], run.config, run.theirs[end])[0]
                timed["peer", end].append((told.seconds, told.evaluations))
                timed["alone", end].append(our_run(victim, run.recipe, 1, run.ours[end] + end * ALONE_LONGER))
                timed["batched", end].append(our_run(victim, run.recipe, run.restarts, run.ours[end]))
        peer, alone, batched = (cost(timed[name, 0], timed[name, 1]) for name in ("peer", "alone", "batched"))
        verdict = "met" if peer / alone >= ALONE and peer / batched >= BATCHED else "not met"
        print(
            f"{run.label:25}{run.config:>20}{peer:8.2f}{alone:8.2f}{peer / alone:7.1f}x"
            f"{run.restarts:10}{batched:8.2f}{peer / batched:7.1f}x   {verdict}"
        )


if __name__ == "__main__":
    main()
