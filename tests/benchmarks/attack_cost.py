"""Cost of one step of gradient matching, beside PyPI ``breaching`` on the same gradients, in the same run.

``python -m tests.benchmarks.attack_cost`` makes an environment for the peer under ``build/`` if there is none, saves
one LeNet gradient of a real photograph, and times both in turns: one thread each, CPU seconds, the median of three
turns. A step is one evaluation of the objective and its gradient, with all that goes with it; its cost is the
difference between a long and a short run over the difference in evaluations, so that set-up does not count.
"""

import json
import subprocess
import time
import venv
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

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
TURNS = 3
ALONE, BATCHED = 1.2, 5.0
ALONE_LONGER = 600


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


def peer_cost(python: Path, gradients: Path, config: str, lengths: tuple[int, int]) -> float:
    """Milliseconds a step."""
    runs = []
    for length in lengths:
        command = [python, Path(__file__).with_name("peer.py"), gradients, config, str(length)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True, cwd=BUILD)
        runs.append(json.loads(answer.stdout.splitlines()[-1]))
    short, long = runs
    return 1e3 * (long["seconds"] - short["seconds"]) / (long["evaluations"] - short["evaluations"])


def our_cost(victim: Photo, recipe: Recipe, restarts: int, lengths: tuple[int, int]) -> float:
    """Milliseconds a step of all restarts side by side, which never end early here."""
    endless = replace(recipe, tolerance=0.0, stalls=False)
    seconds = []
    for length in lengths:
        case = Case((victim.obs,), victim.know, generator(0))
        start = time.process_time()
        match([case], endless, Budget(iterations=length, restarts=restarts))
        seconds.append(time.process_time() - start)
    return 1e3 * (seconds[1] - seconds[0]) / (lengths[1] - lengths[0])


def main() -> None:
    torch.set_num_threads(1)
    python = set_up_peer()
    gradients = BUILD / "peer_gradients.npz"
    victim = photo("lenet", 0)
    save(victim, gradients)
    our_cost(victim, INVERTING, 1, (160, 161))  # torch's own first-use costs
    print(f"LeNet, one 3x32x32 photograph, one thread, torch {torch.__version__}, CPU milliseconds a step and restart")
    print(f"wanted: {ALONE}x alone, {BATCHED}x with the restarts side by side; the peer's L-BFGS: float32, 100 pairs")
    print(f"{'attack':25}{'of breaching':>20}{'peer':>8}{'alone':>8}{'':>8}{'restarts':>10}{'each':>8}")
    for run in RUNS:
        turns = [
            (
                peer_cost(python, gradients, run.config, run.theirs),
                our_cost(victim, run.recipe, 1, (run.ours[0], run.ours[1] + ALONE_LONGER)),
                our_cost(victim, run.recipe, run.restarts, run.ours) / run.restarts,
            )
            for _ in range(TURNS)
        ]
        peer, alone, batched = (median(column) for column in zip(*turns, strict=True))
        verdict = "met" if peer / alone >= ALONE and peer / batched >= BATCHED else "not met"
        print(
            f"{run.label:25}{run.config:>20}{peer:8.2f}{alone:8.2f}{peer / alone:7.1f}x"
            f"{run.restarts:10}{batched:8.2f}{peer / batched:7.1f}x   {verdict}"
        )


if __name__ == "__main__":
    main()
