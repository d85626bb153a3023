"""How a name and its options in a scenario become a loader or builder, and what is said where they do not."""

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fedsim.names import nearest
from fedsim.tasks.errors import TaskError


def unknown(field: str, value: str, known: Iterable[str], hint: str = "") -> TaskError:
    """The error for a name that is not registered, with the nearest ones that are."""
    return TaskError(field, value, "unknown name", nearest(value, known) + hint)


def check_options(
    field: str, options: Mapping[str, Any], function: Callable[..., Any], given: frozenset[str] = frozenset()
) -> None:
    """Raise TaskError for an option that ``function`` does not take or for one that it lacks; ``given`` are ours."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some compiled callables have none: calling it will tell
        return
    known = {p.name: p for p in parameters if p.name not in given and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for option in options:
            if option not in known:
                offer = nearest(option, known) if known else "leave it out: there are no options here"
                raise TaskError(f"{field}.{option}", options[option], "unknown option", offer)
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise TaskError(f"{field}.{option}", None, "this option is required", "set it")


def resolve(field: str, path: str) -> Any:
    """The object at ``"package.module:name"``; TaskError where the module does not import or has no such name."""
    module, _, attribute = path.partition(":")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a module may raise anything while it is imported
        raise TaskError(
            field,
            path,
            f"module {module!r} does not import ({type(error).__name__}: {error})",
            "run from a folder, or install a package, in which it imports",
        ) from error
    if not hasattr(found, attribute):
        raise unknown(field, path, [f"{module}:{n}" for n in vars(found) if not n.startswith("_")])
    return getattr(found, attribute)
