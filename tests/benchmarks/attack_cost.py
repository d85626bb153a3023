"""Cost of one step of gradient matching, beside PyPI ``breaching`` on the same gradients, in the same run.

``python -m tests.benchmarks.attack_cost`` makes an environment for the peer under ``build/`` if there is none, saves
one LeNet gradient of a real photograph, and times both in turns: one thread each, CPU seconds, the least disturbed
of several turns. A step is one evaluation of the objective and its gradient, with all that goes with it; its cost is
the difference between a long and a short run over the difference in evaluations, so that set-up does not count.
"""

import json
import subprocess
import time
import venv
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from attacks import Budget
from attacks.dlg import RECIPE as DLG
from attacks.inverting import RECIPE as INVERTING
from attacks.lbfgs import LBFGS
from attacks.optimise import Recipe, match
from attacks.registry import Case
from attacks.view import generator
from tests.attacks.pictures import Photo, photo

BUILD = Path(__file__).resolve().parents[2] / "build"
PEER = BUILD / "peer"
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


def set_up_peer() -> Path:
    """The peer's interpreter, in an environment of its own, made once."""
    python = PEER / "bin" / "python"
    if not (PEER / ".ready").exists():
        print(f"making an environment for breaching in {PEER}")
        venv.create(PEER, with_pip=True, clear=True)
        torch_here = torch.__version__.split("+")[0]
        command = [python, "-m", "pip", "install", "--quiet", f"torch=={torch_here}", "breaching"]
        subprocess.run(command, check=True)
        (PEER / ".ready").touch()
    return python


def save(victim: Photo, path: Path) -> None:
    """Parameters, gradients and label, for a process that knows none of our types."""
    arrays = {f"p{i}": p.detach().numpy() for i, p in enumerate(victim.obs.model.parameters())}
    names = [name for name, _ in victim.obs.model.named_parameters()]
    arrays |= {f"g{i}": victim.obs.update[name].numpy() for i, name in enumerate(names)}
    np.savez(path, label=victim.label.numpy(), **arrays)


def peer_run(python: Path, gradients: Path, config: str, length: int) -> tuple[float, int]:
    """CPU seconds and evaluations of one run."""
    command = [python, Path(__file__).with_name("peer.py"), gradients, config, str(length)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, cwd=BUILD)
    told = json.loads(answer.stdout.splitlines()[-1])
    return told["seconds"], told["evaluations"]


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
    save(victim, gradients)
    our_run(victim, INVERTING, 1, 160)  # torch's own first-use costs
    print(f"LeNet, one 3x32x32 photograph, one thread, torch {torch.__version__}, CPU milliseconds a step and restart")
    print(f"wanted: {ALONE}x alone, {BATCHED}x with the restarts side by side; the peer's L-BFGS: float32, 100 pairs")
    print(f"{'attack':25}{'of breaching':>20}{'peer':>8}{'alone':>8}{'':>8}{'restarts':>10}{'each':>8}")
    for run in RUNS:
        timed: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
        for _ in range(TURNS):
            for end in (0, 1):
                timed["peer", end].append(peer_run(python, gradients, run.config, run.theirs[end]))
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
