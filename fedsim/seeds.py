"""One rule for every random number that changes a result: derive it from the seed and its purpose."""

import hashlib

import numpy as np
import torch


def derive(seed: int, *path: int | str) -> int:
    """A 63-bit seed for the purpose named by ``path``: ``derive(7, "round", 3, "client", 2, "noise")``."""
    text = "/".join([str(seed), *(f"{type(part).__name__}:{part}" for part in path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(seed: int, *path: int | str) -> torch.Generator:
    """A CPU torch generator for the purpose named by ``path``."""
    return torch.Generator().manual_seed(derive(seed, *path))


def numpy_generator(seed: int, *path: int | str) -> np.random.Generator:
    """A numpy generator for the purpose named by ``path``."""
    return np.random.default_rng(derive(seed, *path))
