"""The data sets by name, and the one call that loads them."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fedsim.tasks import images
from fedsim.tasks.data import Dataset
from fedsim.tasks.errors import TaskError

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": images.digits,
    "faces": images.faces,
    "photos": images.photos,
}
"""Name to loader; a loader takes the seed and its options by keyword."""


def load_dataset(name: str, options: Mapping[str, Any], seed: int) -> Dataset:
    """Load the data set ``name``; the same name, options and seed give the same examples.

    Raises TaskError for an unknown name or option, and for data that are missing, broken or do not fit together.
    """
    if name not in DATASETS:
        raise unknown("task.dataset", name, DATASETS)
    loader = DATASETS[name]
    check_options("task.data_options", options, loader, given={"seed"})
    return loader(seed=seed, **options)


def unknown(field: str, value: str, known: Mapping[str, Any], hint: str = "") -> TaskError:
    """The error for a name that is not registered, with the nearest ones that are."""
    near = difflib.get_close_matches(value, known, n=3)
    return TaskError(field, value, "unknown name", f"nearest: {', '.join(near or sorted(known))}{hint}")


def check_options(
    field: str, options: Mapping[str, Any], function: Callable[..., Any], given: set[str] | frozenset[str]
) -> None:
    """Raise TaskError for an option that ``function`` does not take by keyword, or lacks; ``given`` come from us."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = {p.name: p for p in parameters if p.name not in given}
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=3) or sorted(known)
            raise TaskError(
                f"{field}.{option}", options[option], "unknown option", f"allowed: {', '.join(near) or 'none'}"
            )
    for option, parameter in known.items():
        if (
            parameter.default is parameter.empty
            and parameter.kind is not parameter.VAR_POSITIONAL
            and option not in options
        ):
            raise TaskError(f"{field}.{option}", None, "this option is required", "set it")
