"""Memory that does not suffice, said plainly: PyTorch's own words tell bytes, but neither of whom nor what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device: PyTorch says so in words alone on the processor."""
    told = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in told or "bad_alloc" in told


@contextmanager
def naming_memory(attack: str) -> Iterator[None]:
    """Turn a failed allocation into a MemoryError that names ``attack`` and a remedy; other errors stay as they are."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        asked = re.search(r"allocate (\d[\d.]* \w+)", str(error))
        raise MemoryError(
            f"memory ran out in {attack}{f' when it asked for {asked[1]} more' if asked else ''}, which shows no "
            "protection; give the process more memory, run fewer side by side, or attack a smaller model or batch"
        ) from error
