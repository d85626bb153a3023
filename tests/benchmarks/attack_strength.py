"""What we and PyPI ``breaching`` rebuild from the same updates: four photographs, in one gradient or in local steps.

``python -m tests.benchmarks.attack_strength [SEEDS]``, default 5: the victims and the budget of
``tests/known_results/test_honest.py`` (an untrained ReLU ConvNet; 400 iterations of 8 restarts for both). The peer has
its own inverting gradients, which simulate local steps, with its own weight of total variation and with ours. It is
told which label each local step met; we are told the labels in no order.
"""

import statistics
import sys

import torch
from torch import Tensor

from attacks import Knowledge, Observation, Reconstruction, reconstruct
from attacks.inverting import RECIPE
from attacks.matching import local_steps
from tests.attacks.conftest import gradient
from tests.attacks.test_fedavg import train
from tests.benchmarks.beside import BUILD, attack_by_peer, save, set_up_peer
from tests.known_results.ground import UNIT, load_dataset, matched
from tests.known_results.test_honest import FULL, photographs

RATE = 0.03


def victim(seed: int, steps: bool) -> tuple[Tensor, Tensor, Observation, Knowledge]:
    """Photographs, their labels in the client's order, the update, and what the server is told."""
    data = load_dataset("photos", {}, 0)
    x, y, model, _ = photographs(data, seed, 4)
    facts = {"batch_size": 4, "labels": y.sort().values, "value_range": UNIT}
    if not steps:
        return x, y, Observation(model, gradient(model, x, y), "gradient"), Knowledge(data.input_shape, 6, **facts)
    know = Knowledge(data.input_shape, 6, **facts, learning_rate=RATE, local_batch_size=1)
    return x, y, Observation(model, train(model, x, y, RATE, local_steps(know)), "delta"), know


def decibels(claims: list[Tensor], truths: list[Tensor]) -> list[float]:
    """Mean PSNR of each batch."""
    made = (Reconstruction(claim.clamp(0, 1), None, torch.zeros(1)) for claim in claims)
    return [float(matched(claim, truth).mean()) for claim, truth in zip(made, truths, strict=True)]


def main() -> None:
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    python = set_up_peer()
    for what, steps, names in (
        ("one gradient of 4", False, ("absolute_matching", "inverting_gradients")),
        ("4 local steps x 1", True, ("fedavg_inversion",)),
    ):
        cases = [victim(seed, steps) for seed in range(count)]
        truths = [x for x, *_ in cases]
        for name in names:
            ours = [reconstruct(name, obs, know, seed=s, budget=FULL) for s, (_, _, obs, know) in enumerate(cases)]
            tell(f"{what}, {name}", decibels([claim.inputs for claim in ours], truths))
        files = [
            save(
                BUILD / f"strength_{seed}_{steps}.npz",
                "convnet",
                obs,
                y,
                *((RATE, local_steps(know)) if steps else ()),
            )
            for seed, (_, y, obs, know) in enumerate(cases)
        ]
        for weight, tv in (("as it ships", None), ("with our weight", RECIPE.matching.tv)):
            theirs = attack_by_peer(python, files, "invertinggradients", FULL.iterations, FULL.restarts, tv)
            tell(f"{what}, breaching, {weight}", decibels([t.claim for t in theirs], truths))


def tell(what: str, figures: list[float]) -> None:
    """A line: the median over seeds, and every figure."""
    each = ", ".join(f"{figure:.1f}" for figure in figures)
    print(f"{what:48}{statistics.median(figures):7.1f} dB   ({each})", flush=True)


if __name__ == "__main__":
    main()
