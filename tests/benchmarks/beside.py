"""The same victims for PyPI ``breaching``: its environment, the files it reads, and what it claims from them."""

import json
import subprocess
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attacks import Observation

BUILD = Path(__file__).resolve().parents[2] / "build"
PEER = BUILD / "peer"


@dataclass(frozen=True)
class Theirs:
    """What the peer made of one victim: its claim (B, C, H, W), CPU seconds, and evaluations of its objective."""

    claim: Tensor
    seconds: float
    evaluations: int


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


def save(
    path: Path,
    model: str,
    obs: Observation,
    labels: Tensor,
    rate: float | None = None,
    steps: Sequence[tuple[int, int]] = (),
) -> Path:
    """Write model, update and labels for a process that knows none of our types; ``steps`` with the local ``rate``."""
    names = [name for name, _ in obs.model.named_parameters()]
    arrays = {f"p{i}": p.detach().numpy() for i, p in enumerate(obs.model.parameters())}
    arrays |= {f"g{i}": obs.update[name].numpy() for i, name in enumerate(names)}
    local = {} if rate is None else {"rate": np.array(rate), "steps": np.array(steps)}
    np.savez(path, model=np.array(model), labels=labels.numpy(), **arrays, **local)
    return path


def attack_by_peer(
    python: Path,
    victims: Sequence[Path],
    config: str,
    iterations: int,
    restarts: int = 1,
    tv: float | None = None,
) -> list[Theirs]:
    """The peer's answer to each victim's file, by its own recipe ``config``, with another ``tv`` weight if given."""
    command = [python, Path(__file__).with_name("peer.py"), config, str(iterations), *victims]
    command += ["--restarts", str(restarts), *(["--tv", str(tv)] if tv is not None else [])]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, cwd=BUILD)
    told = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
    claims = [torch.from_numpy(np.load(f"{path}.claim.npy")) for path in victims]
    return [Theirs(claim, t["seconds"], t["evaluations"]) for claim, t in zip(claims, told, strict=True)]
